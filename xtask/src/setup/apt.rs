//! Debian's packages: what is missing is installed, where this user and this machine can.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{SetupError, compiler, is_root};
use crate::{
    console,
    process::{self, ProcessError, Purpose},
};

/// How long to wait for another package manager to finish.
const LOCK_WAIT: Duration = Duration::from_secs(300);

/// Installs `packages`; `why` says what they are for.
pub(super) fn install(packages: &[&str], why: &str) -> Result<(), SetupError> {
    check_allowed(packages, why)?;
    finish_interrupted()?;
    if first_absent(packages)?.is_some() {
        update()?;
    }
    install_offered(packages, why)
}

/// Makes sure that the package lists are there and offer `packages`, without installing them.
pub(super) fn ensure_offered(packages: &[&str], why: &str) -> Result<(), SetupError> {
    if first_absent(packages)?.is_some() {
        check_allowed(packages, why)?;
        update()?;
    }
    offered(packages, why)
}

/// Like [`install`], but never from old package lists: for packages that move with upstream.
pub(super) fn install_latest(packages: &[&str], why: &str) -> Result<(), SetupError> {
    check_allowed(packages, why)?;
    finish_interrupted()?;
    update()?;
    install_offered(packages, why)
}

fn check_allowed(packages: &[&str], why: &str) -> Result<(), SetupError> {
    let list = packages.join(" ");
    if !Path::new("/usr/bin/apt-get").is_file() {
        return Err(SetupError::Missing {
            missing: format!("{why}, and this machine has no apt-get"),
            remedy: format!("install what Debian calls {list} by other means"),
        });
    }
    if !is_root() {
        return Err(SetupError::Missing {
            missing: format!("{why}, and only root can install packages"),
            remedy: format!("run, as root: apt-get install {list}"),
        });
    }
    Ok(())
}

fn offered(packages: &[&str], why: &str) -> Result<(), SetupError> {
    if let Some(absent) = first_absent(packages)? {
        return Err(SetupError::Missing {
            missing: format!("{why}, and this distribution has no package {absent}"),
            remedy: compiler::REMEDY.to_owned(),
        });
    }
    Ok(())
}

fn install_offered(packages: &[&str], why: &str) -> Result<(), SetupError> {
    offered(packages, why)?;
    console::step(&format!(
        "installing packages, which may take a minute: {} ({why})",
        packages.join(" ")
    ));
    if install_once(packages).is_ok() {
        return Ok(());
    }
    // The lists may name files that the mirror no longer keeps.
    update()?;
    Ok(install_once(packages)?)
}

fn install_once(packages: &[&str]) -> Result<(), ProcessError> {
    // Its hundreds of lines are only of use when it fails.
    process::capture(
        apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages),
        &Purpose::new(
            format!("apt-get install {}", packages.join(" ")),
            "if the machine is offline, connect it or install these packages by hand, then repeat",
        ),
    )
    .map(drop)
}

/// Completes an installation that was stopped half-way: dpkg refuses every other one until then.
fn finish_interrupted() -> Result<(), SetupError> {
    let purpose = Purpose::new("dpkg --audit", "repair dpkg's database");
    let audit = process::capture(Command::new("dpkg").arg("--audit"), &purpose)?;
    if audit.trim().is_empty() {
        return Ok(());
    }
    console::step("completing an interrupted installation of packages");
    let mut command = Command::new("dpkg");
    command.args(["--configure", "--all"]).env("DEBIAN_FRONTEND", "noninteractive");
    Ok(process::run(
        &mut command,
        &Purpose::new("dpkg --configure --all", "repair the packages that it names, then repeat"),
    )?)
}

/// The first of `packages` that the lists do not offer.
fn first_absent<'a>(packages: &[&'a str]) -> Result<Option<&'a str>, SetupError> {
    let purpose = Purpose::new("apt-cache policy", "repair apt's configuration");
    for package in packages {
        let text = process::capture(
            Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"),
            &purpose,
        )?;
        if !has_candidate(&text) {
            return Ok(Some(package));
        }
    }
    Ok(None)
}

fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .is_some_and(|candidate| candidate.trim() != "(none)")
}

/// Fetches the package lists. The lock on them has no time-out of its own, so wait here.
fn update() -> Result<(), SetupError> {
    console::step("fetching the package lists");
    let purpose = Purpose::new(
        "apt-get update",
        "if the machine is offline, connect it or install the packages by hand, then repeat",
    );
    let started = Instant::now();
    loop {
        let output = process::output(apt_get().arg("update"), &purpose)?;
        if output.status.success() {
            return Ok(());
        }
        let locked = String::from_utf8_lossy(&output.stderr).contains("Could not get lock");
        if !locked || started.elapsed() > LOCK_WAIT {
            return Err(process::quiet_failure(&output, &purpose).into());
        }
        console::detail("another package manager is at work, waiting for it");
        thread::sleep(Duration::from_secs(3));
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg(format!("--option=DPkg::Lock::Timeout={}", LOCK_WAIT.as_secs()))
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_offered_when_it_has_a_candidate() {
        let offered = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n";
        assert!(has_candidate(offered));
        assert!(!has_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"));
        // apt-cache says nothing at all of a name it has never seen.
        assert!(!has_candidate(""));
    }
}
