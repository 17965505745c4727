//! A configuration file as a tree in which every value knows its line: the one shape that JSON, TOML and YAML become.

use std::collections::HashSet;
use std::fmt;

use trackbed_core::ports::PortError;

use crate::text::Place;

/// Letters of a key or a value that are quoted.
const QUOTED_MAX: usize = 80;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// The value.
    pub(crate) value: Value,
    /// Where it begins.
    pub(crate) place: Place,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// JSON's null: as if the key were absent.
    Null,
    /// A truth.
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the file.
    Table(Vec<Member>),
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) place: Place,
    /// Its value.
    pub(crate) node: Node,
}

impl Node {
    /// Returns the members of a table, or none for anything else.
    pub(crate) fn members(&self) -> &[Member] {
        match &self.value {
            Value::Table(members) => members,
            _ => &[],
        }
    }

    /// Returns the items of a list, or none for anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Finds a member that is not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.member(key).map(|member| &member.node)
    }

    /// Finds a member that is not null, with the place of its key.
    pub(crate) fn member(&self, key: &str) -> Option<&Member> {
        self.members().iter().find(|member| member.key == key && member.node.value != Value::Null)
    }

    /// Finds a member through several tables.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Returns the text of a text value.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(value) => f.write_str(value),
            Value::Text(value) => write!(f, "\"{}\"", brief(value)),
            Value::List(_) => f.write_str("a list"),
            Value::Table(_) => f.write_str("a table"),
        }
    }
}

/// Keeps the last one of several equal keys, which is the one that counts in every reader of JSON.
pub(crate) fn last_of_each(members: Vec<Member>) -> Vec<Member> {
    let mut seen = HashSet::new();
    let is_last: Vec<bool> = members.iter().rev().map(|member| seen.insert(member.key.as_str())).collect();
    let is_last = is_last.into_iter().rev().collect::<Vec<_>>();
    members.into_iter().zip(is_last).filter_map(|(member, is_last)| is_last.then_some(member)).collect()
}

/// Cuts a text that is quoted to people.
pub(crate) fn brief(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A file that cannot be read as what it is.
pub(crate) fn malformed(file: &str, place: Place, what: impl fmt::Display) -> PortError {
    PortError::new(format!("{file}:{}:{}: {what}", place.line, place.column))
        .hint(format!("mend line {} of {file} and deploy again", place.line))
}
