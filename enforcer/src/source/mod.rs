//! Where objects come from. A source reads, applies the API server's defaults and validation, and
//! emits [`crate::cluster::event::Event`]s; it gives no verdicts.

pub mod cni;
pub mod kubernetes;
pub mod manifests;
pub mod names;
mod owner;
mod pod;
pub mod problem;
pub mod report;
pub mod saved;
mod saved_services;
pub mod shared;
pub mod unsaved;
pub mod validate;

use serde::{Deserializer, de::DeserializeOwned};

pub use self::manifests::SourceUpdate;
use self::{
    kubernetes::KubernetesSource,
    manifests::ManifestSource,
    problem::FieldError,
    report::{SourceKind, SourceReport, SourceState},
};

/// Where objects come from.
#[derive(Debug)]
pub enum Source {
    /// A directory.
    Manifests(Box<ManifestSource>),
    /// The API server.
    Kubernetes(Box<KubernetesSource>),
}

/// A point in time that the source must have reached: see [`Source::barrier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Reached when it was asked for.
    Reached,
    /// A request to the API server's watches.
    Request(u64),
}

impl Source {
    /// What is known at the start.
    pub fn first(&mut self) -> SourceUpdate {
        match self {
            Self::Manifests(source) => source.rescan(),
            Self::Kubernetes(source) => source.refresh(),
        }
    }

    /// Waits until something may have changed: then call [`Self::refresh`]. Safe to be dropped at
    /// any await.
    pub async fn changed(&mut self) {
        match self {
            Self::Manifests(source) => source.changed().await,
            Self::Kubernetes(source) => source.changed().await,
        }
    }

    /// What has changed.
    pub fn refresh(&mut self) -> SourceUpdate {
        match self {
            Self::Manifests(source) => source.refresh(),
            Self::Kubernetes(source) => source.refresh(),
        }
    }

    /// Everything that was written before this call is in the updates up to, and with, the one
    /// after which [`Self::awaited`] has nothing to say any more.
    pub fn barrier(&mut self) -> (Barrier, SourceUpdate) {
        match self {
            Self::Manifests(source) => (Barrier::Reached, source.rescan()),
            Self::Kubernetes(source) => {
                let request = source.catch_up();
                (Barrier::Request(request), source.refresh())
            }
        }
    }

    /// What is still to come of a barrier.
    #[must_use]
    pub fn awaited(&self, barrier: Barrier) -> Option<String> {
        match (self, barrier) {
            (Self::Kubernetes(source), Barrier::Request(request)) => source.awaited(request),
            _ => None,
        }
    }

    /// Whether the updates so far hold everything that there was at some instant since the start.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self {
            Self::Manifests(_) => true,
            Self::Kubernetes(source) => source.is_live(),
        }
    }

    /// Whether what was emitted can be brought into force.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        match self {
            Self::Manifests(_) => true,
            Self::Kubernetes(source) => source.is_live() || source.saved().is_some(),
        }
    }

    /// What keeps it from being live.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::Manifests(_) => None,
            Self::Kubernetes(source) => source.missing(),
        }
    }

    /// For the status.
    #[must_use]
    pub fn report(&self) -> SourceReport {
        match self {
            Self::Manifests(source) => SourceReport {
                kind: SourceKind::Manifests,
                location: source.dir().display().to_string(),
                state: SourceState::Live,
                ..SourceReport::default()
            },
            Self::Kubernetes(source) => source.report(),
        }
    }
}

/// Reads a typed object; the error names the path of the field with the wrong type.
fn typed<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<T, Vec<FieldError>> {
    serde_path_to_error::deserialize(from).map_err(|e| {
        let path = e.path().to_string();
        let path = if path == "." { String::new() } else { path };
        vec![FieldError::new(path, e.inner().to_string())]
    })
}
