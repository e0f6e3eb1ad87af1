//! The runtime's side of NRI, written from the specification and not with the gate's own codecs.

use std::{path::PathBuf, time::Duration};

use prost::Message;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::LONG;
use crate::gate::{
    proto::{
        ConfigureRequest, PodSandbox, RegisterPluginRequest, StateChangeEvent, SynchronizeRequest,
    },
    ttrpc::{Request, Response, Status},
};

/// Time-out that this runtime gives to its calls by default.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Payload of one frame of the trunk at most, so that long calls take several.
const PIECE: usize = 4000;

/// A socket, listened at or not.
pub(super) struct Runtime {
    dir: TempDir,
    listener: Option<UnixListener>,
}

impl Runtime {
    pub(super) fn absent() -> Self {
        Self { dir: TempDir::new().unwrap(), listener: None }
    }

    pub(super) fn listening() -> Self {
        let mut runtime = Self::absent();
        runtime.start();
        runtime
    }

    pub(super) fn start(&mut self) {
        self.listener = Some(UnixListener::bind(self.socket()).unwrap());
    }

    /// Stops as a runtime that is killed: its socket's file stays.
    pub(super) fn stop(&mut self) {
        self.listener = None;
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("nri.sock")
    }

    pub(super) async fn accept(&self) -> Conversation {
        let listener = self.listener.as_ref().unwrap();
        let (trunk, _) =
            timeout(LONG, listener.accept()).await.expect("the gate connects").unwrap();
        Conversation { trunk, stream: 1 }
    }
}

/// One plugin's connection.
pub(super) struct Conversation {
    pub(super) trunk: UnixStream,
    /// The next call's stream.
    stream: u32,
}

impl Conversation {
    /// Writes a ttrpc message into the trunk, in pieces as a buffered writer makes them.
    pub(super) async fn write(&mut self, connection: u32, stream: u32, kind: u8, body: &[u8]) {
        let mut message = Vec::new();
        message.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(stream.to_be_bytes());
        message.extend([kind, 0]);
        message.extend(body);
        for piece in message.chunks(PIECE) {
            let mut frame = connection.to_be_bytes().to_vec();
            frame.extend(u32::try_from(piece.len()).unwrap().to_be_bytes());
            frame.extend(piece);
            self.trunk.write_all(&frame).await.unwrap();
        }
    }

    /// Reads a message: connection, stream, type and body.
    pub(super) async fn read(&mut self) -> (u32, u32, u8, Vec<u8>) {
        timeout(LONG, async {
            let connection = self.trunk.read_u32().await.unwrap();
            let length = usize::try_from(self.trunk.read_u32().await.unwrap()).unwrap();
            let mut payload = vec![0; length];
            self.trunk.read_exact(&mut payload).await.unwrap();
            let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            assert_eq!(usize::try_from(word(0)).unwrap() + 10, length, "a whole message");
            assert_eq!(payload[9], 0, "no flags");
            (connection, word(4), payload[8], payload[10..].to_vec())
        })
        .await
        .expect("the gate writes")
    }

    /// Waits until the gate has closed the connection; what it still writes is not looked at.
    pub(super) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is a close too.
        let _read = timeout(LONG, self.trunk.read_to_end(&mut rest)).await.expect("a close");
    }

    /// Reads the registration.
    pub(super) async fn registration(&mut self) -> RegisterPluginRequest {
        let (connection, stream, kind, body) = self.read().await;
        assert_eq!((connection, stream, kind), (2, 1, 1));
        let request = Request::decode(&*body).unwrap();
        assert_eq!(request.service, "nri.pkg.api.v1alpha1.Runtime");
        assert_eq!(request.method, "RegisterPlugin");
        RegisterPluginRequest::decode(&*request.payload).unwrap()
    }

    /// Answers the registration.
    pub(super) async fn registered(&mut self, status: Option<Status>) {
        let response = Response { status, payload: Vec::new() };
        self.write(2, 1, 2, &response.encode_to_vec()).await;
    }

    /// Takes the plugin in, without any pods.
    pub(super) async fn take_in(&mut self) {
        let who = self.registration().await;
        assert_eq!((who.plugin_name.as_str(), who.plugin_idx.as_str()), ("enforcer", "00"));
        self.registered(None).await;
        self.configure().await;
        self.synchronize(Vec::new(), false).await;
    }

    /// Configures the plugin, and gives its answer.
    pub(super) async fn configure(&mut self) -> Vec<u8> {
        let message =
            ConfigureRequest { runtime_name: "fake".into(), runtime_version: "v2".into() };
        let stream = self.call("Configure", &message).await;
        self.agreed(stream).await
    }

    /// Synchronizes, and gives the answer.
    pub(super) async fn synchronize(&mut self, pods: Vec<PodSandbox>, more: bool) -> Vec<u8> {
        let stream = self.call("Synchronize", &SynchronizeRequest { pods, more }).await;
        self.agreed(stream).await
    }

    /// Calls the plugin.
    pub(super) async fn call(&mut self, method: &str, message: &impl Message) -> u32 {
        self.call_within(method, message, TIMEOUT).await
    }

    /// Calls the plugin, with a time-out.
    pub(super) async fn call_within(
        &mut self,
        method: &str,
        message: &impl Message,
        within: Duration,
    ) -> u32 {
        self.call_service("nri.pkg.api.v1alpha1.Plugin", method, message, within).await
    }

    /// Calls any service.
    pub(super) async fn call_service(
        &mut self,
        service: &str,
        method: &str,
        message: &impl Message,
        within: Duration,
    ) -> u32 {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: message.encode_to_vec(),
            timeout_nano: i64::try_from(within.as_nanos()).unwrap(),
        };
        let stream = self.stream;
        self.stream += 2;
        self.write(1, stream, 1, &request.encode_to_vec()).await;
        stream
    }

    /// Asks about a new sandbox as runtimes before NRI 0.12 do.
    pub(super) async fn start(&mut self, pod: PodSandbox) -> u32 {
        self.call("StateChange", &StateChangeEvent { event: 1, pod: Some(pod) }).await
    }

    /// The next answer to a call: its stream, and the payload or the failure.
    pub(super) async fn answer(&mut self) -> (u32, Result<Vec<u8>, Status>) {
        let (connection, stream, kind, body) = self.read().await;
        assert_eq!((connection, kind), (1, 2));
        let Response { status, payload } = Response::decode(&*body).unwrap();
        (stream, status.filter(|status| status.code != 0).map_or(Ok(payload), Err))
    }

    /// The next answer is to this call, and agrees.
    pub(super) async fn agreed(&mut self, stream: u32) -> Vec<u8> {
        let (answered, result) = self.answer().await;
        assert_eq!(answered, stream);
        result.unwrap()
    }

    /// The next answer is to this call, and refuses: code and text.
    pub(super) async fn refused(&mut self, stream: u32) -> (i32, String) {
        let (answered, result) = self.answer().await;
        assert_eq!(answered, stream);
        let Status { code, message } = result.unwrap_err();
        (code, message)
    }
}
