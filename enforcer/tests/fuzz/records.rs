//! Records of the rings, as programs of this version or another may write them.

use enforcer::flow::decode::decode;
use enforcer_common::abi::{Closed, Event};

fn read(record: &[u8]) -> u64 {
    let sizes = [size_of::<Event>(), size_of::<Closed>()];
    let decoded = decode(record);
    assert_eq!(decoded.is_ok(), sizes.contains(&record.len()), "only records of a known size");
    decoded.map_or(0, |flow| {
        let text = format!("{flow:?}");
        assert!(!text.is_empty());
        text.len() as u64
    })
}

/// Changes of a record's bytes leave its size as it is: others are refused at once.
#[test]
fn records() {
    let mut turn = 0_usize;
    crate::run::run("records", |input| {
        turn += 1;
        let size = [size_of::<Event>(), size_of::<Closed>(), input.len()][turn % 3];
        let mut record = input.to_vec();
        record.resize(size, 0);
        read(&record)
    });
}
