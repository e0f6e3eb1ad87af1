//! A flow as a block of keys and values.

use enforcer_hubble::relay::NodeStatusEvent;

use super::{Options, compact::paint, shown::Shown};
use crate::cli::terminal::clean;

/// Between two blocks.
pub(super) const SEPARATOR: &str = "------------";

fn add(out: &mut String, key: &str, text: &str) {
    out.push_str(&format!("{key:>11}: {text}\n"));
}

fn head(time: &str, node: &str, options: &Options) -> String {
    let mut out = String::new();
    add(&mut out, "TIMESTAMP", time);
    if options.node {
        add(&mut out, "NODE", &clean(node));
    }
    out
}

pub(super) fn flow(shown: &Shown, options: &Options) -> String {
    let mut out = head(&shown.time, &shown.node, options);
    add(&mut out, "SOURCE", &clean(&shown.source.text()));
    add(&mut out, "DESTINATION", &clean(&shown.destination.text()));
    add(&mut out, "TYPE", &clean(&shown.kind));
    let verdict = format!("{}{}", shown.verdict, shown.policies);
    add(&mut out, "VERDICT", &paint(options.style, shown.mood, &verdict));
    add(&mut out, "SUMMARY", &clean(&shown.summary));
    if let Some(why) = &shown.why {
        add(&mut out, "WHY", &clean(why));
    }
    out
}

pub(super) fn lost(
    time: &str,
    node: &str,
    source: &str,
    summary: &str,
    options: &Options,
) -> String {
    let mut out = head(time, node, options);
    add(&mut out, "SOURCE", source);
    add(&mut out, "TYPE", "EVENTS LOST");
    add(&mut out, "VERDICT", "-");
    add(&mut out, "SUMMARY", summary);
    out
}

pub(super) fn event(time: &str, node: &str, words: &[(&str, &str)], options: &Options) -> String {
    let mut out = head(time, node, options);
    for (key, text) in words {
        add(&mut out, key, &clean(text));
    }
    out
}

pub(super) fn node_status(time: &str, state: &str, status: &NodeStatusEvent) -> String {
    let mut out = String::new();
    add(&mut out, "TIMESTAMP", time);
    add(&mut out, "STATE", state);
    add(&mut out, "NODES", &clean(&status.node_names.join(", ")));
    match status.message.as_str() {
        "" => add(&mut out, "MESSAGE", "N/A"),
        message => add(&mut out, "MESSAGE", &format!("{message:?}")),
    }
    out
}
