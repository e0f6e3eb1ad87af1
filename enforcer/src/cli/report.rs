//! A status as text: the verdict first, then what is not as it should be, then the rest. Lines are
//! wrapped to the terminal.

use std::fmt::Write;

use super::terminal::{Style, clean, wrap};
use crate::{
    agent::api::{EndpointReport, EndpointState, GateReport, StatusReply, StatusReport},
    source::report::SourceState,
};

/// The text, ending in a line end.
#[must_use]
pub fn text(reply: &StatusReply, style: Style) -> String {
    let report = &reply.report;
    let mut page = Page { out: String::new(), style };
    page.head(reply);
    page.section("Source", source(report).into_iter());
    page.section(
        "Not enforced",
        report.not_enforced.iter().map(|n| (style.bad(&clean(&n.interface)), clean(&n.reason))),
    );
    page.section(
        "Started while no agent was running, and not guarded until it came",
        report.unguarded.iter().map(|pod| (clean(pod), String::new())),
    );
    page.section(
        "Other enforcers: a packet passes only if both let it",
        report
            .rivals
            .iter()
            .filter(|rival| rival.enforces)
            .map(|rival| (style.warn(&clean(&rival.name)), clean(&rival.evidence.join("; ")))),
    );
    page.section("Gate", report.gate.iter().map(|gate| gate_line(gate, style)));
    page.section(
        "Problems",
        report.problems.iter().map(|p| (String::new(), clean(&p.to_string()))),
    );
    page.section(
        "Flows for others",
        report.observer.iter().map(|problem| (String::new(), clean(problem))),
    );
    page.section("Pods", report.endpoints.iter().map(|e| endpoint(e, style)));
    page.section(
        "Policies",
        report.policies.iter().map(|p| {
            let of = format!("{}: on {} of {} local pods", clean(&p.state), p.enforced, p.selected);
            (clean(&p.policy), of)
        }),
    );
    page.section(
        "Ignored kinds",
        report.ignored.iter().map(|i| (clean(&i.kind), format!("in {}", clean(&i.file)))),
    );
    page.section(
        "Maps",
        report.maps.iter().map(|m| {
            let share = m.entries.saturating_mul(100) / m.max.max(1);
            (clean(&m.name), format!("{} of {} ({share} %)", m.entries, m.max))
        }),
    );
    page.section(
        "Packets by outcome",
        report.counters.iter().filter(|c| c.packets > 0).map(|c| {
            (format!("{} {}", clean(&c.reason), clean(&c.direction)), c.packets.to_string())
        }),
    );
    page.section(
        "Packets that would have been dropped",
        report.spared.iter().map(|s| {
            let name = format!("{} {} ({})", clean(&s.reason), clean(&s.direction), clean(&s.why));
            (name, s.packets.to_string())
        }),
    );
    page.lost(report);
    page.out
}

/// What is not as it should be with where objects come from.
fn source(report: &StatusReport) -> Vec<(String, String)> {
    let source = &report.source;
    let mut entries = Vec::new();
    if let (SourceState::Saved, Some(confirmed)) = (source.state, &source.confirmed) {
        let text = format!(
            "what an earlier agent saved is in force, as of {confirmed}: {} has not been read",
            source.location
        );
        entries.push((String::new(), clean(&text)));
    }
    // Mostly they have the same trouble.
    let mut troubles: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for watch in source.troubles() {
        let reason = watch.reason.as_deref().unwrap_or_default();
        match troubles.iter_mut().find(|(known, _, _)| *known == reason) {
            Some((_, _, names)) => names.push(&watch.resource),
            None => {
                let since = watch.since.as_deref().unwrap_or_default();
                troubles.push((reason, since, vec![&watch.resource]));
            }
        }
    }
    entries.extend(troubles.into_iter().map(|(reason, since, names)| {
        (clean(&names.join(", ")), clean(&format!("since {since}: {reason}")))
    }));
    entries
}

fn gate_line(gate: &GateReport, style: Style) -> (String, String) {
    let counts =
        format!("{} let go, {} refused, {} abandoned", gate.held, gate.refused, gate.abandoned);
    let error = gate.last_error.as_ref().map_or_else(String::new, |error| format!("; {error}"));
    let runtime = gate.runtime.as_deref().unwrap_or("no runtime yet");
    let state = if gate.connected { style.good("connected") } else { style.bad("not connected") };
    (state, clean(&format!("{runtime}; {counts}{error}")))
}

/// Pod, and all there is to say about it.
fn endpoint(e: &EndpointReport, style: Style) -> (String, String) {
    let name = clean(e.pod.as_deref().unwrap_or("(unknown pod)"));
    let state = match e.state {
        EndpointState::Enforced if e.audit => style.warn("audited"),
        EndpointState::Enforced => style.good("enforced"),
        EndpointState::Closed => style.warn("closed"),
        EndpointState::Locked => style.bad("locked"),
    };
    let mut text = String::new();
    if let Some(until) = &e.disabled_until {
        text.push_str(&format!(" (DISABLED until {until})"));
    }
    if let Some(reason) = &e.reason {
        text.push_str(&format!(" ({reason})"));
    }
    for (direction, isolated, policies) in [
        ("ingress", e.isolated_ingress, &e.ingress_policies),
        ("egress", e.isolated_egress, &e.egress_policies),
    ] {
        match (isolated, policies.is_empty()) {
            (false, _) => text.push_str(&format!("; {direction} open")),
            (true, true) => text.push_str(&format!("; {direction} isolated")),
            (true, false) => {
                text.push_str(&format!("; {direction} isolated by {}", policies.join(", ")));
            }
        }
    }
    text.push_str(&format!("; {} ({}) {}", e.interface, e.ifindex, e.addresses.join(", ")));
    (name, format!("{state}{}", clean(&text)))
}

struct Page {
    out: String,
    style: Style,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn head(&mut self, reply: &StatusReply) {
        let (style, agent) = (self.style, &reply.report.agent);
        let verdict = match &reply.failure {
            None => style.good("OK"),
            Some(failure) => {
                style.bad(&wrap(&format!("NOT OK: {}", clean(failure)), 0, style.width))
            }
        };
        self.line(&verdict);
        let about = format!(
            "agent {} on {}, process {}, since {}",
            agent.version, agent.node, agent.pid, agent.started
        );
        self.line(&wrap(&clean(&about), 0, style.width));
        let armed = if agent.armed {
            format!("revision {} in force", agent.revision)
        } else {
            "no complete plan in force yet".to_owned()
        };
        let endpoints = &reply.report.endpoints;
        let enforced = endpoints.iter().filter(|e| e.state == EndpointState::Enforced).count();
        let counts = format!("{armed}, {enforced} of {} local pods enforced", endpoints.len());
        self.line(&wrap(&counts, 0, style.width));
    }

    /// A title and its entries; nothing where there are none.
    fn section(&mut self, title: &str, entries: impl Iterator<Item = (String, String)>) {
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return;
        }
        self.line("");
        self.line(&self.style.bold(title));
        for (name, text) in entries {
            // Short entries on one line, others below their name.
            let one = if name.is_empty() { text.clone() } else { format!("{name}  {text}") };
            if self.columns(&one) + 2 <= self.style.width {
                self.line(&format!("  {one}"));
            } else if name.is_empty() {
                self.line(&wrap(&text, 2, self.style.width));
            } else {
                self.line(&format!("  {name}"));
                self.line(&wrap(&text, 4, self.style.width));
            }
        }
    }

    fn lost(&mut self, report: &StatusReport) {
        let lost = report.lost_events;
        if lost.verdict > 0 || lost.trace > 0 {
            self.line("");
            let mut text = String::new();
            let wrote = write!(
                text,
                "{} verdict and {} trace events were lost: more came than the agent could read",
                lost.verdict, lost.trace
            );
            debug_assert!(wrote.is_ok(), "a string takes everything");
            self.line(&self.style.warn(&wrap(&text, 0, self.style.width)));
        }
    }

    /// Columns that `text` takes, colours aside.
    fn columns(&self, text: &str) -> usize {
        let mut parts = text.split('\u{1b}');
        let first = parts.next().map_or(0, |p| p.chars().count());
        first
            + parts.map(|p| p.split_once('m').map_or(0, |(_, t)| t.chars().count())).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::api::{
            AgentReport, CounterReport, LostEvents, MapReport, NotEnforced, PolicyReport,
            SparedReport,
        },
        source::{
            manifests::Ignored,
            problem::Problem,
            report::{SourceReport, WatchReport},
        },
    };

    fn reply() -> StatusReply {
        let endpoint = EndpointReport {
            pod: Some("shop/web-1".into()),
            interface: "veth1".into(),
            ifindex: 5,
            addresses: vec!["10.0.0.1".into(), "fd00::1".into()],
            isolated_ingress: true,
            ingress_policies: vec!["shop/deny".into(), "shop/zone".into()],
            ..EndpointReport::default()
        };
        let locked = EndpointReport {
            pod: None,
            state: EndpointState::Locked,
            reason: Some("ROWS is full".into()),
            ..endpoint.clone()
        };
        StatusReply {
            failure: None,
            report: StatusReport {
                unguarded: Vec::new(),
                rivals: Vec::new(),
                gate: None,
                agent: AgentReport {
                    instance: None,
                    version: "0.1.0".into(),
                    node: "w1".into(),
                    pid: 7,
                    started: "2023-11-14T22:13:21Z".into(),
                    revision: 12,
                    armed: true,
                    disabled_until: None,
                },
                source: SourceReport::default(),
                endpoints: vec![endpoint, locked],
                policies: vec![PolicyReport {
                    policy: "shop/deny".into(),
                    selected: 2,
                    enforced: 1,
                    state: "partly".into(),
                }],
                not_enforced: vec![NotEnforced {
                    interface: "nk0".into(),
                    reason: "netkit is not supported".into(),
                }],
                observer: vec!["the certificate /c has expired".into()],
                problems: vec![Problem {
                    file: "a.yaml".into(),
                    document: Some(2),
                    value: Some("\u{1b}[2J".into()),
                    reason: "must be a port, 1 to 65535".into(),
                    ..Problem::default()
                }],
                ignored: vec![Ignored { file: "b.yaml".into(), kind: "Thing.x.io".into() }],
                maps: vec![MapReport { name: "CT4".into(), entries: 120, max: 1200 }],
                counters: vec![
                    CounterReport {
                        reason: "PolicyDenied".into(),
                        direction: "ingress".into(),
                        packets: 3,
                    },
                    CounterReport { reason: "Hairpin".into(), ..CounterReport::default() },
                ],
                spared: vec![SparedReport {
                    why: "audit".into(),
                    reason: "PolicyDenied".into(),
                    direction: "ingress".into(),
                    packets: 4,
                }],
                lost_events: LostEvents { verdict: 1, trace: 0 },
            },
        }
    }

    const EXPECTED: &str = "\
OK
agent 0.1.0 on w1, process 7, since 2023-11-14T22:13:21Z
revision 12 in force, 1 of 2 local pods enforced

Not enforced
  nk0  netkit is not supported

Problems
  a.yaml, document 2: \"\u{fffd}[2J\": must be a port, 1 to 65535

Flows for others
  the certificate /c has expired

Pods
  shop/web-1
    enforced; ingress isolated by shop/deny, shop/zone; egress open; veth1 (5)
    10.0.0.1, fd00::1
  (unknown pod)
    locked (ROWS is full); ingress isolated by shop/deny, shop/zone; egress
    open; veth1 (5) 10.0.0.1, fd00::1

Policies
  shop/deny  partly: on 1 of 2 local pods

Ignored kinds
  Thing.x.io  in b.yaml

Maps
  CT4  120 of 1200 (10 %)

Packets by outcome
  PolicyDenied ingress  3

Packets that would have been dropped
  PolicyDenied ingress (audit)  4

1 verdict and 0 trace events were lost: more came than the agent could read
";

    #[test]
    fn the_page_is_as_agreed() {
        assert_eq!(text(&reply(), Style { color: false, width: 80 }), EXPECTED);
    }

    #[test]
    fn trouble_with_the_source_is_told_once_for_all_that_have_it() {
        let watch = |resource: &str, reason: &str| WatchReport {
            resource: resource.into(),
            since: Some("then".into()),
            reason: Some(reason.into()),
            ..WatchReport::default()
        };
        let mut reply = reply();
        reply.report.source = SourceReport {
            location: "https://a".into(),
            state: SourceState::Saved,
            confirmed: Some("some time".into()),
            watches: vec![
                watch("pods", "x"),
                WatchReport::default(),
                watch("nodes", "y"),
                watch("services", "x"),
            ],
            ..SourceReport::default()
        };
        let page = text(&reply, Style { color: false, width: 200 });
        let expected = "
Source
  what an earlier agent saved is in force, as of some time: https://a has not been read
  pods, services  since then: x
  nodes  since then: y
";
        assert!(page.contains(expected), "{page}");
    }

    #[test]
    fn narrow_pages_stay_narrow_and_colours_take_no_room() {
        let narrow = text(&reply(), Style { color: false, width: 40 });
        for line in narrow.lines() {
            assert!(line.chars().count() <= 40, "{line}");
        }
        let failed = StatusReply { failure: Some("time-out".into()), ..reply() };
        let coloured = text(&failed, Style { color: true, width: 80 });
        assert!(coloured.contains("\u{1b}[31mNOT OK: time-out\u{1b}[0m"), "{coloured}");
        assert!(!coloured.contains("\u{1b}[2J"), "{coloured}");
    }
}
