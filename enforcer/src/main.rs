//! The one binary: the agent, and the commands that talk to it.

use std::{io, process::ExitCode};

use enforcer::{
    agent::{run, uninstall},
    cli::{AgentArgs, Command, args::LogFormat, completion, disable, list, observe, status},
    error_chain,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match completion::parse().command {
        Command::Agent(args) => agent(&args),
        Command::Status(args) => status::run(&args),
        Command::Observe(args) => observe::run(&args),
        Command::List(args) => list::list(&args),
        Command::Watch(args) => list::watch(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Disable(args) => finish(disable::disable(&args)),
        Command::Enable(args) => finish(disable::enable(&args)),
        Command::Uninstall(args) => finish(uninstall::uninstall(&args)),
    }
}

fn agent(args: &AgentArgs) -> ExitCode {
    let filter = match EnvFilter::builder().parse(&args.log_level) {
        Ok(filter) => filter,
        Err(error) => {
            say(&format!("--log-level {}: {error}", args.log_level));
            return ExitCode::from(2);
        }
    };
    // The client's own words about a failed request come before ours, which say what to do.
    let filter = match "kube_client=off".parse() {
        Ok(directive) if !args.log_level.contains("kube_client") => filter.add_directive(directive),
        _ => filter,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => {
            let terminal = io::IsTerminal::is_terminal(&io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(terminal).init();
        }
        LogFormat::Journal => builder.with_ansi(false).without_time().init(),
    }
    finish(run::run(args))
}

/// Says what went wrong, if something did.
fn finish<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command line program")]
fn say(what: &str) {
    eprintln!("enforcer: {what}");
}
