//! The nodes' control groups: one below the root of every hierarchy, in which kubelet keeps the
//! node's pods, with a group `system` for the node's own programs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{ClusterError, program};

const MOUNT: &str = "/sys/fs/cgroup";
/// Group of the node's own programs, below the node's.
const SYSTEM: &str = "system";
/// Version 1 hierarchies that kubelet and runc use.
const CONTROLLERS: [&str; 9] =
    ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "systemd"];
/// A group whose last process was killed can be removed soon after.
const REMOVAL: Duration = Duration::from_secs(10);

/// Makes a node's groups, and returns those in which its own programs are to be.
pub(crate) fn make(name: &str) -> Result<Vec<PathBuf>, ClusterError> {
    let roots = roots();
    if is_unified() {
        enable_controllers(Path::new(MOUNT))?;
    }
    let mut systems = Vec::new();
    for root in roots {
        let group = root.join(name);
        let system = group.join(SYSTEM);
        create(&group)?;
        inherit_cpuset(&root, &group)?;
        if is_unified() {
            enable_controllers(&group)?;
        }
        create(&system)?;
        inherit_cpuset(&group, &system)?;
        systems.push(system);
    }
    Ok(systems)
}

/// Removes the groups whose name starts with `prefix`; their processes must have ended.
pub(crate) fn remove(prefix: &str) -> Result<(), ClusterError> {
    let what = format!("the removal of the control groups {prefix}*");
    let hint = || format!("see which processes are in {MOUNT}/*/{prefix}*");
    program::poll_uninterrupted(&what, REMOVAL, hint, || {
        // Also in hierarchies that were not asked for: some programs use whatever they find.
        let hierarchies = if is_unified() { roots() } else { children(Path::new(MOUNT)) };
        let groups: Vec<PathBuf> =
            hierarchies.iter().flat_map(|root| starting_with(root, prefix)).collect();
        Ok(groups.iter().all(|group| remove_tree(group).is_ok()).then_some(()))
    })
}

/// Version 2, with all controllers in one hierarchy.
fn is_unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").is_file()
}

/// The root groups of the hierarchies in use.
fn roots() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    if is_unified() {
        return vec![mount.to_owned()];
    }
    // Two names of one hierarchy (`cpu` and `cpuacct` are often joined) are no harm: what is there
    // is taken, and what is gone is gone.
    CONTROLLERS.iter().map(|name| mount.join(name)).filter(|root| root.is_dir()).collect()
}

fn create(group: &Path) -> Result<(), ClusterError> {
    match fs::create_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(ClusterError::file("create the control group", group)),
    }
}

/// A new group of version 1 has neither processors nor memory nodes, and takes no process then.
fn inherit_cpuset(parent: &Path, group: &Path) -> Result<(), ClusterError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = group.join(name);
        if is_unified() || !file.is_file() {
            continue;
        }
        let value = fs::read_to_string(parent.join(name))
            .map_err(ClusterError::file("read", &parent.join(name)))?;
        fs::write(&file, value.trim()).map_err(ClusterError::file("write", &file))?;
    }
    Ok(())
}

/// Hands all controllers of a version 2 group down to its children.
fn enable_controllers(group: &Path) -> Result<(), ClusterError> {
    let file = group.join("cgroup.controllers");
    let names = fs::read_to_string(&file).map_err(ClusterError::file("read", &file))?;
    let control = group.join("cgroup.subtree_control");
    for name in names.split_whitespace() {
        fs::write(&control, format!("+{name}")).map_err(ClusterError::io(format!(
            "hand the controller {name} to {}",
            control.display()
        )))?;
    }
    Ok(())
}

fn starting_with(root: &Path, prefix: &str) -> Vec<PathBuf> {
    children(root)
        .into_iter()
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(prefix))
        })
        .collect()
}

fn children(group: &Path) -> Vec<PathBuf> {
    fs::read_dir(group)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// From the inside out: a group with groups in it cannot be removed.
fn remove_tree(group: &Path) -> io::Result<()> {
    for child in children(group) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn trees_are_removed_from_the_inside_out() {
        let top = env::temp_dir().join(format!("enforcer-cgroup-{}", process::id()));
        fs::create_dir_all(top.join("enfk-node1/pods/one")).unwrap();
        fs::create_dir_all(top.join("other/deep")).unwrap();
        let found = starting_with(&top, "enfk-");
        assert_eq!(found, [top.join("enfk-node1")]);
        remove_tree(&found[0]).unwrap();
        // A second time is no error, and others' groups are left.
        remove_tree(&found[0]).unwrap();
        assert_eq!(children(&top), [top.join("other")]);
        fs::remove_dir_all(&top).unwrap();
    }
}
