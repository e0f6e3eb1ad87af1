//! What was covered, by file and by folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Lines of one file and whether each was run.
pub(super) type Lines = BTreeMap<u32, bool>;

/// Lines that count, by file.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage {
    files: BTreeMap<String, Lines>,
}

/// The files of a profile in lcov's format (geninfo(1)) and their lines.
pub(super) fn lcov(text: &str) -> BTreeMap<&str, Lines> {
    let mut files: BTreeMap<&str, Lines> = BTreeMap::new();
    let mut file = "";
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = path;
        } else if let Some((number, runs)) =
            line.strip_prefix("DA:").and_then(|data| data.split_once(','))
            && let (Ok(number), Ok(runs)) = (number.parse(), runs.parse::<u64>())
        {
            *files.entry(file).or_default().entry(number).or_default() |= runs > 0;
        }
    }
    files
}

impl Coverage {
    /// Adds a file's lines but for those.
    pub(super) fn add(&mut self, path: &str, lines: Lines, without: &BTreeSet<u32>) {
        let lines = lines.into_iter().filter(|(number, _)| !without.contains(number)).collect();
        self.files.insert(path.to_owned(), lines);
    }

    /// How many lines below a folder were run, and of how many.
    pub(super) fn below(&self, folder: &str) -> (u32, u32) {
        let inside = |path: &str| path.strip_prefix(folder).is_some_and(|p| p.starts_with('/'));
        sum(self.files.iter().filter(|(path, _)| inside(path)).map(|(_, lines)| lines))
    }
}

fn sum<'a>(files: impl Iterator<Item = &'a Lines>) -> (u32, u32) {
    files.flat_map(Lines::values).fold((0, 0), |(run, all), was| (run + u32::from(*was), all + 1))
}

/// Lines as `12-14, 20`.
fn ranges(lines: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == line => *last = line,
            _ => ranges.push((line, line)),
        }
    }
    let text = |(first, last): (u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Coverage {
    /// A line a folder, then what was not run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut folders: BTreeMap<&str, Vec<&Lines>> = BTreeMap::new();
        for (path, lines) in &self.files {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            folders.entry(folder).or_default().push(lines);
        }
        for (folder, files) in folders {
            let (run, all) = sum(files.into_iter());
            let percent = f64::from(run) * 100.0 / f64::from(all.max(1));
            writeln!(f, "{folder:<32} {percent:5.1} %  {run} of {all} lines")?;
        }
        writeln!(f, "not covered:")?;
        for (path, lines) in &self.files {
            let left = ranges(lines.iter().filter(|(_, was)| !**was).map(|(line, _)| *line));
            if !left.is_empty() {
                writeln!(f, "  {path}: {left}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "SF:/w/a/b.rs\nFN:1,x\nDA:1,3\nDA:2,0\nDA:3,0\nDA:5,0\nLF:4\n\
                           end_of_record\nSF:/w/c.rs\nDA:7,0\nDA:7,2\nend_of_record\n";

    #[test]
    fn a_line_is_covered_if_any_of_its_parts_was_run() {
        let files = lcov(PROFILE);
        assert_eq!(files["/w/c.rs"], Lines::from([(7, true)]));
        assert_eq!(files["/w/a/b.rs"].len(), 4);
    }

    #[test]
    fn what_is_left_out_is_named_and_tests_do_not_count() {
        let mut coverage = Coverage::default();
        let files = lcov(PROFILE);
        coverage.add("a/b.rs", files["/w/a/b.rs"].clone(), &BTreeSet::from([5]));
        coverage.add("a/c/d.rs", files["/w/c.rs"].clone(), &BTreeSet::new());
        assert_eq!(coverage.below("a"), (2, 4));
        assert_eq!(coverage.below("a/c"), (1, 1));
        assert_eq!(coverage.below("a/b"), (0, 0));
        let text = coverage.to_string();
        assert!(text.contains("33.3 %  1 of 3 lines"), "{text}");
        assert!(text.ends_with("not covered:\n  a/b.rs: 2-3\n"), "{text}");
    }
}
