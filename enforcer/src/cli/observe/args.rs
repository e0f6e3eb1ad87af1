//! Flags of `observe`: Hubble's, and a few of ours.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    super::{server::ServerArgs, terminal::Color, when::When},
    filters::Filters,
    print::Output,
    times::TimeFormat,
};

/// `enforcer observe`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ObserveArgs {
    /// What to show; flows if nothing is said.
    #[command(subcommand)]
    pub what: Option<What>,
    /// Flags for flows.
    #[command(flatten)]
    pub flows: FlowArgs,
}

/// What can be observed.
#[derive(Clone, Debug, Subcommand)]
pub enum What {
    /// Show flows
    Flows(Box<FlowArgs>),
    /// Show what the agent did: policies, endpoints, warnings
    AgentEvents(Box<EventArgs>),
    /// Show messages for the developers of a data path, where the server has them
    DebugEvents(Box<EventArgs>),
}

/// `enforcer observe flows`.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub struct FlowArgs {
    /// How many, from when on.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Which.
    #[command(flatten)]
    pub filters: Filters,
    /// In which form.
    #[command(flatten)]
    pub form: FormArgs,
    /// In which form flows.
    #[command(flatten)]
    pub flow_form: FlowFormArgs,
    /// Who is asked.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Read flows from this file of JSON lines, or - for the standard input, and ask no server
    #[arg(long, value_name = "FILE")]
    pub input_file: Option<PathBuf>,
    /// Print what the filters mean, and do nothing
    #[arg(
        long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true,
        default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pub print_raw_filters: bool,
    /// Fields of a flow that are wanted, for JSON [default: all]
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    pub field_mask: Vec<String>,
    /// Ask for visible fields only
    #[arg(
        long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true,
        default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pub use_default_field_masks: bool,
    /// Say nothing about lines that are not understood and nodes that are away
    #[arg(
        short, long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true, default_value_t = false, default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub silent_errors: bool,
}

/// `enforcer observe agent-events` and `debug-events`.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub struct EventArgs {
    /// How many, from when on.
    #[command(flatten)]
    pub select: SelectArgs,
    /// In which form.
    #[command(flatten)]
    pub form: FormArgs,
    /// Who is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// How many, from when on.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectArgs {
    /// Go on with new ones
    #[arg(
        short, long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true, default_value_t = false, default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub follow: bool,
    /// The newest N [default: 20 without --follow, --since, --until]
    #[arg(long, value_name = "N", conflicts_with_all = ["first", "all"])]
    pub last: Option<u64>,
    /// The oldest N
    #[arg(long, value_name = "N", conflicts_with_all = ["all", "follow"])]
    pub first: Option<u64>,
    /// All that are kept
    #[arg(long)]
    pub all: bool,
    /// Not before: a time ago (5m, 1h30m) or a date (2006-01-02, RFC 3339, …)
    #[arg(long, value_name = "WHEN")]
    pub since: Option<When>,
    /// Not after: likewise
    #[arg(long, value_name = "WHEN")]
    pub until: Option<When>,
}

/// In which form.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Form")]
pub struct FormArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Form of times; JSON has its own
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub time_format: TimeFormat,
    /// The node that tells it
    #[arg(
        long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true,
        default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pub print_node_name: bool,
    /// The policies that decided [default: only where --follow fills a terminal]
    #[arg(
        long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true,
        default_missing_value = "true"
    )]
    pub print_policy_names: Option<bool>,
}

/// In which form flows.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Form")]
pub struct FlowFormArgs {
    /// Say why: the rule that allows, the policies that isolate, the rule that was missed nearly
    #[arg(long)]
    pub why: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t)]
    pub color: Color,
    /// Names in place of addresses
    #[arg(
        long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true,
        default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pub ip_translation: bool,
    /// Numbers in place of names
    #[arg(
        long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        hide_possible_values = true,
        default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pub numeric: bool,
}
