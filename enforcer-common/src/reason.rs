//! Why a packet was passed or dropped: one closed list, shared by counters, events and messages.

/// Declares [`Reason`] and the tables that go with it, so that a new reason cannot be added
/// without its text.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $hubble:literal, $text:literal;)*) => {
        /// The outcome of one packet at one hook.
        ///
        /// The numbers are part of the ABI: counters are indexed by them and events carry them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $value,)*
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The reason with this number, if there is one.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Stable machine name, as used in metrics and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The number of Hubble's `DropReason` that says the same, 0 for reasons that pass.
            #[must_use]
            pub const fn hubble_code(self) -> u32 {
                match self {
                    $(Self::$name => $hubble,)*
                }
            }

            /// One line for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// A rule of a policy allows the flow.
    Allowed = 0, 0, "allowed by a rule";
    /// No policy isolates the pod in this direction.
    NotIsolated = 1, 0, "no policy isolates the pod in this direction";
    /// The pod's own node is the sender (kubelet probes and the like).
    FromNode = 2, 0, "from the pod's own node";
    /// The pod reaches itself through a translation on the node.
    Hairpin = 3, 0, "the pod reaches itself";
    /// An ICMP error about a flow that is allowed.
    Related = 4, 0, "ICMP error about an allowed flow";
    /// A later fragment of a datagram whose first fragment passed.
    Fragment = 5, 0, "later fragment of an allowed datagram";
    /// Address resolution or discovery that every pod needs.
    Discovery = 6, 0, "neighbour discovery or address configuration";
    /// A segment of a connection older than the agent, accepted in the arrival window.
    Pickup = 7, 0, "reply of a connection older than the agent";
    /// A packet of an established flow (never counted: the fast path writes nothing).
    Established = 8, 0, "established flow";
    /// Not understood, and passed because no policy isolates the pod in this direction.
    PassedUnparsed = 9, 0, "not understood; the pod is not isolated in this direction";
    /// To a Service's address: judged for the backend, behind the translation.
    Pending = 10, 0, "to a Service; judged for its backend";

    /// No rule allows it and a policy isolates the pod.
    PolicyDenied = 16, 133, "policy denied";
    /// The source address is not the pod's.
    SpoofedSource = 17, 132, "source address is not the pod's";
    /// Router advertisement, redirect or a neighbour message that a pod must not send.
    ForbiddenIcmpv6 = 18, 176, "ICMPv6 message that a pod must not send";
    /// Frame for another port of the bridge.
    NotForPod = 19, 134, "frame is not for this pod";
    /// The agent attached but has not armed this interface.
    EndpointNotReady = 20, 203, "endpoint policy not in force yet";
    /// Header lengths that contradict each other, or a wrong IP version.
    InvalidHeader = 21, 134, "invalid IP header";
    /// The packet ends before its transport header does.
    Truncated = 22, 135, "truncated transport header";
    /// More or stranger IPv6 extension headers than the parser follows.
    ExtensionHeaders = 23, 156, "IPv6 extension header chain not followed";
    /// A frame type that is neither IP nor ARP.
    UnknownEthertype = 24, 139, "unknown frame type";
    /// A frame with a VLAN tag.
    VlanTagged = 25, 139, "VLAN tag on a pod's interface";
    /// A first fragment without the whole transport header, or one that overlaps the first.
    BadFragment = 26, 157, "malformed or overlapping fragment";
    /// A later fragment whose first fragment was not seen or not allowed.
    FragmentNoFirst = 27, 175, "fragment without its first fragment";
    /// The endpoint's conntrack quota or the table is full.
    ConntrackFull = 28, 155, "conntrack quota is full";
    /// The endpoint is closed because its plan could not be written whole.
    Locked = 29, 165, "policy could not be written whole; new flows are closed";
    /// A Service has a backend that is a process of this node, which policy does not allow, and
    /// others: where the packet goes is decided behind the hook, and nothing could stop it there.
    ServiceNodeBackend = 30, 133, "a backend of the Service is a process of this node that policy denies";
    /// A packet to a Service left the node without having been translated.
    ServiceUntranslated = 31, 158, "nothing translates this Service's address";
    /// An interface of the node has no hook that could judge a Service's backends.
    ServiceUnjudged = 32, 158, "an interface has no hook to judge the Service's backends at";
}

/// First reason that drops. Every smaller number passes.
pub const FIRST_DROP: u8 = 16;

/// Number of counters a direction: one a reason, indexed by its number.
pub const REASON_SLOTS: u32 = 64;

impl Reason {
    /// Whether a packet with this outcome is dropped.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        (self as u8) >= FIRST_DROP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_fit_the_counters() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_u8(*reason as u8), Some(*reason));
            assert!(u32::from(*reason as u8) < REASON_SLOTS, "{reason:?}");
            assert_eq!(reason.is_drop(), reason.hubble_code() != 0, "{reason:?}");
        }
        assert_eq!(Reason::from_u8(15), None);
    }
}
