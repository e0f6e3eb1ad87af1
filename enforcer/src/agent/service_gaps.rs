//! Where the judging of Services' backends has gaps, for the status and the metrics.

use super::core::Core;
use crate::{metrics::ServiceGaps, source::problem::Problem};

/// All gaps of this node, in words.
pub(super) fn problems(core: &Core) -> Vec<Problem> {
    let problem = |object: String, reason: String| Problem {
        object: Some(object),
        reason,
        ..Problem::default()
    };
    let uncovered = core.kernel.uncovered().into_iter().map(|name| {
        let reason = "backends of Services cannot be judged where packets leave by it: pods' flows \
                      to Services are closed unless every backend is allowed; the log says why";
        problem(format!("Interface {name}"), reason.to_owned())
    });
    let input = core.kernel.input_missing().map(|why| {
        let reason = format!(
            "what pods send to Services is not judged where processes of the node get it: only \
             backends that slices name are judged, before ({why})"
        );
        problem("Node".to_owned(), reason)
    });
    let marks = core.marks_at_risk.iter().map(|(ifindex, programs)| {
        let name = core
            .interfaces
            .get(ifindex)
            .map_or_else(|| ifindex.to_string(), |known| known.name.to_string());
        let reason = format!(
            "{} runs after our program on the hook of what the pod sends: if it sets tc_index, or \
             accepts packets with a class of its own, the pod's policy is not asked about the \
             backends of Services",
            programs.join(", ")
        );
        problem(format!("Interface {name}"), reason)
    });
    uncovered.chain(input).chain(marks).collect()
}

/// How many there are of each kind.
pub(super) fn counts(core: &Core) -> ServiceGaps {
    ServiceGaps {
        outlets: core.kernel.uncovered().len() as u64,
        input: u64::from(core.kernel.input_missing().is_some()),
        marks: core.marks_at_risk.len() as u64,
    }
}
