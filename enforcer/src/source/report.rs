//! How the source does, as the status shows it.

use serde::{Deserialize, Serialize};

/// Where objects come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A directory.
    #[default]
    Manifests,
    /// The API server.
    Kubernetes,
}

/// Whether what is in force is what the source says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Not all objects have been read yet: nothing new is brought into force.
    #[default]
    Incomplete,
    /// What an earlier agent saved is in force: the source has not been read since the start.
    Saved,
    /// All objects have been read since the start.
    Live,
}

/// How a watch does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchState {
    /// The first list is on its way.
    #[default]
    Listing,
    /// Everything has come and changes follow.
    Complete,
    /// Everything had come; changes since are missing.
    Behind,
    /// Nothing has come, for a reason.
    Failing,
}

/// A watch on one kind of object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchReport {
    /// What is watched.
    pub resource: String,
    /// How it does.
    pub state: WatchState,
    /// Objects known.
    pub objects: usize,
    /// When the server last told something, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Since when it does not work, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it does not work, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Failures since the start.
    pub failures: u64,
}

/// The source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceReport {
    /// What it is.
    pub kind: SourceKind,
    /// The directory, or the API server's address.
    pub location: String,
    /// Whether what is in force is what it says.
    pub state: SourceState,
    /// When saved state was last known to be true, RFC 3339, while it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<String>,
    /// The watches, if it has some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<WatchReport>,
}

impl SourceReport {
    /// The watches that do not work.
    pub fn troubles(&self) -> impl Iterator<Item = &WatchReport> {
        self.watches.iter().filter(|watch| watch.reason.is_some())
    }
}
