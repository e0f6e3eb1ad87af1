//! The alert rules with their unit tests, and the queries of the dashboard, by Prometheus' own tool.
//! That each name in them is one that the agent exports is a test of the agent's.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::CheckError;
use crate::{
    process::{self, Purpose},
    setup::promtool,
    workspace::Workspace,
};

const RULES: &str = "deploy/prometheus/enforcer.rules.yaml";
const TESTS: &str = "deploy/prometheus/enforcer.rules.test.yaml";
const DASHBOARD: &str = "deploy/grafana/enforcer.json";
/// Where the dashboard's queries are put as rules, which is what promtool reads.
const QUERIES: &str = "dashboard.rules.yaml";

/// Checks rules and dashboard.
pub(super) fn check(workspace: &Workspace) -> Result<(), CheckError> {
    let promtool = promtool::ensure(workspace)?;
    let rules = workspace.root().join(RULES);
    run(&promtool, "rules", "check", &rules)?;
    run(&promtool, "rules", "test", &workspace.root().join(TESTS))?;
    let dashboard = workspace.root().join(DASHBOARD);
    let failed = |path: &Path| {
        let path = workspace.show(path);
        move |reason| CheckError::Read { path, reason }
    };
    let text = fs::read_to_string(&dashboard).map_err(failed(&dashboard))?;
    let value = serde_json::from_str(&text).map_err(|error| failed(&dashboard)(error.into()))?;
    let queries = workspace.tools().join(QUERIES);
    fs::write(&queries, as_rules(&value)).map_err(failed(&queries))?;
    run(&promtool, "rules", "check", &queries)
}

fn run(promtool: &Path, what: &str, verb: &str, file: &Path) -> Result<(), CheckError> {
    let purpose = Purpose::new(
        format!("promtool {verb} {what} {}", file.display()),
        "see its message; a query of the dashboard is there as a recording rule",
    );
    process::capture(Command::new(promtool).args([verb, what]).arg(file), &purpose)?;
    Ok(())
}

/// The queries as recording rules, with numbers for what Grafana puts in.
fn as_rules(dashboard: &Value) -> String {
    let mut queries = Vec::new();
    find(dashboard, &mut queries);
    let rule = |(number, query): (usize, &&str)| {
        let query = query.replace("$__rate_interval", "5m").replace("$node", ".*");
        serde_json::json!({"record": format!("query:{number}"), "expr": query})
    };
    let rules: Vec<Value> = queries.iter().enumerate().map(rule).collect();
    serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()
}

fn find<'a>(value: &'a Value, queries: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            queries.extend(fields.get("expr").and_then(Value::as_str));
            fields.values().for_each(|value| find(value, queries));
        }
        Value::Array(values) => values.iter().for_each(|value| find(value, queries)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_become_rules() {
        let dashboard = serde_json::json!({"panels": [
            {"targets": [{"expr": "rate(a{n=~\"$node\"}[$__rate_interval])"}, {"expr": "b"}]},
        ]});
        let expected = r#"{"groups":[{"name":"dashboard","rules":[{"expr":"rate(a{n=~\".*\"}[5m])","record":"query:0"},{"expr":"b","record":"query:1"}]}]}"#;
        assert_eq!(as_rules(&dashboard), expected);
    }

    #[test]
    fn the_dashboard_has_queries() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(DASHBOARD);
        let text = fs::read_to_string(path).expect("it is there");
        let value = serde_json::from_str(&text).expect("it is JSON");
        let mut queries = Vec::new();
        find(&value, &mut queries);
        assert!(queries.len() >= 20, "{queries:?}");
    }
}
