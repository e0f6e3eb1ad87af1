//! What is wrong with an object or a file, in words that lead to the place.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One wrong field, without the place of its object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// Path of the field, as `kubectl` writes it: `spec.ingress[0].ports[1].endPort`. Empty for the
    /// object as a whole.
    pub field: String,
    /// The value that is there, if that helps.
    pub value: Option<String>,
    /// What is wrong, or what is right.
    pub reason: String,
}

impl FieldError {
    /// An error without a value to show.
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), value: None, reason: reason.into() }
    }

    /// An error about a value.
    pub(crate) fn value(
        field: impl Into<String>,
        value: impl fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: Some(shorten(&value.to_string())),
            reason: reason.into(),
        }
    }
}

/// Values can be as long as a file; a message must not be.
fn shorten(value: &str) -> String {
    const MOST: usize = 80;
    if value.chars().count() <= MOST {
        return value.to_owned();
    }
    let mut short: String = value.chars().take(MOST).collect();
    short.push('…');
    short
}

/// Why something that a source was given is not in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Problem {
    /// File, relative to the source's directory; empty for the directory itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Document in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    /// Kind and `namespace/name` of the object, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Path of the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Value of the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is wrong, and what then happens.
    pub reason: String,
    /// The last good state stays in force; else the object is not in force.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last_good: bool,
}

impl Problem {
    /// A problem with a whole file or directory.
    pub(crate) fn file(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { file: file.into(), reason: reason.into(), ..Self::default() }
    }

    /// A problem with one field of an object.
    pub(crate) fn field(file: &str, document: usize, object: Option<&str>, e: &FieldError) -> Self {
        Self {
            file: file.to_owned(),
            document: Some(document),
            object: object.map(str::to_owned),
            field: (!e.field.is_empty()).then(|| e.field.clone()),
            value: e.value.clone(),
            reason: e.reason.clone(),
            last_good: false,
        }
    }

    /// The same, with whether a last good state stays in force.
    pub(crate) fn keeping(mut self, last_good: bool) -> Self {
        self.last_good = last_good;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if !self.file.is_empty() {
            write!(f, "{}", self.file)?;
            separator = ": ";
        }
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, "{separator}{part}")?;
            separator = ": ";
        }
        if let Some(value) = &self.value {
            write!(f, "{separator}\"{value}\"")?;
            separator = ": ";
        }
        write!(f, "{separator}{}", self.reason)?;
        if self.last_good { f.write_str(" (the last good state stays in force)") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_place_the_value_and_the_reason() {
        let e = FieldError::value("spec.ingress[0].ports[1].endPort", 79, "must be ≥ `port`");
        let problem = Problem::field("a/b.yaml", 2, Some("NetworkPolicy shop/api"), &e);
        assert_eq!(
            problem.to_string(),
            "a/b.yaml, document 2: NetworkPolicy shop/api: spec.ingress[0].ports[1].endPort: \
             \"79\": must be ≥ `port`"
        );
        assert_eq!(Problem::file("x.yaml", "is no UTF-8").to_string(), "x.yaml: is no UTF-8");
        assert_eq!(
            Problem::file("", "gone").keeping(true).to_string(),
            "gone (the last good state stays in force)"
        );
    }

    #[test]
    fn long_values_are_cut() {
        let e = FieldError::value("f", "x".repeat(5000), "no");
        assert_eq!(e.value.map(|v| v.chars().count()), Some(81));
    }
}
