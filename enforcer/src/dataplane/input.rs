//! The program where the node takes packets in for itself: what a pod sent to a Service and gets to a
//! process of this node is judged for it there. Kernels before 6.4, or without
//! `CONFIG_NETFILTER_BPF_LINK`, have no such place; then only backends that slices name are judged.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{Ebpf, EbpfLoader};
use enforcer_common::abi::PROG_NODE_INPUT;

use super::{
    Kernel,
    bpf::{self, Hook},
    btf,
    code::Code,
    kept::Kept,
    remove,
};

/// The fields of `struct sk_buff` that the program reads, and the names that it has for their places.
const FIELDS: [(&str, &str); 4] = [
    ("tc_index", "SKB_TC_INDEX"),
    ("data", "SKB_DATA"),
    ("len", "SKB_LEN"),
    ("data_len", "SKB_DATA_LEN"),
];

/// After every translation, IPVS among them: it takes its packets out of this very hook, with a
/// priority below `NF_IP_PRI_NAT_SRC` (100), and what passes it is really for this node.
///
/// The kernel takes one program of a priority (`nf_hook_entries_grow` in `net/netfilter/core.c`), and
/// the agent before has one there until ours is in its place.
const PRIORITIES: std::ops::Range<i32> = 200..216;
/// `NF_INET_LOCAL_IN` (`include/uapi/linux/netfilter.h`).
const LOCAL_IN: u32 = 1;
/// Families: names of their pins, and `NFPROTO_…`.
const FAMILIES: [(&str, u32); 2] = [("input-v4", 2), ("input-v6", 10)];

/// Why nothing judges what the node takes in.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// Its layout is not known, so the program cannot read a packet.
    #[error("the kernel does not describe its packets in {}", btf::VMLINUX)]
    Layout(#[source] io::Error),
    /// The object is not what it should be.
    #[error("the object's program {PROG_NODE_INPUT} cannot be put together: {0}")]
    Object(String),
    /// No such type of program, or the verifier refuses it.
    #[error(
        "the kernel takes no program of netfilter (it needs 6.4 and CONFIG_NETFILTER_BPF_LINK){log}"
    )]
    Load {
        /// The end of the verifier's log, if it got that far.
        log: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The hook.
    #[error("the program cannot be put where the node takes packets in")]
    Link(#[source] io::Error),
    /// The pins.
    #[error("the link cannot be pinned as {}", path.display())]
    Pin {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The program before it is anywhere.
#[derive(Debug)]
pub(super) struct Program {
    code: Code,
    /// The kernel has verified it.
    loaded: Option<OwnedFd>,
}

/// What became of the program.
#[derive(Debug)]
pub(super) enum Input {
    /// Nothing was tried yet.
    Ready(Program),
    /// It is on its hooks, and pinned.
    Pinned(Program, Vec<Kept>),
    /// It is on its hooks as long as the agent lives.
    Held(#[expect(dead_code, reason = "held so that they live")] Vec<OwnedFd>),
    /// It cannot be: why.
    Missing(Option<Program>, String),
}

/// Places of the fields, for the object that is about to be loaded.
#[derive(Debug)]
pub(super) struct Layout(Result<[u32; FIELDS.len()], io::Error>);

impl Layout {
    /// The running kernel's.
    pub(super) fn read() -> Self {
        let fields = FIELDS.map(|(field, _)| field);
        Self(btf::offsets(Path::new(btf::VMLINUX), "sk_buff", fields))
    }

    /// Has the object know them.
    pub(super) fn put<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        let Ok(offsets) = &self.0 else { return };
        for ((_, name), offset) in FIELDS.into_iter().zip(offsets) {
            loader.override_global(name, offset, true);
        }
    }
}

impl Input {
    /// Its pins.
    pub(super) fn kept(&self) -> &[Kept] {
        match self {
            Self::Pinned(_, kept) => kept,
            Self::Ready(_) | Self::Held(_) | Self::Missing(..) => &[],
        }
    }

    /// Puts the program together over the maps of the loaded object, before they are taken out of it.
    pub(super) fn prepare(ebpf: &Ebpf, layout: Layout) -> Self {
        let code = layout
            .0
            .map_err(InputError::Layout)
            .and_then(|_known| Code::link(ebpf, PROG_NODE_INPUT).map_err(InputError::Object));
        match code {
            Ok(code) => {
                let mut program = Program { code, loaded: None };
                // Verifying takes long, and nobody waits for it yet. What is wrong will be told
                // when the program is put into its place.
                program.loaded = program.verify().ok();
                Self::Ready(program)
            }
            Err(error) => Self::Missing(None, crate::error_chain(&error)),
        }
    }
}

impl Program {
    fn verify(&self) -> Result<OwnedFd, InputError> {
        bpf::load(bpf::Kind::Netfilter, &self.code).map_err(|(source, log)| {
            let log = if log.is_empty() { log } else { format!(": {log}") };
            InputError::Load { log, source }
        })
    }
}

/// Puts the program on a family's hook, with the first priority that is free.
fn link(program: &OwnedFd, family: u32) -> io::Result<OwnedFd> {
    let mut refused = io::Error::from_raw_os_error(libc::EBUSY);
    for priority in PRIORITIES {
        let at = Hook { family, hook: LOCAL_IN, priority };
        match bpf::link_netfilter(program.as_fd(), at) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => refused = error,
            other => return other,
        }
    }
    Err(refused)
}

/// Puts the program on both hooks. Pins go only by the rename that puts their successors in their
/// places, so there is no moment without one.
fn attach(
    waiting: &mut Program,
    links: Option<&Path>,
) -> Result<Vec<(&'static str, OwnedFd)>, InputError> {
    let program = match waiting.loaded.take() {
        Some(program) => program,
        None => waiting.verify()?,
    };
    let mut held = Vec::new();
    for (name, family) in FAMILIES {
        let link = link(&program, family).map_err(InputError::Link)?;
        if let Some(links) = links {
            let (path, draft) = (links.join(name), links.join(format!("{name}-new")));
            let failed = |source| InputError::Pin { path: path.clone(), source };
            // Of an agent that died here.
            remove::delete(&draft).map_err(|error| failed(io::Error::other(error)))?;
            bpf::pin(link.as_fd(), &draft).map_err(failed)?;
            fs::rename(&draft, &path).map_err(failed)?;
        }
        held.push((name, link));
    }
    Ok(held)
}

impl Kernel {
    /// Has what the node takes in judged, too, unless it is already; `again` looks whether another
    /// hand took that away, and tries what failed. Returns why it cannot be, if that is news.
    pub(super) fn take_in(&mut self, again: bool) -> Option<String> {
        let links = self.pins.as_ref().map(|pins| pins.links.clone());
        let in_place = || {
            let mut names = FAMILIES.iter().map(|(name, _)| name);
            links.as_ref().is_some_and(|links| names.all(|name| links.join(name).exists()))
        };
        let (mut waiting, before) =
            match std::mem::replace(&mut self.input, Input::Missing(None, String::new())) {
                Input::Ready(waiting) => (waiting, None),
                Input::Missing(Some(waiting), why) if again => (waiting, Some(why)),
                Input::Pinned(waiting, _) if again && !in_place() => (waiting, None),
                other => {
                    self.input = other;
                    return None;
                }
            };
        match attach(&mut waiting, links.as_deref()) {
            Ok(held) => {
                self.input = match links {
                    Some(links) => {
                        let kept = held.into_iter();
                        let kept = kept.map(|(name, link)| Kept::new(links.join(name), link));
                        Input::Pinned(waiting, kept.collect())
                    }
                    None => Input::Held(held.into_iter().map(|(_, link)| link).collect()),
                }
            }
            Err(error) => {
                let why = crate::error_chain(&error);
                let news = before.as_ref() != Some(&why);
                self.input = Input::Missing(Some(waiting), why.clone());
                return news.then_some(why);
            }
        }
        None
    }

    /// Why packets to Services are not judged where they get to processes of this node, if they are
    /// not: then only those backends there that slices name are judged, before.
    #[must_use]
    pub fn input_missing(&self) -> Option<&str> {
        match &self.input {
            Input::Missing(_, why) => Some(why),
            Input::Ready(_) | Input::Pinned(..) | Input::Held(_) => None,
        }
    }
}
