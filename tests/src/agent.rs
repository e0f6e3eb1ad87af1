//! The real agent, started in the node's namespace and spoken to by its command line.

use std::{
    env, fs,
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{Lab, LabError, Manifests, cleanup};

/// How long the agent may take to bring its first plan into force.
const READY: Duration = Duration::from_secs(15);
/// How many times as long it may take: set where the machine is an emulated one.
const PATIENCE: &str = "ENFORCER_PATIENCE";
/// How much of a log is shown.
const LOG_TAIL: usize = 6000;

/// How an agent is started.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Its binary; found by itself if not given.
    pub binary: Option<PathBuf>,
    /// Value of `--attach`.
    pub attach: Option<&'static str>,
    /// Further flags.
    pub flags: Vec<String>,
    /// A program with its arguments that starts the agent, whose command line follows.
    pub through: Vec<String>,
    /// Its pins are on a BPF filesystem of their own, which can be unmounted.
    pub own_bpffs: bool,
    /// A kubeconfig: objects come from that API server, and not from the manifests.
    pub kubeconfig: Option<PathBuf>,
}

fn ready() -> Duration {
    READY * env::var(PATIENCE).ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// The agent of a laboratory's node. It is killed when this is dropped.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    options: AgentOptions,
    netns: File,
    manifests: PathBuf,
    run_dir: PathBuf,
    state_dir: PathBuf,
    bpf_dir: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Agent {
    /// Starts the agent and waits until policy is in force.
    ///
    /// # Errors
    /// If there is no binary, or the agent does not become ready.
    pub fn start(
        lab: &Lab,
        manifests: &Manifests,
        options: AgentOptions,
    ) -> Result<Self, LabError> {
        let mut agent = Self::new(lab, manifests, options)?;
        agent.restart()?;
        Ok(agent)
    }

    fn new(lab: &Lab, manifests: &Manifests, options: AgentOptions) -> Result<Self, LabError> {
        let netns = lab
            .node()
            .file()
            .try_clone()
            .map_err(LabError::io("keep the node's namespace open"))?;
        let bpf_dir = if options.own_bpffs {
            lab.dir().join(cleanup::OWN_BPFFS)
        } else {
            Path::new(cleanup::BPF_DIR).join(format!("{}-pins", lab.prefix()))
        };
        let agent = Self {
            binary: binary(options.binary.clone())?,
            options,
            netns,
            manifests: manifests.path().to_owned(),
            run_dir: lab.dir().join("run"),
            state_dir: lab.dir().join("state"),
            bpf_dir,
            log: lab.dir().join("agent.log"),
            child: None,
        };
        if agent.options.own_bpffs {
            agent.mount_pins()?;
        }
        Ok(agent)
    }

    /// Mounts a BPF filesystem of its own where the agent's pins are; see
    /// [`AgentOptions::own_bpffs`].
    ///
    /// # Errors
    /// If the system does not.
    pub fn mount_pins(&self) -> Result<(), LabError> {
        let _guard = cleanup::making()?;
        let failed = LabError::io(format!("mount {}", self.bpf_dir.display()));
        fs::create_dir_all(&self.bpf_dir)
            .and_then(|()| {
                let (kind, flags) = (Some("bpf"), MsFlags::empty());
                Ok(mount(kind, &self.bpf_dir, kind, flags, None::<&str>)?)
            })
            .map_err(failed)
    }

    /// Takes it off, with all pins.
    ///
    /// # Errors
    /// If the system does not.
    pub fn unmount_pins(&self) -> Result<(), LabError> {
        umount2(&self.bpf_dir, MntFlags::MNT_DETACH)
            .map_err(|errno| LabError::io("unmount the pins")(errno.into()))
    }

    /// Starts the agent and does not wait until policy is in force: only until it answers.
    ///
    /// # Errors
    /// If there is no binary, or the agent does not answer.
    pub fn start_unready(
        lab: &Lab,
        manifests: &Manifests,
        options: AgentOptions,
    ) -> Result<Self, LabError> {
        let mut agent = Self::new(lab, manifests, options)?;
        agent.spawn()?;
        let deadline = Instant::now() + ready();
        while agent.status().is_err() {
            if Instant::now() > deadline {
                return Err(agent.error("does not answer".to_owned()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(agent)
    }

    /// Starts the agent again, after [`Self::kill`] or [`Self::stop`], and waits until policy is in
    /// force. A running one is left alone.
    ///
    /// # Errors
    /// If the agent does not become ready.
    pub fn restart(&mut self) -> Result<(), LabError> {
        if self.child.is_none() {
            self.spawn()?;
        }
        let deadline = Instant::now() + ready();
        loop {
            // Until its socket is there the status command says that no agent runs.
            let status = self.run(&["status", "--wait=10"])?;
            if status.status.success() {
                return Ok(());
            }
            let gone = match &mut self.child {
                Some(child) => child.try_wait().map_err(LabError::io("look at the agent"))?,
                None => None,
            };
            if let Some(end) = gone {
                self.child = None;
                return Err(self.error(format!("ended at its start with {end}")));
            }
            if Instant::now() > deadline {
                let said = text(&status.stderr) + &text(&status.stdout);
                return Err(self.error(format!("did not become ready: {}", said.trim())));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Has the agent started with these flags instead of those before, from its next start on.
    pub fn set_flags(&mut self, flags: Vec<String>) {
        self.options.flags = flags;
    }

    /// Starts another agent that takes the node over from this one, as a rolling update does, and
    /// waits until it has. This one stands by.
    ///
    /// # Errors
    /// If it does not take over.
    pub fn successor(&self, instance: &str) -> Result<Self, LabError> {
        let mut options = self.options.clone();
        options.flags.retain(|flag| flag != "--take-over" && !flag.starts_with("--instance="));
        options.flags.extend(["--take-over".to_owned(), format!("--instance={instance}")]);
        let netns =
            self.netns.try_clone().map_err(LabError::io("keep the node's namespace open"))?;
        let mut next = Self {
            binary: self.binary.clone(),
            options,
            netns,
            manifests: self.manifests.clone(),
            run_dir: self.run_dir.clone(),
            state_dir: self.state_dir.clone(),
            bpf_dir: self.bpf_dir.clone(),
            log: self.log.with_file_name(format!("agent-{instance}.log")),
            child: None,
        };
        next.spawn()?;
        let deadline = Instant::now() + ready();
        let ask = ["status", "--ready", "--instance", instance];
        while !next.run(&ask)?.status.success() {
            if Instant::now() > deadline {
                return Err(next.error("does not take over".to_owned()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(next)
    }

    /// A line of `/proc/PID/status` of its process, such as `CapEff`.
    ///
    /// # Errors
    /// If it does not run, or has no such line.
    pub fn process_status(&self, name: &str) -> Result<String, LabError> {
        let pid = self.child.as_ref().map_or(0, Child::id);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .map_err(LabError::io("read the agent's process status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
            .ok_or_else(|| self.error(format!("has no {name} in its process status")))
    }

    /// Whether its process runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts the agent and kills it after so long, whatever it has come to.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart_and_kill_after(&mut self, pause: Duration) -> Result<(), LabError> {
        if self.child.is_none() {
            self.spawn()?;
        }
        thread::sleep(pause);
        self.kill()
    }

    fn spawn(&mut self) -> Result<(), LabError> {
        let _guard = cleanup::making()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(LabError::io(format!("open {}", self.log.display())))?;
        let errors = log.try_clone().map_err(LabError::io("keep the agent's log open"))?;
        let netns = self.netns.as_raw_fd();
        let mut line = self.options.through.iter().map(PathBuf::from).collect::<Vec<_>>();
        line.push(self.binary.clone());
        let mut line = line.into_iter();
        let mut command = Command::new(line.next().unwrap_or_default());
        command
            .args(line)
            .arg("agent")
            .args(match &self.options.kubeconfig {
                Some(kubeconfig) => ["--kubeconfig".as_ref(), kubeconfig.as_os_str()],
                None => ["--manifests".as_ref(), self.manifests.as_os_str()],
            })
            .args(["--run-dir".as_ref(), self.run_dir.as_os_str()])
            .args(["--state-dir".as_ref(), self.state_dir.as_os_str()])
            .args(["--bpf-dir".as_ref(), self.bpf_dir.as_os_str()])
            .args(self.options.attach.map(|attach| format!("--attach={attach}")))
            .args(&self.options.flags)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let before_exec = move || {
            // SAFETY: a plain system call on an open file.
            let entered = unsafe { libc::setns(netns, libc::CLONE_NEWNET) };
            nix::errno::Errno::result(entered)?;
            // A laboratory that was killed is not to leave an agent behind.
            // SAFETY: a plain system call with two integers.
            let tied = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            nix::errno::Errno::result(tied)?;
            Ok(())
        };
        // SAFETY: between fork and exec only two system calls are made; nothing is allocated and no
        // lock is taken.
        unsafe { command.pre_exec(before_exec) };
        let child = command.spawn().map_err(|source| LabError::Start {
            program: self.binary.display().to_string(),
            source,
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the agent (SIGKILL). What it put into the kernel stays.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(&mut self) -> Result<(), LabError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // An error means that it is gone.
        child.kill().ok();
        child.wait().map(|_| ()).map_err(LabError::io("wait for the agent's end"))
    }

    /// Asks the agent to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// If it does not end within five seconds, or ends with a failure.
    pub fn stop(&mut self) -> Result<(), LabError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = i32::try_from(child.id()).unwrap_or(0);
        kill(Pid::from_raw(pid), Signal::SIGTERM)
            .map_err(|errno| LabError::io("ask the agent to end")(errno.into()))?;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match child.try_wait().map_err(LabError::io("wait for the agent's end"))? {
                Some(end) if end.success() => return Ok(()),
                Some(end) => return Err(self.error(format!("ended with {end}"))),
                None if Instant::now() > deadline => {
                    self.child = Some(child);
                    return Err(self.error("does not end on SIGTERM".to_owned()));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Removes the product from the node; the agent must not run.
    ///
    /// # Errors
    /// If the command fails.
    pub fn uninstall(&self) -> Result<(), LabError> {
        let mut command = self.command(&["uninstall"]);
        let state = ["--state-dir".as_ref(), self.state_dir.as_os_str()];
        let bpf = ["--bpf-dir".as_ref(), self.bpf_dir.as_os_str()];
        self.succeed(&self.output(command.args(state).args(bpf))?, "uninstall").map(|_| ())
    }

    /// Runs `enforcer disable` or `enforcer enable` with these arguments, as root on the node would.
    ///
    /// # Errors
    /// If it fails.
    pub fn switch(&self, args: &[&str]) -> Result<String, LabError> {
        let mut command = self.command(args);
        let state = ["--state-dir".as_ref(), self.state_dir.as_os_str()];
        let bpf = ["--bpf-dir".as_ref(), self.bpf_dir.as_os_str()];
        self.succeed(&self.output(command.args(state).args(bpf))?, &args.join(" "))
    }

    /// Waits until all that was written before this call is in force.
    ///
    /// # Errors
    /// If it does not come into force within ten seconds.
    pub fn wait(&self) -> Result<(), LabError> {
        self.succeed(&self.run(&["status", "--wait=10"])?, "status --wait=10").map(|_| ())
    }

    /// What `enforcer status -o json` prints, whatever its exit code.
    ///
    /// # Errors
    /// If it prints no JSON.
    pub fn status(&self) -> Result<Value, LabError> {
        let output = self.run(&["status", "-o", "json"])?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            self.error(format!("gives no status ({error}): {}", text(&output.stderr).trim()))
        })
    }

    /// Runs `enforcer` with these arguments and the laboratory's run directory; gives its output.
    ///
    /// # Errors
    /// If it fails.
    pub fn ask(&self, args: &[&str]) -> Result<String, LabError> {
        self.succeed(&self.run(args)?, &args.join(" "))
    }

    fn succeed(&self, output: &Output, what: &str) -> Result<String, LabError> {
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let said = text(&output.stderr) + &text(&output.stdout);
        Err(self.error(format!("failed at `enforcer {what}`: {}", said.trim())))
    }

    fn run(&self, args: &[&str]) -> Result<Output, LabError> {
        self.output(&mut self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).args(["--run-dir".as_ref(), self.run_dir.as_os_str()]);
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// In the node's namespace: to remove filters is a matter of the namespace.
    fn output(&self, command: &mut Command) -> Result<Output, LabError> {
        let netns = self.netns.as_raw_fd();
        let before_exec = move || {
            // SAFETY: a plain system call on an open file.
            let entered = unsafe { libc::setns(netns, libc::CLONE_NEWNET) };
            nix::errno::Errno::result(entered)?;
            Ok(())
        };
        // SAFETY: between fork and exec one system call is made; nothing is allocated and no lock is
        // taken.
        unsafe { command.pre_exec(before_exec) };
        command.output().map_err(|source| LabError::Start {
            program: self.binary.display().to_string(),
            source,
        })
    }

    /// The binary.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Where its socket is.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Where it pins programs and maps.
    #[must_use]
    pub fn bpf_dir(&self) -> &Path {
        &self.bpf_dir
    }

    /// What it keeps on disk.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// All that it wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| text(&bytes)).unwrap_or_default()
    }

    fn error(&self, what: String) -> LabError {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_TAIL);
        let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
        LabError::Agent { what, log: log[start..].to_owned() }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the agent ---\n{}--- end of the log ---", self.log());
        }
        self.kill().ok();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The given one, else `ENFORCER_BIN`, else the one beside the tests: an executable of tests is in
/// `target/<profile>/deps`, the task runner in `target/<profile>`.
fn binary(given: Option<PathBuf>) -> Result<PathBuf, LabError> {
    let path = match given.or_else(|| env::var_os("ENFORCER_BIN").map(PathBuf::from)) {
        Some(path) => path,
        None => {
            let me = env::current_exe().map_err(LabError::io("find this executable"))?;
            let mut dir = me.parent().unwrap_or(Path::new("."));
            if dir.ends_with("deps") {
                dir = dir.parent().unwrap_or(dir);
            }
            dir.join("enforcer")
        }
    };
    if path.is_file() { Ok(path) } else { Err(LabError::NoAgent(path)) }
}
