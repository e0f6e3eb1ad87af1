//! Connections that live: one message now, or a heartbeat that shows when a connection stopped.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};

use crate::{Lab, LabError, Place, Protocol, sockets};

/// Where `struct tcp_info` (linux/tcp.h) has `tcpi_total_retrans`.
const TOTAL_RETRANS: usize = 100;
/// Where it has `tcpi_dsack_dups`.
const DSACK_DUPS: usize = 216;

/// A TCP connection to a place that sends back what it gets.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Messages sent; each carries its number.
    sent: u64,
}

impl Lab {
    /// Opens a connection, or `None` if no answer comes within a second and a half.
    ///
    /// # Errors
    /// If a place does not exist or a socket cannot be made.
    pub fn connect(
        &self,
        from: &Place,
        to: &Place,
        port: u16,
        v6: bool,
    ) -> Result<Option<Connection>, LabError> {
        self.connect_from((from, 0), to, port, v6)
    }

    /// The same from this port of the place; 0 for any.
    ///
    /// # Errors
    /// If a place does not exist or a socket cannot be made.
    pub fn connect_from(
        &self,
        (from, local_port): (&Place, u16),
        to: &Place,
        port: u16,
        v6: bool,
    ) -> Result<Option<Connection>, LabError> {
        let remote = self.answer(to, v6, port, Protocol::Tcp)?;
        let (netns, local) = self.locate(from, v6)?;
        let stream = netns
            .run(|| sockets::start_tcp(SocketAddr::new(local, local_port), remote))?
            .map_err(LabError::io(format!("connect from {from} to {to}")))?;
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::from(1500_u16))
            .map_err(|errno| LabError::io("wait for a connection")(errno.into()))?;
        let connected = fds[0].any().unwrap_or(false)
            && matches!(stream.take_error(), Ok(None))
            && stream.peer_addr().is_ok();
        if !connected {
            return Ok(None);
        }
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_nodelay(true))
            .map_err(LabError::io("set up a connection"))?;
        Ok(Some(Connection { stream, sent: 0 }))
    }
}

impl Connection {
    /// Ends the connection at once, by a reset: its port is free for the next one.
    ///
    /// # Errors
    /// If the socket cannot be set up for that.
    pub fn reset(self) -> Result<(), LabError> {
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self.stream, sockopt::Linger, &at_once)
            .map_err(|errno| LabError::io("reset a connection")(errno.into()))
    }

    /// Sends a message and waits for it to come back; false if it does not in time. Answers to
    /// earlier messages that come late are passed over.
    pub fn echo(&mut self, patience: Duration) -> bool {
        self.sent += 1;
        if self.stream.write_all(&self.sent.to_be_bytes()).is_err() {
            return false;
        }
        let deadline = Instant::now() + patience;
        let mut number = [0; 8];
        let mut filled = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                // A half-read number would put the next one out of step.
                return false;
            }
            match self.stream.read(&mut number[filled..]) {
                Ok(0) | Err(_) => return false,
                Ok(length) => filled += length,
            }
            if filled == number.len() {
                if u64::from_be_bytes(number) == self.sent {
                    return true;
                }
                filled = 0;
            }
        }
    }

    /// Bytes that come within this time.
    pub fn receive_for(&mut self, time: Duration) -> usize {
        let deadline = Instant::now() + time;
        let mut buffer = vec![0; 65_536];
        let mut bytes = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return bytes;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return bytes,
                Ok(length) => bytes += length,
            }
        }
    }

    /// Segments that this side had to send again because they, or their acknowledgement, were lost;
    /// what TCP sent again for nothing (RFC 2883) on a busy machine does not count.
    #[must_use]
    pub fn lost_segments(&self) -> u32 {
        let mut info = [0; 256];
        let fd = self.stream.as_raw_fd();
        let length = sockets::option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).unwrap_or(0);
        let field = |offset: usize| match info.get(offset..offset + 4) {
            Some(&[a, b, c, d]) if offset + 4 <= length => u32::from_ne_bytes([a, b, c, d]),
            _ => 0,
        };
        field(TOTAL_RETRANS).saturating_sub(field(DSACK_DUPS))
    }

    /// Sends messages one after the other from now on.
    #[must_use]
    pub fn beat(self) -> Heartbeat {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            state: Mutex::new(State { last: Instant::now(), longest: Duration::ZERO, beats: 0 }),
        });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || beat(self, &shared)
        });
        Heartbeat { shared, thread: Some(thread) }
    }
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    last: Instant,
    longest: Duration,
    beats: u64,
}

impl Shared {
    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn beat(mut connection: Connection, shared: &Shared) -> Connection {
    while !shared.stop.load(Ordering::Relaxed) {
        // Short, so that a stop is noticed; a message that is late still counts when it comes.
        if connection.echo(Duration::from_millis(50)) {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            state.longest = state.longest.max(now - state.last);
            state.last = now;
            state.beats += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    connection
}

/// A connection in permanent use.
#[derive(Debug)]
pub struct Heartbeat {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Connection>>,
}

impl Heartbeat {
    /// When the last answer came.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.shared.state().last
    }

    /// Answers so far.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.shared.state().beats
    }

    /// The longest time between two answers.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        self.shared.state().longest
    }

    /// Waits until no answer has come for `silence`, and gives the time of the last one; `None` if
    /// the connection is still alive after `patience`.
    #[must_use]
    pub fn stopped(&self, silence: Duration, patience: Duration) -> Option<Instant> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let last = self.last();
            if last.elapsed() >= silence {
                return Some(last);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Ends the heartbeat and gives the connection back; `None` if its thread died.
    #[must_use]
    pub fn end(mut self) -> Option<Connection> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
