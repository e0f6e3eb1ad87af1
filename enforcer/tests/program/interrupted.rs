//! Agents that die in the middle: what they leave pinned, and what the next one makes of it.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap, Map, MapData};
use enforcer::{
    cluster::{
        KernelState,
        event::Interface,
        plan::{EndpointPlan, Plan},
    },
    dataplane::{
        AttachMode, Kernel, KernelConfig,
        netlink::tcx::{self, Hook},
        other_version, remove,
    },
};
use enforcer_common::abi::{
    CtEntry, CtEntryV1, CtKey4, Direction, MAP_CT4, MAP_META, Meta, RowKey,
};

use crate::lab::{FRIEND4, FRIENDS, IFINDEX, TABLE, endpoint, http, key};

pub(crate) const BOTH: [bool; 2] = [true, true];

/// A network namespace and a folder for pins, in which one agent follows the other.
pub(crate) struct Node {
    dir: PathBuf,
}

const BPF_FS: &str = "/sys/fs/bpf";
const PREFIX: &str = "enforcer-interrupted-";

/// Removes what runs that were killed have left: nobody else will.
fn sweep() {
    for entry in fs::read_dir(BPF_FS).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // SAFETY: takes flags only, and changes nothing but the calling thread's namespace.
        let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "a network namespace: this test needs root");
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        Self { dir: Path::new(BPF_FS).join(name) }
    }

    /// Folder for pins.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Folder of the pins of links.
    pub(crate) fn links(&self) -> PathBuf {
        self.dir.join("v2/links")
    }

    pub(crate) fn agent(&self) -> Kernel {
        self.agent_with(AttachMode::Auto)
    }

    pub(crate) fn agent_with(&self, attach: AttachMode) -> Kernel {
        self.agent_noting(attach, None)
    }

    /// With a folder for its notes.
    pub(crate) fn agent_noting(&self, attach: AttachMode, notes: Option<&Path>) -> Kernel {
        let (kernel, _rings) = Kernel::open(&KernelConfig {
            bpf_dir: Some(self.dir.clone()),
            state_dir: notes.map(Path::to_owned),
            attach,
            conntrack_entries: 4096,
            service_entries: 1024,
            class_key: [1, 2],
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
        kernel
    }

    /// What an agent wants whose pod's friends may use HTTP.
    pub(crate) fn desired(friends: bool) -> KernelState {
        let rows: BTreeMap<RowKey, _> =
            Direction::BOTH.into_iter().map(|way| (key(FRIENDS, way), http())).collect();
        let peers = friends.then_some((IpAddr::from(FRIEND4), FRIENDS));
        KernelState {
            rows,
            cidrs: BTreeMap::new(),
            peers: peers.into_iter().collect(),
            services: BTreeMap::new(),
            endpoints: BTreeMap::from([(IFINDEX, endpoint(TABLE, BOTH, false))]),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        remove(&self.dir, Path::new("/nonexistent")).unwrap();
        for version in ["v1", "v2"] {
            for folder in ["maps", "links", "programs", ""] {
                let _absent = fs::remove_dir(self.dir.join(version).join(folder));
            }
        }
        let _absent = fs::remove_dir(&self.dir);
    }
}

pub(crate) fn begin(agent: &mut Kernel, state: &KernelState) {
    let plan = agent.difference(state).unwrap();
    let applied = agent.apply(&plan);
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    agent.set_armed().unwrap();
}

#[test]
fn an_interface_is_known_after_agents_that_died_before_they_attached() {
    let node = Node::new();
    begin(&mut node.agent(), &Node::desired(true));
    // Two that die before their first plan.
    drop(node.agent());
    drop(node.agent());
    let mut agent = node.agent();
    assert!(agent.carries_ours(IFINDEX), "its programs are those of the agent before the last two");
    begin(&mut agent, &Node::desired(true));
    // Of agents whose programs are nowhere nothing is kept.
    assert_eq!(fs::read_dir(node.dir.join("v2/programs")).unwrap().count(), 3);
}

#[test]
fn flows_are_judged_anew_after_an_agent_that_died_in_the_middle_of_a_plan() {
    let node = Node::new();
    let mut agent = node.agent();
    begin(&mut agent, &Node::desired(true));
    drop(agent);
    let agent = node.agent();
    let rejudged = |plan: &Plan| plan.endpoints_set.iter().any(|endpoint| endpoint.rejudge);
    assert!(!rejudged(&agent.difference(&Node::desired(true)).unwrap()), "nothing has changed");
    drop(agent);
    let mut agent = node.agent();
    // The friends are gone; not all of the plan can be written before the agent dies.
    let nowhere = EndpointPlan {
        ifindex: 99,
        interface: Arc::from("nowhere"),
        ..endpoint(TABLE, BOTH, false)
    };
    let applied = agent.apply(&Plan {
        peers_removed: vec![IpAddr::from(FRIEND4)],
        endpoints_set: vec![nowhere],
        ..Plan::default()
    });
    assert!(!applied.failures.is_empty() && agent.incomplete());
    drop(agent);
    let agent = node.agent();
    let plan = agent.difference(&Node::desired(false)).unwrap();
    assert!(plan.peers_removed.is_empty(), "that was written");
    assert!(rejudged(&plan), "who knows what was not");
}

/// How many programs are on the hooks: on what the pod sends, and on what it receives.
fn on_hooks() -> [usize; 2] {
    [Hook::Ingress, Hook::Egress].map(|hook| tcx::query(IFINDEX, hook).unwrap().programs.len())
}

/// Waits for what the kernel does a little after a pin has gone.
fn until_on_hooks(expected: [usize; 2]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while on_hooks() != expected {
        assert!(Instant::now() < deadline, "{:?}", on_hooks());
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn links(node: &Node) -> Vec<String> {
    let pins = fs::read_dir(node.links()).unwrap();
    let mut names: Vec<_> =
        pins.map(|pin| pin.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).status().unwrap();
    assert!(done.success(), "ip {args:?}");
}

const WHOLE: [&str; 2] = ["1-egress", "1-ingress"];

#[test]
fn an_interface_that_is_half_attached_is_the_armed_one_and_is_completed_before_there_is_a_plan() {
    let node = Node::new();
    begin(&mut node.agent(), &Node::desired(true));
    fs::remove_file(node.dir.join("v2/links/1-ingress")).unwrap();
    until_on_hooks([1, 0]);
    let mut agent = node.agent();
    assert!(agent.carries_ours(IFINDEX), "one program tells it from a new interface");
    agent.complete_attachment(IFINDEX, "lo").unwrap();
    assert_eq!((on_hooks(), links(&node)), ([1, 1], WHOLE.map(str::to_owned).to_vec()));
    assert!(agent.displaced().is_empty());
    drop(agent);
    // Without any of ours it is another, for the plan to decide about.
    for name in WHOLE {
        fs::remove_file(node.dir.join("v2/links").join(name)).unwrap();
    }
    until_on_hooks([0, 0]);
    let mut agent = node.agent();
    assert!(!agent.carries_ours(IFINDEX));
    agent.complete_attachment(IFINDEX, "lo").unwrap();
    assert_eq!(on_hooks(), [0, 0]);
}

#[test]
fn an_agent_may_die_before_and_after_its_link_takes_the_place_of_the_one_before() {
    for leave_old in [true, false] {
        let node = Node::new();
        begin(&mut node.agent(), &Node::desired(true));
        let pin = |name: &str| node.dir.join("v2/links").join(name);
        // It had attached and pinned, and died before the pin had its name.
        fs::rename(pin("1-egress"), pin("1-egress-new")).unwrap();
        if leave_old {
            // What a link's update is refused for.
            fs::hard_link(node.dir.join("v2/maps").join(MAP_META), pin("1-egress")).unwrap();
        }
        begin(&mut node.agent(), &Node::desired(true));
        assert_eq!((on_hooks(), links(&node)), ([1, 1], WHOLE.map(str::to_owned).to_vec()));
        // It had replaced the one before, and died before the other draft was gone.
        fs::hard_link(pin("1-egress"), pin("1-egress-new")).unwrap();
        begin(&mut node.agent(), &Node::desired(true));
        assert_eq!((on_hooks(), links(&node)), ([1, 1], WHOLE.map(str::to_owned).to_vec()));
    }
}

#[test]
fn what_is_pinned_stays_until_its_successor_is_attached() {
    let node = Node::new();
    let mut agent = node.agent();
    begin(&mut agent, &Node::desired(true));
    ip(&["link", "add", "gone", "index", "99", "type", "bridge"]);
    let gone =
        EndpointPlan { ifindex: 99, interface: "gone".into(), ..endpoint(TABLE, BOTH, false) };
    let plan = Plan { endpoints_set: vec![gone], ..Plan::default() };
    assert_eq!(agent.apply(&plan).failures, Vec::<String>::new());
    drop(agent);
    ip(&["link", "delete", "gone"]);
    let applied = node.agent().apply(&plan);
    assert_eq!(applied.failures.len(), 1, "{:?}", applied.failures);
    assert!(links(&node).contains(&"99-egress".to_owned()), "nothing has taken its place");
}

/// Makes the pins those of version 1.
fn pretend_v1(dir: &Path) {
    fs::rename(dir.join("v2"), dir.join("v1")).unwrap();
    let data = MapData::from_pin(dir.join("v1/maps").join(MAP_META)).unwrap();
    let mut meta: Array<MapData, Meta> = Map::Array(data).try_into().unwrap();
    let old = Meta { abi: 1, ..meta.get(&0, 0).unwrap() };
    meta.set(0, old, 0).unwrap();
}

#[test]
fn the_removal_of_the_version_before_goes_on_wherever_it_was_interrupted() {
    // The obstacle is the last pin of the folder, or the first.
    for early in [true, false] {
        let node = Node::new();
        let obstacle = |version: &str| node.dir.join(version).join("maps/obstacle");
        if early {
            fs::create_dir_all(obstacle("v2")).unwrap();
        }
        begin(&mut node.agent(), &Node::desired(true));
        pretend_v1(&node.dir);
        if !early {
            fs::create_dir(obstacle("v1")).unwrap();
        }
        let mut agent = node.agent();
        begin(&mut agent, &Node::desired(true));
        assert!(agent.finish_upgrade().is_err(), "not everything can be deleted");
        drop(agent);
        fs::remove_dir(obstacle("v1")).unwrap();
        let mut agent = node.agent();
        begin(&mut agent, &Node::desired(true));
        agent.finish_upgrade().unwrap();
        assert!(!node.dir.join("v1").exists());
    }
}

#[test]
fn flows_in_the_layout_of_version_1_are_taken_over() {
    let node = Node::new();
    begin(&mut node.agent(), &Node::desired(true));
    pretend_v1(&node.dir);
    let pin = node.dir.join("v1/maps").join(MAP_CT4);
    let mut old: HashMap<MapData, CtKey4, CtEntryV1> = HashMap::create(16, 0).unwrap();
    let entry = CtEntryV1 {
        last_seen: 1,
        created: 2,
        generation: 3,
        rule: 4,
        slot: 5,
        flags: 6,
        seen_origin: 7,
        seen_reply: 8,
        _pad: 0,
        hidden_slot: 9,
    };
    let key = CtKey4 { ifindex: IFINDEX, local_port: 80, ..CtKey4::default() };
    old.insert(key, entry, 0).unwrap();
    fs::remove_file(&pin).unwrap();
    old.pin(&pin).unwrap();
    let agent = node.agent();
    let expected = CtEntry {
        last_seen: 1,
        created: 2,
        generation: 3,
        rule: 4,
        slot: 5,
        flags: 6,
        seen_origin: 7,
        seen_reply: 8,
        hidden_slot: 9,
        ..CtEntry::default()
    };
    assert_eq!(agent.flow4(&key), Some(expected));
}

#[test]
fn what_the_version_before_armed_and_nobody_speaks_for_is_closed_and_the_upgrade_ends() {
    let node = Node::new();
    begin(&mut node.agent(), &Node::desired(true));
    pretend_v1(&node.dir);
    let mut agent = node.agent();
    let nothing = KernelState::default();
    begin(&mut agent, &nothing);
    assert_eq!(other_version(&node.dir).unwrap(), Some(1));
    assert_eq!(agent.close_unclaimed(&nothing), [IFINDEX]);
    agent.finish_upgrade().unwrap();
    assert_eq!(other_version(&node.dir).unwrap(), None);
    assert!(!agent.upgrading(), "nothing is left that the version before enforces on");
    assert!(agent.is_attached(IFINDEX) && !node.dir.join("v1").exists());
}

#[test]
fn a_new_interface_under_the_index_of_an_armed_one_is_closed_and_inherits_nothing() {
    let node = Node::new();
    let mut agent = node.agent();
    begin(&mut agent, &Node::desired(true));
    let flow = CtKey4 { ifindex: IFINDEX, ..CtKey4::default() };
    agent.set_flow4(&flow, &CtEntry { last_seen: u64::MAX, ..CtEntry::default() }).unwrap();
    drop(agent);
    let interface = Interface {
        ifindex: IFINDEX,
        name: Arc::from("lo"),
        peer_addresses: vec![IpAddr::from(FRIEND4)],
        kind: Arc::from("veth"),
    };
    let mut agent = node.agent();
    assert!(agent.knows_addresses(&interface), "the one that was armed");
    for link in fs::read_dir(node.dir.join("v2/links")).unwrap() {
        fs::remove_file(link.unwrap().path()).unwrap();
    }
    while agent.carries_ours(IFINDEX) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!agent.knows_addresses(&interface), "without our programs it is another");
    let applied = agent.close_starting(std::slice::from_ref(&interface), false);
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    assert!(agent.carries_ours(IFINDEX) && agent.knows_addresses(&interface));
    let found = agent.found();
    assert!(found.iter().all(|one| one.starting && one.addresses == interface.peer_addresses));
    assert_eq!((found.len(), agent.flow4(&flow)), (1, None));
}
