//! Texts, and whole sets of labels, that many objects have in common, kept once.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use crate::cluster::event::Labels;

/// Below this number nothing is worth looking for.
const FEW: usize = 1024;

/// Texts and sets that some object has.
#[derive(Debug, Default)]
pub struct Shared {
    texts: HashSet<Arc<str>>,
    sets: HashSet<Labels>,
    /// How much was left the last time that was tidied.
    left: usize,
}

impl Shared {
    /// The text, as it is known already or from now on.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }

    /// The labels. What one object has alone, such as its name, is not looked for again.
    pub fn labels(&mut self, raw: &BTreeMap<String, String>) -> Labels {
        let labels: Labels =
            raw.iter().map(|(key, value)| (self.text(key), self.text(value))).collect();
        if let Some(known) = self.sets.get(&labels) {
            return known.clone();
        }
        self.sets.insert(labels.clone());
        labels
    }

    /// Forgets what no object has any more, if there has come much since the last time: so what it
    /// costs is a share of what has come.
    pub fn tidy_if_grown(&mut self) {
        if self.len() > 2 * self.left.max(FEW) {
            self.tidy();
        }
    }

    /// Forgets what no object has any more.
    pub fn tidy(&mut self) {
        // Sets hold texts.
        self.sets.retain(|labels| labels.holders() > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.left = self.len();
    }

    fn len(&self) -> usize {
        self.texts.len() + self.sets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_equal_is_kept_once_and_forgotten_with_its_last_holder() {
        let mut shared = Shared::default();
        let (a, b) = (shared.text("a"), shared.text("a"));
        assert!(Arc::ptr_eq(&a, &b));
        let labels = shared.labels(&raw(&[("a", "x"), ("b", "a")]));
        let same = shared.labels(&raw(&[("b", "a"), ("a", "x")]));
        assert_eq!((labels.holders(), labels.get("a"), labels.get("b")), (3, Some("x"), Some("a")));
        shared.tidy();
        assert_eq!((shared.texts.len(), shared.sets.len()), (3, 1));
        drop((labels, same));
        shared.tidy();
        assert_eq!((shared.texts.len(), shared.sets.len()), (1, 0));
        drop((a, b));
        shared.tidy();
        assert_eq!(shared.len(), 0);
    }

    #[test]
    fn it_does_not_grow_with_what_has_gone() {
        let mut shared = Shared::default();
        for number in 0..100_000 {
            shared.text(&number.to_string());
            shared.tidy_if_grown();
            assert!(shared.len() <= 2 * FEW);
        }
    }
}
