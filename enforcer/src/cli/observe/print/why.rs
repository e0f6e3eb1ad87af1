//! Why a verdict is what it is: what our agent tells in a flow's extensions, in a sentence.

use enforcer_hubble::flow::{Flow, Policy, Verdict};
use prost::Message;
use prost_types::{Struct, value::Kind};

use super::shown::{TRACE, deciding};

/// What the extensions of our flows are.
const STRUCT: &str = "google.protobuf.Struct";

/// A sentence for a flow that was judged; none for a trace, and where there is nothing to tell.
pub(super) fn words(flow: &Flow) -> Option<String> {
    if flow.event_type.as_ref().is_some_and(|event| event.r#type == TRACE) {
        return None;
    }
    let details = Details::of(flow);
    let policies = deciding(flow);
    let mut out = match Verdict::try_from(flow.verdict) {
        Ok(Verdict::Forwarded | Verdict::Redirected) => allowed(&details, policies)?,
        _ => denied(&details, policies)?,
    };
    for (key, text) in [
        ("revoked", "the connection is no longer allowed"),
        ("disabled", "enforcement is switched off for now, so it passed"),
        ("masqueraded", "the source is hidden behind a node's address"),
    ] {
        if details.is(key) {
            out.push_str("; ");
            out.push_str(text);
        }
    }
    Some(out)
}

fn allowed(details: &Details, policies: &[Policy]) -> Option<String> {
    if policies.is_empty() {
        return Some(details.text("reason_text")?.to_owned());
    }
    let rule = details.text("rule").map(|rule| format!(", {rule}")).unwrap_or_default();
    Some(format!("allowed by {}{rule}", names(policies)))
}

fn denied(details: &Details, policies: &[Policy]) -> Option<String> {
    let isolated = details.is("default_deny");
    let mut out = match (policies, isolated) {
        ([], false) => details.text("reason_text")?.to_owned(),
        ([], true) => "no rule allows it".to_owned(),
        (policies, true) => format!("no rule of {} allows it", names(policies)),
        (policies, false) => {
            let rule = details.text("rule").map(|rule| format!(", {rule}")).unwrap_or_default();
            format!("denied by {}{rule}", names(policies))
        }
    };
    if let Some(miss) = details.text("nearest_miss") {
        out.push_str("; nearest: ");
        out.push_str(miss);
    }
    Some(out)
}

fn names(policies: &[Policy]) -> String {
    let name = |policy: &Policy| match policy.namespace.as_str() {
        "" => policy.name.clone(),
        namespace => format!("{namespace}/{}", policy.name),
    };
    policies.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The extensions; empty if they are another emitter's.
struct Details(Struct);

impl Details {
    fn of(flow: &Flow) -> Self {
        let any = flow.extensions.as_ref();
        let ours = any.filter(|any| any.type_url.rsplit('/').next() == Some(STRUCT));
        let read = ours.and_then(|any| Struct::decode(&*any.value).ok());
        Self(read.unwrap_or_default())
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.0.fields.get(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }

    fn is(&self, key: &str) -> bool {
        let kind = self.0.fields.get(key).and_then(|value| value.kind.as_ref());
        matches!(kind, Some(Kind::BoolValue(true)))
    }
}
