//! Records of endpoints that cannot be written, or not whole.

use std::net::{IpAddr, Ipv4Addr};

use enforcer::cluster::plan::{EndpointPlan, Plan};

use crate::lab::{IFINDEX, Lab, TABLE, endpoint};

const BOTH: [bool; 2] = [true, true];
/// More than `POD_ADDRS` has room for.
const TOO_MANY: u32 = 65_600;

#[test]
fn a_record_that_is_tried_again_keeps_its_slot_and_leaves_others_the_room() {
    let mut lab = Lab::strict();
    lab.plan(Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() });
    let first = u32::from(Ipv4Addr::new(10, 1, 0, 0));
    let addresses = (first..first + TOO_MANY).map(|ip| IpAddr::from(Ipv4Addr::from(ip)));
    let broad = EndpointPlan { addresses: addresses.collect(), ..endpoint(TABLE, BOTH, false) };
    let applied = lab.kernel.apply(&Plan { endpoints_set: vec![broad.clone()], ..Plan::default() });
    assert!(applied.failures.iter().any(|one| one.contains("POD_ADDRS")), "{applied:?}");
    for _ in 0..2 {
        assert!(!lab.kernel.retry().failures.is_empty());
    }
    assert_eq!(lab.kernel.slot(IFINDEX), None);
    // The natural slot of the first interface is 1.
    lab.plan(Plan { endpoints_set: vec![endpoint(TABLE, BOTH, false)], ..Plan::default() });
    assert_eq!(lab.kernel.slot(IFINDEX), Some(1));
    // One that goes before its record could be written leaves nothing behind.
    lab.plan(Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() });
    let applied = lab.kernel.apply(&Plan { endpoints_set: vec![broad], ..Plan::default() });
    assert!(!applied.failures.is_empty());
    lab.plan(Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() });
    lab.plan(Plan { endpoints_set: vec![endpoint(TABLE, BOTH, false)], ..Plan::default() });
    assert_eq!(lab.kernel.slot(IFINDEX), Some(1));
}
