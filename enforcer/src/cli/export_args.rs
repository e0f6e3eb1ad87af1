//! Flags of the agent for the export of flows to a file.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use enforcer_hubble::flow::FlowFilter;

use crate::hubble::export::{self, ExportConfig, Keep, Target};

/// Where flows are written to, and which.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Export of flows")]
pub struct ExportArgs {
    /// Write flows to this file, as lines of JSON like Hubble's exporter; - for standard output
    #[arg(long, value_name = "PATH", env = "ENFORCER_EXPORT_FILE")]
    pub export_file: Option<PathBuf>,
    /// Put the file aside when it would get larger
    #[arg(
        long,
        value_name = "MB",
        env = "ENFORCER_EXPORT_MAX_SIZE",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20)
    )]
    pub export_max_size: u32,
    /// Files that were put aside and are kept; 0 for all
    #[arg(long, value_name = "N", env = "ENFORCER_EXPORT_MAX_BACKUPS", default_value_t = 5)]
    pub export_max_backups: u32,
    /// Days after which a file that was put aside is removed; 0 for never
    #[arg(
        long,
        value_name = "DAYS",
        env = "ENFORCER_EXPORT_MAX_AGE",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=36_500)
    )]
    pub export_max_age: u32,
    /// Compress files that were put aside, with gzip
    #[arg(long, env = "ENFORCER_EXPORT_COMPRESS")]
    pub export_compress: bool,
    /// Only flows that match one of these: FlowFilter in JSON, as in
    /// {"source_pod":["shop/"],"verdict":["DROPPED"]}
    #[arg(long, value_name = "JSON", env = "ENFORCER_EXPORT_ALLOW", value_parser = filter)]
    pub export_allow: Vec<FlowFilter>,
    /// No flows that match one of these
    #[arg(long, value_name = "JSON", env = "ENFORCER_EXPORT_DENY", value_parser = filter)]
    pub export_deny: Vec<FlowFilter>,
    /// Only these fields of flows, as in time,source.pod_name
    #[arg(long, value_name = "FIELDS", env = "ENFORCER_EXPORT_FIELD_MASK", value_delimiter = ',')]
    pub export_field_mask: Vec<String>,
}

fn filter(text: &str) -> Result<FlowFilter, String> {
    export::filter(text).map_err(|error| crate::error_chain(&error))
}

impl ExportArgs {
    /// What is exported, if anything is.
    #[must_use]
    pub fn config(&self) -> Option<ExportConfig> {
        let path = self.export_file.clone()?;
        let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
        let keep = Keep {
            bytes: u64::from(self.export_max_size) << 20,
            backups: self.export_max_backups,
            age: (self.export_max_age > 0).then(|| days(self.export_max_age)),
            compress: self.export_compress,
        };
        let to_stdout = path.as_os_str() == "-";
        Some(ExportConfig {
            target: if to_stdout { Target::Stdout } else { Target::File(path, keep) },
            allow: self.export_allow.clone(),
            deny: self.export_deny.clone(),
            field_mask: self.export_field_mask.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        export: ExportArgs,
    }

    fn parse(args: &[&str]) -> Result<Option<ExportConfig>, String> {
        let flags = Flags::try_parse_from(std::iter::once(&"agent").chain(args));
        flags.map(|flags| flags.export.config()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_exported_unless_it_is_said_where_to() {
        assert_eq!(parse(&[]), Ok(None));
        let config = parse(&["--export-file=-"]).unwrap().unwrap();
        assert_eq!(config.target, Target::Stdout);
    }

    #[test]
    fn limits_filters_and_mask_are_taken() {
        let config = parse(&[
            "--export-file=/f.log",
            "--export-max-size=2",
            "--export-max-backups=3",
            "--export-max-age=1",
            "--export-compress",
            r#"--export-allow={"verdict":["DROPPED"]}"#,
            r#"--export-allow={"source_pod":["shop/"]}"#,
            r#"--export-deny={"destination_port":["53"]}"#,
            "--export-field-mask=time,source.pod_name",
        ]);
        let config = config.unwrap().unwrap();
        let age = Some(Duration::from_secs(24 * 3600));
        let keep = Keep { bytes: 2 << 20, backups: 3, age, compress: true };
        assert_eq!(config.target, Target::File("/f.log".into(), keep));
        assert_eq!((config.allow.len(), config.deny.len(), config.field_mask.len()), (2, 1, 2));
    }

    #[test]
    fn what_means_nothing_is_refused_and_says_what_would() {
        for (arg, part) in [
            ("--export-allow={\"verdikt\":[]}", "did you mean verdict?"),
            ("--export-allow={\"verdict\":[\"DROPED\"]}", "did you mean DROPPED?"),
            ("--export-deny=x", "not understood"),
            ("--export-max-size=0", "--export-max-size"),
        ] {
            let error = parse(&[arg]).unwrap_err();
            assert!(error.contains(part), "{arg}: {error}");
        }
    }
}
