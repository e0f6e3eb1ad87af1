//! What is in force, as the status command shows it, and what is missing for "all of it".

use std::time::{Instant, SystemTime};

use enforcer_common::{
    abi::{self, Direction, Spared, counter_index},
    reason::Reason,
};

use super::{
    api::{
        AgentReport, CounterReport, EndpointReport, EndpointState, GateReport, LostEvents,
        MapReport, NotEnforced, PolicyReport, RivalReport, SparedReport, StatusReply, StatusReport,
        StatusRequest,
    },
    core::Core,
    pins, saving, service_gaps,
};
use crate::{
    cluster::{ENFORCEMENT_LABEL, EndpointStatus, InterfaceState, ObjectName},
    gate::GateStatus,
    rfc3339,
    rivals::Rival,
    source::{Barrier, problem::Problem},
};

/// What does not change while the agent runs.
#[derive(Debug)]
pub(super) struct About {
    pub(super) node: String,
    /// Which of several agents this is, as who started it names it.
    pub(super) instance: Option<String>,
    pub(super) started: SystemTime,
    /// Room for Services that was asked for.
    pub(super) service_entries: u32,
}

/// Why the whole plan is not in force yet; `None` if it is.
pub(super) fn missing(core: &Core, request: &StatusRequest, barrier: Barrier) -> Option<String> {
    if !core.armed || !core.source.is_live() {
        return Some(incomplete(core));
    }
    if let Some(awaited) = core.source.awaited(barrier) {
        return Some(awaited);
    }
    if !core.settled {
        return Some("a manifest is being written".to_owned());
    }
    if let Some(failure) = core.failures.first().filter(|_| core.kernel.incomplete()) {
        return Some(format!("a part of the plan could not be written: {failure}"));
    }
    if core.kernel.upgrading() {
        return Some("the version before is still in force on some interface".to_owned());
    }
    let name = request.only.as_deref()?;
    let key = name.strip_prefix("policy/").unwrap_or(name);
    let policies = policies(core);
    match policies.iter().find(|policy| policy.policy == key) {
        None => Some(format!("there is no policy {key}")),
        Some(policy) if policy.enforced < policy.selected => Some(format!(
            "the policy {key} is in force on {} of {} local pods",
            policy.enforced, policy.selected
        )),
        Some(_) => None,
    }
}

fn incomplete(core: &Core) -> String {
    let why = core.source.missing().map(|what| format!(": {what}")).unwrap_or_default();
    if core.armed {
        format!("what was saved before the start is in force{why}")
    } else {
        format!("the first complete plan is not in force yet{why}")
    }
}

/// The reply to a request; `missing` is what was waited for in vain.
pub(super) fn reply(
    core: &Core,
    about: &About,
    request: &StatusRequest,
    missing_in_time: Option<String>,
) -> StatusReply {
    let report = report(core, about);
    let waited = missing_in_time.map(|what| {
        let seconds = request.wait_seconds.unwrap_or(0);
        format!("not all in force after {seconds} s: {what}")
    });
    let unarmed = || (!core.armed || !core.source.is_live()).then(|| incomplete(core));
    let asked = || missing(core, request, Barrier::Reached).filter(|_| request.only.is_some());
    let unenforceable = || {
        let first = report.not_enforced.first().filter(|_| !request.ignore_unenforceable)?;
        Some(format!(
            "{} interface(s) or pod(s) cannot be enforced on, the first: {}: {}",
            report.not_enforced.len(),
            first.interface,
            first.reason
        ))
    };
    let disabled = || core.break_glass.failure();
    let failure = waited.or_else(unarmed).or_else(asked).or_else(disabled).or_else(unenforceable);
    StatusReply { failure, report }
}

fn name(key: &ObjectName) -> String {
    format!("{}/{}", key.namespace, key.name)
}

fn report(core: &Core, about: &About) -> StatusReport {
    let started = about.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    StatusReport {
        agent: AgentReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: about.node.clone(),
            instance: about.instance.clone(),
            pid: std::process::id(),
            started: rfc3339::timestamp(i64::try_from(started.as_nanos()).unwrap_or(i64::MAX)),
            revision: core.revision,
            armed: core.armed,
            disabled_until: core.break_glass.node(),
        },
        source: core.source.report(),
        endpoints: endpoints(core),
        policies: policies(core),
        not_enforced: not_enforced(core),
        unguarded: core.unguarded.clone(),
        rivals: core.rivals.iter().map(rival).collect(),
        gate: core.gate.as_ref().map(|gate| self::gate(&gate.borrow())),
        observer: core.observer_problems.clone(),
        problems: core
            .problems
            .iter()
            .cloned()
            .chain(bad_enforcement(core))
            .chain(services(core))
            .chain(service_room(core, about.service_entries))
            .chain(blocks_for_services(core))
            .chain(service_gaps::problems(core))
            .chain(pins::problem(core))
            .chain(saving::problem(core))
            .chain(wrong_verdicts(core))
            .collect(),
        ignored: core.ignored.clone(),
        maps: maps(core),
        counters: counters(core),
        spared: spared(core),
        lost_events: core.kernel.lost().map_or_else(
            |_| LostEvents::default(),
            |[verdict, trace]| LostEvents { verdict, trace: trace + core.undecodable() },
        ),
    }
}

/// That the kernel does not do what policy says.
fn wrong_verdicts(core: &Core) -> Option<Problem> {
    let differences = Some(core.wrong_verdicts()).filter(|number| *number > 0)?;
    Some(Problem {
        object: Some("Node".to_owned()),
        reason: format!(
            "{differences} of the verdicts that were checked are not what policy says: the log has the \
             first of them; please report it, and restart the agent"
        ),
        ..Problem::default()
    })
}

fn rival(rival: &Rival) -> RivalReport {
    let Rival { name, enforces, evidence } = rival.clone();
    RivalReport { name: name.to_owned(), enforces, evidence }
}

fn gate(status: &GateStatus) -> GateReport {
    let GateStatus { connected, runtime, held, failed, abandoned, last_error, .. } = status.clone();
    GateReport { connected, runtime, held, refused: failed, abandoned, last_error }
}

/// Pods' interfaces, and pods without one, on which policy is not in force, and why.
pub(super) fn not_enforced(core: &Core) -> Vec<NotEnforced> {
    core.index
        .status()
        .interfaces
        .iter()
        // One that no pod object claims is nobody's to enforce on; one that is closed until its
        // pod is known is among the endpoints.
        .filter(|one| !matches!(one.state, InterfaceState::Unbound | InterfaceState::Starting))
        .map(|one| NotEnforced { interface: one.interface.clone(), reason: one.reason.clone() })
        .chain(core.contested().into_iter().map(|interface| NotEnforced {
            interface: interface.to_string(),
            reason: "another program keeps displacing ours from the hook".to_owned(),
        }))
        .chain(core.bypassed().into_iter().map(|interface| NotEnforced {
            interface: interface.to_string(),
            reason: "another program on the hook redirects the pod's packets past ours".to_owned(),
        }))
        .chain(core.uncovered.report(Instant::now()))
        .collect()
}

/// Local pods' interfaces.
pub(super) fn endpoints(core: &Core) -> Vec<EndpointReport> {
    let status = core.index.status();
    let mut reports: Vec<_> = status
        .endpoints
        .iter()
        .map(|endpoint| {
            let [ingress, egress] = &endpoint.isolating;
            let (state, reason) = if !core.kernel.is_attached(endpoint.ifindex) {
                (EndpointState::Closed, Some("the programs are not attached yet".to_owned()))
            } else if core.kernel.locked(endpoint.ifindex) {
                (EndpointState::Locked, core.failures.first().cloned())
            } else if let Some(starting) = &endpoint.starting {
                (EndpointState::Closed, Some(starting.clone()))
            } else {
                (EndpointState::Enforced, None)
            };
            EndpointReport {
                pod: Some(name(&endpoint.pod)),
                interface: endpoint.interface.to_string(),
                ifindex: endpoint.ifindex,
                addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
                isolated_ingress: endpoint.isolated[0],
                isolated_egress: endpoint.isolated[1],
                ingress_policies: ingress.iter().map(name).collect(),
                egress_policies: egress.iter().map(name).collect(),
                audit: endpoint.audit,
                disabled_until: core.break_glass.endpoint(endpoint.ifindex),
                state,
                reason,
            }
        })
        .collect();
    let named: Vec<u32> = reports.iter().map(|report| report.ifindex).collect();
    let starting = status
        .interfaces
        .into_iter()
        .filter(|one| one.state == InterfaceState::Starting && !named.contains(&one.ifindex));
    reports.extend(starting.map(|one| EndpointReport {
        pod: None,
        interface: one.interface,
        ifindex: one.ifindex,
        addresses: one.addresses.iter().map(ToString::to_string).collect(),
        isolated_ingress: true,
        isolated_egress: true,
        state: EndpointState::Closed,
        reason: Some(one.reason),
        ..EndpointReport::default()
    }));
    reports.sort_by_key(|report| report.ifindex);
    reports
}

fn policies(core: &Core) -> Vec<PolicyReport> {
    let status = core.index.status();
    status
        .policies
        .iter()
        .map(|policy| {
            let selected = policy.local_pods;
            let on = |endpoint: &&EndpointStatus| {
                endpoint.isolating.iter().any(|names| names.contains(&policy.policy))
                    && core.kernel.is_attached(endpoint.ifindex)
                    && !core.kernel.locked(endpoint.ifindex)
            };
            let enforced = status.endpoints.iter().filter(on).count();
            let state = match enforced {
                _ if enforced == selected => "enforced",
                0 => "pending",
                _ => "partly",
            };
            PolicyReport {
                policy: name(&policy.policy),
                selected,
                enforced,
                state: state.to_owned(),
            }
        })
        .collect()
}

pub(super) fn maps(core: &Core) -> Vec<MapReport> {
    let status = core.index.status();
    let report = |name: &str, entries: usize, max: u32| MapReport {
        name: name.to_owned(),
        entries: entries as u64,
        max: u64::from(max),
    };
    let flows = core.kernel.flow_counts();
    vec![
        report(abi::MAP_ENDPOINTS, status.endpoints.len(), abi::ENDPOINT_SLOTS),
        report(abi::MAP_NODE_ADDRS, core.kernel.node_addresses_used(), abi::NODE_ADDRESSES),
        report(abi::MAP_PEERS, status.counts.peers, 262_144),
        report("CIDRS", status.counts.cidrs, 65_536),
        report(abi::MAP_SERVICES, status.counts.services, core.kernel.service_entries()),
        report(abi::MAP_ROWS, status.counts.rows, 524_288),
        report(abi::MAP_INTERVALS, core.kernel.intervals_used() as usize, abi::INTERVAL_SLOTS),
        report("CT (half-open)", flows.half, core.kernel.conntrack_entries()),
        report("CT (established)", flows.established, core.kernel.conntrack_entries()),
    ]
}

fn bad_enforcement(core: &Core) -> impl Iterator<Item = Problem> {
    core.index.bad_enforcement().into_iter().map(|bad| Problem {
        object: Some(format!("Namespace {}", bad.namespace)),
        field: Some(format!("metadata.labels[{ENFORCEMENT_LABEL}]")),
        value: Some(bad.value),
        reason: "must be audit or enforce; the namespace is enforced".to_owned(),
        ..Problem::default()
    })
}

fn services(core: &Core) -> impl Iterator<Item = Problem> {
    core.index.service_problems().into_iter().flat_map(|status| {
        let object = format!("Service {}", name(&status.service));
        status.problems.into_iter().map(move |reason| Problem {
            object: Some(object.clone()),
            reason,
            ..Problem::default()
        })
    })
}

/// A map that an earlier agent made may hold more than there is room for now.
fn service_room(core: &Core, wanted: u32) -> Option<Problem> {
    let have = core.kernel.service_entries();
    (have != wanted).then(|| Problem {
        object: Some("--service-entries".to_owned()),
        value: Some(wanted.to_string()),
        reason: format!(
            "is not in force: the map in the kernel keeps its {have} entries, because it held more \
             than would fit when the agent started; raise it, or start the agent again when there \
             are fewer Services"
        ),
        ..Problem::default()
    })
}

fn blocks_for_services(core: &Core) -> impl Iterator<Item = Problem> {
    core.index.blocks_for_services().into_iter().map(|status| Problem {
        object: Some(format!("NetworkPolicy {}", name(&status.policy))),
        reason: for_services(&status.blocks),
        ..Problem::default()
    })
}

/// What is wrong with ipBlocks that are meant for Services.
pub(super) fn for_services(blocks: &[String]) -> String {
    format!(
        "the ipBlock {} is for addresses of Services and matches nothing: it is a Service's backend \
         that an ipBlock is matched against; select the backend's pods instead",
        blocks.join(", ")
    )
}

const DIRECTIONS: [(Direction, &str); 2] =
    [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")];

/// Counters that are not 0: their reason, direction and value.
fn counted(
    core: &Core,
    index: impl Fn(u8, Direction) -> u32,
) -> impl Iterator<Item = (String, String, u64)> {
    let counters = core.kernel.counters().unwrap_or_default();
    Reason::ALL
        .iter()
        .flat_map(|reason| DIRECTIONS.map(|(direction, word)| (*reason, direction, word)))
        .filter_map(move |(reason, direction, word)| {
            let at = index(reason as u8, direction) as usize;
            let packets = counters.get(at).copied().filter(|packets| *packets > 0)?;
            Some((reason.name().to_owned(), word.to_owned(), packets))
        })
}

fn counters(core: &Core) -> Vec<CounterReport> {
    counted(core, counter_index)
        .map(|(reason, direction, packets)| CounterReport { reason, direction, packets })
        .collect()
}

fn spared(core: &Core) -> Vec<SparedReport> {
    let why = |spared| match spared {
        Spared::Audit => "audit",
        Spared::Disabled => "disabled",
    };
    let report = |spared: Spared| {
        counted(core, move |reason, direction| spared.counter_index(reason, direction)).map(
            move |(reason, direction, packets)| {
                let why = why(spared).to_owned();
                SparedReport { why, reason, direction, packets }
            },
        )
    };
    Spared::ALL.into_iter().flat_map(report).collect()
}
