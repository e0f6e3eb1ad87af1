//! The plots of how things grow with the cluster.

use super::{
    agent::{From, Start},
    one::Size,
};
use crate::plot::{Line, Plot};

/// File names without ending, and the documents.
pub(super) fn plots(sizes: &[Size], agents: &[Start]) -> Vec<(&'static str, String)> {
    let streams = agents.iter().filter(|start| start.from == From::Streams);
    let agents: Vec<Start> = streams.copied().collect();
    vec![
        ("scale-first-plan", first(sizes, &agents).svg()),
        ("scale-events", events(sizes).svg()),
        ("scale-memory", memory(sizes, &agents).svg()),
    ]
}

const PODS: &str = "pods in the cluster (one policy for each twenty)";

fn line<T>(name: &str, of: &[T], point: impl Fn(&T) -> (u32, f64)) -> Line {
    let points = of.iter().map(point).map(|(pods, value)| (f64::from(pods), value)).collect();
    Line { name: name.to_owned(), points }
}

fn first(sizes: &[Size], agents: &[Start]) -> Plot {
    let mut lines = vec![
        line("take in and plan", sizes, |size| (size.pods, size.plan.wall)),
        line("write to the maps", sizes, |size| (size.pods, size.write.wall)),
        line("names for flows", sizes, |size| (size.pods, size.name.wall)),
    ];
    if !agents.is_empty() {
        let name = "an agent's start, all read from an API server";
        lines.push(line(name, agents, |start| (start.pods, start.ready * 1e3)));
    }
    Plot {
        title: "The first plan of a node with 110 pods".into(),
        x: PODS.into(),
        y: "milliseconds".into(),
        lines,
        goal: Some((2_000.0, "goal of the first plan".into())),
    }
}

fn events(sizes: &[Size]) -> Plot {
    let names = sizes.first().map(|size| size.events.iter().map(|event| event.name.clone()));
    let lines = names.into_iter().flatten().enumerate().map(|(at, name)| {
        line(&name, sizes, |size| {
            (size.pods, size.events.get(at).map_or(f64::NAN, |event| event.plan.median))
        })
    });
    Plot {
        title: "One event, taken in and planned (median)".into(),
        x: PODS.into(),
        y: "microseconds of processor time".into(),
        lines: lines.collect(),
        goal: Some((1_000.0, "goal of a pod's event".into())),
    }
}

fn memory(sizes: &[Size], agents: &[Start]) -> Plot {
    let mut lines = vec![line("held by index and names", sizes, |size| (size.pods, size.held))];
    if !agents.is_empty() {
        lines.push(line("an agent, resident at most", agents, |start| (start.pods, start.peak)));
        let settled = |start: &Start| (start.pods, start.settled);
        lines.push(line("an agent, resident when settled", agents, settled));
    }
    Plot {
        title: "Memory".into(),
        x: PODS.into(),
        y: "MiB".into(),
        lines,
        goal: Some((300.0, "goal".into())),
    }
}
