//! The dump against the kernel's own conntrack, in a namespace that tracks.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::*;
use crate::dataplane::netlink::testing::{Namespace, keep_only_net_admin, sh};

const RULES: &str = "nft -f - <<'END'
table inet nlt {
  chain track { type filter hook input priority 0; ct state invalid drop; }
  chain translate {
    type nat hook output priority -100;
    ip daddr 198.51.100.1 tcp dport 80 dnat ip to 127.0.0.1:8080
  }
}
END";

#[test]
fn connections_are_seen_with_their_translation_and_one_capability() {
    Namespace::new().run(|| {
        sh("ip addr add 10.9.9.1/32 dev lo; ip route add 198.51.100.0/24 dev lo src 10.9.9.1");
        sh(RULES);
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let mut direct = TcpStream::connect("127.0.0.1:8080").unwrap();
        direct.write_all(b"x").unwrap();
        let mut accepted = listener.accept().unwrap().0;
        accepted.read_exact(&mut [0]).unwrap();
        let translated = TcpStream::connect("198.51.100.1:80").unwrap();
        let (first, second) =
            (UdpSocket::bind("[::1]:0").unwrap(), UdpSocket::bind("[::1]:5353").unwrap());
        first.send_to(b"x", second.local_addr().unwrap()).unwrap();
        keep_only_net_admin();

        let flows = dump().unwrap().unwrap();
        let of = |address: std::net::SocketAddr| {
            let found = flows.iter().find(|flow| {
                (flow.orig.source, flow.orig.source_port) == (address.ip(), address.port())
            });
            found.unwrap_or_else(|| panic!("{address} in {flows:?}"))
        };
        let tcp = of(direct.local_addr().unwrap());
        assert_eq!((tcp.orig.protocol, tcp.orig.destination_port), (6, 8080));
        assert_eq!((tcp.seen_reply, tcp.assured, tcp.tcp_state), (true, true, Some(3)));
        assert_eq!((tcp.reply.source, tcp.reply.source_port), (tcp.orig.destination, 8080));
        assert!(tcp.timeout.is_some_and(|seconds| seconds > 60));
        assert_eq!(tcp.zone, 0);

        let dnat = of(translated.local_addr().unwrap());
        assert_eq!(
            (dnat.orig.destination, dnat.orig.destination_port),
            ("198.51.100.1".parse().unwrap(), 80)
        );
        assert_eq!(
            (dnat.reply.source, dnat.reply.source_port),
            ("127.0.0.1".parse().unwrap(), 8080)
        );
        let server = pod_view(dnat, "127.0.0.1".parse().unwrap()).unwrap();
        assert_eq!((server.local_port, server.from_pod), (8080, false));

        let udp = of(first.local_addr().unwrap());
        assert_eq!((udp.orig.protocol, udp.orig.destination_port), (17, 5353));
        assert_eq!((udp.seen_reply, udp.assured, udp.tcp_state), (false, false, None));

        let some = dump_where(|flow| flow.orig.protocol == 17).unwrap().unwrap();
        assert_eq!(some.iter().map(|flow| flow.orig).collect::<Vec<_>>(), [udp.orig]);
        drop(accepted);
    });
}

#[test]
fn without_the_capability_it_is_refused() {
    Namespace::new().run(|| {
        keep_only_net_admin();
        assert!(dump().unwrap().is_some());
        crate::dataplane::netlink::testing::drop_all();
        assert_eq!(dump().unwrap_err().errno(), Some(libc::EPERM));
    });
}
