//! Reads a whole hash map, thousands of elements a system call. Element by element it takes two
//! calls each, which for all flows of a busy node is a large part of a second.

use std::{io, os::fd::AsFd as _};

use aya::{
    Pod,
    maps::{HashMap, IterableMap as _, MapData},
};

use super::{
    bpf::{self, Batch},
    sys,
};

/// Elements of one call, to begin with.
const ELEMENTS: usize = 4_096;

/// Gives `take` every element. What comes or goes meanwhile may be among them or not; every other
/// element is, once.
///
/// # Errors
/// If the kernel does not read the map to its end; `take` has had a part of it then.
pub(super) fn each<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    mut take: impl FnMut(K, V),
) -> io::Result<()> {
    let fd = map.map().fd().as_fd();
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut elements = ELEMENTS;
    let mut from = None;
    loop {
        keys.resize(elements * size_of::<K>(), 0);
        values.resize(elements * size_of::<V>(), 0);
        let buffers = [keys.as_mut_slice(), values.as_mut_slice()];
        let Batch { count, next } = match bpf::look_up_batch(fd, from, buffers, elements) {
            // One bucket has more than there is room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                elements *= 2;
                continue;
            }
            result => result?,
        };
        let keys = keys.chunks_exact(size_of::<K>()).filter_map(sys::value_of);
        let values = values.chunks_exact(size_of::<V>()).filter_map(sys::value_of);
        for (key, value) in keys.zip(values).take(count) {
            take(key, value);
        }
        match next {
            Some(_) => from = next,
            None => return Ok(()),
        }
    }
}
