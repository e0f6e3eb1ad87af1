//! The server against real sockets.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    server::{HEADER_TIME, MOST_CLIENTS},
    *,
};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An owner that answers with this revision; with none it never answers.
#[derive(Clone, Debug)]
struct Owner(Option<u64>);

impl Scraped for Owner {
    async fn snapshot(&self) -> Option<Snapshot> {
        let Some(revision) = self.0 else { return std::future::pending().await };
        let state = StateSnapshot { revision, ..StateSnapshot::default() };
        Some(Snapshot { state, ..Snapshot::default() })
    }
}

/// A server that ends with the test.
struct Served {
    address: SocketAddr,
    metrics: Metrics,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve_at(address: SocketAddr, owner: Owner) -> Served {
    let server = MetricsServer::bind(address).unwrap();
    let address = server.address().unwrap();
    let metrics = Metrics::new(std::time::Instant::now());
    let task = tokio::spawn(server.serve(metrics.clone(), owner));
    Served { address, metrics, task }
}

fn serve(owner: Owner) -> Served {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), owner)
}

/// Sends bytes and reads until the server closes.
async fn talk(address: SocketAddr, request: &str) -> String {
    let work = async {
        let mut answer = Vec::new();
        // A server that drops a client or goes may reset the connection: what came before counts.
        if let Ok(mut stream) = TcpStream::connect(address).await
            && stream.write_all(request.as_bytes()).await.is_ok()
        {
            let _end = stream.read_to_end(&mut answer).await;
        }
        String::from_utf8(answer).unwrap()
    };
    timeout(PATIENCE, work).await.expect("the server closes in time")
}

async fn get(address: SocketAddr, path: &str, more: &str) -> String {
    talk(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n")).await
}

#[tokio::test]
async fn a_scrape_shows_the_owners_numbers_in_the_format_asked_for() {
    let served = serve(Owner(Some(23)));
    let text = get(served.address, "/metrics?x=y", "").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
    assert!(text.contains("\nenforcer_plan_revision 23\n"), "{text}");
    assert!(text.contains("\n# TYPE enforcer_unprotected_starts_total counter\n"), "{text}");
    assert!(!text.contains("# EOF"), "{text}");
    let more = "Accept: text/plain;q=0.1\r\nAccept: application/openmetrics-text;q=0.5\r\n";
    let text = get(served.address, "/metrics", more).await;
    assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"), "{text}");
    assert!(text.contains("\n# TYPE enforcer_unprotected_starts counter\n"), "{text}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
}

#[tokio::test]
async fn probes_say_why_not() {
    let served = serve(Owner(Some(1)));
    let text = get(served.address, "/readyz", "").await;
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.ends_with("\r\n\r\nthe first complete plan is not in force yet\n"), "{text}");
    served.metrics.health.set_ready(Ok(()));
    assert!(get(served.address, "/readyz", "").await.ends_with("\r\n\r\nok\n"));
    assert!(get(served.address, "/healthz", "").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done_is_refused() {
    let served = serve(Owner(Some(1)));
    assert!(get(served.address, "/", "").await.starts_with("HTTP/1.1 404 "));
    let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let text = talk(served.address, post).await;
    assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("allow: GET, HEAD"), "{text}");
    let head = talk(served.address, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(talk(served.address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let long = format!("X: {}\r\n", "y".repeat(64 << 10));
    let refused = get(served.address, "/metrics", &long).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431 "), "{refused}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_dropped() {
    let served = serve(Owner(Some(1)));
    let started = Instant::now();
    assert_eq!(talk(served.address, "GET /metrics HTTP/1.1\r\nHost:").await, "");
    let lasted = started.elapsed();
    assert!(lasted >= HEADER_TIME - Duration::from_millis(100), "{lasted:?}");
}

#[tokio::test]
async fn those_who_hold_connections_keep_no_probe_out() {
    let served = serve(Owner(Some(1)));
    let mut holders = Vec::new();
    for _ in 0..MOST_CLIENTS * 2 {
        let mut holder = TcpStream::connect(served.address).await.unwrap();
        holder.write_all(b"GET /").await.unwrap();
        holders.push(holder);
    }
    let started = Instant::now();
    assert!(get(served.address, "/healthz", "").await.starts_with("HTTP/1.1 200 "));
    assert!(started.elapsed() < HEADER_TIME / 2, "{:?}", started.elapsed());
    // The oldest was ended for the newer ones, the newest was not.
    let mut byte = [0; 1];
    let oldest = timeout(HEADER_TIME / 2, holders.remove(0).read(&mut byte)).await;
    assert!(oldest.is_ok_and(|read| !matches!(read, Ok(1..))));
    let mut newest = holders.pop().unwrap();
    assert!(timeout(Duration::from_millis(50), newest.read(&mut byte)).await.is_err());
}

#[tokio::test]
async fn a_silent_owner_costs_its_own_numbers_only() {
    let served = serve(Owner(None));
    let text = get(served.address, "/metrics", "").await;
    assert!(text.contains("\nenforcer_unprotected_starts_total 0\n"), "{text}");
    assert!(!text.contains("enforcer_plan_revision"), "{text}");
}

#[tokio::test]
async fn two_agents_share_the_address_and_one_may_go() {
    let first = serve(Owner(Some(1)));
    let second = serve_at(first.address, Owner(Some(2)));
    assert_eq!(first.address, second.address);
    drop(first);
    // The listener goes with its task, which ends when it is next run.
    let until = Instant::now() + PATIENCE;
    let mut answered = 0;
    while answered < 20 {
        assert!(Instant::now() < until, "connections are still lost");
        let text = get(second.address, "/metrics", "").await;
        let served = text.contains("\nenforcer_plan_revision 2\n");
        answered = if served { answered + 1 } else { 0 };
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named() {
    // Reserved for documentation (RFC 5737): no machine has it.
    let nowhere = "192.0.2.1:1".parse().unwrap();
    let error = MetricsServer::bind(nowhere).unwrap_err().to_string();
    assert!(error.starts_with("cannot serve metrics at 192.0.2.1:1; "), "{error}");
}

#[test]
fn the_flag_is_an_address_or_nothing() {
    let parse = |text: &str| text.parse::<MetricsAddress>();
    assert_eq!(parse("").unwrap(), MetricsAddress::Off);
    assert!(matches!(parse(MetricsAddress::DEFAULT).unwrap(), MetricsAddress::At(_)));
    assert_eq!(parse("[::]:80").unwrap().to_string(), "[::]:80");
    for wrong in ["localhost:80", "127.0.0.1", ":80", "127.0.0.1:99999"] {
        let error = parse(wrong).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{wrong:?} is not ADDRESS:PORT; ")), "{error}");
    }
}
