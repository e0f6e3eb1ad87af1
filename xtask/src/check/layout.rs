//! The rules of layout: what every source file has, and what none has.

use std::collections::BTreeMap;

use super::{Finding, lexer, modules, sources::Source};

/// Most lines of a source file: one that is longer has more than one responsibility.
const MAX_LINES: usize = 600;

/// Files that may be longer, with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Words that mark unfinished work. In two parts, so that this file has none of them.
const UNFINISHED: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("unimplemented", "!"),
    concat!("todo", "!"),
];

/// Everything that breaks a rule, in the order of the files.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        trailing_whitespace(source, &mut findings);
        if source.path.ends_with(".rs") {
            module_comment(source, &mut findings);
            length(source, &mut findings);
            unfinished(source, &mut findings);
            ignored_tests(source, &mut findings);
        }
    }
    reachability(sources, &mut findings);
    for (path, _) in LONG_FILES {
        let needed = sources.iter().any(|s| s.path == path && s.text.lines().count() > MAX_LINES);
        if !needed {
            findings.push(Finding::new(path, 0, "is not long any more: remove it from LONG_FILES"));
        }
    }
    findings.sort();
    findings
}

fn trailing_whitespace(source: &Source, findings: &mut Vec<Finding>) {
    for (number, line) in source.text.lines().enumerate() {
        // `lines` takes the line feed and a carriage return before it, which is as unwanted.
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(&source.path, number + 1, "remove the space at the end"));
        }
    }
    if source.text.contains("\r\n") {
        findings.push(Finding::new(&source.path, 0, "end lines with a line feed alone"));
    }
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        findings.push(Finding::new(&source.path, 0, "end the last line with a line feed"));
    }
}

fn module_comment(source: &Source, findings: &mut Vec<Finding>) {
    if !source.text.starts_with("//! ") {
        let text = "begin the file with a `//!` comment that says what it is for";
        findings.push(Finding::new(&source.path, 1, text));
    }
}

fn length(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    let excepted = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if lines > MAX_LINES && !excepted {
        let text = format!("{lines} lines: split it, or give LONG_FILES a reason why not");
        findings.push(Finding::new(&source.path, 0, text));
    }
}

fn unfinished(source: &Source, findings: &mut Vec<Finding>) {
    for (number, line) in source.text.lines().enumerate() {
        for word in UNFINISHED {
            if has_word(line, word) {
                let text = format!("`{word}` marks unfinished work: finish it or open an issue");
                findings.push(Finding::new(&source.path, number + 1, text));
            }
        }
    }
}

/// Whether `word` stands in `line` and is not a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(lexer::is_word)
            && (word.ends_with('!') || !after.is_some_and(lexer::is_word))
    })
}

fn ignored_tests(source: &Source, findings: &mut Vec<Finding>) {
    for (number, line) in lexer::code_only(&source.text).lines().enumerate() {
        let dense: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        let in_attribute = dense.contains("#[ignore")
            || (dense.contains("#[cfg_attr(") && has_word(&dense, "ignore"));
        if in_attribute {
            let text = "a test that does not run must not exist: make it run or remove it";
            findings.push(Finding::new(&source.path, number + 1, text));
        }
    }
}

fn reachability(sources: &[Source], findings: &mut Vec<Finding>) {
    let packages: Vec<&str> =
        sources.iter().filter_map(|source| source.path.strip_suffix("/Cargo.toml")).collect();
    let files: BTreeMap<&str, &str> = sources
        .iter()
        .filter(|source| source.path.ends_with(".rs"))
        .map(|source| (source.path.as_str(), source.text.as_str()))
        .collect();
    let reached = modules::reachable(&files, &packages);
    for path in files.keys().filter(|path| !reached.contains(*path)) {
        let text = "no `mod` item leads here, so it is never compiled: name it or remove it";
        findings.push(Finding::new(path, 0, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<(String, usize)> {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        check(&sources).into_iter().map(|f| (f.path, f.line)).collect()
    }

    /// Findings in the only module of a crate.
    fn lines(text: &str) -> Vec<usize> {
        let files = [("a/Cargo.toml", "[package]\n"), ("a/src/lib.rs", text)];
        findings(&files).into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn a_file_that_keeps_the_rules_has_no_finding() {
        assert!(lines("//! Says what it is for.\n\n/// Not ignored.\nfn method() {}\n").is_empty());
    }

    #[test]
    fn every_file_says_what_it_is_for() {
        assert_eq!(lines("fn main() {}\n"), [1]);
        assert_eq!(lines("//!\n"), [1]);
    }

    #[test]
    fn long_files_are_found() {
        let at_most = "\n".repeat(MAX_LINES - 1);
        assert!(lines(&format!("//! Long.\n{at_most}")).is_empty());
        assert_eq!(lines(&format!("//! Long.\n\n{at_most}")), [0]);
    }

    #[test]
    fn unfinished_work_is_found() {
        for word in UNFINISHED {
            assert_eq!(lines(&format!("//! X.\n// {word} later\n")), [2], "{word}");
            assert!(lines(&format!("//! X.\n// a{word}\n")).is_empty(), "{word}");
        }
    }

    #[test]
    fn ignored_tests_are_found_in_code_alone() {
        assert_eq!(lines("//! X.\n#[ignore = \"slow\"]\nfn f() {}\n"), [2]);
        assert_eq!(lines("//! X.\n#[cfg_attr(not(unix), ignore)]\nfn f() {}\n"), [2]);
        assert!(lines("//! X.\n// #[ignore]\nconst X: &str = \"#[ignore]\";\n").is_empty());
    }

    #[test]
    fn whitespace_at_line_ends_is_found_in_every_text() {
        assert_eq!(findings(&[("README.md", "a \nb\n")]), [("README.md".to_owned(), 1)]);
        assert_eq!(findings(&[("x.yaml", "a: b")]), [("x.yaml".to_owned(), 0)]);
        assert_eq!(findings(&[("x.toml", "a\r\n")]), [("x.toml".to_owned(), 0)]);
    }

    #[test]
    fn files_that_are_never_compiled_are_found() {
        let files = [
            ("a/Cargo.toml", "[package]\n"),
            ("a/src/lib.rs", "//! A.\nmod b;\n"),
            ("a/src/b.rs", "//! B.\n"),
            ("a/src/c.rs", "//! C.\n"),
        ];
        assert_eq!(findings(&files), [("a/src/c.rs".to_owned(), 0)]);
    }
}
