//! What is told as the nearest miss, and that it is never a rule that allows.

use proptest::prelude::*;

use super::*;
use crate::policy::compile::network_policy;

fn policy(name: &str, rules: &str) -> Arc<Policy> {
    let yaml = format!(
        "{{metadata: {{namespace: shop, name: {name}}}, spec: {{podSelector: {{}}, \
         policyTypes: [Ingress, Egress], ingress: {rules}}}}}"
    );
    let policy = network_policy(&serde_norway::from_str(&yaml).unwrap());
    assert_eq!(policy.problems, Vec::<String>::new(), "{rules}");
    Arc::new(policy)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What is told of TCP to port 8443, from 10.0.0.7, which is the pod with these labels.
fn told(pod: Option<(&str, &[(&str, &str)])>, rules: &[&str]) -> Option<String> {
    let policies: Vec<_> =
        rules.iter().enumerate().map(|(n, rules)| policy(&format!("p{n}"), rules)).collect();
    told_of(pod, proto::TCP, &policies)
}

fn told_of(
    pod: Option<(&str, &[(&str, &str)])>,
    protocol: u8,
    policies: &[Arc<Policy>],
) -> Option<String> {
    let of_pod = pod.map(|(_, own)| labels(own));
    let of_namespace = labels(&[("team", "red")]);
    let peer = pod.zip(of_pod.as_ref()).map(|((namespace, _), labels)| PeerPod {
        namespace,
        namespace_labels: &of_namespace,
        labels,
    });
    told_at([10, 0, 0, 7].into(), peer, protocol, policies)
}

fn told_at(
    address: IpAddr,
    peer: Option<PeerPod<'_>>,
    protocol: u8,
    policies: &[Arc<Policy>],
) -> Option<String> {
    let names = [NamedPort { name: "http".into(), protocol: Protocol::Tcp, number: 80 }];
    let direction = Direction::Ingress;
    let denied = Denied { direction, address, peer, protocol, port: 8443, names: &names };
    nearest_miss(policies, &denied).map(|miss| miss.to_string())
}

const WEB: Option<(&str, &[(&str, &str)])> = Some(("shop", &[("app", "web")]));

#[test]
fn the_one_thing_that_a_rule_lacks_is_named() {
    let from_web = "from: [{podSelector: {matchLabels: {app: web}}}]";
    let to_8443 = "ports: [{port: 8443}]";
    for (pod, rule, expected) in [
        (
            WEB,
            format!("{from_web}, ports: [{{port: 443}}]"),
            "matches the peer; port 8443 is not 443",
        ),
        (
            WEB,
            format!("{from_web}, ports: [{{port: 443}}, {{port: 8000, endPort: 8100}}]"),
            "matches the peer; port 8443 is none of 443, 8000-8100",
        ),
        (
            WEB,
            format!("{from_web}, ports: [{{port: http}}]"),
            "matches the peer; port 8443 is not http (80 there)",
        ),
        (
            WEB,
            format!("{from_web}, ports: [{{port: https}}]"),
            "matches the peer; port 8443 is not https (which the destination has not)",
        ),
        (
            WEB,
            "ports: [{port: 8443, protocol: UDP}]".to_owned(),
            "is for any peer; port 8443 matches, but TCP is not UDP",
        ),
        (
            WEB,
            format!("{from_web}, ports: [{{port: 53, protocol: UDP}}]"),
            "matches the peer; TCP port 8443 is not UDP 53",
        ),
        (
            WEB,
            format!("from: [{{podSelector: {{matchLabels: {{app: api}}}}}}], {to_8443}"),
            "matches the port; the peer's label app=web is not in (api)",
        ),
        (
            WEB,
            format!("from: [{{podSelector: {{matchLabels: {{app: api, tier: x}}}}}}], {to_8443}"),
            "matches the port; the peer's label app=web is not in (api) and its label tier is \
             missing, and must be in (x)",
        ),
        (
            WEB,
            "from: [{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}]"
                .to_owned(),
            "is for any port; the peer's label app=web is excluded",
        ),
        (
            Some(("other", &[("app", "web")])),
            format!("{from_web}, {to_8443}"),
            "matches the port; the peer's namespace other is not shop",
        ),
        (
            WEB,
            format!("from: [{{namespaceSelector: {{matchLabels: {{team: blue}}}}}}], {to_8443}"),
            "matches the port; of the peer's namespace shop label team=red is not in (blue)",
        ),
        (
            None,
            format!("{from_web}, {to_8443}"),
            "matches the port; the address 10.0.0.7 is no pod's, and the rule is for pods \
             {app in (web)} in namespace shop",
        ),
        (
            None,
            format!("from: [{{ipBlock: {{cidr: 10.0.1.0/24}}}}], {to_8443}"),
            "matches the port; the address 10.0.0.7 is not in 10.0.1.0/24",
        ),
        (
            WEB,
            format!(
                "from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: [10.0.0.0/24, 10.1.0.0/24]}}}}], \
                 {to_8443}"
            ),
            "matches the port; the address 10.0.0.7 is excepted from 10.0.0.0/8 by 10.0.0.0/24",
        ),
    ] {
        let expected = format!("shop/p0 ingress[0] {expected}");
        assert_eq!(told(pod, &[&format!("[{{{rule}}}]")]), Some(expected), "{rule}");
    }
}

#[test]
fn protocols_without_ports_lack_the_protocol() {
    let rules = [policy("p", "[{ports: [{}, {port: 53, protocol: UDP}]}]")];
    let told = told_of(WEB, proto::ICMP, &rules).unwrap();
    assert_eq!(told, "shop/p ingress[0] is for any peer; ICMP is none of TCP any port, UDP 53");
}

#[test]
fn what_lacks_two_things_is_not_told() {
    for rule in [
        "{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 443}]}",
        "{from: [{podSelector: {matchLabels: {app: api}}, \
          namespaceSelector: {matchLabels: {team: blue}}}]}",
        "{from: [{ipBlock: {cidr: 'fd00::/8'}}]}",
    ] {
        assert_eq!(told(WEB, &[&format!("[{rule}]")]), None, "{rule}");
    }
    assert_eq!(told(WEB, &["[]"]), None);
}

#[test]
fn where_a_rule_allows_by_what_was_known_nothing_is_told() {
    assert_eq!(told(WEB, &["[{ports: [{port: 443}]}]", "[{ports: [{port: 8443}]}]"]), None);
}

#[test]
fn the_best_is_told_first() {
    // Each is better than all after it.
    let ranked = [
        "[{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 443}]}]",
        "[{ports: [{port: 443}]}]",
        "[{from: [{podSelector: {}}], ports: [{port: 8443, protocol: UDP}]}]",
        "[{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}], ports: [{port: 8443}]}]",
        "[{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8443}]}]",
        "[{from: [{podSelector: {matchLabels: {app: api, tier: x}}}], ports: [{port: 8443}]}]",
        "[{from: [{podSelector: {matchLabels: {app: api}}}]}]",
        "[{from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 8443}]}]",
        "[{from: [{podSelector: {}}], ports: [{port: 443, protocol: UDP}]}]",
        "[{from: [{ipBlock: {cidr: 10.0.1.0/24}}], ports: [{port: 8443}]}]",
        "[{from: [{ipBlock: {cidr: 10.9.0.0/24}}], ports: [{port: 8443}]}]",
    ];
    for (at, best) in ranked.iter().enumerate() {
        for worse in &ranked[at + 1..] {
            let alone = told(WEB, &[best]).unwrap();
            assert_eq!(told(WEB, &[best, worse]), Some(alone.clone()), "{best}\n{worse}");
            let behind = told(WEB, &[worse, best]).unwrap();
            assert_eq!(behind, alone.replace("p0", "p1"), "{best}\n{worse}");
        }
    }
    // Equals by name and place.
    let equal = "[{ports: [{port: 1}]}, {ports: [{port: 2}]}]";
    let first = "shop/p0 ingress[0] is for any peer; port 8443 is not 1";
    assert_eq!(told(WEB, &[equal, equal]).as_deref(), Some(first));
}

#[test]
fn of_a_rules_peers_the_nearest_is_told_in_whatever_order_they_stand() {
    let pods = |labels: &str| format!("{{podSelector: {{matchLabels: {{{labels}}}}}}}");
    let rule = |peers: [&str; 2]| format!("[{{from: [{}]}}]", peers.join(","));
    let (near, far) = (pods("app: api"), pods("app: api, tier: x"));
    let api = "shop/p0 ingress[0] is for any port; the peer's label app=web is not in (api)";
    for peers in [[&*near, &*far], [&*far, &*near]] {
        assert_eq!(told(WEB, &[&rule(peers)]).as_deref(), Some(api), "{peers:?}");
    }
    let other = pods("app: db");
    for equals in [[&*near, &*other], [&*other, &*near]] {
        assert_eq!(told(WEB, &[&rule(equals)]).as_deref(), Some(api), "{equals:?}");
    }
}

#[test]
fn of_prefixes_that_miss_the_one_with_more_bits_in_common_is_told() {
    // Each has a bit more in common with the address than the one before it, or all bits more.
    let near = |address: IpAddr, blocks: &[&str]| {
        for pair in blocks.windows(2) {
            let rules = |cidr: &str| format!("[{{from: [{{ipBlock: {{cidr: '{cidr}'}}}}]}}]");
            let policies = [policy("a", &rules(pair[0])), policy("b", &rules(pair[1]))];
            let told = told_at(address, None, proto::TCP, &policies).unwrap();
            let expected = format!(
                "shop/b ingress[0] is for any port; the address {address} is not in {}",
                pair[1]
            );
            assert_eq!(told, expected);
        }
    };
    let four = ["192.168.0.0/16", "10.0.32.0/24", "10.0.16.0/24", "10.0.8.0/24", "10.0.0.8/32"];
    near([10, 0, 0, 7].into(), &four);
    let six = ["2001:db8::/32", "fd00:2::/32", "fd00:1:2::/48", "fd00:1:1::/48", "fd00:1::8/128"];
    near("fd00:1::7".parse().unwrap(), &six);
}

#[test]
fn a_rule_whose_ports_were_all_refused_lacks_more_than_a_port() {
    let refused = |ports: Vec<PortMatch>| {
        let mut policy = (*policy("p", "[{ports: [{port: 443}]}]")).clone();
        policy.rules[0][0].ports = Ports::Of(ports);
        told_of(WEB, proto::TCP, &[Arc::new(policy)])
    };
    assert_eq!(refused(Vec::new()), None);
    let port = Port::Range(1, 1);
    assert!(refused(vec![PortMatch { protocol: Protocol::Tcp, port }]).is_some());
}

/// Whether a rule allows a flow, by the meaning of its parts and nothing of the code above.
fn allows(rule: &Rule, denied: &Denied<'_>) -> bool {
    let peer = match &rule.peers {
        Peers::Any => true,
        Peers::Of(peers) => peers.iter().any(|peer| match &**peer {
            Peer::Block(block) => {
                block.cidr().contains(&denied.address)
                    && !block.except().iter().any(|except| except.contains(&denied.address))
            }
            Peer::Pods(PeerSelector { namespace, pod }) => denied.peer.is_some_and(|peer| {
                let there = match namespace {
                    NamespacePeer::Same(name) => **name == *peer.namespace,
                    NamespacePeer::Selected(selector) => selector.matches(peer.namespace_labels),
                };
                there && pod.matches(peer.labels)
            }),
        }),
    };
    let port = match &rule.ports {
        Ports::Any => true,
        Ports::Of(list) => list.iter().any(|PortMatch { protocol, port }| {
            let right = match protocol {
                Protocol::Tcp => denied.protocol == 6,
                Protocol::Udp => denied.protocol == 17,
                Protocol::Sctp => denied.protocol == 132,
            };
            right
                && match port {
                    Port::Range(first, last) => *first <= denied.port && denied.port <= *last,
                    Port::Named(name) => denied.names.iter().any(|own| {
                        (&own.name, own.protocol, own.number) == (name, *protocol, denied.port)
                    }),
                }
        }),
    };
    peer && port
}

fn rule() -> impl Strategy<Value = String> {
    let peer = prop::sample::select(vec![
        "{podSelector: {}}",
        "{podSelector: {matchLabels: {app: web}}}",
        "{podSelector: {matchLabels: {app: api}}}",
        "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}",
        "{namespaceSelector: {matchLabels: {team: red}}}",
        "{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: web}}}",
        "{ipBlock: {cidr: 10.0.0.0/24}}",
        "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/25]}}",
        "{ipBlock: {cidr: 'fd00::/8'}}",
    ]);
    let port = prop::sample::select(vec![
        "{}",
        "{port: 80}",
        "{port: 80, endPort: 90}",
        "{port: http}",
        "{port: dns, protocol: UDP}",
        "{port: 85, protocol: UDP}",
        "{port: 80, protocol: SCTP}",
    ]);
    let peers = prop::collection::vec(peer, 0..3);
    let ports = prop::collection::vec(port, 0..3);
    (peers, ports).prop_map(|(peers, ports)| {
        format!("{{from: [{}], ports: [{}]}}", peers.join(","), ports.join(","))
    })
}

proptest! {
    #[test]
    fn a_rule_that_allows_is_never_named_and_what_is_named_lacks_only_that(
        rules in prop::collection::vec(prop::collection::vec(rule(), 0..3), 1..4),
        (namespace, app, team) in (
            prop::sample::select(vec!["shop", "other"]),
            prop::sample::select(vec!["web", "api"]),
            prop::sample::select(vec!["red", "blue"]),
        ),
        is_pod in any::<bool>(),
        last in prop::sample::select(vec![7_u8, 200]),
        protocol in prop::sample::select(vec![1_u8, 6, 17, 132]),
        port in prop::sample::select(vec![53_u16, 80, 85, 99]),
    ) {
        let policies: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(n, rules)| policy(&format!("p{n}"), &format!("[{}]", rules.join(","))))
            .collect();
        let (own, around) = (labels(&[("app", app)]), labels(&[("team", team)]));
        let peer = PeerPod { namespace, namespace_labels: &around, labels: &own };
        let names = [
            NamedPort { name: "http".into(), protocol: Protocol::Tcp, number: 80 },
            NamedPort { name: "dns".into(), protocol: Protocol::Udp, number: 53 },
        ];
        let denied = Denied {
            direction: Direction::Ingress,
            address: [10, 0, 0, last].into(),
            peer: is_pod.then_some(peer),
            protocol,
            port,
            names: &names,
        };
        let all = || policies.iter().flat_map(|p| p.rules(Direction::Ingress).iter().map(move |r| (p, r)));
        let told = nearest_miss(&policies, &denied);
        if all().any(|(_, rule)| allows(rule, &denied)) {
            prop_assert_eq!(told, None);
            return Ok(());
        }
        prop_assert_eq!(&told, &nearest_miss(&policies, &denied));
        let mut backwards = policies.clone();
        backwards.reverse();
        prop_assert_eq!(&told, &nearest_miss(&backwards, &denied));
        let Some(miss) = told else {
            // Then no rule has one of its two parts right, but for a peer that lacks two things.
            for (_, rule) in all() {
                let any_port = Rule { ports: Ports::Any, ..rule.clone() };
                prop_assert!(!allows(&any_port, &denied), "{:?}", rule);
            }
            return Ok(());
        };
        let (_, named) = all()
            .find(|(policy, rule)| (&policy.key, rule.index) == (&miss.policy, miss.index))
            .unwrap();
        let only_ports = matches!(miss.thing, Thing::Port | Thing::Protocol | Thing::ProtocolAndPort);
        let mended = if only_ports {
            Rule { ports: Ports::Any, ..named.clone() }
        } else {
            Rule { peers: Peers::Any, ..named.clone() }
        };
        prop_assert!(allows(&mended, &denied), "{}: {:?}", miss, named);
    }
}
