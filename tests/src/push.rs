//! A server that speaks without being asked: the other direction of a connection.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Lab, LabError, Place};

/// Bytes of a message: a segment.
const MESSAGE: usize = 1000;
/// Between two messages.
const PAUSE: Duration = Duration::from_millis(2);

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct Push {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    /// Makes a place listen at that TCP port, and send to all who connect.
    ///
    /// # Errors
    /// If there is no such place, or the port is taken.
    pub fn push(&self, place: &Place, v6: bool, port: u16) -> Result<Push, LabError> {
        let (netns, ip) = self.locate(place, v6)?;
        let address = SocketAddr::new(ip, port);
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true).map(|()| listener)
        };
        let listener = netns.run(listen)?.map_err(LabError::io(format!("listen at {address}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut streams: Vec<TcpStream> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept()
                    && stream.set_nonblocking(true).and(stream.set_nodelay(true)).is_ok()
                {
                    streams.push(stream);
                }
                for stream in &mut streams {
                    // A full buffer is no end: the other side may hear again later.
                    stream.write_all(&[0; MESSAGE]).ok();
                }
                thread::sleep(PAUSE);
            }
        });
        Ok(Push { stop, thread: Some(thread) })
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
