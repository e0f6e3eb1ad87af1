//! The same policy as a ruleset of nftables: once as a good engine writes it, with sets and verdict
//! maps, and once with a rule for each peer and port.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::policy::{CLIENT, Policy, SERVER};

/// How peers and ports are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One look-up in a set of peers and ports.
    Sets,
    /// One rule for each peer and port, one after the other.
    Rules,
}

/// Rules for `nft -f`. A known connection ends at the first rule; a new one goes through the chain of
/// the pod that sends, then through that of the pod that receives, and each ends in a drop.
pub(crate) fn ruleset(policy: Policy, form: Form) -> String {
    let mut text = String::from("table inet enforcer_bench {\n");
    if form == Form::Sets {
        text.push_str("  set peers {\n    type ipv4_addr . inet_proto . inet_service\n");
        text.push_str("    elements = {\n");
        each(policy, |peer, port| {
            for protocol in policy.protocols(port) {
                line(&mut text, format_args!("      {peer} . {protocol} . {port},"));
            }
        });
        text.push_str("    }\n  }\n");
    }
    for pod in ["client", "server"] {
        chain(&mut text, policy, form, &format!("{pod}_sends"), ("daddr", "return"));
        chain(&mut text, policy, form, &format!("{pod}_receives"), ("saddr", "accept"));
    }
    for way in ["sends", "receives"] {
        line(&mut text, format_args!("  map {way} {{\n    type ipv4_addr : verdict"));
        line(
            &mut text,
            format_args!(
                "    elements = {{ {CLIENT} : jump client_{way}, {SERVER} : jump server_{way} }}\n  }}"
            ),
        );
    }
    text.push_str(
        "  chain forward {\n    type filter hook forward priority filter; policy accept;\n",
    );
    text.push_str("    ct state established,related accept\n");
    text.push_str("    ip saddr vmap @sends\n    ip daddr vmap @receives\n  }\n}\n");
    text
}

/// The chain of one pod in one direction: by which address the other side is matched, and what is
/// done with who may.
fn chain(text: &mut String, policy: Policy, form: Form, name: &str, (side, may): (&str, &str)) {
    line(text, format_args!("  chain {name} {{"));
    match form {
        Form::Sets => {
            line(text, format_args!("    ip {side} . meta l4proto . th dport @peers {may}"));
        }
        Form::Rules => each(policy, |peer, port| {
            let protocols = policy.protocols(port).join(", ");
            line(
                text,
                format_args!(
                    "    ip {side} {peer} meta l4proto {{ {protocols} }} th dport {port} {may}"
                ),
            );
        }),
    }
    text.push_str("    drop\n  }\n");
}

fn each(policy: Policy, mut work: impl FnMut(Ipv4Addr, u16)) {
    for port in policy.ports() {
        policy.peers().for_each(|peer| work(peer, port));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    writeln!(text, "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { peers: 3, rules: 2, datagrams: true };

    #[test]
    fn a_set_has_each_peer_at_each_port_once() {
        let text = ruleset(POLICY, Form::Sets);
        assert_eq!(text.matches(" . tcp . 10000,").count(), 3);
        assert_eq!(text.matches(" . tcp . 10001,").count(), 3);
        assert_eq!(text.matches(" . udp . ").count(), 3);
        assert_eq!(text.matches("@peers").count(), 4, "each pod, each way");
    }

    #[test]
    fn without_sets_there_is_a_rule_a_peer_and_port_in_every_chain() {
        let text = ruleset(POLICY, Form::Rules);
        assert_eq!(text.matches(" th dport ").count(), 4 * 3 * 2);
        assert!(!text.contains("@peers"));
        let last = format!("ip saddr {SERVER} meta l4proto {{ tcp, udp }} th dport 10001 accept\n");
        assert!(text.contains(&(last + "    drop")), "what is measured is matched last:\n{text}");
    }

    #[test]
    fn both_ends_of_a_connection_are_asked_and_the_known_one_first() {
        for form in [Form::Sets, Form::Rules] {
            let text = ruleset(POLICY, form);
            let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what}"));
            let known = at("ct state established,related accept");
            assert!(known < at("ip saddr vmap @sends"));
            assert!(at("ip saddr vmap @sends") < at("ip daddr vmap @receives"));
            assert_eq!(text.matches("    drop\n").count(), 4);
        }
    }
}
