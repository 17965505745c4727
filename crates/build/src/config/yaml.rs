//! Reads YAML into a tree that knows its lines. Of several documents in a file, each is one.

use std::collections::HashSet;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use trackbed_core::ports::PortError;

use crate::config::tree::{Member, Node, Value, last_of_each, malformed};
use crate::text::Place;

/// Deeper nesting than this is an attack on the stack, not a configuration.
const DEPTH_MAX: usize = 64;
/// Values in one file: an alias may stand for many, and aliases of aliases for billions.
const VALUES_MAX: usize = 100_000;

/// Reads a whole file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Node>, PortError> {
    let mut reader = Reader { file, open: Vec::new(), anchors: Vec::new(), documents: Vec::new(), values: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let what = error.info().to_owned();
            malformed(file, place(error.marker()), what)
        })?;
        reader.take(event, place(&span.start))?;
    }
    Ok(reader.documents)
}

fn place(marker: &Marker) -> Place {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
}

/// A list or table that has begun.
struct Open {
    anchor: usize,
    place: Place,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    /// With the key whose value comes next.
    Table(Vec<Member>, Option<(String, Place)>),
}

struct Reader<'a> {
    file: &'a str,
    open: Vec<Open>,
    anchors: Vec<(usize, Node, usize)>,
    documents: Vec<Node>,
    values: usize,
}

impl Reader<'_> {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), PortError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = scalar(&text, style);
                self.put(Node { value, place }, anchor, 1)
            }
            Event::SequenceStart(anchor, ..) => self.begin(anchor, place, Kind::List(Vec::new())),
            Event::MappingStart(anchor, ..) => self.begin(anchor, place, Kind::Table(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { anchor, place, kind }) = self.open.pop() else { return Ok(()) };
                let value = match kind {
                    Kind::List(items) => Value::List(items),
                    Kind::Table(members, _) => Value::Table(merge(members)),
                };
                let node = Node { value, place };
                let count = if anchor == 0 { 1 } else { count(&node) };
                self.put(node, anchor, count)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.iter().find(|(known, ..)| *known == anchor);
                let Some((_, node, count)) = known.cloned() else {
                    return Err(malformed(self.file, place, "this alias stands for nothing"));
                };
                self.put(Node { place, ..node }, 0, count)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, anchor: usize, place: Place, kind: Kind) -> Result<(), PortError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(malformed(self.file, place, format!("more than {DEPTH_MAX} levels of nesting")));
        }
        self.open.push(Open { anchor, place, kind });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize, count: usize) -> Result<(), PortError> {
        self.values = self.values.saturating_add(count);
        if self.values > VALUES_MAX {
            return Err(malformed(self.file, node.place, format!("more than {VALUES_MAX} values")));
        }
        if anchor != 0 {
            self.anchors.push((anchor, node.clone(), count));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.documents.push(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Table(members, waiting)) => match waiting.take() {
                None => {
                    let key = match &node.value {
                        Value::Text(text) | Value::Number(text) => text.clone(),
                        Value::Bool(value) => value.to_string(),
                        other => {
                            let what = format!("a key is {other}; expected a text");
                            return Err(malformed(self.file, node.place, what));
                        }
                    };
                    *waiting = Some((key, node.place));
                }
                Some((key, place)) => members.push(Member { key, place, node }),
            },
        }
        Ok(())
    }
}

/// Puts what `<<: *base` names behind what the table says itself (yaml.org/type/merge.html).
fn merge(members: Vec<Member>) -> Vec<Member> {
    let (merged, mut own): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.key == "<<");
    own = last_of_each(own);
    let mut known: HashSet<String> = own.iter().map(|member| member.key.clone()).collect();
    for base in merged {
        let bases = match base.node.value {
            Value::List(items) => items,
            _ => vec![base.node],
        };
        for base in bases {
            let Value::Table(members) = base.value else { continue };
            own.extend(members.into_iter().filter(|member| known.insert(member.key.clone())));
        }
    }
    own
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Table(members) => 1 + members.iter().map(|member| count(&member.node)).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => 1,
    }
}

/// What a plain word stands for, by the core schema of YAML 1.2.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if serde_json::from_str::<serde_json::Number>(text).is_ok() => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let text = "# c\nservices:\n  - type: web\n    disk:\n      sizeGB: 10\n    on: 'true'\n";
        let tree = &parse("render.yaml", text).unwrap()[0];
        let service = &tree.get("services").unwrap().items()[0];
        assert_eq!(service.get("type").unwrap().text(), Some("web"));
        let size = service.at(&["disk", "sizeGB"]).unwrap();
        assert_eq!((&size.value, size.place.line), (&Value::Number("10".to_owned()), 5));
        assert_eq!(service.get("on").unwrap().value, Value::Text("true".to_owned()));
        assert_eq!(service.member("on").unwrap().place.line, 6);
    }

    #[test]
    fn anchors_and_merges_are_followed_within_bounds() {
        let tree = &parse("x", "base: &b {a: 1, b: 2}\nown:\n  <<: *b\n  b: 3\n").unwrap()[0];
        let own = tree.get("own").unwrap();
        assert_eq!(own.get("a").unwrap().value, Value::Number("1".to_owned()));
        assert_eq!(own.get("b").unwrap().value, Value::Number("3".to_owned()));
        let mut laughs = String::from("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", ")));
        }
        assert!(parse("x", &laughs).unwrap_err().message.contains("100000 values"));
        assert!(parse("x", &"[".repeat(200)).is_err());
        assert!(parse("x", "a: [1\nb: 2").unwrap_err().message.starts_with("x:"));
    }
}
