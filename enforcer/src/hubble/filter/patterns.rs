//! Names in which `*` stands for any characters: of nodes, and of DNS.

use enforcer_hubble::flow::FlowFilter;
use regex::Regex;

use super::{FilterError, One};
use crate::hubble::origin::Origin;

/// What an empty part of a node's pattern stands for: a name.
const ANY_NAME: &str = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)";

pub(super) fn add(one: &mut One, filter: &FlowFilter, origin: &Origin) -> Result<(), FilterError> {
    let nodes: Vec<_> =
        filter.node_name.iter().map(|pattern| node(pattern)).collect::<Result<_, _>>()?;
    // All flows here are of one node.
    let here = nodes.iter().any(|node| node.is_match(origin.name()));
    one.add(&filter.node_name, move |_| here);
    for (field, values) in
        [("source_fqdn", &filter.source_fqdn), ("destination_fqdn", &filter.destination_fqdn)]
    {
        for value in values {
            compile(field, value, &element(field, value)?)?;
        }
        // DNS names of addresses are not known to flows: a filter for them matches nothing.
        one.add(values, |_| false);
    }
    Ok(())
}

/// `[cluster/]node`; an empty part stands for any.
fn node(pattern: &str) -> Result<Regex, FilterError> {
    const FIELD: &str = "node_name";
    let (cluster, node) = pattern.split_once('/').unwrap_or(("", pattern));
    if node.contains('/') {
        return Err(FilterError::value(FIELD, pattern, "has more than one slash"));
    }
    if pattern.is_empty() {
        return Err(FilterError::value(FIELD, pattern, "is no name"));
    }
    let part = |part: &str| match part {
        "" => Ok(ANY_NAME.to_owned()),
        part => element(FIELD, part),
    };
    compile(FIELD, pattern, &format!("{}/{}", part(cluster)?, part(node)?))
}

fn compile(field: &'static str, value: &str, expression: &str) -> Result<Regex, FilterError> {
    let regex = Regex::new(&format!(r"\A(?:{expression})\z"));
    regex.map_err(|error| FilterError::value(field, value, format!("cannot be used: {error}")))
}

/// The regular expression of a pattern.
fn element(field: &'static str, pattern: &str) -> Result<String, FilterError> {
    let canonical = pattern.trim().to_lowercase();
    let canonical = canonical.strip_suffix('.').unwrap_or(&canonical);
    if canonical.is_empty() || canonical.ends_with('.') {
        return Err(FilterError::value(field, pattern, "is no name"));
    }
    let mut out = String::new();
    for character in canonical.chars() {
        match character {
            '.' => out.push_str(r"\."),
            '*' => out.push_str("[-.0-9a-z]*"),
            '-' | '_' | '0'..='9' | 'a'..='z' => out.push(character),
            other => {
                let problem = format!("has {other:?}, which is in no name");
                return Err(FilterError::value(field, pattern, problem));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_patterns_are_hubbles() {
        for (pattern, name, expected) in [
            ("/", "default/w1", true),
            ("w1", "default/w1", true),
            ("w*", "eu/w1.example.org", true),
            ("w", "default/w1", false),
            ("eu/", "eu/w1", true),
            ("eu/", "default/w1", false),
            ("eu-*/w1", "eu-1/w1", true),
            ("eu-*/w1", "eu-1/w2", false),
            ("*.com", "default/foo.com.org", false),
            ("W1", "default/w1", true),
        ] {
            assert_eq!(node(pattern).unwrap().is_match(name), expected, "{pattern} {name}");
        }
        for wrong in ["", "a|b", "a/b/c", "a b", "a..", "(x)/"] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dns_patterns_are_hubbles() {
        for (pattern, name, expected) in [
            ("*.example.org", "www.example.org", true),
            ("*.example.org", "example.org", false),
            ("*", "", true),
            ("example.org.", "example.org", true),
            ("Example.org", "example.org", true),
            ("example.org", "examplexorg", false),
        ] {
            let expression = element("source_fqdn", pattern).unwrap();
            let regex = compile("source_fqdn", pattern, &expression).unwrap();
            assert_eq!(regex.is_match(name), expected, "{pattern} {name}");
        }
        for wrong in ["", ".", "a..", "a[b]"] {
            assert!(element("source_fqdn", wrong).is_err(), "{wrong}");
        }
    }
}
