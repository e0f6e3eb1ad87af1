//! `cargo xtask demo`: a small cluster on this machine, real traffic, and what policy makes of it.
//!
//! Nothing is simulated: pods are network namespaces, the agent is the product's own binary, and
//! every line that the demo prints about a connection was measured on a socket.

mod platform;
mod screen;
mod story;

use std::path::Path;

use enforcer_tests::{Agent, AgentOptions, LabError, Mode, wait_for_signal};

use self::{screen::Screen, story::Story};

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Leave everything running at the end.
    pub(crate) keep: bool,
}

/// Why the demo did not go as told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// The laboratory or the agent failed.
    #[error("the demo's laboratory failed")]
    Lab(#[from] LabError),
    /// The built-in example is broken.
    #[error("the built-in example is not right: {0}")]
    Platform(String),
    /// Something came out differently.
    #[error("{0}: enforcement is not what the policies say; please report this as a bug")]
    Different(String),
}

/// Shows the product at work. Everything is removed at the end, and on Ctrl-C.
pub(crate) fn run(options: Options, binary: &Path) -> Result<(), DemoError> {
    let screen = Screen::new();
    let scenario = platform::scenario()?;
    screen.heading("Enforcer: network policies, enforced on this machine");
    screen.say(
        "Kubernetes runs programs in pods. A NetworkPolicy says which pods may talk to which. \
         Enforcer reads these policies and enforces them in the Linux kernel, with small programs \
         (eBPF) at each pod's network interface. This demo shows it with real connections. It needs \
         no cluster, takes less than a minute, and removes everything it makes.",
    );
    let (lab, manifests) = scenario.build(Mode::PointToPoint)?;
    let agent_options = AgentOptions { binary: Some(binary.to_owned()), ..AgentOptions::default() };
    let agent = Agent::start(&lab, &manifests, agent_options)?;
    let story =
        Story { screen, scenario: &scenario, lab: &lab, manifests: &manifests, agent: &agent };
    story.tell()?;
    if options.keep {
        story.invite();
        wait_for_signal();
    }
    // In this order: the agent lives in the node's namespace.
    drop(agent);
    drop(lab);
    screen.heading("6. Cleaned up");
    screen.say("Agent, kernel programs, pods and files are gone. To keep them and look around:");
    screen.line("    cargo xtask demo --keep");
    Ok(())
}
