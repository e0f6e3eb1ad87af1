//! What came first over a connection: a client of HTTP/2 that finds the connection broken tells no
//! more why, and a person wants to know.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Type of the frame that a server of HTTP/2 must send first (RFC 9113, section 3.4).
const SETTINGS: u8 = 4;
/// Place of the type in a frame (RFC 9113, section 4.1).
const TYPE: usize = 3;

/// What has been seen of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    head: Vec<u8>,
    failed: Option<io::Error>,
}

/// What has come over a connection.
#[derive(Debug)]
pub(super) enum What {
    /// HTTP/2.
    Http2,
    /// Something else.
    Strange,
    /// Nothing.
    Silence,
    /// An error of what is below HTTP/2, which is TLS.
    Failed(io::Error),
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come; an error is told once.
    pub(super) fn what(&self) -> What {
        let mut inner = self.lock();
        let tls = |error: &io::Error| error.get_ref().is_some();
        match (inner.failed.take().filter(tls), inner.head.get(TYPE)) {
            (Some(error), _) => What::Failed(error),
            (None, Some(&SETTINGS)) => What::Http2,
            (None, _) if inner.head.is_empty() => What::Silence,
            (None, _) => What::Strange,
        }
    }
}

/// A connection that is watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    seen: Seen,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, seen: Seen) -> Self {
        Self { stream, seen }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let mut inner = self.seen.lock();
        if inner.head.len() <= TYPE {
            inner.head.extend(buffer.filled()[before..].iter().take(TYPE + 1));
        }
        drop(inner);
        Poll::Ready(read.map_err(|error| self.failed(error)))
    }
}

impl<S> Watched<S> {
    /// Keeps the error, and makes one like it.
    fn failed(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.seen.lock().failed.get_or_insert(error);
        kind.into()
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
