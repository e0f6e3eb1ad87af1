//! How the watches do, in words that say what to do.

use std::time::SystemTime;

use super::resource::Watch;
use crate::{
    apiserver::ApiError,
    rfc3339,
    source::report::{SourceState, WatchReport, WatchState},
};

/// How a watch does.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// A whole list has come.
    pub(super) complete: bool,
    /// When the server last told something.
    contact: Option<SystemTime>,
    /// What is wrong, and since when.
    trouble: Option<(String, SystemTime)>,
    /// Failures since the start.
    failures: u64,
    /// The last request to catch up that was answered.
    pub(super) caught_up: u64,
}

impl Health {
    /// The server has told something. Returns whether that ends some trouble.
    pub(super) fn contact(&mut self, at: SystemTime) -> bool {
        self.contact = Some(at);
        self.trouble.take().is_some()
    }

    /// The watch does not work. Returns whether that, or the reason, is new.
    pub(super) fn failed(
        &mut self,
        watch: &Watch,
        verb: &str,
        error: &ApiError,
        at: SystemTime,
    ) -> bool {
        self.failures += 1;
        let sentence = sentence(watch, verb, error);
        match &mut self.trouble {
            Some((known, _)) if *known == sentence => return false,
            Some((known, _)) => *known = sentence,
            None => self.trouble = Some((sentence, at)),
        }
        true
    }

    /// What is wrong.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|(sentence, _)| sentence.as_str())
    }

    /// For the status.
    pub(super) fn report(&self, watch: &Watch, objects: usize) -> WatchReport {
        let state = match (self.complete, &self.trouble) {
            (true, None) => WatchState::Complete,
            (true, Some(_)) => WatchState::Behind,
            (false, None) => WatchState::Listing,
            (false, Some(_)) => WatchState::Failing,
        };
        WatchReport {
            resource: watch.name.to_owned(),
            state,
            objects,
            contact: self.contact.map(time),
            since: self.trouble.as_ref().map(|(_, at)| time(*at)),
            reason: self.trouble.as_ref().map(|(sentence, _)| sentence.clone()),
            failures: self.failures,
        }
    }
}

/// A time for the status, RFC 3339.
pub(super) fn time(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339::timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// The state of the source as a whole.
pub(super) const fn state(live: bool, saved: bool) -> SourceState {
    match (live, saved) {
        (true, _) => SourceState::Live,
        (false, true) => SourceState::Saved,
        (false, false) => SourceState::Incomplete,
    }
}

/// What is wrong with a request about what is watched, and what to do.
fn sentence(watch: &Watch, verb: &str, error: &ApiError) -> String {
    let Watch { resource, group, .. } = watch;
    let group_name = if group.is_empty() { "the core API group" } else { group };
    match error {
        ApiError::Forbidden(reason) => format!(
            "the agent may not {verb} {resource}: {reason}; a ClusterRole bound to its service \
             account must allow `list` and `watch` on `{resource}` in `apiGroups: [\"{group}\"]`"
        ),
        ApiError::NotFound(_) => format!(
            "the API server at hand has no {resource} in {group_name}: it is too old, or is no \
             Kubernetes API server"
        ),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::resource;

    fn watch(name: &str) -> Watch {
        resource::all("w1").into_iter().find(|watch| watch.name == name).unwrap()
    }

    #[test]
    fn a_refusal_names_the_verb_the_resource_and_the_rule() {
        let refused = ApiError::Forbidden("User \"x\" cannot list".into());
        assert_eq!(
            sentence(&watch("endpointslices"), "list", &refused),
            "the agent may not list endpointslices: User \"x\" cannot list; a ClusterRole bound to \
             its service account must allow `list` and `watch` on `endpointslices` in \
             `apiGroups: [\"discovery.k8s.io\"]`"
        );
        let absent = ApiError::NotFound("x".into());
        assert!(
            sentence(&watch("pods"), "list", &absent).contains("no pods in the core API group")
        );
    }

    #[test]
    fn trouble_lasts_until_the_next_contact_and_keeps_its_beginning() {
        let watch = watch("pods");
        let mut health = Health::default();
        assert_eq!(health.report(&watch, 0).state, WatchState::Listing);
        let at = |s| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(s);
        assert!(health.failed(&watch, "list", &ApiError::Credentials("a".into()), at(5)));
        assert!(health.failed(&watch, "list", &ApiError::Credentials("b".into()), at(6)));
        assert!(!health.failed(&watch, "list", &ApiError::Credentials("b".into()), at(6)));
        let report = health.report(&watch, 0);
        assert_eq!((report.state, report.failures), (WatchState::Failing, 3));
        assert_eq!(report.since.as_deref(), Some("1970-01-01T00:00:05.000000000Z"));
        assert!(report.reason.is_some_and(|reason| reason.contains(": b;")));
        health.complete = true;
        assert!(health.contact(at(7)) && !health.contact(at(7)));
        let report = health.report(&watch, 3);
        assert_eq!((report.state, report.reason), (WatchState::Complete, None));
        health.failed(&watch, "watch", &ApiError::Credentials("c".into()), at(9));
        assert_eq!(health.report(&watch, 3).state, WatchState::Behind);
    }
}
