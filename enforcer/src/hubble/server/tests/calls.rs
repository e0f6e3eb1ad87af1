//! Each call.

use enforcer_hubble::{
    observer::{
        GetAgentEventsRequest, GetDebugEventsRequest, GetNamespacesRequest, GetNodesRequest,
        ServerStatusRequest,
    },
    peer::{ChangeNotificationType, NotifyRequest, peer_client::PeerClient},
    relay::NodeState,
};
use prost_types::FieldMask;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;
use crate::hubble::{convert::timestamp, events::AgentEvent};

#[tokio::test]
async fn flows_are_chosen_from_either_end() {
    let lab = Lab::new(1000);
    lab.push(1..8);
    let all = GetFlowsRequest::default();
    let at = |ns: i64| Some(timestamp(BASE + ns));
    for (request, expected) in [
        (all.clone(), &[1, 2, 3, 4, 5, 6, 7][..]),
        (GetFlowsRequest { number: 2, ..all.clone() }, &[6, 7]),
        (GetFlowsRequest { number: 2, first: true, ..all.clone() }, &[1, 2]),
        (GetFlowsRequest { number: 2, whitelist: vec![dropped()], ..all.clone() }, &[5, 7]),
        (GetFlowsRequest { number: 2, blacklist: vec![dropped()], ..all.clone() }, &[4, 6]),
        (
            GetFlowsRequest { number: 1, first: true, blacklist: vec![dropped()], ..all.clone() },
            &[2],
        ),
        (GetFlowsRequest { since: at(3), until: at(5), ..all.clone() }, &[3, 4, 5]),
        (GetFlowsRequest { since: at(3), number: 2, ..all.clone() }, &[6, 7]),
        (GetFlowsRequest { number: 99, ..all.clone() }, &[1, 2, 3, 4, 5, 6, 7]),
        (GetFlowsRequest { since: at(99), ..all }, &[]),
    ] {
        assert_eq!(times(&lab, request.clone()).await, expected, "{request:?}");
    }
}

#[tokio::test]
async fn the_newest_are_found_among_many() {
    let lab = Lab::new(5000);
    lab.push(0..6000);
    let newest = GetFlowsRequest { number: 1000, ..GetFlowsRequest::default() };
    assert_eq!(times(&lab, newest).await, (5000..6000).collect::<Vec<i64>>());
    let odd =
        GetFlowsRequest { number: 700, whitelist: vec![dropped()], ..GetFlowsRequest::default() };
    let expected: Vec<i64> = (5999 - 2 * 699..6000).step_by(2).collect();
    assert_eq!(times(&lab, odd).await, expected);
    assert_eq!(times(&lab, GetFlowsRequest::default()).await.len(), 5000);
}

#[tokio::test]
async fn a_follower_gets_what_comes_and_ends_in_time() {
    let lab = Lab::new(1000);
    lab.push(1..4);
    let mut client = lab.client().await;
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let last = GetFlowsRequest { number: 1, ..follow.clone() };
    let mut lines = client.get_flows(last).await.unwrap().into_inner();
    assert_eq!(time_of(&flow_of(next(&mut lines).await)), 3);
    let mut from_now = client.get_flows(follow.clone()).await.unwrap().into_inner();
    // The server has taken the request up when it answers the next one.
    client.server_status(ServerStatusRequest {}).await.unwrap();
    let begun = Instant::now();
    lab.push(4..6);
    for expected in [4, 5] {
        assert_eq!(time_of(&flow_of(next(&mut lines).await)), expected);
        assert_eq!(time_of(&flow_of(next(&mut from_now).await)), expected);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    let until = Some(timestamp(now() + 200_000_000));
    let mut ends =
        client.get_flows(GetFlowsRequest { until, ..follow }).await.unwrap().into_inner();
    let end = tokio::time::timeout(Duration::from_secs(20), ends.message()).await;
    assert!(end.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn a_mask_leaves_the_fields_that_are_asked_for() {
    let lab = Lab::new(10);
    lab.push(1..2);
    let mask = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        GetFlowsRequest { field_mask: Some(FieldMask { paths }), ..GetFlowsRequest::default() }
    };
    let mut client = lab.client().await;
    let request = mask(&["verdict", "source.pod_name", "l4.TCP.destination_port"]);
    let mut lines = client.get_flows(request).await.unwrap().into_inner();
    let line = next(&mut lines).await;
    assert_eq!(line.node_name, "default/w1");
    let flow = flow_of(line);
    assert_eq!((flow.verdict, &*flow.source.unwrap().pod_name), (2, "web-1"));
    assert!(flow.time.is_none() && flow.summary.is_empty() && flow.destination.is_none());

    let error = client.get_flows(mask(&["source.podname"])).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().ends_with("(did you mean pod_name?)"), "{}", error.message());
}

#[tokio::test]
async fn what_means_nothing_is_an_invalid_argument() {
    let lab = Lab::new(10);
    let mut client = lab.client().await;
    let both = GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() };
    let wrong = FlowFilter { protocol: vec!["tpc".into()], ..FlowFilter::default() };
    let filter = GetFlowsRequest { whitelist: vec![wrong], ..GetFlowsRequest::default() };
    let time = prost_types::Timestamp { seconds: 0, nanos: -1 };
    let time = GetFlowsRequest { since: Some(time), ..GetFlowsRequest::default() };
    for (request, part) in
        [(both, "first cannot"), (filter, "(did you mean tcp?)"), (time, "since is no time")]
    {
        let error = client.get_flows(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(part), "{}", error.message());
    }
}

#[tokio::test]
async fn status_namespaces_nodes_and_version() {
    let lab = Lab::new(4);
    lab.push(0..6);
    lab.nodes(&[("w1", "10.0.0.1"), ("w2", "10.0.0.2")]);
    let mut client = lab.client().await;
    let response = client.server_status(ServerStatusRequest {}).await.unwrap();
    assert_eq!(
        response.metadata().get("hubble-server-version").unwrap(),
        env!("CARGO_PKG_VERSION")
    );
    let status = response.into_inner();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (4, 4, 6));
    assert_eq!(status.version, concat!("enforcer v", env!("CARGO_PKG_VERSION")));
    assert!(status.uptime_ns > 0 && status.num_connected_nodes.is_none());
    // The flows are of 2023.
    assert!(status.flows_rate.abs() < f64::EPSILON);

    let namespaces = client.get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner();
    let names: Vec<_> =
        namespaces.namespaces.iter().map(|n| (&*n.cluster, &*n.namespace)).collect();
    assert_eq!(names, [("default", "shop")]);

    // Without a port of its own only this node can be asked, over its socket.
    let nodes = client.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!(
        (nodes.len(), &*nodes[0].name, nodes[0].state()),
        (1, "w1", NodeState::NodeConnected)
    );
    assert_eq!((nodes[0].seen_flows, &*nodes[0].version), (6, &*status.version));
    assert_eq!(nodes[0].address, format!("unix://{}", lab.socket().display()));

    let error = client.get_debug_events(GetDebugEventsRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_rate_is_of_the_last_minute() {
    let lab = Lab::new(100);
    let ago = |seconds: i64| u64::try_from(now() - BASE - seconds * 1_000_000_000).unwrap();
    for seconds in [300, 200, 50, 40, 30] {
        lab.flows.push(flow(&Event { time: ago(seconds), ..allowed() }));
    }
    let mut client = lab.client().await;
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert!((status.flows_rate - 0.05).abs() < 1e-9, "{}", status.flows_rate);
    // What is kept reaches back 10 s only.
    for _ in 0..100 {
        lab.flows.push(flow(&Event { time: ago(10), ..allowed() }));
    }
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert!((5.0..10.1).contains(&status.flows_rate), "{}", status.flows_rate);
}

#[tokio::test]
async fn events_of_the_agent_are_kept_and_followed() {
    let lab = Lab::new(10);
    lab.events.push_at(1, AgentEvent::Started);
    let insight = |text: &str| AgentEvent::Insight { kind: "port-scan", text: text.into() };
    for (time, text) in [(2, "a"), (3, "b")] {
        lab.events.push_at(time, insight(text));
    }
    let mut client = lab.client().await;
    let all = GetAgentEventsRequest::default();
    for (request, expected) in [
        (all, &[1, 2, 3][..]),
        (GetAgentEventsRequest { number: 2, ..all }, &[2, 3]),
        (GetAgentEventsRequest { number: 2, first: true, ..all }, &[1, 2]),
        (GetAgentEventsRequest { since: Some(timestamp(2)), ..all }, &[2, 3]),
    ] {
        let mut lines = client.get_agent_events(request).await.unwrap().into_inner();
        let mut nanos = Vec::new();
        while let Some(line) = lines.message().await.unwrap() {
            nanos.push(line.time.unwrap().nanos);
        }
        assert_eq!(nanos, expected);
    }
    let follow = GetAgentEventsRequest { number: 1, follow: true, ..all };
    let mut lines = client.get_agent_events(follow).await.unwrap().into_inner();
    assert_eq!(next(&mut lines).await.time.unwrap().nanos, 3);
    lab.events.push_at(4, insight("c"));
    let event = next(&mut lines).await;
    assert_eq!((event.time.unwrap().nanos, &*event.node_name), (4, "default/w1"));
}

async fn channel(lab: &Lab) -> Channel {
    let socket = format!("unix://{}", lab.socket().display());
    Endpoint::from_shared(socket).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn peers_are_told_and_every_change_of_them() {
    let any = "127.0.0.1:0".parse().unwrap();
    let lab = Lab::listening(10, Some((any, Security::Insecure)));
    lab.nodes(&[("w1", "10.0.0.1"), ("w2", "10.0.0.2")]);
    let port = lab.server.as_ref().unwrap().tcp().unwrap().port();
    let mut client = PeerClient::new(channel(&lab).await);
    let mut lines = client.notify(NotifyRequest {}).await.unwrap().into_inner();
    for (name, address) in [("w1", "10.0.0.1"), ("w2", "10.0.0.2")] {
        let peer = next(&mut lines).await;
        assert_eq!(peer.r#type(), ChangeNotificationType::PeerAdded);
        assert_eq!((&*peer.name, peer.address), (name, format!("{address}:{port}")));
        assert_eq!(peer.tls, None);
    }
    lab.nodes(&[("w2", "10.0.0.9")]);
    // Without its object the node is still where it listens.
    for (name, address) in [("w1", "127.0.0.1"), ("w2", "10.0.0.9")] {
        let changed = next(&mut lines).await;
        assert_eq!(changed.r#type(), ChangeNotificationType::PeerUpdated);
        assert_eq!((&*changed.name, changed.address), (name, format!("{address}:{port}")));
    }
    lab.nodes(&[("w1", "10.0.0.1")]);
    let (changed, gone) = (next(&mut lines).await, next(&mut lines).await);
    let told = [changed, gone].map(|change| (change.r#type(), change.name));
    assert!(told.contains(&(ChangeNotificationType::PeerDeleted, "w2".to_owned())), "{told:?}");

    let nodes = lab.client().await.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!((nodes.len(), nodes[0].state()), (1, NodeState::NodeConnected));
}

#[tokio::test]
async fn health_is_told_by_the_names_that_clients_ask_for() {
    let lab = Lab::new(10);
    let mut client = HealthClient::new(channel(&lab).await);
    for name in ["", "hubble.server.Observer", "observer.Observer", "peer.Peer"] {
        let request = HealthCheckRequest { service: name.to_owned() };
        let health = client.check(request).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving, "{name}");
    }
    let request = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(client.check(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn services_can_be_listed() {
    let lab = Lab::new(10);
    let mut client = ServerReflectionClient::new(channel(&lab).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = tokio_stream::iter([request]);
    let mut lines = client.server_reflection_info(asked).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(listed)) =
        next(&mut lines).await.message_response
    else {
        panic!("no list");
    };
    let names: Vec<_> = listed.service.iter().map(|service| &*service.name).collect();
    for name in ["observer.Observer", "peer.Peer", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
}
