//! `enforcer disable` and `enforcer enable`: enforcement off for a time and on again, by pinned maps
//! alone, so that it works when the agent does not.

use std::{
    env, fmt,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::args::{DirArgs, DisableArgs, EnableArgs, Target};
use crate::{
    agent::endpoints_file,
    dataplane::{self, DataplaneError, Switches},
    rfc3339,
};

/// Name of the log in the state directory.
pub const LOG_FILE: &str = "break-glass.log";

/// How long an upgrade that is going on is waited for.
const UPGRADE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why enforcement was not switched, or not everywhere.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Not root.
    #[error("only root may switch enforcement off and on: use sudo")]
    NotRoot,
    /// Nothing is pinned.
    #[error(
        "nothing is enforced by this version under {}: no maps are pinned there (name another \
         folder with --bpf-dir, or use the enforcer whose version is pinned)",
        bpf_dir.display()
    )]
    NoMaps {
        /// Where they would be.
        bpf_dir: PathBuf,
    },
    /// The maps cannot be used.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The names of pods cannot be read.
    #[error(
        "cannot read which pods have which endpoints from {}; use --node for the whole node",
        path.display()
    )]
    NoNames {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No such pod.
    #[error("no pod {pod} has an endpoint on this node ({known}); `enforcer status` lists them")]
    NoSuchPod {
        /// The pod.
        pod: String,
        /// How many are known.
        known: String,
    },
    /// Programs that know no switch enforce as well.
    #[error(
        "switched off, but version {version} of the maps is still in force beside this one and its \
         programs know no switch: where the agent has not taken over from it yet, it still drops. \
         Start the agent, or look in its log why it does not take over; to open the node at once, \
         stop the agent and run `enforcer uninstall`"
    )]
    VersionBefore {
        /// Its version.
        version: u32,
    },
    /// The pod's interface is gone.
    #[error("the interface of {pod} is gone, or is another pod's by now: nothing was switched")]
    Gone {
        /// The pod.
        pod: String,
    },
}

/// A line of the log: who switched what, when, until when and why.
#[derive(Debug, Serialize)]
struct Record<'a> {
    time: String,
    action: &'static str,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Switches enforcement off.
///
/// # Errors
/// If it cannot be; then it is in force. If the version before is in force as well and stays so,
/// only its programs still enforce.
pub fn disable(args: &DisableArgs) -> Result<(), SwitchError> {
    let switches = open(&args.dirs)?;
    let until = dataplane::monotonic().saturating_add(nanos(args.duration));
    let end = wall().saturating_add(args.duration);
    let target = args.target();
    switch(&switches, &args.dirs.run_dir, &target, until)?;
    let until = rfc3339(end);
    let target = target.to_string();
    say(&format!(
        "enforcement is off for {target} until {until}; `enforcer enable` ends it before"
    ));
    log(&args.dirs.state_dir, "disable", target, Some(until), args.reason.as_deref());
    // What can be switched is by now. An upgrade takes moments, unless it cannot go on.
    let deadline = Instant::now() + UPGRADE;
    while let Some(version) = dataplane::other_version(&args.dirs.bpf_dir)? {
        if Instant::now() >= deadline {
            return Err(SwitchError::VersionBefore { version });
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Switches enforcement on again.
///
/// # Errors
/// If it cannot be.
pub fn enable(args: &EnableArgs) -> Result<(), SwitchError> {
    let switches = open(&args.dirs)?;
    let target = args.target();
    switch(&switches, &args.dirs.run_dir, &target, 0)?;
    let target = target.to_string();
    say(&format!("enforcement is not switched off for {target} any more"));
    log(&args.dirs.state_dir, "enable", target, None, None);
    Ok(())
}

fn open(dirs: &DirArgs) -> Result<Switches, SwitchError> {
    if !dataplane::is_root() {
        return Err(SwitchError::NotRoot);
    }
    let bpf_dir = &dirs.bpf_dir;
    Switches::open(bpf_dir)?.ok_or_else(|| SwitchError::NoMaps { bpf_dir: bpf_dir.clone() })
}

fn switch(
    switches: &Switches,
    run_dir: &Path,
    target: &Target,
    until: u64,
) -> Result<(), SwitchError> {
    let pod = match target {
        Target::Node => {
            switches.set_node(until);
            return Ok(());
        }
        Target::Everything => {
            switches.set_everything(until);
            return Ok(());
        }
        Target::Pod(pod) => pod,
    };
    let records = endpoints_file::read(run_dir).map_err(|source| SwitchError::NoNames {
        path: run_dir.join(endpoints_file::ENDPOINTS_FILE),
        source,
    })?;
    let known = match records.len() {
        0 => "it has none".to_owned(),
        n => format!("it has {n} others"),
    };
    let mut own = records.iter().filter(|record| record.pod == *pod).peekable();
    if own.peek().is_none() {
        return Err(SwitchError::NoSuchPod { pod: pod.clone(), known });
    }
    // Every interface of the pod; one that is gone does not keep the others.
    let mut switched = false;
    for record in own {
        switched |= switches.set_endpoint(record.slot, record.ifindex, until);
    }
    if switched { Ok(()) } else { Err(SwitchError::Gone { pod: pod.clone() }) }
}

/// Appends to the log. In an emergency a full disk must not keep anybody from acting, so a failure
/// is only said.
fn log(
    state_dir: &Path,
    action: &'static str,
    target: String,
    until: Option<String>,
    reason: Option<&str>,
) {
    let record = Record {
        time: rfc3339(wall()),
        action,
        target,
        until,
        uid: dataplane::user(),
        sudo_user: env::var("SUDO_USER").ok(),
        reason,
    };
    if let Err(error) = append(&state_dir.join(LOG_FILE), &record) {
        let path = state_dir.join(LOG_FILE);
        say(&format!("warning: this is not logged in {}: {error}", path.display()));
    }
}

fn append(path: &Path, record: &Record<'_>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)?.write_all(&line)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the node"),
            Self::Everything => f.write_str("the node and all its pods"),
            Self::Pod(pod) => write!(f, "pod {pod}"),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn rfc3339(time: Duration) -> String {
    rfc3339::timestamp(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

#[expect(clippy::print_stderr, reason = "what a command has done")]
fn say(what: &str) {
    eprintln!("enforcer: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_switch_is_a_line_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        log(
            &state,
            "disable",
            Target::Pod("a/b".into()).to_string(),
            Some("x".into()),
            Some("y\n"),
        );
        log(&state, "enable", Target::Node.to_string(), None, None);
        let text = std::fs::read_to_string(state.join(LOG_FILE)).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(
            (&lines[0]["action"], &lines[0]["target"]),
            (&"disable".into(), &"pod a/b".into())
        );
        assert_eq!((&lines[0]["until"], &lines[0]["reason"]), (&"x".into(), &"y\n".into()));
        assert_eq!(lines[0]["uid"], dataplane::user());
        assert_eq!(lines[1]["target"], "the node");
        assert!(lines[1].get("until").is_none());
    }
}
