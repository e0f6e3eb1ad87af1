//! The API server as a client of its own would have it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
};

use crate::{
    poll,
    world::{PATIENCE, World},
};

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    /// An object, whole.
    Object(&'a str),
    /// What of it is to be another (RFC 7396).
    Merge(&'a str),
}

/// The API server, through `kubectl proxy`: starting kubectl takes longer than what is measured.
pub(crate) struct Proxy {
    process: Child,
    socket: std::path::PathBuf,
}

impl Proxy {
    pub(crate) fn start(world: &World) -> Self {
        let socket = std::env::temp_dir().join(format!("enforcer-api-{}.sock", std::process::id()));
        let mut command: Command = world.cluster.kubectl();
        command.arg("proxy").arg(format!("--unix-socket={}", socket.display()));
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        let proxy = Self { process, socket };
        poll::until("kubectl proxy", PATIENCE, || {
            UnixStream::connect(&proxy.socket).map_err(|error| error.to_string())
        });
        proxy
    }

    /// Sends a request, and ends the test if it does not succeed.
    pub(crate) fn send(&self, method: &str, path: &str, body: Body<'_>) {
        let (kind, body) = match body {
            Body::Object(text) => ("application/json", text),
            Body::Merge(text) => ("application/merge-patch+json", text),
        };
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
        std::fs::remove_file(&self.socket).ok();
    }
}
