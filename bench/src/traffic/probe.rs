//! Whether a variant does what it is measured for: what the policy allows passes, and each of the
//! four places, both pods in both directions, drops what it does not.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    panic::resume_unwind,
    thread,
    time::Duration,
};

use enforcer_tests::{Lab, LabError, Netns};

use super::{
    error::TrafficError,
    policy::{CLIENT, Policy, SERVER},
};

/// Who has no answer by then has none: there is nothing between the two ends but this machine.
const SILENCE: Duration = Duration::from_millis(400);
/// An answer that must come may take so long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// By the other end, where nobody listens: the packet passed.
    Refused,
    Silent,
}

impl Outcome {
    /// How long to wait where this is to come.
    const fn within(self) -> Duration {
        match self {
            Self::Silent => SILENCE,
            Self::Answered | Self::Refused => PATIENCE,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "passed on",
            Self::Silent => "dropped",
        }
    }
}

/// A connection that is tried: what it is, from where, to where.
type Probe<'a> = (&'static str, &'a Netns, SocketAddr);

/// Tries connections of each kind.
pub(crate) fn check(
    variant: &str,
    enforces: bool,
    lab: &Lab,
    policy: Policy,
) -> Result<(), TrafficError> {
    let [client, server] = ["bench/client", "bench/server"].map(|pod| lab.pod(pod));
    let (client, server) = (client?.netns(), server?.netns());
    let to = |address: IpAddr, port| SocketAddr::new(address, port);
    let open = policy.last_port();
    let wanted = if enforces { Outcome::Silent } else { Outcome::Refused };
    let denied: [Probe<'_>; 5] = [
        ("a connection to a denied port", client, to(SERVER.into(), policy.denied_port())),
        ("a connection of the client to no peer", client, to(lab.router_address(false), open)),
        ("a connection of no peer to the server", lab.outside(), to(SERVER.into(), open)),
        ("a connection of the server to no peer", server, to(lab.router_address(false), open)),
        ("a connection of no peer to the client", lab.outside(), to(CLIENT.into(), open)),
    ];
    let outcomes = thread::scope(|scope| {
        let tries =
            denied.map(|(_, from, to)| scope.spawn(move || from.run(|| attempt(to, wanted))));
        tries.map(|each| each.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    for ((probe, ..), outcome) in denied.into_iter().zip(outcomes) {
        expect(variant, probe, wanted, outcome?)?;
    }
    let listener = server
        .run(|| TcpListener::bind((SERVER, open)))?
        .map_err(|source| LabError::Io { operation: "listen for a probe".into(), source })?;
    let outcome = client.run(|| attempt(to(SERVER.into(), open), Outcome::Answered))?;
    drop(listener);
    expect(variant, "an allowed connection", Outcome::Answered, outcome)
}

fn expect(
    variant: &str,
    probe: &'static str,
    wanted: Outcome,
    found: io::Result<Outcome>,
) -> Result<(), TrafficError> {
    let found =
        found.map_err(|source| LabError::Io { operation: format!("try {probe}"), source })?;
    if found == wanted {
        return Ok(());
    }
    let (variant, wanted, found) = (variant.to_owned(), wanted.name(), found.name());
    Err(TrafficError::NotInForce { variant, probe, wanted, found })
}

fn attempt(to: SocketAddr, wanted: Outcome) -> io::Result<Outcome> {
    match TcpStream::connect_timeout(&to, wanted.within()) {
        Ok(_) => Ok(Outcome::Answered),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Ok(Outcome::Refused),
            ErrorKind::TimedOut => Ok(Outcome::Silent),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use enforcer_tests::Mode;

    use super::*;

    #[test]
    fn an_open_node_is_not_taken_for_one_that_enforces() {
        let policy = Policy { peers: 2, rules: 1, datagrams: false };
        let mut lab = Lab::new(Mode::PointToPoint).unwrap();
        lab.add_pods(&Policy::pods()).unwrap();
        check("open", false, &lab, policy).unwrap();
        let error = check("open", true, &lab, policy).unwrap_err();
        assert!(matches!(error, TrafficError::NotInForce { found: "passed on", .. }), "{error}");
    }
}
