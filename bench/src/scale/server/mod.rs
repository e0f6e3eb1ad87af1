//! An API server with a generated cluster in which nothing changes, for an agent to start with. It
//! is a process of its own, so that the agent's memory and processor time are only the agent's.

mod answer;
mod child;
mod objects;

use std::{
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use self::{answer::Asked, objects::Resource};
use super::cluster::{Cluster, Shape};

pub(super) use self::child::Server;

/// How lists are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lists {
    /// As streams, as servers from 1.34 on send them.
    Streamed,
    /// As one answer: streams are refused.
    Whole,
}

/// Bytes that are written at once.
const PIECE: usize = 64 << 10;

/// Serves a cluster until the standard input ends. Says on the standard output where.
pub(crate) fn serve(pods: u32, lists: Lists) -> io::Result<()> {
    let all = Arc::new(objects::all(&Cluster::new(Shape::of(pods))));
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let all = Arc::clone(&all);
            // A client that goes away breaks its own connection only.
            thread::spawn(move || answer(stream, &all, lists).ok());
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink()).map(|_bytes| ())
}

/// Answers one request, and ends the connection with the answer.
fn answer(stream: TcpStream, all: &[Resource], lists: Lists) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let header = header.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let asked = Asked::read(target);
    let mut out = BufWriter::with_capacity(PIECE, &stream);
    let refused = lists == Lists::Whole && asked.is_stream();
    let status = if refused { "422 Unprocessable Entity" } else { "200 OK" };
    write!(
        out,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    )?;
    if refused {
        let said = r#"{"kind":"Status","code":422,"message":"no lists as streams here"}"#;
        out.write_all(said.as_bytes())?;
    } else if method == "GET" {
        asked.write(all, &mut out)?;
    } else {
        // Events are taken, and nobody reads them.
        out.write_all(b"{}")?;
    }
    out.flush()?;
    if asked.is_watch() && !refused {
        stream.set_read_timeout(Some(Duration::from_secs(asked.seconds)))?;
        // Nothing comes until the client goes, or until the watch has lasted long enough.
        reader.fill_buf()?;
    }
    Ok(())
}
