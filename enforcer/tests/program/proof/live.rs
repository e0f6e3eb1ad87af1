//! Updates under way: a thread writes plans into the real maps while another sends packets. What the
//! cluster before and the one after both allow is never dropped, what both deny never passes; and in
//! the end the maps are what a fresh build writes, read back from where they are pinned.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use enforcer::cluster::plan::Plan;
use enforcer_common::abi;
use enforcer_reference::{Cluster, Direction, Packet};

use super::{
    compare::subject,
    events, generate, is_exhaustive,
    probe::{self, Probe, Sameness},
    random::Random,
    record,
    rig::{Rig, of},
    seed,
};
use crate::{
    interrupted::Node,
    lab::{DROP, PASS},
    packets::{self, ACK, SYN},
    runner::Runner,
};

/// Clusters built from nothing; in a long run many more.
const ROUNDS: usize = 12;
const MANY_ROUNDS: usize = 200;
/// Changes of each.
const STEPS: usize = 25;
/// Probes asked for a step; those that the change decides are left out.
const PROBES: usize = 60;
/// Source ports of flows that go on from step to step, and those of the connections.
const FLOWS: std::ops::Range<u16> = 20_000..20_004;
const CONNECTION: u16 = 20_010;

/// A packet whose verdict no instant of a change may turn.
#[derive(Clone, Debug)]
struct Steady {
    direction: abi::Direction,
    frame: Vec<u8>,
    ifindex: u32,
    came_in_by: u32,
    passes: bool,
}

impl Steady {
    fn code(&self, runner: &Runner) -> i32 {
        runner.run(self.direction, &self.frame, self.ifindex, self.came_in_by)
    }

    fn wrong(&self, runner: &Runner) -> Option<String> {
        let code = self.code(runner);
        let wanted = if self.passes { PASS } else { DROP };
        (code != wanted).then(|| format!("code {code} of {self:?}"))
    }
}

/// What the sending thread did during one plan.
struct Sent {
    packets: usize,
    wrong: Vec<String>,
}

/// A thread that sends the packets of a job again and again until it is stopped.
struct Sending {
    jobs: Sender<Arc<Vec<Steady>>>,
    done: Receiver<Sent>,
    stop: Arc<AtomicBool>,
}

impl Sending {
    /// It lives in the network namespace of the calling thread.
    fn start(runner: Arc<Runner>) -> Self {
        let (jobs, next) = channel::<Arc<Vec<Steady>>>();
        let (tell, done) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for job in next {
                let mut sent = Sent { packets: 0, wrong: Vec::new() };
                // At least once around: some plans are written faster than the thread wakes up.
                loop {
                    for steady in &*job {
                        sent.wrong.extend(steady.wrong(&runner));
                        sent.packets += 1;
                    }
                    if stopped.load(Ordering::Acquire) || !sent.wrong.is_empty() {
                        break;
                    }
                }
                if tell.send(sent).is_err() {
                    return;
                }
            }
        });
        Self { jobs, done, stop }
    }

    /// Sends while a plan is written.
    fn during(&self, job: &Arc<Vec<Steady>>, rig: &mut Rig, plan: &Plan) -> Sent {
        self.stop.store(false, Ordering::Release);
        self.jobs.send(Arc::clone(job)).unwrap();
        rig.write(plan);
        self.stop.store(true, Ordering::Release);
        self.done.recv().unwrap()
    }
}

/// Whether a probe passes by a cluster, if its pod is there.
fn passes(cluster: &Cluster, probe: &Probe) -> Option<bool> {
    use enforcer_reference::Outcome::{
        Allowed, Denied, FromNode, Hairpin, NotIsolated, Pending, PendingOrDenied, Spoofed,
    };
    match cluster.outcome(subject(cluster, probe.slot)?, &probe.packet) {
        Allowed(_) | FromNode | Hairpin | NotIsolated => Some(true),
        Denied | Spoofed => Some(false),
        Pending | PendingOrDenied => None,
    }
}

/// Packets of the probes that two clusters agree on; established connections among them.
fn steady(rig: &Rig, random: &mut Random, old: &Cluster, new: &Cluster) -> Vec<Steady> {
    let mut ports = probe::interesting_ports(old);
    ports.extend(probe::interesting_ports(new));
    let mut all = Vec::new();
    for _ in 0..PROBES {
        let probe = probe::probe(random, old, &ports);
        let (Some(before), Some(after)) = (passes(old, &probe), passes(new, &probe)) else {
            continue;
        };
        // Without ports one side's packets are the answers to the other's.
        if before != after || probe.sameness() == Sameness::Flow {
            continue;
        }
        let steady = |direction, frame, came_in_by| Steady {
            direction,
            frame,
            ifindex: rig.writer.ifindex(probe.slot),
            came_in_by,
            passes: before,
        };
        let direction = of(probe.packet.direction);
        let came_in_by = u32::from(!probe.packet.by_node);
        for number in FLOWS {
            all.push(steady(direction, probe.frame(number), came_in_by));
        }
        let own = &rig.writer.interfaces[probe.slot].peer_addresses;
        if before && probe.packet.protocol == 6 && !own.contains(&probe.packet.other()) {
            let [there, back] = segments(&probe.packet);
            let opening = [
                steady(direction, there(SYN), came_in_by),
                steady(direction.reverse(), back(SYN | ACK), 1),
            ];
            for segment in opening {
                let wrong = segment.wrong(&rig.runner);
                assert_eq!(wrong, None, "before the change, of {old:#?}");
            }
            all.push(steady(direction, there(ACK), came_in_by));
            all.push(steady(direction.reverse(), back(ACK), 1));
        }
    }
    all
}

/// The two directions of a connection, by flags.
fn segments(packet: &Packet) -> [Box<dyn Fn(u8) -> Vec<u8>>; 2] {
    let Packet { source, destination, port, .. } = *packet;
    let (source, destination) = (probe::ip(source), probe::ip(destination));
    [
        Box::new(move |flags| packets::tcp(source, destination, (CONNECTION, port), flags)),
        Box::new(move |flags| packets::tcp(destination, source, (port, CONNECTION), flags)),
    ]
}

/// One change of a cluster without Services, whose verdict is another hook's.
fn changed(random: &mut Random, cluster: &Cluster) -> Cluster {
    let mut next = cluster.clone();
    while next == *cluster {
        generate::change(random, &mut next);
        next.services.clear();
    }
    next
}

#[test]
fn no_instant_of_an_update_turns_what_it_does_not_change() {
    let node = Node::new();
    let mut rig = Rig::pinned(Some(node.dir().to_owned()));
    let sending = Sending::start(Arc::clone(&rig.runner));
    let (first, _) = seed();
    let rounds = if is_exhaustive() { MANY_ROUNDS } else { ROUNDS };
    let (mut packets, mut plans, mut flips) = (0, 0, [0, 0]);
    for seed in (first..).take(rounds) {
        let mut random = Random::new(seed);
        let mut cluster = generate::cluster(&mut random);
        cluster.services.clear();
        rig.rebuild(&cluster);
        for _ in 0..STEPS {
            let next = changed(&mut random, &cluster);
            let job = Arc::new(steady(&rig, &mut random, &cluster, &next));
            for steady in &*job {
                flips[usize::from(steady.passes)] += 1;
            }
            for event in events::changes(&cluster, &next).into_iter().flatten() {
                rig.writer.index.apply(event);
            }
            while let Some(plan) = rig.plan() {
                let sent = sending.during(&job, &mut rig, &plan);
                let told = events::changes(&cluster, &next);
                assert!(
                    sent.wrong.is_empty(),
                    "ENFORCER_SEED={seed}: {}\nwhile {told:#?}\nis written as {plan:#?}",
                    sent.wrong.join("\n")
                );
                packets += sent.packets;
                plans += 1;
            }
            rig.cluster.clone_from(&next);
            rig.check_against_a_fresh_one();
            rig.discard();
            cluster = next;
        }
    }
    record(&format!("{packets} packets during {plans} plans from ENFORCER_SEED={first}"));
    assert!(plans >= rounds * STEPS / 4, "{plans} plans");
    assert!(flips.iter().all(|count| *count > rounds * STEPS), "denied and allowed: {flips:?}");
    // What is in the maps themselves, not what the writer believes of them.
    let state = rig.writer.index.snapshot();
    drop(rig);
    let reader = node.agent();
    let mut difference = reader.difference(&state).unwrap();
    let endpoints: Vec<_> = difference.endpoints_set.drain(..).map(|one| one.ifindex).collect();
    assert!(difference.is_empty(), "the maps hold something else: {difference:#?}");
    let found: Vec<_> =
        reader.found().iter().map(|one| (one.ifindex, one.addresses.clone())).collect();
    let wanted = state.endpoints.values().map(|one| (one.ifindex, one.addresses.clone()));
    assert_eq!(found, wanted.collect::<Vec<_>>());
    assert_eq!(endpoints.len(), found.len());
}

/// Packets of every kind that the reference decides reach the comparison: directions, families,
/// protocols, the node, and addresses that are not the sender's.
#[test]
fn probes_are_of_every_kind() {
    let mut random = Random::new(1);
    let cluster = generate::cluster(&mut random);
    let ports = probe::interesting_ports(&cluster);
    let probes: Vec<_> = (0..2_000).map(|_| probe::probe(&mut random, &cluster, &ports)).collect();
    let some = |what: &str, is: &dyn Fn(&Probe) -> bool| {
        assert!(probes.iter().filter(|probe| is(probe)).count() > 10, "{what}");
    };
    some("by the node", &|probe| probe.packet.by_node);
    for direction in Direction::BOTH {
        for protocol in [1, 6, 17, 47, 58, 132] {
            some(&format!("{direction:?} {protocol}"), &|probe| {
                (probe.packet.direction, probe.packet.protocol) == (direction, protocol)
            });
        }
    }
    some("a Service's", &|probe| {
        cluster.services.iter().any(|service| service.address == probe.packet.destination)
    });
}
