//! Which flow metrics there are, and with which labels: the value of `--flow-metrics`, written as
//! Hubble's `--hubble-metrics`.

use std::{fmt, str::FromStr};

use enforcer_common::abi::Direction;
use enforcer_hubble::near;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// `hubble_drop_total`.
    Drop,
    /// `hubble_flows_processed_total`.
    Flow,
    /// `hubble_flows_to_world_total`.
    FlowsToWorld,
    /// `hubble_icmp_total`.
    Icmp,
    /// `enforcer_new_denied_destinations_total`: Hubble has nothing like it.
    NewDenied,
    /// `hubble_policy_verdicts_total`.
    Policy,
    /// `hubble_port_distribution_total`.
    PortDistribution,
    /// `hubble_tcp_flags_total`.
    Tcp,
    /// `enforcer_workload_bytes_total` and the like: Hubble has nothing like it.
    Traffic,
}

impl MetricKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Drop,
        Self::Flow,
        Self::FlowsToWorld,
        Self::Icmp,
        Self::NewDenied,
        Self::Policy,
        Self::PortDistribution,
        Self::Tcp,
        Self::Traffic,
    ];

    /// Its name in the flag: Hubble's, where Hubble has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Flow => "flow",
            Self::FlowsToWorld => "flows-to-world",
            Self::Icmp => "icmp",
            Self::NewDenied => "new-denied",
            Self::Policy => "policy",
            Self::PortDistribution => "port-distribution",
            Self::Tcp => "tcp",
            Self::Traffic => "traffic",
        }
    }
}

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who sent the packet.
    Source,
    /// Whom it is for.
    Destination,
}

/// What a label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The address.
    Ip,
    /// The pod's namespace.
    Namespace,
    /// `namespace/pod`.
    Pod,
    /// The pod's name alone.
    PodName,
    /// `reserved:world` and the like of what is no pod.
    Reserved,
    /// `namespace/workload`.
    Workload,
    /// The workload's name alone.
    WorkloadName,
    /// `Deployment` and the like.
    WorkloadKind,
    /// `ingress` or `egress`.
    Direction,
}

/// What `sourceContext` and the like can be.
const CONTEXTS: [(&str, Part); 7] = [
    ("ip", Part::Ip),
    ("namespace", Part::Namespace),
    ("pod", Part::Pod),
    ("pod-name", Part::PodName),
    ("reserved-identity", Part::Reserved),
    ("workload", Part::Workload),
    ("workload-name", Part::WorkloadName),
];

/// What `labelsContext` can list.
const LABELS: [(&str, Side, Part); 11] = [
    ("source_ip", Side::Source, Part::Ip),
    ("source_namespace", Side::Source, Part::Namespace),
    ("source_pod", Side::Source, Part::PodName),
    ("source_workload", Side::Source, Part::WorkloadName),
    ("source_workload_kind", Side::Source, Part::WorkloadKind),
    ("destination_ip", Side::Destination, Part::Ip),
    ("destination_namespace", Side::Destination, Part::Namespace),
    ("destination_pod", Side::Destination, Part::PodName),
    ("destination_workload", Side::Destination, Part::WorkloadName),
    ("destination_workload_kind", Side::Destination, Part::WorkloadKind),
    ("traffic_direction", Side::Source, Part::Direction),
];

/// A label that a metric has besides its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Of which end.
    pub side: Side,
    /// What it says, by [`Direction`]: the first that is known.
    pub parts: [Vec<Part>; 2],
}

/// One metric with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSpec {
    /// What is counted.
    pub kind: MetricKind,
    /// Labels besides its own.
    pub labels: Vec<Label>,
    /// `flows-to-world` counts every drop and not only policy's.
    pub any_drop: bool,
    /// `flows-to-world` has a label `port`.
    pub port: bool,
    /// `flows-to-world` counts only what opens a TCP connection.
    pub syn_only: bool,
}

/// All flow metrics of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowMetricsConfig {
    /// Each kind once at most.
    pub metrics: Vec<MetricSpec>,
}

/// A metric, option or value that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowMetricsError {
    /// No such metric.
    #[error("there is no flow metric {name:?}{hint}; there are {}", names(MetricKind::ALL.map(MetricKind::name)))]
    NoMetric {
        /// What was written.
        name: String,
        /// What was probably meant.
        hint: String,
    },
    /// Named twice.
    #[error("the flow metric {0} is named twice; give all its options at once, separated by ;")]
    Twice(&'static str),
    /// No such option.
    #[error("{metric} has no option {option:?}{hint}; there are {}", names(OPTIONS))]
    NoOption {
        /// The metric.
        metric: &'static str,
        /// What was written.
        option: String,
        /// What was probably meant.
        hint: String,
    },
    /// The option has no such value.
    #[error("{option} cannot be {value:?}{hint}; it can be {allowed}")]
    NoValue {
        /// The option.
        option: &'static str,
        /// What was written.
        value: String,
        /// What was probably meant.
        hint: String,
        /// What there is.
        allowed: String,
    },
}

const OPTIONS: [&str; 10] = [
    "sourceContext",
    "sourceEgressContext",
    "sourceIngressContext",
    "destinationContext",
    "destinationEgressContext",
    "destinationIngressContext",
    "labelsContext",
    "any-drop",
    "port",
    "syn-only",
];

fn names<const N: usize>(names: [&str; N]) -> String {
    names.join(", ")
}

impl FlowMetricsConfig {
    /// Few series, and what alerts need: who was denied whom.
    pub const DEFAULT: &'static str = "flow policy icmp tcp flows-to-world new-denied traffic \
         drop:sourceContext=workload|reserved-identity;\
         destinationContext=workload|reserved-identity;labelsContext=traffic_direction";
}

impl Default for FlowMetricsConfig {
    fn default() -> Self {
        Self::DEFAULT.parse().expect("the default above is one; a test parses it")
    }
}

impl FromStr for FlowMetricsConfig {
    type Err = FlowMetricsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut metrics: Vec<MetricSpec> = Vec::new();
        for word in text.split_whitespace() {
            let spec: MetricSpec = word.parse()?;
            if metrics.iter().any(|other| other.kind == spec.kind) {
                return Err(FlowMetricsError::Twice(spec.kind.name()));
            }
            metrics.push(spec);
        }
        Ok(Self { metrics })
    }
}

impl FromStr for MetricSpec {
    type Err = FlowMetricsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, options) = text.split_once(':').unwrap_or((text, ""));
        let kind = MetricKind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| FlowMetricsError::NoMetric {
            name: name.to_owned(),
            hint: near::hint(name, MetricKind::ALL.map(MetricKind::name)),
        })?;
        let (any_drop, port, syn_only) = (false, false, false);
        let mut spec = Self { kind, labels: Vec::new(), any_drop, port, syn_only };
        for option in options.split(';').filter(|option| !option.is_empty()) {
            let (option, value) = option.split_once('=').unwrap_or((option, ""));
            spec.set(option, value)?;
        }
        Ok(spec)
    }
}

impl MetricSpec {
    fn set(&mut self, option: &str, value: &str) -> Result<(), FlowMetricsError> {
        const BOTH: &[Direction] = &Direction::BOTH;
        let (ingress, egress): (&[_], &[_]) = (&[Direction::Ingress], &[Direction::Egress]);
        let (source, destination) = (Side::Source, Side::Destination);
        let no_option = |hint| FlowMetricsError::NoOption {
            metric: self.kind.name(),
            option: option.to_owned(),
            hint,
        };
        // Ours says whose it is by itself.
        if matches!(self.kind, MetricKind::NewDenied | MetricKind::Traffic) {
            return Err(no_option(String::new()));
        }
        match option {
            "sourceContext" => self.context(OPTIONS[0], source, BOTH, value),
            "sourceEgressContext" => self.context(OPTIONS[1], source, egress, value),
            "sourceIngressContext" => self.context(OPTIONS[2], source, ingress, value),
            "destinationContext" => self.context(OPTIONS[3], destination, BOTH, value),
            "destinationEgressContext" => self.context(OPTIONS[4], destination, egress, value),
            "destinationIngressContext" => self.context(OPTIONS[5], destination, ingress, value),
            "labelsContext" => self.labels(value),
            "any-drop" | "port" | "syn-only" if self.kind == MetricKind::FlowsToWorld => {
                match option {
                    "any-drop" => self.any_drop = true,
                    "port" => self.port = true,
                    _ => self.syn_only = true,
                }
                Ok(())
            }
            _ => Err(no_option(near::hint(option, OPTIONS))),
        }
    }

    fn context(
        &mut self,
        option: &'static str,
        side: Side,
        directions: &[Direction],
        value: &str,
    ) -> Result<(), FlowMetricsError> {
        let part = |name: &str| {
            let found = CONTEXTS.iter().find(|(known, _)| *known == name);
            found.map(|(_, part)| *part).ok_or_else(|| FlowMetricsError::NoValue {
                option,
                value: name.to_owned(),
                hint: near::hint(name, CONTEXTS.map(|(name, _)| name)),
                allowed: names(CONTEXTS.map(|(name, _)| name)),
            })
        };
        let parts = value.split('|').map(part).collect::<Result<Vec<_>, _>>()?;
        let name = match side {
            Side::Source => "source",
            Side::Destination => "destination",
        };
        let at = self.labels.iter().position(|label| label.name == name);
        let at = at.unwrap_or_else(|| {
            self.labels.push(Label { name, side, parts: Default::default() });
            self.labels.len() - 1
        });
        for direction in directions {
            self.labels[at].parts[*direction as usize].clone_from(&parts);
        }
        Ok(())
    }

    fn labels(&mut self, value: &str) -> Result<(), FlowMetricsError> {
        for wanted in value.split(',') {
            let found = LABELS.iter().find(|(known, ..)| *known == wanted);
            let (name, side, part) = *found.ok_or_else(|| FlowMetricsError::NoValue {
                option: "labelsContext",
                value: wanted.to_owned(),
                hint: near::hint(wanted, LABELS.map(|(name, ..)| name)),
                allowed: names(LABELS.map(|(name, ..)| name)),
            })?;
            if self.labels.iter().all(|label| label.name != name) {
                self.labels.push(Label { name, side, parts: [vec![part], vec![part]] });
            }
        }
        Ok(())
    }
}

impl fmt::Display for FlowMetricsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.metrics.iter().map(|spec| spec.kind.name()).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FlowMetricsConfig, String> {
        text.parse().map_err(|error: FlowMetricsError| error.to_string())
    }

    #[test]
    fn the_default_names_who_was_denied_whom() {
        let config = FlowMetricsConfig::default();
        let drop = config.metrics.iter().find(|spec| spec.kind == MetricKind::Drop).unwrap();
        let labels: Vec<&str> = drop.labels.iter().map(|label| label.name).collect();
        assert_eq!(labels, ["source", "destination", "traffic_direction"]);
        assert_eq!(drop.labels[0].parts[0], [Part::Workload, Part::Reserved]);
        assert_eq!(parse("").unwrap().metrics, []);
    }

    #[test]
    fn contexts_can_depend_on_the_direction() {
        let config = parse("tcp:sourceContext=pod;sourceEgressContext=ip|namespace flow").unwrap();
        let [label] = &config.metrics[0].labels[..] else { panic!("{config:?}") };
        assert_eq!(label.parts, [vec![Part::Pod], vec![Part::Ip, Part::Namespace]]);
        assert_eq!(config.to_string(), "tcp flow");
    }

    #[test]
    fn what_does_not_exist_is_refused_with_what_is_near() {
        for (text, part) in [
            ("dorp", "no flow metric \"dorp\" (did you mean drop?)"),
            ("drop drop", "drop is named twice"),
            ("drop:sourcecontext=pod", "(did you mean sourceContext?)"),
            ("drop:sourceContext=pods", "sourceContext cannot be \"pods\" (did you mean pod?)"),
            ("drop:sourceContext=", "sourceContext cannot be \"\""),
            ("drop:labelsContext=source_pd", "(did you mean source_pod?)"),
            ("drop:port", "drop has no option \"port\""),
            ("new-denied:sourceContext=pod", "new-denied has no option"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
