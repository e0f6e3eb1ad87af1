//! Flags of the commands that switch enforcement off and on.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::{dirs::DirArgs, when::duration};

/// Longer than this nobody switches enforcement off at once.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A pod, `namespace/name`.
    Pod(String),
    /// The node: every pod of it, those that start meanwhile included.
    Node,
    /// The node, and every pod by itself.
    Everything,
}

/// `enforcer disable`.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("target").required(true).args(["pod", "node"])))]
pub struct DisableArgs {
    /// One pod of this node
    #[arg(long, value_name = "NS/NAME", value_parser = pod_name)]
    pod: Option<String>,
    /// All pods of this node, those that start meanwhile included
    #[arg(long)]
    node: bool,
    /// For how long, at most 24h: 10m, 1h30m
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    pub duration: Duration,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Folders
    #[command(flatten)]
    pub dirs: DirArgs,
}

impl DisableArgs {
    /// What is switched off.
    #[must_use]
    pub fn target(&self) -> Target {
        self.pod.clone().map_or(Target::Node, Target::Pod)
    }
}

/// `enforcer enable`.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("target").args(["pod", "node"])))]
pub struct EnableArgs {
    /// One pod of this node
    #[arg(long, value_name = "NS/NAME", value_parser = pod_name)]
    pod: Option<String>,
    /// The node's switch only; without --pod and --node: that, and those of all pods
    #[arg(long)]
    node: bool,
    /// Folders
    #[command(flatten)]
    pub dirs: DirArgs,
}

impl EnableArgs {
    /// What is switched on.
    #[must_use]
    pub fn target(&self) -> Target {
        match &self.pod {
            Some(pod) => Target::Pod(pod.clone()),
            None if self.node => Target::Node,
            None => Target::Everything,
        }
    }
}

fn pod_name(text: &str) -> Result<String, &'static str> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [namespace, name] if !namespace.is_empty() && !name.is_empty() => Ok(text.to_owned()),
        _ => Err("must be NAMESPACE/NAME"),
    }
}

fn length(text: &str) -> Result<Duration, &'static str> {
    let nanos = duration(text).and_then(|ns| u64::try_from(ns).ok());
    let Some(length) = nanos.map(Duration::from_nanos) else {
        return Err("must be a duration such as 10m or 1h30m");
    };
    if length.is_zero() || length > LONGEST {
        return Err("must be more than nothing and at most 24h; it can be given again");
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(args: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(args.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn a_switch_has_a_target_and_an_end() {
        let Command::Disable(args) = parse("enforcer disable --pod a/b --for 1h30m").unwrap()
        else {
            panic!("another command")
        };
        assert_eq!((args.target(), args.duration.as_secs()), (Target::Pod("a/b".into()), 5_400));
        let Command::Disable(args) = parse("enforcer disable --node --for 24h").unwrap() else {
            panic!("another command")
        };
        assert_eq!(args.target(), Target::Node);
        for (args, target) in [
            ("enforcer enable", Target::Everything),
            ("enforcer enable --node", Target::Node),
            ("enforcer enable --pod a/b", Target::Pod("a/b".into())),
        ] {
            let Command::Enable(found) = parse(args).unwrap() else { panic!("{args}") };
            assert_eq!(found.target(), target, "{args}");
        }
    }

    #[test]
    fn what_is_too_long_or_aims_at_nothing_is_wrong_usage() {
        for args in [
            "enforcer disable --node",
            "enforcer disable --for 10m",
            "enforcer disable --node --pod a/b --for 10m",
            "enforcer disable --pod b --for 10m",
            "enforcer disable --pod a/b/c --for 10m",
            "enforcer disable --node --for 0s",
            "enforcer disable --node --for 24h1s",
            "enforcer disable --node --for 10",
            "enforcer enable --node --pod a/b",
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args}");
        }
    }
}
