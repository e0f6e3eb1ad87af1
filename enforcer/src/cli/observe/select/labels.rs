//! Label selectors: `app=web`, `app!=web`, `app in (a,b)`, `app`, `!app`, several with commas.
//! A key may begin with the source of a label (`k8s:`, `reserved:`); without one it is of any.

use enforcer_hubble::flow::{Flow, FlowFilter};

use super::{One, SelectError, wrong};

pub(super) fn add(one: &mut One, filter: &FlowFilter) -> Result<(), SelectError> {
    let source: fn(&Flow) -> &[String] = |flow| flow.source.as_ref().map_or(&[], |end| &end.labels);
    let destination: fn(&Flow) -> &[String] =
        |flow| flow.destination.as_ref().map_or(&[], |end| &end.labels);
    let node: fn(&Flow) -> &[String] = |flow| &flow.node_labels;
    for (field, values, of) in [
        ("source_label", &filter.source_label, source),
        ("destination_label", &filter.destination_label, destination),
        ("node_labels", &filter.node_labels, node),
    ] {
        let mut selectors = Vec::new();
        for value in values {
            let read = selector(value).ok_or_else(|| {
                wrong(field, value, "is no label selector such as app=web or app in (a,b)")
            })?;
            selectors.push(read);
        }
        one.any(selectors, move |all: &Vec<Requirement>, flow| {
            all.iter().all(|requirement| requirement.holds(of(flow)))
        });
    }
    Ok(())
}

/// One requirement: the key, the values that it may have (any, if none), and whether the contrary
/// is meant.
#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    values: Vec<String>,
    not: bool,
}

impl Requirement {
    fn holds(&self, labels: &[String]) -> bool {
        let found = labels.iter().any(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            let bare = key.split_once(':').map_or(key, |(_, bare)| bare);
            let same = key == self.key || bare == self.key;
            same && (self.values.is_empty() || self.values.iter().any(|wanted| wanted == value))
        });
        found != self.not
    }
}

/// The requirements of a selector; `None` if it is none.
fn selector(text: &str) -> Option<Vec<Requirement>> {
    let mut parts = Vec::new();
    let mut depth = 0_usize;
    let mut from = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    if depth > 0 { None } else { parts.into_iter().map(requirement).collect() }
}

fn requirement(text: &str) -> Option<Requirement> {
    let text = text.trim();
    let of = |key: &str, values: Vec<String>, not| {
        let key = key.trim().to_owned();
        let fits = !key.is_empty()
            && key.chars().all(|c| c.is_ascii_alphanumeric() || ":./_-".contains(c));
        fits.then_some(Requirement { key, values, not })
    };
    if let Some((key, value)) = text.split_once("!=") {
        return of(key, vec![value.trim().to_owned()], true);
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return of(key, vec![value.trim().to_owned()], false);
    }
    if let Some(list) = text.strip_suffix(')') {
        let (head, list) = list.split_once('(')?;
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        return match word {
            "in" => of(key, values, false),
            "notin" => of(key, values, true),
            _ => None,
        };
    }
    match text.strip_prefix('!') {
        Some(key) => of(key, Vec::new(), true),
        None => of(text, Vec::new(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_kubernetes() {
        let labels = ["k8s:app=web".to_owned(), "reserved:host".to_owned(), "k8s:tier=".to_owned()];
        for (text, expected) in [
            ("app=web", true),
            ("app == web", true),
            ("k8s:app=web", true),
            ("reserved:app=web", false),
            ("reserved:host", true),
            ("host", true),
            ("app!=web", false),
            ("zone!=a", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("app,!zone", true),
            ("!app", false),
            ("tier=", true),
            ("app=web,zone", false),
        ] {
            let all = selector(text).unwrap();
            assert_eq!(all.iter().all(|r| r.holds(&labels)), expected, "{text}");
        }
        for text in ["", "a in (", "a)", "a b", "a within (b)", "=x", ",a"] {
            assert_eq!(selector(text), None, "{text}");
        }
    }
}
