//! A flow of datagrams in permanent use, from one port: it shows when its answers stopped.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Lab, LabError, Place};

/// How long each datagram waits for an answer, and so between two of them while none comes.
const PACE: Duration = Duration::from_millis(10);

/// Datagrams one after the other to a place that sends back what it gets. It ends when this is
/// dropped.
#[derive(Debug)]
pub struct Datagrams {
    stop: Arc<AtomicBool>,
    /// When the last answer came; `None` before the first.
    last: Arc<Mutex<Option<Instant>>>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    /// Sends datagrams from that source port from now on.
    ///
    /// # Errors
    /// If a place does not exist or a socket cannot be made.
    pub fn datagrams(
        &self,
        from: (&Place, u16),
        to: (&Place, u16),
        v6: bool,
    ) -> Result<Datagrams, LabError> {
        let remote = self.answer(to.0, v6, to.1, crate::Protocol::Udp)?;
        let (netns, local) = self.locate(from.0, v6)?;
        let open = || {
            let socket = UdpSocket::bind(SocketAddr::new(local, from.1))?;
            socket.connect(remote)?;
            socket.set_read_timeout(Some(PACE)).map(|()| socket)
        };
        let socket = netns
            .run(open)?
            .map_err(LabError::io(format!("send datagrams from {} to {}", from.0, to.0)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let last = Arc::new(Mutex::new(None));
        let thread = thread::spawn({
            let (stop, last) = (Arc::clone(&stop), Arc::clone(&last));
            move || exchange(&socket, &stop, &last)
        });
        Ok(Datagrams { stop, last, thread: Some(thread) })
    }
}

fn exchange(socket: &UdpSocket, stop: &AtomicBool, last: &Mutex<Option<Instant>>) {
    let mut number = 0_u64;
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        // An error is told of an earlier datagram; the next one is sent all the same.
        socket.send(&number.to_be_bytes()).ok();
        // Late answers to earlier ones are passed over, or all that follow would be late, too.
        while let Ok(length) = socket.recv(&mut buffer) {
            if buffer.get(..length) == Some(&number.to_be_bytes()[..]) {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                break;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

impl Datagrams {
    /// Whether an answer to what is sent from now on comes within `patience`.
    #[must_use]
    pub fn answered(&self, patience: Duration) -> bool {
        // The one that is under way does not count.
        let since = Instant::now() + PACE;
        let deadline = since + patience;
        while Instant::now() < deadline {
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last > since) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether no answer comes for `silence` any more, before `patience` is over.
    #[must_use]
    pub fn stopped(&self, silence: Duration, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !self.answered(silence) {
                return true;
            }
        }
        false
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
