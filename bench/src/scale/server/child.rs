//! The server's process, as the measuring one sees it.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use clap::ValueEnum;
use enforcer_tests::Lab;

use super::{super::AnyError, Lists};

/// A server in a laboratory's node. It is killed when this is dropped.
#[derive(Debug)]
pub(in super::super) struct Server {
    child: Child,
    /// For the agent.
    pub(in super::super) kubeconfig: PathBuf,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(in super::super) fn start(lab: &Lab, pods: u32, lists: Lists) -> Result<Self, AnyError> {
        let mut command = Command::new(env::current_exe()?);
        let lists = lists.to_possible_value().ok_or("lists of no name")?;
        command.args(["scale-serve", &pods.to_string(), lists.get_name()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = lab.node().run(move || command.spawn())??;
        let mut server = Self { child, kubeconfig: lab.dir().join("kubeconfig") };
        let mut line = String::new();
        let output = server.child.stdout.take().ok_or("a server without output")?;
        BufReader::new(output).read_line(&mut line)?;
        let port: u16 = line.trim().parse()?;
        let text = format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c}}}}]\ncurrent-context: x\n"
        );
        fs::write(&server.kubeconfig, text)?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that is gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
