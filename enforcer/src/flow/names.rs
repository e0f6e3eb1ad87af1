//! Hubble's names for the kernel's numbers: ICMP messages, TCP flags, protocols.

use std::fmt;

use super::decode::RawFlow;

/// IP protocol numbers (IANA).
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Bits of byte 13 of the TCP header with Hubble's names, lowest first.
pub const TCP_FLAGS: [(u8, &str); 8] = [
    (1, "FIN"),
    (2, "SYN"),
    (4, "RST"),
    (8, "PSH"),
    (16, "ACK"),
    (32, "URG"),
    (64, "ECE"),
    (128, "CWR"),
];

/// What an ICMP message is, written as Hubble writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Icmp {
    /// Type and code have a name together.
    Named(&'static str),
    /// The type has a name, and no such code.
    Coded(&'static str, u8),
    /// The type has no name.
    Numbers(u8, u8),
}

impl Icmp {
    /// A message of this type and code.
    #[must_use]
    pub fn of(v6: bool, kind: u8, code: u8) -> Self {
        let known = if v6 { ICMPV6 } else { ICMPV4 };
        let Some((_, name, codes)) = known.iter().find(|(number, ..)| *number == kind) else {
            return Self::Numbers(kind, code);
        };
        match codes.get(usize::from(code)) {
            Some(both) => Self::Named(both),
            None if codes.is_empty() && code == 0 => Self::Named(name),
            None => Self::Coded(name, code),
        }
    }
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Coded(name, code) => write!(f, "{name}(Code: {code})"),
            Self::Numbers(kind, code) => write!(f, "{kind}({code})"),
        }
    }
}

/// What the ICMP message of a flow is: type and code stand in the ports' place.
#[must_use]
pub fn icmp(raw: &RawFlow, v6: bool) -> Icmp {
    // One byte each in the packet.
    let [_, kind] = raw.src_port.to_be_bytes();
    let [_, code] = raw.dst_port.to_be_bytes();
    Icmp::of(v6, kind, code)
}

/// A type's number, its name, and the name with each code, from 0, if it has codes.
type IcmpType = (u8, &'static str, &'static [&'static str]);

const ICMPV4: &[IcmpType] = &[
    (0, "EchoReply", &[]),
    (
        3,
        "DestinationUnreachable",
        &[
            "DestinationUnreachable(Net)",
            "DestinationUnreachable(Host)",
            "DestinationUnreachable(Protocol)",
            "DestinationUnreachable(Port)",
            "DestinationUnreachable(FragmentationNeeded)",
            "DestinationUnreachable(SourceRoutingFailed)",
            "DestinationUnreachable(NetUnknown)",
            "DestinationUnreachable(HostUnknown)",
            "DestinationUnreachable(SourceIsolated)",
            "DestinationUnreachable(NetAdminProhibited)",
            "DestinationUnreachable(HostAdminProhibited)",
            "DestinationUnreachable(NetTOS)",
            "DestinationUnreachable(HostTOS)",
            "DestinationUnreachable(CommAdminProhibited)",
            "DestinationUnreachable(HostPrecedence)",
            "DestinationUnreachable(PrecedenceCutoff)",
        ],
    ),
    (4, "SourceQuench", &[]),
    (
        5,
        "Redirect",
        &["Redirect(Net)", "Redirect(Host)", "Redirect(TOS+Net)", "Redirect(TOS+Host)"],
    ),
    (8, "EchoRequest", &[]),
    (9, "RouterAdvertisement", &[]),
    (10, "RouterSolicitation", &[]),
    (
        11,
        "TimeExceeded",
        &["TimeExceeded(TTLExceeded)", "TimeExceeded(FragmentReassemblyTimeExceeded)"],
    ),
    (
        12,
        "ParameterProblem",
        &[
            "ParameterProblem(PointerIndicatesError)",
            "ParameterProblem(MissingOption)",
            "ParameterProblem(BadLength)",
        ],
    ),
    (13, "TimestampRequest", &[]),
    (14, "TimestampReply", &[]),
    (15, "InfoRequest", &[]),
    (16, "InfoReply", &[]),
    (17, "AddressMaskRequest", &[]),
    (18, "AddressMaskReply", &[]),
];

const ICMPV6: &[IcmpType] = &[
    (
        1,
        "DestinationUnreachable",
        &[
            "DestinationUnreachable(NoRouteToDst)",
            "DestinationUnreachable(AdminProhibited)",
            "DestinationUnreachable(BeyondScopeOfSrc)",
            "DestinationUnreachable(AddressUnreachable)",
            "DestinationUnreachable(PortUnreachable)",
            "DestinationUnreachable(SrcAddressFailedPolicy)",
            "DestinationUnreachable(RejectRouteToDst)",
        ],
    ),
    (2, "PacketTooBig", &[]),
    (
        3,
        "TimeExceeded",
        &["TimeExceeded(HopLimitExceeded)", "TimeExceeded(FragmentReassemblyTimeExceeded)"],
    ),
    (
        4,
        "ParameterProblem",
        &[
            "ParameterProblem(ErroneousHeaderField)",
            "ParameterProblem(UnrecognizedNextHeader)",
            "ParameterProblem(UnrecognizedIPv6Option)",
        ],
    ),
    (128, "EchoRequest", &[]),
    (129, "EchoReply", &[]),
    (133, "RouterSolicitation", &[]),
    (134, "RouterAdvertisement", &[]),
    (135, "NeighborSolicitation", &[]),
    (136, "NeighborAdvertisement", &[]),
    (137, "Redirect", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_icmp_message_is_written_with_its_code() {
        for (v6, kind, code, expected) in [
            (false, 8, 0, "EchoRequest"),
            (false, 8, 7, "EchoRequest(Code: 7)"),
            (false, 3, 3, "DestinationUnreachable(Port)"),
            (false, 3, 16, "DestinationUnreachable(Code: 16)"),
            (false, 5, 2, "Redirect(TOS+Net)"),
            (true, 3, 1, "TimeExceeded(FragmentReassemblyTimeExceeded)"),
            (true, 1, 4, "DestinationUnreachable(PortUnreachable)"),
            (true, 137, 0, "Redirect"),
            (true, 8, 0, "8(0)"),
        ] {
            assert_eq!(Icmp::of(v6, kind, code).to_string(), expected);
        }
    }
}
