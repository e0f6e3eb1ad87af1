//! Changes that no test notices: those that were found, and those that a document explains. Without
//! lines and columns, which move.

use std::collections::BTreeMap;

/// Changes as `path: change`, and how many there are of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survivors(BTreeMap<String, usize>);

impl Survivors {
    /// From lines `path:line:column: change`.
    pub(super) fn found(lines: &[String]) -> Self {
        let mut all = Self::default();
        for line in lines {
            let mut parts = line.splitn(4, ':');
            if let (Some(path), Some(_), Some(_), Some(change)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            {
                all.add(path, change.trim(), 1);
            }
        }
        all
    }

    /// From the items ``- `path`: `change` `` of a document, and ``(N times)`` behind some.
    pub(super) fn explained(document: &str) -> Self {
        let mut all = Self::default();
        for line in document.lines() {
            let item = line.strip_prefix("- `").and_then(|rest| rest.split_once("`: `"));
            let Some((path, rest)) = item else { continue };
            let Some((change, behind)) = rest.split_once('`') else { continue };
            let times = behind.trim().strip_prefix('(').and_then(|text| text.split_once(" times)"));
            let times = times.and_then(|(number, _)| number.parse().ok()).unwrap_or(1);
            all.add(path, change, times);
        }
        all
    }

    fn add(&mut self, path: &str, change: &str, times: usize) {
        *self.0.entry(format!("{path}: {change}")).or_default() += times;
    }

    /// Those that the other has not, or not as many.
    pub(super) fn without(&self, other: &Self) -> Self {
        let left = self.0.iter().filter_map(|(change, times)| {
            let known = other.0.get(change).copied().unwrap_or(0);
            (*times > known).then(|| (change.clone(), times - known))
        });
        Self(left.collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(change, times)| (change.as_str(), *times))
    }

    /// How many there are, each as often as it is.
    pub(super) fn len(&self) -> usize {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_found_one_and_its_explanation_are_the_same() {
        let found = Survivors::found(&[
            "a/x.rs:34:31: replace | with ^ in <impl From<A> for B>::from".to_owned(),
            "a/x.rs:35:31: replace | with ^ in <impl From<A> for B>::from".to_owned(),
            "a/x.rs:36:1: replace << with >>".to_owned(),
        ]);
        let document = "Why: `|`.\n\n- `a/x.rs`: `replace | with ^ in <impl From<A> for B>::from` (2 \
                        times): why\n- `a/x.rs`: `replace << with >>`\n- not one\n";
        assert_eq!(found, Survivors::explained(document));
        assert_eq!(found.len(), 3);
        assert_eq!(found.without(&Survivors::explained(document)), Survivors::default());
    }
}
