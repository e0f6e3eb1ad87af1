//! Flows to a file: lines of JSON as Hubble's exporter writes them.
//!
//! A thread of its own reads the ring as every other reader: a disk that is slow, full or gone
//! holds up nobody. What cannot be written stays in the ring and is tried again; what was
//! overwritten there by then is told as a line `lost_events` and counted.

mod compress;
mod file;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    thread::{self, JoinHandle},
    time::Duration,
};

use enforcer_hubble::{
    flow::{Flow as ProtoFlow, FlowFilter, LostEventSource},
    json::{self, JsonError, Unknown},
    mask::{FieldMask, MaskError},
    observer::{ExportEvent, export_event, get_flows_response},
};
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tokio::sync::watch;

pub use self::file::Keep;
use self::file::RotatingFile;
use super::{
    convert::{self, Loss},
    filter::{FilterError, Filters},
    origin::Origin,
};
use crate::flow::{event::Flow, ring::FlowRing};

/// Flows that are written at once.
const BATCH: usize = 256;
/// Until what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, and how much of it is kept.
    File(PathBuf, Keep),
}

/// What is exported.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportConfig {
    /// Where to.
    pub target: Target,
    /// Flows that match none of these are left out, if there are any.
    pub allow: Vec<FlowFilter>,
    /// Flows that match one of these are left out.
    pub deny: Vec<FlowFilter>,
    /// Fields of flows that are written; all if there are none.
    pub field_mask: Vec<String>,
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A filter means nothing.
    #[error("cannot export flows: a filter of --export-allow or --export-deny")]
    Filter(#[from] FilterError),
    /// The mask names a field that does not exist.
    #[error("cannot export flows: --export-field-mask")]
    Mask(#[from] MaskError),
    /// The system has no thread to give.
    #[error("cannot export flows: the system gives no thread")]
    Thread(#[source] io::Error),
}

/// A filter, as the flags have it: Hubble's `FlowFilter` in JSON.
///
/// # Errors
/// If it is no JSON of one.
pub fn filter(text: &str) -> Result<FlowFilter, JsonError> {
    json::from_str(text, Unknown::Refuse)
}

/// What is counted of an export.
#[derive(Clone, Debug, Default)]
pub struct ExportCounts {
    /// Flows that were written.
    pub written: Counter,
    /// Attempts to write that failed.
    pub failed: Counter,
    /// Flows that were overwritten in the ring before they were written.
    pub lost: Counter,
}

/// An export that goes on until this is dropped; what is in the ring by then is written still.
#[derive(Debug)]
pub struct Export {
    end: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Export {
    /// Starts to export what comes into the ring from now on.
    ///
    /// # Errors
    /// If filters or mask mean nothing; see [`ExportError`]. A target that cannot be written is
    /// none: it is tried again and again.
    pub fn start(
        config: ExportConfig,
        origin: Origin,
        flows: FlowRing,
        counts: ExportCounts,
    ) -> Result<Self, ExportError> {
        let writer = Writer::new(config, origin, flows, counts)?;
        let (end, ended) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(ExportError::Thread)?;
        let thread = thread::Builder::new()
            .name("export".to_owned())
            .spawn(move || runtime.block_on(writer.run(ended)))
            .map_err(ExportError::Thread)?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that exports flows ended by itself");
        }
    }
}

/// Where lines go, opened.
#[derive(Debug)]
enum Sink {
    Stdout,
    File(RotatingFile),
}

impl Sink {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File(file) => file.append(lines),
        }
    }
}

#[derive(Debug)]
struct Writer {
    sink: Sink,
    name: String,
    filters: Filters,
    mask: FieldMask,
    origin: Origin,
    flows: FlowRing,
    /// The number of the flow to go on with.
    next: u64,
    counts: ExportCounts,
    failing: bool,
}

impl Writer {
    fn new(
        config: ExportConfig,
        origin: Origin,
        flows: FlowRing,
        counts: ExportCounts,
    ) -> Result<Self, ExportError> {
        let filters = Filters::compile(&config.allow, &config.deny, &origin)?;
        let mask = FieldMask::of_flow(&config.field_mask)?;
        let (sink, name) = match config.target {
            Target::Stdout => (Sink::Stdout, "standard output".to_owned()),
            Target::File(path, keep) => {
                let name = path.display().to_string();
                (Sink::File(RotatingFile::new(path, keep)), name)
            }
        };
        let next = flows.next();
        let failing = false;
        Ok(Self { sink, name, filters, mask, origin, flows, next, counts, failing })
    }

    async fn run(mut self, mut ended: watch::Receiver<()>) {
        loop {
            let told_to_end = tokio::select! {
                () = self.flows.appended(self.next) => false,
                // Nothing is ever sent: its end is the word.
                _ended = ended.changed() => true,
            };
            let done = self.write();
            if told_to_end || (!done && tokio::time::timeout(AGAIN, ended.changed()).await.is_ok())
            {
                // What there is, once more; a disk that is full keeps nobody here.
                while self.flows.next() > self.next && self.write() {}
                return;
            }
        }
    }

    /// Writes some flows; whether that worked.
    fn write(&mut self) -> bool {
        let batch = self.flows.read(self.next, BATCH);
        let mut lines = Vec::new();
        if batch.lost > 0 {
            let now = super::server::now();
            let source = LostEventSource::HubbleRingBuffer;
            let loss = Loss { source, count: batch.lost, first: now, last: now };
            let lost = convert::lost(&loss, &self.origin);
            put(&mut lines, lost.response_types, lost.node_name, lost.time);
        }
        let mut written = 0;
        for flow in batch.kept.iter().filter(|flow| self.filters.matches(flow)) {
            self.line(&mut lines, flow);
            written += 1;
        }
        match self.sink.append(&lines) {
            Ok(()) => {
                self.next = batch.next;
                self.counts.written.inc_by(written);
                self.counts.lost.inc_by(batch.lost);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(target = self.name, "flows are exported again");
                }
                true
            }
            Err(error) => {
                self.counts.failed.inc();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %error,
                        target = self.name,
                        "flows cannot be exported; this is tried again each second, and the last \
                         flows are kept meanwhile"
                    );
                }
                false
            }
        }
    }

    fn line(&self, lines: &mut Vec<u8>, flow: &Flow) {
        let response = convert::response(flow, &self.origin);
        let mut what = response.response_types;
        if !self.mask.is_all()
            && let Some(get_flows_response::ResponseTypes::Flow(flow)) = &mut what
        {
            let pruned = self.mask.prune(&flow.encode_to_vec());
            let pruned = pruned.and_then(|bytes| ProtoFlow::decode(&*bytes));
            **flow = pruned.expect("it was encoded just now");
        }
        put(lines, what, response.node_name, response.time);
    }
}

fn put(
    lines: &mut Vec<u8>,
    what: Option<get_flows_response::ResponseTypes>,
    node_name: String,
    time: Option<prost_types::Timestamp>,
) {
    use export_event::ResponseTypes as To;
    use get_flows_response::ResponseTypes as From;
    let response_types = what.map(|what| match what {
        From::Flow(flow) => To::Flow(flow),
        From::NodeStatus(status) => To::NodeStatus(status),
        From::LostEvents(lost) => To::LostEvents(lost),
    });
    let event = ExportEvent { response_types, node_name, time };
    match json::to_string(&event) {
        Ok(line) => {
            lines.extend_from_slice(line.as_bytes());
            lines.push(b'\n');
        }
        // Only details of a type that we do not know have no JSON, and we make none.
        Err(error) => tracing::error!(%error, "a flow cannot be exported"),
    }
}
