//! Columns. They are as wide as their widest cell, so rows are held back until there are no more
//! for now.

use super::{Options, compact::paint, shown::Mood, shown::Shown};
use crate::cli::terminal::clean;

/// Between two columns.
const GAP: usize = 3;

/// Rows that are held back.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<(String, Mood)>>,
    header: bool,
    widths: Vec<usize>,
    colors: Option<crate::cli::terminal::Style>,
}

impl Table {
    pub(super) fn flow(&mut self, shown: &Shown, options: &Options) {
        self.begin(&["SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"], options);
        let verdict = format!("{}{}", shown.verdict, shown.policies);
        self.row(
            &shown.time,
            &shown.node,
            [
                (shown.source.text(), Mood::Plain),
                (shown.destination.text(), Mood::Plain),
                (shown.kind.clone(), Mood::Plain),
                (verdict, shown.mood),
                (shown.summary.clone(), Mood::Plain),
            ],
            options,
        );
        if let Some(why) = &shown.why {
            self.rows.push(vec![(format!("    {}", clean(why)), Mood::Plain)]);
        }
    }

    pub(super) fn lost(
        &mut self,
        time: &str,
        node: &str,
        source: &str,
        summary: &str,
        options: &Options,
    ) {
        self.begin(&["SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"], options);
        let cells = [source, "-", "EVENTS LOST", "-", summary];
        self.row(time, node, cells.map(|cell| (cell.to_owned(), Mood::Plain)), options);
    }

    pub(super) fn event(
        &mut self,
        time: &str,
        node: &str,
        words: &[(&str, &str)],
        options: &Options,
    ) {
        let keys: Vec<&str> = words.iter().map(|(key, _)| *key).collect();
        self.begin(&keys, options);
        let cells = words.iter().map(|(_, text)| ((*text).to_owned(), Mood::Plain));
        self.row(time, node, cells, options);
    }

    fn begin(&mut self, columns: &[&str], options: &Options) {
        if !std::mem::replace(&mut self.header, true) {
            self.colors = Some(options.style);
            let cells = columns.iter().map(|name| ((*name).to_owned(), Mood::Plain));
            self.row("TIMESTAMP", "NODE", cells, options);
        }
    }

    fn row(
        &mut self,
        time: &str,
        node: &str,
        cells: impl IntoIterator<Item = (String, Mood)>,
        options: &Options,
    ) {
        let mut row = vec![(time.to_owned(), Mood::Plain)];
        if options.node {
            row.push((clean(node), Mood::Plain));
        }
        row.extend(cells.into_iter().map(|(cell, mood)| (clean(&cell), mood)));
        self.rows.push(row);
    }

    /// The rows that are held back, aligned. Columns never become narrower again.
    pub(super) fn take(&mut self) -> String {
        let rows = std::mem::take(&mut self.rows);
        for row in rows.iter().filter(|row| row.len() > 1) {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, (cell, _)) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in &rows {
            for (i, (cell, mood)) in row.iter().enumerate() {
                match self.colors {
                    Some(style) => out.push_str(&paint(style, *mood, cell)),
                    None => out.push_str(cell),
                }
                if i + 1 < row.len() {
                    let room = self.widths[i] + GAP - cell.chars().count();
                    out.push_str(&" ".repeat(room));
                }
            }
            out.push('\n');
        }
        out
    }
}
