//! Connections between pods, and what became of them.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    thread,
};

use enforcer_cluster::Families;
use serde_json::Value;

use crate::{namespace::Pod, world::World};

/// What a client's tries came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tries {
    /// Tries that were answered.
    pub(crate) ok: u64,
    /// Tries that were not.
    pub(crate) failed: u64,
    /// How long the slowest answer took, in milliseconds.
    pub(crate) slowest: f64,
    /// The lines about single tries.
    pub(crate) lines: Vec<Value>,
}

impl Tries {
    /// Reads what the client has written.
    pub(crate) fn read(output: &str) -> Self {
        let mut tries = Self::default();
        let mut is_whole = false;
        for line in output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if line["summary"] == true {
                is_whole = true;
                tries.ok = line["ok"].as_u64().unwrap();
                tries.failed = line["failed"].as_u64().unwrap();
                tries.slowest = line["max_ms"].as_f64().unwrap();
            } else {
                tries.lines.push(line);
            }
        }
        assert!(is_whole, "the client has not come to its end: {output}");
        tries
    }
}

/// What a policy says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It comes about.
    Allowed,
    /// Its packets are dropped.
    Denied,
}

use Verdict::{Allowed, Denied};

/// A connection that is tried, in every address family that the pods have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'a> {
    from: &'a Pod,
    to: &'a Pod,
    port: u16,
    is_udp: bool,
    expected: Verdict,
}

impl<'a> Probe<'a> {
    /// TCP to a pod's port.
    pub(crate) fn tcp(from: &'a Pod, to: &'a Pod, port: u16, expected: Verdict) -> Self {
        Self { from, to, port, is_udp: false, expected }
    }

    /// UDP to a pod's port.
    pub(crate) fn udp(from: &'a Pod, to: &'a Pod, port: u16, expected: Verdict) -> Self {
        Self { is_udp: true, ..Self::tcp(from, to, port, expected) }
    }

    fn targets(&self) -> impl Iterator<Item = SocketAddr> {
        self.to.addresses.iter().map(|address| SocketAddr::new(*address, self.port))
    }

    fn outcome(&self, world: &World, target: SocketAddr) -> Result<Verdict, String> {
        let target = target.to_string();
        // On a busy machine an answer takes long; that there is none is known after a retransmission.
        let timeout = if self.expected == Allowed { "8" } else { "1.5" };
        let mut words = vec!["/workload", "connect", &target, "--for", "0.1", "--timeout", timeout];
        if self.is_udp {
            words.push("--udp");
        }
        let (_, out, errors) = world.exec(&self.from.container, &words);
        let tries = Tries::read(&(out + &errors));
        if tries.ok > 0 {
            return Ok(Allowed);
        }
        // One that is refused has got through: nobody listens there.
        let error = tries.lines.iter().filter_map(|line| line["error"].as_str()).next_back();
        match error {
            Some(error) if error.contains("timed out") || error.contains("unavailable") => {
                Ok(Denied)
            }
            other => Err(other.unwrap_or("no try").to_owned()),
        }
    }
}

impl World {
    /// Tries all connections at once; ends the test if one comes out otherwise than expected.
    pub(crate) fn expect(&self, when: &str, probes: &[Probe<'_>]) {
        let tries: Vec<_> = probes
            .iter()
            .flat_map(|probe| probe.targets().map(move |target| (probe, target)))
            .collect();
        let families = if self.cluster.options().families == Families::Dual { 2 } else { 1 };
        assert_eq!(tries.len(), probes.len() * families, "{when}: an address is missing");
        let outcomes: Vec<_> = thread::scope(|scope| {
            let started: Vec<_> = tries
                .iter()
                .map(|(probe, target)| scope.spawn(|| probe.outcome(self, *target)))
                .collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let wrong: Vec<String> = tries
            .iter()
            .zip(outcomes)
            .filter(|((probe, _), outcome)| *outcome != Ok(probe.expected))
            .map(|((probe, target), outcome)| {
                let Probe { from, to, is_udp, expected, .. } = probe;
                let protocol = if *is_udp { "UDP" } else { "TCP" };
                let names = format!("{} to {}", from.name, to.name);
                format!("{names} ({target}) by {protocol}: {outcome:?}, not {expected:?}")
            })
            .collect();
        assert!(wrong.is_empty(), "{when}:\n  {}", wrong.join("\n  "));
    }

    /// Starts a client in a pod that goes on until it is told to end.
    pub(crate) fn start_client(&self, from: &Pod, to: &Pod, port: u16, flags: &[&str]) -> Client {
        let target = to.port(port).to_string();
        let words = [&["/workload", "connect", &target, "--until-eof"], flags].concat();
        let mut command = self.command(&from.container, &words);
        Client(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }
}

/// A client that goes on.
#[derive(Debug)]
pub(crate) struct Client(Child);

impl Client {
    /// Ends it and counts.
    pub(crate) fn end(self) -> Tries {
        let Self(mut process) = self;
        drop(process.stdin.take());
        let output = process.wait_with_output().unwrap();
        Tries::read(&String::from_utf8_lossy(&output.stdout))
    }
}
