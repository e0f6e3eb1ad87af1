//! What a pod is part of: the object that people made and know, found from its controller.
//!
//! Only the pod's own object is read. A ReplicaSet is a Deployment's if the pod carries the hash
//! that the Deployment gave both (`pod-template-hash`), and a Job is a CronJob's if its name ends
//! in the time for which it was scheduled, near the time at which the pod was made.

use serde::Deserialize;

use super::{pod::RawLabels, shared::Shared};
use crate::cluster::event::Workload;

/// The label with the hash that a Deployment puts on its ReplicaSets, in whose names it is, and on
/// their pods (`apps/v1` `DefaultDeploymentUniqueLabelKey`).
const TEMPLATE_HASH: &str = "pod-template-hash";

/// How far the time in a Job's name may be from that at which its pod was made, in seconds: a Job
/// may start late and try for days.
const SCHEDULED_WITHIN: i64 = 30 * 24 * 3600;

/// An element of `metadata.ownerReferences`. A malformed one is not worth refusing a pod for.
#[derive(Deserialize)]
pub(super) struct Reference {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    controller: Option<bool>,
}

/// What of a pod tells whose it is.
pub(super) struct Controlled<'a> {
    pub(super) pod: &'a str,
    pub(super) labels: &'a RawLabels,
    /// Creation, seconds since the epoch.
    pub(super) created: Option<i64>,
}

/// What a pod is part of; a pod that nobody controls, or only its node's kubelet, is its own.
pub(super) fn workload(
    of: &Controlled<'_>,
    owners: Option<&[Reference]>,
    shared: &mut Shared,
) -> Workload {
    let controller = owners.unwrap_or_default().iter().find(|one| one.controller == Some(true));
    let (kind, name) = match controller.map(|one| (one.kind.as_str(), one.name.as_str())) {
        None | Some(("" | "Node", _) | (_, "")) => ("Pod", of.pod),
        Some(("ReplicaSet", name)) => match deployment(name, of.labels) {
            Some(deployment) => ("Deployment", deployment),
            None => ("ReplicaSet", name),
        },
        Some(("Job", name)) => match cron_job(name, of.created) {
            Some(cron_job) => ("CronJob", cron_job),
            None => ("Job", name),
        },
        Some(other) => other,
    };
    Workload { kind: shared.text(kind), name: shared.text(name) }
}

fn deployment<'a>(replica_set: &'a str, labels: &RawLabels) -> Option<&'a str> {
    let hash = labels.get(TEMPLATE_HASH)?;
    let name = replica_set.strip_suffix(hash.as_str())?.strip_suffix('-')?;
    (!name.is_empty() && !hash.is_empty()).then_some(name)
}

/// The scheduled time is in minutes since the epoch, in clusters before 1.21 in seconds
/// (`pkg/controller/cronjob`, `getJobName`).
fn cron_job(job: &str, created: Option<i64>) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    if name.is_empty() || !time.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scheduled = match (time.len(), time.parse::<i64>().ok()?) {
        (8, minutes) => minutes * 60,
        (10, seconds) => seconds,
        _ => return None,
    };
    let near = created.is_none_or(|at| (at - scheduled).abs() <= SCHEDULED_WITHIN);
    near.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(owners: &str, hash: &str, created: Option<i64>) -> String {
        let owners: Vec<Reference> = serde_norway::from_str(owners).unwrap();
        let labels = RawLabels::from([(TEMPLATE_HASH.to_owned(), hash.to_owned())]);
        let of = Controlled { pod: "web-1", labels: &labels, created };
        let Workload { kind, name } = workload(&of, Some(&owners), &mut Shared::default());
        format!("{kind}/{name}")
    }

    #[test]
    fn the_object_that_people_made_is_named() {
        // 2026-01-01T00:00Z, in minutes since the epoch 29453760.
        let new_year = Some(1_767_225_600);
        for (owner, hash, created, expected) in [
            (
                "{kind: ReplicaSet, name: web-5d9f, controller: true}",
                "5d9f",
                None,
                "Deployment/web",
            ),
            (
                "{kind: ReplicaSet, name: web-5d9f, controller: true}",
                "77",
                None,
                "ReplicaSet/web-5d9f",
            ),
            ("{kind: ReplicaSet, name: web, controller: true}", "", None, "ReplicaSet/web"),
            ("{kind: ReplicaSet, name: -77, controller: true}", "77", None, "ReplicaSet/-77"),
            ("{kind: StatefulSet, name: db, controller: true}", "", None, "StatefulSet/db"),
            ("{kind: DaemonSet, name: log, controller: true}", "", None, "DaemonSet/log"),
            ("{kind: Job, name: once, controller: true}", "", None, "Job/once"),
            ("{kind: Job, name: dump-29453760, controller: true}", "", new_year, "CronJob/dump"),
            ("{kind: Job, name: dump-29453760, controller: true}", "", None, "CronJob/dump"),
            ("{kind: Job, name: dump-1767225600, controller: true}", "", new_year, "CronJob/dump"),
            // A date, not a time in minutes.
            (
                "{kind: Job, name: dump-20260101, controller: true}",
                "",
                new_year,
                "Job/dump-20260101",
            ),
            (
                "{kind: Job, name: dump-2945376x, controller: true}",
                "",
                new_year,
                "Job/dump-2945376x",
            ),
            ("{kind: Job, name: '-29453760', controller: true}", "", new_year, "Job/-29453760"),
            ("{kind: Node, name: w1, controller: true}", "", None, "Pod/web-1"),
            ("{kind: Rollout, name: own, controller: true}", "", None, "Rollout/own"),
            ("{kind: Backup, name: b}", "", None, "Pod/web-1"),
            ("{controller: true}", "", None, "Pod/web-1"),
        ] {
            assert_eq!(of(&format!("[{owner}]"), hash, created), expected, "{owner}");
        }
        let two = "[{kind: Backup, name: b}, {kind: Job, name: j, controller: true}]";
        assert_eq!(of(two, "", None), "Job/j");
        assert_eq!(of("[]", "", None), "Pod/web-1");
    }
}
