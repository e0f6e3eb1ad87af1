//! The folders of an agent, which the commands that work without it must be told too.

use std::path::PathBuf;

use clap::Args;

/// Folders of an agent.
#[derive(Clone, Debug, Args)]
pub struct DirArgs {
    /// Where the agent's socket is, and the names of endpoints
    #[arg(long, value_name = "DIR", env = "ENFORCER_RUN_DIR", default_value = "/run/enforcer")]
    pub run_dir: PathBuf,
    /// What must survive a reboot, and break-glass.log
    #[arg(
        long,
        value_name = "DIR",
        env = "ENFORCER_STATE_DIR",
        default_value = "/var/lib/enforcer"
    )]
    pub state_dir: PathBuf,
    /// Where programs and maps are pinned, on a BPF file system
    #[arg(
        long,
        value_name = "DIR",
        env = "ENFORCER_BPF_DIR",
        default_value = "/sys/fs/bpf/enforcer"
    )]
    pub bpf_dir: PathBuf,
}
