//! Debian's packages of kernels: the newest of a version that the lists offer, fetched and unpacked
//! below `target/kernels`, where it is found the next time without asking anybody.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::KernelsError;
use crate::{
    console,
    process::{self, Purpose},
    setup,
    workspace::Workspace,
};

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// As it was asked for: `6.12`.
    pub(super) version: String,
    /// The kernel itself.
    pub(super) image: PathBuf,
    /// Its modules, with their dependencies listed.
    pub(super) modules: PathBuf,
}

/// Finds or fetches the kernel of a version.
pub(super) fn ensure(workspace: &Workspace, version: &str) -> Result<Kernel, KernelsError> {
    let folder = workspace.kernels().join(version);
    if let Ok(kernel) = read(&folder, version) {
        return Ok(kernel);
    }
    // It may be half of one.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(KernelsError::file("remove", &folder))?;
    }
    let draft = folder.with_extension("new");
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(KernelsError::file("remove", &draft))?;
    }
    fs::create_dir_all(&draft).map_err(KernelsError::file("make", &draft))?;
    fetch(version, &draft)?;
    read(&draft, version)?;
    fs::rename(&draft, &folder).map_err(KernelsError::file("make", &folder))?;
    read(&folder, version)
}

fn fetch(version: &str, folder: &Path) -> Result<(), KernelsError> {
    setup::ensure_offered(&["linux-image-cloud-amd64"], "testing on other kernels needs them")?;
    let purpose = Purpose::new("apt-cache pkgnames", "repair apt's lists");
    let names =
        process::capture(Command::new("apt-cache").args(["pkgnames", "linux-image-"]), &purpose)?;
    let package = newest(&names, version).ok_or_else(|| KernelsError::NoKernel(version.into()))?;
    console::step(&format!("fetching {package}"));
    let purpose = Purpose::new(
        format!("apt-get download {package}"),
        "connect the machine, run `apt-get update`, then repeat",
    );
    process::capture(
        Command::new("apt-get").args(["download", package]).current_dir(folder),
        &purpose,
    )?;
    let entries = fs::read_dir(folder).map_err(KernelsError::file("read", folder))?;
    let archive = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| lacks(package, "archive"))?;
    let purpose = Purpose::new(format!("unpacking {package}"), "remove target/kernels and repeat");
    process::capture(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(folder), &purpose)?;
    fs::remove_file(&archive).map_err(KernelsError::file("remove", &archive))?;
    let release = only(&modules_folder(folder))
        .ok_or_else(|| lacks(package, "modules"))?
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    // A package is not installed, so nobody has listed what its modules depend on.
    let base = folder.join(if folder.join("lib/modules").is_dir() { "" } else { "usr" });
    let purpose = Purpose::new("depmod", "remove target/kernels and repeat");
    process::capture(Command::new("depmod").arg("--basedir").arg(base).arg(release), &purpose)?;
    Ok(())
}

/// Debian is about to move modules below `usr`.
fn modules_folder(folder: &Path) -> PathBuf {
    let (old, new) = (folder.join("lib/modules"), folder.join("usr/lib/modules"));
    if old.is_dir() { old } else { new }
}

fn lacks(package: &str, what: &'static str) -> KernelsError {
    KernelsError::Package { package: package.to_owned(), what }
}

/// The only entry of a folder.
fn only(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    entries.next().filter(|_| entries.next().is_none()).map(|entry| entry.path())
}

fn read(folder: &Path, version: &str) -> Result<Kernel, KernelsError> {
    let modules = only(&modules_folder(folder)).ok_or_else(|| lacks(version, "modules"))?;
    if !modules.join("modules.dep").is_file() {
        return Err(lacks(version, "list of what modules depend on"));
    }
    let boot = folder.join("boot");
    let image = fs::read_dir(&boot)
        .map_err(KernelsError::file("read", &boot))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .ok_or_else(|| lacks(version, "kernel"))?;
    Ok(Kernel { version: version.to_owned(), image, modules })
}

/// The newest signed image for machines in a cloud, the smallest that Debian has.
fn newest<'a>(names: &'a str, version: &str) -> Option<&'a str> {
    let numbers = |name: &str| -> Vec<u32> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    names
        .lines()
        .filter(|name| {
            let rest = name
                .strip_prefix("linux-image-")
                .and_then(|rest| rest.strip_suffix("-cloud-amd64"))
                .and_then(|rest| rest.strip_prefix(version));
            rest.is_some_and(|rest| rest.starts_with('.'))
        })
        .max_by_key(|name| numbers(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_version_is_chosen() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.12.101+deb12-cloud-amd64\nlinux-image-6.12.9+deb12-cloud-amd64\n\
                     linux-image-6.1.0-57-cloud-amd64-dbg\nlinux-image-6.1.0-58-amd64\n";
        assert_eq!(newest(names, "6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(names, "6.12"), Some("linux-image-6.12.101+deb12-cloud-amd64"));
        assert_eq!(newest(names, "6.2"), None);
    }
}
