//! The socket with good, stalled and senseless clients.

use std::io::{BufRead, BufReader as SyncReader, Write};
use std::os::unix::net::UnixStream as SyncStream;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

#[derive(Clone)]
struct Fake;

impl Service for Fake {
    async fn status(&self, request: StatusRequest) -> StatusReply {
        if request.wait_seconds.is_some() {
            std::future::pending::<()>().await;
        }
        StatusReply { failure: request.only, ..StatusReply::default() }
    }

    async fn give_way(&self) {}
}

/// An agent's socket on a runtime of its own, as clients are processes of their own.
struct Lab {
    dir: TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let run = dir.path().to_owned();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = Server::bind(&run).unwrap();
                bound.send(()).unwrap();
                tokio::select! {
                    () = server.serve(Fake) => {}
                    _ = stopped => {}
                }
            });
        });
        is_bound.recv().unwrap();
        Self { dir, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> SyncStream {
        let stream = SyncStream::connect(self.dir.path().join(SOCKET_NAME)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn ask(&self, request: &Value) -> Vec<Value> {
        let mut stream = self.connect();
        writeln!(stream, "{request}").unwrap();
        SyncReader::new(stream)
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        assert!(self.thread.take().is_some_and(|t| t.join().is_ok()));
    }
}

#[test]
fn status_is_asked_of_the_agent() {
    let lab = Lab::new();
    let reply = lab.ask(&json!({"status": {"for": "policy/a/b"}}));
    assert_eq!(reply[0]["status"]["failure"], "policy/a/b");
    assert_eq!(reply.len(), 1);
}

#[test]
fn nonsense_is_answered_with_an_error() {
    let lab = Lab::new();
    for (request, expected) in [
        (json!({"dance": 1}), "the request is not understood: unknown variant `dance`"),
        (json!([]), "the request is not understood"),
        (json!({"observe": {}}), "the request is not understood: unknown variant `observe`"),
    ] {
        let reply = lab.ask(&request);
        let error = reply[0]["error"].as_str().unwrap();
        assert!(error.starts_with(expected), "{error}");
    }
    let mut stream = lab.connect();
    // The agent may close before all of it is written.
    let sent = stream.write_all(&vec![b'x'; 1 << 20]);
    assert!(sent.is_ok() || sent.is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock));
    drop(lab.connect());
    assert_eq!(lab.ask(&json!({"status": {}})).len(), 1);
}

#[test]
fn stalled_clients_hold_up_nobody() {
    let lab = Lab::new();
    let silent: Vec<_> = (0..20).map(|_| lab.connect()).collect();
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = lab.connect();
        writeln!(stream, "{}", json!({"status": {"wait_seconds": 60}})).unwrap();
        deaf.push(stream);
    }
    let start = std::time::Instant::now();
    assert_eq!(lab.ask(&json!({"status": {}})).len(), 1);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop((silent, deaf));
}

#[test]
fn clients_that_left_make_room() {
    let lab = Lab::new();
    for _ in 0..MOST_CLIENTS * 2 {
        let mut stream = lab.connect();
        let asked = writeln!(stream, "{}", json!({"status": {"wait_seconds": 60}}));
        // One too many is refused, maybe before it has asked.
        assert!(asked.is_ok() || asked.is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe));
    }
    let mut answered = false;
    for _ in 0..100 {
        let mut stream = lab.connect();
        let mut line = String::new();
        let sent = writeln!(stream, "{}", json!({"status": {}}));
        let read = sent.and_then(|()| SyncReader::new(stream).read_line(&mut line));
        answered = read.is_ok_and(|n| n > 0) && line.contains("status");
        if answered {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(answered);
}

#[tokio::test]
async fn a_dead_agents_socket_is_replaced_and_a_live_ones_is_not() {
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("run");
    let path = run.join(SOCKET_NAME);
    let server = Server::bind(&run).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&run), mode(&path)), (0o700, 0o600));
    let error = Server::bind(&run).unwrap_err().to_string();
    assert!(error.starts_with("another agent is running on this node"), "{error}");
    assert!(path.exists());
    drop(server);
    assert!(!path.exists());

    // What a killed agent leaves behind: a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = Server::bind(&run).unwrap();
    drop(server);

    // One that answers without holding the lock.
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(Server::bind(&run), Err(SocketError::AnotherAgent { .. })));
    drop(other);
}
