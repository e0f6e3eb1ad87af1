//! One connection to the runtime, from registration to its end.

use std::{
    collections::BTreeSet,
    future::Future,
    io,
    time::{Duration, SystemTime},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{
    Arming, GateConfig, Held,
    error::GateError,
    proto::Empty,
    protocol::{Ask, Protocol},
    sandbox::Sandbox,
    status::Board,
    ttrpc::{Response, Status, code},
};

/// How long registration may take. The runtime takes plugins one by one, each up to 5 s, and waits
/// for pods that are being started.
const REGISTRATION_TIME: Duration = Duration::from_secs(60);
/// How long the runtime may leave what is written lying.
const WRITE_TIME: Duration = Duration::from_secs(1);
/// Sandboxes held at a time; a node has about 110 pods.
const MOST_HELD: usize = 1024;
/// The part of the runtime's time-out that is left for the way of the answer.
const MARGIN: u32 = 8;
/// Bytes read at once.
const READ: usize = 64 << 10;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The agent ends.
    ShutDown,
    /// Otherwise.
    Lost {
        /// Why.
        error: GateError,
        /// How long the gate was in the runtime's way, if it was.
        lasted: Option<Duration>,
    },
}

/// What the loop has waited for.
enum News {
    ShutDown,
    Decided(Decision),
    Late,
    Read(io::Result<usize>),
}

/// A hold's end.
struct Decision {
    stream: u32,
    sandbox: Sandbox,
    time: Duration,
    held: Held,
}

/// Serves the runtime until the connection or the agent ends.
pub(super) async fn run(
    mut trunk: UnixStream,
    config: &GateConfig,
    arming: &impl Arming,
    board: &Board,
    shutdown: &mut (impl Future<Output = ()> + Unpin),
) -> End {
    let mut joined = None;
    match serve(&mut trunk, config, arming, board, shutdown, &mut joined).await {
        Ok(()) => End::ShutDown,
        // Whether writing or reading meets it first.
        Err(GateError::Closed) if joined.is_none() => {
            End::Lost { error: GateError::Unwelcome, lasted: None }
        }
        Err(error) => End::Lost { error, lasted: joined.map(|at: Instant| at.elapsed()) },
    }
}

async fn serve(
    trunk: &mut UnixStream,
    config: &GateConfig,
    arming: &impl Arming,
    board: &Board,
    shutdown: &mut (impl Future<Output = ()> + Unpin),
    joined: &mut Option<Instant>,
) -> Result<(), GateError> {
    let mut protocol = Protocol::new(&config.plugin_name, &config.index.to_string());
    let mut holds = FuturesUnordered::new();
    let mut open = BTreeSet::new();
    let mut input = Vec::with_capacity(READ);
    let deadline = Instant::now() + REGISTRATION_TIME;
    loop {
        flush(trunk, &mut protocol).await?;
        let news = tokio::select! {
            biased;
            () = &mut *shutdown => News::ShutDown,
            Some(decision) = holds.next() => News::Decided(decision),
            () = sleep_until(deadline), if joined.is_none() => News::Late,
            read = trunk.read_buf(&mut input) => News::Read(read),
        };
        let asks = match news {
            News::ShutDown => {
                leave(&mut protocol, &open, board, "the agent on this node is ending");
                if let Err(error) = flush(trunk, &mut protocol).await {
                    board.down(&error, SystemTime::now());
                }
                return Ok(());
            }
            News::Decided(decision) => {
                open.remove(&decision.stream);
                decide(&mut protocol, decision, arming, board);
                continue;
            }
            News::Late => return Err(GateError::Slow(REGISTRATION_TIME)),
            News::Read(Ok(0)) => return Err(GateError::Closed),
            News::Read(Err(error)) => return Err(lost(error)),
            News::Read(Ok(_)) => protocol.receive(&input)?,
        };
        input.clear();
        for ask in asks {
            match ask {
                Ask::Joined { runtime, running } => {
                    *joined = Some(Instant::now());
                    board.up(runtime, running.len(), SystemTime::now());
                    arming.running(running);
                }
                Ask::Hold { stream, .. } if open.len() >= MOST_HELD => {
                    let text = format!("{MOST_HELD} pod sandboxes are being held already");
                    let refused = Status::new(code::RESOURCE_EXHAUSTED, text.clone());
                    protocol.answer(stream, &refused.into());
                    board.refuse(text);
                }
                Ask::Hold { stream, sandbox, timeout } => {
                    board.hold();
                    open.insert(stream);
                    let within = patience(config.patience, timeout);
                    holds.push(hold(arming.clone(), stream, sandbox, within));
                }
                Ask::Refused(text) => board.refuse(text),
                Ask::Leave => {
                    leave(&mut protocol, &open, board, "the container runtime is ending");
                    flush(trunk, &mut protocol).await?;
                    return Err(GateError::Closed);
                }
            }
        }
    }
}

/// How long to hold at most, so that the answer is there before the runtime gives up.
fn patience(wanted: Duration, timeout: Option<Duration>) -> Duration {
    timeout.map_or(wanted, |timeout| wanted.min(timeout - timeout / MARGIN))
}

/// Holds one sandbox.
async fn hold(arming: impl Arming, stream: u32, sandbox: Sandbox, within: Duration) -> Decision {
    let start = Instant::now();
    let held = timeout(within, arming.armed(sandbox.clone(), within)).await;
    let time = start.elapsed();
    let late = |_late| Held::NotInTime(format!("no answer within {} ms", within.as_millis()));
    Decision { stream, sandbox, time, held: held.unwrap_or_else(late) }
}

/// Answers for a sandbox that was held.
fn decide(protocol: &mut Protocol, decision: Decision, arming: &impl Arming, board: &Board) {
    let Decision { stream, sandbox, time, held } = decision;
    arming.decided(time, &held);
    match held {
        Held::Armed => {
            let pod = &sandbox.pod;
            debug!(namespace = %pod.namespace, name = %pod.name, ?time, "armed, let go");
            board.let_go();
            protocol.answer(stream, &Response::of(&Empty {}));
        }
        Held::NotInTime(missing) => {
            let (namespace, name) = (&sandbox.pod.namespace, &sandbox.pod.name);
            let text = format!(
                "the network of {namespace}/{name} is not armed after {} ms ({missing}); the pod \
                 is held back and tried again",
                time.as_millis()
            );
            protocol.answer(stream, &Status::new(code::FAILED_PRECONDITION, text.clone()).into());
            board.refuse_held(text);
        }
    }
}

/// Refuses all that are still held.
fn leave(protocol: &mut Protocol, open: &BTreeSet<u32>, board: &Board, why: &str) {
    for stream in open {
        let text = format!("{why}, and the pod's network is not armed yet");
        protocol.answer(*stream, &Status::new(code::FAILED_PRECONDITION, text.clone()).into());
        board.refuse_held(text);
    }
}

/// Writes what is to be written.
async fn flush(trunk: &mut UnixStream, protocol: &mut Protocol) -> Result<(), GateError> {
    let output = protocol.output();
    let written = timeout(WRITE_TIME, trunk.write_all(&output)).await;
    written.map_err(|_late| GateError::Stalled)?.map_err(lost)
}

/// The connection failed. A runtime that was killed resets it.
fn lost(error: io::Error) -> GateError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => GateError::Closed,
        _ => GateError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_leaves_before_the_runtime_gives_up() {
        let ms = Duration::from_millis;
        assert_eq!(patience(ms(1500), Some(ms(2000))), ms(1500));
        assert_eq!(patience(ms(1500), Some(ms(800))), ms(700));
        assert_eq!(patience(ms(1500), None), ms(1500));
        assert_eq!(patience(ms(1500), Some(Duration::ZERO)), Duration::ZERO);
    }
}
