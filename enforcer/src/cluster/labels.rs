//! Labels of an object, small: a hundred thousand pods have them, and most texts in them, and most
//! whole sets, are the same in many.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A key and its value.
type Pair = (Arc<str>, Arc<str>);

/// Labels. Clones share them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Pair]>);

impl Labels {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        static NONE: OnceLock<Labels> = OnceLock::new();
        NONE.get_or_init(|| Self(Arc::new([]))).clone()
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Whether there is a value of a key.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The same, with another value of a key.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        self.iter().chain([(key, value)]).collect()
    }

    /// As others want them.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// How many have this very set, this one included.
    #[must_use]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Of several values of one key the last counts.
impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(key, value)| (key.into(), value.into()));
        let sorted: BTreeMap<Arc<str>, Arc<str>> = pairs.collect();
        Self(sorted.into_iter().collect())
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<String, String>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_key_whatever_came_first() {
        let labels = Labels::from([("b", "2"), ("a", "1"), ("c", ""), ("b", "3")]);
        assert_eq!(labels, Labels::from([("a", "1"), ("c", ""), ("b", "3")]));
        let found = ["a", "b", "c", "d", ""].map(|key| labels.get(key));
        assert_eq!(found, [Some("1"), Some("3"), Some(""), None, None]);
        assert_eq!((labels.len(), labels.is_empty(), Labels::new().is_empty()), (3, false, true));
        assert_eq!(labels.with("a", "0").get("a"), Some("0"));
        assert_eq!(format!("{labels:?}"), r#"{"a": "1", "b": "3", "c": ""}"#);
    }

    #[test]
    fn they_are_written_as_an_object_and_read_from_one() {
        let labels = Labels::from([("b", "2"), ("a", "1")]);
        let text = serde_norway::to_string(&labels).unwrap();
        assert_eq!(text, "a: '1'\nb: '2'\n");
        assert_eq!(serde_norway::from_str::<Labels>(&text).unwrap(), labels);
        assert_eq!(Labels::from_iter(labels.to_map()), labels);
    }
}
