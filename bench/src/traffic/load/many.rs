//! Many connections, a request on each in turn: what is remembered of a connection has left the
//! processor's caches when its turn comes again.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use enforcer_tests::LabError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Ends, MESSAGE, Turn, accept, connect, meter::Meter};

/// Connections, each with two sockets.
const CONNECTIONS: usize = 1_000;
/// Files that this process may need to have open.
const FILES: u64 = 2 * CONNECTIONS as u64 + 1_000;

pub(super) fn turn(ends: &Ends<'_>, time: Duration) -> Result<Turn, LabError> {
    let listener = ends.listen()?;
    ends.alone(move || {
        make_room()?;
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            connections.push((connect(ends.address)?, accept(&listener)?));
        }
        connections.iter_mut().try_for_each(pass)?;
        let mut passed = 0.0;
        let meter = Meter::start(time)?;
        while meter.goes_on() {
            connections.iter_mut().try_for_each(pass)?;
            passed += CONNECTIONS as f64;
        }
        meter.stop(passed)
    })
}

/// A request and its answer, by the thread that has both ends.
fn pass((near, far): &mut (TcpStream, TcpStream)) -> io::Result<()> {
    let mut message = [1; MESSAGE];
    near.write_all(&message)?;
    far.read_exact(&mut message)?;
    far.write_all(&message)?;
    near.read_exact(&mut message)
}

/// Raises the limit of open files, which is often 1,024.
fn make_room() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < FILES {
        setrlimit(Resource::RLIMIT_NOFILE, FILES.min(hard), hard)?;
    }
    Ok(())
}
