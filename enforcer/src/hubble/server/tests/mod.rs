//! The server with real clients: each call, and clients that harm nobody.

mod abuse;
mod calls;
mod network;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use enforcer_common::abi::Event;
use enforcer_hubble::{
    flow::{Flow, FlowFilter, LostEvent},
    observer::{
        GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes,
        observer_client::ObserverClient,
    },
};
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::{Streaming, transport::Channel};

use super::*;
use crate::{
    flow::event::tests::{allowed, denied, flow},
    hubble::{client, peers::PeerNode},
};

/// Wall clock of the flows' time 0, ns: see [`flow`].
const BASE: i64 = 1_700_000_000_000_000_000;

/// A server and what it shows.
struct Lab {
    dir: TempDir,
    flows: FlowRing,
    events: EventRing,
    nodes: watch::Sender<PeerNodes>,
    lost: Arc<AtomicU64>,
    lost_by_clients: Counter,
    server: Option<Running>,
}

impl Lab {
    fn new(capacity: usize) -> Self {
        Self::listening(capacity, None)
    }

    fn listening(capacity: usize, tcp: Option<(SocketAddr, Security)>) -> Self {
        let dir = TempDir::new().unwrap();
        let (nodes, told) = watch::channel(PeerNodes::from([]));
        let (flows, events) = (FlowRing::new(capacity), EventRing::default());
        let lost = Arc::new(AtomicU64::new(0));
        let lost_by_clients = Counter::default();
        let observed = Observed {
            origin: Origin::new("default", "w1"),
            flows: flows.clone(),
            events: events.clone(),
            nodes: told,
            lost_in_kernel: Arc::clone(&lost),
            lost_by_clients: lost_by_clients.clone(),
        };
        let config = Config { socket: dir.path().join(SOCKET_NAME), tcp };
        let server = Some(start(config, observed).unwrap());
        Self { dir, flows, events, nodes, lost, lost_by_clients, server }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET_NAME)
    }

    async fn client(&self) -> ObserverClient<Channel> {
        client::connect(&self.socket()).await.unwrap()
    }

    /// Flows with these times; those with odd ones are denied.
    fn push(&self, times: std::ops::Range<u64>) {
        for time in times {
            let event = if time % 2 == 0 { allowed() } else { denied() };
            self.flows.push(flow(&Event { time, ..event }));
        }
    }

    fn nodes(&self, nodes: &[(&str, &str)]) {
        let node = |(name, address): &(&str, &str)| PeerNode {
            name: (*name).into(),
            addresses: vec![address.parse().unwrap()],
        };
        self.nodes.send_replace(nodes.iter().map(node).collect());
    }
}

fn time_of(flow: &Flow) -> i64 {
    crate::hubble::convert::nanoseconds(flow.time.as_ref().unwrap()) - BASE
}

fn flow_of(line: GetFlowsResponse) -> Flow {
    match line.response_types {
        Some(ResponseTypes::Flow(flow)) => *flow,
        other => panic!("{other:?}"),
    }
}

fn loss_of(line: GetFlowsResponse) -> LostEvent {
    match line.response_types {
        Some(ResponseTypes::LostEvents(lost)) => lost,
        other => panic!("{other:?}"),
    }
}

async fn next<T>(lines: &mut Streaming<T>) -> T {
    let line = tokio::time::timeout(Duration::from_secs(20), lines.message());
    line.await.expect("a line in time").unwrap().expect("a line")
}

/// The times of all flows of an answer that ends.
async fn times(lab: &Lab, request: GetFlowsRequest) -> Vec<i64> {
    let mut lines = lab.client().await.get_flows(request).await.unwrap().into_inner();
    let mut times = Vec::new();
    while let Some(line) = lines.message().await.unwrap() {
        times.push(time_of(&flow_of(line)));
    }
    times
}

fn dropped() -> FlowFilter {
    FlowFilter { verdict: vec![2], ..FlowFilter::default() }
}
