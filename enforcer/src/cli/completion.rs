//! The command line's own name, and completion for shells.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Args, CommandFactory, FromArgMatches};
use clap_complete::Shell;

use super::args::Cli;

/// Name of the file by which kubectl finds a plugin.
const PLUGIN: &str = "kubectl-enforcer";

/// `enforcer completion`.
#[derive(Clone, Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script, to be read by the shell: `source <(enforcer completion bash)`.
#[must_use]
pub fn run(args: &CompletionArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "enforcer", &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => super::server::fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// The arguments of this process. As a plugin of kubectl the usage names the command that was
/// typed. Wrong usage ends the process with exit code 2.
#[must_use]
pub fn parse() -> Cli {
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut matches = command(words.first()).get_matches_from(words);
    Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| {
        error.format(&mut command(std::env::args_os().next().as_ref())).exit()
    })
}

fn command(program: Option<&OsString>) -> clap::Command {
    let file = program.and_then(|program| Path::new(program).file_name());
    let command = Cli::command();
    if file.is_some_and(|file| file == PLUGIN) {
        command.bin_name("kubectl enforcer").display_name("kubectl enforcer")
    } else {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_names_the_command_that_was_typed() {
        let usage = |program: &str| {
            let error =
                command(Some(&program.into())).try_get_matches_from([program, "observe", "-Q"]);
            error.unwrap_err().to_string()
        };
        let plugin = usage("/usr/local/bin/kubectl-enforcer");
        assert!(plugin.contains("Usage: kubectl enforcer observe"), "{plugin}");
        let own = usage("/usr/bin/enforcer");
        assert!(own.contains("Usage: enforcer observe"), "{own}");
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_filters() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "enforcer", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("traffic-direction") && script.contains("enforcer"), "{shell}");
        }
    }
}
