//! Events that are no flows, in words.

use super::{Output, TimeFormat};
use enforcer_hubble::flow::{
    AgentEvent, AgentEventType, DebugEvent, DebugEventType, ServiceUpsertNotificationAddr,
    agent_event::Notification,
};

/// Type and details of an agent event.
pub(super) fn words(event: &AgentEvent, time: TimeFormat) -> (String, String) {
    let kind = AgentEventType::try_from(event.r#type)
        .map_or_else(|_| event.r#type.to_string(), |kind| kind.as_str_name().to_owned());
    let details = match &event.notification {
        None => "UNKNOWN".to_owned(),
        Some(Notification::Unknown(unknown)) => {
            format!("type: {}, notification: {}", unknown.r#type, unknown.notification)
        }
        Some(Notification::AgentStart(start)) => {
            format!("start time: {}", time.text(start.time.as_ref()))
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
            let place = |of: &ServiceUpsertNotificationAddr| format!("{}:{}", of.ip, of.port);
            let backends: Vec<String> = service.backend_addresses.iter().map(place).collect();
            format!(
                "id: {}, frontend: {}, backends: [{}], type: {}, traffic policy: {}, \
                 namespace: {}, name: {}",
                service.id,
                service.frontend_address.as_ref().map(place).unwrap_or_default(),
                backends.join(","),
                service.r#type,
                service.traffic_policy,
                service.namespace,
                service.name,
            )
        }
        Some(Notification::ServiceDelete(service)) => format!("id: {}", service.id),
    };
    (kind, details)
}

fn with(name: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(", {name}: {text}") }
}

/// What a debug event says, key by key, as a form of the output has it.
pub(super) fn debug_words(event: &DebugEvent, output: Output) -> Vec<(&'static str, String)> {
    let unknown = || "N/A".to_owned();
    let source = event.source.as_ref().map_or_else(unknown, |source| {
        if source.pod_name.is_empty() {
            format!("ID: {}", source.id)
        } else {
            format!("{}/{} (ID: {})", source.namespace, source.pod_name, source.id)
        }
    });
    let kind = DebugEventType::try_from(event.r#type)
        .map_or_else(|_| event.r#type.to_string(), |kind| kind.as_str_name().to_owned());
    let cpu = event.cpu.map_or_else(unknown, |cpu| format!("{cpu:02}"));
    let mark = event.hash.map_or_else(unknown, |hash| format!("{hash:#x}"));
    let (source, kind) = (("FROM", source), ("TYPE", kind));
    let message = ("MESSAGE", event.message.clone());
    match output {
        Output::Dict => vec![kind, source, ("MARK", mark), ("CPU", cpu), message],
        Output::Table => vec![source, kind, ("CPU/MARK", format!("{cpu} {mark}")), message],
        Output::Compact | Output::Json => {
            let (mark, cpu) = (format!("MARK: {mark}"), format!("CPU: {cpu}"));
            vec![source, kind, ("MARK", mark), ("CPU", cpu), message]
        }
    }
}
