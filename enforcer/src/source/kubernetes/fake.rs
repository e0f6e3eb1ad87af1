//! A small API server for tests: lists and watches over HTTP as the real one serves them, with
//! faults on order.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::Config;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::apiserver::ApiServer;

/// What goes wrong with the next request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status.
    Status(u16, &'static str),
    /// Nothing is sent after the head.
    Silence,
    /// These bytes are sent, and the connection breaks off.
    Torn(String),
}

/// A change in the history of a path.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    before: Option<Value>,
    after: Option<Value>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    version: u64,
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    history: HashMap<String, Vec<Change>>,
    /// Changes up to this version are forgotten.
    compacted: u64,
    faults: HashMap<&'static str, VecDeque<Fault>>,
    /// Watches that tell nothing for now.
    held: HashMap<&'static str, bool>,
    /// The watch cache stands still at this version.
    cache: Option<u64>,
    /// No lists as streams, but this status.
    pub(crate) old: Option<u16>,
    /// Bookmarks are sent when a version passes that is not the watch's.
    pub(crate) bookmarks: bool,
    /// All requests, path and query.
    pub(crate) requests: Vec<String>,
    /// What was written, method, path and body.
    pub(crate) written: Vec<(String, String, Value)>,
    generation: u64,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    port: u16,
    _task: tokio::task::JoinSet<()>,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { version: 1, ..State::default() }));
        let (changed, _) = watch::channel(0);
        let (shared, changes) = (Arc::clone(&state), changed.clone());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, changes) = (Arc::clone(&shared), changes.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let (state, changes) = (Arc::clone(&state), changes.clone());
                        async move { Ok::<_, Infallible>(serve(&state, &changes, request).await) }
                    });
                    // Clients break off as they like.
                    let _ended =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { state, changed, port, _task: task }
    }

    pub(crate) fn api(&self) -> ApiServer {
        let url = format!("http://127.0.0.1:{}", self.port).parse().unwrap();
        ApiServer::new(Config::new(url)).unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Writes an object and returns its version.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> u64 {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let objects = state.objects.entry(path.to_owned()).or_default();
        let before = objects.insert(name(&object), object.clone());
        let change = Change { version, before, after: Some(object) };
        state.history.entry(path.to_owned()).or_default().push(change);
        drop(state);
        self.tell();
        version
    }

    pub(crate) fn delete(&self, path: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let before = state.objects.get_mut(path).unwrap().remove(name);
        assert!(before.is_some(), "{path} {name}");
        let change = Change { version, before, after: None };
        state.history.entry(path.to_owned()).or_default().push(change);
        drop(state);
        self.tell();
    }

    /// Something is written that no watch sees.
    pub(crate) fn pass(&self) {
        self.state().version += 1;
        self.tell();
    }

    /// All changes so far are forgotten: watches must list.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.version;
    }

    /// The watch cache stays as it is now, whatever is written.
    pub(crate) fn freeze_cache(&self) {
        let mut state = self.state();
        state.cache = Some(state.version);
    }

    /// The next request of a watch goes wrong.
    pub(crate) fn fault(&self, watch: &'static str, fault: Fault) {
        self.state().faults.entry(watch).or_default().push_back(fault);
    }

    pub(crate) fn hold(&self, watch: &'static str, held: bool) {
        self.state().held.insert(watch, held);
        self.tell();
    }

    /// All open watches break off.
    pub(crate) fn tear(&self) {
        self.state().generation += 1;
        self.tell();
    }

    /// Requests so far that contain all of these.
    pub(crate) fn requests(&self, parts: &[&str]) -> usize {
        let state = self.state();
        state.requests.iter().filter(|one| parts.iter().all(|part| one.contains(part))).count()
    }
}

impl State {
    /// Nothing goes wrong with a watch any more.
    pub(crate) fn forgive(&mut self, watch: &'static str) {
        self.faults.remove(watch);
    }

    /// Of the last change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The server is as it was at an earlier version.
    pub(crate) fn restore(&mut self, version: u64) {
        let paths: Vec<_> = self.objects.keys().cloned().collect();
        self.objects =
            paths.into_iter().map(|path| (path.clone(), self.as_of(&path, version))).collect();
        self.version = version;
        self.compacted = version;
        self.history.clear();
    }

    /// What there was at a version.
    fn as_of(&self, path: &str, version: u64) -> BTreeMap<String, Value> {
        let mut objects = BTreeMap::new();
        let changes = self.history.get(path).into_iter().flatten();
        for change in changes.filter(|change| change.version <= version) {
            match (&change.before, &change.after) {
                (_, Some(after)) => drop(objects.insert(name(after), after.clone())),
                (Some(before), None) => drop(objects.remove(&name(before))),
                (None, None) => {}
            }
        }
        objects
    }

    /// What a request is answered from, and its version: the store without a version, else the
    /// cache; nothing if that is not as far.
    fn answering(
        &self,
        path: &str,
        query: &HashMap<String, String>,
    ) -> Option<(BTreeMap<String, Value>, u64)> {
        let wanted = query.get("resourceVersion").map(|text| text.parse::<u64>().unwrap());
        match (wanted, self.cache) {
            (Some(wanted), Some(cache)) => {
                (wanted <= cache).then(|| (self.as_of(path, cache), cache))
            }
            (Some(wanted), None) if wanted > self.version => None,
            _ => Some((self.objects.get(path).cloned().unwrap_or_default(), self.version)),
        }
    }
}

fn name(object: &Value) -> String {
    let meta = &object["metadata"];
    let text = |key: &str| meta[key].as_str().unwrap_or_default();
    if text("namespace").is_empty() {
        text("name").to_owned()
    } else {
        format!("{}/{}", text("namespace"), text("name"))
    }
}

/// The watch's name as the source has it.
fn watch_name(path: &str, query: &str) -> &'static str {
    match path.rsplit('/').next() {
        Some("pods") if query.contains("spec.nodeName") => "local pods",
        Some("pods") => "pods",
        Some("namespaces") => "namespaces",
        Some("networkpolicies") => "networkpolicies",
        Some("nodes") => "nodes",
        Some("services") => "services",
        Some("endpointslices") => "endpointslices",
        _ => "other",
    }
}

fn selects(query: &HashMap<String, String>, object: &Value) -> bool {
    let Some(selector) = query.get("fieldSelector") else { return true };
    if let Some(node) = selector.strip_prefix("spec.nodeName=") {
        return object["spec"]["nodeName"] == node;
    }
    if let Some(name) = selector.strip_prefix("metadata.name=") {
        return object["metadata"]["name"] == name;
    }
    assert_eq!(selector, "status.phase!=Succeeded,status.phase!=Failed");
    !matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn full(status: u16, value: &Value) -> Response<Body> {
    let body =
        Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(body).unwrap()
}

fn refusal(code: u16, message: &str) -> Response<Body> {
    full(code, &json!({"kind": "Status", "status": "Failure", "code": code, "message": message}))
}

/// A body of these pieces, and then an end, silence, or a break.
fn pieces(first: String, then: Option<Result<Bytes, std::io::Error>>) -> Response<Body> {
    let first = stream::iter([Ok(Bytes::from(first))]);
    let rest: stream::BoxStream<'static, _> = match then {
        Some(end) => Box::pin(stream::once(async {
            // What was sent before is on its way when the connection breaks off.
            tokio::time::sleep(Duration::from_millis(20)).await;
            end
        })),
        None => Box::pin(stream::pending()),
    };
    let all = futures_util::StreamExt::chain(first, rest);
    let frames = futures_util::StreamExt::map(all, |piece| piece.map(Frame::data));
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

fn query(text: &str) -> HashMap<String, String> {
    let decode = |text: &str| {
        let text = text.replace("%3D", "=").replace("%2C", ",").replace("%21", "!");
        text.replace("%2F", "/")
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), decode(value))).collect()
}

async fn serve(
    shared: &Arc<Mutex<State>>,
    changes: &watch::Sender<u64>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let text = request.uri().query().unwrap_or_default().to_owned();
    let query = query(&text);
    let watch_name = watch_name(&path, &text);
    if request.method() != Method::GET {
        let method = request.method().to_string();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let mut state = shared.lock().unwrap();
        state.written.push((method, path, body.clone()));
        let fault = state.faults.get_mut("write").and_then(VecDeque::pop_front);
        return match fault {
            Some(Fault::Status(code, message)) => refusal(code, message),
            _ => full(200, &body),
        };
    }
    let fault = {
        let mut state = shared.lock().unwrap();
        state.requests.push(format!("{path}?{text}"));
        state.faults.get_mut(watch_name).and_then(VecDeque::pop_front)
    };
    match fault {
        Some(Fault::Status(code, message)) => return refusal(code, message),
        Some(Fault::Silence) => return pieces(String::new(), None),
        Some(Fault::Torn(text)) => {
            return pieces(text, Some(Err(std::io::Error::other("torn"))));
        }
        None => {}
    }
    if query.contains_key("watch") {
        return watch(shared, changes, watch_name, &path, query);
    }
    list(&shared.lock().unwrap(), &path, &query)
}

fn list(state: &State, path: &str, query: &HashMap<String, String>) -> Response<Body> {
    let Some((all, version)) = state.answering(path, query) else {
        return refusal(504, "Too large resource version");
    };
    let all: Vec<_> = all.into_values().filter(|object| selects(query, object)).collect();
    let skip: usize = query.get("continue").map_or(0, |text| text.parse().unwrap());
    let limit: usize = query.get("limit").map_or(usize::MAX, |text| text.parse().unwrap());
    let page: Vec<_> = all.iter().skip(skip).take(limit).cloned().collect();
    let end = skip + page.len();
    let next = if end < all.len() { end.to_string() } else { String::new() };
    let mut metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    if end < all.len() {
        metadata["remainingItemCount"] = (all.len() - end).into();
    }
    full(200, &json!({"kind": "List", "apiVersion": "v1", "items": page, "metadata": metadata}))
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn bookmark(version: u64, end: bool) -> String {
    let mut object = json!({"metadata": {"resourceVersion": version.to_string()}});
    if end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    line("BOOKMARK", &object)
}

/// A change as a watch with this selector sees it.
fn seen(change: &Change, query: &HashMap<String, String>) -> Option<String> {
    let matching = |object: &Option<Value>| object.clone().filter(|o| selects(query, o));
    match (matching(&change.before), matching(&change.after)) {
        (None, None) => None,
        (None, Some(after)) => Some(line("ADDED", &after)),
        (Some(_), Some(after)) => Some(line("MODIFIED", &after)),
        (Some(mut before), None) => {
            before["metadata"]["resourceVersion"] = change.version.to_string().into();
            Some(line("DELETED", &before))
        }
    }
}

fn watch(
    shared: &Arc<Mutex<State>>,
    changes: &watch::Sender<u64>,
    watch_name: &'static str,
    path: &str,
    query: HashMap<String, String>,
) -> Response<Body> {
    let mut at: u64 = query.get("resourceVersion").map_or(0, |text| text.parse().unwrap());
    let state = shared.lock().unwrap();
    let mut first = String::new();
    if query.contains_key("sendInitialEvents") {
        match state.old {
            Some(500) => {
                let status = json!({"kind": "Status", "code": 500, "message": "not by this etcd"});
                return pieces(line("ERROR", &status), Some(Ok(Bytes::new())));
            }
            Some(code) => return refusal(code, "sendInitialEvents is forbidden for watch"),
            None => {}
        }
        let Some((objects, version)) = state.answering(path, &query) else {
            return refusal(504, "Too large resource version");
        };
        // What the cache has comes first, and then what has happened since.
        let cached = state.cache.filter(|_| !query.contains_key("resourceVersion"));
        let objects = cached.map_or(objects, |cache| state.as_of(path, cache));
        let all = objects.values().filter(|object| selects(&query, object));
        first.extend(all.map(|object| line("ADDED", object)));
        if let Some(cache) = cached {
            let since = state.history.get(path).into_iter().flatten();
            let since = since.filter(|change| change.version > cache);
            first.extend(since.filter_map(|change| seen(change, &query)));
        }
        at = version;
        first.push_str(&bookmark(at, true));
    } else if at < state.compacted {
        let gone = json!({"kind": "Status", "code": 410, "message": "too old resource version"});
        return pieces(line("ERROR", &gone), Some(Ok(Bytes::new())));
    }
    let generation = state.generation;
    drop(state);
    let (shared, path) = (Arc::clone(shared), path.to_owned());
    let seconds: u64 = query["timeoutSeconds"].parse().unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let follow =
        stream::unfold((changes.subscribe(), at, false), move |(mut changes, mut at, ended)| {
            let (shared, path, query) = (Arc::clone(&shared), path.clone(), query.clone());
            async move {
                loop {
                    if ended {
                        return None;
                    }
                    let (mut text, now) = (String::new(), {
                        let state = shared.lock().unwrap();
                        if state.generation != generation {
                            let torn = Err(std::io::Error::other("torn"));
                            return Some((torn, (changes, at, true)));
                        }
                        (state.version, state.bookmarks, state.held.get(watch_name) == Some(&true))
                    });
                    let (version, bookmarks, held) = now;
                    if !held {
                        let state = shared.lock().unwrap();
                        let history = state.history.get(&path).into_iter().flatten();
                        let new = history.filter(|c| c.version > at && c.version <= version);
                        text.extend(new.filter_map(|change| seen(change, &query)));
                        if bookmarks && version != at {
                            text.push_str(&bookmark(version, false));
                        }
                        at = version;
                    }
                    if !text.is_empty() {
                        return Some((Ok(Bytes::from(text)), (changes, at, false)));
                    }
                    if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                        return None;
                    }
                }
            }
        });
    let first = stream::iter([Ok(Bytes::from(first))]);
    let all = futures_util::StreamExt::chain(first, follow);
    let frames = futures_util::StreamExt::map(all, |piece| piece.map(Frame::data));
    Response::new(BodyExt::boxed_unsync(StreamBody::new(Box::pin(frames))))
}
