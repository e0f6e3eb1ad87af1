//! From a change in the manifests to the first packet judged by it: a real agent, two pods, a
//! datagram every half millisecond, and a label that opens or closes the way.

use std::{
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Agent, AgentOptions, Lab, Manifests, Mode, PodSpec, spec::namespace_manifest,
};

use crate::{
    BenchError,
    table::{Row, Samples},
};

const PORT: u16 = 7777;
/// Between two datagrams: what a sample can be wrong by.
const STEP: Duration = Duration::from_micros(500);
/// A change that is not in force by then has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// The way counts as closed after so long without a datagram.
const SILENCE: Duration = Duration::from_millis(150);

/// How much there is beside the two pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) pods: u32,
    pub(crate) policies: u32,
    pub(crate) changes: u32,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the benchmark with the agent `binary`.
pub(crate) fn run(binary: PathBuf, size: Size) -> Result<Vec<Row>, BenchError> {
    measure(binary, size)
        .map_err(|source| BenchError { what: "measure the latency of a change", source })
}

/// When the last datagram came, as seen by the receiver.
struct Way {
    last: Mutex<Instant>,
    end: AtomicBool,
}

impl Way {
    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn measure(binary: PathBuf, size: Size) -> Result<Vec<Row>, AnyError> {
    let mut lab = Lab::new(Mode::PointToPoint)?;
    let client = PodSpec::numbered("bench/client", 1).label("app", "client");
    let server = PodSpec::numbered("bench/server", 2).label("app", "server");
    lab.add_pods(&[client.clone(), server.clone()])?;
    let manifests = Manifests::new(lab.dir())?;
    background(&manifests, size)?;
    manifests.write("bench.yaml", &namespace_manifest("bench"))?;
    manifests.write("client.yaml", &client.manifest())?;
    manifests.write("server.yaml", &server.manifest())?;
    manifests.write("policy.yaml", POLICY)?;
    let options = AgentOptions { binary: Some(binary), ..AgentOptions::default() };
    let agent = Agent::start(&lab, &manifests, options)?;

    let (from, to) = (lab.pod("bench/client")?, lab.pod("bench/server")?);
    let target: IpAddr = to.address(false)?;
    let way = Way { last: Mutex::new(Instant::now()), end: AtomicBool::new(false) };
    let samples = thread::scope(|scope| {
        let receiver = scope.spawn(|| to.netns().run(|| receive(target, &way)));
        let sender = scope.spawn(|| from.netns().run(|| send(target, &way)));
        let samples = change(&manifests, &client, &way, size.changes);
        way.end.store(true, Ordering::Relaxed);
        for worker in [receiver, sender] {
            worker.join().map_err(|_panic| "a traffic thread panicked")???;
        }
        samples
    });
    drop(agent);
    let [opens, closes] = samples?;
    let about = |what: &str| format!("{what} ({} pods, {} policies)", size.pods, size.policies);
    Ok([("a label opens a way", opens), ("a label closes it", closes)]
        .into_iter()
        .flat_map(|(what, samples)| {
            let p99 = Samples::of(samples.quantile(0.99));
            [
                Row::new(
                    &about(what),
                    "ms to the first packet judged by the change",
                    &samples,
                    None,
                ),
                Row::new("  p99", "ms", &p99, None),
            ]
        })
        .collect())
}

/// Pods and policies that the change does not concern: 50 pods and 15 policies a namespace.
fn background(manifests: &Manifests, size: Size) -> Result<(), AnyError> {
    let namespaces = (size.pods / 50).max(1);
    for namespace in 0..namespaces {
        let name = format!("team-{namespace}");
        let mut file = namespace_manifest(&name);
        for pod in 0..size.pods / namespaces {
            let address =
                IpAddr::from([10, 99, u8::try_from(namespace % 256)?, u8::try_from(pod % 256)?]);
            let spec = PodSpec::new(&format!("{name}/pod-{pod}"), &[address])
                .label("app", &format!("app-{}", pod % 7))
                .label("job", &format!("job-{namespace}-{pod}"));
            file.push_str("\n---\n");
            file.push_str(&spec.manifest());
        }
        for policy in 0..size.policies / namespaces {
            file.push_str(&format!(
                "\n---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: \
                 {{name: p-{policy}, namespace: {name}}}, spec: {{podSelector: {{matchLabels: \
                 {{app: app-{}}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: \
                 app-{}}}}}}}], ports: [{{port: {}}}]}}]}}}}",
                policy % 7,
                (policy + 1) % 7,
                8000 + policy
            ));
        }
        manifests.write(&format!("{name}.yaml"), &file)?;
    }
    Ok(())
}

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: bench}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {access: granted}}}]
    ports: [{protocol: UDP, port: 7777}]
";

/// Toggles the label; how long each change took, in ms: opening, closing.
fn change(
    manifests: &Manifests,
    client: &PodSpec,
    way: &Way,
    changes: u32,
) -> Result<[Samples; 2], AnyError> {
    let mut samples = [Samples::default(), Samples::default()];
    let granted = client.clone().label("access", "granted").manifest();
    let denied = client.manifest();
    thread::sleep(SILENCE);
    for _ in 0..changes {
        let since = Instant::now();
        manifests.write("client.yaml", &granted)?;
        while way.last() < since {
            if since.elapsed() > PATIENCE {
                return Err("the way did not open".into());
            }
            thread::sleep(STEP / 2);
        }
        samples[0].push((way.last() - since).as_secs_f64() * 1e3);
        // Long enough that the flow is established in every sense.
        thread::sleep(Duration::from_millis(20));
        let since = Instant::now();
        manifests.write("client.yaml", &denied)?;
        while way.last().elapsed() < SILENCE {
            if since.elapsed() > PATIENCE {
                return Err("the way did not close".into());
            }
            thread::sleep(STEP);
        }
        samples[1].push(way.last().saturating_duration_since(since).as_secs_f64() * 1e3);
    }
    Ok(samples)
}

fn receive(at: IpAddr, way: &Way) -> std::io::Result<()> {
    let socket = UdpSocket::bind((at, PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut buffer = [0; 16];
    while !way.end.load(Ordering::Relaxed) {
        if socket.recv(&mut buffer).is_ok() {
            *way.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
    Ok(())
}

fn send(to: IpAddr, way: &Way) -> std::io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect((to, PORT))?;
    while !way.end.load(Ordering::Relaxed) {
        // Refused while nobody listens yet.
        let _refused = socket.send(b"tick");
        thread::sleep(STEP);
    }
    Ok(())
}
