//! Flows and the other lines of an answer, printed as Hubble's client prints them.
//!
//! Compared with it, byte by byte, over the flows in `testdata`: with `--color never` and none of
//! our own flags the output is the same.

mod agent;
mod compact;
mod dict;
mod layout;
mod names;
mod reasons;
mod shown;
mod table;
mod why;

use std::io::{self, Write};

use clap::ValueEnum;
use enforcer_hubble::{
    flow::{LostEvent, LostEventSource},
    json::{self, JsonError},
    observer::{
        GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse,
        get_flows_response::ResponseTypes,
    },
    relay::{NodeState, NodeStatusEvent},
};
use prost_types::Timestamp;

use super::{super::terminal::Style, times::TimeFormat};
pub use layout::Layout;
use shown::Shown;
use table::Table;

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for people
    #[default]
    Compact,
    /// A block of `KEY: value` for each flow
    Dict,
    /// A line of JSON, as Hubble writes it
    #[value(alias = "jsonpb")]
    Json,
    /// Columns
    #[value(alias = "tab")]
    Table,
}

impl Output {
    /// Whether everything that the server knows is shown.
    #[must_use]
    pub fn is_json(self) -> bool {
        self == Self::Json
    }
}

/// What is printed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Form.
    pub output: Output,
    /// Of times.
    pub time: TimeFormat,
    /// The node of each flow.
    pub node: bool,
    /// The policies of each verdict.
    pub policies: bool,
    /// Names in place of addresses.
    pub names: bool,
    /// What we know beyond Hubble: why a verdict is what it is.
    pub why: bool,
    /// Warnings of a relay about its nodes.
    pub warnings: bool,
    /// Colours.
    pub style: Style,
    /// Aligned columns on a terminal, in place of the compact form.
    pub layout: Option<Layout>,
}

/// Why nothing could be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The output cannot be written.
    #[error("cannot write the output")]
    Write(#[from] io::Error),
    /// It has no JSON form.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Prints to `out`, and to `err` what Hubble's client says there.
#[derive(Debug)]
pub struct Printer<W, E> {
    out: W,
    err: E,
    options: Options,
    table: Table,
    /// Blocks so far.
    blocks: u64,
}

impl<W: Write, E: Write> Printer<W, E> {
    /// A printer.
    pub fn new(out: W, err: E, options: Options) -> Self {
        Self { out, err, options, table: Table::default(), blocks: 0 }
    }

    /// One line of an answer about flows.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flows(&mut self, response: &GetFlowsResponse) -> Result<(), PrintError> {
        match &response.response_types {
            Some(ResponseTypes::NodeStatus(status)) => self.node_status(response, status),
            Some(_) if self.options.output.is_json() => self.json(response),
            Some(ResponseTypes::Flow(flow)) => {
                let shown = Shown::of(flow, &self.options);
                match (self.options.output, self.options.layout) {
                    (Output::Table, _) => self.table.flow(&shown, &self.options),
                    (Output::Dict, _) => {
                        let text = dict::flow(&shown, &self.options);
                        self.block(&text)?;
                    }
                    (Output::Compact | Output::Json, None) => {
                        writeln!(self.out, "{}", compact::flow(&shown, &self.options))?;
                    }
                    (Output::Compact | Output::Json, Some(layout)) => {
                        writeln!(self.out, "{}", layout.flow(&shown, &self.options))?;
                    }
                }
                Ok(())
            }
            Some(ResponseTypes::LostEvents(lost)) => self.lost(response, lost),
            None => Ok(()),
        }
    }

    /// One agent event.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn agent(&mut self, response: &GetAgentEventsResponse) -> Result<(), PrintError> {
        let Some(event) = &response.agent_event else { return Ok(()) };
        if self.options.output.is_json() {
            return self.json(response);
        }
        let (kind, details) = agent::words(event, self.options.time);
        let node = response.node_name.as_str();
        self.event(response.time.as_ref(), node, &[("TYPE", &kind), ("DETAILS", &details)])
    }

    /// One debug event.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn debug(&mut self, response: &GetDebugEventsResponse) -> Result<(), PrintError> {
        let Some(event) = &response.debug_event else { return Ok(()) };
        if self.options.output.is_json() {
            return self.json(response);
        }
        let words = agent::debug_words(event, self.options.output);
        let words: Vec<(&str, &str)> = words.iter().map(|(key, text)| (*key, &**text)).collect();
        self.event(response.time.as_ref(), &response.node_name, &words)
    }

    /// What is still held back.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(&mut self) -> Result<(), PrintError> {
        self.out.write_all(self.table.take().as_bytes())?;
        self.out.flush()?;
        Ok(())
    }

    /// Everything that has been printed so far becomes visible: nothing more comes for now.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> Result<(), PrintError> {
        self.finish()
    }

    fn json<M: json::Json>(&mut self, message: &M) -> Result<(), PrintError> {
        writeln!(self.out, "{}", json::to_string(message)?)?;
        Ok(())
    }

    fn block(&mut self, text: &str) -> Result<(), PrintError> {
        if self.blocks > 0 {
            writeln!(self.out, "{}", dict::SEPARATOR)?;
        }
        self.blocks += 1;
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }

    fn event(
        &mut self,
        time: Option<&Timestamp>,
        node: &str,
        words: &[(&str, &str)],
    ) -> Result<(), PrintError> {
        let time = self.options.time.text(time);
        match self.options.output {
            Output::Table => self.table.event(&time, node, words, &self.options),
            Output::Dict => {
                let text = dict::event(&time, node, words, &self.options);
                self.block(&text)?;
            }
            Output::Compact | Output::Json => {
                writeln!(self.out, "{}", compact::event(&time, node, words, &self.options))?;
            }
        }
        Ok(())
    }

    fn lost(&mut self, response: &GetFlowsResponse, lost: &LostEvent) -> Result<(), PrintError> {
        let time = self.options.time.text(response.time.as_ref());
        let source = LostEventSource::try_from(lost.source);
        let source = source.map_or_else(|_| lost.source.to_string(), |s| s.as_str_name().into());
        let mut summary = format!("CPU({})", lost.cpu.unwrap_or_default());
        let mut count = lost.num_events_lost.to_string();
        if lost.first.is_some() || lost.last.is_some() {
            let [first, last] =
                [&lost.first, &lost.last].map(|time| self.options.time.text(time.as_ref()));
            count.push_str(&format!(" (first: {first}, last: {last})"));
        }
        let node = if response.node_name.is_empty() { "-" } else { &response.node_name };
        match self.options.output {
            Output::Table => {
                summary.push_str(&format!(" - {count}"));
                self.table.lost(&time, node, &source, &summary, &self.options);
            }
            Output::Dict => {
                summary.push_str(&format!(" - {count}"));
                let text = dict::lost(&time, node, &source, &summary, &self.options);
                self.block(&text)?;
            }
            Output::Compact | Output::Json => {
                let text = format!("EVENTS LOST: {source} {summary} {count}");
                writeln!(self.out, "{time} {}", self.options.style.warn(&text))?;
            }
        }
        Ok(())
    }

    /// What a relay says about its nodes goes beside the flows.
    fn node_status(
        &mut self,
        response: &GetFlowsResponse,
        status: &NodeStatusEvent,
    ) -> Result<(), PrintError> {
        if !self.options.warnings {
            return Ok(());
        }
        let state = NodeState::try_from(status.state_change);
        let nodes = status.node_names.join(", ");
        let count = status.node_names.len();
        let words = match state {
            Ok(NodeState::NodeUnavailable) => format!("{count} nodes are unavailable: {nodes}"),
            Ok(NodeState::NodeError) => {
                format!("Error {:?} on {count} nodes: {nodes}", status.message)
            }
            _ => return Ok(()),
        };
        if self.options.output.is_json() {
            writeln!(self.err, "{}", json::to_string(response)?)?;
            return Ok(());
        }
        let time = self.options.time.text(response.time.as_ref());
        if self.options.output == Output::Dict {
            if self.blocks > 0 {
                writeln!(self.err, "{}", dict::SEPARATOR)?;
            }
            self.blocks += 1;
            let state = state.map_or("", |state| state.as_str_name());
            let text = dict::node_status(&time, state, status);
            self.err.write_all(text.as_bytes())?;
        } else {
            writeln!(self.err, "{time} [{}]: {words}", response.node_name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
