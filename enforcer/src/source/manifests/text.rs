//! Cuts a file into its YAML documents, so that one that did not change is not read again.
//!
//! A line that begins with `---` or `...` and then ends or has white space is a document mark
//! wherever it stands, also inside quotes and block scalars (YAML 1.2.2, 9.1.2), so the cut needs
//! no YAML parser. Anchors do not reach over it.

/// The documents of `text`, in order. What has neither content nor a `---` of its own is no
/// document; an empty document between two marks is one.
pub(super) fn documents(text: &str) -> Vec<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut at, mut begun) = (0, 0, false);
    for line in text.split_inclusive('\n') {
        let next = at + line.len();
        if is_mark(line, "---") {
            if begun {
                documents.push(&text[start..at]);
                start = at;
            }
            begun = true;
        } else if is_mark(line, "...") {
            if begun {
                documents.push(&text[start..at]);
            }
            (start, begun) = (next, false);
        } else if !begun {
            // Directives stay with the document whose `---` follows.
            let line = line.trim_start();
            begun = !line.is_empty() && !line.starts_with(['#', '%']);
        }
        at = next;
    }
    if begun {
        documents.push(&text[start..]);
    }
    documents
}

fn is_mark(line: &str, mark: &str) -> bool {
    line.strip_prefix(mark)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn documents_are_cut_where_yaml_cuts_them() {
        for (text, expected) in [
            ("", &[][..]),
            ("# nothing\n\n", &[]),
            ("a: 1", &["a: 1"]),
            ("---\na: 1\n", &["---\na: 1\n"]),
            ("# c\n---\na: 1\n---\nb: 2\n", &["# c\n---\na: 1\n", "---\nb: 2\n"]),
            ("a: 1\n---\n---\nb: 2", &["a: 1\n", "---\n", "---\nb: 2"]),
            ("a: ---\n----\n", &["a: ---\n----\n"]),
            ("%YAML 1.1\n--- {a: 1}\n", &["%YAML 1.1\n--- {a: 1}\n"]),
            ("a: 1\n...\n# c\n---\nb: 2\n", &["a: 1\n", "# c\n---\nb: 2\n"]),
            ("a: 1\r\n---\r\nb: 2", &["a: 1\r\n", "---\r\nb: 2"]),
            ("\u{feff}a: 1", &["a: 1"]),
            ("---", &["---"]),
        ] {
            assert_eq!(documents(text), expected, "{text:?}");
        }
    }
}
