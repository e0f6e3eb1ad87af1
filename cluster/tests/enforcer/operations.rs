//! What people do to enforcement, and what they are told.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    namespace::{Namespace, PodSpec},
    network::{
        Probe,
        Verdict::{Allowed, Denied},
    },
    poll,
    world::{SYSTEM, World},
};

/// A namespace in audit: what is denied passes, and is named.
pub(crate) fn audit(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "audited", &[("enforcer.io/enforcement", "audit")]);
    let pods =
        space.pods(&[PodSpec::server("server", "node1"), PodSpec::client("client", "node2")]);
    let [server, client] = &pods[..] else { panic!("{pods:?}") };
    let deny = json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": []});
    space.policy("nobody", deny);
    world.expect("in audit", &[Probe::tcp(client, server, 80, Allowed)]);
    let agent = world.agent("node1");
    let words =
        ["/enforcer", "observe", "--all", "--verdict", "AUDIT", "-n", "audited", "-o", "json"];
    poll::until("the flow of what would have been dropped", Duration::from_secs(10), || {
        let (is_ok, out, errors) = world.exec(&agent.container, &words);
        assert!(is_ok, "{errors}");
        let line = out.lines().find(|line| line.contains(r#""pod_name":"client""#));
        let line = line.ok_or_else(|| format!("it says: {out}"))?;
        for part in [r#""pod_name":"server""#, r#""verdict":"AUDIT""#, r#""name":"nobody""#] {
            assert!(line.contains(part), "no {part} in: {line}");
        }
        println!("  {line}");
        Ok(())
    });
    let words = ["label", "namespace", "audited", "enforcer.io/enforcement-", "--overwrite"];
    world.cluster.ask(&words).unwrap();
    world.barrier();
    world.expect("enforced", &[Probe::tcp(client, server, 80, Denied)]);
}

/// Waits for an Event about an object, by its kind and name; gives its note.
fn event(space: &Namespace<'_>, reason: &str, kind: &str, name: &str) -> String {
    poll::until(&format!("the Event {reason}"), Duration::from_secs(30), || {
        let events = space.world.objects(&["get", "events", "-n", &space.name]);
        let is_it = |event: &&serde_json::Value| {
            let about = &event["involvedObject"];
            event["reason"] == reason && about["kind"] == kind && about["name"] == name
        };
        let found = events.iter().find(is_it).ok_or("there is none")?;
        assert_eq!(found["type"], "Warning", "{found}");
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    })
}

/// A policy that the API server takes and the agent does not understand: its author is told, and it
/// does not let more through.
pub(crate) fn events(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "events", &[]);
    let pods =
        space.pods(&[PodSpec::server("server", "node1"), PodSpec::client("client", "node2")]);
    let [server, client] = &pods[..] else { panic!("{pods:?}") };
    // Zeros before a number mean octal to some and nothing to others (CVE-2021-29923).
    let range = json!({"ipBlock": {"cidr": "0010.212.0.0/16"}});
    let spec = json!({"podSelector": {}, "ingress": [{"from": [range]}]});
    world.cluster.apply(&space.policy_object("octal", spec)).unwrap();
    let note = event(&space, "PolicyNotEnforceable", "NetworkPolicy", "octal");
    println!("  {note}");
    assert!(note.contains("0010.212.0.0/16"), "{note}");
    world.expect("by a policy with a mistake", &[Probe::tcp(client, server, 80, Denied)]);
}

/// A pod asks for the cloud's credentials, in vain: an Event says so, and so do the metrics, which
/// Prometheus would read on the node.
pub(crate) fn insights(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "insights", &[]);
    let pods = space.pods(&[PodSpec::client("curious", "node2")]);
    let [curious] = &pods[..] else { panic!("{pods:?}") };
    space.policy("nobody", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    let words = ["/workload", "connect", "169.254.169.254:80", "--for", "0.1", "--timeout", "1"];
    let (_, out, errors) = world.exec(&curious.container, &words);
    assert!(!out.contains(r#""ok":true"#), "it has got them: {out}{errors}");
    let note = event(&space, "MetadataAccess", "Pod", "curious");
    println!("  {note}");
    assert!(note.contains("169.254.169.254"), "{note}");
    let get = "exec 3<>/dev/tcp/127.0.0.1/10465 && \
               printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3";
    let metrics = world.cluster.run_in("node2", &["bash", "-c", get]).unwrap();
    let value = |name: &str, labels: &[&str]| {
        let lines = metrics.lines().filter(|line| {
            let of_name = line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            of_name && labels.iter().all(|label| line.contains(label))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    assert!(value("enforcer_insights_total", &["MetadataAccess"]) >= 1.0, "{metrics}");
    assert!(value("hubble_flows_processed_total", &[r#"verdict="DROPPED""#]) >= 1.0, "{metrics}");
    assert!(value("hubble_drop_total", &["POLICY_DENIED"]) >= 1.0, "{metrics}");
}

/// `enforcer disable` opens one pod for a time, and only that.
pub(crate) fn break_glass(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "break-glass", &[]);
    let pods = space.pods(&[
        PodSpec::server("server", "node1"),
        PodSpec::server("other", "node1"),
        PodSpec::client("client", "node2"),
    ]);
    let [server, other, client] = &pods[..] else { panic!("{pods:?}") };
    space.policy("nobody", json!({"podSelector": {}, "ingress": []}));
    let to = |pod, verdict| Probe::tcp(client, pod, 80, verdict);
    world.expect("before", &[to(server, Denied), to(other, Denied)]);
    let agent = world.agent("node1");
    let words = [
        "exec",
        "-n",
        SYSTEM,
        &agent.pod,
        "--",
        "/enforcer",
        "disable",
        "--pod",
        "break-glass/server",
        "--for",
        "20s",
        "--reason",
        "a test",
    ];
    world.cluster.ask(&words).unwrap();
    // It has begun before and so ends before.
    let begun = Instant::now();
    world.expect("while it is off", &[to(server, Allowed), to(other, Denied)]);
    let status = poll::until("a status that says so", Duration::from_secs(10), || {
        let status = world.status(&agent, &[]);
        poll::holds(!status.is_yes, || status.json.to_string())?;
        Ok(status)
    });
    let note = event(&space, "EnforcementDisabled", "Pod", "server");
    println!("  {note}");
    assert!(begun.elapsed() < Duration::from_secs(20), "too slow a machine to look in time");
    let endpoints = status.json["report"]["endpoints"].as_array().unwrap();
    let off: Vec<_> = endpoints.iter().filter(|one| !one["disabled_until"].is_null()).collect();
    assert!(off.len() == 1 && off[0]["pod"] == "break-glass/server", "{off:?}");
    std::thread::sleep(Duration::from_secs(20).saturating_sub(begun.elapsed()));
    // Nobody has switched it on again.
    world.expect("after its time", &[to(server, Denied), to(other, Denied)]);
    poll::until("a status without it", Duration::from_secs(10), || {
        let status = world.status(&agent, &[]);
        poll::holds(status.is_yes, || status.json["failure"].to_string())
    });
}
