//! `flow.FlowFilter` as a test on our flows, by Hubble's rules: values of one field are
//! alternatives, all fields of one filter must match, and of several filters one.
//!
//! A filter is compiled once. It looks at our own flow, so that a flow that is not wanted is never
//! made a message of.

mod application;
mod ends;
mod labels;
mod patterns;
mod plain;

use std::fmt;

use enforcer_hubble::{flow::FlowFilter, near};

use super::origin::Origin;
use crate::flow::event::Flow;

/// A filter that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A value is none of the field's.
    #[error("filter {field}: {value:?} {problem}{hint}")]
    Value {
        /// The field, by its name in `FlowFilter`.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// What was probably meant.
        hint: String,
    },
    /// A field is not served at all.
    #[error("filter {field} is not supported: {instead}")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
    /// Fields contradict each other.
    #[error("filter {field} matches application messages only: event_type must name 129 (l7) too")]
    NotApplication {
        /// The field.
        field: &'static str,
    },
}

impl FilterError {
    fn value(field: &'static str, value: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Value { field, value: value.into(), problem: problem.into(), hint: String::new() }
    }

    /// None of `names`.
    fn none_of(field: &'static str, value: &str, names: &[&str]) -> Self {
        Self::Value {
            field,
            value: value.to_owned(),
            problem: format!("is none of {}", names.join(", ")),
            hint: near::hint(value, names.iter().copied()),
        }
    }
}

type Test = Box<dyn Fn(&Flow) -> bool + Send + Sync>;

/// One filter: all tests must pass.
#[derive(Default)]
struct One {
    tests: Vec<Test>,
}

impl One {
    /// Adds a test, if the field has values.
    fn add<T>(&mut self, values: &[T], test: impl Fn(&Flow) -> bool + Send + Sync + 'static) {
        if !values.is_empty() {
            self.tests.push(Box::new(test));
        }
    }

    fn matches(&self, flow: &Flow) -> bool {
        self.tests.iter().all(|test| test(flow))
    }
}

/// Filters, ready to use.
#[derive(Default)]
pub struct Filters {
    whitelist: Vec<One>,
    blacklist: Vec<One>,
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |filters: &[One]| filters.iter().map(|one| one.tests.len()).sum::<usize>();
        f.debug_struct("Filters")
            .field("whitelist", &count(&self.whitelist))
            .field("blacklist", &count(&self.blacklist))
            .finish()
    }
}

impl Filters {
    /// Compiles filters for flows of this node.
    ///
    /// # Errors
    /// The first value that means nothing; see [`FilterError`].
    pub fn compile(
        whitelist: &[FlowFilter],
        blacklist: &[FlowFilter],
        origin: &Origin,
    ) -> Result<Self, FilterError> {
        let all = |filters: &[FlowFilter]| {
            filters.iter().map(|one| compile(one, origin)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { whitelist: all(whitelist)?, blacklist: all(blacklist)? })
    }

    /// Whether the flow is wanted.
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        (self.whitelist.is_empty() || self.whitelist.iter().any(|one| one.matches(flow)))
            && !self.blacklist.iter().any(|one| one.matches(flow))
    }
}

fn compile(filter: &FlowFilter, origin: &Origin) -> Result<One, FilterError> {
    if filter.experimental.as_ref().is_some_and(|e| !e.cel_expression.is_empty()) {
        return Err(FilterError::Unsupported {
            field: "experimental.cel_expression",
            instead: "use the other fields",
        });
    }
    let mut one = One::default();
    plain::add(&mut one, filter)?;
    ends::add(&mut one, filter, origin)?;
    labels::add(&mut one, filter, origin)?;
    patterns::add(&mut one, filter, origin)?;
    application::add(&mut one, filter)?;
    Ok(one)
}

#[cfg(test)]
mod tests;
