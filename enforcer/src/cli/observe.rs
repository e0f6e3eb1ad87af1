//! `enforcer observe`.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use enforcer_hubble::{
    json,
    observer::{
        GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes,
        observer_client::ObserverClient,
    },
};
use tonic::{Code, Status, transport::Channel};

use super::{
    args::{ObserveArgs, ObserveOutput},
    client::{self, ClientError},
    compact,
    terminal::Style,
    when::When,
};
use crate::hubble::{
    self,
    convert::{Details, timestamp},
    server::SOCKET_NAME,
};

/// Flows that are shown if nothing says how many.
const DEFAULT_LAST: u64 = 20;

/// Runs the command. Ctrl-C ends it as wished: exit code 0.
#[must_use]
pub fn run(args: &ObserveArgs) -> ExitCode {
    let style = Style::stdout(args.color);
    client::run(async {
        let mut out = io::stdout().lock();
        tokio::select! {
            shown = show(args, style, &mut out) => shown.map(|()| true),
            _ = tokio::signal::ctrl_c() => out.flush().map(|()| true).map_err(ClientError::Output),
        }
    })
}

/// Writes the flows that `args` ask for to `out`.
async fn show(args: &ObserveArgs, style: Style, out: &mut impl Write) -> Result<(), ClientError> {
    let chosen = args.filters.chosen().map_err(|error| ClientError::Refused(error.to_string()))?;
    let mut request = request(args);
    request.whitelist = chosen.filters;
    let mut client = connect(&args.run_dir).await?;
    let mut lines = client.get_flows(request).await.map_err(refused)?.into_inner();
    while let Some(line) = lines.message().await.map_err(refused)? {
        if !has_reason(&line, &chosen.reasons) {
            continue;
        }
        let written = match args.output {
            ObserveOutput::Json => {
                let text = json::to_string(&line);
                let text = text.map_err(|error| ClientError::Refused(error.to_string()))?;
                writeln!(out, "{text}")
            }
            ObserveOutput::Compact => {
                writeln!(out, "{}", compact::line(&line, style, args.print_policy_names))
            }
        };
        // Who reads along does not wait for more.
        written.and_then(|()| out.flush()).map_err(ClientError::Output)?;
    }
    Ok(())
}

async fn connect(run_dir: &Path) -> Result<ObserverClient<Channel>, ClientError> {
    let path = run_dir.join(SOCKET_NAME);
    // What is wrong is said better by the system than by the client.
    if let Err(error) = tokio::net::UnixStream::connect(&path).await {
        return Err(ClientError::connecting(path, error));
    }
    let failed = |error| ClientError::connecting(path.clone(), io::Error::other(error));
    hubble::client::connect(&path).await.map_err(failed)
}

/// What the agent says to the request.
fn refused(status: Status) -> ClientError {
    match status.code() {
        // The connection is gone, one way or another.
        Code::Unavailable | Code::Unknown | Code::Cancelled => ClientError::Ended,
        _ => ClientError::Refused(status.message().to_owned()),
    }
}

/// Whether the flow has one of the reasons; `reasons` are empty for all.
fn has_reason(line: &GetFlowsResponse, reasons: &[&str]) -> bool {
    match &line.response_types {
        Some(ResponseTypes::Flow(flow)) if !reasons.is_empty() => {
            let details = flow.extensions.as_ref().and_then(Details::from_any);
            details.is_some_and(|details| reasons.contains(&&*details.reason))
        }
        _ => true,
    }
}

fn request(args: &ObserveArgs) -> GetFlowsRequest {
    let bounded = args.all || args.since.is_some() || args.until.is_some();
    let (number, first) = match (args.first, args.last) {
        (Some(first), _) => (first as u64, true),
        (None, Some(last)) => (last as u64, false),
        (None, None) if bounded => (0, false),
        // As Hubble does: a follower starts now.
        (None, None) if args.follow => (0, false),
        (None, None) => (DEFAULT_LAST, false),
    };
    let time = |when: Option<When>| when.map(|when| timestamp(when.ns()));
    GetFlowsRequest {
        number,
        first,
        follow: args.follow,
        // All that is kept, and then what comes.
        since: time(args.since).or_else(|| (args.follow && args.all).then(|| timestamp(0))),
        until: time(args.until),
        ..GetFlowsRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU64};

    use clap::Parser;
    use tokio::sync::watch;

    use super::*;
    use crate::{
        cli::args::{Cli, Command},
        flow::{
            event::tests::{allowed, denied, flow},
            ring::FlowRing,
        },
        hubble::{
            events::EventRing,
            origin::Origin,
            server::{self, Config, Observed, Running},
        },
    };

    fn args(line: &str) -> ObserveArgs {
        match Cli::try_parse_from(format!("enforcer observe{line}").split(' ')).unwrap().command {
            Command::Observe(args) => *args,
            _ => panic!("another command"),
        }
    }

    #[test]
    fn how_many_flows_are_asked_for() {
        for (line, number) in [
            ("", 20),
            (" --last 3", 3),
            (" -f", 0),
            (" -f --last 3", 3),
            (" --all", 0),
            (" --first 3", 3),
            (" --since 5m", 0),
            (" -f --since 5m", 0),
        ] {
            assert_eq!(request(&args(line)).number, number, "{line}");
        }
        assert!(request(&args(" --first 3")).first);
        assert!(request(&args(" -f --all")).since.is_some());
    }

    fn serve(dir: &Path, flows: FlowRing) -> Running {
        let observed = Observed {
            origin: Origin::new("default", "w1"),
            flows,
            events: EventRing::default(),
            nodes: watch::channel(Arc::from([])).1,
            lost_in_kernel: Arc::new(AtomicU64::new(0)),
        };
        server::start(Config { socket: dir.join(SOCKET_NAME), tcp: None }, observed).unwrap()
    }

    #[tokio::test]
    async fn flows_come_from_the_agent_to_the_output() {
        let dir = tempfile::TempDir::new().unwrap();
        let ring = FlowRing::new(10);
        ring.push(flow(&allowed()));
        ring.push(flow(&denied()));
        let _server = serve(dir.path(), ring);
        let style = Style { color: false, width: 80 };
        for (line, expected) in [
            ("", &["ALLOWED BY shop/db-in", "DENIED (default deny"][..]),
            (" --verdict DROPPED", &["DENIED"]),
            (" --reason PolicyDenied", &["DENIED"]),
            (" --reason ServiceNodeBackend", &[]),
            (" -o json --last 1", &["{\"flow\":{\"time\":\"2023-"]),
            (" --pod other", &[]),
        ] {
            let args = ObserveArgs { run_dir: dir.path().to_owned(), ..args(line) };
            let mut out = Vec::new();
            show(&args, style, &mut out).await.unwrap();
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out.lines().count(), expected.len(), "{out}");
            for (line, part) in out.lines().zip(expected) {
                assert!(line.contains(part), "{line}");
            }
        }
        let args = ObserveArgs { run_dir: dir.path().to_owned(), ..args(" --to-port http") };
        let error = show(&args, style, &mut Vec::new()).await.unwrap_err().to_string();
        assert_eq!(error, "filter destination_port: \"http\" is no port, 0 to 65535");
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
        let dir = tempfile::TempDir::new().unwrap();
        let ring = FlowRing::new(10);
        ring.push(flow(&allowed()));
        let _server = serve(dir.path(), ring);
        let args = ObserveArgs { run_dir: dir.path().to_owned(), ..args("") };
        let style = Style { color: false, width: 80 };
        assert!(show(&args, style, &mut Closed).await.unwrap_err().is_broken_pipe());
    }

    #[tokio::test]
    async fn without_an_agent_one_sentence_says_so() {
        let dir = tempfile::TempDir::new().unwrap();
        let args = ObserveArgs { run_dir: dir.path().to_owned(), ..args("") };
        let style = Style { color: false, width: 80 };
        let error = show(&args, style, &mut Vec::new()).await.unwrap_err().to_string();
        assert!(error.starts_with("no agent is running on this node"), "{error}");
    }

    #[tokio::test]
    async fn an_agent_that_ends_is_noticed() {
        let dir = tempfile::TempDir::new().unwrap();
        let server = serve(dir.path(), FlowRing::new(10));
        let args = ObserveArgs { run_dir: dir.path().to_owned(), ..args(" -f") };
        let style = Style { color: false, width: 80 };
        let mut out = Vec::new();
        let end = async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            drop(server);
        };
        let (shown, ()) = tokio::join!(show(&args, style, &mut out), end);
        assert!(matches!(shown, Err(ClientError::Ended)), "{shown:?}");
    }
}
