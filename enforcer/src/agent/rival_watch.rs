//! Looks for other enforcers on the node, now and then and not in the owning task's way.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, warn};

use super::core::Core;
use crate::rivals::{self, Look, Places, Rival};

/// Between two looks: a node may have tens of thousands of chains.
const SELDOM: Duration = Duration::from_secs(60);
/// Where CNI configurations are, if they can be read.
const CNI: &str = "/etc/cni/net.d";

/// The watch.
#[derive(Debug)]
pub(super) struct RivalWatch {
    bpf: PathBuf,
    looked: Option<Instant>,
    work: Option<JoinHandle<Look>>,
}

impl RivalWatch {
    /// `bpf_dir` is where our own pins are.
    pub(super) fn new(bpf_dir: PathBuf) -> Self {
        // What others pin is beside it.
        let bpf = bpf_dir.parent().map_or_else(|| bpf_dir.clone(), Path::to_owned);
        Self { bpf, looked: None, work: None }
    }

    /// Looks if it is time, and takes in what was found. To be called every few seconds.
    pub(super) async fn look(&mut self, core: &mut Core, now: Instant) {
        if let Some(work) = self.work.take_if(|work| work.is_finished()) {
            match work.await {
                Ok(look) => take(core, look),
                Err(error) => warn!(%error, "looking for other enforcers failed"),
            }
        }
        let due = self.looked.is_none_or(|at| now.saturating_duration_since(at) >= SELDOM);
        if due && self.work.is_none() {
            self.looked = Some(now);
            let bpf = self.bpf.clone();
            self.work = Some(spawn_blocking(move || {
                rivals::look(Places { bpf: &bpf, cni: Some(Path::new(CNI)) })
            }));
        }
    }
}

fn take(core: &mut Core, look: Look) {
    let Look { rivals, unseen } = look;
    for what in &unseen {
        debug!(what, "could not be looked at for other enforcers");
    }
    let known = |rival: &&Rival| {
        core.rivals.iter().any(|old| old.name == rival.name && old.enforces == rival.enforces)
    };
    for rival in rivals.iter().filter(|rival| rival.enforces && !known(rival)) {
        warn!(
            name = rival.name,
            evidence = rival.evidence.join("; "),
            "another enforcer is on this node: a packet passes only if both let it"
        );
    }
    core.rivals = rivals;
}
