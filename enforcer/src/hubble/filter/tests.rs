//! Each field of a filter: a value that matches and one that does not, and what is refused.

use enforcer_common::{
    abi::{Direction, EVENT_AUDIT, EVENT_REPLY, Event, event_kind},
    reason::Reason,
};
use enforcer_hubble::json::{self, Unknown};
use proptest::prelude::*;

use super::*;
use crate::{
    flow::event::tests::{addr, allowed, denied, flow},
    hubble::convert::{Uuid, of_pod},
};

fn origin() -> Origin {
    Origin::new("default", "w1")
}

/// A filter as JSON writes it.
fn filter(text: &str) -> FlowFilter {
    json::from_str(text, Unknown::Refuse).unwrap()
}

fn compiled(text: &str) -> Result<Filters, FilterError> {
    Filters::compile(&[filter(text)], &[], &origin())
}

fn matches(text: &str, flow: &Flow) -> bool {
    compiled(text).unwrap().matches(flow)
}

/// web to db, TCP SYN 40000 to 5432, allowed for ingress at interface 6.
fn web_to_db() -> Flow {
    flow(&allowed())
}

#[test]
fn each_field_chooses() {
    let flow = web_to_db();
    let identity = of_pod(flow.source.as_ref().unwrap());
    let uuid = Uuid::of(&flow);
    for (yes, no) in [
        (r#"{"source_ip":["10.0.0.1"]}"#, r#"{"source_ip":["10.0.0.2"]}"#),
        (
            r#"{"source_ip":["10.9.9.9","10.0.0.0/8"]}"#,
            r#"{"source_ip":["10.0.0.0/32","fd00::/8"]}"#,
        ),
        (r#"{"destination_ip":["10.0.0.2/31"]}"#, r#"{"destination_ip":["10.0.0.1"]}"#),
        (r#"{"source_pod":["shop/web"]}"#, r#"{"source_pod":["web"]}"#),
        (r#"{"source_pod":["shop/"]}"#, r#"{"source_pod":["shop/eb"]}"#),
        (r#"{"source_pod":["/web"]}"#, r#"{"source_pod":["bank/web"]}"#),
        (r#"{"destination_pod":["shop/db-0"]}"#, r#"{"destination_pod":["shop/db-00"]}"#),
        (r#"{"verdict":["DROPPED","FORWARDED"]}"#, r#"{"verdict":["DROPPED","AUDIT"]}"#),
        (
            r#"{"event_type":[{"type":5}]}"#,
            r#"{"event_type":[{"type":1},{"type":4},{"type":129}]}"#,
        ),
        (
            r#"{"event_type":[{"type":5,"match_sub_type":true}]}"#,
            r#"{"event_type":[{"type":5,"match_sub_type":true,"sub_type":133}]}"#,
        ),
        (r#"{"event_type":[{}]}"#, r#"{"event_type":[{"match_sub_type":true,"sub_type":1}]}"#),
        (r#"{"source_label":["app=web-1"]}"#, r#"{"source_label":["app=db-0"]}"#),
        (
            r#"{"destination_label":["k8s:app in (db-0)"]}"#,
            r#"{"destination_label":["reserved:app"]}"#,
        ),
        (
            r#"{"source_label":["io.kubernetes.pod.namespace=shop"]}"#,
            r#"{"source_label":["io.kubernetes.pod.namespace=bank","reserved:world"]}"#,
        ),
        (r#"{"protocol":["UDP","Tcp"]}"#, r#"{"protocol":["udp","http","icmp"]}"#),
        (r#"{"source_port":["40000"]}"#, r#"{"source_port":["5432"]}"#),
        (r#"{"destination_port":["1","5432"]}"#, r#"{"destination_port":["40000"]}"#),
        (r#"{"reply":[false]}"#, r#"{"reply":[true]}"#),
        (&*format!("{{\"source_identity\":[{identity}]}}"), r#"{"source_identity":[2,1]}"#),
        (
            r#"{"tcp_flags":[{"FIN":true},{"SYN":true}]}"#,
            r#"{"tcp_flags":[{"SYN":true,"ACK":true}]}"#,
        ),
        (r#"{"tcp_flags":[{}]}"#, r#"{"tcp_flags":[{"RST":true}]}"#),
        (r#"{"node_name":["w*"]}"#, r#"{"node_name":["eu/w1","w2"]}"#),
        (r#"{"ip_version":["IPv4"]}"#, r#"{"ip_version":["IPv6","IP_NOT_USED"]}"#),
        (
            &*format!("{{\"uuid\":[\"{uuid}\"]}}"),
            r#"{"uuid":["00000000-0000-8000-8000-000000000000"]}"#,
        ),
        (r#"{"traffic_direction":["INGRESS"]}"#, r#"{"traffic_direction":["EGRESS"]}"#),
        (
            r#"{"drop_reason_desc":["DROP_REASON_UNKNOWN"]}"#,
            r#"{"drop_reason_desc":["POLICY_DENIED"]}"#,
        ),
        (
            r#"{"interface":[{"index":6}]}"#,
            r#"{"interface":[{"index":7},{"name":"veth5"},{"index":5,"name":"veth6"}]}"#,
        ),
        (r#"{"interface":[{"name":"veth6"}]}"#, r#"{"interface":[{"name":"veth"}]}"#),
        (r#"{"source_cluster_name":["default"]}"#, r#"{"source_cluster_name":["eu"]}"#),
        (r#"{"encrypted":[false]}"#, r#"{"encrypted":[true]}"#),
        (r#"{"node_labels":["!zone"]}"#, r#"{"node_labels":["zone"]}"#),
        (r#"{"ip_trace_id":["0"]}"#, r#"{"ip_trace_id":["1"]}"#),
        (r#"{"trace_id":[""]}"#, r#"{"trace_id":["ab"]}"#),
        ("{}", r#"{"source_ip_xlated":["10.0.0.1"]}"#),
        ("{}", r#"{"source_fqdn":["*"]}"#),
        ("{}", r#"{"destination_fqdn":["example.org"]}"#),
        ("{}", r#"{"dns_query":[".*"]}"#),
        ("{}", r#"{"http_status_code":["5+","404"]}"#),
        ("{}", r#"{"http_method":["GET"]}"#),
        ("{}", r#"{"http_path":["/a.*"]}"#),
        ("{}", r#"{"http_url":["http://.*"],"event_type":[{"type":129}]}"#),
        ("{}", r#"{"http_header":[{"key":"a","value":"b"}]}"#),
        ("{}", r#"{"source_workload":[{"name":"web"}]}"#),
        ("{}", r#"{"destination_service":["shop/"]}"#),
    ] {
        assert!(matches(yes, &flow), "{yes}");
        assert!(!matches(no, &flow), "{no}");
    }
}

#[test]
fn places_have_identities_labels_and_services() {
    let flow = flow(&Event { src: addr(7), dst: addr(8), ifindex: 0, ..allowed() });
    for (yes, no) in [
        (r#"{"source_identity":[6]}"#, r#"{"source_identity":[2]}"#),
        (r#"{"source_label":["reserved:remote-node"]}"#, r#"{"source_label":["reserved:host"]}"#),
        (r#"{"destination_service":["shop/fro"]}"#, r#"{"destination_service":["front"]}"#),
        (r#"{"destination_label":["!reserved:world"]}"#, r#"{"source_service":["shop/"]}"#),
        ("{}", r#"{"source_pod":["/"]}"#),
        ("{}", r#"{"source_cluster_name":["default"]}"#),
    ] {
        assert!(matches(yes, &flow), "{yes}");
        assert!(!matches(no, &flow), "{no}");
    }
}

#[test]
fn what_was_denied_is_a_verdict_and_a_drop() {
    let denied = flow(&denied());
    for yes in [
        r#"{"event_type":[{"type":1}]}"#,
        r#"{"event_type":[{"type":5}]}"#,
        r#"{"event_type":[{"type":1,"match_sub_type":true,"sub_type":133}]}"#,
        r#"{"drop_reason_desc":["POLICY_DENIED"]}"#,
        r#"{"reply":[false]}"#,
    ] {
        assert!(matches(yes, &denied), "{yes}");
    }
    let spared = flow(&Event { flags: EVENT_AUDIT, ..denied_event() });
    assert!(!matches(r#"{"event_type":[{"type":1}]}"#, &spared));
    assert!(matches(
        r#"{"verdict":["AUDIT"],"drop_reason_desc":["DROP_REASON_UNKNOWN"]}"#,
        &spared
    ));
}

fn denied_event() -> Event {
    denied()
}

#[test]
fn replies_and_what_has_no_ports() {
    let reply = Event {
        kind: event_kind::TRACE,
        flags: EVENT_REPLY,
        direction: Direction::Egress as u8,
        ..allowed()
    };
    assert!(matches(r#"{"reply":[true],"traffic_direction":["INGRESS"]}"#, &flow(&reply)));
    let ping = flow(&Event { proto: 1, src_port: 8, dst_port: 0, ..allowed() });
    assert!(matches(r#"{"protocol":["icmp"]}"#, &ping));
    assert!(matches(r#"{"protocol":["icmpv4"]}"#, &ping));
    for no in [
        r#"{"protocol":["icmpv6"]}"#,
        r#"{"source_port":["8"]}"#,
        r#"{"destination_port":["0"]}"#,
        r#"{"tcp_flags":[{}]}"#,
    ] {
        assert!(!matches(no, &ping), "{no}");
    }
    let frame = Event {
        kind: event_kind::DROP,
        reason: Reason::UnknownEthertype as u8,
        ethertype: 0x88cc,
        ..allowed()
    };
    // Without addresses there is no protocol.
    for no in [r#"{"protocol":["tcp"]}"#, r#"{"source_port":["40000"]}"#, r#"{"tcp_flags":[{}]}"#] {
        assert!(!matches(no, &flow(&frame)), "{no}");
    }
    assert!(matches(r#"{"ip_version":["IP_NOT_USED"]}"#, &flow(&frame)));
    // Of a drop it is not known whether it is a reply; that counts as no.
    assert!(matches(r#"{"reply":[false]}"#, &flow(&frame)));
}

#[test]
fn lists_are_alternatives_fields_are_not_and_the_blacklist_takes_away() {
    let flow = web_to_db();
    let web = filter(r#"{"source_pod":["shop/web"]}"#);
    let other = filter(r#"{"source_pod":["shop/other"]}"#);
    let both = filter(r#"{"source_pod":["shop/web"],"verdict":["DROPPED"]}"#);
    for (whitelist, blacklist, expected) in [
        (vec![], vec![], true),
        (vec![&other, &web], vec![], true),
        (vec![&both], vec![], false),
        (vec![&both, &other], vec![], false),
        (vec![], vec![&web], false),
        (vec![&web], vec![&both, &other], true),
        (vec![&web], vec![&other, &web], false),
    ] {
        let cloned = |list: Vec<&FlowFilter>| list.into_iter().cloned().collect::<Vec<_>>();
        let filters = Filters::compile(&cloned(whitelist), &cloned(blacklist), &origin()).unwrap();
        assert_eq!(filters.matches(&flow), expected);
    }
}

#[test]
fn what_means_nothing_is_refused_with_field_and_reason() {
    for (text, expected) in [
        (
            r#"{"protocol":["tpc"]}"#,
            "filter protocol: \"tpc\" is none of icmp, icmpv4, icmpv6, tcp, udp, sctp, vrrp, igmp, \
             dns, http, kafka (did you mean tcp?)",
        ),
        (r#"{"source_ip":["10.0.0"]}"#, "filter source_ip: \"10.0.0\" is no address and no CIDR"),
        (
            r#"{"source_ip_xlated":["x/1"]}"#,
            "filter source_ip_xlated: \"x/1\" is no address and no CIDR",
        ),
        (
            r#"{"destination_port":["70000"]}"#,
            "filter destination_port: \"70000\" is no port, 0 to 65535",
        ),
        (r#"{"source_pod":[""]}"#, "filter source_pod: \"\" is no [namespace/]name"),
        (
            r#"{"source_service":["a/b/c"]}"#,
            "filter source_service: \"a/b/c\" has more than one slash",
        ),
        (r#"{"source_cluster_name":[""]}"#, "filter source_cluster_name: \"\" is no name"),
        (r#"{"uuid":["x"]}"#, "filter uuid: \"x\" is no UUID"),
        (r#"{"verdict":[99]}"#, "filter verdict: \"99\" is no value of it"),
        (r#"{"drop_reason_desc":[12]}"#, "filter drop_reason_desc: \"12\" is no value of it"),
        (r#"{"tcp_flags":[{"NS":true}]}"#, "filter tcp_flags: \"NS\" is not told of any flow"),
        (
            r#"{"source_label":["app notn (a)"]}"#,
            "filter source_label: \"app notn (a)\" is no label selector: \"notn\" is none of =, ==, \
             !=, in, notin, <, > (did you mean notin?)",
        ),
        (r#"{"node_name":["a|b"]}"#, "filter node_name: \"a|b\" has '|', which is in no name"),
        (r#"{"source_fqdn":["."]}"#, "filter source_fqdn: \".\" is no name"),
        (
            r#"{"dns_query":["*"]}"#,
            "filter dns_query: \"*\" is no regular expression: error: repetition operator missing \
             expression",
        ),
        (
            r#"{"http_status_code":["9+"]}"#,
            "filter http_status_code: \"9+\" is no status: three digits (404), or fewer and a plus \
             (5+, 40+)",
        ),
        (
            r#"{"http_method":["GET"],"event_type":[{"type":4}]}"#,
            "filter http_method matches application messages only: event_type must name 129 (l7) too",
        ),
        (
            r#"{"experimental":{"cel_expression":["true"]}}"#,
            "filter experimental.cel_expression is not supported: use the other fields",
        ),
    ] {
        assert_eq!(compiled(text).unwrap_err().to_string(), expected, "{text}");
        // Taking away by it is refused as well.
        Filters::compile(&[], &[filter(text)], &origin()).unwrap_err();
    }
}

proptest! {
    #[test]
    fn no_filter_of_any_texts_panics(
        text in "[-a-z0-9./*:=!(), \\[é]{0,16}", number in any::<i32>(), identity in any::<u32>(),
    ) {
        let texts = vec![text];
        let filter = FlowFilter {
            source_ip: texts.clone(),
            ..FlowFilter::default()
        };
        let others = [
            FlowFilter { source_pod: texts.clone(), ..FlowFilter::default() },
            FlowFilter { source_label: texts.clone(), ..FlowFilter::default() },
            FlowFilter { node_name: texts.clone(), ..FlowFilter::default() },
            FlowFilter { source_fqdn: texts.clone(), ..FlowFilter::default() },
            FlowFilter { dns_query: texts.clone(), ..FlowFilter::default() },
            FlowFilter { http_status_code: texts.clone(), ..FlowFilter::default() },
            FlowFilter { uuid: texts, ..FlowFilter::default() },
            FlowFilter { verdict: vec![number], ..FlowFilter::default() },
            FlowFilter { source_identity: vec![identity], ..FlowFilter::default() },
        ];
        let flow = web_to_db();
        for filter in others.iter().chain([&filter]) {
            if let Ok(filters) = Filters::compile(std::slice::from_ref(filter), &[], &origin()) {
                // A filter and its opposite divide the flows.
                let not = Filters::compile(&[], std::slice::from_ref(filter), &origin()).unwrap();
                prop_assert_ne!(filters.matches(&flow), not.matches(&flow));
            }
        }
    }
}
