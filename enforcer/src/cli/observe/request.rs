//! What is asked of the server.

use enforcer_hubble::observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest};
use prost_types::{FieldMask, Timestamp};

use super::{
    args::{EventArgs, FlowArgs, SelectArgs},
    print::Options,
};
use crate::cli::when::When;

/// How many are shown if nothing says so.
const DEFAULT_LAST: u64 = 20;

/// Fields that the lines are made of.
const VISIBLE: [&str; 29] = [
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "source_names",
    "destination_names",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
    "ip_trace_id",
    "auth_type",
    "traffic_direction",
    "policy_match_type",
    "drop_reason_desc",
    "trace_observation_point",
    "debug_capture_point",
    "sock_xlate_point",
];

/// Fields that name policies.
const POLICIES: [&str; 4] =
    ["egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by"];

/// What all three questions have in common.
struct Range {
    number: u64,
    first: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl SelectArgs {
    fn range(&self) -> Range {
        let bounded = self.since.is_some() || self.until.is_some();
        let number = match (self.first, self.last) {
            (Some(number), _) | (None, Some(number)) => number,
            (None, None) if self.all => u64::MAX,
            // As Hubble does: a follower starts now.
            (None, None) if self.follow || bounded => 0,
            (None, None) => DEFAULT_LAST,
        };
        Range {
            number,
            first: self.first.is_some(),
            since: self.since.map(timestamp),
            until: self.until.map(timestamp),
        }
    }
}

fn timestamp(when: When) -> Timestamp {
    let ns = when.ns();
    let nanos = i32::try_from(ns.rem_euclid(1_000_000_000)).expect("less than a second");
    Timestamp { seconds: ns.div_euclid(1_000_000_000), nanos }
}

/// The question about flows.
pub(super) fn flows(args: &FlowArgs, options: &Options) -> GetFlowsRequest {
    let Range { number, first, since, until } = args.select.range();
    GetFlowsRequest {
        number,
        first,
        follow: args.select.follow,
        since,
        until,
        whitelist: args.filters.allow.clone(),
        blacklist: args.filters.deny.clone(),
        field_mask: mask(args, options),
        ..GetFlowsRequest::default()
    }
}

fn mask(args: &FlowArgs, options: &Options) -> Option<FieldMask> {
    if !args.field_mask.is_empty() {
        return Some(FieldMask { paths: args.field_mask.clone() });
    }
    if options.output.is_json() || !args.use_default_field_masks {
        return None;
    }
    let mut paths: Vec<&str> = VISIBLE.to_vec();
    if options.policies || options.why {
        paths.extend(POLICIES);
    }
    if options.why {
        paths.push("extensions");
    }
    Some(FieldMask { paths: paths.into_iter().map(str::to_owned).collect() })
}

/// The question about agent events.
pub(super) fn agent_events(args: &EventArgs) -> GetAgentEventsRequest {
    let Range { number, first, since, until } = args.select.range();
    GetAgentEventsRequest { number, first, follow: args.select.follow, since, until }
}

/// The question about debug events.
pub(super) fn debug_events(args: &EventArgs) -> GetDebugEventsRequest {
    let Range { number, first, since, until } = args.select.range();
    GetDebugEventsRequest { number, first, follow: args.select.follow, since, until }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::observe::tests::{ObserveCli, options};

    fn asked(line: &str) -> GetFlowsRequest {
        let args = ObserveCli::parse_from(line.split(' ')).args.flows;
        flows(&args, &options(&args))
    }

    #[test]
    fn how_many_flows_are_asked_for() {
        for (line, number, first) in [
            ("observe", 20, false),
            ("observe --last 3", 3, false),
            ("observe --last 0", 0, false),
            ("observe -f", 0, false),
            ("observe -f --last 3", 3, false),
            ("observe --all", u64::MAX, false),
            ("observe --first 3", 3, true),
            ("observe --since 5m", 0, false),
            ("observe --until 5m", 0, false),
            ("observe --since 5m --last 7", 7, false),
        ] {
            let request = asked(line);
            assert_eq!((request.number, request.first), (number, first), "{line}");
        }
    }

    #[test]
    fn only_what_is_shown_is_asked_for() {
        let paths = |line: &str| asked(line).field_mask.map(|mask| mask.paths).unwrap_or_default();
        let plain = paths("observe");
        assert_eq!(plain, VISIBLE);
        assert!(paths("observe --print-policy-names").contains(&"egress_denied_by".to_owned()));
        assert!(paths("observe -o dict --why").contains(&"extensions".to_owned()));
        assert!(paths("observe -o json").is_empty());
        assert!(paths("observe --use-default-field-masks=false").is_empty());
        assert_eq!(paths("observe -o jsonpb --field-mask time,source.pod_name").len(), 2);
        for path in VISIBLE.iter().chain(&POLICIES).chain(&["extensions"]) {
            enforcer_hubble::mask::FieldMask::of_flow(&[path]).unwrap();
        }
    }
}
