//! A client that tries again and again, and writes a JSON line a try:
//! `{"at": <milliseconds of the epoch>, "ok": true, "ms": 0.4, "server": "pod", "first": true}`,
//! with `error` instead of `server` if it failed. The last line counts:
//! `{"summary": true, "ok": 12, "failed": 1}`.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::arguments::{ConnectOptions, Protocol};

/// Tries that were answered.
static OK: AtomicU64 = AtomicU64::new(0);
/// Tries that were not.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// What is sent, in a line.
const MESSAGE: &[u8] = b"hello\n";

/// Tries until the time is over; the exit code is 0 if every try was answered.
pub(crate) fn run(options: &ConnectOptions) -> i32 {
    let begun = Instant::now();
    let mut held = None;
    for number in 0_u32.. {
        let due = options.interval.saturating_mul(number);
        if options.duration.is_some_and(|duration| number > 0 && due >= duration) {
            break;
        }
        // After a try that took long there is no burst: tries that were missed are missed.
        if let Some(rest) = due.checked_sub(begun.elapsed()) {
            thread::sleep(rest);
        } else if begun.elapsed() > due + options.interval {
            continue;
        }
        attempt(options, &mut held, options.first_act && number == 0);
    }
    summarise();
    i32::from(FAILED.load(Ordering::Relaxed) > 0)
}

/// Writes the last line.
pub(crate) fn summarise() {
    let (ok, failed) = (OK.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    println!("{}", json!({"summary": true, "ok": ok, "failed": failed}));
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
    if !options.hold {
        *held = None;
    }
    let mut line = json!({
        "at": u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        "ok": result.is_ok(),
        "ms": begun.elapsed().as_secs_f64() * 1000.0,
    });
    match result {
        Ok(server) => {
            OK.fetch_add(1, Ordering::Relaxed);
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
    println!("{line}");
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
