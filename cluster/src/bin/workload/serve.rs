//! A server of TCP and UDP that says who it is, then echoes.
//!
//! TCP: the pod's name in a line, then all that comes. UDP: each datagram, with the pod's name and
//! a space before it.

use std::{
    env, fs,
    io::{self, Read, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use crate::{arguments::ServeOptions, say};

/// Starts a thread a port and protocol.
pub(crate) fn start(options: &ServeOptions) -> io::Result<()> {
    let name = name();
    for port in &options.ports {
        let listener = either(|address| TcpListener::bind((address, *port)))?;
        let socket = either(|address| UdpSocket::bind((address, *port)))?;
        let (tcp_name, udp_name) = (name.clone(), name.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = tcp_name.clone();
                // A client that went away is no matter of the server.
                thread::spawn(move || answer(stream, &name).ok());
            }
        });
        thread::spawn(move || echo_datagrams(&socket, &udp_name));
    }
    let ports: Vec<String> = options.ports.iter().map(ToString::to_string).collect();
    say::line(&format!("{name} serves {}", ports.join(", ")));
    Ok(())
}

/// Of IPv6, which takes IPv4 as well, or of IPv4 on a machine without.
fn either<T>(bind: impl Fn(std::net::IpAddr) -> io::Result<T>) -> io::Result<T> {
    bind(Ipv6Addr::UNSPECIFIED.into())
        .or_else(|_error| bind(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("{name}\n").as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else {
            return Ok(());
        };
        stream.write_all(part)?;
    }
}

fn echo_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 65_535];
    loop {
        // An error is about an earlier answer (the client has gone), and so is one of sending.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let said = buffer.get(..length).unwrap_or_default();
            socket.send_to(&[name.as_bytes(), b" ", said].concat(), from).ok();
        }
    }
}

/// The pod's name, which is its host name unless it is told another.
fn name() -> String {
    env::var("POD_NAME").unwrap_or_else(|_unset| {
        fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_error| "unnamed".to_owned(), |name| name.trim().to_owned())
    })
}
