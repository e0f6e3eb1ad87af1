//! One thread that answers for all places: whatever comes is sent back.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{LabError, sockets::Listening};

/// Largest datagram.
const BUFFER: usize = 65_536;

enum Order {
    Add(String, Listening),
    /// Close all of a namespace, then say so.
    Remove(String, Sender<()>),
    Stop,
}

enum Socket {
    Listening(Listening),
    Stream(TcpStream),
}

impl Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listening(Listening::Tcp(socket)) => socket.as_fd(),
            Self::Listening(Listening::Udp(socket)) => socket.as_fd(),
            Self::Stream(socket) => socket.as_fd(),
        }
    }
}

/// The server.
#[derive(Debug)]
pub(crate) struct Echo {
    orders: Sender<Order>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Self, LabError> {
        let (wake, woken) = UnixStream::pair().map_err(LabError::io("make a pipe"))?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(LabError::io("set up a pipe"))?;
        }
        let (orders, receiver) = channel();
        let thread = thread::Builder::new()
            .name("echo".into())
            .spawn(move || serve(&receiver, &woken))
            .map_err(LabError::io("start the thread that answers"))?;
        Ok(Self { orders, wake, thread: Some(thread) })
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // A full pipe wakes as well.
            (&self.wake).write_all(&[1]).ok();
        }
    }

    /// Serves a socket of a namespace.
    pub(crate) fn add(&self, netns: &str, socket: Listening) {
        self.order(Order::Add(netns.to_owned(), socket));
    }

    /// Closes all sockets of a namespace and waits until it is done.
    pub(crate) fn remove(&self, netns: &str) {
        let (done, wait) = channel();
        self.order(Order::Remove(netns.to_owned(), done));
        // An error means that the thread is gone, and its sockets with it.
        wait.recv().ok();
    }

    /// Closes everything.
    pub(crate) fn stop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(orders: &Receiver<Order>, mut woken: &UnixStream) {
    let mut sockets: Vec<(String, Socket)> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut fds: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|(_, socket)| socket.as_fd())
            .chain([woken.as_fd()])
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let mut new = Vec::new();
        let mut index = 0;
        sockets.retain_mut(|(netns, socket)| {
            let ready = ready.get(index).copied().unwrap_or(false);
            index += 1;
            !ready || handle(netns, socket, &mut new, &mut buffer)
        });
        sockets.append(&mut new);
        if ready.last() == Some(&true) {
            while woken.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
        for order in orders.try_iter() {
            match order {
                Order::Add(netns, socket) => sockets.push((netns, Socket::Listening(socket))),
                Order::Remove(netns, done) => {
                    sockets.retain(|(name, _)| *name != netns);
                    done.send(()).ok();
                }
                Order::Stop => return,
            }
        }
    }
}

/// Does what a ready socket is ready for; false if it is finished.
fn handle(
    netns: &str,
    socket: &mut Socket,
    new: &mut Vec<(String, Socket)>,
    buffer: &mut [u8],
) -> bool {
    match socket {
        Socket::Listening(Listening::Tcp(listener)) => {
            while let Ok((stream, _)) = listener.accept() {
                // Small messages, each at once.
                if stream.set_nonblocking(true).and(stream.set_nodelay(true)).is_ok() {
                    new.push((netns.to_owned(), Socket::Stream(stream)));
                }
            }
            true
        }
        Socket::Listening(Listening::Udp(socket)) => {
            while let Ok((length, from)) = socket.recv_from(buffer) {
                socket.send_to(&buffer[..length], from).ok();
            }
            true
        }
        Socket::Stream(stream) => match stream.read(buffer) {
            Ok(0) => false,
            Ok(length) => stream.write_all(&buffer[..length]).is_ok(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        },
    }
}
