//! Filters, applied here: for flows from a file, which no server has looked through.
//!
//! Values of one field are alternatives, all fields of one filter must match, and of several
//! filters one.

mod ends;
mod labels;
mod patterns;
mod plain;

use enforcer_hubble::{
    flow::{Flow, FlowFilter},
    observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
};
use prost_types::Timestamp;

/// A filter that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// A value is none of the field's.
    #[error("filter {field}: '{value}' {problem}")]
    Value {
        /// The field, by its name in `FlowFilter`.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It needs a server that knows such filters.
    #[error("--cel-expression is not for files; use the other filters")]
    Cel,
}

fn wrong(field: &'static str, value: &str, problem: impl Into<String>) -> SelectError {
    SelectError::Value { field, value: value.to_owned(), problem: problem.into() }
}

type Test = Box<dyn Fn(&Flow) -> bool>;

/// One filter: all tests must pass.
#[derive(Default)]
struct One(Vec<Test>);

impl One {
    fn of(filter: &FlowFilter) -> Result<Self, SelectError> {
        if filter.experimental.as_ref().is_some_and(|e| !e.cel_expression.is_empty()) {
            return Err(SelectError::Cel);
        }
        let mut one = Self::default();
        plain::add(&mut one, filter)?;
        ends::add(&mut one, filter)?;
        labels::add(&mut one, filter)?;
        patterns::add(&mut one, filter)?;
        Ok(one)
    }

    /// A field with these values: one of them must pass.
    fn any<T: 'static>(
        &mut self,
        values: impl IntoIterator<Item = T>,
        test: impl Fn(&T, &Flow) -> bool + 'static,
    ) {
        let values: Vec<T> = values.into_iter().collect();
        if !values.is_empty() {
            self.0.push(Box::new(move |flow| values.iter().any(|value| test(value, flow))));
        }
    }

    fn matches(&self, flow: &Flow) -> bool {
        self.0.iter().all(|test| test(flow))
    }
}

/// What is wanted of a file.
pub(super) struct Wanted {
    allow: Vec<One>,
    deny: Vec<One>,
}

impl Wanted {
    /// What a request asks for.
    ///
    /// # Errors
    /// The first value that means nothing.
    pub(super) fn new(request: &GetFlowsRequest) -> Result<Self, SelectError> {
        let all = |filters: &[FlowFilter]| -> Result<Vec<One>, SelectError> {
            filters.iter().map(One::of).collect()
        };
        Ok(Self { allow: all(&request.whitelist)?, deny: all(&request.blacklist)? })
    }

    /// Whether a line of a file is wanted. Filters are about flows; times about all lines.
    pub(super) fn has(&self, response: &GetFlowsResponse, request: &GetFlowsRequest) -> bool {
        let Some(types) = &response.response_types else { return false };
        let time = response.time.as_ref();
        let key = |time: &Timestamp| (time.seconds, time.nanos);
        // What has no time was before all others.
        let after = request.since.as_ref().is_none_or(|since| time.map(key) >= Some(key(since)));
        let before = request.until.as_ref().is_none_or(|until| time.map(key) <= Some(key(until)));
        after
            && before
            && match types {
                ResponseTypes::Flow(flow) => {
                    (self.allow.is_empty() || self.allow.iter().any(|one| one.matches(flow)))
                        && !self.deny.iter().any(|one| one.matches(flow))
                }
                // What is no flow matches no filter.
                _ => self.allow.is_empty(),
            }
    }
}

#[cfg(test)]
mod tests;
