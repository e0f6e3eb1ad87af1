//! The enforcer in a real cluster: installed from the checked-in manifests, updated, restarted and
//! left without its API server.
//!
//! There are two clusters of two nodes, one after the other: nftables and IPv4, then iptables and
//! both families. The tests of each share it; it is started before the first of them and removed
//! after the last, and they run in the order below. One that is up already is used and left, for
//! the tests of its kind. Run by `cargo xtask test --cluster`, which makes what is needed; arguments
//! choose tests by parts of their names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end, also in its helpers")]

mod api_server;
mod changes;
mod churn;
mod ending;
mod hubble;
mod install;
mod latency;
mod namespace;
mod network;
mod operations;
mod policies;
mod poll;
mod proxy;
mod reboot;
mod rollout;
mod runner;
mod starting;
mod upstream;
mod world;

use std::process::ExitCode;

use enforcer_cluster::{Families, Options, ProxyMode};
use runner::{Suite, Test};

const SUITES: [Suite; 2] = [
    Suite {
        name: "nftables, IPv4",
        options: Options { nodes: 2, families: Families::V4, proxy: ProxyMode::Nftables },
        tests: TESTS,
    },
    // What IPv6 and the proxy's way have a part in.
    Suite {
        name: "iptables, dual stack",
        options: Options { nodes: 2, families: Families::Dual, proxy: ProxyMode::Iptables },
        tests: DUAL_STACK,
    },
];

const TESTS: &[Test] = &[
    Test {
        name: "install::the_manifests_bring_agents_with_three_capabilities",
        run: install::install,
    },
    Test { name: "policies::pods_reach_what_their_policies_say", run: policies::semantics },
    Test { name: "policies::a_change_holds_when_status_has_waited", run: policies::barrier },
    Test { name: "policies::probes_of_an_isolated_pod_pass", run: policies::probes },
    Test { name: "starting::a_pod_that_may_not_connect_never_does", run: starting::closed },
    Test {
        name: "starting::under_the_gate_the_first_connection_is_judged_by_policy",
        run: starting::gate,
    },
    Test {
        name: "ending::an_agent_that_ends_refuses_what_its_gate_holds",
        run: ending::while_holding,
    },
    Test {
        name: "rollout::an_update_loses_nothing_and_lets_nothing_through",
        run: rollout::updates,
    },
    Test {
        name: "api_server::what_was_in_force_stays_and_changes_arrive_later",
        run: api_server::away,
    },
    Test {
        name: "operations::an_event_names_a_policy_that_cannot_be_enforced",
        run: operations::events,
    },
    Test { name: "hubble::its_own_client_and_relay_read_the_flows", run: hubble::client_and_relay },
    Test {
        name: "operations::what_a_pod_tries_is_known_by_events_and_metrics",
        run: operations::insights,
    },
    Test {
        name: "operations::in_audit_what_is_denied_passes_and_is_named",
        run: operations::audit,
    },
    Test {
        name: "operations::break_glass_opens_one_pod_and_ends_by_itself",
        run: operations::break_glass,
    },
    Test { name: "churn::nothing_stays_of_pods_that_have_gone", run: churn::churn },
    Test { name: "changes::a_label_is_in_force_soon", run: changes::soon },
    Test { name: "latency::pods_start_as_soon_as_without_an_agent", run: latency::start },
    Test {
        name: "starting::a_pod_that_starts_without_an_agent_is_named",
        run: starting::unguarded,
    },
    Test { name: "reboot::what_was_saved_is_in_force_after_a_reboot", run: reboot::reboot },
    Test {
        name: "upstream::kubernetes_own_tests_of_network_policy_pass",
        run: upstream::network_policy,
    },
    Test { name: "install::removal_leaves_nothing_behind", run: install::remove },
    Test {
        name: "upstream::without_an_agent_kubernetes_own_tests_fail",
        run: upstream::without_an_agent,
    },
];

const DUAL_STACK: &[Test] = &[
    Test { name: "dual_stack::pods_reach_what_their_policies_say", run: policies::semantics },
    Test { name: "dual_stack::probes_of_an_isolated_pod_pass", run: policies::probes },
    Test { name: "dual_stack::a_pod_that_may_not_connect_never_does", run: starting::closed },
    Test {
        name: "dual_stack::an_update_loses_nothing_and_lets_nothing_through",
        run: rollout::once,
    },
    Test {
        name: "dual_stack::kubernetes_own_tests_of_network_policy_pass",
        run: upstream::network_policy,
    },
    Test { name: "dual_stack::removal_leaves_nothing_behind", run: install::remove },
];

fn main() -> ExitCode {
    runner::run(&SUITES)
}
