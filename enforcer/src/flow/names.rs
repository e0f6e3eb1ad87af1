//! Hubble's names for the kernel's numbers: ICMP types, TCP flags, protocols.

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

/// The name of an ICMP type, as flow summaries print it.
#[must_use]
pub const fn icmp_type(v6: bool, kind: u16) -> Option<&'static str> {
    Some(match (v6, kind) {
        (false, 0) | (true, 129) => "EchoReply",
        (false, 8) | (true, 128) => "EchoRequest",
        (false, 3) | (true, 1) => "DestinationUnreachable",
        (false, 11) | (true, 3) => "TimeExceeded",
        (true, 2) => "PacketTooBig",
        (false, 12) | (true, 4) => "ParameterProblem",
        (false, 5) | (true, 137) => "Redirect",
        (true, 133) => "RouterSolicitation",
        (true, 134) => "RouterAdvertisement",
        (true, 135) => "NeighborSolicitation",
        (true, 136) => "NeighborAdvertisement",
        _ => return None,
    })
}
