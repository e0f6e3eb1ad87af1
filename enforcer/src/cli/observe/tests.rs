//! The whole command against a server in this process.

use std::{os::unix::fs::PermissionsExt, path::Path, pin::Pin, sync::Arc};

use clap::Parser;
use enforcer_hubble::{
    json::{self, Unknown},
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest,
        GetDebugEventsResponse, GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest,
        GetNamespacesResponse, GetNodesRequest, GetNodesResponse, ServerStatusRequest,
        ServerStatusResponse,
        observer_server::{Observer, ObserverServer},
    },
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::Mutex, task::JoinHandle};
use tonic::{Request, Response, Status, codegen::tokio_stream};

use super::{args::ObserveArgs, *};

#[derive(Debug, Parser)]
pub(super) struct ObserveCli {
    #[command(flatten)]
    pub(super) args: ObserveArgs,
}

/// As if the output went to a pipe.
pub(super) fn options(args: &FlowArgs) -> Options {
    super::options(args, false)
}

type Answers<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// Answers with flows, says no to some questions, and remembers what it was asked.
#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<GetFlowsRequest>>>,
}

fn flow(pod: &str) -> GetFlowsResponse {
    let text = format!(
        r#"{{"flow":{{"time":"2023-11-14T22:13:21.5Z","verdict":"FORWARDED",
        "IP":{{"source":"10.0.0.1","destination":"10.0.0.2"}},"is_reply":false,
        "source":{{"identity":900,"namespace":"shop","pod_name":"{pod}"}},
        "event_type":{{"type":4}}}}}}"#
    );
    json::from_str(&text, Unknown::Refuse).unwrap()
}

#[tonic::async_trait]
impl Observer for Fake {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        let refused = request.whitelist.iter().any(|one| !one.source_port.is_empty());
        self.asked.lock().await.push(request);
        if refused {
            return Err(Status::invalid_argument("filter source_port: \"http\" is no port"));
        }
        let flows = ["web-1", "web-2"].map(|pod| Ok(flow(pod)));
        Ok(Response::new(Box::pin(tokio_stream::iter(flows))))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let text = r#"{"agent_event":{"type":"POLICY_UPDATED","policy_update":
            {"labels":["a"],"revision":"3","rule_count":"1"}},"time":"2023-11-14T22:13:21.5Z"}"#;
        let event = Ok(json::from_str(text, Unknown::Refuse).unwrap());
        Ok(Response::new(Box::pin(tokio_stream::iter([event]))))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("there are no debug events"))
    }

    async fn get_nodes(
        &self,
        _: Request<GetNodesRequest>,
    ) -> Result<Response<GetNodesResponse>, Status> {
        Ok(Response::new(GetNodesResponse::default()))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        Ok(Response::new(GetNamespacesResponse::default()))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        Ok(Response::new(ServerStatusResponse::default()))
    }
}

fn serve(fake: Fake, dir: &Path) -> JoinHandle<()> {
    let listener = UnixListener::bind(dir.join("hubble.sock")).unwrap();
    tokio::spawn(async move {
        let service = ObserverServer::new(fake);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    })
}

async fn observe(dir: &Path, flags: &str) -> Result<String, ObserveError> {
    let line = format!("observe {flags} --run-dir {}", dir.display());
    let args = ObserveCli::parse_from(line.split_whitespace()).args;
    let mut out = Vec::new();
    match &args.what {
        None => flows(&args.flows, false, &mut out).await?,
        Some(What::Flows(args)) => flows(args, false, &mut out).await?,
        Some(What::AgentEvents(args)) => events(args, Events::Agent, &mut out).await?,
        Some(What::DebugEvents(args)) => events(args, Events::Debug, &mut out).await?,
    }
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn flows_come_from_the_server_to_the_output() {
    let dir = TempDir::new().unwrap();
    let fake = Fake::default();
    let server = serve(fake.clone(), dir.path());
    let text = observe(dir.path(), "--pod shop/web --not --verdict DROPPED").await.unwrap();
    assert_eq!(
        text.lines().next(),
        Some(
            "Nov 14 22:13:21.500: shop/web-1 (ID:900) -> 10.0.0.2 (unknown) to-endpoint FORWARDED ()"
        )
    );
    assert_eq!(text.lines().count(), 2);
    {
        let asked = fake.asked.lock().await;
        assert_eq!((asked[0].whitelist.len(), asked[0].blacklist.len()), (2, 1));
        assert_eq!((asked[0].number, asked[0].follow), (20, false));
    }
    assert!(observe(dir.path(), "flows -o json").await.unwrap().starts_with("{\"flow\":{\"time\""));
    assert_eq!(
        observe(dir.path(), "agent-events").await.unwrap(),
        "Nov 14 22:13:21.500: POLICY_UPDATED (labels: [a], revision: 3, count: 1)\n"
    );
    server.abort();
}

#[tokio::test]
async fn what_a_server_refuses_is_one_plain_line() {
    let dir = TempDir::new().unwrap();
    let server = serve(Fake::default(), dir.path());
    let socket = dir.path().join("hubble.sock");
    let socket = socket.display();
    let refused = observe(dir.path(), "--from-port http").await.unwrap_err().to_string();
    let expected = format!("{socket} refuses this: filter source_port: \"http\" is no port");
    assert_eq!(refused, expected);
    let missing = observe(dir.path(), "debug-events").await.unwrap_err().to_string();
    assert_eq!(missing, format!("{socket} does not serve this: there are no debug events"));
    // The server's answer ends, and with --follow that is not what was asked for.
    let ended = observe(dir.path(), "--follow").await.unwrap_err().to_string();
    assert!(ended.contains("ended the connection; --follow does not connect again"), "{ended}");
    server.abort();
}

#[tokio::test]
async fn a_server_that_cannot_be_asked_is_one_plain_line() {
    let dir = TempDir::new().unwrap();
    let error = observe(dir.path(), "").await.unwrap_err().to_string();
    assert!(error.starts_with("no agent is running on this node (nothing answers at "), "{error}");
    assert!(error.contains("start it with `enforcer agent`"), "{error}");
    let listener = UnixListener::bind(dir.path().join("hubble.sock")).unwrap();
    drop(listener);
    let error = observe(dir.path(), "").await.unwrap_err().to_string();
    assert!(error.starts_with("no agent is running"), "{error}");
    let error = observe(dir.path(), "--server 127.0.0.1:1").await.unwrap_err().to_string();
    assert!(error.starts_with("cannot connect to 127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_said_so() {
    let dir = TempDir::new().unwrap();
    let listener = UnixListener::bind(dir.path().join("hubble.sock")).unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let error = observe(dir.path(), "").await.unwrap_err().to_string();
    assert!(error.contains("does not speak Hubble's protocol"), "{error}");
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_failure() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = TempDir::new().unwrap();
    let server = serve(Fake::default(), dir.path());
    let line = format!("observe --run-dir {}", dir.path().display());
    let args = ObserveCli::parse_from(line.split(' ')).args.flows;
    assert!(flows(&args, false, &mut Closed).await.unwrap_err().is_broken_pipe());
    server.abort();
}

#[tokio::test]
async fn a_file_is_shown_whole_or_in_part() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("flows");
    let lines = ["web-1", "db-0", "web-2"].map(|pod| json::to_string(&flow(pod)).unwrap());
    std::fs::write(&path, format!("{}\nnot JSON\n", lines.join("\n"))).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (flags, expected) in [
        ("", &["web-1", "db-0", "web-2"][..]),
        ("--last 2", &["db-0", "web-2"]),
        ("--first 1", &["web-1"]),
        ("--last 0", &[]),
        ("--pod shop/web --last 5", &["web-1", "web-2"]),
        ("--not --pod shop/web", &["db-0"]),
    ] {
        let flags = format!("{flags} --silent-errors --input-file {}", path.display());
        let text = observe(dir.path(), &flags).await.unwrap();
        assert_eq!(text.lines().count(), expected.len(), "{flags}: {text}");
        for (line, pod) in text.lines().zip(expected) {
            assert!(line.contains(pod), "{flags}: {text}");
        }
    }
    let error = observe(dir.path(), "--input-file /nowhere").await.unwrap_err().to_string();
    assert_eq!(error, "cannot read flows from /nowhere");
}
