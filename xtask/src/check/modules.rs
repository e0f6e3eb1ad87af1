//! Which source files a crate has: those that `mod` items lead to from its roots.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{code_only, is_word};

/// Every file among `files` (path to text) that cargo would compile: the roots of each package by
/// cargo's naming rules, and what their `mod` items lead to. A `mod` item whose file is not there
/// leads nowhere: the compiler says so.
pub(super) fn reachable<'a>(
    files: &BTreeMap<&'a str, &str>,
    packages: &[&str],
) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<(&str, bool)> = files
        .keys()
        .filter(|path| packages.iter().any(|package| is_root(path, package)))
        .map(|path| (*path, true))
        .collect();
    while let Some((path, root)) = waiting.pop() {
        if !reached.insert(path) {
            continue;
        }
        for item in items(files.get(path).copied().unwrap_or_default()) {
            for candidate in item.candidates(path, root) {
                if let Some((path, _)) = files.get_key_value(candidate.as_str()) {
                    waiting.push((path, false));
                }
            }
        }
    }
    reached
}

/// Whether cargo takes the file for the root of a target of the package in folder `package`.
fn is_root(path: &str, package: &str) -> bool {
    let Some(inner) = path.strip_prefix(package).and_then(|p| p.strip_prefix('/')) else {
        return false;
    };
    let parts: Vec<&str> = inner.split('/').collect();
    matches!(
        parts.as_slice(),
        ["build.rs"]
            | ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["src", "bin", _, "main.rs"]
            | ["tests" | "benches" | "examples", _]
            | ["tests" | "benches" | "examples", _, "main.rs"]
    )
}

/// A `mod name;` with the inline modules around it.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    around: Vec<String>,
    name: String,
    path: Option<String>,
}

impl Item {
    /// Where the module's file can be, seen from the file that has the item.
    fn candidates(&self, from: &str, root: bool) -> Vec<String> {
        let (folder, file) = from.rsplit_once('/').unwrap_or(("", from));
        if let Some(path) = &self.path {
            return vec![normal(&format!("{folder}/{path}"))];
        }
        // A root's and a mod.rs's modules lie beside it, another file's in a folder of its name.
        let mut base = folder.to_owned();
        if !root && file != "mod.rs" {
            base = format!("{folder}/{}", file.trim_end_matches(".rs"));
        }
        for module in &self.around {
            base = format!("{base}/{module}");
        }
        vec![format!("{base}/{}.rs", self.name), format!("{base}/{}/mod.rs", self.name)]
    }
}

/// `a/b/../c` as `a/c`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The `mod name;` items of a file.
fn items(text: &str) -> Vec<Item> {
    let code = code_only(text);
    let mut found = Vec::new();
    // The names of the open blocks, from the outside in; empty for a block that is no module.
    let mut blocks: Vec<String> = Vec::new();
    let mut path = None;
    let mut previous: [&str; 2] = ["", ""];
    for (at, token) in tokens(&code) {
        match (previous, token) {
            (["mod", name], ";") => found.push(Item {
                around: blocks.iter().filter(|block| !block.is_empty()).cloned().collect(),
                name: name.trim_start_matches("r#").to_owned(),
                path: path.take(),
            }),
            (["mod", name], "{") => blocks.push(name.to_owned()),
            (_, "{") => blocks.push(String::new()),
            (_, "}") => drop(blocks.pop()),
            // The path itself is a literal, so it is read from the text, where it is as long.
            (["[", "path"], "=") => path = literal_after(text, &code, at),
            _ => {}
        }
        if matches!(token, ";" | "{" | "}") {
            path = None;
        }
        previous = [previous[1], token];
    }
    found
}

/// Words and single other characters, with where they start in bytes.
fn tokens(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code.get(at..)?.find(|c: char| !c.is_whitespace())?;
        let rest = code.get(at..)?;
        let raw = if rest.starts_with("r#") { 2 } else { 0 };
        let word = rest.get(raw..)?.find(|c| !is_word(c)).unwrap_or(rest.len() - raw);
        let length = if word > 0 { raw + word } else { rest.chars().next()?.len_utf8() };
        let start = at;
        at += length;
        Some((start, rest.get(..length)?))
    })
}

/// The string literal that follows byte `at` of `code`, which is `text` with its literals blank.
fn literal_after(text: &str, code: &str, at: usize) -> Option<String> {
    // Blanks are one byte each where the text may have longer characters: count characters.
    let characters = code.get(..=at)?.chars().count();
    let rest: String = text.chars().skip(characters).take_while(|c| *c != ']').collect();
    Some(rest.split('"').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(files: &[(&'static str, &str)]) -> Vec<&'static str> {
        let files = files.iter().copied().collect();
        reachable(&files, &["a"]).into_iter().collect()
    }

    #[test]
    fn mod_items_lead_to_files_in_all_three_layouts() {
        let files = [
            ("a/src/lib.rs", "pub mod b;\n#[cfg(test)]\nmod c;\n"),
            ("a/src/b.rs", "pub(crate) mod d;"),
            ("a/src/b/d.rs", ""),
            ("a/src/c/mod.rs", "mod r#type; mod inline { mod e; }"),
            ("a/src/c/type.rs", ""),
            ("a/src/c/inline/e.rs", ""),
        ];
        assert_eq!(reached(&files).len(), files.len());
    }

    #[test]
    fn a_file_that_nothing_names_is_not_reached() {
        let files = [
            ("a/src/lib.rs", "// mod b;\nconst X: &str = \"mod b;\";\nfn f() { mod_b(); }"),
            ("a/src/b.rs", ""),
        ];
        assert_eq!(reached(&files), ["a/src/lib.rs"]);
    }

    #[test]
    fn roots_follow_cargos_names() {
        let files = [
            ("a/build.rs", ""),
            ("a/src/bin/tool.rs", ""),
            ("a/tests/one.rs", "mod common;"),
            ("a/tests/common/mod.rs", ""),
            ("a/tests/two/main.rs", ""),
            ("a/tests/two/helper.rs", ""),
            ("b/src/lib.rs", ""),
        ];
        let expected = [
            "a/build.rs",
            "a/src/bin/tool.rs",
            "a/tests/common/mod.rs",
            "a/tests/one.rs",
            "a/tests/two/main.rs",
        ];
        assert_eq!(reached(&files), expected);
    }

    #[test]
    fn a_path_attribute_is_followed() {
        let files = [
            (
                "a/src/lib.rs",
                "const Ü: &str = \"ü\";\n#[path = \"../common/x.rs\"]\nmod b;\nmod c;",
            ),
            ("a/common/x.rs", ""),
            ("a/src/c.rs", ""),
        ];
        assert_eq!(reached(&files).len(), files.len());
    }
}
