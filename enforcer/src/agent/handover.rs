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

/// Takes the node: at once if nobody has it, else from its owner.
///
/// # Errors
/// If the owner does not give way, or the system refuses the socket.
pub(super) async fn take(run_dir: &Path) -> Result<Server, SocketError> {
    match Server::bind(run_dir) {
        Err(SocketError::AnotherAgent { .. }) => {}
        other => return other,
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
