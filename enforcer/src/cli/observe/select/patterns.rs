//! Fields with patterns.

use enforcer_hubble::flow::{Flow, FlowFilter, layer7::Record};
use regex::Regex;

use super::{One, SelectError, plain::http, wrong};

pub(super) fn add(one: &mut One, filter: &FlowFilter) -> Result<(), SelectError> {
    names(one, &filter.source_fqdn, |flow| &flow.source_names);
    names(one, &filter.destination_fqdn, |flow| &flow.destination_names);
    one.any(filter.source_cluster_name.clone(), |pattern, flow| {
        glob(pattern, flow.source.as_ref().map_or("", |end| &end.cluster_name))
    });
    one.any(filter.destination_cluster_name.clone(), |pattern, flow| {
        glob(pattern, flow.destination.as_ref().map_or("", |end| &end.cluster_name))
    });
    one.any(filter.node_name.clone(), |pattern, flow| {
        let (cluster, node) = flow.node_name.split_once('/').unwrap_or(("", &flow.node_name));
        match pattern.split_once('/') {
            None => glob(pattern, node),
            Some((of, "")) => glob(of, cluster),
            Some((of, pattern)) => (of.is_empty() || glob(of, cluster)) && glob(pattern, node),
        }
    });
    expressions(one, "dns_query", &filter.dns_query, |flow| {
        match flow.l7.as_ref()?.record.as_ref()? {
            Record::Dns(dns) => Some(dns.query.clone()),
            Record::Http(_) | Record::Kafka(_) => None,
        }
    })?;
    expressions(one, "http_url", &filter.http_url, |flow| Some(http(flow)?.url.clone()))?;
    expressions(one, "http_path", &filter.http_path, |flow| {
        let url = &http(flow)?.url;
        // Scheme and host, where they are there, are not the path's; nor is the query.
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let path = if rest.len() == url.len() { rest } else { &rest[rest.find('/')?..] };
        Some(path.split(['?', '#']).next().unwrap_or(path).to_owned())
    })
}

fn names(one: &mut One, patterns: &[String], of: fn(&Flow) -> &Vec<String>) {
    let lower = str::to_ascii_lowercase;
    one.any(patterns.iter().map(|pattern| lower(pattern)), move |pattern, flow| {
        of(flow).iter().any(|name| glob(pattern, &lower(name)))
    });
}

fn expressions(
    one: &mut One,
    field: &'static str,
    values: &[String],
    of: fn(&Flow) -> Option<String>,
) -> Result<(), SelectError> {
    let mut all = Vec::new();
    for value in values {
        let read = Regex::new(value).map_err(|error| wrong(field, value, error.to_string()))?;
        all.push(read);
    }
    one.any(all, move |expression: &Regex, flow| {
        of(flow).is_some_and(|text| expression.is_match(&text))
    });
    Ok(())
}

/// Whether `text` is as `pattern` says, where `*` is any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_any_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a.io", "a.io", true),
            ("*.a.io", "b.a.io", true),
            ("*.a.io", "a.io", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("k8s*", "k8s-1", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
