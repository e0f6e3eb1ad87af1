//! Flows to Services: the sender's hook tells the virtual address, the hook behind the translation
//! the backend and the verdict. Here the two become one flow.

use std::{
    collections::{HashMap, VecDeque},
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

/// The sender's end of a flow.
type Sender = (u16, u8, u16);

fn sender(raw: &RawFlow) -> Sender {
    (raw.slot, raw.proto, raw.src_port)
}

#[derive(Debug)]
struct Waiting {
    raw: RawFlow,
    /// Its verdict has come, or its time is over.
    told: bool,
    number: u64,
}

/// Flows whose virtual address is known.
#[derive(Debug, Default)]
pub struct Pending {
    flows: HashMap<Sender, Waiting>,
    /// In the order in which they came; a number that does not match is of a flow that gave way.
    order: VecDeque<(Sender, u64)>,
    /// The first of `order` that may not have been told.
    untold: VecDeque<(Sender, u64)>,
    count: u64,
}

/// A flow to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is known of it, as the sender sees it but for the destination.
    pub raw: RawFlow,
    /// The Service's address, where the destination is a backend.
    pub service: Option<IpAddr>,
}

impl Pending {
    /// Takes an event in, and gives back what is to be told at once, if anything.
    pub fn take(&mut self, raw: RawFlow) -> Option<Told> {
        if raw.kind == EventKind::Pending {
            return self.wait(raw);
        }
        if !raw.translated {
            return Some(Told { raw, service: None });
        }
        let Some(known) = self.find(&raw) else {
            return Some(Told { raw, service: None });
        };
        known.told = true;
        let raw = RawFlow { src: known.raw.src, src_port: known.raw.src_port, ..raw };
        Some(Told { raw, service: known.raw.dst })
    }

    /// Flows whose verdict does not come. `now` is the clock of events.
    pub fn overdue(&mut self, now: u64) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some((sender, number)) = self.untold.front().copied() {
            if let Some(known) = self.flows.get_mut(&sender).filter(|one| one.number == number)
                && !known.told
            {
                if known.raw.time.saturating_add(PATIENCE) > now {
                    break;
                }
                known.told = true;
                told.push(Told { raw: known.raw, service: None });
            }
            self.untold.pop_front();
        }
        while let Some((sender, number)) = self.order.front().copied() {
            let known = self.flows.get(&sender).filter(|one| one.number == number);
            if known.is_some_and(|known| known.raw.time.saturating_add(KEPT) > now) {
                break;
            }
            if known.is_some() {
                self.flows.remove(&sender);
            }
            self.order.pop_front();
        }
        told
    }

    /// Keeps a flow; one that gives way for it without a verdict is told.
    fn wait(&mut self, raw: RawFlow) -> Option<Told> {
        self.count += 1;
        let number = self.count;
        let sender = sender(&raw);
        let mut given_way = self.flows.insert(sender, Waiting { raw, told: false, number });
        self.order.push_back((sender, number));
        self.untold.push_back((sender, number));
        if self.flows.len() > MOST
            && let Some((oldest, number)) = self.order.pop_front()
            && self.flows.get(&oldest).is_some_and(|one| one.number == number)
        {
            given_way = given_way.or(self.flows.remove(&oldest));
        }
        given_way.filter(|one| !one.told).map(|one| Told { raw: one.raw, service: None })
    }

    /// By the sender's port; where that was translated too, the oldest of the pod that waits.
    fn find(&mut self, raw: &RawFlow) -> Option<&mut Waiting> {
        let exact = sender(raw);
        if self.flows.contains_key(&exact) {
            return self.flows.get_mut(&exact);
        }
        let waits = |(sender, number): &&(Sender, u64)| {
            let known = self.flows.get(sender);
            (sender.0, sender.1) == (raw.slot, raw.proto)
                // What keeps its address keeps its port.
                && known.is_some_and(|one| one.number == *number && !one.told && one.raw.src != raw.src)
        };
        let (sender, _) = *self.untold.iter().find(waits)?;
        self.flows.get_mut(&sender)
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
        raw(Event {
            time,
            slot: 5,
            src_port: port,
            dst: addr(8),
            kind: event_kind::PENDING,
            reason: Reason::Pending as u8,
            ..allowed()
        })
    }

    fn judged(src: u8, port: u16) -> RawFlow {
        let flags = EVENT_TRANSLATED;
        raw(Event { slot: 5, src: addr(src), src_port: port, flags, ..allowed() })
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
        assert_eq!(flows.overdue(PATIENCE * 2), []);
        assert_eq!(flows.overdue(KEPT * 2), []);
        assert_eq!(flows.take(judged(1, 40_000)).unwrap().service, None);
        assert!(flows.flows.is_empty() && flows.order.is_empty() && flows.untold.is_empty());
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
}
