//! What a scrape shows after flows.

use enforcer_common::{
    abi::{Direction, EVENT_AUDIT, EVENT_REPLY, Event, Totals, Traffic, event_kind},
    reason::Reason,
};

use super::*;
use crate::{
    cluster::plan::NameChange,
    flow::event::tests::{addr, allowed, denied, directory, flow, pod},
};

struct Scraped {
    registries: [Registry; 2],
    flows: FlowMetrics,
}

impl Scraped {
    fn new(config: &str, most: usize) -> Self {
        let mut registries = [Registry::with_prefix("enforcer"), Registry::with_prefix("hubble")];
        let [ours, hubbles] = &mut registries;
        let config = config.parse().unwrap();
        let flows = FlowMetrics::bounded(&config, "w1", Duration::ZERO, (ours, hubbles), most);
        Self { registries, flows }
    }

    fn count(&mut self, events: impl IntoIterator<Item = Event>) -> &mut Self {
        for event in events {
            self.flows.look(&flow(&event));
        }
        self
    }

    /// The series and their values, but for those at zero.
    fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        for registry in &self.registries {
            prometheus_client::encoding::text::encode_registry(&mut text, registry).unwrap();
        }
        let is_series = |line: &&str| !line.starts_with('#') && !line.ends_with(" 0");
        let mut lines: Vec<_> = text.lines().filter(is_series).map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn icmp(kind: u16, reply: bool) -> Event {
    let flags = if reply { EVENT_REPLY } else { 0 };
    Event { proto: 1, src_port: kind, dst_port: 0, tcp_flags: 0, flags, ..allowed() }
}

fn spoofed() -> Event {
    let (kind, reason) = (event_kind::DROP, Reason::SpoofedSource as u8);
    Event { kind, reason, rule: 0, ifindex: 5, direction: Direction::Egress as u8, ..allowed() }
}

/// The first answer of a connection to 10.0.0.9, which is nobody's here.
fn answered() -> Event {
    let (kind, reason) = (event_kind::TRACE, Reason::Established as u8);
    let flags = EVENT_REPLY;
    Event {
        kind,
        reason,
        rule: 0,
        src: addr(9),
        dst: addr(1),
        ifindex: 5,
        flags,
        tcp_flags: 0x12,
        ..allowed()
    }
}

fn to_world(event: Event) -> Event {
    Event { src: addr(1), dst: addr(9), ifindex: 5, direction: Direction::Egress as u8, ..event }
}

#[test]
fn each_metric_has_hubbles_labels() {
    for (config, events, expected) in [
        (
            "flow",
            vec![
                allowed(),
                allowed(),
                denied(),
                spoofed(),
                answered(),
                Event { kind: event_kind::CLOSE, ..answered() },
                icmp(8, false),
                Event { proto: 47, ..allowed() },
            ],
            &[
                r#"hubble_flows_processed_total{protocol="ICMPv4",type="PolicyVerdict",subtype="",verdict="FORWARDED"} 1"#,
                r#"hubble_flows_processed_total{protocol="TCP",type="Drop",subtype="",verdict="DROPPED"} 1"#,
                r#"hubble_flows_processed_total{protocol="TCP",type="PolicyVerdict",subtype="",verdict="DROPPED"} 1"#,
                r#"hubble_flows_processed_total{protocol="TCP",type="PolicyVerdict",subtype="",verdict="FORWARDED"} 2"#,
                r#"hubble_flows_processed_total{protocol="TCP",type="Trace",subtype="to-endpoint",verdict="FORWARDED"} 2"#,
                r#"hubble_flows_processed_total{protocol="Unknown L4",type="PolicyVerdict",subtype="",verdict="FORWARDED"} 1"#,
            ][..],
        ),
        (
            "drop",
            vec![allowed(), denied(), spoofed(), Event { flags: EVENT_AUDIT, ..denied() }],
            &[
                r#"hubble_drop_total{reason="INVALID_SOURCE_IP",protocol="TCP"} 1"#,
                r#"hubble_drop_total{reason="POLICY_DENIED",protocol="TCP"} 1"#,
            ],
        ),
        (
            "policy",
            vec![
                allowed(),
                denied(),
                spoofed(),
                Event { flags: EVENT_AUDIT, ..denied() },
                Event { reason: Reason::NotIsolated as u8, rule: 0, ..allowed() },
                // The node itself is left out.
                Event { reason: Reason::FromNode as u8, rule: 0, ..allowed() },
            ],
            &[
                r#"hubble_policy_verdicts_total{direction="ingress",match="all",action="forwarded"} 1"#,
                r#"hubble_policy_verdicts_total{direction="ingress",match="l3-l4",action="forwarded"} 1"#,
                r#"hubble_policy_verdicts_total{direction="ingress",match="none",action="audit"} 1"#,
                r#"hubble_policy_verdicts_total{direction="ingress",match="none",action="dropped"} 1"#,
            ],
        ),
        (
            "icmp",
            vec![
                icmp(8, false),
                icmp(0, true),
                icmp(77, false),
                Event { dst_port: 3, ..icmp(3, false) },
                allowed(),
            ],
            &[
                r#"hubble_icmp_total{family="IPv4",type="77(0)"} 1"#,
                r#"hubble_icmp_total{family="IPv4",type="DestinationUnreachable(Port)"} 1"#,
                r#"hubble_icmp_total{family="IPv4",type="EchoReply"} 1"#,
                r#"hubble_icmp_total{family="IPv4",type="EchoRequest"} 1"#,
            ],
        ),
        (
            "tcp",
            vec![allowed(), denied(), answered(), Event { tcp_flags: 0x15, ..allowed() }],
            &[
                r#"hubble_tcp_flags_total{flag="FIN",family="IPv4"} 1"#,
                r#"hubble_tcp_flags_total{flag="RST",family="IPv4"} 1"#,
                r#"hubble_tcp_flags_total{flag="SYN",family="IPv4"} 1"#,
                r#"hubble_tcp_flags_total{flag="SYN-ACK",family="IPv4"} 1"#,
            ],
        ),
        (
            "port-distribution",
            vec![allowed(), denied(), answered(), icmp(8, false)],
            &[
                r#"hubble_port_distribution_total{protocol="ICMPv4",port="0"} 1"#,
                r#"hubble_port_distribution_total{protocol="TCP",port="5432"} 1"#,
            ],
        ),
        (
            "flows-to-world",
            vec![
                allowed(),
                to_world(allowed()),
                to_world(denied()),
                to_world(spoofed()),
                to_world(Event { proto: 47, ..allowed() }),
                to_world(Event { flags: EVENT_REPLY, ..allowed() }),
                answered(),
            ],
            &[
                r#"hubble_flows_to_world_total{protocol="TCP",verdict="DROPPED"} 1"#,
                r#"hubble_flows_to_world_total{protocol="TCP",verdict="FORWARDED"} 1"#,
            ],
        ),
        (
            "flows-to-world:any-drop;port;syn-only",
            vec![
                to_world(Event { tcp_flags: 0x10, ..allowed() }),
                to_world(Event { proto: 17, tcp_flags: 0, ..allowed() }),
                to_world(spoofed()),
            ],
            &[r#"hubble_flows_to_world_total{protocol="TCP",verdict="DROPPED",port="5432"} 1"#],
        ),
    ] {
        assert_eq!(Scraped::new(config, 99).count(events).lines(), expected, "{config}");
    }
}

#[test]
fn contexts_say_who_it_was() {
    let config = "drop:sourceContext=workload|reserved-identity;\
                  destinationContext=pod|reserved-identity;\
                  labelsContext=source_namespace,destination_ip,traffic_direction";
    let lines = Scraped::new(config, 99).count([denied(), to_world(denied())]).lines();
    let common = r#"hubble_drop_total{reason="POLICY_DENIED",protocol="TCP",source="shop/web-1""#;
    assert_eq!(
        lines,
        [
            format!(
                r#"{common},destination="reserved:world",source_namespace="shop",destination_ip="10.0.0.9",traffic_direction="egress"}} 1"#
            ),
            format!(
                r#"{common},destination="shop/db-0",source_namespace="shop",destination_ip="10.0.0.2",traffic_direction="ingress"}} 1"#
            ),
        ]
    );
}

#[test]
fn nodes_and_services_have_reserved_names() {
    let config = "flow:destinationContext=reserved-identity";
    let events = [7, 8, 9].map(|last| Event { dst: addr(last), ..to_world(allowed()) });
    let lines = Scraped::new(config, 99).count(events).lines();
    let ends: Vec<&str> = lines.iter().filter_map(|l| l.split("destination=").nth(1)).collect();
    let expected =
        [r#""reserved:remote-node"} 1"#, r#""reserved:unknown"} 1"#, r#""reserved:world"} 1"#];
    assert_eq!(ends, expected);
}

#[test]
fn a_full_metric_counts_the_rest_together_and_says_how_much() {
    let mut scraped = Scraped::new("port-distribution", 3);
    scraped.count((1..=10).chain(1..=3).map(|dst_port| Event { dst_port, ..allowed() }));
    assert_eq!(
        scraped.lines(),
        [
            r#"enforcer_flow_metric_overflow_total{metric="port-distribution"} 7"#,
            r#"hubble_port_distribution_total{protocol="TCP",port="1"} 2"#,
            r#"hubble_port_distribution_total{protocol="TCP",port="2"} 2"#,
            r#"hubble_port_distribution_total{protocol="TCP",port="3"} 2"#,
            r#"hubble_port_distribution_total{protocol="TCP",port="overflow"} 7"#,
        ]
    );
}

/// The two pods of the directory go at once; a series goes a minute later, not before, and not that
/// of a namespace in which there is still a pod.
#[test]
fn series_go_a_minute_after_the_last_pod_and_make_room() {
    let mut scraped = Scraped::new("drop:sourceContext=workload flow:sourceContext=namespace", 1);
    scraped.count([denied()]);
    let mut directory = directory();
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let named = |scraped: &Scraped| {
        let lines = scraped.lines();
        ["shop/web-1", "\"shop\""].map(|name| lines.iter().any(|line| line.contains(name)))
    };
    scraped.flows.sweep(&directory, now);
    directory.apply(&NameChange::AddressGone([10, 0, 0, 1].into()), now);
    scraped.flows.sweep(&directory, now + 6 * second);
    scraped.flows.sweep(&directory, now + 59 * second);
    assert_eq!(named(&scraped), [true, true]);
    scraped.flows.sweep(&directory, now + 66 * second);
    assert_eq!(named(&scraped), [false, true]);
    directory.apply(&NameChange::AddressGone([10, 0, 0, 2].into()), now + 70 * second);
    scraped.flows.sweep(&directory, now + 72 * second);
    scraped.flows.sweep(&directory, now + 140 * second);
    assert_eq!(named(&scraped), [false, false]);
    scraped.count([denied()]);
    assert_eq!(named(&scraped), [true, true], "there is room for one again");
}

#[test]
fn one_pod_of_several_keeps_its_workloads_series() {
    let mut scraped = Scraped::new("drop:sourceContext=workload", 9);
    let part = |name: &str| {
        let mut pod = crate::cluster::plan::PodIdentity::clone(&pod("shop", name));
        let (kind, name) = ("Deployment".into(), "web".into());
        pod.workload = Some(crate::cluster::event::Workload { kind, name });
        Arc::new(pod)
    };
    let mut flow = flow(&denied());
    flow.source = Some(part("web-1"));
    scraped.flows.look(&flow);
    let (mut directory, now) = (Directory::default(), Instant::now());
    for (last, name) in [(1, "web-1"), (2, "web-2")] {
        directory.apply(&NameChange::Address([10, 0, 0, last].into(), part(name)), now);
    }
    directory.apply(&NameChange::AddressGone([10, 0, 0, 1].into()), now);
    scraped.flows.sweep(&directory, now);
    scraped.flows.sweep(&directory, now + Duration::from_secs(100));
    let series = r#"hubble_drop_total{reason="POLICY_DENIED",protocol="TCP",source="shop/web"} 1"#;
    assert_eq!(scraped.lines(), [series]);
}

#[test]
fn a_denied_destination_is_new_once() {
    let mut scraped = Scraped::new("new-denied", 99);
    let events =
        [denied(), denied(), allowed(), Event { dst_port: 1, ..denied() }, to_world(denied())];
    let series = r#"enforcer_new_denied_destinations_total{namespace="shop",workload="web-1"} 3"#;
    assert_eq!(scraped.count(events).lines(), [series]);
}

/// The client's end of a flow that is over, and the server's, on the same node; and the first
/// answer, which tells how long the handshake took.
#[test]
fn what_flows_carried_is_counted_for_both_workloads() {
    let mut scraped = Scraped::new("traffic", 99);
    let traffic = |packets, bytes| Traffic { packets, bytes };
    let totals = Totals { origin: traffic(3, 300), reply: traffic(2, 2000), duration: 1 };
    let ended = Event { kind: event_kind::CLOSE, reason: Reason::Established as u8, ..allowed() };
    for (ifindex, direction) in [(5, Direction::Egress), (6, Direction::Ingress)] {
        let mut flow = flow(&Event { ifindex, direction: direction as u8, rtt: 900, ..ended });
        flow.raw.totals = Some(totals);
        scraped.flows.look(&flow);
    }
    scraped.count([Event { rtt: 200, ..answered() }]);
    let lines = scraped.lines().join("\n");
    for (metric, workload, way, count) in [
        ("bytes", "web-1", "sent", 300),
        ("bytes", "web-1", "received", 2000),
        ("bytes", "db-0", "sent", 2000),
        ("bytes", "db-0", "received", 300),
        ("packets", "web-1", "sent", 3),
        ("packets", "db-0", "received", 3),
    ] {
        let labels = format!("namespace=\"shop\",workload=\"{workload}\",way=\"{way}\"");
        let line = format!("enforcer_workload_{metric}_total{{{labels}}} {count}");
        assert!(lines.contains(&line), "{line} in\n{lines}");
    }
    let handshake = "enforcer_workload_tcp_handshake_seconds_sum\
                     {namespace=\"shop\",workload=\"web-1\"} 0.0002";
    assert!(lines.contains(handshake), "{lines}");
    assert!(lines.contains("_bucket{le=\"0.00025\",namespace=\"shop\",workload=\"web-1\"} 1"));
}

#[test]
fn drops_that_are_told_together_count_each() {
    let series = r#"hubble_drop_total{reason="POLICY_DENIED",protocol="TCP"} 1001"#;
    let events = [denied(), Event { count: 1000, ..denied() }];
    assert_eq!(Scraped::new("drop", 9).count(events).lines(), [series]);
}
