//! The load: what one pod sends to the other for a turn, counted by who sends. Both ends are threads
//! of this process.

mod connect;
mod datagrams;
mod many;
mod meter;
mod request;
mod stream;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    panic::resume_unwind,
    thread,
    time::Duration,
};

use enforcer_tests::{LabError, Netns};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::{TimeVal, TimeValLike as _},
};
use serde::Serialize;

pub(crate) use meter::Turn;

use super::cpu::{self, Processor};

/// What a request and its answer carry, and a datagram.
const MESSAGE: usize = 64;
/// Who hears nothing for so long gives up: something on the way was dropped.
const PATIENCE: Duration = Duration::from_secs(3);

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// One connection, as many bytes as go through.
    Stream,
    /// One connection, one request at a time.
    Request,
    /// A connection for each request, ended by FIN from both sides.
    Connect,
    /// Datagrams of one socket.
    Datagrams,
    /// Many connections, a request on each in turn.
    Many,
}

impl Load {
    /// What it is called.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Stream => "TCP stream",
            Self::Request => "TCP request/response",
            Self::Connect => "TCP connect/request/response",
            Self::Datagrams => "UDP datagrams",
            Self::Many => "TCP request/response on 1,000 connections",
        }
    }

    /// What is counted, and by which clock.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Stream => "Gbit per processor second",
            Self::Request | Self::Connect | Self::Many => "transactions per processor second",
            Self::Datagrams => "datagrams per processor second",
        }
    }

    /// One turn between these two ends.
    pub(crate) fn turn(self, ends: &Ends<'_>, time: Duration) -> Result<Turn, LabError> {
        let turn = match self {
            Self::Stream => stream::turn,
            Self::Request => request::turn,
            Self::Connect => connect::turn,
            Self::Datagrams => datagrams::turn,
            Self::Many => many::turn,
        };
        turn(ends, time)
    }
}

/// Between whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    pub(crate) client: &'a Netns,
    pub(crate) server: &'a Netns,
    /// Where the server listens.
    pub(crate) address: SocketAddr,
    /// Where the server runs; the client is on the last processor.
    pub(crate) server_on: Processor,
}

impl Ends<'_> {
    /// A listener in the server's namespace.
    fn listen(&self) -> Result<TcpListener, LabError> {
        let made = self.server.run(|| {
            let listener = TcpListener::bind(self.address)?;
            // It holds for accepting, too.
            setsockopt(&listener, ReceiveTimeout, &TimeVal::milliseconds(3_000))?;
            Ok(listener)
        })?;
        made.map_err(failed("listen"))
    }

    /// Runs both sides, each on a thread in its pod's namespace, and gives what the client measured.
    fn both(
        &self,
        server: impl FnOnce() -> io::Result<()> + Send,
        client: impl FnOnce() -> io::Result<Turn> + Send,
    ) -> Result<Turn, LabError> {
        thread::scope(|scope| {
            let far = scope
                .spawn(|| self.server.run(|| cpu::pin(self.server_on).and_then(|()| server())));
            let turn = self.client.run(|| cpu::pin(Processor::Last).and_then(|()| client()));
            let far = far.join().unwrap_or_else(|panic| resume_unwind(panic));
            // The client's complaint says more: where it gave up, the server did for want of it.
            let turn = turn?.map_err(failed("have the client measure"))?;
            far?.map_err(failed("have the server answer"))?;
            Ok(turn)
        })
    }

    /// Runs one thread that has sockets of both sides.
    fn alone(&self, work: impl FnOnce() -> io::Result<Turn> + Send) -> Result<Turn, LabError> {
        self.client
            .run(|| cpu::pin(Processor::Last).and_then(|()| work()))?
            .map_err(failed("measure"))
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> LabError {
    let operation = format!("{what}, so a packet of the load was lost or refused");
    move |source| LabError::Io { operation, source }
}

/// A connection to the server, from the calling thread's namespace.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    prepared(TcpStream::connect_timeout(&address, PATIENCE)?)
}

/// The next connection at the server.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    prepared(listener.accept()?.0)
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A request and its answer on a connection whose other end somebody else serves.
fn ask(stream: &mut TcpStream) -> io::Result<()> {
    let mut message = [1; MESSAGE];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)
}
