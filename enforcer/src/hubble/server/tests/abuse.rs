//! Clients that stall, vanish or talk nonsense, and places that are taken.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
};

use enforcer_hubble::flow::LostEventSource;

use super::*;

/// The server still answers, and soon.
async fn answers(lab: &Lab) {
    let begun = Instant::now();
    let newest = GetFlowsRequest { number: 1, ..GetFlowsRequest::default() };
    assert_eq!(times(lab, newest).await.len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nonsense_harms_nobody() {
    let lab = Lab::new(10);
    lab.push(0..5);
    let mut silent = Vec::new();
    for text in [
        &b""[..],
        b"{\"observe\":{}}\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 4096],
        // The right beginning, and then nonsense.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = UnixStream::connect(lab.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // It may be hung up on before all is written.
        let _written = stream.write_all(text);
        if text.len() > 20 {
            // What is no HTTP/2 is hung up on at once.
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer);
        } else {
            silent.push(stream);
        }
        answers(&lab).await;
    }
    drop(silent);
}

#[tokio::test]
async fn a_stalled_client_learns_what_it_missed_and_holds_up_nobody() {
    let lab = Lab::new(1000);
    lab.push(0..1000);
    let mut client = lab.client().await;
    let from_all = GetFlowsRequest {
        follow: true,
        since: Some(prost_types::Timestamp::default()),
        ..GetFlowsRequest::default()
    };
    let mut stalled = client.get_flows(from_all).await.unwrap().into_inner();
    assert_eq!(time_of(&flow_of(next(&mut stalled).await)), 0);
    // It does not read while far more comes than can wait for it.
    for part in 0..60 {
        lab.push(1000 + part * 1000..2000 + part * 1000);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    answers(&lab).await;
    let (mut seen, mut lost) = (1, 0);
    let mut last = 0;
    while last < 60_999 {
        let line = next(&mut stalled).await;
        match line.response_types {
            Some(ResponseTypes::Flow(flow)) => {
                let time = time_of(&flow);
                assert!(time > last, "{time} after {last}");
                (seen, last) = (seen + 1, time);
            }
            _ => {
                let loss = loss_of(line);
                assert_eq!(loss.source(), LostEventSource::HubbleRingBuffer);
                lost += loss.num_events_lost;
            }
        }
    }
    // What is not told of yet comes within a second.
    while seen + lost < 61_000 {
        lost += loss_of(next(&mut stalled).await).num_events_lost;
    }
    assert_eq!(seen + lost, 61_000);
    assert!(lost > 0, "nothing was lost: the client did not stall");
    assert_eq!(lab.lost_by_clients.get(), lost, "counted for metrics");
}

#[tokio::test]
async fn losses_before_the_ring_are_told() {
    let lab = Lab::new(10);
    lab.lost.store(5, Ordering::Relaxed);
    let mut client = lab.client().await;
    lab.push(0..1);
    let follow = GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() };
    let mut lines = client.get_flows(follow).await.unwrap().into_inner();
    assert_eq!(time_of(&flow_of(next(&mut lines).await)), 0);
    lab.lost.store(12, Ordering::Relaxed);
    lab.push(2..3);
    assert_eq!(time_of(&flow_of(next(&mut lines).await)), 2);
    let loss = loss_of(next(&mut lines).await);
    assert_eq!((loss.source(), loss.num_events_lost), (LostEventSource::PerfEventRingBuffer, 7));
}

#[tokio::test]
async fn clients_that_left_make_room() {
    let lab = Lab::new(10);
    lab.push(0..1);
    for _ in 0..20 {
        // More than are served at a time, all in all.
        for _ in 0..16 {
            let mut client = lab.client().await;
            let follow = GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() };
            let mut lines = client.get_flows(follow).await.unwrap().into_inner();
            next(&mut lines).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answers(&lab).await;
}

#[tokio::test]
async fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
    let mut lab = Lab::new(10);
    let socket = lab.socket();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let observed = || Observed {
        origin: Origin::new("default", "w1"),
        flows: FlowRing::new(1),
        events: EventRing::default(),
        nodes: lab.nodes.subscribe(),
        lost_in_kernel: Arc::default(),
        lost_by_clients: Counter::default(),
    };
    let config = |socket: &PathBuf| Config { socket: socket.clone(), tcp: None };
    let error = start(config(&socket), observed()).unwrap_err().to_string();
    assert!(error.contains("another process listens there"), "{error}");
    let other = observed();
    lab.server = None;
    assert!(!socket.exists());
    // What a killed agent leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    drop(start(config(&socket), other.clone()).unwrap());
    std::fs::write(&socket, "").unwrap();
    let error = start(config(&socket), other.clone()).unwrap_err().to_string();
    assert!(error.contains("it is there and no socket"), "{error}");
    let nowhere = lab.dir.path().join("no/such/folder.sock");
    let error = start(config(&nowhere), other).unwrap_err();
    assert!(matches!(error, ListenError::Unix { what: "listen on", .. }), "{error}");
}
