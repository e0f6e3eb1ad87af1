//! Flags of the agent about what it makes of flows.

use std::time::Duration;

use clap::{ArgAction, Args};

use crate::{
    insight::{InsightConfig, Rate},
    metrics::flows::FlowMetricsConfig,
};

/// What the agent counts and notices in flows.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Flows")]
pub struct FlowArgs {
    /// Flow metrics, separated by spaces, with options as Hubble's: flow, drop, policy, icmp, tcp,
    /// port-distribution, flows-to-world, new-denied, traffic; nothing for none
    #[arg(
        long,
        value_name = "NAME[:OPTION=VALUE;…]…",
        env = "ENFORCER_FLOW_METRICS",
        default_value = FlowMetricsConfig::DEFAULT,
        hide_default_value = true
    )]
    pub flow_metrics: FlowMetricsConfig,
    /// Tell of a port scan: so many ports of one destination, tried in vain; 0 for never
    #[arg(
        long,
        value_name = "COUNT/SECONDS",
        env = "ENFORCER_INSIGHT_PORT_SCAN",
        default_value = "20/60"
    )]
    pub insight_port_scan: Rate,
    /// Tell of a pod that is denied so many peers; 0 for never
    #[arg(
        long,
        value_name = "COUNT/SECONDS",
        env = "ENFORCER_INSIGHT_DENIED_PEERS",
        default_value = "20/60"
    )]
    pub insight_denied_peers: Rate,
    /// Tell of a workload's first flow to an address outside the cluster
    #[arg(
        long,
        value_name = "BOOL",
        env = "ENFORCER_INSIGHT_FIRST_OUTSIDE",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub insight_first_outside: bool,
    /// Tell of pods that ask the cloud's metadata address
    #[arg(
        long,
        value_name = "BOOL",
        env = "ENFORCER_INSIGHT_METADATA",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub insight_metadata: bool,
    /// Tell of a workload's first flow to the API server
    #[arg(
        long,
        value_name = "BOOL",
        env = "ENFORCER_INSIGHT_FIRST_API_SERVER",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub insight_first_api_server: bool,
    /// For so long from the first flow on, first contacts are learned and not told
    #[arg(
        long,
        value_name = "SECONDS",
        env = "ENFORCER_INSIGHT_LEARNING",
        default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(0..=604_800)
    )]
    pub insight_learning: u32,
}

impl FlowArgs {
    /// What is looked for in flows.
    #[must_use]
    pub fn insights(&self) -> InsightConfig {
        InsightConfig {
            port_scan: self.insight_port_scan,
            denied_peers: self.insight_denied_peers,
            first_outside: self.insight_first_outside,
            metadata: self.insight_metadata,
            first_api_server: self.insight_first_api_server,
            learning: Duration::from_secs(self.insight_learning.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        flows: FlowArgs,
    }

    fn parse(args: &[&str]) -> Result<FlowArgs, String> {
        let flags = Flags::try_parse_from(std::iter::once(&"agent").chain(args));
        flags.map(|flags| flags.flows).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let flows = parse(&[]).unwrap();
        assert_eq!(flows.insights(), InsightConfig::default());
        assert_eq!(flows.flow_metrics, FlowMetricsConfig::default());
    }

    #[test]
    fn each_can_be_set_and_switched_off() {
        let flows = parse(&[
            "--flow-metrics=",
            "--insight-port-scan=0",
            "--insight-denied-peers=5/10",
            "--insight-first-outside=false",
            "--insight-metadata=false",
            "--insight-first-api-server=false",
            "--insight-learning=0",
        ])
        .unwrap();
        assert_eq!(flows.flow_metrics.metrics, []);
        let (never, five) = ("0".parse().unwrap(), "5/10".parse().unwrap());
        let expected = InsightConfig {
            port_scan: never,
            denied_peers: five,
            first_outside: false,
            metadata: false,
            first_api_server: false,
            learning: Duration::ZERO,
        };
        assert_eq!(flows.insights(), expected);
    }

    #[test]
    fn what_means_nothing_is_refused_and_says_what_would() {
        for (arg, part) in [
            ("--flow-metrics=dorp", "did you mean drop?"),
            ("--insight-port-scan=20", "COUNT/SECONDS"),
            ("--insight-metadata=perhaps", "possible values: true, false"),
            ("--insight-learning=-1", "--insight-learning"),
        ] {
            let error = parse(&[arg]).unwrap_err();
            assert!(error.contains(part), "{arg}: {error}");
        }
    }
}
