//! Label selectors (`meta/v1` `LabelSelector`) in a canonical form: equal ones are equal values.

use std::{collections::BTreeSet, fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::encode::Encoder;
use crate::cluster::event::Labels;

/// What a requirement says of its key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Operator {
    In(BTreeSet<Arc<str>>),
    NotIn(BTreeSet<Arc<str>>),
    Exists,
    DoesNotExist,
}

/// One condition on one label key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Requirement {
    key: Arc<str>,
    operator: Operator,
}

impl Requirement {
    /// `NotIn` and `DoesNotExist` hold when the key is missing (`labels.Requirement`).
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// A compiled selector: all requirements must hold; none matches everything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector {
    /// Sorted, without duplicates.
    requirements: Vec<Requirement>,
}

/// A requirement that some labels do not meet; printed as what is said of the labels.
#[derive(Clone, Copy, Debug)]
pub struct Unmet<'a> {
    requirement: &'a Requirement,
    value: Option<&'a str>,
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { key, operator } = self.requirement;
        match (operator, self.value) {
            (Operator::In(values), Some(value)) => {
                write!(f, "label {key}={value} is not in ({})", Listed(values))
            }
            (Operator::In(values), None) => {
                write!(f, "label {key} is missing, and must be in ({})", Listed(values))
            }
            (Operator::Exists, _) => write!(f, "label {key} is missing"),
            (Operator::NotIn(_) | Operator::DoesNotExist, value) => {
                write!(f, "label {key}={} is excluded", value.unwrap_or_default())
            }
        }
    }
}

/// Values with commas in between.
struct Listed<'a>(&'a BTreeSet<Arc<str>>);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, value) in self.0.iter().enumerate() {
            write!(f, "{}{value}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// An operator that is none of the API's four.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("operator {operator:?} of key {key:?} is not one of In, NotIn, Exists and DoesNotExist")]
pub struct UnknownOperator {
    /// Label key.
    pub key: String,
    /// The operator as written.
    pub operator: String,
}

impl Selector {
    /// Compiles the API's form.
    pub fn compile(selector: &LabelSelector) -> Result<Self, UnknownOperator> {
        let mut requirements = BTreeSet::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let values = BTreeSet::from([Arc::from(value.as_str())]);
            requirements
                .insert(Requirement { key: key.as_str().into(), operator: Operator::In(values) });
        }
        for expression in selector.match_expressions.iter().flatten() {
            requirements.insert(requirement(expression)?);
        }
        Ok(Self { requirements: requirements.into_iter().collect() })
    }

    /// Whether it selects an object with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// The requirements that these labels do not meet.
    pub fn unmet<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = Unmet<'a>> {
        self.requirements.iter().filter(|requirement| !requirement.matches(labels)).map(
            |requirement| {
                let value = labels.get(&requirement.key);
                Unmet { requirement, value }
            },
        )
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// A key and the values of which every match has one: what an index can look up. `None`
    /// where no requirement names values.
    pub(crate) fn hook(&self) -> Option<(&Arc<str>, &BTreeSet<Arc<str>>)> {
        self.requirements
            .iter()
            .filter_map(|requirement| match &requirement.operator {
                Operator::In(values) => Some((&requirement.key, values)),
                Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
            })
            .min_by_key(|(_, values)| values.len())
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.number(self.requirements.len());
        for Requirement { key, operator } in &self.requirements {
            let (tag, values) = match operator {
                Operator::In(values) => (0, Some(values)),
                Operator::NotIn(values) => (1, Some(values)),
                Operator::Exists => (2, None),
                Operator::DoesNotExist => (3, None),
            };
            out.tag(tag);
            out.text(key);
            out.number(values.map_or(0, BTreeSet::len));
            for value in values.into_iter().flatten() {
                out.text(value);
            }
        }
    }
}

fn requirement(expression: &LabelSelectorRequirement) -> Result<Requirement, UnknownOperator> {
    let values = || expression.values.iter().flatten().map(|value| value.as_str().into()).collect();
    let operator = match expression.operator.as_str() {
        "In" => Operator::In(values()),
        "NotIn" => Operator::NotIn(values()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            return Err(UnknownOperator { key: expression.key.clone(), operator: other.into() });
        }
    };
    Ok(Requirement { key: expression.key.as_str().into(), operator })
}

impl fmt::Display for Selector {
    /// As `kubectl get -l` takes it; empty for everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            let (word, values) = match operator {
                Operator::In(values) => ("in", values),
                Operator::NotIn(values) => ("notin", values),
                Operator::Exists => {
                    f.write_str(key)?;
                    continue;
                }
                Operator::DoesNotExist => {
                    write!(f, "!{key}")?;
                    continue;
                }
            };
            let values: Vec<&str> = values.iter().map(|value| &**value).collect();
            write!(f, "{key} {word} ({})", values.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn selector(yaml: &str) -> Selector {
        Selector::compile(&serde_norway::from_str(yaml).unwrap()).unwrap()
    }

    #[test]
    fn only_a_selector_without_requirements_selects_everything() {
        assert!(selector("{}").is_everything());
        assert!(!selector("matchLabels: {a: '1'}").is_everything());
        assert!(!selector("matchExpressions: [{key: a, operator: Exists}]").is_everything());
    }

    #[test]
    fn operators_follow_the_api() {
        for (yaml, object, expected) in [
            ("{}", &[][..], true),
            ("{}", &[("a", "1")], true),
            ("matchLabels: {a: '1'}", &[("a", "1")], true),
            ("matchLabels: {a: '1'}", &[("a", "2")], false),
            ("matchLabels: {a: '1'}", &[], false),
            ("matchLabels: {a: '1', b: '2'}", &[("a", "1")], false),
            ("matchExpressions: [{key: a, operator: In, values: ['1', '2']}]", &[("a", "2")], true),
            ("matchExpressions: [{key: a, operator: In, values: ['1', '2']}]", &[], false),
            ("matchExpressions: [{key: a, operator: NotIn, values: ['1']}]", &[("a", "1")], false),
            ("matchExpressions: [{key: a, operator: NotIn, values: ['1']}]", &[("a", "2")], true),
            ("matchExpressions: [{key: a, operator: NotIn, values: ['1']}]", &[], true),
            ("matchExpressions: [{key: a, operator: Exists}]", &[("a", "")], true),
            ("matchExpressions: [{key: a, operator: Exists}]", &[("b", "")], false),
            ("matchExpressions: [{key: a, operator: DoesNotExist}]", &[("a", "")], false),
            ("matchExpressions: [{key: a, operator: DoesNotExist}]", &[("b", "")], true),
            (
                "{matchLabels: {a: '1'}, matchExpressions: [{key: b, operator: Exists}]}",
                &[("a", "1")],
                false,
            ),
        ] {
            assert_eq!(selector(yaml).matches(&labels(object)), expected, "{yaml} on {object:?}");
        }
    }

    #[test]
    fn one_meaning_has_one_form() {
        let a = selector("matchLabels: {b: '2', a: '1'}");
        let b = selector(
            "{matchLabels: {a: '1'}, matchExpressions: [{key: b, operator: In, values: ['2', '2']}, \
             {key: a, operator: In, values: ['1']}]}",
        );
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "a in (1),b in (2)");
        let (key, values) = a.hook().unwrap();
        assert_eq!((&**key, values.len()), ("a", 1));
        assert!(selector("matchExpressions: [{key: a, operator: Exists}]").hook().is_none());
    }

    #[test]
    fn an_unknown_operator_is_named() {
        let yaml = "matchExpressions: [{key: a, operator: Like, values: ['1']}]";
        let error = Selector::compile(&serde_norway::from_str(yaml).unwrap()).unwrap_err();
        assert_eq!((error.key.as_str(), error.operator.as_str()), ("a", "Like"));
    }
}
