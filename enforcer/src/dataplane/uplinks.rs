//! The program on every interface that is no pod's: where a packet to a Service leaves the node, it
//! is judged for the backend that the translation has given it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
};

use enforcer_common::abi::{CONTROL_UNCOVERED, Direction, PROG_NODE_EGRESS};

use super::{
    AttachMode, DataplaneError, Kernel,
    attach::{self, Link},
    netlink::{links::Links, tc, tcx},
    object::{self, PinPaths},
    remove,
};

/// The direction whose hook is the interface's TC egress.
const OUT: Direction = Direction::Ingress;
/// End of the names of these links' pins.
const SIDE: &str = "-node";

/// What carries the program.
#[derive(Debug, Default)]
pub(super) struct Uplinks {
    links: BTreeMap<u32, Link>,
    uncovered: BTreeMap<u32, Arc<str>>,
    /// Pins of interfaces that went while no agent ran are gone.
    tidy: bool,
}

impl Uplinks {
    /// Whether an interface carries this agent's program.
    pub(super) fn has(&self, ifindex: u32) -> bool {
        self.links.contains_key(&ifindex)
    }

    /// What carries it.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }
}

/// Why interfaces that are no pods' are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover<'a> {
    /// These may be pods', or are about to be: they are left as they are.
    Except(&'a BTreeSet<u32>),
    /// Interfaces came or went, or became pods'.
    Changed,
    /// Another hand may have taken the program away: those that should carry it are asked.
    Displaced,
}

/// What [`Kernel::cover`] did not reach, or reached at last.
#[derive(Debug)]
pub enum Covered {
    /// The program could not be attached: flows to Services are closed where this matters.
    Failed(Arc<str>, DataplaneError),
    /// The program had been taken away and is there again.
    Again(Arc<str>),
    /// Nothing judges what processes of this node get, and why.
    NoInput(String),
}

fn is_gone(ifindex: u32) -> bool {
    Links::open().and_then(|mut links| links.get(ifindex)).is_ok_and(|link| link.is_none())
}

fn path(pins: &PinPaths, ifindex: u32) -> PathBuf {
    pins.links.join(format!("{ifindex}{SIDE}"))
}

impl Kernel {
    /// Has all these interfaces carry the program, but for those that are pods', and no others.
    pub fn cover(
        &mut self,
        interfaces: &BTreeMap<u32, Arc<str>>,
        cover: Cover<'_>,
    ) -> Vec<Covered> {
        let mut told = Vec::new();
        let left = |ifindex: &u32| matches!(cover, Cover::Except(left) if left.contains(ifindex));
        let look = cover == Cover::Displaced;
        told.extend(self.take_in(look).map(Covered::NoInput));
        let wanted: BTreeMap<u32, Arc<str>> = interfaces
            .iter()
            .filter(|(ifindex, _)| !self.attached.contains_key(ifindex) && !left(ifindex))
            .map(|(ifindex, name)| (*ifindex, Arc::clone(name)))
            .collect();
        let have = self.uplinks.links.keys().copied();
        let gone: Vec<u32> =
            have.filter(|have| !wanted.contains_key(have) && !left(have)).collect();
        for ifindex in gone {
            self.uplinks.links.remove(&ifindex);
            self.uncover(ifindex);
        }
        // What is left as it is may still carry an earlier agent's program, by its pin.
        if !matches!(cover, Cover::Except(_)) {
            self.tidy(&wanted);
        }
        let before = std::mem::take(&mut self.uplinks.uncovered);
        for (ifindex, name) in &wanted {
            let known = self.uplinks.links.contains_key(ifindex);
            if known && (!look || self.is_covered(*ifindex)) {
                continue;
            }
            match self.attach_out(*ifindex, name) {
                Ok(link) => {
                    self.uplinks.links.insert(*ifindex, link);
                    if known || before.contains_key(ifindex) {
                        told.push(Covered::Again(Arc::clone(name)));
                    }
                }
                // It went, and that will be told.
                Err(_) if is_gone(*ifindex) => {}
                Err(error) => {
                    self.uplinks.links.remove(ifindex);
                    self.uplinks.uncovered.insert(*ifindex, Arc::clone(name));
                    if !before.contains_key(ifindex) {
                        told.push(Covered::Failed(Arc::clone(name), error));
                    }
                }
            }
        }
        self.set_control(CONTROL_UNCOVERED, !self.uplinks.uncovered.is_empty());
        told
    }

    /// Interfaces by which packets to Services may leave unjudged; pods' flows to Services whose
    /// backends are not all allowed are closed while there are any.
    #[must_use]
    pub fn uncovered(&self) -> Vec<Arc<str>> {
        self.uplinks.uncovered.values().map(Arc::clone).collect()
    }

    fn attach_out(&mut self, ifindex: u32, interface: &str) -> Result<Link, DataplaneError> {
        let place = attach::Place {
            pins: self.pins.as_ref(),
            state_dir: self.state_dir.as_deref(),
            // A pod's filter is not replaced: it goes only with its interface.
            our_programs: &self.outlet_programs,
        };
        let program = object::program(&mut self.ebpf, PROG_NODE_EGRESS)?;
        let link = match self.mode {
            AttachMode::Clsact => attach::clsact(program, &place, ifindex, interface, OUT),
            _ => {
                let path = self.pins.as_ref().map(|pins| path(pins, ifindex));
                attach::tcx(program, path, interface, OUT)
            }
        };
        link.map_err(|source| DataplaneError::Attach { interface: interface.to_owned(), source })
    }

    fn out_program(&mut self) -> Option<u32> {
        let program = object::program(&mut self.ebpf, PROG_NODE_EGRESS).ok()?;
        attach::program_id(program, PROG_NODE_EGRESS).ok()
    }

    fn is_covered(&mut self, ifindex: u32) -> bool {
        let Some(id) = self.out_program() else { return false };
        match self.mode {
            AttachMode::Clsact => tc::filters(ifindex, tc::Parent::Egress)
                .is_ok_and(|all| all.iter().any(|filter| filter.program_id == Some(id))),
            _ => tcx::query(ifindex, tcx::Hook::Egress)
                .is_ok_and(|found| found.programs.contains(&id)),
        }
    }

    /// Takes the program off an interface that is gone, or a pod's now.
    fn uncover(&mut self, ifindex: u32) {
        if let Some(pins) = &self.pins {
            // Gone already is as good, and so is a filter of an interface that is.
            let _gone = remove::delete(&path(pins, ifindex));
        }
        if self.mode == AttachMode::Clsact
            && let Some(id) = self.out_program()
        {
            let _gone = remove::delete_filters(ifindex, &[id]);
            // One that is a pod's now needs its qdisc.
            if let Some(state_dir) = &self.state_dir
                && !self.attached.contains_key(&ifindex)
            {
                // What stays is removed with everything else.
                let _stays = if is_gone(ifindex) {
                    remove::delete(&attach::made_clsact(state_dir, ifindex))
                } else {
                    remove::delete_unused_clsact(ifindex, state_dir)
                };
            }
        }
    }

    /// Removes what earlier agents pinned for interfaces that went.
    fn tidy(&mut self, wanted: &BTreeMap<u32, Arc<str>>) {
        if std::mem::replace(&mut self.uplinks.tidy, true) {
            return;
        }
        if let Some(state_dir) = &self.state_dir {
            // As below.
            let _stays = remove::forget_absent_clsacts(state_dir);
        }
        let Some(pins) = &self.pins else { return };
        let keep: BTreeSet<PathBuf> = wanted.keys().map(|ifindex| path(pins, *ifindex)).collect();
        for pin in remove::entries(&pins.links).unwrap_or_default() {
            let name = pin.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.contains(SIDE) && !keep.contains(&pin) {
                // What stays is a link to nothing.
                let _stays = fs::remove_file(pin);
            }
        }
    }
}
