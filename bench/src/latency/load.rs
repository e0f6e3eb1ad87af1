//! What goes on beside the changes: one connection after the other, each with a question and an
//! answer, so that the programs judge, keep and tell new flows all the time.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const PORT: u16 = 7000;
/// Between two connections: a busy pod, and still some processor for everybody else.
const PAUSE: Duration = Duration::from_micros(200);
/// How long one step of a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections from one pod to another.
#[derive(Debug)]
pub(super) struct Load {
    target: SocketAddr,
    since: Instant,
    answered: AtomicU64,
}

impl Load {
    pub(super) fn to(address: IpAddr) -> Self {
        let target = SocketAddr::new(address, PORT);
        Self { target, since: Instant::now(), answered: AtomicU64::new(0) }
    }

    /// Connections a second so far.
    pub(super) fn rate(&self) -> f64 {
        self.answered.load(Ordering::Relaxed) as f64 / self.since.elapsed().as_secs_f64()
    }

    /// The called pod's part, until the end.
    pub(super) fn answer(&self, end: &AtomicBool) -> io::Result<()> {
        let listener = TcpListener::bind(self.target)?;
        listener.set_nonblocking(true)?;
        while !end.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    // The caller gives up together with the benchmark.
                    let _given_up = echo(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The calling pod's part, until the end. A connection that fails is an error: policy allows
    /// all of them, whatever changes beside them.
    pub(super) fn ask(&self, end: &AtomicBool) -> io::Result<()> {
        let begun = Instant::now();
        while !end.load(Ordering::Relaxed) {
            match exchange(self.target) {
                Ok(()) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                // The listener may come a moment later than the first connection.
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused
                        && begun.elapsed() < PATIENCE => {}
                Err(_) if end.load(Ordering::Relaxed) => {}
                Err(error) => return Err(error),
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn exchange(target: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])?;
    // The called side closes first: its ports are not what runs out.
    stream.read(&mut [0]).map(|_| ())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    stream.shutdown(Shutdown::Both)
}
