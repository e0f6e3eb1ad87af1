//! Where things are: the repository, what the tasks leave under `target/`, and cargo itself.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// The repository that the tasks work on.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The one that this program was started in.
    pub(crate) fn find() -> Self {
        // `cargo run` says at run time which package it runs: a program that lies in a target
        // folder shared by several checkouts must not remember the checkout that built it last.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        Self { root: manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf) }
    }

    /// The repository's top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Programs that only this project's tasks use.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// What set-up found the last time.
    pub(crate) fn setup_stamp(&self) -> PathBuf {
        self.root.join("target/setup.stamp")
    }

    /// Build folder of the kernel half: another compiler's output never meets the host's.
    pub(crate) fn kernel_target(&self) -> PathBuf {
        self.root.join("target/ebpf")
    }

    /// The kernel objects, where the build scripts of those who embed them look for them.
    pub(crate) fn kernel_objects(&self) -> PathBuf {
        self.root.join("target/bpf")
    }

    /// Images, and the build folder of what goes into them: its flags differ from all others'.
    pub(crate) fn image_target(&self) -> PathBuf {
        self.root.join("target/image")
    }

    /// Other kernels, unpacked.
    pub(crate) fn kernels(&self) -> PathBuf {
        self.root.join("target/kernels")
    }

    /// What test clusters are made of, and what they write.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.root.join("target/cluster")
    }

    /// `path` as a reader of messages knows it: below the repository without its top folder.
    pub(crate) fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// The cargo that runs this program, at the repository's top, with the contributor's own
    /// environment but without what `cargo run` says of this package.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo_program());
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(describes_a_package) {
                command.env_remove(name);
            }
        }
        command
    }
}

/// The cargo that started this program.
pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Whether cargo sets this variable to describe the package that it runs or builds.
pub(crate) fn describes_a_package(name: &str) -> bool {
    const PREFIXES: [&str; 5] =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || matches!(name, "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_the_one_that_holds_this_crate() {
        let workspace = Workspace::find();
        assert!(workspace.root().join("xtask/Cargo.toml").is_file());
        assert_eq!(workspace.show(&workspace.kernel_objects()), "target/bpf");
    }

    #[test]
    fn what_describes_a_package_is_told_from_the_contributors_settings() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "OUT_DIR"] {
            assert!(describes_a_package(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TARGET_DIR", "RUSTFLAGS", "PATH"] {
            assert!(!describes_a_package(name), "{name}");
        }
    }
}
