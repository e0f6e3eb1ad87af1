//! The way between two pods that a change opens and closes: a datagram every half millisecond, and
//! when the last one came.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const PORT: u16 = 7777;
/// Between two datagrams: what a sample can be wrong by.
pub(super) const STEP: Duration = Duration::from_micros(500);

/// When the last datagram came, as seen by the receiver.
#[derive(Debug)]
pub(super) struct Way {
    last: Mutex<Instant>,
    /// Ends all that is sent and received.
    pub(super) end: AtomicBool,
}

impl Way {
    pub(super) fn new() -> Self {
        Self { last: Mutex::new(Instant::now()), end: AtomicBool::new(false) }
    }

    pub(super) fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The receiving pod's part, until the end.
    pub(super) fn receive(&self, at: IpAddr) -> io::Result<()> {
        let socket = UdpSocket::bind((at, PORT))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut buffer = [0; 16];
        while !self.end.load(Ordering::Relaxed) {
            if socket.recv(&mut buffer).is_ok() {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
        }
        Ok(())
    }

    /// The sending pod's part, until the end.
    pub(super) fn send(&self, to: IpAddr) -> io::Result<()> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect((to, PORT))?;
        while !self.end.load(Ordering::Relaxed) {
            // Refused while nobody listens yet.
            let _refused = socket.send(b"tick");
            thread::sleep(STEP);
        }
        Ok(())
    }
}
