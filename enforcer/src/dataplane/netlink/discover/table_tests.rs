//! What the table tells, and when it wants to look.

use super::*;

fn link(ifindex: u32, name: &str, kind: &str, peer: PeerNamespace) -> Link {
    Link {
        ifindex,
        name: name.into(),
        kind: kind.into(),
        peer,
        peer_ifindex: Some(2),
        mac: vec![2, 0, 0, 0, 0, u8::try_from(ifindex).unwrap()],
        up: true,
        master: None,
        rx_packets: 0,
        tx_packets: 0,
    }
}

fn veth(ifindex: u32) -> Link {
    link(ifindex, &format!("h{ifindex}"), "veth", PeerNamespace::Id(1))
}

fn found(link: &Link, addresses: &[&str]) -> DiscoveryEvent {
    DiscoveryEvent::Found(Interface {
        ifindex: link.ifindex,
        name: Arc::clone(&link.name),
        peer_addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        kind: Arc::clone(&link.kind),
    })
}

fn told(table: &mut Table) -> Vec<DiscoveryEvent> {
    table.events.drain(..).collect()
}

fn addresses(all: &[&str]) -> Option<Vec<IpAddr>> {
    Some(all.iter().map(|address| address.parse().unwrap()).collect())
}

#[test]
fn an_interface_is_told_at_once_and_again_with_its_addresses() {
    let (mut table, now, link) = (Table::default(), Instant::now(), veth(7));
    table.is(link.clone(), now);
    assert_eq!(told(&mut table), [found(&link, &[])]);
    assert_eq!(table.due(now), [7]);
    table.looked(7, addresses(&[]), now, now);
    assert_eq!(told(&mut table), []);
    table.looked(7, addresses(&["10.0.0.7"]), now, now);
    assert_eq!(told(&mut table), [found(&link, &["10.0.0.7"])]);
    table.looked(7, addresses(&["10.0.0.7", "fd00::7"]), now, now);
    assert_eq!(told(&mut table), [found(&link, &["10.0.0.7", "fd00::7"])]);
    // What cannot be asked keeps what it had.
    table.looked(7, None, now, now);
    assert_eq!(told(&mut table), []);
    table.gone(7);
    assert_eq!(told(&mut table), [DiscoveryEvent::Lost(7)]);
    assert_eq!(table.next_look(), None);
}

/// The times between looks, ms, while `answer` stays the same.
fn waits(answer: &[&str], looks: usize) -> Vec<u128> {
    let (mut table, mut now) = (Table::default(), Instant::now());
    table.is(veth(7), now);
    let mut waits = Vec::new();
    for _ in 0..looks {
        assert_eq!(table.due(now), [7]);
        table.looked(7, addresses(answer), now, now);
        let next = table.next_look().unwrap();
        waits.push((next - now).as_millis());
        assert_eq!(table.due(next - Duration::from_millis(1)), Vec::<u32>::new());
        now = next;
    }
    waits
}

#[test]
fn looks_get_rarer_and_never_end() {
    let settling = [2, 5, 10, 20, 50, 100, 200, 500, 1000];
    assert_eq!(waits(&[], 9), settling);
    assert_eq!(waits(&[], 12)[9..], [1000, 1000, 1000]);
    let mut settled = settling.to_vec();
    settled.extend([30_000, 30_000]);
    assert_eq!(waits(&["10.0.0.7"], 11), settled);
}

#[test]
fn a_change_of_the_link_brings_the_look_forward_but_no_storm_of_them() {
    let (mut table, now) = (Table::default(), Instant::now());
    table.is(veth(7), now);
    for _ in 0..12 {
        table.looked(7, addresses(&["10.0.0.7"]), now, now);
    }
    assert_eq!(table.next_look(), Some(now + SETTLED));
    table.is(veth(7), now);
    assert_eq!(table.next_look(), Some(now + SETTLING[0]));
    table.is(veth(7), now + Duration::from_millis(1));
    assert_eq!(table.next_look(), Some(now + SETTLING[0]));
}

#[test]
fn a_pair_within_the_namespace_matters_once_one_end_has_moved() {
    let (mut table, now) = (Table::default(), Instant::now());
    let here = link(7, "h7", "veth", PeerNamespace::Here);
    table.is(here.clone(), now);
    assert_eq!((told(&mut table), table.next_look()), (vec![], None));
    assert_eq!(table.paired_here_with(2), [7]);
    table.is(veth(7), now);
    assert_eq!(told(&mut table), [found(&here, &[])]);
    assert_eq!(table.paired_here_with(2), Vec::<u32>::new());
    // Its namespace is being torn down: it is still there, and stays whose it is.
    table.looked(7, addresses(&["10.0.0.7"]), now, now);
    table.is(link(7, "h7", "veth", PeerNamespace::Unknown), now);
    assert_eq!(told(&mut table), [found(&here, &["10.0.0.7"])]);
    // The other end came back: this is no pod's interface any more.
    table.is(here, now);
    assert_eq!((told(&mut table), table.next_look()), (vec![DiscoveryEvent::Lost(7)], None));
}

#[test]
fn what_cannot_be_enforced_on_is_told_with_its_kind() {
    let (mut table, now) = (Table::default(), Instant::now());
    let child = link(3, "m3", "macvlan", PeerNamespace::Here);
    let netkit = link(4, "n4", "netkit", PeerNamespace::Id(1));
    for other in [&child, &netkit] {
        table.is(other.clone(), now);
        assert_eq!(told(&mut table), [found(other, &[])]);
    }
    assert_eq!(table.due(now), [4]);
    for kind in ["", "bridge", "dummy", "vxlan"] {
        table.is(link(5, "x", kind, PeerNamespace::Here), now);
        assert_eq!(told(&mut table), []);
    }
}

#[test]
fn an_index_in_new_hands_is_lost_first() {
    let (mut table, now) = (Table::default(), Instant::now());
    table.is(veth(7), now);
    table.is(veth(8), now);
    table.looked(7, addresses(&["10.0.0.7"]), now, now);
    told(&mut table);
    // Told one by one: the kernel says that the old one is gone.
    table.gone(7);
    table.is(veth(7), now);
    assert_eq!(told(&mut table), [DiscoveryEvent::Lost(7), found(&veth(7), &[])]);
    // By another kind.
    let netkit = link(7, "h7", "netkit", PeerNamespace::Id(1));
    table.is(netkit.clone(), now);
    assert_eq!(told(&mut table), [DiscoveryEvent::Lost(7), found(&netkit, &[])]);
    // By a list, in which 8 has another name and 7 is missing.
    let other = Link { name: "other".into(), ..veth(8) };
    table.all(vec![other.clone()], true, now);
    let expected = [DiscoveryEvent::Lost(7), DiscoveryEvent::Lost(8), found(&other, &[])];
    assert_eq!(told(&mut table), expected);
    // A rename that is told as such is the same interface; in a list, if nothing was lost.
    table.is(veth(8), now);
    assert_eq!(told(&mut table), [found(&veth(8), &[])]);
    table.all(vec![other.clone()], false, now);
    assert_eq!(told(&mut table), [found(&other, &[])]);
}

#[test]
fn a_pod_that_makes_looks_slow_gets_few_of_them() {
    let (mut table, since) = (Table::default(), Instant::now());
    table.is(veth(7), since);
    let now = since + Duration::from_millis(50);
    table.looked(7, addresses(&["10.0.0.7"]), since, now);
    assert_eq!(table.next_look(), Some(now + Duration::from_secs(1)));
    // Nor does a change of the link bring it forward.
    table.is(veth(7), now);
    assert_eq!(table.next_look(), Some(now + Duration::from_secs(1)));
}
