//! Label selectors, as Kubernetes writes them, with the label's source before the key:
//! `k8s:app in (web, db), !reserved:host`. A key without one is of any source.

use std::sync::Arc;

use enforcer_hubble::flow::FlowFilter;

use super::{FilterError, One};
use crate::{
    flow::event::Flow,
    hubble::{
        convert::{NAMESPACE_LABEL, Side, Who, who},
        origin::Origin,
    },
};

pub(super) fn add(one: &mut One, filter: &FlowFilter, origin: &Origin) -> Result<(), FilterError> {
    let node: Arc<str> = origin.node().into();
    for (field, values, side) in [
        ("source_label", &filter.source_label, Side::Source),
        ("destination_label", &filter.destination_label, Side::Destination),
    ] {
        let selectors = parse_all(field, values)?;
        let node = Arc::clone(&node);
        one.add(values, move |flow: &Flow| {
            let who = who(flow, side, &node);
            selectors.iter().any(|selector| selector.matches(|key| value(who, key)))
        });
    }
    // Labels of the node are not told with flows: all selectors see none.
    let selectors = parse_all("node_labels", &filter.node_labels)?;
    let here = selectors.iter().any(|selector| selector.matches(|_| None));
    one.add(&filter.node_labels, move |_| here);
    Ok(())
}

fn parse_all(field: &'static str, values: &[String]) -> Result<Vec<Selector>, FilterError> {
    let one = |value: &String| {
        Selector::parse(value).map_err(|problem| {
            FilterError::value(field, value, format!("is no label selector: {problem}"))
        })
    };
    values.iter().map(one).collect()
}

/// The value of a label that an end of a flow has.
fn value<'a>(who: Who<'a>, key: &Key) -> Option<&'a str> {
    let of = |source: &str| key.source.as_deref().is_none_or(|wanted| wanted == source);
    match who {
        Who::Nobody => None,
        Who::Reserved(reserved) => {
            (of("reserved") && reserved.label() == Some(&*key.name)).then_some("")
        }
        Who::Pod(_) if !of("k8s") => None,
        Who::Pod(pod) if key.name == NAMESPACE_LABEL => Some(&*pod.key.namespace),
        Who::Pod(pod) => pod.labels.get(&key.name),
    }
}

/// A label's key.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    /// `None` for any.
    source: Option<String>,
    name: String,
}

/// Requirements that must all be met.
#[derive(Debug, PartialEq, Eq)]
struct Selector {
    requirements: Vec<(Key, Requirement)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Requirement {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl Requirement {
    fn met(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            // As Kubernetes has it: without the label there is no such value.
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
            Self::Above(bound) => number().is_some_and(|number| number > *bound),
            Self::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl Selector {
    fn matches<'a>(&self, value: impl Fn(&Key) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|(key, requirement)| requirement.met(value(key)))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        if tokens.peek().is_none() {
            // Selects everything, as an empty selector does.
            return Ok(Self { requirements });
        }
        loop {
            requirements.push(requirement(&mut tokens)?);
            match tokens.next() {
                None => return Ok(Self { requirements }),
                Some(",") => {}
                Some(other) => return Err(format!("{other:?} where a comma or the end must be")),
            }
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<(Key, Requirement), String> {
    if tokens.peek() == Some("!") {
        tokens.next();
        return Ok((key(tokens)?, Requirement::Absent));
    }
    let key = key(tokens)?;
    let requirement = match tokens.peek() {
        None | Some(",") => return Ok((key, Requirement::Exists)),
        Some("=" | "==") => {
            tokens.next();
            Requirement::In(vec![one_value(tokens)?])
        }
        Some("!=") => {
            tokens.next();
            Requirement::NotIn(vec![one_value(tokens)?])
        }
        Some("in") => {
            tokens.next();
            Requirement::In(list(tokens)?)
        }
        Some("notin") => {
            tokens.next();
            Requirement::NotIn(list(tokens)?)
        }
        Some(">") => {
            tokens.next();
            Requirement::Above(number(tokens)?)
        }
        Some("<") => {
            tokens.next();
            Requirement::Below(number(tokens)?)
        }
        Some(other) => {
            let hint = enforcer_hubble::near::hint(other, ["in", "notin"]);
            return Err(format!("{other:?} is none of =, ==, !=, in, notin, <, >{hint}"));
        }
    };
    Ok((key, requirement))
}

fn key(tokens: &mut Tokens<'_>) -> Result<Key, String> {
    let word = tokens.word().ok_or("a key is missing")?;
    let (source, name) = match word.split_once(':') {
        Some((source, name)) => (Some(source).filter(|source| *source != "any"), name),
        None => (None, word),
    };
    if name.is_empty() || source.is_some_and(str::is_empty) {
        return Err(format!("{word:?} is no key"));
    }
    Ok(Key { source: source.map(str::to_owned), name: name.to_owned() })
}

/// A value, which may be empty at the end of a requirement.
fn one_value(tokens: &mut Tokens<'_>) -> Result<String, String> {
    match tokens.peek() {
        None | Some(",") => Ok(String::new()),
        Some(_) => tokens.word().map(str::to_owned).ok_or_else(|| "a value is missing".to_owned()),
    }
}

fn number(tokens: &mut Tokens<'_>) -> Result<i64, String> {
    let word = tokens.word().ok_or("a number is missing")?;
    word.parse().ok().ok_or_else(|| format!("{word:?} is no whole number"))
}

/// `(a, b)`
fn list(tokens: &mut Tokens<'_>) -> Result<Vec<String>, String> {
    if tokens.next() != Some("(") {
        return Err("a list in parentheses is missing".to_owned());
    }
    let mut values = Vec::new();
    loop {
        values.push(match tokens.peek() {
            // The empty value.
            Some("," | ")") => String::new(),
            _ => tokens.word().ok_or("a list does not end")?.to_owned(),
        });
        match tokens.next() {
            Some(",") => {}
            Some(")") => return Ok(values),
            _ => return Err("a list does not end".to_owned()),
        }
    }
}

/// Words and signs.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let first = rest.chars().next()?;
        let length = match first {
            ',' | '(' | ')' | '<' | '>' => 1,
            '=' | '!' => 1 + usize::from(rest.get(1..2) == Some("=")),
            _ => rest
                .find(|c: char| c.is_whitespace() || ",()<>=!".contains(c))
                .unwrap_or(rest.len()),
        };
        rest.get(..length)
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek()?;
        self.rest = self.rest.trim_start().get(token.len()..).unwrap_or_default();
        Some(token)
    }

    fn word(&mut self) -> Option<&'a str> {
        let is_word = |token: &&str| !token.starts_with([',', '(', ')', '<', '>', '=', '!']);
        self.peek().filter(is_word)?;
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        Selector::parse(selector).unwrap().matches(|key| {
            let found = labels.iter().find(|(label, _)| {
                let (source, name) = label.split_once(':').unwrap();
                name == key.name && key.source.as_deref().is_none_or(|wanted| wanted == source)
            });
            found.map(|(_, value)| *value)
        })
    }

    #[test]
    fn selectors_are_those_of_kubernetes_with_sources() {
        let labels = [("k8s:app", "web"), ("k8s:tier", ""), ("reserved:host", ""), ("k8s:n", "5")];
        for (selector, expected) in [
            ("", true),
            ("app", true),
            ("k8s:app", true),
            ("any:app", true),
            ("reserved:app", false),
            ("reserved:host", true),
            ("!reserved:host", false),
            ("!zone", true),
            ("! zone", true),
            ("app=web", true),
            ("app == web", true),
            ("app=db", false),
            ("app!=db", true),
            ("zone!=db", true),
            ("zone=", false),
            ("tier=", true),
            ("tier", true),
            ("app in (db, web)", true),
            ("app in(db,web),tier", true),
            ("app in (db)", false),
            ("tier in ()", true),
            ("tier in (a,)", true),
            ("app notin (db)", true),
            ("app notin (web)", false),
            ("zone notin (web)", true),
            ("app=web,tier=x", false),
            ("app=web , !zone", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app>1", false),
            ("k8s:io.kubernetes.pod.namespace", false),
            ("in in (a)", false),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_in_so_many_words() {
        for (selector, problem) in [
            ("app web", "\"web\" is none of =, ==, !=, in, notin, <, >"),
            (
                "app notn (a)",
                "\"notn\" is none of =, ==, !=, in, notin, <, > (did you mean notin?)",
            ),
            ("app in web", "a list in parentheses is missing"),
            ("app in (web", "a list does not end"),
            ("app in (web x)", "a list does not end"),
            (",", "a key is missing"),
            ("app,", "a key is missing"),
            ("!", "a key is missing"),
            ("=a", "a key is missing"),
            ("k8s:", "\"k8s:\" is no key"),
            (":app", "\":app\" is no key"),
            ("app=web db", "\"db\" where a comma or the end must be"),
            ("app=(", "a value is missing"),
            ("n>x", "\"x\" is no whole number"),
        ] {
            assert_eq!(Selector::parse(selector).unwrap_err(), problem, "{selector}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_selector_or_refused(text in "[a-c=!<>,() :é]{0,24}") {
            // It ends, without a panic.
            if let Ok(selector) = Selector::parse(&text) {
                proptest::prop_assert!(selector.requirements.len() <= text.len());
            }
        }
    }
}
