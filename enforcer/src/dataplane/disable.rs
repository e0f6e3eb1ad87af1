//! Enforcement switched off for a time, by words in pinned maps that the programs read: it ends by
//! itself, whether an agent lives or not, and can be begun without one.

use std::{mem::offset_of, path::Path, sync::atomic::Ordering};

use aya::maps::MapData;
use enforcer_common::abi::{Control, ENDPOINT_SLOTS, Endpoint, MAP_CONTROL, MAP_ENDPOINTS};

use super::{
    DataplaneError, Kernel,
    maps::{SHAPES, failed},
    object::{self, PinPaths},
    sys::SharedArray,
};

/// Sets until when the node is switched off (`CLOCK_MONOTONIC`, ns; 0 for not at all).
fn set_node(control: &SharedArray, until: u64) {
    control.u64(0, offset_of!(Control, disabled_until)).store(until, Ordering::Release);
}

/// The same for an endpoint, if it still is the interface's. Whether it is.
fn set_endpoint(endpoints: &SharedArray, slot: u32, ifindex: u32, until: u64) -> bool {
    let owner = endpoints.u32(slot, offset_of!(Endpoint, ifindex));
    if slot == 0 || slot >= ENDPOINT_SLOTS || owner.load(Ordering::Acquire) != ifindex {
        return false;
    }
    let word = endpoints.u64(slot, offset_of!(Endpoint, disabled_until));
    word.store(until, Ordering::SeqCst);
    if owner.load(Ordering::SeqCst) == ifindex {
        return true;
    }
    // An agent gave the slot to another pod meanwhile, which is not the one that was meant.
    word.store(0, Ordering::SeqCst);
    false
}

/// The pinned switches, for a process that is no agent.
#[derive(Debug)]
pub struct Switches {
    endpoints: SharedArray,
    control: SharedArray,
}

impl Switches {
    /// Opens those of this version's pins; `None` if nothing is pinned.
    ///
    /// # Errors
    /// If the pins cannot be opened or are not this version's.
    pub fn open(bpf_dir: &Path) -> Result<Option<Self>, DataplaneError> {
        let pins = PinPaths::new(bpf_dir);
        let open = |name, entries, stride| {
            let path = pins.maps.join(name);
            if !path.exists() {
                return Ok(None);
            }
            if let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) {
                object::check_pin(&path, shape)?;
            }
            let data = MapData::from_pin(&path).map_err(|source| failed("open", name, source))?;
            SharedArray::map(data.fd(), entries, stride).map(Some)
        };
        let endpoints = open(MAP_ENDPOINTS, ENDPOINT_SLOTS, size_of::<Endpoint>())?;
        let control = open(MAP_CONTROL, 1, size_of::<Control>())?;
        Ok(endpoints.zip(control).map(|(endpoints, control)| Self { endpoints, control }))
    }

    /// Sets until when nothing is dropped on the node (`CLOCK_MONOTONIC`, ns; 0 to enforce).
    pub fn set_node(&self, until: u64) {
        set_node(&self.control, until);
    }

    /// The same for the node and every endpoint.
    pub fn set_everything(&self, until: u64) {
        self.set_node(until);
        for slot in 1..ENDPOINT_SLOTS {
            let ifindex = self.endpoints.u32(slot, offset_of!(Endpoint, ifindex));
            let ifindex = ifindex.load(Ordering::Acquire);
            // One that goes meanwhile needs no switch.
            let _gone = ifindex != 0 && set_endpoint(&self.endpoints, slot, ifindex, until);
        }
    }

    /// The same for an endpoint. `false` if the slot is not the interface's any more.
    #[must_use]
    pub fn set_endpoint(&self, slot: u32, ifindex: u32, until: u64) -> bool {
        set_endpoint(&self.endpoints, slot, ifindex, until)
    }
}

/// What is switched off; times are `CLOCK_MONOTONIC`, ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disabled {
    /// Until when the node is.
    pub node: Option<u64>,
    /// Interfaces and until when they are, by index.
    pub endpoints: Vec<(u32, u64)>,
}

impl Kernel {
    /// What is switched off at `now`.
    #[must_use]
    pub fn disabled(&self, now: u64) -> Disabled {
        let node = self.maps.control.u64(0, offset_of!(Control, disabled_until));
        let node = Some(node.load(Ordering::Acquire)).filter(|until| *until > now);
        let mut endpoints: Vec<_> = self
            .endpoints
            .by_ifindex
            .iter()
            .filter_map(|(ifindex, armed)| {
                let word = offset_of!(Endpoint, disabled_until);
                let until = self.maps.endpoints.u64(armed.slot, word).load(Ordering::Acquire);
                (until > now).then_some((*ifindex, until))
            })
            .collect();
        endpoints.sort_unstable();
        Disabled { node, endpoints }
    }

    /// Slots of armed endpoints by interface index.
    #[must_use]
    pub fn slot(&self, ifindex: u32) -> Option<u32> {
        self.endpoints.by_ifindex.get(&ifindex).map(|armed| armed.slot)
    }

    /// Switches enforcement off on the node until then, or on again with 0.
    pub fn disable_node(&self, until: u64) {
        set_node(&self.maps.control, until);
    }

    /// Switches enforcement off on an interface until then, or on again with 0. `false` if it has
    /// no endpoint.
    #[must_use]
    pub fn disable_endpoint(&self, ifindex: u32, until: u64) -> bool {
        self.slot(ifindex)
            .is_some_and(|slot| set_endpoint(&self.maps.endpoints, slot, ifindex, until))
    }
}
