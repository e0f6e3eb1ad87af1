//! A client that tries again and again, and writes a JSON line a try:
//! `{"at": <milliseconds of the epoch>, "ok": true, "ms": 0.4, "server": "pod", "first": true}`,
//! with `error` instead of `server` if it failed. The last line counts, and says how long the
//! slowest answer took: `{"summary": true, "ok": 12, "failed": 1, "max_ms": 0.9}`.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::{
    arguments::{ConnectOptions, Outcome, Protocol},
    say,
};

/// Tries that were answered.
static OK: AtomicU64 = AtomicU64::new(0);
/// Tries that were not.
static FAILED: AtomicU64 = AtomicU64::new(0);
/// The longest that an answer took, in microseconds.
static SLOWEST: AtomicU64 = AtomicU64::new(0);

/// What is sent, in a line.
const MESSAGE: &[u8] = b"hello\n";

/// Tries until the time is over; the exit code is 0 if every try came out as expected, which is an
/// answer if nothing else is said.
pub(crate) fn run(options: &ConnectOptions) -> i32 {
    let begun = Instant::now();
    // A scope waits for all of its threads.
    thread::scope(|scope| {
        for client in 0..options.parallel {
            scope.spawn(move || try_again_and_again(options, client, begun));
        }
    });
    summarise();
    let wrong = match options.expect {
        None | Some(Outcome::Ok) => &FAILED,
        Some(Outcome::Failed) => &OK,
    };
    i32::from(wrong.load(Ordering::Relaxed) > 0)
}

/// One of the clients. They begin one after the other, spread over the time between two tries.
fn try_again_and_again(options: &ConnectOptions, client: u32, begun: Instant) {
    let offset = options.interval * client / options.parallel.max(1);
    let (mut held, mut is_first) = (None, client == 0);
    for number in 0_u32.. {
        let due = offset + options.interval.saturating_mul(number);
        if options.duration.is_some_and(|duration| number > 0 && due >= duration) {
            break;
        }
        // After a try that took long there is no burst: tries that were missed are missed.
        if let Some(rest) = due.checked_sub(begun.elapsed()) {
            thread::sleep(rest);
        } else if number > 0 && begun.elapsed() > due + options.interval {
            continue;
        }
        attempt(options, &mut held, options.first_act && is_first);
        is_first = false;
    }
}

/// Writes the last line.
pub(crate) fn summarise() {
    let (ok, failed) = (OK.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    let slowest = Duration::from_micros(SLOWEST.load(Ordering::Relaxed)).as_secs_f64() * 1000.0;
    say::line(&json!({"summary": true, "ok": ok, "failed": failed, "max_ms": slowest}).to_string());
}

/// A connection that is kept.
enum Held {
    Tcp { reader: BufReader<TcpStream>, server: String },
    Udp(UdpSocket),
}

fn attempt(options: &ConnectOptions, held: &mut Option<Held>, first: bool) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let begun = Instant::now();
    let result = exchange(options, held);
    let took = begun.elapsed();
    if !options.hold {
        *held = None;
    }
    let expected = match options.expect {
        None => false,
        Some(Outcome::Ok) => result.is_ok(),
        Some(Outcome::Failed) => result.is_err(),
    };
    let mut line = json!({
        "at": u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        "ok": result.is_ok(),
        "ms": took.as_secs_f64() * 1000.0,
    });
    match result {
        Ok(server) => {
            OK.fetch_add(1, Ordering::Relaxed);
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            SLOWEST.fetch_max(micros, Ordering::Relaxed);
            line["server"] = json!(server);
        }
        Err(error) => {
            FAILED.fetch_add(1, Ordering::Relaxed);
            line["error"] = json!(error.to_string());
        }
    }
    if first {
        line["first"] = json!(true);
    }
    // Standard output is a line at a time: every line is written when it is known.
    if !expected {
        say::line(&line.to_string());
    }
}

/// One question and its answer; gives the server's name. A kept TCP connection that fails stays: what
/// becomes of an established connection is what `--hold` is asked for.
fn exchange(options: &ConnectOptions, held: &mut Option<Held>) -> io::Result<String> {
    let open = match held {
        Some(open) => open,
        None => held.insert(open(options)?),
    };
    match open {
        Held::Tcp { reader, server } => {
            reader.get_mut().write_all(MESSAGE)?;
            line(reader)?;
            Ok(server.clone())
        }
        Held::Udp(socket) => {
            socket.send(MESSAGE)?;
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer)?;
            let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            Ok(answer.split(' ').next().unwrap_or_default().to_owned())
        }
    }
}

fn open(options: &ConnectOptions) -> io::Result<Held> {
    // A limit of zero would mean none.
    let limit = Some(options.timeout.max(Duration::from_millis(1)));
    match options.protocol {
        Protocol::Tcp => {
            let stream = TcpStream::connect_timeout(&options.target, options.timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(limit)?;
            let mut reader = BufReader::new(stream);
            let server = line(&mut reader)?;
            Ok(Held::Tcp { reader, server })
        }
        Protocol::Udp => {
            let own: std::net::IpAddr = if options.target.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let socket = UdpSocket::bind((own, 0))?;
            socket.connect(options.target)?;
            socket.set_read_timeout(limit)?;
            Ok(Held::Udp(socket))
        }
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    match reader.read_line(&mut text)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server")),
        _ => Ok(text.trim_end().to_owned()),
    }
}
