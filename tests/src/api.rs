//! An API server as far as an agent needs one: objects over HTTP, as lists and as watches that
//! begin with all there is. Nothing goes wrong with it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{LabError, Netns};

/// The node on which all pods are.
pub const NODE: &str = "lab";

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct Api {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    objects: Mutex<Objects>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct Objects {
    version: u64,
    /// Each as it is now, with the collection that it is in.
    now: Vec<(&'static str, Value)>,
    /// What has happened, in the order of versions.
    events: Vec<(u64, &'static str, &'static str, Value)>,
}

impl Api {
    /// A server on this namespace's loopback, and a kubeconfig for it in the folder.
    ///
    /// # Errors
    /// If the namespace has no port for it, or the folder no room.
    pub fn start(node: &Netns, folder: &Path) -> Result<Self, LabError> {
        let listener = node
            .run(|| TcpListener::bind(("127.0.0.1", 0)))?
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(LabError::io("listen as the API server"))?;
        let address = listener.local_addr().map_err(LabError::io("listen as the API server"))?;
        let kubeconfig = folder.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "contexts": [{"name": "x", "context": {"cluster": "c"}}],
            "current-context": "x",
        });
        fs::write(&kubeconfig, text.to_string())
            .map_err(LabError::io(format!("write {}", kubeconfig.display())))?;
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        thread::spawn(move || serve(&listener, &serving));
        Ok(Self { shared, kubeconfig })
    }

    /// For the agent.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Creates or replaces the objects of a manifest. Its pods are on [`NODE`].
    ///
    /// # Panics
    /// If it is none, or has a kind that no agent reads.
    pub fn put(&self, manifest: &str) {
        for document in serde_norway::Deserializer::from_str(manifest) {
            let object = serde::Deserialize::deserialize(document).expect("a manifest");
            self.put_one(object);
        }
    }

    fn put_one(&self, mut object: Value) {
        let kind = object["kind"].as_str().unwrap_or_default();
        let collection = match kind {
            "Pod" => "pods",
            "Namespace" => "namespaces",
            "NetworkPolicy" => "networkpolicies",
            _ => panic!("no agent reads objects of kind {kind}"),
        };
        if kind == "Pod" {
            object["spec"]["nodeName"] = NODE.into();
        }
        let mut objects = self.shared.lock();
        objects.version += 1;
        let version = objects.version;
        let name = name(&object);
        object["metadata"]["uid"] = format!("uid-{name}").into();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let is_it = |(of, one): &(&str, Value)| *of == collection && self::name(one) == name;
        let event = match objects.now.iter().position(is_it) {
            Some(place) => {
                objects.now[place].1 = object.clone();
                "MODIFIED"
            }
            None => {
                objects.now.push((collection, object.clone()));
                "ADDED"
            }
        };
        objects.events.push((version, collection, event, object));
        drop(objects);
        self.shared.changed.notify_all();
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

fn name(object: &Value) -> String {
    let part = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name"))
}

/// Takes connections until the end.
fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.has_ended() {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let shared = Arc::clone(shared);
        // A client that goes away is no error of the server's.
        thread::spawn(move || answer(&stream, &shared).ok());
    }
}

/// Answers the one request of a connection.
fn answer(mut stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        head.push(line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut request = head.first().map_or("", String::as_str).split(' ');
    let method = request.next().unwrap_or_default();
    let target = request.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let collection = path.rsplit('/').next().unwrap_or_default();
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")?;
    if method != "GET" {
        // What it writes of pods' and nodes' states is not kept.
        return whole(stream, &body);
    }
    if query.split('&').any(|part| matches!(part, "watch=true" | "watch=1")) {
        stream.write_all(b"\r\n")?;
        return watch(stream, shared, collection, query);
    }
    let objects = shared.lock();
    let items: Vec<&Value> = objects.of(collection, query).collect();
    let list = json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": items,
        "metadata": {"resourceVersion": objects.version.to_string()},
    });
    drop(objects);
    whole(stream, list.to_string().as_bytes())
}

fn whole(mut stream: &TcpStream, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "Content-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)
}

impl Objects {
    fn of<'a>(&'a self, collection: &'a str, query: &'a str) -> impl Iterator<Item = &'a Value> {
        let here = self.now.iter().filter(move |(of, _)| *of == collection);
        here.map(|(_, object)| object).filter(move |object| selects(query, object))
    }
}

/// Whether a query is about an object. All pods are on one node, and none of them has finished.
fn selects(query: &str, object: &Value) -> bool {
    let Some((_, wanted)) = query.split_once("metadata.name%3D") else { return true };
    let wanted = wanted.split('&').next().unwrap_or_default();
    object["metadata"]["name"] == wanted
}

/// Sends what there is, and then what happens.
fn watch(
    mut stream: &TcpStream,
    shared: &Shared,
    collection: &str,
    query: &str,
) -> std::io::Result<()> {
    let asked = |key: &str| {
        let value = query.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let end = Instant::now() + Duration::from_secs(asked("timeoutSeconds").unwrap_or(300));
    let line =
        |kind: &str, object: &Value| format!("{}\n", json!({"type": kind, "object": object}));
    let mut objects = shared.lock();
    let mut at = asked("resourceVersion").unwrap_or(0);
    if query.contains("sendInitialEvents=true") {
        let mut first: String =
            objects.of(collection, query).map(|object| line("ADDED", object)).collect();
        at = objects.version;
        let metadata = json!({
            "resourceVersion": at.to_string(),
            "annotations": {"k8s.io/initial-events-end": "true"},
        });
        first += &line("BOOKMARK", &json!({"metadata": metadata}));
        stream.write_all(first.as_bytes())?;
    }
    while !shared.has_ended() && Instant::now() < end {
        let mut news = String::new();
        for (_, of, kind, object) in objects.events.iter().filter(|(version, ..)| *version > at) {
            if *of == collection && selects(query, object) {
                news += &line(kind, object);
            }
        }
        if objects.version > at {
            at = objects.version;
            // Of what a watch does not see it learns the version.
            let metadata = json!({"resourceVersion": at.to_string()});
            news += &line("BOOKMARK", &json!({"metadata": metadata}));
            stream.write_all(news.as_bytes())?;
        }
        let wait = Duration::from_millis(200);
        objects =
            shared.changed.wait_timeout(objects, wait).unwrap_or_else(PoisonError::into_inner).0;
    }
    Ok(())
}
