//! The transport header, and the line about it.

use enforcer_hubble::flow::{IcmPv4, IcmPv6, Layer4, Sctp, Tcp, TcpFlags, Udp, layer4::Protocol};

use crate::flow::{
    decode::RawFlow,
    names::{self, proto},
};

/// The transport header.
pub(super) fn layer4(raw: &RawFlow) -> Option<Layer4> {
    raw.src?;
    let (source_port, destination_port) = (raw.src_port.into(), raw.dst_port.into());
    let (r#type, code) = (source_port, destination_port);
    let protocol = match raw.proto {
        proto::TCP => {
            let flags = Some(tcp_flags(raw.tcp_flags));
            Protocol::Tcp(Tcp { source_port, destination_port, flags })
        }
        proto::UDP => Protocol::Udp(Udp { source_port, destination_port }),
        proto::SCTP => Protocol::Sctp(Sctp { source_port, destination_port }),
        proto::ICMP => Protocol::IcmPv4(IcmPv4 { r#type, code }),
        proto::ICMPV6 => Protocol::IcmPv6(IcmPv6 { r#type, code }),
        _ => return None,
    };
    Some(Layer4 { protocol: Some(protocol) })
}

fn tcp_flags(bits: u8) -> TcpFlags {
    let set = |bit: u8| bits & bit != 0;
    TcpFlags {
        fin: set(1),
        syn: set(2),
        rst: set(4),
        psh: set(8),
        ack: set(16),
        urg: set(32),
        ece: set(64),
        cwr: set(128),
        // The ninth flag is in another byte of the header, which is not told.
        ns: false,
    }
}

/// The packet in a few words.
pub(super) fn summary(raw: &RawFlow) -> String {
    if let Some(ethertype) = raw.ethertype {
        return format!("frame type {ethertype:#06x}");
    }
    let icmp = |v6: bool, name: &str| format!("{name} {}", names::icmp(raw, v6));
    match raw.proto {
        _ if raw.src.is_none() => "not understood".to_owned(),
        proto::TCP => {
            let set = names::TCP_FLAGS.iter().filter(|(bit, _)| raw.tcp_flags & bit != 0);
            let flags: Vec<&str> = set.map(|(_, name)| *name).collect();
            format!("TCP Flags: {}", flags.join(", "))
        }
        proto::UDP => "UDP".to_owned(),
        proto::SCTP => "SCTP".to_owned(),
        proto::ICMP => icmp(false, "ICMPv4"),
        proto::ICMPV6 => icmp(true, "ICMPv6"),
        other => format!("IP protocol {other}"),
    }
}
