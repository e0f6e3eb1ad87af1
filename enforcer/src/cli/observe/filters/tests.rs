//! Flags to filters: the answers of Hubble's own client, and what is refused.

use clap::Parser;

use super::*;
use crate::cli::observe::tests::ObserveCli;

/// Words between spaces; spaces may be in single quotes.
pub(in crate::cli::observe) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            letter => word.push(letter),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

fn parse(line: &str) -> Result<Filters, clap::Error> {
    let words = [vec!["observe".to_owned()], words(line)].concat();
    ObserveCli::try_parse_from(words).map(|line| line.args.flows.filters)
}

fn check(line: &str, answer: &[&str]) {
    match parse(line) {
        Err(error) => {
            assert_eq!(answer, ["refused"], "{line}: {error}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        Ok(filters) => {
            let lists = [("allow", &filters.allow), ("deny", &filters.deny)];
            let own: Vec<String> = lists
                .into_iter()
                .flat_map(|(list, filters)| filters.iter().map(move |one| (list, one)))
                .map(|(list, one)| {
                    format!("{list} {}", enforcer_hubble::json::to_string(one).unwrap())
                })
                .collect();
            assert_eq!(own, answer, "{line}");
        }
    }
}

#[test]
fn flags_mean_what_they_mean_to_hubbles_client() {
    let table = include_str!("../testdata/filters.txt");
    let mut cases = 0;
    let mut lines =
        table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).peekable();
    while let Some(flags) = lines.next() {
        let flags = flags.strip_prefix("$ ").expect("a line of flags");
        let mut answer = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            answer.push(line);
        }
        check(flags, &answer);
        cases += 1;
    }
    assert!(cases > 1000, "{cases}");
}

#[test]
fn what_is_refused_says_what_was_probably_meant() {
    for (line, expected) in [
        ("--verdict dropped", "did you mean DROPPED?"),
        ("--drop-reason-desc POLICY_DENID", "did you mean POLICY_DENIED?"),
        ("-t trace:to-endpint", "did you mean to-endpoint?"),
        ("-t policy-verdit", "did you mean policy-verdict?"),
        ("--traffic-direction ingres", "did you mean ingress?"),
        ("--identity wolrd", "did you mean world?"),
        ("--ip-version v5", "did you mean v4?"),
        ("--allowlist '{\"source_pot\":[]}'", "did you mean source_pod?"),
        ("--ip 1.1.1.1 --from-pod x", "filters --ip and --from-pod cannot be combined"),
        ("-n a --pod b/x", "'b/x' is not in namespace 'a'"),
        ("--pod a --not", "--not without a filter behind it"),
        ("--not --not --pod a", "--not twice in a row"),
        ("--nmespace a", "--namespace"),
        ("--from-pods a", "--from-pod"),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(expected), "{line}: {error}");
    }
}

#[test]
fn raw_filters_are_printed_as_hubbles_client_prints_them() {
    let filters = parse("--pod a --not --label 'x in (b)'").unwrap();
    assert_eq!(
        filters.raw(),
        "allowlist:\n    - '{\"source_pod\":[\"a\"]}'\n    - '{\"destination_pod\":[\"a\"]}'\n\
         denylist:\n    - '{\"source_label\":[\"x in (b)\"]}'\n    \
         - '{\"destination_label\":[\"x in (b)\"]}'\n"
    );
    assert_eq!(Filters::default().raw(), "{}\n");
}
