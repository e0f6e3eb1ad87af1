//! How long a change takes from the API server to the first packet judged by it.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    latency::now,
    namespace::{Namespace, PodSpec},
    network::Tries,
    proxy::{Body, Proxy},
    world::World,
};

/// Changes in each direction.
const CHANGES: usize = 40;
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(400);
/// No change may take longer, however busy the machine is: the next one is made then.
const MOST: f64 = 390.0;

/// When the label was set and when it was taken away, in milliseconds of the epoch: before the request.
struct Change {
    set: f64,
    taken: f64,
}

/// Sets a label and takes it away, again and again, while the pod asks a server that answers it
/// only because of that label.
pub(crate) fn soon(world: &World) {
    let space = Namespace::new(world, "changes", &[]);
    let node = &world.cluster.nodes()[0];
    let pods = space.pods(&[PodSpec::server("server", node), PodSpec::client("client", node)]);
    let granted = json!([{"podSelector": {"matchLabels": {"access": "granted"}}}]);
    space.policy(
        "server",
        json!({"podSelector": {"matchLabels": {"app": "server"}},
                                  "ingress": [{"from": granted}]}),
    );
    let proxy = Proxy::start(world);
    let path = format!("/api/v1/namespaces/{}/pods/client", space.name);
    let label = |value: &serde_json::Value| {
        let before = now();
        let merge = json!({"metadata": {"labels": {"access": value}}}).to_string();
        proxy.send("PATCH", &path, Body::Merge(&merge));
        before
    };
    let seconds = PAUSE.as_secs_f64() * (CHANGES * 2 + 6) as f64;
    let (target, seconds) = (pods[0].port(80).to_string(), seconds.to_string());
    // Eight clients that begin after one another: a try every 1.25 ms.
    let words = "--udp --rate 100 --parallel 8 --timeout 0.01 --expect failed --for";
    let mut command = vec!["/workload", "connect", &target];
    command.extend(words.split(' '));
    command.push(&seconds);
    let (changes, tries) = thread::scope(|scope| {
        let client = scope.spawn(|| world.exec(&pods[1].container, &command));
        thread::sleep(PAUSE * 3);
        let mut due = Instant::now();
        let mut wait = || {
            due += PAUSE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        };
        let changes: Vec<Change> = (0..CHANGES)
            .map(|_| {
                let set = label(&json!("granted"));
                wait();
                let taken = label(&json!(null));
                wait();
                Change { set, taken }
            })
            .collect();
        let (_, out, errors) = client.join().unwrap();
        (changes, Tries::read(&(out + &errors)))
    });
    let answered: Vec<f64> = tries.lines.iter().filter_map(|line| line["at"].as_f64()).collect();
    let mut opened = Vec::new();
    let mut closed = Vec::new();
    let ends = changes.iter().skip(1).map(|next| next.set).chain([f64::INFINITY]);
    for (Change { set, taken }, end) in changes.iter().zip(ends) {
        let first = answered.iter().copied().filter(|at| (*set..*taken).contains(at));
        let first = first.fold(f64::INFINITY, f64::min);
        assert!(first < *taken, "the label had no effect within {PAUSE:?}");
        opened.push(first - set);
        let last = answered.iter().copied().filter(|at| (*taken..end).contains(at));
        closed.push(last.fold(*taken, f64::max) - taken);
    }
    for (what, mut times) in [("opens a way", opened), ("closes it", closed)] {
        times.sort_by(f64::total_cmp);
        let [median, most, worst] = [0.5, 0.95, 1.0]
            .map(|share| times[((times.len() - 1) as f64 * share).round() as usize]);
        println!(
            "  a label {what}, from the request to the first packet judged by it: median {median:.0} \
             ms, 95 % {most:.0} ms, worst {worst:.0} ms ({CHANGES} changes)"
        );
        assert!(worst < MOST, "a change that {what} took {worst:.0} ms");
    }
}
