//! Filters over flows from a file, against what Hubble's own client chooses.

use clap::Parser;
use enforcer_hubble::json::{self, Unknown};

use super::*;
use crate::cli::observe::{
    filters::tests::words,
    request,
    tests::{ObserveCli, options},
};

/// Lines of `json.txt` that are no flows: what a filter means for them nobody relies on.
const LOST: std::ops::RangeInclusive<usize> = 261..=266;

/// Numbers of the lines that the flags select.
fn selected(flags: &str, flows: &[GetFlowsResponse]) -> Vec<usize> {
    let words = [vec!["observe".to_owned()], words(flags)].concat();
    let args = ObserveCli::parse_from(words).args.flows;
    let request = request::flows(&args, &options(&args));
    let wanted = Wanted::new(&request).unwrap();
    let limit = args.select.first.map_or(usize::MAX, |n| usize::try_from(n).unwrap());
    let all = (1..).zip(flows).filter(|(_, flow)| wanted.has(flow, &request));
    all.map(|(number, _)| number).take(limit).collect()
}

#[test]
fn a_file_is_filtered_as_hubbles_client_filters_it() {
    let flows: Vec<GetFlowsResponse> = include_str!("../testdata/json.txt")
        .lines()
        .map(|line| json::from_str(line, Unknown::Refuse).unwrap())
        .collect();
    for line in include_str!("../testdata/select.txt").lines() {
        let (flags, ranges) = line.split_once(" =>").unwrap();
        let mut expected: Vec<usize> = Vec::new();
        for range in ranges.split_whitespace() {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            expected.extend(from.parse::<usize>().unwrap()..=to.parse().unwrap());
        }
        expected.retain(|number| !LOST.contains(number));
        let mut own = selected(flags, &flows);
        own.retain(|number| !LOST.contains(number));
        assert_eq!(own, expected, "{flags}");
    }
}

#[test]
fn values_that_mean_nothing_are_named() {
    for (flags, expected) in [
        ("--ip 1.1.1", "filter source_ip: '1.1.1' is no address or CIDR"),
        ("--to-port http", "filter destination_port: 'http' is no port, 0 to 65535"),
        ("--protocol tpc", "(did you mean tcp?)"),
        ("--http-path (", "filter http_path: '('"),
        ("--http-status 44", "must be like 404 or 5+"),
        ("-l a=(", "filter source_label: 'a=('"),
        ("--cel-expression a", "--cel-expression is not for files"),
    ] {
        let line = format!("observe {flags}");
        let args = ObserveCli::parse_from(line.split(' ')).args.flows;
        let error = Wanted::new(&request::flows(&args, &options(&args))).err().unwrap().to_string();
        assert!(error.contains(expected), "{flags}: {error}");
    }
}
