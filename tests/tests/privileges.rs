//! The agent with the capabilities that its pod has, and not one more.

use enforcer_tests::{
    AgentOptions, Mode, PodSpec, Probe, World,
    world::{must, shop_pods, shop_policies},
};

/// `CAP_NET_ADMIN` (12), `CAP_PERFMON` (38), `CAP_BPF` (39): `include/uapi/linux/capability.h`.
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

fn confined(attach: &'static str) -> AgentOptions {
    let only = "-all,+net_admin,+perfmon,+bpf";
    let bounds = format!("--bounding-set={only}");
    // Root's files are root's, but nothing else of root's power is left.
    let through = ["setpriv", "--no-new-privs", "--inh-caps=-all", &bounds];
    AgentOptions {
        attach: Some(attach),
        through: through.into_iter().map(str::to_owned).collect(),
        ..AgentOptions::default()
    }
}

#[test]
fn three_capabilities_are_enough_for_all_of_it() {
    for attach in ["tcx", "clsact"] {
        let mut world =
            World::with(Mode::PointToPoint, &shop_pods(), &shop_policies(), confined(attach));
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let text = must(world.agent.process_status(set));
            assert_eq!(u64::from_str_radix(&text, 16), Ok(CAPABILITIES), "{attach}: {set}");
        }
        let allowed = Probe::tcp("shop/client", "shop/server", 80);
        let denied = Probe::tcp("shop/other", "shop/server", 80);
        world.expect(&[(allowed.clone(), true), (denied.clone(), false)]);
        let status = must(world.agent.ask(&["status"]));
        assert!(!status.contains("processes of the node get"), "{attach}: {status}");
        // A pod that starts, seen through netlink only; one that goes; and a restart.
        let late = PodSpec::numbered("shop/late", 9).label("role", "client");
        must(world.lab.add_pods(std::slice::from_ref(&late)));
        world.describe(&late);
        world.settle();
        world.open(Probe::tcp("shop/late", "shop/server", 80));
        must(world.lab.remove_pod("shop/late"));
        must(world.agent.kill());
        world.expect(&[(allowed.clone(), true), (denied.clone(), false)]);
        must(world.agent.restart());
        world.expect(&[(allowed, true), (denied, false)]);
        must(world.agent.stop());
        must(world.agent.uninstall());
    }
}

#[test]
fn with_one_capability_less_it_says_what_is_missing() {
    for (missing, word) in
        [("bpf", "CAP_BPF"), ("net_admin", "CAP_NET_ADMIN"), ("perfmon", "CAP_PERFMON")]
    {
        let mut options = confined("tcx");
        for argument in &mut options.through {
            *argument = argument.replace(&format!(",+{missing}"), "");
        }
        let lab = must(enforcer_tests::Lab::new(Mode::PointToPoint));
        let manifests = must(enforcer_tests::Manifests::new(lab.dir()));
        let refused = enforcer_tests::Agent::start(&lab, &manifests, options);
        let error = refused.expect_err("it cannot work without").chain();
        assert!(error.contains(word), "{missing}: {error}");
    }
}
