//! The filter flags of `observe`, and the protobuf filters that they stand for.
//!
//! Flags count in the order in which they are written, because `--not` turns the next one round.
//! What a combination means was found out by asking Hubble's own client (`--print-raw-filters`,
//! v1.19.4); `testdata/filters.txt` has its answers.

mod flags;
mod raw;
mod tracker;
mod values;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use enforcer_hubble::flow::FlowFilter;

use flags::{FLAGS, Flag, Takes};
use tracker::Tracker;
pub(super) use values::{IDENTITIES, POINTS};

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A value is wrong.
    #[error("invalid value '{value}' for '--{flag}': {reason}")]
    Value {
        /// The flag, without dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// Why it cannot be, with the value that was probably meant.
        reason: String,
    },
    /// Two flags exclude each other.
    #[error(
        "filters --{one} and --{other} cannot be combined; --not before one of them puts it on the \
         list of what is left out"
    )]
    Together {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A pod or service in another namespace than the one asked for.
    #[error("'{name}' is not in namespace '{namespace}', which another filter asks for")]
    Namespace {
        /// The name.
        name: String,
        /// The namespace.
        namespace: String,
    },
    /// `--not --not`.
    #[error("--not twice in a row; it turns round the one filter that follows")]
    NotTwice,
    /// `--not` with nothing behind it.
    #[error("--not without a filter behind it; it turns round the filter that follows")]
    NotLast,
    /// A raw filter is no filter.
    #[error("invalid value '{value}' for '--{flag}': {reason}")]
    Raw {
        /// `allowlist` or `denylist`.
        flag: &'static str,
        /// What was given.
        value: String,
        /// Why it cannot be.
        reason: String,
    },
}

/// What is wanted: flows that match one of `allow`, if there are any, and none of `deny`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// One must match, if there are any.
    pub allow: Vec<FlowFilter>,
    /// None may match.
    pub deny: Vec<FlowFilter>,
}

impl Filters {
    /// As Hubble's client prints them.
    #[must_use]
    pub fn raw(&self) -> String {
        raw::text(self)
    }

    fn of<'a>(
        words: impl IntoIterator<Item = (&'static Flag, &'a str)>,
    ) -> Result<Self, FilterError> {
        let (mut allow, mut deny) = (Tracker::default(), Tracker::default());
        let mut not = false;
        for (flag, value) in words {
            if flag.takes == Takes::Not {
                if not {
                    return Err(FilterError::NotTwice);
                }
                not = true;
                continue;
            }
            let list = if not { &mut deny } else { &mut allow };
            list.add(flag, value)?;
            not = false;
        }
        if not {
            return Err(FilterError::NotLast);
        }
        Ok(Self { allow: allow.finish(), deny: deny.finish() })
    }
}

impl Args for Filters {
    fn augment_args(command: Command) -> Command {
        let heading = "Filters";
        let mut command = command;
        for flag in FLAGS {
            let mut arg = Arg::new(flag.name)
                .long(flag.name)
                .help(flag.help)
                .help_heading(heading)
                .action(ArgAction::Append);
            if let Some(short) = flag.short {
                arg = arg.short(short);
            }
            arg = match flag.takes {
                Takes::Value(name, _) => arg.value_name(name).allow_hyphen_values(true),
                // Hubble's take a value after an equals sign, and pass it over.
                Takes::Given(_) | Takes::Not => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_name("BOOL")
                    .hide_possible_values(true)
                    .value_parser(["true"]),
            };
            command = command.arg(arg);
        }
        for (name, help) in [
            ("allowlist", "Filters as JSON (FlowFilter), beside those of the flags"),
            ("denylist", "Filters as JSON for what is left out, likewise"),
        ] {
            command = command.arg(
                Arg::new(name)
                    .long(name)
                    .help(help)
                    .help_heading("Raw filters")
                    .value_name("JSON")
                    .action(ArgAction::Append),
            );
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Filters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let read = || -> Result<Self, FilterError> {
            let mut words: Vec<(usize, &'static Flag, &str)> = Vec::new();
            for flag in FLAGS {
                let places = matches.indices_of(flag.name).into_iter().flatten();
                let values = matches.get_many::<String>(flag.name).into_iter().flatten();
                words.extend(places.zip(values).map(|(at, value)| (at, flag, value.as_str())));
            }
            words.sort_by_key(|word| word.0);
            let mut filters = Self::of(words.into_iter().map(|(_, flag, value)| (flag, value)))?;
            for (name, list) in [("allowlist", &mut filters.allow), ("denylist", &mut filters.deny)]
            {
                for text in matches.get_many::<String>(name).into_iter().flatten() {
                    list.extend(raw::read(name, text)?);
                }
            }
            Ok(filters)
        };
        read().map_err(|error| clap::Error::raw(clap::error::ErrorKind::ValueValidation, error))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
