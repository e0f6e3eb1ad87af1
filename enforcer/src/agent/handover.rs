//! One agent gives way to the next without a moment in which nobody looks after the node.
//!
//! The owner of a node is who holds the lock in the run directory. The next agent makes itself
//! ready first (its objects are complete, the interfaces known), asks the owner to give way, and
//! waits for the lock. The former owner stays as a standby until it is told to end: should the next
//! one die, the lock is free and the standby takes over again. Programs and maps are in force all
//! the time.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::{interval, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    api::{Reply, Request, SOCKET_NAME},
    found::Found,
    socket::{Lock, Server, SocketError},
};
use crate::{
    cluster::event::Event,
    dataplane::netlink::{Discovery, NetlinkError},
    source::Source,
};

/// How long the owner may take to answer, and then to let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the owner is left alone first.
const SETTLE: Duration = Duration::from_millis(500);
/// How often the lock is tried while the owner lets go.
const TRY: Duration = Duration::from_millis(1);
/// How often a standby looks whether it is needed.
const LOOK: Duration = Duration::from_millis(500);

/// Makes ready to take the node: waits until all objects are known, or until nobody has the node
/// any more. Returns what the source has told meanwhile.
///
/// # Errors
/// If the interfaces can no longer be followed.
pub(super) async fn prepare(
    run_dir: &Path,
    source: &mut Source,
    discovery: &mut Discovery,
    found: &mut Found,
) -> Result<Vec<Event>, NetlinkError> {
    let mut told = Vec::new();
    let mut look = interval(LOOK);
    while !source.is_live() {
        tokio::select! {
            () = source.changed() => told.extend(source.refresh().events),
            event = discovery.next() => {
                found.take(event?);
            }
            _ = look.tick() => if Lock::is_free(run_dir) {
                break;
            },
        }
    }
    Ok(told)
}

/// What an agent does about the owner of the node, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Asks it to give way.
    TakeOver,
    /// Leaves it alone.
    IfFree,
}

impl Claim {
    /// The claim of an agent by its flag. One that comes back from standing by is the older one of
    /// any two: it takes what nobody has, and not what a third agent was faster to take.
    pub(super) fn of(take_over: bool, stood_by: bool) -> Self {
        if take_over && !stood_by { Self::TakeOver } else { Self::IfFree }
    }
}

/// Takes the node: at once if nobody has it, else from its owner where that is the claim.
///
/// # Errors
/// If there is an owner that is left alone or does not give way, or the system refuses the socket.
pub(super) async fn claim(run_dir: &Path, claim: Claim) -> Result<Server, SocketError> {
    match (Server::bind(run_dir), claim) {
        (Err(SocketError::AnotherAgent { .. }), Claim::TakeOver) => {}
        (other, Claim::TakeOver | Claim::IfFree) => return other,
    }
    // What the owner arms, it arms within this time: an interface that was there when this agent
    // first looked, and has no programs then, is no pod's that starts just now.
    sleep(SETTLE).await;
    if let Err(error) = ask(run_dir).await {
        // It may be ending at this moment: the lock will tell.
        warn!(%error, "the agent that looks after this node does not answer");
    }
    let until = Instant::now() + PATIENCE;
    loop {
        match Server::bind(run_dir) {
            Err(error @ SocketError::AnotherAgent { .. }) if Instant::now() > until => {
                return Err(error);
            }
            Err(SocketError::AnotherAgent { .. }) => sleep(TRY).await,
            other => return other,
        }
    }
}

async fn ask(run_dir: &Path) -> std::io::Result<()> {
    let exchange = async {
        let mut stream = UnixStream::connect(run_dir.join(SOCKET_NAME)).await?;
        let mut line = serde_json::to_vec(&Request::GiveWay {})?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        match serde_json::from_str(&answer)? {
            Reply::GivingWay {} => Ok(()),
            Reply::Error(error) => Err(std::io::Error::other(error)),
            _ => Err(std::io::Error::other("it answered something else")),
        }
    };
    timeout(PATIENCE, exchange).await?
}

/// Waits until nobody looks after the node any more.
pub(super) async fn stand_by(run_dir: &Path) {
    info!("another agent looks after this node now; standing by");
    let mut free = false;
    loop {
        sleep(LOOK).await;
        // Once may be the moment in which one agent hands over to another.
        let before = std::mem::replace(&mut free, Lock::is_free(run_dir));
        if before && free {
            warn!("the agent that took over is gone; taking the node back");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;
    use crate::{
        agent::api::{StatusReply, StatusRequest},
        agent::socket::Service,
    };

    /// An owner that gives way when asked.
    #[derive(Clone)]
    struct Owner {
        asked: UnboundedSender<()>,
    }

    impl Service for Owner {
        async fn status(&self, _request: StatusRequest) -> StatusReply {
            StatusReply::default()
        }

        async fn give_way(&self) {
            self.asked.send(()).unwrap();
        }
    }

    /// Owns the node until it has been asked to give way; the second receiver hears of it.
    fn own(run_dir: &Path) -> UnboundedReceiver<()> {
        let server = Server::bind(run_dir).unwrap();
        let ((asked, mut is_asked), (tell, told)) = (unbounded_channel(), unbounded_channel());
        tokio::spawn(async move {
            tokio::select! {
                () = server.serve(Owner { asked }) => {}
                _ = is_asked.recv() => tell.send(()).unwrap(),
            }
        });
        told
    }

    #[tokio::test]
    async fn one_that_stood_by_does_not_take_the_node_from_a_third() {
        let dir = TempDir::new().unwrap();
        let mut asked = own(dir.path());
        let older = claim(dir.path(), Claim::of(true, true)).await;
        assert!(matches!(older, Err(SocketError::AnotherAgent { .. })), "{older:?}");
        assert!(asked.try_recv().is_err(), "the owner was asked");
        // A newer one does.
        let newer = claim(dir.path(), Claim::of(true, false)).await.unwrap();
        asked.try_recv().unwrap();
        drop(newer);
        // What nobody has is anybody's.
        drop(claim(dir.path(), Claim::of(true, true)).await.unwrap());
        drop(claim(dir.path(), Claim::of(false, false)).await.unwrap());
    }
}
