//! What goes wrong around the agent: it is killed, its pins go, interfaces go while it works on them.
//! Nothing passes that policy denies, and nothing that it allows is dropped.

use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Agent, AgentOptions, Mode, PodSpec, Probe, World,
    world::{must, shop_client as client, shop_never as never, shop_other as other, undisturbed},
};

/// Longer than the agent takes between two looks at its pins.
const LOOK: Duration = Duration::from_secs(8);

/// A fixed sequence that looks random (`SplitMix64`).
struct Chance(u64);

impl Chance {
    /// From the environment, so that a failure can be looked at again.
    fn seeded() -> Self {
        let given = env::var("ENFORCER_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        println!("ENFORCER_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Policies under which the client may reach the server and the other pod may not: the first rule
/// is always there, the rest changes classes, rows and what isolates.
fn policies(number: usize) -> String {
    let mut all = enforcer_tests::world::shop_policies();
    for n in 0..number % 7 {
        let (label, port) = (n % 3, 1000 + number % 50);
        all += &format!(
            "\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: more-{n}, \
             namespace: shop}}\nspec:\n  podSelector: {{}}\n  policyTypes: [Ingress]\n  ingress:\n  \
             - from: [{{podSelector: {{matchLabels: {{role: client}}}}}}, {{namespaceSelector: \
             {{matchLabels: {{team: t{label}}}}}}}]\n    ports: [{{port: {port}}}, {{port: 80}}]\n"
        );
    }
    all
}

#[test]
fn an_agent_that_is_killed_at_any_moment_leaves_nothing_wrong() {
    let rounds = if env::var_os("ENFORCER_LONG").is_some() { 200 } else { 20 };
    let mut chance = Chance::seeded();
    for (attach, rounds) in [("tcx", rounds - rounds / 4), ("clsact", rounds / 4)] {
        let options = AgentOptions { attach: Some(attach), ..AgentOptions::default() };
        let mut world = World::shop(Mode::PointToPoint, options);
        let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
        let ((), watched) = world.while_closed(&never(), |agent, manifests, lab| {
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0.. {
                        must(manifests.write("policies.yaml", &policies(number)));
                        thread::sleep(Duration::from_millis(15));
                        if done.load(Ordering::SeqCst) {
                            return;
                        }
                    }
                });
                for round in 0..rounds {
                    // In half of the rounds somewhere in its start, which is slower on a busy
                    // machine; in the others while it follows the changes.
                    let follows = round % 2 == 0;
                    if follows {
                        must(agent.restart());
                    }
                    let limit = if follows { 200 } else { 2500 };
                    let pause = Duration::from_millis(chance.below(limit));
                    must(agent.restart_and_kill_after(pause));
                    let open = must(lab.probe(&[
                        client().expecting(true),
                        client().v6().expecting(true),
                        Probe::udp("shop/client", "shop/server", 80).expecting(true),
                    ]));
                    assert!(
                        open.iter().all(enforcer_tests::Outcome::is_open),
                        "--attach={attach}, killed after {pause:?} in round {round}: {open:?}"
                    );
                }
                done.store(true, Ordering::SeqCst);
            });
        });
        must(world.agent.restart());
        world.policies(&policies(3));
        world.settle();
        world.expect(&[(client(), true), (other(), false)]);
        undisturbed(heartbeat);
        println!("  {attach}: {rounds} kills, {watched} looks");
    }
}

/// All pins of an agent.
fn pins(agent: &Agent) -> Vec<PathBuf> {
    let mut folders = vec![agent.bpf_dir().to_owned()];
    let mut pins = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder { &mut folders } else { &mut pins }.push(entry.path());
        }
    }
    pins.sort();
    pins
}

/// Waits until what is looked at is as wanted.
fn until<T: std::fmt::Debug>(look: impl Fn() -> T, wanted: impl Fn(&T) -> bool) {
    let since = Instant::now();
    loop {
        let now = look();
        if wanted(&now) {
            return;
        }
        assert!(since.elapsed() < LOOK, "{now:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until these pins are there.
fn come_back(agent: &Agent, wanted: &[PathBuf]) {
    until(|| pins(agent), |pins| pins == wanted);
}

#[test]
fn pins_that_are_removed_take_nothing_out_of_force_and_come_back() {
    let options = AgentOptions { attach: Some("tcx"), ..AgentOptions::default() };
    let mut world = World::shop(Mode::PointToPoint, options);
    let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
    world.while_closed(&never(), |agent, _, _| {
        let all = pins(agent);
        assert!(all.len() > 30, "{all:?}");
        for pin in &all {
            fs::remove_file(pin).expect("a pin can be removed");
        }
        come_back(agent, &all);
        // They are those that are in force: the next agent goes on with them.
        must(agent.kill());
        thread::sleep(Duration::from_millis(300));
        must(agent.restart());
    });
    world.open(client());
    undisturbed(heartbeat);
}

#[test]
fn without_the_bpf_filesystem_policy_stays_in_force_and_status_says_what_is_lost() {
    let options = AgentOptions { attach: Some("tcx"), own_bpffs: true, ..AgentOptions::default() };
    let mut world = World::shop(Mode::PointToPoint, options);
    let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
    let problem = |agent: &Agent| must(agent.status())["report"]["problems"].to_string();
    world.while_closed(&never(), |agent, manifests, lab| {
        let all = pins(agent);
        must(agent.unmount_pins());
        until(|| problem(agent), |problem| problem.contains("lost our pins"));
        // It goes on working.
        let late = PodSpec::numbered("shop/late", 9).label("role", "client");
        must(manifests.write("policies.yaml", &policies(5)));
        must(manifests.write("late.yaml", &late.manifest()));
        must(agent.wait());
        let open = must(lab.probe_one(&client().expecting(true)));
        assert!(open.is_open(), "{open}");
        must(agent.mount_pins());
        come_back(agent, &all);
        until(|| problem(agent), |problem| !problem.contains("lost our pins"));
        must(agent.kill());
        thread::sleep(Duration::from_millis(300));
        must(agent.restart());
    });
    world.open(client());
    undisturbed(heartbeat);
}

#[test]
fn interfaces_that_go_while_they_are_attached_to_leave_nothing_behind() {
    for attach in ["tcx", "clsact"] {
        let options = AgentOptions { attach: Some(attach), ..AgentOptions::default() };
        let mut world = World::shop(Mode::PointToPoint, options);
        let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
        world.settle();
        let before = pins(&world.agent);
        let mut chance = Chance::seeded();
        let node = world.lab.node();
        for _ in 0..100 {
            must(
                node.command("ip", &["link", "add", "brief", "type", "veth", "peer", "name", "b2"]),
            );
            must(node.command("ip", &["link", "set", "brief", "up"]));
            thread::sleep(Duration::from_micros(chance.below(15_000)));
            must(node.command("ip", &["link", "del", "brief"]));
        }
        let since = Instant::now();
        let rest = |world: &World| {
            let status = must(world.agent.status());
            status["report"]["endpoints"].as_array().map_or(0, Vec::len)
        };
        while pins(&world.agent) != before || rest(&world) != 3 {
            assert!(since.elapsed() < LOOK, "{:?}, {before:?}", pins(&world.agent));
            thread::sleep(Duration::from_millis(50));
        }
        assert!(world.agent.runs());
        world.expect(&[(client(), true), (other(), false)]);
        undisturbed(heartbeat);
    }
}
