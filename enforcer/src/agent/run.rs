//! The daemon: one task owns the state, everything else sends it messages.

use std::{
    cell::Cell,
    io,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use enforcer_common::abi::lane;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tracing::{info, warn};

use super::{
    announce::{Announcing, Taint},
    core::{Core, Parts},
    dns::ClusterDns,
    found::{Found, Look},
    handover::{self, Claim},
    holds::{self, Doorkeeper},
    insights,
    observer::{self, Observing},
    open_gate::OpenGate,
    questions::{self, Asked, Handle, Waiting, answer, ask},
    report,
    rival_watch::RivalWatch,
    saving::Saving,
    scrape, self_check,
    socket::SocketError,
};
use crate::{
    apiserver::{ApiServer, ConfigError},
    cli::{AgentArgs, GateMode},
    dataplane::{
        self, DataplaneError, Kernel, KernelConfig,
        netlink::{Discovery, NetlinkError},
    },
    error_chain,
    flow::{
        nodes::Nodes,
        reading::Reading,
        ring::FlowRing,
        thread::{Clocks, FlowsThread},
    },
    hubble::{
        export::{Export, ExportError},
        origin::Origin,
    },
    metrics::{Metrics, MetricsAddress, MetricsServer},
    source::{
        Source,
        cni::CniCache,
        kubernetes::{Chance, KubernetesSource, Timing},
        manifests::{ManifestSource, SourceError},
        saved::Places,
    },
};

/// How often is looked at what waits for a moment: links on their way out, backends, the disk.
const POLL: Duration = Duration::from_millis(5);
/// How often what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often flows are aged and attachments checked.
const MAINTAIN: Duration = Duration::from_secs(5);

/// How long the gate may take to refuse what it holds when an agent ends early.
const REFUSAL: Duration = Duration::from_millis(100);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The manifests cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no API server to ask.
    #[error(transparent)]
    ApiServer(#[from] ConfigError),
    /// The kernel refuses.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// Interfaces cannot be found.
    #[error("cannot find the pods' interfaces")]
    Netlink(#[from] NetlinkError),
    /// Flows cannot be exported as the flags say.
    #[error(transparent)]
    Export(#[from] ExportError),
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

/// Why an agent no longer looks after the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It was told to end.
    Told,
    /// Another agent has taken the node.
    GaveWay,
}

/// Runs the agent until it is told to end. Enforcement outlives it.
///
/// # Errors
/// If it cannot start; see [`AgentError`].
pub fn run(args: &AgentArgs) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::System { operation: "start the runtime", source })?;
    runtime.block_on(async {
        let mut told = Told::listen()?;
        let mut stands_by = false;
        loop {
            let owning = Cell::new(false);
            let ended = tokio::select! {
                ended = serve(args, Claim::of(args.take_over, stands_by), &told, &owning) => ended,
                // Before it owns the node there is nothing to end in order.
                () = unless(&owning, told.clone()) => Ok(Ended::Told),
            };
            match ended {
                Ok(Ended::Told) => {
                    if args.gate != GateMode::None && !owning.get() {
                        // The gate was open already: it refuses what it holds.
                        tokio::time::sleep(REFUSAL).await;
                    }
                    info!("ended; policy stays in force");
                    return Ok(());
                }
                Ok(Ended::GaveWay) => stands_by = true,
                // A third agent was faster than this one, which stood by.
                Err(AgentError::Socket(SocketError::AnotherAgent { .. })) if stands_by => {}
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = handover::stand_by(&args.dirs.run_dir) => {}
                () = told.wait() => return Ok(()),
            }
        }
    })
}

/// Waits to be told, unless the node is owned by then: its owner listens itself, and ends in order.
async fn unless(owning: &Cell<bool>, mut told: Told) {
    told.wait().await;
    if owning.get() {
        std::future::pending::<()>().await;
    }
}

/// Whether the agent was told to end: SIGTERM or SIGINT. Once told it stays told, however many wait.
#[derive(Clone, Debug)]
struct Told(watch::Receiver<bool>);

impl Told {
    /// Listens from now on. Must be called within the runtime.
    fn listen() -> Result<Self, AgentError> {
        let failed = |source| AgentError::System { operation: "listen for signals", source };
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let (tell, told) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tell.send_replace(true);
            // As long as it is there, waiting is not ended by its absence.
            std::future::pending::<()>().await;
        });
        Ok(Self(told))
    }

    async fn wait(&mut self) {
        // The sender lives as long as the runtime.
        let _told = self.0.wait_for(|told| *told).await.is_ok();
    }
}

async fn serve(
    args: &AgentArgs,
    claim: Claim,
    told_to_end: &Told,
    owning: &Cell<bool>,
) -> Result<Ended, AgentError> {
    let node = args
        .node()
        .map_err(|source| AgentError::System { operation: "read the host's name", source })?;
    // Before anything is made: without it nothing of the rest can work.
    if !dataplane::may_load() {
        return Err(DataplaneError::Privilege.into());
    }
    let (mut source, api) = source(args, &node).await?;
    let mut discovery = Discovery::open()?;
    let mut found = first_look(&mut discovery).await?;
    let flows = FlowRing::new(usize::try_from(args.flow_buffer).unwrap_or(usize::MAX));
    let looking = args.flows.insights();
    let (metrics, counting) =
        Metrics::with_flows(Instant::now(), &args.flows.flow_metrics, &node, looking.learning);
    let (noticing, noticed) = insights::channel(looking, metrics.insights.clone());
    let (handle, hold, asked) = questions::channels();
    let mut told = Vec::new();
    let config = KernelConfig {
        bpf_dir: Some(args.dirs.bpf_dir.clone()),
        state_dir: Some(args.dirs.state_dir.clone()),
        attach: args.attach,
        conntrack_entries: args.conntrack_entries,
        service_entries: args.service_entries,
        class_key: random_key()?,
    };
    // What takes long is done while the owner still looks after the node; and one whose programs
    // the kernel refuses leaves it to the owner.
    let prepared = (claim == Claim::TakeOver).then(|| Kernel::prepare(&config)).transpose()?;
    if args.take_over {
        told =
            handover::prepare(&args.dirs.run_dir, &mut source, &mut discovery, &mut found).await?;
    }
    // Before the owner gives way: a pod that starts while nobody has the node is held.
    let gate = match args.gate {
        GateMode::None => None,
        GateMode::Nri => {
            let doorkeeper = Doorkeeper { holds: hold, metrics: metrics.clone() };
            Some(OpenGate::open(args, doorkeeper, random_key()?[0]).await)
        }
    };
    let server = handover::claim(&args.dirs.run_dir, claim).await?;
    // What came since then came while an agent was there, this one or the one before.
    for event in discovery.rescan()? {
        found.take(event);
    }
    let (kernel, rings) = Kernel::open_prepared(&config, prepared)?;
    info!(mode = ?kernel.mode(), adopted = kernel.found().len(), "the kernel has taken our programs");
    let reading = Reading::new(flows.clone(), wall_offset())
        .waiting_for_names()
        .seen_by(counting)
        .seen_by(noticing);
    let clocks = Clocks { events: dataplane::monotonic, wall_offset };
    let (self_check, reading) = match args.self_check {
        0 => (None, reading),
        a_second => {
            let counts = metrics.self_checks.clone();
            let started = self_check::start(a_second, counts, dataplane::monotonic);
            let (check, sampling) = started.map_err(|source| AgentError::System {
                operation: "start the self-check",
                source,
            })?;
            (Some(check), reading.seen_by(sampling))
        }
    };
    let reading = FlowsThread::start(reading, rings, clocks)
        .map_err(|source| AgentError::System { operation: "start the flows' thread", source })?;
    let mut core = Core::new(Parts {
        kernel,
        source,
        cni: args.cni_cache_dir().map(CniCache::new),
        flows: reading,
        nodes: Nodes::default(),
        wall_offset: wall_offset(),
        node: args.manifests.is_none().then(|| node.as_str().into()),
        start: args.start,
        dns: ClusterDns {
            service: args.dns_service.clone(),
            node_local: Some(args.node_local_dns),
        },
        metrics: metrics.clone(),
        not_pods: args.ignore_interface.clone(),
        enforcement: args.enforcement,
        told: (args.flow_events, args.flow_sampling),
        self_check,
        node_ports: args.nodeport_addresses,
        dirs: args.dirs.clone(),
    });
    let export = args.export.config().map(|config| {
        let origin = Origin::new(&args.hubble.cluster_name, &node);
        Export::start(config, origin, flows.clone(), metrics.export.clone())
    });
    let export = export.transpose()?;
    let observing = observer::start(
        args,
        &node,
        flows,
        core.events(),
        core.nodes(),
        metrics.lost_by_clients.clone(),
    );
    core.begin(found, told)?;

    core.gate = gate.as_ref().map(OpenGate::status);
    let scraping = serve_metrics(args.metrics_address, metrics, handle.clone());
    let serving = tokio::spawn(server.serve(handle));
    let started = SystemTime::now();
    let taint = if args.remove_taint { Taint::Remove } else { Taint::Leave };
    let mut beside = Beside {
        saving: Saving::new(args.dirs.state_dir.clone(), node.clone()),
        announcing: Announcing::new(api.as_ref(), &node, taint, noticed),
        rivals: RivalWatch::new(args.dirs.bpf_dir.clone()),
        observing,
    };
    let about = report::About {
        node,
        instance: args.instance.clone(),
        started,
        service_entries: args.service_entries,
    };
    owning.set(true);
    let result =
        own(&mut core, &mut discovery, asked, &about, &mut beside, told_to_end.clone()).await;
    if let Some(gate) = gate {
        // What it holds is refused: the runtime asks the next agent.
        gate.close().await;
    }
    if let Some(scraping) = scraping {
        scraping.abort();
    }
    // The next agent has a socket for flows in the same place.
    beside.observing.end();
    beside.saving.end(&mut core).await;
    // Now the last flow is in the ring.
    core.flows.end();
    drop(export);
    // What came during all this is guarded before the node is given away: the next agent looks for
    // itself from then on.
    for event in discovery.rescan()? {
        core.discovered(event);
    }
    // Nothing is written any more: only now the lock may go, with the server.
    drop(core);
    serving.abort();
    // The server's end removes its socket.
    let _cancelled = serving.await;
    result
}

/// Serves metrics. Policy is more than its numbers: without them the agent goes on.
fn serve_metrics(
    address: MetricsAddress,
    metrics: Metrics,
    handle: Handle,
) -> Option<JoinHandle<()>> {
    let MetricsAddress::At(address) = address else { return None };
    match MetricsServer::bind(address) {
        Ok(server) => Some(tokio::spawn(server.serve(metrics, handle))),
        Err(error) => {
            warn!(error = error_chain(&error), "going on without metrics");
            None
        }
    }
}

/// What goes on beside enforcement.
#[derive(Debug)]
struct Beside {
    saving: Saving,
    announcing: Announcing,
    rivals: RivalWatch,
    observing: Observing,
}

/// Where objects come from, by the flags, and the API server if it is that.
async fn source(args: &AgentArgs, node: &str) -> Result<(Source, Option<ApiServer>), AgentError> {
    if let Some(dir) = &args.manifests {
        return Ok((Source::Manifests(Box::new(ManifestSource::new(dir)?)), None));
    }
    let api = ApiServer::find(args.kubeconfig.as_deref()).await?;
    info!(server = api.url(), node, "objects come from the API server");
    let mut chance = Chance::new(random_key()?[0]);
    let places = Places { state: &args.dirs.state_dir, run: &args.dirs.run_dir };
    let source = KubernetesSource::start(&api, node, places, Timing::default(), &mut chance);
    Ok((Source::Kubernetes(Box::new(source)), Some(api)))
}

/// All interfaces and node addresses that are there.
async fn first_look(discovery: &mut Discovery) -> Result<Found, AgentError> {
    let mut found = Found::default();
    while found.take(discovery.next().await?) == Look::Going {}
    Ok(found)
}

/// The owning task's loop.
async fn own(
    core: &mut Core,
    discovery: &mut Discovery,
    mut asked: Asked,
    about: &report::About,
    beside: &mut Beside,
    mut told: Told,
) -> Result<Ended, AgentError> {
    let mut poll = interval(POLL);
    let mut retry = interval(RETRY);
    let mut maintain = interval(MAINTAIN);
    for timer in [&mut poll, &mut retry, &mut maintain] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut leaving = false;
    let mut lost_before = [0; lane::COUNT as usize];
    loop {
        core.metrics.health.beat(Instant::now());
        let next_look = waiting.iter().map(|waiting| waiting.next_look).min();
        let next_look = next_look.into_iter().chain(core.next_hold(Instant::now())).min();
        tokio::select! {
            () = core.source.changed() => {
                let update = core.source.refresh();
                core.source_changed(update)?;
            }
            event = discovery.next() => core.discovered(event?),
            () = told_of_sandboxes(core.cni.as_mut()) => core.sandboxes_changed(),
            question = asked.questions.recv() => match question {
                Some(question) => waiting.extend(ask(core, discovery, question, about)?),
                None => return Ok(Ended::Told),
            },
            Some(hold) = asked.holds.recv() => holds::take(core, discovery, hold)?,
            Some(scrape) = asked.scrapes.recv() => {
                // The scraper may have gone.
                let _gone = scrape.send(scrape::snapshot(core));
            }
            _ = asked.to_go.recv(), if !leaving => leaving = true,
            () = sleep_until(next_look.unwrap_or_else(Instant::now).into()),
                if next_look.is_some() => {}
            _ = poll.tick() => {
                core.retry_attaching(Instant::now());
                core.note_backends(Instant::now());
                if !leaving {
                    beside.saving.look(core, Instant::now()).await;
                } else if beside.saving.is_done(core).await {
                    return Ok(Ended::GaveWay);
                }
            }
            _ = retry.tick() => {
                core.retry();
                core.look_at_switches();
                beside.announcing.look(core, tokio::time::Instant::now());
            }
            _ = maintain.tick() => {
                core.note_wall_offset(wall_offset());
                core.maintain();
                beside.rivals.look(core, Instant::now()).await;
                lost_before = tell_losses(core, lost_before);
                beside.observing.lost_in_kernel(lost_before.iter().sum());
                core.observer_problems = beside.observing.problems();
            }
            () = told.wait() => return Ok(Ended::Told),
        }
        core.answer_holds(Instant::now());
        answer(core, &mut waiting, about);
    }
}

/// Waits for what the network plugins tell; for ever where they are not asked.
async fn told_of_sandboxes(cni: Option<&mut CniCache>) {
    match cni {
        Some(cni) => cni.changed().await,
        None => std::future::pending().await,
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
