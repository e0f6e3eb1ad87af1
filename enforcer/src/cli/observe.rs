//! `enforcer observe`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Deserialize;

use super::{
    args::{ObserveArgs, ObserveOutput},
    client::{self, Client, ClientError},
    compact,
    terminal::Style,
};
use crate::{
    agent::api::{ObserveRequest, Reply, Request},
    flow::hubble::Response,
};

/// Flows that are shown if nothing says how many.
const DEFAULT_LAST: usize = 20;

/// A line of the answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Flow(Box<Response>),
    Reply(Reply),
}

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
    let request = Request::Observe(Box::new(request(args)));
    let mut client = Client::ask(&args.run_dir, &request).await?;
    loop {
        let line = client.next().await?;
        match serde_json::from_str(line).map_err(ClientError::NotUnderstood)? {
            Line::Flow(flow) => {
                let written = match args.output {
                    ObserveOutput::Json => writeln!(out, "{line}"),
                    ObserveOutput::Compact => {
                        writeln!(out, "{}", compact::line(&flow, style, args.print_policy_names))
                    }
                };
                written.map_err(ClientError::Output)?;
            }
            Line::Reply(Reply::Error(reason)) => return Err(ClientError::Refused(reason)),
            Line::Reply(_) => return out.flush().map_err(ClientError::Output),
        }
    }
}

fn request(args: &ObserveArgs) -> ObserveRequest {
    let bounded = args.first.is_some() || args.all || args.since.is_some() || args.until.is_some();
    let last = match args.last {
        Some(last) => Some(last),
        None if bounded => None,
        // As Hubble does: a follower starts now.
        None if args.follow => Some(0),
        None => Some(DEFAULT_LAST),
    };
    ObserveRequest {
        follow: args.follow,
        last,
        first: args.first,
        since: args.since.map(super::when::When::ns),
        until: args.until.map(super::when::When::ns),
        filter: args.filters.spec(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        agent::{
            api::{StatusReply, StatusRequest},
            socket::{Server, Service},
        },
        cli::args::{Cli, Command},
        flow::{
            event::tests::{allowed, denied, flow},
            ring::FlowRing,
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
        for (line, last) in [
            ("", Some(20)),
            (" --last 3", Some(3)),
            (" -f", Some(0)),
            (" -f --last 3", Some(3)),
            (" --all", None),
            (" --first 3", None),
            (" --since 5m", None),
            (" -f --since 5m", None),
        ] {
            assert_eq!(request(&args(line)).last, last, "{line}");
        }
    }

    #[derive(Clone)]
    struct Fake(FlowRing);

    impl Service for Fake {
        async fn give_way(&self) {}

        fn node_name(&self) -> &str {
            "w1"
        }

        fn flows(&self) -> &FlowRing {
            &self.0
        }

        async fn status(&self, _: StatusRequest) -> StatusReply {
            StatusReply::default()
        }
    }

    #[tokio::test]
    async fn flows_come_from_the_agent_to_the_output() {
        let dir = tempfile::TempDir::new().unwrap();
        let ring = FlowRing::new(10);
        ring.push(flow(&allowed()));
        ring.push(flow(&denied()));
        let server = tokio::spawn(Server::bind(dir.path()).unwrap().serve(Fake(ring)));
        let style = Style { color: false, width: 80 };
        for (line, expected) in [
            ("", &["ALLOWED BY shop/db-in", "DENIED (default deny"][..]),
            (" --verdict DROPPED", &["DENIED"]),
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
        let args = ObserveArgs { run_dir: dir.path().to_owned(), ..args(" --port http") };
        let error = show(&args, style, &mut Vec::new()).await.unwrap_err().to_string();
        assert_eq!(error, "--port http: must be a port, 0 to 65535");
        server.abort();
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
        let server = tokio::spawn(Server::bind(dir.path()).unwrap().serve(Fake(ring)));
        let args = ObserveArgs { run_dir: dir.path().to_owned(), ..args("") };
        let style = Style { color: false, width: 80 };
        assert!(show(&args, style, &mut Closed).await.unwrap_err().is_broken_pipe());
        server.abort();
    }
}
