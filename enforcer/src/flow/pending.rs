//! Flows to Services: the sender's hook tells the virtual address, the hook behind the translation
//! the backend and the verdict. Here the two become one flow.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::decode::{EventKind, RawFlow};

/// How long the verdict may take, in ns: a first packet waits for an address to be resolved at
/// most. After it the flow is told without: a process of the node has it, or nobody.
const PATIENCE: u64 = 1_500_000_000;
/// How long the virtual address is kept for denials that follow (the sender repeats its packet).
const KEPT: u64 = 60_000_000_000;
/// How many are kept at once.
const MOST: usize = 16_384;
/// How many Services of one sender's port are kept: a resolver asks several from one.
const MOST_OF_ONE: usize = 4;
/// How many waiting flows of a pod are looked at for one whose port was translated.
const MOST_LOOKED_AT: usize = 64;

/// The sender's end of a flow.
type Sender = (u16, u8, u16);

fn sender(raw: &RawFlow) -> Sender {
    (raw.slot, raw.proto, raw.src_port)
}

/// Where a flow goes to.
type Goal = (Option<IpAddr>, u16);

fn goal(raw: &RawFlow) -> Goal {
    (raw.dst, raw.dst_port)
}

#[derive(Debug)]
struct Waiting {
    raw: RawFlow,
    number: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Untold,
    /// Its verdict has come, for this backend.
    Told(Goal),
    /// Its time is over.
    Overdue,
}

/// Flows whose virtual address is known. What is gone or told leaves no trace in the orders, so
/// each of them is as small as the number of flows.
#[derive(Debug, Default)]
pub struct Pending {
    flows: HashMap<Sender, Vec<Waiting>>,
    /// All of them in the order in which they came.
    order: BTreeMap<u64, Sender>,
    /// Those that have not been told.
    untold: BTreeMap<u64, Sender>,
    /// The same by pod and protocol: the ports.
    by_pod: BTreeMap<(u16, u8, u64), u16>,
    count: u64,
    joined: u64,
}

/// A flow to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is known of it, as the sender sees it but for the destination.
    pub raw: RawFlow,
    /// The Service's address, where the destination is a backend.
    pub service: Option<IpAddr>,
}

/// Which flow a verdict belongs to.
enum Match {
    /// This one.
    One(Sender, u64),
    /// One of several to different Services. They stay as they are: one that gets no verdict of
    /// its own is told as it was sent.
    Ambiguous,
    None,
}

impl Pending {
    /// How many verdicts were told as one flow with the event that told the Service.
    #[must_use]
    pub fn joined(&self) -> u64 {
        self.joined
    }

    /// How many flows wait for their verdict.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.untold.len()
    }

    /// Takes an event in, and gives back what is to be told at once, if anything.
    pub fn take(&mut self, raw: RawFlow) -> Option<Told> {
        if raw.kind == EventKind::Pending {
            return self.wait(raw);
        }
        if raw.translated
            && let Match::One(sender, number) = self.find(&raw)
            && let Some(known) = self.set(sender, number, State::Told(goal(&raw)))
        {
            let told = RawFlow { src: known.src, src_port: known.src_port, ..raw };
            return Some(Told { raw: told, service: known.dst });
        }
        Some(Told { raw, service: None })
    }

    /// Flows whose verdict does not come. `now` is the clock of events: all events of before have
    /// been taken in.
    pub fn overdue(&mut self, now: u64) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some((&number, &sender)) = self.untold.first_key_value() {
            if self
                .get(sender, number)
                .is_some_and(|one| one.raw.time.saturating_add(PATIENCE) > now)
            {
                break;
            }
            let known = self.set(sender, number, State::Overdue);
            told.extend(known.map(|raw| Told { raw, service: None }));
        }
        while let Some((&number, &sender)) = self.order.first_key_value() {
            if self.get(sender, number).is_some_and(|one| one.raw.time.saturating_add(KEPT) > now) {
                break;
            }
            self.remove(sender, number);
        }
        told
    }

    /// Keeps a flow; one that gives way for it without a verdict is told.
    fn wait(&mut self, raw: RawFlow) -> Option<Told> {
        let sender = sender(&raw);
        let before = self.flows.get(&sender).map_or(&[][..], Vec::as_slice);
        let same = before.iter().find(|one| goal(&one.raw) == goal(&raw));
        let crowded = before.first().filter(|_| before.len() >= MOST_OF_ONE);
        let gives_way = same.or(crowded).map(|one| (sender, one.number));
        let full = || self.order.first_key_value().filter(|_| self.order.len() >= MOST);
        let gives_way = gives_way.or_else(|| full().map(|(&number, &sender)| (sender, number)));
        let given_way = gives_way.and_then(|(sender, number)| self.remove(sender, number));

        self.count += 1;
        let number = self.count;
        let waiting = Waiting { raw, number, state: State::Untold };
        self.flows.entry(sender).or_default().push(waiting);
        self.order.insert(number, sender);
        self.untold.insert(number, sender);
        self.by_pod.insert((raw.slot, raw.proto, number), raw.src_port);
        given_way
            .filter(|one| one.state == State::Untold)
            .map(|one| Told { raw: one.raw, service: None })
    }

    fn get(&self, sender: Sender, number: u64) -> Option<&Waiting> {
        self.flows.get(&sender)?.iter().find(|one| one.number == number)
    }

    /// Returns whether it was among them.
    fn leave_untold(&mut self, sender: Sender, number: u64) -> bool {
        let waited = self.untold.remove(&number).is_some();
        self.by_pod.remove(&(sender.0, sender.1, number));
        waited
    }

    /// Notes that a flow has been told. Returns what is known of it.
    fn set(&mut self, sender: Sender, number: u64, state: State) -> Option<RawFlow> {
        let waited = self.leave_untold(sender, number);
        self.joined += u64::from(waited && matches!(state, State::Told(_)));
        let flows = self.flows.get_mut(&sender)?;
        let known = flows.iter_mut().find(|one| one.number == number)?;
        known.state = state;
        Some(known.raw)
    }

    fn remove(&mut self, sender: Sender, number: u64) -> Option<Waiting> {
        self.leave_untold(sender, number);
        self.order.remove(&number);
        let flows = self.flows.get_mut(&sender)?;
        let place = flows.iter().position(|one| one.number == number)?;
        let removed = flows.remove(place);
        if flows.is_empty() {
            self.flows.remove(&sender);
        }
        Some(removed)
    }

    fn find(&self, raw: &RawFlow) -> Match {
        let sender = sender(raw);
        match self.flows.get(&sender).map(Vec::as_slice) {
            Some([one]) => Match::One(sender, one.number),
            Some(several) => Self::one_of(several, goal(raw))
                .map_or(Match::Ambiguous, |one| Match::One(sender, one.number)),
            None => self.find_translated(raw),
        }
    }

    /// Of several flows from one port: that which has the backend, or else the one that waits, if
    /// all others have backends of their own.
    fn one_of(flows: &[Waiting], backend: Goal) -> Option<&Waiting> {
        let may_be = |one: &&Waiting| match one.state {
            State::Untold | State::Overdue => true,
            State::Told(other) => other == backend,
        };
        let mut candidates = flows.iter().filter(may_be);
        candidates.next().filter(|_| candidates.next().is_none())
    }

    /// Where the sender's port was translated too: the oldest of the pod that waits.
    fn find_translated(&self, raw: &RawFlow) -> Match {
        let of_pod = (raw.slot, raw.proto, 0)..=(raw.slot, raw.proto, u64::MAX);
        let mut candidates = self
            .by_pod
            .range(of_pod)
            .take(MOST_LOOKED_AT)
            .filter_map(|(&(slot, proto, number), &port)| self.get((slot, proto, port), number))
            // What keeps its address keeps its port.
            .filter(|one| one.raw.src != raw.src);
        let Some(oldest) = candidates.next() else { return Match::None };
        if candidates.all(|one| one.raw.dst == oldest.raw.dst) {
            Match::One(sender(&oldest.raw), oldest.number)
        } else {
            Match::Ambiguous
        }
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{
        abi::{EVENT_TRANSLATED, Event, event_kind},
        reason::Reason,
    };

    use super::*;
    use crate::flow::{
        decode::{decode, tests::image},
        event::tests::{addr, allowed},
    };

    fn raw(event: Event) -> RawFlow {
        decode(&image(&event)).unwrap()
    }

    fn pending(port: u16, time: u64) -> RawFlow {
        pending_to(8, port, time)
    }

    fn pending_to(service: u8, port: u16, time: u64) -> RawFlow {
        raw(Event {
            time,
            slot: 5,
            src_port: port,
            dst: addr(service),
            kind: event_kind::PENDING,
            reason: Reason::Pending as u8,
            ..allowed()
        })
    }

    fn judged(src: u8, port: u16) -> RawFlow {
        let flags = EVENT_TRANSLATED;
        raw(Event { slot: 5, src: addr(src), src_port: port, flags, ..allowed() })
    }

    /// Judged at a backend.
    fn judged_at(backend: u8, port: u16) -> RawFlow {
        let flags = EVENT_TRANSLATED;
        let dst = addr(backend);
        raw(Event { slot: 5, src: addr(1), dst, src_port: port, flags, ..allowed() })
    }

    fn sizes(flows: &Pending) -> [usize; 4] {
        [flows.flows.len(), flows.order.len(), flows.untold.len(), flows.by_pod.len()]
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn the_verdict_is_told_with_the_service_once_and_denials_that_follow_too() {
        let mut flows = Pending::default();
        assert_eq!(flows.take(pending(40_000, 1)), None);
        for _ in 0..2 {
            let told = flows.take(judged(1, 40_000)).unwrap();
            assert_eq!((told.raw.dst, told.service), (Some(ip(2)), Some(ip(8))));
        }
        assert_eq!((flows.joined(), flows.waiting()), (1, 0));
        assert_eq!(flows.overdue(PATIENCE * 2), []);
        assert_eq!(flows.overdue(KEPT * 2), []);
        assert_eq!(flows.take(judged(1, 40_000)).unwrap().service, None);
        assert_eq!(flows.joined(), 1);
        assert_eq!(sizes(&flows), [0; 4]);
    }

    #[test]
    fn without_a_verdict_it_is_told_as_it_was_sent() {
        let mut flows = Pending::default();
        flows.take(pending(40_000, 1));
        flows.take(pending(40_001, 2));
        assert_eq!(flows.overdue(PATIENCE), []);
        let told = flows.overdue(PATIENCE + 1);
        assert_eq!(told, [Told { raw: pending(40_000, 1), service: None }]);
        assert_eq!(flows.overdue(PATIENCE + 2).len(), 1);
        // One that gives way to another from the same port is told as well.
        flows.take(pending(7, 3));
        assert_eq!(flows.take(pending(7, 4)).unwrap().raw.time, 3);
    }

    #[test]
    fn behind_a_masquerade_the_pods_own_end_is_told() {
        let mut flows = Pending::default();
        flows.take(pending(40_000, 1));
        let told = flows.take(judged(7, 61_234)).unwrap();
        assert_eq!((told.raw.src, told.raw.src_port), (Some(ip(1)), 40_000));
        assert_eq!(told.service, Some(ip(8)));
        // Another port of the pod's own address is another flow.
        flows.take(pending(40_001, 1));
        assert_eq!(flows.take(judged(1, 50_000)).unwrap().service, None);
    }

    #[test]
    fn their_number_is_bounded() {
        let mut flows = Pending::default();
        let most = u16::try_from(MOST).unwrap();
        for port in 0..most {
            assert_eq!(flows.take(pending(port, 1)), None);
        }
        assert_eq!(flows.take(pending(most, 1)).unwrap().raw.src_port, 0);
        assert_eq!(flows.flows.len(), MOST);
    }

    #[test]
    fn two_services_from_one_port_are_both_kept() {
        let mut flows = Pending::default();
        flows.take(pending_to(8, 53, 1));
        assert_eq!(flows.take(judged_at(21, 53)).unwrap().service, Some(ip(8)));
        assert_eq!(flows.take(pending_to(9, 53, 2)), None);
        // The other one waits.
        assert_eq!(flows.take(judged_at(22, 53)).unwrap().service, Some(ip(9)));
        for _ in 0..2 {
            assert_eq!(flows.take(judged_at(21, 53)).unwrap().service, Some(ip(8)));
            assert_eq!(flows.take(judged_at(22, 53)).unwrap().service, Some(ip(9)));
        }
        // Nobody has this one.
        assert_eq!(flows.take(judged_at(23, 53)).unwrap().service, None);
        assert_eq!(flows.overdue(PATIENCE * 2), []);
    }

    #[test]
    fn where_it_is_not_clear_which_service_none_is_told() {
        let mut flows = Pending::default();
        flows.take(pending_to(8, 53, 1));
        flows.take(pending_to(9, 53, 1));
        assert_eq!(flows.take(judged_at(21, 53)).unwrap().service, None);
        // Behind a masquerade as well.
        let told = flows.take(judged(7, 61_234)).unwrap();
        assert_eq!((told.raw.src_port, told.service), (61_234, None));
        let told = flows.overdue(PATIENCE * 2);
        assert_eq!(
            told.iter().map(|one| one.raw.dst).collect::<Vec<_>>(),
            [Some(ip(8)), Some(ip(9))]
        );
    }

    #[test]
    fn a_port_keeps_few_services() {
        let mut flows = Pending::default();
        for service in 10..14 {
            assert_eq!(flows.take(pending_to(service, 53, 1)), None);
        }
        assert_eq!(flows.take(pending_to(14, 53, 1)).unwrap().raw.dst, Some(ip(10)));
        assert_eq!(sizes(&flows), [1, MOST_OF_ONE, MOST_OF_ONE, MOST_OF_ONE]);
    }

    #[test]
    fn what_gave_way_leaves_nothing_behind_a_living_one() {
        let mut flows = Pending::default();
        flows.take(pending(1, 1));
        for time in 0..100 {
            flows.take(pending(2, time));
            flows.take(judged(1, 2));
        }
        assert_eq!(sizes(&flows), [2, 2, 1, 1]);
    }

    #[test]
    fn few_waiting_flows_are_looked_at() {
        let mut flows = Pending::default();
        // These kept their address, so they are not meant.
        for port in 0..u16::try_from(MOST_LOOKED_AT).unwrap() {
            flows.take(raw(Event {
                src: addr(7),
                slot: 5,
                src_port: port,
                dst: addr(8),
                kind: event_kind::PENDING,
                reason: Reason::Pending as u8,
                ..allowed()
            }));
        }
        flows.take(pending(40_000, 1));
        assert_eq!(flows.take(judged(7, 61_234)).unwrap().service, None);
        // What is told is not in the way.
        flows.take(judged(7, 0));
        assert_eq!(flows.take(judged(7, 61_234)).unwrap().service, Some(ip(8)));
    }
}
