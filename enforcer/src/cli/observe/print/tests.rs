//! Each form of output against what Hubble's own client prints.

use enforcer_hubble::json::Unknown;

use super::*;
use crate::cli::observe::tests::{ObserveCli, options};
use clap::Parser;

/// What is printed of the flows in `testdata`, and beside it.
fn printed(flags: &str) -> (String, String) {
    let line = format!("observe --color never {flags}");
    let args = ObserveCli::parse_from(line.split_whitespace()).args.flows;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut printer = Printer::new(&mut out, &mut err, options(&args));
    for line in include_str!("../testdata/flows.jsonl").lines() {
        printer.flows(&json::from_str(line, Unknown::Refuse).unwrap()).unwrap();
    }
    printer.finish().unwrap();
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn same(own: &str, hubbles: &str) {
    for (number, (own, hubbles)) in (1..).zip(own.lines().zip(hubbles.lines())) {
        assert_eq!(own, hubbles, "line {number}");
    }
    assert_eq!(own.lines().count(), hubbles.lines().count());
    assert!(own == hubbles);
}

#[test]
fn the_output_is_that_of_hubbles_client() {
    for (flags, out, err) in [
        ("", include_str!("../testdata/compact.txt"), include_str!("../testdata/compact.err.txt")),
        (
            "--print-policy-names --print-node-name",
            include_str!("../testdata/compact-names.txt"),
            include_str!("../testdata/compact.err.txt"),
        ),
        (
            "-o dict --print-node-name",
            include_str!("../testdata/dict.txt"),
            include_str!("../testdata/dict.err.txt"),
        ),
        (
            "-o table --print-node-name --print-policy-names",
            include_str!("../testdata/table.txt"),
            include_str!("../testdata/compact.err.txt"),
        ),
        ("-o json", include_str!("../testdata/json.txt"), include_str!("../testdata/json.err.txt")),
    ] {
        let (own_out, own_err) = printed(flags);
        same(&own_out, out);
        same(&own_err, err);
    }
    let numeric = printed("--numeric --time-format RFC3339Nano").0;
    same(&numeric, include_str!("../testdata/compact-numeric.txt"));
    assert_eq!(printed("--ip-translation=false").0, printed("--numeric").0);
    assert_eq!(printed("--silent-errors").1, "");
}

fn denied() -> GetFlowsResponse {
    let text = r#"{"flow":{"time":"2023-11-14T22:13:21.5Z","verdict":"DROPPED",
        "IP":{"source":"10.0.0.1","destination":"10.0.0.2"},
        "l4":{"TCP":{"source_port":40000,"destination_port":5432}},
        "source":{"identity":9,"namespace":"shop","pod_name":"checkout-7d9fbb9c4-x2x4k"},
        "destination":{"identity":8,"namespace":"data","pod_name":"db-0"},
        "event_type":{"type":5,"sub_type":133},"traffic_direction":"INGRESS","is_reply":false,
        "ingress_denied_by":[{"name":"deny","namespace":"data","kind":"NetworkPolicy"}],
        "Summary":"TCP Flags: SYN","extensions":{
            "@type":"type.googleapis.com/google.protobuf.Struct","value":{
                "default_deny":true,"reason_text":"no rule allows it",
                "nearest_miss":"data/allow-web matches the peer, port 5432 is not 443"}}}}"#;
    json::from_str(text, Unknown::Refuse).unwrap()
}

fn line(response: &GetFlowsResponse, flags: &str, layout: Option<Layout>) -> String {
    let flags = format!("observe --color never {flags}");
    let args = ObserveCli::parse_from(flags.split_whitespace()).args.flows;
    let mut out = Vec::new();
    let options = Options { layout, ..options(&args) };
    Printer::new(&mut out, Vec::new(), options).flows(response).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn why_names_the_isolating_policies_and_the_nearest_miss() {
    let expected = "no rule of data/deny allows it; nearest: data/allow-web matches the peer, \
                    port 5432 is not 443\n";
    assert!(line(&denied(), "--why", None).ends_with(expected));
    assert!(line(&denied(), "--why -o dict", None).ends_with(&format!("        WHY: {expected}")));
    assert!(!line(&denied(), "", None).contains("nearest"));
    let mut allowed = denied();
    let Some(ResponseTypes::Flow(flow)) = &mut allowed.response_types else { panic!("a flow") };
    flow.verdict = 1;
    flow.ingress_allowed_by = std::mem::take(&mut flow.ingress_denied_by);
    assert!(line(&allowed, "--why", None).ends_with("\n    allowed by data/deny\n"));
    let Some(ResponseTypes::Flow(flow)) = &mut allowed.response_types else { panic!("a flow") };
    flow.extensions = None;
    flow.verdict = 2;
    assert!(!line(&allowed, "--why", None).contains('\n'.to_string().repeat(2).as_str()));
}

#[test]
fn columns_fit_the_terminal() {
    for width in [40, 60, 80, 100, 120, 200] {
        let text = line(&denied(), "--print-policy-names", Some(Layout::new(width)));
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
        // Two ends that can be read take more than the narrowest terminals have.
        assert!(longest <= width.max(60), "{width}: {text}");
        assert!(text.contains("DROPPED") || text.contains("DENIED"), "{text}");
        assert!(text.contains(":5432"), "a port is never cut off: {text}");
    }
    let wide = line(&denied(), "--print-policy-names", Some(Layout::new(200)));
    assert!(wide.contains("shop/checkout-7d9fbb9c4-x2x4k:40000"), "{wide}");
    assert!(wide.contains("BY deny (NetworkPolicy)"), "{wide}");
    assert_eq!(wide.lines().count(), 1);
}

#[test]
fn nothing_in_a_flow_harms_a_terminal() {
    let mut hostile = denied();
    let Some(ResponseTypes::Flow(flow)) = &mut hostile.response_types else { panic!("a flow") };
    flow.summary = "\u{1b}[2J".into();
    flow.source.as_mut().unwrap().pod_name = "a\u{7}\nb".into();
    for flags in ["", "--why", "-o dict", "-o table", "--print-node-name"] {
        let text = line(&hostile, flags, None);
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{flags}: {text:?}");
    }
}

#[test]
fn agent_events_are_lines() {
    let text = r#"{"agent_event":{"type":"ENDPOINT_CREATED","endpoint_update":
        {"id":"7","pod_name":"web-1","namespace":"shop"}},"node_name":"default/w1",
        "time":"2023-11-14T22:13:21.5Z"}"#;
    let event: GetAgentEventsResponse = json::from_str(text, Unknown::Refuse).unwrap();
    for (flags, expected) in [
        ("", "Nov 14 22:13:21.500: ENDPOINT_CREATED (id: 7, namespace: shop, pod name: web-1)\n"),
        (
            "-o dict",
            "  TIMESTAMP: Nov 14 22:13:21.500\n       TYPE: ENDPOINT_CREATED\n    \
             DETAILS: id: 7, namespace: shop, pod name: web-1\n",
        ),
        (
            "-o table",
            "TIMESTAMP             TYPE               DETAILS\n\
             Nov 14 22:13:21.500   ENDPOINT_CREATED   id: 7, namespace: shop, pod name: web-1\n",
        ),
    ] {
        let line = format!("observe --color never {flags}");
        let args = ObserveCli::parse_from(line.split_whitespace()).args.flows;
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, Vec::new(), options(&args));
        printer.agent(&event).unwrap();
        printer.finish().unwrap();
        drop(printer);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
