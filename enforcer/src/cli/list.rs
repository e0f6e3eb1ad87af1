//! `enforcer list nodes|namespaces` and `enforcer watch peers`.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use super::{
    server::{self, ServerArgs, ServerError},
    terminal::clean,
};
use clap::{Args, Subcommand, ValueEnum};
use enforcer_hubble::{
    json::{self, JsonError},
    observer::{GetNamespacesRequest, GetNodesRequest, Node, observer_client::ObserverClient},
    peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, peer_client::PeerClient},
    relay::NodeState,
};

/// `enforcer list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// What.
    #[command(subcommand)]
    pub what: List,
}

/// What can be listed.
#[derive(Clone, Debug, Subcommand)]
pub enum List {
    /// The nodes that the server knows
    #[command(alias = "node")]
    Nodes(ListForm),
    /// The namespaces in which flows were seen of late
    #[command(aliases = ["namespace", "ns"])]
    Namespaces(ListForm),
}

/// How.
#[derive(Clone, Debug, Args)]
pub struct ListForm {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ListOutput,
    /// Who is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// Columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
}

/// `enforcer watch`.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// What.
    #[command(subcommand)]
    pub what: Watch,
}

/// What can be watched.
#[derive(Clone, Debug, Subcommand)]
pub enum Watch {
    /// The other nodes' servers as they come and go
    #[command(alias = "peer")]
    Peers(PeersForm),
}

/// How.
#[derive(Clone, Debug, Args)]
pub struct PeersForm {
    /// Who is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("cannot write the output")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("{0} ended the connection; run the command anew")]
    Ended(String),
}

/// Runs `enforcer list`.
#[must_use]
pub fn list(args: &ListArgs) -> ExitCode {
    end(server::block_on(async {
        let text = match &args.what {
            List::Nodes(form) => nodes(form).await?,
            List::Namespaces(form) => namespaces(form).await?,
        };
        io::stdout().write_all(text.as_bytes())?;
        Ok(())
    }))
}

/// Runs `enforcer watch`. Ctrl-C ends it as wished: exit code 0.
#[must_use]
pub fn watch(args: &WatchArgs) -> ExitCode {
    let Watch::Peers(form) = &args.what;
    end(server::block_on(async {
        let mut out = io::stdout();
        tokio::select! {
            done = peers(form, &mut out) => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }))
}

fn end(done: io::Result<Result<(), ListError>>) -> ExitCode {
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(ListError::Write(e))) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(Err(error)) => server::fail(&error),
        Err(error) => server::fail(&error),
    }
}

async fn nodes(form: &ListForm) -> Result<String, ListError> {
    let server = server::connect(&form.server).await?;
    let mut client =
        ObserverClient::new(server.channel.clone()).max_decoding_message_size(server::LONGEST);
    let asked = client.get_nodes(form.server.short_request(GetNodesRequest {})).await;
    let response = asked.map_err(|status| server.refused(&status))?.into_inner();
    Ok(match form.output {
        ListOutput::Json => json::list_to_string_pretty(&response.nodes)? + "\n",
        ListOutput::Table => columns(
            &["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"],
            response.nodes.iter().map(|node| of_node(node).to_vec()),
        ),
        ListOutput::Wide => columns(
            &["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS", "VERSION", "ADDRESS", "TLS"],
            response.nodes.iter().map(|node| {
                let tls = match &node.tls {
                    None => "N/A",
                    Some(tls) if tls.enabled => "Enabled",
                    Some(_) => "Disabled",
                };
                let version = if node.version.is_empty() { "N/A" } else { &node.version };
                let more = [version, &node.address, tls].map(str::to_owned);
                [&of_node(node)[..], &more].concat()
            }),
        ),
    })
}

fn of_node(node: &Node) -> [String; 5] {
    let state = match NodeState::try_from(node.state) {
        Ok(NodeState::NodeConnected) => "Connected",
        Ok(NodeState::NodeUnavailable) => "Unavailable",
        Ok(NodeState::NodeGone) => "Gone",
        Ok(NodeState::NodeError) => "Error",
        Ok(NodeState::UnknownNodeState) | Err(_) => "Unknown",
    };
    if node.uptime_ns == 0 {
        let unknown = || "N/A".to_owned();
        return [node.name.clone(), state.to_owned(), unknown(), unknown(), unknown()];
    }
    let up = Duration::from_nanos(node.uptime_ns);
    let rate = per_second(node.seen_flows, up);
    let share = percent(node.num_flows, node.max_flows);
    [
        node.name.clone(),
        state.to_owned(),
        age(up),
        format!("{rate:.2}"),
        format!("{}/{} ({share:6.2}%)", node.num_flows, node.max_flows),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with two digits")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with two digits")]
fn percent(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 }
}

/// `76h0m0s`, `1m15s`, `9s`.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

async fn namespaces(form: &ListForm) -> Result<String, ListError> {
    let server = server::connect(&form.server).await?;
    let mut client =
        ObserverClient::new(server.channel.clone()).max_decoding_message_size(server::LONGEST);
    let asked = client.get_namespaces(form.server.short_request(GetNamespacesRequest {})).await;
    let response = asked.map_err(|status| server.refused(&status))?.into_inner();
    let all = response.namespaces;
    Ok(match form.output {
        ListOutput::Json => json::list_to_string_pretty(&all)? + "\n",
        ListOutput::Table => {
            columns(&["NAMESPACE"], all.into_iter().map(|one| vec![one.namespace]))
        }
        ListOutput::Wide => columns(
            &["NAMESPACE", "CLUSTER"],
            all.into_iter().map(|one| vec![one.namespace, one.cluster]),
        ),
    })
}

/// Rows below their header, in columns as wide as they must be.
fn columns(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let clean = |row: Vec<String>| row.iter().map(|cell| clean(cell)).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = [header].into_iter().chain(rows).map(clean).collect();
    let mut widths = vec![0; rows[0].len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let last = row.len() - 1;
        for (i, cell) in row.iter().enumerate() {
            let room = if i == last { 0 } else { widths[i] + 3 - cell.chars().count() };
            let cell = format!("{cell}{}", " ".repeat(room));
            out.push_str(&cell);
        }
        out.push('\n');
    }
    out
}

async fn peers(form: &PeersForm, out: &mut impl Write) -> Result<(), ListError> {
    let server = server::connect(&form.server).await?;
    let mut client = PeerClient::new(server.channel.clone());
    let asked = client.notify(form.server.request(NotifyRequest {})).await;
    let mut stream = asked.map_err(|status| server.refused(&status))?.into_inner();
    loop {
        let next = stream.message().await.map_err(|status| server.refused(&status))?;
        let Some(change) = next else { return Err(ListError::Ended(server.name)) };
        writeln!(out, "{}", peer(&change))?;
        out.flush()?;
    }
}

/// `PEER_ADDED   10.0.0.2:4244 default/w2 (TLS.ServerName: w2.default.hubble-grpc.cilium.io)`
fn peer(change: &ChangeNotification) -> String {
    let kind = ChangeNotificationType::try_from(change.r#type);
    let kind = kind.map_or_else(|_| change.r#type.to_string(), |kind| kind.as_str_name().into());
    let tls = change.tls.as_ref().map(|tls| format!(" (TLS.ServerName: {})", tls.server_name));
    let tls = tls.unwrap_or_default();
    clean(&format!("{kind:<12} {} {}{tls}", change.address, change.name))
}

#[cfg(test)]
mod tests {
    use enforcer_hubble::peer::Tls;

    use super::*;

    #[test]
    fn ages_are_written_as_go_writes_them() {
        for (seconds, expected) in
            [(9, "9s"), (307, "5m7s"), (7500, "2h5m0s"), (273_600, "76h0m0s"), (60, "1m0s")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn nodes_and_peers_are_lines() {
        let node = Node {
            name: "default/w1".into(),
            state: NodeState::NodeConnected as i32,
            uptime_ns: 10_000_000_000,
            num_flows: 50,
            max_flows: 100,
            seen_flows: 25,
            ..Node::default()
        };
        let text = columns(
            &["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"],
            [of_node(&node).to_vec()],
        );
        assert_eq!(
            text,
            "NAME         STATUS      AGE   FLOWS/S   CURRENT/MAX-FLOWS\n\
             default/w1   Connected   10s   2.50      50/100 ( 50.00%)\n"
        );
        let change = ChangeNotification {
            name: "w2".into(),
            address: "10.0.0.2:4244".into(),
            r#type: 1,
            tls: Some(Tls { server_name: "w2.x".into() }),
        };
        assert_eq!(peer(&change), "PEER_ADDED   10.0.0.2:4244 w2 (TLS.ServerName: w2.x)");
    }
}
