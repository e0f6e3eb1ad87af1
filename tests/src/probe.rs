//! Whether one place reaches another: real sockets, many at once.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::{Lab, LabError, sockets};

/// How long a probe waits that is expected to get no answer.
const PATIENCE_CLOSED: Duration = Duration::from_millis(400);
/// How long a probe waits that is expected to get one: TCP's first retransmission comes after 1 s.
const PATIENCE_OPEN: Duration = Duration::from_secs(3);
/// Sockets that are open at once; each answering side needs one as well.
const AT_ONCE: usize = 200;

/// Where a probe starts or ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A pod, `namespace/name`.
    Pod(String),
    /// The node, by its first address.
    Node,
    /// The node, by another of its addresses.
    NodeAddress(IpAddr),
    /// An address outside.
    Outside(IpAddr),
    /// An address that is nobody's, or on which nobody listens: a Service's, a node port's.
    Virtual(IpAddr),
}

impl Place {
    /// A pod by `namespace/name`.
    #[must_use]
    pub fn pod(name: &str) -> Self {
        Self::Pod(name.to_owned())
    }

    /// An address outside; must be one.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn outside(address: &str) -> Self {
        Self::Outside(address.parse().expect("an IP address"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => f.write_str(name),
            Self::Node => f.write_str("the node"),
            Self::NodeAddress(ip) => write!(f, "the node ({ip})"),
            Self::Outside(ip) => ip.fmt(f),
            Self::Virtual(ip) => write!(f, "virtual {ip}"),
        }
    }
}

/// Transport protocol of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A question: does an answer come back?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who asks.
    pub from: Place,
    /// Who is asked.
    pub to: Place,
    /// Destination port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Over IPv6. A place outside and a virtual one decide by their address.
    pub v6: bool,
    /// Port to send from; 0 for any.
    pub source_port: u16,
    /// Bytes that are sent and must come back.
    pub payload: usize,
    /// How long to wait for the answer.
    pub patience: Duration,
}

impl Probe {
    /// A TCP probe over IPv4 between pods `namespace/name`.
    #[must_use]
    pub fn tcp(from: &str, to: &str, port: u16) -> Self {
        Self::new(Place::pod(from), Place::pod(to), port, Protocol::Tcp)
    }

    /// A UDP probe over IPv4 between pods `namespace/name`.
    #[must_use]
    pub fn udp(from: &str, to: &str, port: u16) -> Self {
        Self::new(Place::pod(from), Place::pod(to), port, Protocol::Udp)
    }

    /// A probe over IPv4, or over the family of the address outside.
    #[must_use]
    pub fn new(from: Place, to: Place, port: u16, protocol: Protocol) -> Self {
        let v6 = [&from, &to]
            .into_iter()
            .any(|place| matches!(place, Place::Outside(ip) | Place::Virtual(ip) if ip.is_ipv6()));
        let patience = PATIENCE_CLOSED;
        Self { from, to, port, protocol, v6, source_port: 0, payload: 16, patience }
    }

    /// The same over IPv6.
    #[must_use]
    pub fn v6(mut self) -> Self {
        self.v6 = true;
        self
    }

    /// The same from this port.
    #[must_use]
    pub fn from_port(mut self, source_port: u16) -> Self {
        self.source_port = source_port;
        self
    }

    /// The same with so many bytes.
    #[must_use]
    pub fn bytes(mut self, payload: usize) -> Self {
        self.payload = payload;
        self
    }

    /// The same with the patience that fits the expected outcome: nobody need wait for what is to
    /// be silent, and nothing that is open is to look closed on a busy machine.
    #[must_use]
    pub fn expecting(mut self, open: bool) -> Self {
        self.patience = if open { PATIENCE_OPEN } else { PATIENCE_CLOSED };
        self
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, port, protocol, v6, source_port: _, payload: _, patience: _ } = self;
        write!(f, "{from} -> {to} {protocol} {port}")?;
        if *v6 { f.write_str(" over IPv6") } else { Ok(()) }
    }
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer came.
    Open,
    /// No answer in time.
    NoAnswer,
    /// The other side, or a router, said no.
    Refused(String),
}

impl Outcome {
    /// Whether the answer came.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::Refused(reason) => write!(f, "refused ({reason})"),
        }
    }
}

enum Socket {
    Tcp { stream: TcpStream, sent: bool },
    Udp { socket: UdpSocket, again: Instant },
}

struct Running<'a> {
    index: usize,
    probe: &'a Probe,
    socket: Socket,
    received: Vec<u8>,
    deadline: Instant,
}

impl Lab {
    /// Runs all probes, many at once; the outcomes are in the order of the probes. The asked side
    /// is made to answer first.
    ///
    /// # Errors
    /// If a place does not exist or a socket cannot be made.
    pub fn probe(&self, probes: &[Probe]) -> Result<Vec<Outcome>, LabError> {
        let mut outcomes = vec![Outcome::NoAnswer; probes.len()];
        let indexed: Vec<(usize, &Probe)> = probes.iter().enumerate().collect();
        for some in indexed.chunks(AT_ONCE) {
            self.run_some(some, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// Runs one probe.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub fn probe_one(&self, probe: &Probe) -> Result<Outcome, LabError> {
        let outcomes = self.probe(std::slice::from_ref(probe))?;
        Ok(outcomes.into_iter().next().unwrap_or(Outcome::NoAnswer))
    }

    /// Fires short probes one after the other until one is open; how long that took from `since`,
    /// or `None` after `patience`.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub fn time_until_open(
        &self,
        probe: &Probe,
        since: Instant,
        patience: Duration,
    ) -> Result<Option<Duration>, LabError> {
        let mut probe = probe.clone();
        // Short, for that is how exact the result is; then longer, for a busy machine.
        probe.patience = Duration::from_millis(3);
        while since.elapsed() < patience {
            if self.probe_one(&probe)?.is_open() {
                return Ok(Some(since.elapsed()));
            }
            probe.patience = (probe.patience * 21 / 20).min(Duration::from_millis(200));
        }
        Ok(None)
    }

    fn run_some(
        &self,
        probes: &[(usize, &Probe)],
        outcomes: &mut [Outcome],
    ) -> Result<(), LabError> {
        // By namespace, so that each is entered once.
        let mut starts: BTreeMap<&str, Vec<(usize, &Probe, SocketAddr, SocketAddr)>> =
            BTreeMap::new();
        for (index, probe) in probes {
            let remote = self.answer(&probe.to, probe.v6, probe.port, probe.protocol)?;
            let (netns, local) = self.locate(&probe.from, probe.v6)?;
            let local = SocketAddr::new(local, probe.source_port);
            starts.entry(netns.name()).or_default().push((*index, probe, local, remote));
        }
        let mut running = Vec::new();
        for some in starts.values() {
            let Some((_, first, _, _)) = some.first() else { continue };
            let (netns, _) = self.locate(&first.from, first.v6)?;
            let started = netns.run(|| {
                some.iter()
                    .map(|(index, probe, local, remote)| {
                        (*index, start(*index, probe, *local, *remote))
                    })
                    .collect::<Vec<_>>()
            })?;
            for (index, result) in started {
                match result {
                    Ok(probe) => running.push(probe),
                    Err(error) => outcomes[index] = Outcome::Refused(error.to_string()),
                }
            }
        }
        drive(running, outcomes);
        Ok(())
    }
}

fn start(
    index: usize,
    probe: &Probe,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<Running<'_>> {
    let now = Instant::now();
    let socket = match probe.protocol {
        Protocol::Tcp => Socket::Tcp { stream: sockets::start_tcp(local, remote)?, sent: false },
        Protocol::Udp => {
            let socket = sockets::start_udp(local, remote)?;
            socket.send(&payload(index, probe))?;
            Socket::Udp { socket, again: now + probe.patience / 2 }
        }
    };
    Ok(Running { index, probe, socket, received: Vec::new(), deadline: now + probe.patience })
}

/// Bytes that no other probe sends.
fn payload(index: usize, probe: &Probe) -> Vec<u8> {
    let port = probe.port.to_be_bytes();
    let index = index.to_be_bytes();
    port.into_iter().chain(index).cycle().take(probe.payload).collect()
}

/// Drives all probes to their end.
fn drive(mut running: Vec<Running<'_>>, outcomes: &mut [Outcome]) {
    while !running.is_empty() {
        let now = Instant::now();
        let mut next = now + Duration::from_millis(100);
        for probe in &running {
            next = next.min(probe.deadline);
            if let Socket::Udp { again, .. } = &probe.socket {
                next = next.min((*again).max(now + Duration::from_millis(1)));
            }
        }
        let wait = u16::try_from((next - now).as_millis() + 1).unwrap_or(100);
        let mut fds: Vec<PollFd<'_>> = running
            .iter()
            .map(|probe| match &probe.socket {
                Socket::Tcp { stream, sent: false } => {
                    PollFd::new(stream.as_fd(), PollFlags::POLLOUT)
                }
                Socket::Tcp { stream, sent: true } => {
                    PollFd::new(stream.as_fd(), PollFlags::POLLIN)
                }
                Socket::Udp { socket, .. } => PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            })
            .collect();
        // An interrupted wait is a short one.
        poll(&mut fds, PollTimeout::from(wait)).ok();
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let mut ready = ready.into_iter();
        running.retain_mut(|probe| {
            let ready = ready.next().unwrap_or(false);
            match probe.step(ready) {
                None => true,
                Some(outcome) => {
                    outcomes[probe.index] = outcome;
                    false
                }
            }
        });
    }
}

impl Running<'_> {
    /// Goes on; the outcome, if there is one.
    fn step(&mut self, ready: bool) -> Option<Outcome> {
        let sent = payload(self.index, self.probe);
        let result = if ready { self.advance(&sent) } else { Ok(()) };
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Some(Outcome::Refused(error.to_string())),
            Ok(()) => {}
        }
        if self.received.len() >= sent.len() {
            let same = self.received == sent;
            return Some(if same { Outcome::Open } else { Outcome::Refused("other data".into()) });
        }
        let now = Instant::now();
        if now >= self.deadline {
            return Some(Outcome::NoAnswer);
        }
        if let Socket::Udp { socket, again } = &mut self.socket
            && now >= *again
        {
            // Once: the first may have been lost while the address was being resolved.
            *again = self.deadline;
            socket.send(&sent).ok();
        }
        None
    }

    fn advance(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; payload.len() + 1];
        match &mut self.socket {
            Socket::Tcp { stream, sent } if !*sent => {
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                stream.write_all(payload)?;
                *sent = true;
            }
            Socket::Tcp { stream, .. } => match stream.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => self.received.extend_from_slice(&buffer[..length]),
            },
            Socket::Udp { socket, .. } => {
                let length = socket.recv(&mut buffer)?;
                self.received = buffer[..length].to_vec();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_tell_probes_apart() {
        let probe = Probe::tcp("a/b", "a/c", 80);
        assert_ne!(payload(0, &probe), payload(1, &probe));
        assert_eq!(payload(0, &probe.bytes(5000)).len(), 5000);
    }

    #[test]
    fn an_address_outside_decides_the_family() {
        let probe =
            Probe::new(Place::pod("a/b"), Place::outside("2001:db8::50"), 443, Protocol::Tcp);
        assert!(probe.v6);
        assert_eq!(probe.to_string(), "a/b -> 2001:db8::50 TCP 443 over IPv6");
    }
}
