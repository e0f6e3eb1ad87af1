//! Conversations as tables: who sends what, what becomes of it, and what the flow's entry says then.
//!
//! ```text
//! o S  new  S -     the opener sends a SYN, a new flow is told; its side has sent a SYN
//! r SA pass S SA    the other side answers; the packet passes
//! o A  pass SA SA E the opener acknowledges; the flow counts as established
//! r S  deny SA SA E a SYN of the other side is denied by policy, and changes nothing
//! o R  lone none    passes for itself; there is no entry
//! ```
//!
//! Every script is run four times: over IPv4 and IPv6, with the pod and with its peer as opener.

use enforcer_common::{
    abi::{
        CT_ESTABLISHED, CT_FROM_POD, CtEntry, CtKey4, CtKey6,
        Direction::{self, Egress, Ingress},
    },
    conntrack,
    reason::Reason,
};

use crate::{
    lab::{DROP, FRIEND4, FRIEND6, IFINDEX, Lab, PASS, POD4, POD6, expect},
    packets::{ACK, FIN, Ip, RST, SYN, tcp, udp},
};

/// The opener's port, to which no rule leads.
const OPENER: u16 = 40_000;
/// The other side's, to which rules lead from either side.
const SERVER: u16 = 80;

/// How a script is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) v6: bool,
    /// The pod opens; else its peer does.
    pub(crate) by_pod: bool,
    /// IP protocol, TCP or UDP.
    pub(crate) proto: u8,
}

/// The four ways to run a script.
pub(crate) fn settings(proto: u8) -> impl Iterator<Item = Setting> {
    [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .map(move |(v6, by_pod)| Setting { v6, by_pod, proto })
}

impl Setting {
    /// A packet of the opener, or one back.
    pub(crate) fn packet(&self, opener: bool, flags: u8) -> (Direction, Vec<u8>) {
        let (pod, peer): (Ip, Ip) =
            if self.v6 { (POD6.into(), FRIEND6.into()) } else { (POD4.into(), FRIEND4.into()) };
        let from_pod = opener == self.by_pod;
        let (source, destination) = if from_pod { (pod, peer) } else { (peer, pod) };
        let ports = if opener { (OPENER, SERVER) } else { (SERVER, OPENER) };
        let packet = if self.proto == 17 {
            udp(source, destination, ports)
        } else {
            tcp(source, destination, ports, flags)
        };
        (if from_pod { Egress } else { Ingress }, packet)
    }

    fn ports(&self) -> (u16, u16) {
        if self.by_pod { (OPENER, SERVER) } else { (SERVER, OPENER) }
    }

    fn key4(&self) -> CtKey4 {
        let (local_port, remote_port) = self.ports();
        CtKey4 {
            ifindex: IFINDEX,
            local: u32::from_ne_bytes(POD4),
            remote: u32::from_ne_bytes(FRIEND4),
            local_port,
            remote_port,
            proto: self.proto.into(),
        }
    }

    fn key6(&self) -> CtKey6 {
        let words = |octets| enforcer_common::abi::Addr::from_octets(octets).0;
        let (local_port, remote_port) = self.ports();
        CtKey6 {
            ifindex: IFINDEX,
            local: words(POD6),
            remote: words(FRIEND6),
            local_port,
            remote_port,
            proto: self.proto.into(),
        }
    }

    /// The flow's entry.
    pub(crate) fn entry(&self, lab: &Lab) -> Option<CtEntry> {
        if self.v6 { lab.kernel.flow6(&self.key6()) } else { lab.kernel.flow4(&self.key4()) }
    }

    /// Makes the entry so many seconds older.
    pub(crate) fn age(&self, lab: &mut Lab, seconds: u64) {
        let mut entry = self.entry(lab).expect("a flow");
        entry.last_seen = entry.last_seen.saturating_sub(seconds * conntrack::SECOND);
        let written = if self.v6 {
            lab.kernel.set_flow6(&self.key6(), &entry)
        } else {
            lab.kernel.set_flow4(&self.key4(), &entry)
        };
        written.unwrap();
    }

    /// Runs the lines of a script.
    pub(crate) fn run(&self, lab: &mut Lab, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.step(lab, line);
        }
    }

    fn step(&self, lab: &mut Lab, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [who, sent, fate, ref state @ ..] = words[..] else { panic!("{line}") };
        let (direction, packet) = self.packet(who == "o", tcp_flags(sent));
        let outcome = lab.run(direction, &packet);
        let what = || format!("{line} of {self:?}: {outcome:?}");
        match fate {
            "new" => {
                assert_eq!(outcome.code, PASS, "{}", what());
                expect(&outcome, direction, Reason::Allowed, true);
            }
            "pass" => {
                assert_eq!(outcome.code, PASS, "{}", what());
                assert_eq!(outcome.counted, [], "{}", what());
            }
            "lone" => {
                assert_eq!(outcome.code, PASS, "{}", what());
                assert_eq!(outcome.counted, [(Reason::Allowed, direction, 1)], "{}", what());
                assert_eq!(outcome.told, [], "{}", what());
            }
            "deny" => {
                assert_eq!(outcome.code, DROP, "{}", what());
                expect(&outcome, direction, Reason::PolicyDenied, true);
            }
            other => panic!("{other:?} is no fate: {line}"),
        }
        let entry = self.entry(lab);
        assert_eq!(written(entry), state.join(" "), "{}", what());
        if let Some(entry) = entry {
            assert_eq!(entry.flags & CT_FROM_POD != 0, self.by_pod, "{}", what());
        }
    }
}

fn tcp_flags(letters: &str) -> u8 {
    let flag = |letter| match letter {
        'S' => SYN,
        'A' => ACK,
        'F' => FIN,
        'R' => RST,
        'P' => 0x08,
        'U' => 0x20,
        '.' => 0,
        other => panic!("{other:?} is no flag"),
    };
    letters.chars().map(flag).fold(0, |all, one| all | one)
}

/// What an entry says, as scripts write it.
fn written(entry: Option<CtEntry>) -> String {
    let Some(entry) = entry else { return "none".to_owned() };
    let side = |seen: u8| {
        let letters = [
            (conntrack::SYN, 'S'),
            (conntrack::ACK, 'A'),
            (conntrack::FIN, 'F'),
            (conntrack::RST, 'R'),
        ];
        let letters: String =
            letters.iter().filter(|(bit, _)| seen & bit != 0).map(|(_, letter)| letter).collect();
        match (seen & conntrack::SEEN != 0, letters.is_empty()) {
            (false, _) => "-".to_owned(),
            // Something without a flag that counts.
            (true, true) => "+".to_owned(),
            (true, false) => letters,
        }
    };
    let counted = if entry.flags & CT_ESTABLISHED != 0 { " E" } else { "" };
    format!("{} {}{counted}", side(entry.seen_origin), side(entry.seen_reply))
}
