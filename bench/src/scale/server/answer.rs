//! What a request for objects is answered: which objects, in which form, and whether changes may
//! follow. Pure.

use std::io::{self, Write};

use super::objects::{Object, Resource, VERSION};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    resource: &'a str,
    node: Option<&'a str>,
    form: Form,
    /// A watch ends after so many seconds.
    pub(super) seconds: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// Changes, of which there are none.
    Changes,
    /// All as a stream, then changes.
    Stream,
    /// A list, from a place on, of so many.
    List { from: usize, most: usize },
}

impl<'a> Asked<'a> {
    /// Reads a path with its query.
    pub(super) fn read(target: &'a str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let value = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
        };
        let number = |key| value(key).and_then(|text| text.parse().ok());
        let form = match (value("watch"), value("sendInitialEvents")) {
            (Some(_), Some(_)) => Form::Stream,
            (Some(_), None) => Form::Changes,
            (None, _) => Form::List {
                from: number("continue").unwrap_or(0),
                most: number("limit").unwrap_or(usize::MAX),
            },
        };
        Self {
            resource: path.rsplit('/').next().unwrap_or_default(),
            // All pods run, so the other selector, of those that have not ended, takes every one.
            node: value("fieldSelector").and_then(|one| one.strip_prefix("spec.nodeName%3D")),
            form,
            seconds: value("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(60),
        }
    }

    /// Whether the connection stays open for changes.
    pub(super) fn is_watch(&self) -> bool {
        !matches!(self.form, Form::List { .. })
    }

    /// Whether it asks for what servers before 1.27 refuse.
    pub(super) fn is_stream(&self) -> bool {
        self.form == Form::Stream
    }

    /// Writes the answer.
    pub(super) fn write(&self, all: &[Resource], out: &mut impl Write) -> io::Result<()> {
        let objects = all.iter().find(|one| one.name == self.resource);
        let objects = objects.into_iter().flat_map(|one| &one.objects);
        let mut objects = objects.filter(|object| self.node.is_none_or(|node| node == object.node));
        match self.form {
            Form::Changes => Ok(()),
            Form::Stream => {
                for Object { text, .. } in objects {
                    writeln!(out, r#"{{"type":"ADDED","object":{text}}}"#)?;
                }
                writeln!(
                    out,
                    "{{\"type\":\"BOOKMARK\",\"object\":{{\"metadata\":{{\"resourceVersion\":\
                     \"{VERSION}\",\"annotations\":{{\"k8s.io/initial-events-end\":\"true\"}}}}}}}}"
                )
            }
            Form::List { from, most } => {
                out.write_all(br#"{"kind":"List","apiVersion":"v1","items":["#)?;
                let mut written = 0;
                for Object { text, .. } in objects.by_ref().skip(from).take(most) {
                    let comma = if written == 0 { "" } else { "," };
                    write!(out, "{comma}{text}")?;
                    written += 1;
                }
                write!(out, r#"],"metadata":{{"resourceVersion":"{VERSION}""#)?;
                let left = objects.count();
                if left > 0 {
                    let next = from + written;
                    write!(out, r#","continue":"{next}","remainingItemCount":{left}"#)?;
                }
                out.write_all(b"}}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn answer(target: &str) -> String {
        let object = |number: u32| Object {
            text: format!("{{\"n\":{number}}}"),
            node: format!("w{}", number % 2),
        };
        let all = [Resource { name: "pods", objects: (0..5).map(object).collect() }];
        let mut out = Vec::new();
        Asked::read(target).write(&all, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_comes_whole_or_in_parts() {
        let numbers = |target: &str| -> (Vec<u64>, Value) {
            let list: Value = serde_json::from_str(&answer(target)).unwrap();
            let items = list["items"].as_array().unwrap().iter();
            (items.map(|item| item["n"].as_u64().unwrap()).collect(), list["metadata"].clone())
        };
        let (all, meta) = numbers("/api/v1/pods?resourceVersion=7");
        assert_eq!((all, &meta["continue"]), (vec![0, 1, 2, 3, 4], &Value::Null));
        let (part, meta) = numbers("/api/v1/pods?limit=2");
        assert_eq!((part, &meta["continue"]), (vec![0, 1], &"2".into()));
        assert_eq!(meta["remainingItemCount"], 3);
        let (part, meta) = numbers("/api/v1/pods?limit=3&continue=2");
        assert_eq!((part, &meta["continue"]), (vec![2, 3, 4], &Value::Null));
        let (part, _) = numbers("/api/v1/pods?fieldSelector=spec.nodeName%3Dw1&limit=500");
        assert_eq!(part, [1, 3]);
        assert!(numbers("/api/v1/others").0.is_empty());
    }

    #[test]
    fn a_stream_ends_with_its_bookmark_and_changes_are_none() {
        let stream = "/api/v1/pods?watch=true&sendInitialEvents=true&timeoutSeconds=9";
        let text = answer(stream);
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
        assert_eq!(kinds, ["ADDED", "ADDED", "ADDED", "ADDED", "ADDED", "BOOKMARK"]);
        let end = &lines[5]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"];
        assert_eq!(end, "true");
        let asked = Asked::read(stream);
        assert!(asked.is_watch() && asked.is_stream() && asked.seconds == 9);
        assert_eq!(answer("/api/v1/pods?watch=true&resourceVersion=3"), "");
        assert!(!Asked::read("/api/v1/pods?limit=1").is_watch());
    }
}
