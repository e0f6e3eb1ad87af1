//! A laboratory with Services: a client that may reach some backends and not others, on its node
//! and on another.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    AgentOptions, Backend, Connection, Heartbeat, Lab, Mode, Outcome, Place, PodSpec, Probe,
    Protocol, Proxy, Service, World, policy, scenario::pod_file, witness::Witness, world::must,
};

/// Where the backends listen.
pub const TARGET: u16 = 8080;
/// Probes at once: not so many that what is open looks closed on a busy machine.
const AT_ONCE: usize = 200;
/// How long each waits: longer than TCP's first retransmission.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// Silence after which a connection counts as stopped: longer than TCP's first retransmission.
pub const SILENCE: Duration = Duration::from_millis(400);
/// First port that [`Market::judge`] sends from; those above are the kernel's to give.
const FIRST_PORT: u16 = 10_000;

/// A world with Services in namespace `shop`.
///
/// `client` (label `role=client`) may send to pods with the label `app=good` at TCP and UDP port
/// 8080, and to nothing else. `good` and `bad` are pods of its node, `far-good` and `far-bad` of
/// another; labels are `app=good` and `app=bad`. Nobody is isolated for ingress.
#[derive(Debug)]
pub struct Market {
    /// Agent, manifests, namespaces.
    pub world: World,
    /// What the node translates.
    pub proxy: Proxy,
    next_port: AtomicU16,
}

/// The client of a [`Market`].
#[must_use]
pub fn client() -> PodSpec {
    PodSpec::numbered("shop/client", 2).label("role", "client")
}

/// A pod of the client's node that it may reach.
#[must_use]
pub fn good() -> PodSpec {
    PodSpec::numbered("shop/good", 3).label("app", "good").port("http", TARGET)
}

/// A pod of the client's node that it may not reach.
#[must_use]
pub fn bad() -> PodSpec {
    PodSpec::numbered("shop/bad", 4).label("app", "bad").port("http", TARGET)
}

/// A pod of another node that it may reach.
#[must_use]
pub fn far_good() -> PodSpec {
    elsewhere("shop/far-good", 5).label("app", "good").port("http", TARGET)
}

/// A pod of another node that it may not reach.
#[must_use]
pub fn far_bad() -> PodSpec {
    elsewhere("shop/far-bad", 6).label("app", "bad").port("http", TARGET)
}

fn elsewhere(name: &str, number: u8) -> PodSpec {
    let v6 = u16::from(number);
    let addresses =
        [IpAddr::from([10, 245, 1, number]), IpAddr::from([0xfd10, 0x245, 0, 0, 0, 0, 1, v6])];
    PodSpec::new(name, &addresses)
}

/// A Service of pods of the client's node.
#[must_use]
pub fn near(number: u8, pods: &[PodSpec]) -> Service {
    let backends: Vec<Backend> = pods.iter().map(|pod| Backend::pod(pod, TARGET)).collect();
    Service::numbered(&format!("shop/near-{number}"), number).with(&backends)
}

/// A Service of pods of another node.
#[must_use]
pub fn far(number: u8, pods: &[PodSpec]) -> Service {
    let backends: Vec<Backend> = pods.iter().map(|pod| Backend::far(pod, TARGET)).collect();
    Service::numbered(&format!("shop/far-{number}"), number).with(&backends)
}

/// Fails unless the connection stops: policy has come into force that denies it.
///
/// # Panics
/// If it goes on.
#[track_caller]
pub fn stops(heartbeat: &Heartbeat) {
    assert!(heartbeat.stopped(SILENCE, Duration::from_secs(3)).is_some(), "it goes on");
}

/// Fails unless the connection lives, and has lost nothing since it was opened.
///
/// # Panics
/// If it stopped, or something was lost.
#[track_caller]
pub fn goes_on(heartbeat: Heartbeat) {
    let before = heartbeat.beats();
    thread::sleep(SILENCE);
    let after = heartbeat.beats();
    assert!(after > before, "no answer after {before}");
    assert_eq!(heartbeat.end().expect("its thread lives").lost_segments(), 0);
}

/// The policies of a [`Market`].
#[must_use]
pub fn policies() -> String {
    let on = [(Protocol::Tcp, TARGET), (Protocol::Udp, TARGET)];
    policy::all(&[closed(), policy::allow_to("allow-good", "role=client", "app=good", &on)])
}

/// The policy that lets the client reach nothing.
#[must_use]
pub fn closed() -> String {
    policy::deny("role=client", &["Egress"])
}

impl Market {
    /// With the agent as it is by default.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    #[track_caller]
    pub fn new(mode: Mode) -> Self {
        Self::with(mode, &policies(), AgentOptions::default())
    }

    /// With these policies instead, and an agent that is started in this way.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    #[track_caller]
    pub fn with(mode: Mode, policies: &str, options: AgentOptions) -> Self {
        let mut world = World::with(mode, &[client(), good(), bad()], policies, options);
        for pod in [far_good(), far_bad()] {
            must(world.lab.add_outside(&pod.addresses));
            must(world.manifests.write(&pod_file(&pod.name), &pod.manifest()));
        }
        must(world.lab.allow_hairpin());
        world.settle();
        Self { world, proxy: Proxy::default(), next_port: AtomicU16::new(FIRST_PORT) }
    }

    /// The namespaces.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.world.lab
    }

    /// Announces the Services, translates them and no others, and makes their backends answer.
    ///
    /// # Panics
    /// If any of it fails.
    #[track_caller]
    pub fn offer(&mut self, services: &[Service]) {
        for service in services {
            self.announce(service);
            self.announce_slices(service);
        }
        self.translate(services);
        self.world.settle();
    }

    /// Writes a Service's object.
    ///
    /// # Panics
    /// If it cannot be written.
    #[track_caller]
    pub fn announce(&self, service: &Service) {
        must(self.world.manifests.write(&service.file(), &service.manifest()));
    }

    /// Writes a Service's EndpointSlices.
    ///
    /// # Panics
    /// If they cannot be written.
    #[track_caller]
    pub fn announce_slices(&self, service: &Service) {
        must(self.world.manifests.write(&service.slices_file(), &service.slices()));
    }

    /// Translates these Services and no others, and makes their backends answer.
    ///
    /// # Panics
    /// If nftables refuses.
    #[track_caller]
    pub fn translate(&mut self, services: &[Service]) {
        services.iter().for_each(|service| self.serve(service));
        self.proxy.services = services.to_vec();
        must(self.proxy.apply(&self.world.lab));
    }

    /// Makes a Service's backends answer.
    ///
    /// # Panics
    /// If one cannot.
    #[track_caller]
    pub fn serve(&self, service: &Service) {
        for backend in &service.backends {
            for address in &backend.addresses {
                for port in &service.ports {
                    let place = backend.place_of(*address);
                    let v6 = address.is_ipv6();
                    must(self.world.lab.answer(&place, v6, backend.port, port.protocol));
                }
            }
        }
    }

    /// Sends `count` probes like this one, and fails unless each that the node translated to a
    /// backend of `open` was answered, and each other got nowhere: not even to its backend.
    ///
    /// # Panics
    /// If one is judged wrongly, or no backend of the Service was chosen.
    #[track_caller]
    pub fn judge(&self, like: &Probe, service: &Service, open: &[Backend], count: u16) {
        let closed: Vec<&Backend> =
            service.backends.iter().filter(|one| !open.contains(one)).collect();
        let witnesses: Vec<Witness<'_>> = closed
            .iter()
            .flat_map(|backend| backend.addresses.iter().map(|ip| (*backend, *ip)))
            .map(|(backend, address)| Witness::place(&self.world.lab, backend, address))
            .collect();
        let first = self.next_port.fetch_add(count, Ordering::Relaxed);
        let mut probe = like.clone();
        probe.patience = PATIENCE;
        let probes: Vec<Probe> =
            (first..first + count).map(|port| probe.clone().from_port(port)).collect();
        let mut wrong = Vec::new();
        for some in probes.chunks(AT_ONCE) {
            let outcomes = must(self.world.lab.probe(some));
            let chosen = must(Proxy::chosen(&self.world.lab));
            let got = |backend: &Backend, port: u16| {
                let key = Proxy::key(backend, like.v6);
                chosen.get(&key).is_some_and(|ports| ports.contains(&port))
            };
            for (probe, outcome) in some.iter().zip(outcomes) {
                let port = probe.source_port;
                let backend = service.backends.iter().find(|backend| got(backend, port));
                let expected = backend.is_some_and(|backend| open.contains(backend));
                let right = outcome.is_open() == expected
                    && (outcome.is_open() || outcome == Outcome::NoAnswer);
                if !right {
                    let to = backend.map_or_else(|| "nobody".into(), |one| one.place.to_string());
                    wrong.push(format!("{probe} from port {port}, translated to {to}: {outcome}"));
                }
            }
        }
        let mode = self.world.lab.mode().name();
        let of = probes.len();
        let some = wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "{mode}: {} of {of} are wrong:\n{some}", wrong.len());
        for witness in witnesses {
            let arrived = witness.arrived();
            assert_eq!(arrived, 0, "{mode}: packets at {}", witness.address);
        }
    }

    /// Sends one probe like this, and tells how many packets got to the backend, answered or not.
    ///
    /// # Panics
    /// If nothing can be sent or counted.
    #[must_use]
    #[track_caller]
    pub fn arrived(&self, probe: &Probe, backend: &Backend) -> u64 {
        let witness = self.witness(backend, probe.v6);
        must(self.world.lab.probe_one(probe));
        witness.arrived()
    }

    #[track_caller]
    fn witness<'a>(&'a self, backend: &Backend, v6: bool) -> Witness<'a> {
        let address = backend.addresses.iter().find(|ip| ip.is_ipv6() == v6);
        Witness::place(
            &self.world.lab,
            backend,
            *address.expect("the backend has an address of the family"),
        )
    }

    /// A probe of a Service's port 80 by the client.
    ///
    /// # Panics
    /// If the Service has no address of the family.
    #[must_use]
    #[track_caller]
    pub fn ask(service: &Service, v6: bool, protocol: Protocol) -> Probe {
        Probe::new(Place::pod("shop/client"), service.place(v6), 80, protocol)
    }

    /// Probes of a Service's port 80 by the client: TCP and UDP, both families.
    ///
    /// # Panics
    /// If the Service lacks an address of a family.
    #[must_use]
    #[track_caller]
    pub fn ask_all(service: &Service) -> [Probe; 4] {
        let ask = |v6, protocol| Self::ask(service, v6, protocol);
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        [ask(false, tcp), ask(true, tcp), ask(false, udp), ask(true, udp)]
    }

    /// Fails unless [`Self::ask_all`] of each Service has this outcome.
    ///
    /// # Panics
    /// If one has not.
    #[track_caller]
    pub fn expect(&self, services: &[(&Service, bool)]) {
        let probes: Vec<(Probe, bool)> = services
            .iter()
            .flat_map(|(service, open)| Self::ask_all(service).map(|probe| (probe, *open)))
            .collect();
        self.world.expect(&probes);
    }

    /// A connection of the client to a Service that policy must allow.
    ///
    /// # Panics
    /// If nobody answers.
    #[must_use]
    #[track_caller]
    pub fn connect(&self, service: &Service, v6: bool) -> Connection {
        let client = Place::pod("shop/client");
        let connection = must(self.world.lab.connect(&client, &service.place(v6), 80, v6));
        connection.unwrap_or_else(|| panic!("{}: no answer", service.name))
    }

    /// The same in permanent use.
    ///
    /// # Panics
    /// If nothing comes back.
    #[must_use]
    #[track_caller]
    pub fn beat(&self, service: &Service) -> Heartbeat {
        let mut connection = self.connect(service, false);
        assert!(connection.echo(Duration::from_secs(1)), "{}: no echo", service.name);
        connection.beat()
    }

    /// A port that no probe of this world was sent from.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    /// What the agent tells of this reason, once a line of it has all these words.
    ///
    /// # Panics
    /// If there is none within five seconds.
    #[track_caller]
    pub fn told(&self, reason: &str, words: &[&str]) -> String {
        self.told_of(&[], &[&[&*format!("[{reason}]")], words].concat())
    }

    /// The same by any filter of `enforcer observe`.
    ///
    /// # Panics
    /// If there is none within five seconds.
    #[track_caller]
    pub fn told_of(&self, filter: &[&str], words: &[&str]) -> String {
        let deadline = Instant::now() + Duration::from_secs(5);
        let asked = [&["observe", "--all", "-o", "json"][..], filter].concat();
        loop {
            let flows = must(self.world.agent.ask(&asked));
            let flows = flows.lines().map(story).collect::<Vec<_>>().join("\n");
            if flows.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return flows;
            }
            if Instant::now() > deadline {
                let all = must(self.world.agent.ask(&["observe", "--last", "30"]));
                panic!("{filter:?}: no {words:?}:\n{flows}\nthe last of all:\n{all}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A flow in a line: who to whom, by which Service, which way, the verdict, who allowed it, its
/// reason.
fn story(line: &str) -> String {
    let flow: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
    let flow = &flow["flow"];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let side = |end: &str| {
        let pod = &flow[end];
        let name = match text(&pod["pod_name"]).as_str() {
            "" => text(&flow["IP"][end]),
            name => format!("{}/{name}", text(&pod["namespace"])),
        };
        let l4 = flow["l4"].as_object().and_then(|l4| l4.values().next());
        let port = l4.and_then(|l4| l4[format!("{end}_port")].as_u64());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let service = &flow[format!("{end}_service")];
        let service = service.as_object().map(|service| {
            format!(" (service {}/{})", text(&service["namespace"]), text(&service["name"]))
        });
        format!("{name}{port}{}", service.unwrap_or_default())
    };
    let by = ["egress_allowed_by", "ingress_allowed_by"].iter().find_map(|by| {
        let policy = flow[*by].get(0)?;
        Some(format!(" BY {}/{}", text(&policy["namespace"]), text(&policy["name"])))
    });
    let verdict = match text(&flow["verdict"]).as_str() {
        "FORWARDED" => format!("ALLOWED{}", by.unwrap_or_default()),
        "DROPPED" => "DENIED".to_owned(),
        other => other.to_owned(),
    };
    format!(
        "{} -> {} {} {verdict} [{}]",
        side("source"),
        side("destination"),
        text(&flow["traffic_direction"]),
        text(&flow["extensions"]["value"]["reason"]),
    )
}
