//! Flows for a person who watches: columns that fit the terminal, the verdict where the eye finds
//! it, names shortened in the middle. Only on a terminal: what is piped is Hubble's compact form.

use super::{Options, compact::paint, names::End, shown::Shown};
use crate::cli::terminal::clean;

/// Columns for the two ends: never less, so that names stay names.
const LEAST: usize = 16;
/// From here on a wider terminal only adds room behind the line.
const MOST: usize = 46;
/// Time `22:13:21.500`, arrow and verdict with the spaces behind them.
const FIXED: usize = 13 + 3 + 10;
/// The widest of the verdicts in use.
const VERDICT: usize = 9;

/// Columns for a terminal of a certain width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Columns of the terminal.
    width: usize,
    /// Columns of an end.
    end: usize,
}

impl Layout {
    /// For a terminal of so many columns.
    #[must_use]
    pub fn new(width: usize) -> Self {
        // What is left when the type of event has had its usual share.
        let end = width.saturating_sub(FIXED + 36) / 2;
        Self { width, end: end.clamp(LEAST, MOST) }
    }

    pub(super) fn flow(self, shown: &Shown, options: &Options) -> String {
        let (left, arrow, right) = match shown.is_reply {
            None => (&shown.source, "<>", &shown.destination),
            Some(false) => (&shown.source, "->", &shown.destination),
            Some(true) => (&shown.destination, "<-", &shown.source),
        };
        let verdict = format!("{:<VERDICT$}", shown.verdict);
        let verdict = paint(options.style, shown.mood, &verdict);
        let mut rest = clean(&shown.kind);
        rest.push_str(&clean(&shown.policies));
        if !shown.summary.is_empty() {
            rest.push_str(&format!(" ({})", clean(&shown.summary)));
        }
        if options.node {
            rest.push_str(&format!(" [{}]", clean(&shown.node)));
        }
        let ends = (self.cell(left), self.cell(right));
        let used = FIXED + self.end * 2 + 2;
        let mut line =
            format!("{} {verdict} {} {arrow} {}", self.time(&shown.time), ends.0, ends.1);
        if used + rest.chars().count() <= self.width {
            line.push(' ');
            line.push_str(&rest);
        } else if self.width.saturating_sub(used) >= 12 {
            line.push(' ');
            line.push_str(&end_cut(&rest, self.width - used));
        } else {
            // A narrow terminal: below, where there is room.
            let rest = end_cut(&rest, self.width.saturating_sub(4));
            line = format!("{}\n    {rest}", line.trim_end());
        }
        if let Some(why) = &shown.why {
            line.push_str(&format!("\n    {}", clean(why)));
        }
        line
    }

    /// The date is the same on every line that one looks at.
    fn time(self, time: &str) -> String {
        match time.rsplit_once(' ') {
            Some((_, clock)) if clock.contains(':') => format!("{clock:<12}"),
            _ => time.to_owned(),
        }
    }

    fn cell(self, end: &End) -> String {
        let mut text = clean(&end.text());
        if end.is_address && end.identity != "(unknown)" {
            text.push_str(&format!(" {}", end.identity));
        }
        if text.chars().count() > self.end {
            let port = end.port.map(|port| format!(":{port}")).unwrap_or_default();
            let name = clean(&end.full_name());
            text = shorten(&name, self.end.saturating_sub(port.len())) + &port;
        }
        let room = self.end.saturating_sub(text.chars().count());
        text + &" ".repeat(room)
    }
}

/// `text` in at most `room` columns, its end cut off.
fn end_cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// `namespace/name` in at most `room` columns. Pods of one workload differ at the end of their name
/// and others at its beginning, so what goes is in the middle; a namespace keeps its beginning.
fn shorten(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    let (namespace, pod) = name.split_once('/').map_or(("", name), |(ns, pod)| (ns, pod));
    let pod_length = pod.chars().count();
    let namespace_length = namespace.chars().count();
    // The namespace gives first, down to eight columns, if that is enough.
    if namespace_length > 8 && room >= pod_length + 1 + 8 {
        return format!("{}/{pod}", end_cut(namespace, room - pod_length - 1));
    }
    let namespace = if namespace_length > 8 { end_cut(namespace, 8) } else { namespace.to_owned() };
    let head = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    let room = room.saturating_sub(head.chars().count()).max(3);
    // The random part of a ReplicaSet's pod is 5, with its dash 6.
    let tail = (room / 2).min(6).max(room.saturating_sub(1) / 3);
    let front: String = pod.chars().take(room.saturating_sub(tail + 1)).collect();
    let back: String = pod.chars().skip(pod_length.saturating_sub(tail)).collect();
    format!("{head}{front}…{back}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_tells_them_apart() {
        for (name, room, expected) in [
            ("shop/web", 20, "shop/web"),
            ("observability-team/web-1", 16, "observabi…/web-1"),
            ("shop/checkout-7d9fbb9c4-x2x4k", 20, "shop/checkout…-x2x4k"),
            ("observability-team/checkout-7d9fbb9c4-x2x4k", 20, "observa…/check…x2x4k"),
            ("fd00:1234:5678:9abc:def0:1234:5678:9abc", 12, "fd00:…:9abc"),
        ] {
            let short = shorten(name, room);
            assert!(short.chars().count() <= room, "{short}");
            if !expected.starts_with("fd00") {
                assert_eq!(short, expected);
            }
        }
    }

    #[test]
    fn no_width_breaks_a_line_of_columns() {
        for width in [20, 40, 60, 80, 100, 120, 200, 400] {
            let layout = Layout::new(width);
            assert!((LEAST..=MOST).contains(&layout.end), "{width}");
        }
        assert_eq!(end_cut("abcdef", 4), "abc…");
    }
}
