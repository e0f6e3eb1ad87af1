//! Whether the documents still say what is there: paths of the code map, commands and their flags.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use clap::CommandFactory as _;

use super::{Finding, sources::Source};
use crate::cli::Cli;

/// Documents that everybody reads first.
const REQUIRED: [&str; 3] = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"];

/// Documents whose claims name the tests that show them.
const NAMING_TESTS: [&str; 3] = ["docs/faults.md", "docs/security.md", "docs/situations.md"];
/// Words of a test's name, at least; shorter names may be anything's.
const TEST_WORDS: usize = 4;

/// Command names with the long flags that each takes.
pub(super) type Commands = BTreeMap<String, Vec<String>>;

/// The commands that this program really has.
pub(super) fn commands() -> Commands {
    let mut cli = Cli::command();
    // Adds what clap itself provides, such as `--help`.
    cli.build();
    cli.get_subcommands()
        .map(|command| {
            // Those of commands below it count as its own.
            let flags = command
                .get_arguments()
                .chain(command.get_subcommands().flat_map(clap::Command::get_arguments))
                .filter_map(|argument| argument.get_long());
            (command.get_name().to_owned(), flags.map(str::to_owned).collect())
        })
        .collect()
}

/// Everything that a document says and the repository does not have.
pub(super) fn check(root: &Path, sources: &[Source], commands: &Commands) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in REQUIRED {
        if !sources.iter().any(|source| source.path == path) {
            findings.push(Finding::new(path, 0, "is missing: write it"));
        }
    }
    for source in sources {
        if NAMING_TESTS.contains(&source.path.as_str()) {
            missing_tests(source, sources, &mut findings);
        }
        if source.path == "ARCHITECTURE.md" {
            for (line, path) in code_map(&source.text) {
                if !root.join(path).exists() {
                    let text = format!("the code map names {path}, which does not exist");
                    findings.push(Finding::new(&source.path, line, text));
                }
            }
        }
        if source.path.ends_with(".md") {
            repeated_headings(source, &mut findings);
        }
        if source.path.ends_with(".md") || source.path == ".ci/run" {
            commands_of(source, commands, &mut findings);
        }
    }
    findings
}

/// Tests that a document names and nobody has written: functions, or cases of a test in a cluster.
fn missing_tests(document: &Source, sources: &[Source], findings: &mut Vec<Finding>) {
    let code = || sources.iter().filter(|source| source.path.ends_with(".rs"));
    for (number, line) in document.text.lines().enumerate() {
        let names = line.split('`').skip(1).step_by(2).filter(|text| {
            let words = text.split('_').count();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            words >= TEST_WORDS && text.chars().all(plain) && !text.starts_with("enforcer_")
        });
        for name in names {
            let (function, case) = (format!("fn {name}("), format!("::{name}\""));
            let has =
                |source: &Source| source.text.contains(&function) || source.text.contains(&case);
            if !code().any(has) {
                let text = format!("there is no test `{name}`");
                findings.push(Finding::new(&document.path, number + 1, text));
            }
        }
    }
}

/// Headings that a document has twice: two changes have put the same text into it.
fn repeated_headings(source: &Source, findings: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    let mut in_code = false;
    for (number, line) in source.text.lines().enumerate() {
        in_code ^= line.starts_with("```");
        if !in_code && line.starts_with("## ") && !seen.insert(line) {
            let text = format!("the heading `{line}` is there twice");
            findings.push(Finding::new(&source.path, number + 1, text));
        }
    }
}

/// The paths of the code map with their lines: the first cells of the table under its heading.
fn code_map(text: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut paths = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == "Code map";
        } else if inside
            && let Some(cell) = line.strip_prefix('|').and_then(|row| row.split('|').next())
        {
            // Every second part is between backticks.
            paths.extend(cell.split('`').skip(1).step_by(2).map(|path| (number + 1, path)));
        }
    }
    paths
}

fn commands_of(source: &Source, commands: &Commands, findings: &mut Vec<Finding>) {
    for (number, line) in source.text.lines().enumerate() {
        for (at, start) in line.match_indices("cargo xtask ") {
            let rest = line.get(at + start.len()..).unwrap_or_default();
            let invocation = rest.split(['`', '#', '"', '\'', ';', '|', '&', ')']).next();
            let mut words = invocation.unwrap_or_default().split_whitespace();
            // `cargo xtask <command>` and `cargo xtask ...` name no command.
            let Some(name) = words.next().filter(|word| word.starts_with(char::is_alphabetic))
            else {
                continue;
            };
            let Some(flags) = commands.get(name.trim_end_matches([',', '.', ':'])) else {
                let text = format!("there is no `cargo xtask {name}`");
                findings.push(Finding::new(&source.path, number + 1, text));
                continue;
            };
            for word in words {
                let word = word.trim_matches(['[', ']', ',', '.']);
                let Some(flag) = word.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
                    continue;
                };
                let flag = flag.split('=').next().unwrap_or(flag);
                if !flags.iter().any(|known| known == flag) {
                    let text = format!("`cargo xtask {name}` has no flag --{flag}");
                    findings.push(Finding::new(&source.path, number + 1, text));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let root = crate::workspace::Workspace::find();
        let sources = [Source { path: path.to_owned(), text: text.to_owned() }];
        check(root.root(), &sources, &commands())
            .into_iter()
            .filter(|finding| !finding.text.contains("is missing"))
            .map(|finding| format!("{}: {}", finding.line, finding.text))
            .collect()
    }

    #[test]
    fn commands_and_flags_that_exist_are_found() {
        let text = "Run `cargo xtask demo --keep` or `cargo xtask demo [--keep]`, then\n\
                    cargo xtask test  # with --anything\n`cargo xtask <command>`\n";
        assert_eq!(findings("README.md", text), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let text = "`cargo xtask fly` and\n`cargo xtask demo --moon=1`\n";
        assert_eq!(
            findings("docs/x.md", text),
            ["1: there is no `cargo xtask fly`", "2: `cargo xtask demo` has no flag --moon"]
        );
        assert_eq!(findings("x.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_is_named_and_not_there_is_named() {
        let text = "`enforcer_start_gap_seconds`, `--a-flag`\n`nobody_wrote_this_test`\n";
        let expected = ["2: there is no test `nobody_wrote_this_test`"];
        assert_eq!(findings("docs/faults.md", text), expected);
        assert_eq!(findings("docs/install.md", text), Vec::<String>::new());
    }

    #[test]
    fn a_heading_that_is_there_twice_is_named() {
        let text = "## A\n```sh\n## comment\n## comment\n```\n### B\n### B\n## A\n";
        assert_eq!(findings("docs/x.md", text), ["8: the heading `## A` is there twice"]);
    }

    #[test]
    fn the_code_maps_paths_are_looked_for() {
        let text = "# X\n| `nowhere` |\n## Code map\n| path | what |\n|---|---|\n\
                    | `xtask/src` | `no path` |\n| `nowhere` | |\n## Y\n| `nowhere` |\n";
        let expected = ["7: the code map names nowhere, which does not exist"];
        assert_eq!(findings("ARCHITECTURE.md", text), expected);
    }

    #[test]
    fn the_documents_are_required() {
        let root = crate::workspace::Workspace::find();
        assert_eq!(check(root.root(), &[], &commands()).len(), REQUIRED.len());
    }
}
