//! Network namespaces for the tests of this module: each is a thread, and ends with it.
#![expect(unsafe_code, reason = "namespaces and capabilities are those of a thread")]

use std::{
    any::Any,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::Command,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

type Outcome = Result<Box<dyn Any + Send>, Box<dyn Any + Send>>;
type Job = Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>;

/// A network namespace with its loopback interface up.
pub(crate) struct Namespace {
    /// The thread that is in it: `ip link set … netns` takes this number.
    pub(crate) thread: i64,
    jobs: Option<Sender<Job>>,
    outcomes: Receiver<Outcome>,
    handle: Option<thread::JoinHandle<()>>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, received) = channel::<Job>();
        let (report, outcomes) = channel::<Outcome>();
        let (ready, thread_id) = channel();
        let handle = thread::spawn(move || {
            // SAFETY: moves this thread alone to a new namespace.
            let code = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(code, 0, "the tests need root");
            sh("ip link set lo up");
            // SAFETY: reads a number.
            ready.send(unsafe { libc::syscall(libc::SYS_gettid) }).unwrap();
            for job in received {
                report.send(catch_unwind(AssertUnwindSafe(job))).unwrap();
            }
        });
        let thread = thread_id.recv().expect("the namespace is made");
        Self { thread, jobs: Some(jobs), outcomes, handle: Some(handle) }
    }

    /// Runs `job` in the namespace and returns what it returns, panics included.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.jobs.as_ref().unwrap().send(Box::new(|| Box::new(job()))).unwrap();
        match self.outcomes.recv().unwrap() {
            Ok(value) => *value.downcast().unwrap(),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The thread ends, and with its last thread the namespace.
        drop(self.jobs.take());
        if let Some(handle) = self.handle.take() {
            let _ended = handle.join();
        }
    }
}

/// Runs shell commands in the calling thread's namespace.
pub(crate) fn sh(commands: &str) {
    let output = Command::new("sh").arg("-ec").arg(commands).output().unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Drops every capability of the calling thread but `CAP_NET_ADMIN`.
pub(crate) fn keep_only_net_admin() {
    keep_only(1 << 12);
}

/// Drops every capability of the calling thread.
pub(crate) fn drop_all() {
    keep_only(0);
}

/// Keeps the capabilities below 32 that `set` has.
fn keep_only(set: u32) {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let sets = [set, set, 0, 0, 0, 0];
    // SAFETY: the arrays have the layouts that this version of the call reads.
    let code = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(code, 0);
}

/// Runs a future on a runtime of the calling thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Index of an interface of the calling thread's namespace.
pub(crate) fn ifindex(name: &str) -> u32 {
    let links = super::links::Links::open().unwrap().dump().unwrap();
    links.into_iter().find(|link| &*link.name == name).unwrap().ifindex
}

/// A classifier program that leaves every packet alone.
pub(crate) struct Program(OwnedFd);

impl Program {
    pub(crate) fn load() -> Self {
        // r0 = -1 (TC_ACT_UNSPEC); exit
        const CODE: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
        let mut attr = [0_u64; 18];
        // Type BPF_PROG_TYPE_SCHED_CLS and the number of instructions.
        attr[0] = 3 | (2 << 32);
        attr[1] = CODE.as_ptr() as u64;
        attr[2] = c"GPL".as_ptr() as u64;
        let fd = i32::try_from(bpf(5, &mut attr)).unwrap();
        // SAFETY: a fresh descriptor that nothing else owns.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(crate) fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    pub(crate) fn id(&self) -> u32 {
        // Type and id are the first two fields of struct bpf_prog_info.
        let mut info = [0_u32; 2];
        let mut attr = [0_u64; 18];
        attr[0] = u64::from(u32::try_from(self.fd()).unwrap()) | (8 << 32);
        attr[1] = info.as_mut_ptr() as u64;
        bpf(15, &mut attr);
        let [_, id] = info;
        assert_ne!(id, 0);
        id
    }

    /// Attaches it behind what is on the hook.
    pub(crate) fn attach_tcx(&self, ifindex: u32, attach_type: u32) {
        let mut attr = [0_u64; 18];
        attr[0] = u64::from(ifindex) | u64::from(u32::try_from(self.fd()).unwrap()) << 32;
        attr[1] = u64::from(attach_type);
        bpf(8, &mut attr);
    }
}

fn bpf(command: libc::c_long, attr: &mut [u64; 18]) -> libc::c_long {
    let size = size_of_val(attr);
    // SAFETY: the callers lay out the command's part of union bpf_attr, and what it points to
    // lives through the call.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size) };
    assert!(code >= 0, "bpf command {command}: {}", std::io::Error::last_os_error());
    std::hint::black_box(attr);
    code
}
