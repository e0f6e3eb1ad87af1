//! A flow in one line.

use super::{Options, shown::Mood, shown::Shown};
use crate::cli::terminal::{Style, clean};

pub(super) fn flow(shown: &Shown, options: &Options) -> String {
    // A reply is shown as part of the connection that it answers.
    let (left, arrow, right) = match shown.is_reply {
        None => (&shown.source, "<>", &shown.destination),
        Some(false) => (&shown.source, "->", &shown.destination),
        Some(true) => (&shown.destination, "<-", &shown.source),
    };
    let mut line = shown.time.clone();
    if options.node {
        line.push_str(&format!(" [{}]", clean(&shown.node)));
    }
    let verdict = paint(options.style, shown.mood, &format!("{}{}", shown.verdict, shown.policies));
    line.push_str(&format!(
        ": {} {} {arrow} {} {} {} {verdict} ({})",
        clean(&left.text()),
        left.identity,
        clean(&right.text()),
        right.identity,
        clean(&shown.kind),
        clean(&shown.summary),
    ));
    if let Some(why) = &shown.why {
        line.push_str(&format!("\n    {}", clean(why)));
    }
    line
}

/// An event that is no flow.
pub(super) fn event(time: &str, node: &str, words: &[(&str, &str)], options: &Options) -> String {
    let node = if options.node { format!(" [{node}]") } else { String::new() };
    let mut line = format!("{time}{node}:");
    for (key, text) in words {
        match *key {
            "DETAILS" | "MESSAGE" => line.push_str(&format!(" ({})", clean(text))),
            _ => line.push_str(&format!(" {}", clean(text))),
        }
    }
    line
}

/// A verdict in its colour.
pub(super) fn paint(style: Style, mood: Mood, text: &str) -> String {
    let text = clean(text);
    match mood {
        Mood::Good => style.good(&text),
        Mood::Bad => style.bad(&text),
        Mood::Warn => style.warn(&text),
        Mood::Plain => text,
    }
}
