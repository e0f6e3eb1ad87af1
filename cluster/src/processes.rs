//! Which processes belong to the cluster: those in its network namespaces, as the system says.
//!
//! No file of process numbers is kept: it would be wrong after a crash, and a number may be used
//! again. A pod's processes have a network namespace of their own; they are below the first process
//! of their node's process namespace, and end with it.

use std::{fs, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{ClusterError, network, program};

/// A killed process has been removed by then, also with many others on the machine.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// A process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its number, as this process sees it.
    pub(crate) pid: i32,
    /// Its numbers in the process namespaces below this process's own, from the outside in.
    pub(crate) inner: Vec<i32>,
    /// The path of its program, as it sees it.
    pub(crate) program: String,
}

/// The processes in a named network namespace, none if it does not exist.
pub(crate) fn in_namespace(netns: &str) -> Vec<Process> {
    let Some(wanted) = network::identity(netns) else { return Vec::new() };
    let levels = own_levels();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let folder = Path::new("/proc").join(pid.to_string());
            (network::identity_of(&folder.join("ns/net"))? == wanted).then_some(())?;
            let status = fs::read_to_string(folder.join("status")).ok()?;
            let inner = namespace_pids(&status)?.split_off(levels);
            let program = fs::read_link(folder.join("exe")).ok()?.display().to_string();
            // A build may have replaced the file since.
            let program = program.trim_end_matches(" (deleted)").to_owned();
            Some(Process { pid, inner, program })
        })
        .collect()
}

/// The first process of the process namespace of a node whose network namespace this is.
pub(crate) fn node_init(netns: &str) -> Option<i32> {
    // One level down alone: a pod in the node's network has a first process of its own below that.
    in_namespace(netns).into_iter().find(|process| process.inner == [1]).map(|process| process.pid)
}

/// Kills (SIGKILL) the processes that `which` picks, and waits until they are gone.
pub(crate) fn kill_all(netns: &str, which: impl Fn(&Process) -> bool) -> Result<(), ClusterError> {
    let what = format!("the end of the processes in {netns}");
    let hint = || format!("see `ip netns pids {netns}`");
    program::poll_uninterrupted(&what, KILL_LIMIT, hint, || {
        // Anew each time: one that is being killed may have started another.
        let left: Vec<Process> = in_namespace(netns).into_iter().filter(&which).collect();
        for process in &left {
            // An error means that it is gone.
            kill(Pid::from_raw(process.pid), Signal::SIGKILL).ok();
        }
        Ok(left.is_empty().then_some(()))
    })
}

/// Asks the processes that `which` picks to end (SIGTERM), waits, and kills those that do not.
pub(crate) fn stop_all(
    netns: &str,
    limit: Duration,
    which: impl Fn(&Process) -> bool,
) -> Result<(), ClusterError> {
    for process in in_namespace(netns).into_iter().filter(&which) {
        // An error means that it is gone.
        kill(Pid::from_raw(process.pid), Signal::SIGTERM).ok();
    }
    let gone = program::poll("an orderly end", limit, String::new, || {
        Ok((!in_namespace(netns).iter().any(&which)).then_some(()))
    });
    match gone {
        Err(ClusterError::Late { .. }) => kill_all(netns, which),
        other => other,
    }
}

/// How many process namespaces this process itself is in, as `/proc` counts them.
fn own_levels() -> usize {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| Some(namespace_pids(&status)?.len()))
        .unwrap_or(1)
}

/// The line `NSpid` of `/proc/<pid>/status`, proc_pid_status(5): the outermost number first.
fn namespace_pids(status: &str) -> Option<Vec<i32>> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_numbers_of_all_namespaces_are_read() {
        assert_eq!(namespace_pids("Name:\tx\nNSpid:\t4711\t17\t1\n"), Some(vec![4711, 17, 1]));
        assert_eq!(namespace_pids("Name:\tx\n"), None);
        assert_eq!(own_levels(), 1);
    }

    #[test]
    fn a_namespace_that_does_not_exist_has_no_processes() {
        assert_eq!(in_namespace("enfk-none-such"), []);
        assert_eq!(node_init("enfk-none-such"), None);
        kill_all("enfk-none-such", |_| true).unwrap();
    }
}
