//! The programs on an interface's TCX hooks (`linux/bpf.h`, kernel 6.6 and newer).
//!
//! The query gives ids and opens nothing: opening a foreign program takes more privilege.

use std::io;

use super::{
    error::NetlinkError,
    sys::{self, ProgQuery},
};

/// A TCX hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `BPF_TCX_INGRESS`: what the interface receives, so: what the pod behind it sends.
    Ingress,
    /// `BPF_TCX_EGRESS`: what the interface sends.
    Egress,
}

impl Hook {
    /// `enum bpf_attach_type`.
    const fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }
}

/// What is on a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Ids of the programs, in the order in which they run.
    pub programs: Vec<u32>,
    /// Moves with every change of the hook.
    pub revision: u64,
}

/// Programs that fit without a second question. The kernel takes at most 64.
const ROOM: usize = 64;
const ATTEMPTS: u32 = 4;

/// Asks what is on a hook of an interface of the calling thread's network namespace.
///
/// # Errors
/// If the kernel refuses: it has no TCX (`EINVAL`), or no interface of this index (`ENODEV`).
pub fn query(ifindex: u32, hook: Hook) -> Result<Found, NetlinkError> {
    const OPERATION: &str = "list the programs on a TCX hook";
    let mut room = ROOM;
    for _ in 0..ATTEMPTS {
        let mut ids = vec![0; room];
        let mut query = ProgQuery::new(ifindex, hook.attach_type());
        let answer = sys::prog_query(&mut query, &mut ids);
        let count = usize::try_from(query.count).unwrap_or(usize::MAX);
        match answer {
            Ok(()) => {
                ids.truncate(count);
                return Ok(Found { programs: ids, revision: query.revision });
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                room = count.clamp(room, 1 << 16).saturating_add(ROOM);
            }
            Err(source) => return Err(refused(OPERATION, source)),
        }
    }
    Err(NetlinkError::Restless { operation: OPERATION, attempts: ATTEMPTS })
}

fn refused(operation: &'static str, source: io::Error) -> NetlinkError {
    NetlinkError::Refused { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::netlink::testing::{Namespace, Program, keep_only_net_admin, sh};

    #[test]
    fn programs_are_listed_in_order_and_a_change_moves_the_revision() {
        Namespace::new().run(|| {
            sh("ip link add d0 type bridge");
            let ifindex = crate::dataplane::netlink::testing::ifindex("d0");
            let programs: Vec<Program> = (0..3).map(|_| Program::load()).collect();
            let ids: Vec<u32> = programs.iter().map(Program::id).collect();
            let empty = query(ifindex, Hook::Ingress).unwrap();
            assert_eq!(empty.programs, Vec::<u32>::new());
            let mut revision = empty.revision;
            for (index, program) in programs.iter().enumerate() {
                program.attach_tcx(ifindex, Hook::Ingress.attach_type());
                let found = query(ifindex, Hook::Ingress).unwrap();
                assert_eq!(found.programs, ids[..=index]);
                assert_ne!(found.revision, revision);
                revision = found.revision;
            }
            assert_eq!(query(ifindex, Hook::Egress).unwrap().programs, Vec::<u32>::new());
            keep_only_net_admin();
            assert_eq!(query(ifindex, Hook::Ingress).unwrap().programs, ids);
        });
    }

    #[test]
    fn no_interface_is_an_error_with_its_number() {
        Namespace::new().run(|| {
            let error = query(9999, Hook::Egress).unwrap_err();
            assert_eq!(error.errno(), Some(libc::ENODEV));
        });
    }
}
