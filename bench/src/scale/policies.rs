//! Policies in the sets in which people write them. A namespace gets a set, or the first part of
//! one; which one goes by its number. Every part of the API is in use somewhere.

use serde_json::{Value, json};

use super::cluster::{APPS, namespace_name};

/// Namespaces of the platform, which have no project's set.
const PLATFORM: u32 = 3;
/// Policies that one namespace has at most.
const MOST: u32 = 40;

/// `count` policies over `namespaces` namespaces.
pub(super) fn sets(count: u32, namespaces: u32) -> Vec<Value> {
    let projects: Vec<u32> = (PLATFORM..namespaces).collect();
    let projects = if projects.is_empty() { vec![0] } else { projects };
    let mut policies = Vec::new();
    let missing = |policies: &Vec<Value>| (count as usize).saturating_sub(policies.len());
    // As many whole sets as there is room for, each in a namespace of its own. They are spread,
    // because the first namespaces are the large ones.
    let step = (projects.len() as u32 * 6 / count.max(1)).max(1);
    let mut order: Vec<u32> = (0..step)
        .flat_map(|first| projects.iter().copied().skip(first as usize).step_by(step as usize))
        .collect();
    order.dedup();
    for number in &order {
        let set = set(*number);
        let room = missing(&policies);
        policies.extend(set.into_iter().take(room));
        if missing(&policies) == 0 {
            return policies;
        }
    }
    // Then one more for each workload's port, as generators of policies write them.
    for turn in 0..MOST {
        for number in &order {
            if missing(&policies) == 0 {
                return policies;
            }
            policies.push(of_a_port(*number, turn));
        }
    }
    // A small cluster with very many policies.
    for turn in MOST.. {
        if missing(&policies) == 0 {
            break;
        }
        policies.push(of_a_port(order[turn as usize % order.len()], turn));
    }
    policies
}

fn set(number: u32) -> Vec<Value> {
    let namespace = namespace_name(number);
    let set = match number % 4 {
        0 => gated(number),
        1 => pairs(),
        2 => components(number),
        _ => workspaces(number),
    };
    set.into_iter().map(|(name, spec)| policy(&namespace, name, spec)).collect()
}

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
           "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app.kubernetes.io/name": name}})
}

fn in_namespace(name: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": name}})
}

/// To the cluster's name servers.
fn dns() -> Value {
    json!({"to": [{"namespaceSelector": in_namespace("kube-system"), "podSelector": app("api")}],
           "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})
}

/// Nothing by default; labels open what a pod needs.
fn gated(number: u32) -> Vec<(&'static str, Value)> {
    let both = ["Ingress", "Egress"];
    let has = |label: &str| json!({"matchLabels": {label: "true"}});
    vec![
        ("default-deny", json!({"podSelector": {}, "policyTypes": both})),
        ("dns", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [dns()]})),
        (
            "external",
            json!({"podSelector": has("network-access-external-ips"), "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except":
                    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}}]}]}),
        ),
        (
            "kube-api",
            json!({"podSelector": has("network-access-kube-api"), "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": "172.20.0.1/32"}}],
                            "ports": [{"port": 443}, {"port": 6443}]}]}),
        ),
        (
            "within",
            json!({"podSelector": {}, "policyTypes": both,
                "ingress": [{"from": [{"podSelector": {}}]}],
                "egress": [{"to": [{"podSelector": {}}]}]}),
        ),
        (
            "from-the-entrance",
            json!({"podSelector": app("web"), "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"namespaceSelector": in_namespace("ingress-nginx"),
                                       "podSelector": app("proxy")}],
                             "ports": [{"port": "http"}]}]}),
        ),
        (
            "team",
            json!({"podSelector": app("api"), "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"namespaceSelector":
                    {"matchLabels": {"team": format!("team-{}", number % 40)}}}],
                             "ports": [{"port": 8080}]}]}),
        ),
    ]
}

/// For each service one policy of who may ask it and one of who may be asked.
fn pairs() -> Vec<(&'static str, Value)> {
    let ask = |from: &str, to: &str, port: u16| {
        json!({"podSelector": app(from), "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": app(to)}], "ports": [{"port": port}]}, dns()]})
    };
    let answer = |to: &str, from: &str, port: u16| {
        json!({"podSelector": app(to), "policyTypes": ["Ingress"], "ingress": [
            {"from": [{"podSelector": app(from)}], "ports": [{"port": port}]},
            {"from": [{"namespaceSelector": in_namespace("monitoring"),
                       "podSelector": app("report")}],
             "ports": [{"port": "metrics"}]}]})
    };
    vec![
        ("db-permits", ask("api", "db", 5432)),
        ("db-rights", answer("db", "api", 5432)),
        ("cache-permits", ask("api", "cache", 11211)),
        ("cache-rights", answer("cache", "api", 11211)),
        ("queue-permits", ask("worker", "queue", 5672)),
        ("queue-rights", answer("queue", "worker", 5672)),
        ("api-permits", ask("web", "api", 8080)),
        ("api-rights", answer("api", "web", 8080)),
    ]
}

/// Each component of a platform by itself, with addresses outside.
fn components(number: u32) -> Vec<(&'static str, Value)> {
    let hosts = |count: u32| -> Vec<Value> {
        (0..count)
            .map(|host| json!({"ipBlock": {"cidr": format!("198.51.{}.{host}/32", number % 250)}}))
            .collect()
    };
    vec![
        ("deny-in", json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
        (
            "search",
            json!({"podSelector": app("search"), "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"from": [{"podSelector": app("api")}, {"podSelector": app("report")}],
                     "ports": [{"port": 9200}]},
                    {"from": [{"podSelector": app("search")}], "ports": [{"port": 9300}]}],
                "egress": [dns(), {"to": [{"podSelector": app("search")}],
                                   "ports": [{"port": 9300}]},
                           {"to": hosts(8), "ports": [{"port": 443}]}]}),
        ),
        (
            "metrics",
            json!({"podSelector": {}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"namespaceSelector": in_namespace("monitoring")}],
                             "ports": [{"port": "metrics"}]}]}),
        ),
        (
            "auth",
            json!({"podSelector": app("auth"), "policyTypes": ["Egress"],
                "egress": [dns(), {"to": hosts(3), "ports": [{"port": 636}]},
                           {"ports": [{"protocol": "TCP", "port": 88},
                                      {"protocol": "UDP", "port": 88}]}]}),
        ),
    ]
}

/// Expressions, ranges of ports, and blocks inside blocks.
fn workspaces(number: u32) -> Vec<(&'static str, Value)> {
    let not = json!({"matchExpressions": [
        {"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["proxy", "auth"]}]});
    let some = json!({"matchExpressions": [
        {"key": "app.kubernetes.io/name", "operator": "In", "values": APPS[..5]},
        {"key": "job-name", "operator": "DoesNotExist"}]});
    vec![
        ("no-way-out", json!({"podSelector": not, "policyTypes": ["Egress"], "egress": [dns()]})),
        (
            "packages",
            json!({"podSelector": {}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"namespaceSelector": {"matchExpressions": [
                    {"key": "stage", "operator": "In", "values": ["live", "test"]}]},
                                    "podSelector": app("store")}],
                            "ports": [{"port": 8080, "endPort": 8090}]}]}),
        ),
        (
            "apis",
            json!({"podSelector": app("api"), "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": format!("203.0.{}.0/24", number % 250),
                    "except": [format!("203.0.{}.128/25", number % 250)]}}],
                            "ports": [{"port": 443}]}]}),
        ),
        (
            "desktops",
            json!({"podSelector": some, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchExpressions": [
                    {"key": "dns", "operator": "Exists"}]}}],
                             "ports": [{"port": 3389}, {"port": 29780, "endPort": 29786}]}]}),
        ),
    ]
}

fn of_a_port(number: u32, turn: u32) -> Value {
    let at = turn as usize % APPS.len();
    let (to, from) = (APPS[at], APPS[(at + 1 + number as usize % 5) % APPS.len()]);
    let spec = json!({"podSelector": app(to), "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": app(from)}], "ports": [{"port": 7000 + turn}]}]});
    policy(&namespace_name(number), &format!("{to}-port-{turn}"), spec)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_as_many_as_asked_for_and_each_once() {
        for (count, namespaces) in [(10, 4), (50, 20), (500, 200), (5_000, 2_000), (5_000, 4)] {
            let policies = sets(count, namespaces);
            let names: HashSet<_> = policies
                .iter()
                .map(|p| {
                    (p["metadata"]["namespace"].to_string(), p["metadata"]["name"].to_string())
                })
                .collect();
            assert_eq!((policies.len(), names.len()), (count as usize, count as usize));
        }
    }

    #[test]
    fn every_part_of_the_api_is_in_use() {
        let text = serde_json::to_string(&sets(500, 200)).unwrap();
        for part in [
            "ipBlock",
            "except",
            "endPort",
            "namespaceSelector",
            "NotIn",
            "\"In\"",
            "Exists",
            "DoesNotExist",
            "\"UDP\"",
            "\"port\":\"metrics\"",
            "\"podSelector\":{}",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }
}
