//! Reads TOML into a tree that knows its lines.

use trackbed_core::ports::PortError;

use crate::config::tree::{Member, Node, Value, malformed};
use crate::text::{Lines, Place};

/// Reads a whole file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Node, PortError> {
    match toml::de::DeTable::parse(text) {
        Ok(table) => {
            let lines = Lines::of(text);
            let place = Place { line: 1, column: 1 };
            Ok(Node { value: convert_table(&lines, table.get_ref()), place })
        }
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            Err(malformed(file, Place::of(text, at), error.message().replace('\n', ", ")))
        }
    }
}

fn convert_table(lines: &Lines<'_>, table: &toml::de::DeTable<'_>) -> Value {
    let mut members: Vec<(usize, Member)> = table
        .iter()
        .map(|(key, value)| {
            let place = lines.place(key.span().start);
            let node =
                Node { value: convert(lines, value.get_ref()), place: lines.place(value.span().start) };
            (key.span().start, Member { key: key.get_ref().to_string(), place, node })
        })
        .collect();
    members.sort_by_key(|(start, _)| *start);
    Value::Table(members.into_iter().map(|(_, member)| member).collect())
}

fn convert(lines: &Lines<'_>, value: &toml::de::DeValue<'_>) -> Value {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Number(number.to_string()),
        DeValue::Float(number) => Value::Number(number.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(value) => Value::Text(value.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node {
                    value: convert(lines, item.get_ref()),
                    place: lines.place(item.span().start),
                })
                .collect(),
        ),
        DeValue::Table(table) => convert_table(lines, table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let tree = parse("x", "[deploy]\n# a\nstartCommand = 'x'\n[[volumes]]\nname = 'd'\n").unwrap();
        let start = &tree.get("deploy").unwrap().members()[0];
        assert_eq!((start.key.as_str(), start.place.line), ("startCommand", 3));
        assert_eq!(tree.get("volumes").unwrap().items()[0].get("name").unwrap().text(), Some("d"));
    }

    #[test]
    fn broken_toml_is_named_by_place() {
        let error = parse("railway.toml", "[deploy]\nstartCommand = uvicorn main\n").unwrap_err();
        assert!(error.message.starts_with("railway.toml:2:16: "), "{}", error.message);
    }
}
