//! The daemon: one task owns the state, everything else sends it messages.

use std::{
    io,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use enforcer_common::abi::lane;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, sleep_until},
};
use tracing::{info, warn};

use super::{
    api::{StatusReply, StatusRequest},
    core::Core,
    report,
    socket::{Server, Service, SocketError},
};
use crate::{
    cli::AgentArgs,
    cluster::event::Interface,
    dataplane::{
        self, DataplaneError, Kernel, KernelConfig,
        netlink::{Discovery, DiscoveryEvent, NetlinkError},
    },
    flow::ring::FlowRing,
    source::manifests::{ManifestSource, SourceError},
};

/// How often the rings are read: a flow is seen this long after its packet at the latest.
const POLL: Duration = Duration::from_millis(5);
/// How often what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often flows are aged and attachments checked.
const MAINTAIN: Duration = Duration::from_secs(5);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The manifests cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The kernel refuses.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// Interfaces cannot be found.
    #[error("cannot find the pods' interfaces")]
    Netlink(#[from] NetlinkError),
    /// The system refuses something basic.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A status request on its way to the owning task.
#[derive(Debug)]
struct Question {
    request: StatusRequest,
    answer: oneshot::Sender<StatusReply>,
}

/// What the socket's tasks hold.
#[derive(Clone, Debug)]
struct Handle {
    node: String,
    flows: FlowRing,
    questions: mpsc::Sender<Question>,
}

impl Service for Handle {
    fn node_name(&self) -> &str {
        &self.node
    }

    fn flows(&self) -> &FlowRing {
        &self.flows
    }

    async fn status(&self, request: StatusRequest) -> StatusReply {
        let (answer, reply) = oneshot::channel();
        let ended = || StatusReply {
            failure: Some("the agent is ending".to_owned()),
            ..StatusReply::default()
        };
        if self.questions.send(Question { request, answer }).await.is_err() {
            return ended();
        }
        reply.await.unwrap_or_else(|_| ended())
    }
}

/// Runs the agent until it is told to end. Enforcement outlives it.
///
/// # Errors
/// If it cannot start; see [`AgentError`].
pub fn run(args: AgentArgs) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::System { operation: "start the runtime", source })?;
    runtime.block_on(serve(args))
}

async fn serve(args: AgentArgs) -> Result<(), AgentError> {
    let node = args
        .node()
        .map_err(|source| AgentError::System { operation: "read the host's name", source })?;
    // Before anything is made: without it nothing of the rest can work.
    if !dataplane::may_load() {
        return Err(DataplaneError::Privilege.into());
    }
    let server = Server::bind(&args.run_dir)?;
    let source = ManifestSource::new(&args.manifests)?;
    let (kernel, rings) = Kernel::open(&KernelConfig {
        bpf_dir: Some(args.bpf_dir.clone()),
        state_dir: Some(args.state_dir.clone()),
        attach: args.attach,
        conntrack_entries: args.conntrack_entries,
        class_key: random_key()?,
    })?;
    info!(mode = ?kernel.mode(), adopted = kernel.found().len(), "the kernel has taken our programs");
    let flows = FlowRing::new(usize::try_from(args.flow_buffer).unwrap_or(usize::MAX));
    let mut core = Core::new(
        kernel,
        rings,
        source,
        flows.clone(),
        wall_offset(),
        args.enforcement,
        &args.run_dir,
    );
    let mut discovery = Discovery::open()?;
    let (interfaces, addresses) = first_look(&mut discovery).await?;
    core.first_plan(interfaces, addresses)?;

    let (questions, asked) = mpsc::channel(16);
    let handle = Handle { node: node.clone(), flows, questions };
    let serving = tokio::spawn(server.serve(handle));
    let started = SystemTime::now();
    let about = report::About { node, started };
    let result = own(&mut core, &mut discovery, asked, &about).await;
    serving.abort();
    // The server's end removes its socket.
    let _cancelled = serving.await;
    info!("ended; policy stays in force");
    result
}

/// All interfaces and node addresses that are there.
async fn first_look(
    discovery: &mut Discovery,
) -> Result<(Vec<Interface>, Vec<IpAddr>), AgentError> {
    let (mut interfaces, mut addresses) = (Vec::new(), Vec::new());
    loop {
        match discovery.next().await? {
            DiscoveryEvent::Found(interface) => {
                // Told again when more is known of it: the last word counts.
                interfaces.retain(|one: &Interface| one.ifindex != interface.ifindex);
                interfaces.push(interface);
            }
            DiscoveryEvent::Lost(ifindex) => {
                interfaces.retain(|interface| interface.ifindex != ifindex);
            }
            DiscoveryEvent::NodeAddresses(all) => addresses = all,
            DiscoveryEvent::FirstComplete => return Ok((interfaces, addresses)),
        }
    }
}

/// The owning task's loop.
async fn own(
    core: &mut Core,
    discovery: &mut Discovery,
    mut asked: mpsc::Receiver<Question>,
    about: &report::About,
) -> Result<(), AgentError> {
    let failed = |source| AgentError::System { operation: "listen for signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut poll = interval(POLL);
    let mut retry = interval(RETRY);
    let mut maintain = interval(MAINTAIN);
    for timer in [&mut poll, &mut retry, &mut maintain] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut lost_before = [0; lane::COUNT as usize];
    loop {
        let next_look = waiting.iter().map(|waiting| waiting.next_look).min();
        tokio::select! {
            () = core.source.changed() => {
                let update = core.source.refresh();
                core.source_changed(update);
            }
            event = discovery.next() => core.discovered(event?)?,
            question = asked.recv() => match question {
                Some(question) => waiting.extend(ask(core, discovery, question, about)?),
                None => return Ok(()),
            },
            () = sleep_until(next_look.unwrap_or_else(Instant::now).into()),
                if next_look.is_some() => {}
            _ = poll.tick() => while core.drain() > 0 {},
            _ = retry.tick() => {
                core.retry();
                core.look_at_switches();
            }
            _ = maintain.tick() => {
                core.maintain();
                lost_before = tell_losses(core, lost_before);
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
        answer(core, &mut waiting, about);
    }
}

/// Says once, as a number, how many events were lost since the last look.
fn tell_losses(core: &Core, before: [u64; lane::COUNT as usize]) -> [u64; lane::COUNT as usize] {
    let Ok(lost) = core.kernel.lost() else {
        return before;
    };
    if lost != before {
        let since: u64 = lost.iter().zip(before).map(|(now, then)| now.saturating_sub(then)).sum();
        warn!(since, "events were lost: the rings were full");
    }
    lost
}

/// A question that waits for everything to be in force.
#[derive(Debug)]
struct Waiting {
    question: Question,
    until: Instant,
    next_look: Instant,
}

/// How often a waiting question is looked at while nothing happens.
const LOOK: Duration = Duration::from_millis(10);

/// Answers a question, or lets it wait.
fn ask(
    core: &mut Core,
    discovery: &mut Discovery,
    question: Question,
    about: &report::About,
) -> Result<Option<Waiting>, AgentError> {
    let Some(seconds) = question.request.wait_seconds else {
        let reply = report::reply(core, about, &question.request, None);
        // The client may have gone.
        let _gone = question.answer.send(reply);
        return Ok(None);
    };
    // The barrier: what was written and made before the question counts.
    let update = core.source.rescan();
    core.source_changed(update);
    for event in discovery.rescan()? {
        core.discovered(event)?;
    }
    let now = Instant::now();
    let until = now.checked_add(Duration::from_secs(seconds)).unwrap_or(now);
    Ok(Some(Waiting { question, until, next_look: now }))
}

/// Answers the waiting questions whose condition holds or whose time is over.
fn answer(core: &Core, waiting: &mut Vec<Waiting>, about: &report::About) {
    let now = Instant::now();
    let mut open = Vec::new();
    for mut one in waiting.drain(..) {
        if one.question.answer.is_closed() {
            continue;
        }
        let missing = report::missing(core, &one.question.request);
        if missing.is_some() && now < one.until {
            one.next_look = now + LOOK;
            open.push(one);
            continue;
        }
        let reply = report::reply(core, about, &one.question.request, missing);
        let _gone = one.question.answer.send(reply);
    }
    *waiting = open;
}

/// Wall clock less the clock of events.
fn wall_offset() -> Duration {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    wall.saturating_sub(Duration::from_nanos(dataplane::monotonic()))
}

/// A key that nobody can guess, from the kernel.
fn random_key() -> Result<[u64; 2], AgentError> {
    use io::Read as _;
    let mut bytes = [0; 16];
    std::fs::File::open(PathBuf::from("/dev/urandom"))
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| AgentError::System { operation: "read /dev/urandom", source })?;
    let (a, b) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok([word(a), word(b)])
}
