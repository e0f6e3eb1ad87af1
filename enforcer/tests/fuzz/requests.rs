//! Requests to the flow server: the messages, what filters make of them, field masks.

use enforcer::hubble::{filter::Filters, origin::Origin};
use enforcer_hubble::{mask::FieldMask, observer::GetFlowsRequest};
use prost::Message as _;

fn read(origin: &Origin, bytes: &[u8]) -> u64 {
    // The same bytes as a mask's paths, and as a message that is to be made smaller.
    let text = String::from_utf8_lossy(bytes);
    let paths: Vec<&str> = text.split(['\n', ',']).take(8).collect();
    let masked = FieldMask::of_flow(&paths).ok().map(|mask| mask.prune(bytes).is_ok());
    let pruned =
        FieldMask::of_flow(&["source.labels", "verdict", "IP.source"]).unwrap().prune(bytes);
    if let Ok(small) = &pruned {
        assert!(small.len() <= bytes.len(), "a mask adds nothing");
    }
    let Ok(request) = GetFlowsRequest::decode(bytes) else {
        return u64::from(pruned.is_ok());
    };
    let again = GetFlowsRequest::decode(&*request.encode_to_vec()).unwrap();
    assert_eq!(again.encode_to_vec(), request.encode_to_vec());
    let filters = Filters::compile(&request.whitelist, &request.blacklist, origin);
    let paths = request.field_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
    let mask = FieldMask::of_flow(paths);
    2 | u64::from(filters.is_ok()) << 2
        | u64::from(mask.is_ok()) << 3
        | u64::from(masked.is_some()) << 4
        | (request.whitelist.len().min(7) as u64) << 5
        | filters.err().map_or(0, |error| (error.to_string().len() as u64) << 8)
}

#[test]
fn requests() {
    let origin = Origin::new("cluster", "node");
    crate::run::run("requests", |bytes| read(&origin, bytes));
}
