//! What the owner of the state answers when it is scraped.

use std::time::Duration;

use enforcer_common::{abi::Direction, reason::Reason};

/// Everything that is asked for at a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// From the kernel.
    pub kernel: KernelSnapshot,
    /// From the index and the source.
    pub state: StateSnapshot,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It passed, as policy says.
    Forwarded,
    /// It was dropped.
    Dropped,
    /// It passed only because its pod is audited.
    Audited,
    /// It passed only because enforcement is disabled for a time.
    Disabled,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Forwarded, Self::Dropped, Self::Audited, Self::Disabled];

    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Dropped => "dropped",
            Self::Audited => "audited",
            Self::Disabled => "disabled",
        }
    }

    /// Whether packets with this verdict and reason are counted. Those of established flows are
    /// not: the fast path writes nothing.
    #[must_use]
    pub const fn counts(self, reason: Reason) -> bool {
        match self {
            Self::Forwarded => !reason.is_drop() && !matches!(reason, Reason::Established),
            Self::Dropped | Self::Audited | Self::Disabled => reason.is_drop(),
        }
    }
}

/// Packets with one outcome, since the maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketCount {
    /// What became of them.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Seen from the pod.
    pub direction: Direction,
    /// How many.
    pub packets: u64,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// Its name.
    pub map: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries there can be.
    pub max_entries: u64,
}

/// What the kernel counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelSnapshot {
    /// Packets by outcome; an outcome that is not listed did not occur.
    pub packets: Vec<PacketCount>,
    /// The maps.
    pub maps: Vec<MapUse>,
    /// Events of verdicts and drops that were lost because the ring was full.
    pub lost_verdict_events: u64,
    /// Events of traces that were lost because the ring was full.
    pub lost_trace_events: u64,
    /// Events of verdicts that were not told, by `--flow-events` and `--flow-sampling`.
    pub untold_verdict_events: u64,
    /// Events of traces that were not told, likewise.
    pub untold_trace_events: u64,
}

/// Local pod interfaces by what is in force on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Policy is enforced.
    pub enforced: u64,
    /// What policy denies is told and passes.
    pub audited: u64,
    /// Enforcement is disabled for a time.
    pub disabled: u64,
    /// Nothing passes until policy is in force.
    pub closed: u64,
    /// The plan could not be written whole: new flows are closed.
    pub locked: u64,
}

/// One kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceCount {
    /// Its plural name, as in `pods`.
    pub resource: &'static str,
    /// Objects that are known.
    pub objects: u64,
    /// Failures of its watch since the agent started.
    pub watch_errors: u64,
}

/// Where objects come from, and how well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// What the present state comes from: `kubernetes`, `manifests` or `saved`.
    pub source: &'static str,
    /// Whether the source answers.
    pub connected: bool,
    /// How long ago it last did; `None` if it never did.
    pub since_contact: Option<Duration>,
    /// Objects and failures by kind.
    pub resources: Vec<ResourceCount>,
}

/// Where backends of Services may go unjudged, or are closed for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceGaps {
    /// Interfaces where packets leave without the program.
    pub outlets: u64,
    /// 1 if nothing judges what processes of the node get.
    pub input: u64,
    /// Pods' interfaces with programs after ours, which may take the mark away.
    pub marks: u64,
}

/// What the index and the source know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateSnapshot {
    /// Revision of the plan in force.
    pub revision: u64,
    /// Local pod interfaces.
    pub endpoints: EndpointCounts,
    /// The source.
    pub source: SourceState,
    /// Interfaces of pods without enforcement.
    pub interfaces_not_enforced: u64,
    /// Problems with objects.
    pub problems: u64,
    /// Gaps in the judging of Services' backends.
    pub service_gaps: ServiceGaps,
    /// Names of other enforcers on this node, of a closed list.
    pub rivals: Vec<&'static str>,
}
