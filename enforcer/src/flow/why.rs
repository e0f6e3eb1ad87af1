//! Why a flow was denied that no rule allows: from what was known of it at its time, worked out
//! only when somebody asks.

use enforcer_common::abi::Direction;

use super::{
    directory::Place,
    event::{DecidedBy, Flow, connection_direction},
};
use crate::policy::nearest::{Denied, NearestMiss, PeerPod, nearest_miss};

impl Flow {
    /// The rule that would have allowed the flow but for one thing, if there is one: of the
    /// policies that isolated its pod when it was denied, against the labels and ports that its
    /// ends had then.
    ///
    /// Nothing is told where the other end was not judged by what the flow shows of it: hidden by
    /// masquerade behind the node's address, or a Service's address that had no backend yet.
    #[must_use]
    pub fn nearest_miss(&self) -> Option<NearestMiss> {
        let DecidedBy::Isolation(isolating) = &self.decided_by else { return None };
        let direction = connection_direction(&self.raw)?;
        let (own, address, peer, place) = match self.raw.direction? {
            Direction::Ingress => {
                (&self.destination, self.raw.src, &self.source, &self.source_place)
            }
            Direction::Egress => {
                (&self.source, self.raw.dst, &self.destination, &self.destination_place)
            }
        };
        if matches!(place, Some(Place::Service(_))) || self.raw.hidden_slot != 0 {
            return None;
        }
        let peer = peer.as_deref().filter(|_| !self.raw.masqueraded);
        let destination = match direction {
            Direction::Ingress => own.as_deref(),
            Direction::Egress => peer,
        };
        nearest_miss(
            isolating.policies(),
            &Denied {
                direction,
                address: address?,
                peer: peer.map(|pod| PeerPod {
                    namespace: &pod.key.namespace,
                    namespace_labels: &pod.namespace_labels,
                    labels: &pod.labels,
                }),
                protocol: self.raw.proto,
                // A reply goes against the connection.
                port: if self.raw.reply { self.raw.src_port } else { self.raw.dst_port },
                names: destination.map_or(&[][..], |pod| &pod.ports),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use enforcer_common::abi::{EVENT_MASQUERADED, EVENT_REPLY, EVENT_TRANSLATED, Event};

    use super::*;
    use crate::{
        cluster::{
            event::{NamedPort, Protocol},
            plan::{NameChange, PodIdentity},
        },
        flow::{
            decode::{decode, tests::image},
            event::{
                enrich,
                tests::{addr, denied, directory, pod, policy},
            },
            pending::Told,
        },
        policy::rule::Isolating,
    };

    const IN: &str = "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web-1}}}], \
                      ports: [{port: db}]}]";
    const OUT: &str = "podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: \
                       {matchLabels: {app: web-1}}}], ports: [{port: db}]}]";

    /// What is told of an event at `shop/db-0`, whose port 5433 is `db`; so is 5434 of `web-1`.
    fn told(event: &Event, service: Option<u8>) -> Option<String> {
        let mut directory = directory();
        let with = |name: &str, number| {
            let mut pod = PodIdentity::clone(&pod("shop", name));
            pod.ports = vec![NamedPort { name: "db".into(), protocol: Protocol::Tcp, number }];
            Arc::new(pod)
        };
        let (own, web) = (with("db-0", 5433), with("web-1", 5434));
        let isolating = [IN, OUT]
            .map(|spec| -> Isolating { [policy("shop", "p", spec)].into_iter().collect() });
        let now = Instant::now();
        directory.apply(&NameChange::Address([10, 0, 0, 1].into(), web), now);
        directory.apply(&NameChange::Address([10, 0, 0, 2].into(), Arc::clone(&own)), now);
        directory.apply(&NameChange::Endpoint(6, "veth6".into(), own, isolating), now);
        let raw = decode(&image(event)).unwrap();
        let service = service.map(|last| [10, 0, 0, last].into());
        let flow = enrich(Told { raw, service }, &directory, Duration::ZERO);
        flow.nearest_miss().map(|miss| miss.to_string())
    }

    #[test]
    fn both_ends_are_as_they_were_at_the_time() {
        let ingress = "shop/p ingress[0] matches the peer; port 5432 is not db (5433 there)";
        assert_eq!(told(&denied(), None).as_deref(), Some(ingress));
        let egress = Event {
            src: addr(2),
            dst: addr(1),
            direction: Direction::Egress as u8,
            flags: EVENT_TRANSLATED,
            ..denied()
        };
        let expected = "shop/p egress[0] matches the peer; port 5432 is not db (5434 there)";
        assert_eq!(told(&egress, None).as_deref(), Some(expected));
        // Behind a Service it is the backend that counts.
        assert_eq!(told(&egress, Some(8)).as_deref(), Some(expected));
    }

    #[test]
    fn a_reply_belongs_to_its_connection() {
        let reply = Event {
            src: addr(2),
            dst: addr(1),
            src_port: 5432,
            dst_port: 40_000,
            direction: Direction::Egress as u8,
            flags: EVENT_REPLY,
            ..denied()
        };
        let expected = "shop/p ingress[0] matches the peer; port 5432 is not db (5433 there)";
        assert_eq!(told(&reply, None).as_deref(), Some(expected));
    }

    #[test]
    fn an_end_that_is_hidden_explains_nothing() {
        let masked = Event { flags: EVENT_MASQUERADED, dst_port: 5433, ..denied() };
        let of_pod = Event { hidden_slot: 3, ..masked };
        assert_eq!(told(&of_pod, None), None);
        let told_of_address = told(&masked, None).unwrap();
        assert!(told_of_address.contains("the address 10.0.0.1 is no pod's"), "{told_of_address}");
        let service = Event { dst: addr(8), direction: Direction::Egress as u8, ..denied() };
        assert_eq!(told(&service, None), None);
        let allowed = Event { rule: 16, ..denied() };
        assert_eq!(told(&allowed, None), None);
    }
}
