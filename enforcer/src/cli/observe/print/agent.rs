//! Events that are no flows, in words.

use enforcer_hubble::flow::{
    AgentEvent, AgentEventType, DebugEvent, DebugEventType, agent_event::Notification,
};

/// Type and details of an agent event.
pub(super) fn words(event: &AgentEvent) -> (String, String) {
    let kind = AgentEventType::try_from(event.r#type)
        .map_or_else(|_| event.r#type.to_string(), |kind| kind.as_str_name().to_owned());
    let details = match &event.notification {
        None => "UNKNOWN".to_owned(),
        Some(Notification::Unknown(unknown)) => {
            return (unknown.r#type.clone(), unknown.notification.clone());
        }
        Some(Notification::AgentStart(start)) => {
            let time = super::TimeFormat::Rfc3339Nano.text(start.time.as_ref());
            format!("start time: {time}")
        }
        Some(Notification::PolicyUpdate(update)) => format!(
            "labels: [{}], revision: {}, count: {}",
            update.labels.join(","),
            update.revision,
            update.rule_count
        ),
        Some(Notification::EndpointRegenerate(done)) => {
            let error = with("error", &done.error);
            format!("id: {}, labels: [{}]{error}", done.id, done.labels.join(","))
        }
        Some(Notification::EndpointUpdate(update)) => {
            let namespace = with("namespace", &update.namespace);
            let pod = with("pod name", &update.pod_name);
            format!("id: {}{namespace}{pod}", update.id)
        }
        Some(Notification::IpcacheUpdate(update)) => {
            let old = update.old_identity.map(|old| format!(", old identity: {old}"));
            format!(
                "cidr: {}, identity: {}{}{}{}{}",
                update.cidr,
                update.identity,
                old.unwrap_or_default(),
                with("host ip", &update.host_ip),
                with("old host ip", &update.old_host_ip),
                format_args!(", encrypt key: {}", update.encrypt_key),
            )
        }
        Some(Notification::ServiceUpsert(service)) => {
            format!("id: {}, name: {}, namespace: {}", service.id, service.name, service.namespace)
        }
        Some(Notification::ServiceDelete(service)) => format!("id: {}", service.id),
    };
    (kind, details)
}

fn with(name: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(", {name}: {text}") }
}

/// What a debug event says, key by key.
pub(super) fn debug_words(event: &DebugEvent) -> Vec<(&'static str, String)> {
    let source = event.source.as_ref().map_or_else(String::new, |source| {
        if source.pod_name.is_empty() {
            format!("{} (ID: {})", source.id, source.identity)
        } else {
            format!("{}/{} (ID: {})", source.namespace, source.pod_name, source.id)
        }
    });
    let kind = DebugEventType::try_from(event.r#type)
        .map_or_else(|_| event.r#type.to_string(), |kind| kind.as_str_name().to_owned());
    let cpu = event.cpu.map_or_else(|| "N/A".to_owned(), |cpu| cpu.to_string());
    vec![
        ("FROM", source),
        ("TYPE", kind),
        ("CPU/MARK", format!("CPU: {cpu}")),
        ("MESSAGE", event.message.clone()),
    ]
}
