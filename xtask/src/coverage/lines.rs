//! Which lines of a source are there for tests only.

use std::collections::BTreeSet;

/// Whether a whole file is.
pub(super) fn is_tests(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/")
}

/// The lines, from 1 on, of items that are only compiled for tests.
pub(super) fn of_tests(text: &str) -> BTreeSet<u32> {
    let mut inside = BTreeSet::new();
    // What ends the item: its closing brace, as far to the right as the attribute.
    let mut end: Option<String> = None;
    let mut attribute: Option<&str> = None;
    for (line, number) in text.lines().zip(1..) {
        if let Some(closing) = &end {
            inside.insert(number);
            if line == closing {
                end = None;
            }
            continue;
        }
        let indent = line.get(..line.len() - line.trim_start().len()).unwrap_or_default();
        if line.trim() == "#[cfg(test)]" {
            attribute = Some(indent);
            inside.insert(number);
        } else if let Some(indent) = attribute {
            inside.insert(number);
            if line.ends_with('{') {
                end = Some(format!("{indent}}}"));
            }
            if line.ends_with(['{', ';', '}']) {
                attribute = None;
            }
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_tests_are_known_by_their_names() {
        for path in ["a/tests.rs", "a/nearest_tests.rs", "a/tests/random.rs"] {
            assert!(is_tests(path), "{path}");
        }
        assert!(!is_tests("a/latest.rs") && !is_tests("a/contests/b.rs"));
    }

    #[test]
    fn items_of_tests_end_where_they_end() {
        let text = "fn a() {}\n#[cfg(test)]\nmod other;\nfn b() {\n    #[cfg(test)]\n    use x;\n\
                    \x20   c();\n}\n#[cfg(test)]\n#[path = \"y.rs\"]\nmod tests {\n    fn d() {\n\
                    \x20   }\n}\nfn e() {}\n";
        let lines: Vec<u32> = of_tests(text).into_iter().collect();
        assert_eq!(lines, [2, 3, 5, 6, 9, 10, 11, 12, 13, 14]);
    }
}
