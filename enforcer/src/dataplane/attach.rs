//! Programs on interfaces: TCX where the kernel has it, clsact otherwise.
//!
//! A TCX link is pinned, so it outlives the agent and is taken over by one atomic update. A
//! clsact filter outlives the agent by itself; the next agent knows it as ours by the id of the
//! pinned program and replaces it in place.

use std::{
    ffi::OsString,
    fs, io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact},
    },
};
use clap::ValueEnum;
use enforcer_common::abi::{Direction, PROG_NODE_EGRESS, PROG_POD_EGRESS, PROG_POD_INGRESS};

use super::{
    DataplaneError,
    kept::Kept,
    netlink::{tc, tcx},
    object::{self, PinPaths},
    remove::delete,
};

/// The object's programs.
pub(super) const PROGRAMS: [&str; 3] = [PROG_POD_EGRESS, PROG_POD_INGRESS, PROG_NODE_EGRESS];

/// How programs get onto interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachMode {
    /// TCX where the kernel has it (6.6 and later), else clsact
    #[default]
    Auto,
    /// TCX links
    Tcx,
    /// clsact filters
    Clsact,
}

impl AttachMode {
    /// What `Auto` means on this kernel.
    pub(super) fn resolve(self) -> Self {
        match self {
            // A kernel without TCX does not know what to look for on the loopback interface.
            Self::Auto if tcx::query(1, tcx::Hook::Ingress).is_ok() => Self::Tcx,
            Self::Auto => Self::Clsact,
            other => other,
        }
    }
}

/// The hook of a direction, on the host's side of the pod's link.
const fn hook(direction: Direction) -> (TcAttachType, &'static str) {
    match direction {
        Direction::Egress => (TcAttachType::Ingress, PROG_POD_EGRESS),
        Direction::Ingress => (TcAttachType::Egress, PROG_POD_INGRESS),
    }
}

/// One program on one interface.
#[derive(Debug)]
pub(super) enum Link {
    /// Pinned.
    Tcx(Kept),
    /// Without a path in a load without pins: the link lives as long as the agent.
    Held(#[expect(dead_code, reason = "held so that it lives")] SchedClassifierLink),
    /// A filter. Dropping the library's link would detach it, and enforcement must outlive us.
    Clsact(
        #[expect(dead_code, reason = "held so that it lives")] ManuallyDrop<SchedClassifierLink>,
    ),
}

impl Link {
    /// Its pin, if it has one.
    pub(super) fn kept(&self) -> Option<&Kept> {
        match self {
            Self::Tcx(kept) => Some(kept),
            Self::Held(_) | Self::Clsact(_) => None,
        }
    }
}

/// Both programs of an interface.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) links: Vec<Link>,
}

/// Name of the program that judges a direction.
pub(super) const fn program_name(direction: Direction) -> &'static str {
    hook(direction).1
}

fn link_path(pins: &PinPaths, ifindex: u32, direction: Direction) -> PathBuf {
    let side = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    pins.links.join(format!("{ifindex}-{side}"))
}

/// Pins of both links of an interface, and those that were about to take their place.
pub(super) fn link_paths(pins: &PinPaths, ifindex: u32) -> Vec<PathBuf> {
    let paths = Direction::BOTH.map(|direction| link_path(pins, ifindex, direction));
    paths.into_iter().flat_map(|path| [draft(&path), path]).collect()
}

/// Where attachments are remembered, and what an earlier agent's are known by.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// Pins of links.
    pub(super) pins: Option<&'a PinPaths>,
    /// Notes of qdiscs.
    pub(super) state_dir: Option<&'a Path>,
    /// Programs that are ours: this agent's, and those of the agent before.
    pub(super) our_programs: &'a [u32],
}

/// Attaches both programs, or takes over what an earlier agent attached.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    place: &Place<'_>,
    mode: AttachMode,
    ifindex: u32,
    interface: &str,
) -> Result<Attachment, DataplaneError> {
    let mut links = Vec::new();
    // What the pod sends first: its replies make the entries that its requests need.
    for direction in [Direction::Egress, Direction::Ingress] {
        let (_, name) = hook(direction);
        let program = object::program(ebpf, name)?;
        let link = match mode {
            AttachMode::Clsact => clsact(program, place, ifindex, interface, direction),
            _ => {
                let path = place.pins.map(|pins| link_path(pins, ifindex, direction));
                tcx(program, path, interface, direction)
            }
        };
        links.push(link.map_err(|source| DataplaneError::Attach {
            interface: interface.to_owned(),
            source,
        })?);
    }
    Ok(Attachment { links })
}

pub(super) type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn tcx(
    program: &mut SchedClassifier,
    path: Option<PathBuf>,
    interface: &str,
    direction: Direction,
) -> Result<Link, AnyError> {
    let (hook, _) = hook(direction);
    let Some(path) = path else {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface, hook, options)?;
        return Ok(Link::Held(program.take_link(id)?));
    };
    // What is pinned goes only when something else is in its place, pinned as well: there is no
    // moment at which an agent could die and leave the interface open.
    let draft = draft(&path);
    if updated(program, &path)? {
        delete(&draft)?;
        return Ok(Link::Tcx(Kept::open(path)?));
    }
    if !updated(program, &draft)? {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface, hook, options)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        delete(&draft)?;
        link.pin(&draft)?;
    }
    fs::rename(&draft, &path)?;
    Ok(Link::Tcx(Kept::open(path)?))
}

/// Name of a pin that is about to take another's place.
fn draft(path: &Path) -> PathBuf {
    // bpffs takes no dots in names.
    path.with_file_name(path.file_name().map_or_else(OsString::new, |name| {
        let mut name = name.to_owned();
        name.push("-new");
        name
    }))
}

/// Puts the program on the link that is pinned there. `false` if there is none, or the update
/// fails: that of an interface that went, which had the same index, is on nothing.
fn updated(program: &mut SchedClassifier, path: &Path) -> Result<bool, AnyError> {
    let Ok(pinned) = PinnedLink::from_pin(path) else {
        return Ok(false);
    };
    let Ok(link) = SchedClassifierLink::try_from(FdLink::from(pinned)) else {
        return Ok(false);
    };
    let Ok(id) = program.attach_to_link(link) else {
        return Ok(false);
    };
    // The pin holds the link; ours may close.
    drop(program.take_link(id)?);
    Ok(true)
}

/// The note that the clsact qdisc of an interface is ours to remove.
pub(super) fn made_clsact(state_dir: &Path, ifindex: u32) -> PathBuf {
    state_dir.join("clsact").join(ifindex.to_string())
}

pub(super) fn clsact(
    program: &mut SchedClassifier,
    place: &Place<'_>,
    ifindex: u32,
    interface: &str,
    direction: Direction,
) -> Result<Link, AnyError> {
    let (hook, _) = hook(direction);
    let Place { our_programs, state_dir, .. } = place;
    if !tc::has_clsact(ifindex)? {
        qdisc_add_clsact(interface)?;
        if let Some(state_dir) = state_dir {
            let note = made_clsact(state_dir, ifindex);
            if let Some(folder) = note.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(note, interface)?;
        }
    }
    let filters = tc::filters(ifindex, parent(direction))?;
    let ours = filters
        .iter()
        .find(|filter| filter.program_id.is_some_and(|id| our_programs.contains(&id)));
    let id = if let Some(ours) = ours {
        let link = SchedClassifierLink::attached(
            interface,
            hook,
            ours.priority,
            ours.handle.into(),
            None,
        )?;
        program.attach_to_link(link)?
    } else {
        // The lowest free priority: first to run, and nobody is displaced.
        let priority = (1..u16::MAX)
            .find(|priority| filters.iter().all(|filter| filter.priority != *priority))
            .ok_or_else(|| io::Error::other("every filter priority is taken"))?;
        let options = NlOptions { priority, ..NlOptions::default() };
        program.attach_with_options(interface, hook, TcAttachOptions::Netlink(options))?
    };
    Ok(Link::Clsact(ManuallyDrop::new(program.take_link(id)?)))
}

/// The clsact parent that carries a direction's programs.
const fn parent(direction: Direction) -> tc::Parent {
    match direction {
        Direction::Egress => tc::Parent::Ingress,
        Direction::Ingress => tc::Parent::Egress,
    }
}

/// Forgets what was remembered of an interface that is gone, whoever attached to it: the kernel has
/// detached already.
pub(super) fn forget(place: &Place<'_>, ifindex: u32) {
    let mut paths = Vec::new();
    if let Some(pins) = place.pins {
        paths.extend(link_paths(pins, ifindex));
    }
    paths.extend(place.state_dir.map(|state_dir| made_clsact(state_dir, ifindex)));
    for path in paths {
        // Gone already is as good.
        let _gone = fs::remove_file(path);
    }
}

/// Ids of the programs that run first and where on an interface: `true` if ours are on both
/// hooks.
pub(super) fn in_place(mode: AttachMode, programs: &[u32], ifindex: u32) -> bool {
    Direction::BOTH.into_iter().all(|direction| match mode {
        AttachMode::Clsact => tc::filters(ifindex, parent(direction)).is_ok_and(|filters| {
            filters.iter().any(|f| f.program_id.is_some_and(|id| programs.contains(&id)))
        }),
        _ => {
            let hook = match direction {
                Direction::Egress => tcx::Hook::Ingress,
                Direction::Ingress => tcx::Hook::Egress,
            };
            tcx::query(ifindex, hook)
                .is_ok_and(|found| found.programs.iter().any(|id| programs.contains(id)))
        }
    })
}

/// Other hands' programs that see what the pod sends after ours did, in words.
pub(super) fn after_ours(mode: AttachMode, ours: &[u32], ifindex: u32) -> Vec<String> {
    let is_ours = |id: Option<u32>| id.is_some_and(|id| ours.contains(&id));
    let filters = tc::filters(ifindex, parent(Direction::Egress)).unwrap_or_default();
    let mut after = Vec::new();
    let mut filters = filters.as_slice();
    if mode == AttachMode::Clsact {
        // Without ours there is nothing to lose.
        let place = filters.iter().position(|filter| is_ours(filter.program_id));
        filters = place.map_or(&[], |place| &filters[place + 1..]);
    } else {
        // Links run first, and all filters after them.
        let found = tcx::query(ifindex, tcx::Hook::Ingress).unwrap_or_default();
        let Some(place) = found.programs.iter().position(|id| is_ours(Some(*id))) else {
            return after;
        };
        let others = found.programs[place + 1..].iter().filter(|id| !is_ours(Some(**id)));
        after.extend(others.map(|id| format!("the TCX program {id}")));
    }
    let others = filters.iter().filter(|filter| !is_ours(filter.program_id));
    after.extend(others.map(|filter| {
        let tc::Filter { kind, priority, program_name, .. } = filter;
        let name = program_name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        format!("the {kind} filter{name} of priority {priority}")
    }));
    after.dedup();
    after
}

/// Whether one of these programs is on a hook of an interface, however attached.
pub(super) fn on_some_hook(programs: &[u32], ifindex: u32) -> bool {
    let ours = |id: &u32| programs.contains(id);
    [tcx::Hook::Ingress, tcx::Hook::Egress]
        .into_iter()
        .any(|hook| tcx::query(ifindex, hook).is_ok_and(|found| found.programs.iter().any(ours)))
        || [tc::Parent::Ingress, tc::Parent::Egress].into_iter().any(|parent| {
            tc::filters(ifindex, parent)
                .is_ok_and(|all| all.iter().any(|one| one.program_id.as_ref().is_some_and(ours)))
        })
}

/// Where a program is pinned.
pub(super) fn program_path(pins: &PinPaths, name: &str, id: u32) -> PathBuf {
    // bpffs takes no dots in names.
    pins.programs.join(format!("{name}_{id}"))
}

/// Ids of the loaded programs.
pub(super) fn program_ids(ebpf: &mut Ebpf) -> Result<Vec<u32>, DataplaneError> {
    PROGRAMS.into_iter().map(|name| program_id(object::program(ebpf, name)?, name)).collect()
}

pub(super) fn program_id(
    program: &SchedClassifier,
    name: &'static str,
) -> Result<u32, DataplaneError> {
    program.info().map(|info| info.id()).map_err(|source: ProgramError| DataplaneError::Program {
        program: name,
        source: Box::new(source),
    })
}
