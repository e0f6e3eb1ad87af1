//! `BPF_PROG_TEST_RUN` as it is, for many packets and beside whoever owns the maps.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use enforcer::dataplane::Kernel;
use enforcer_common::abi::Direction;

const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// What the call takes of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    code: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    _pad: u32,
}

/// The two programs of a pod's interface.
#[derive(Debug)]
pub(crate) struct Runner {
    /// By direction.
    programs: [OwnedFd; 2],
}

impl Runner {
    pub(crate) fn new(kernel: &mut Kernel) -> Self {
        let programs = Direction::BOTH.map(|direction| {
            let program = kernel.program(direction).unwrap();
            program.fd().unwrap().as_fd().try_clone_to_owned().unwrap()
        });
        Self { programs }
    }

    /// Runs a packet at an interface of the calling thread's namespace; `came_in_by` 0 means that
    /// the node made it. Returns the program's code.
    pub(crate) fn run(
        &self,
        direction: Direction,
        packet: &[u8],
        ifindex: u32,
        came_in_by: u32,
    ) -> i32 {
        let mut context = [0_u8; 192];
        context[36..40].copy_from_slice(&came_in_by.to_ne_bytes());
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        let mut attributes = TestRun {
            program: u32::try_from(self.programs[direction as usize].as_raw_fd()).unwrap(),
            size_in: u32::try_from(packet.len()).unwrap(),
            data_in: packet.as_ptr() as u64,
            repeat: 1,
            context_size_in: u32::try_from(context.len()).unwrap(),
            context_in: context.as_ptr() as u64,
            ..TestRun::default()
        };
        // SAFETY: the attributes, and what they point to, live until the call returns.
        let done = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_TEST_RUN,
                &raw mut attributes,
                size_of::<TestRun>(),
            )
        };
        assert_eq!(done, 0, "BPF_PROG_TEST_RUN: {}", io::Error::last_os_error());
        attributes.code.cast_signed()
    }
}
