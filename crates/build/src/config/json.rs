//! Reads JSON into a tree that knows its lines, and says in plain words what is wrong with JSON that is not.

use trackbed_core::ports::PortError;

use crate::config::tree::{Member, Node, Value, last_of_each, malformed};
use crate::text::{Lines, Place};

/// Deeper nesting than this is an attack on the stack, not a configuration.
const DEPTH_MAX: u32 = 64;

/// Reads a whole file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Node, PortError> {
    let mut reader = Reader { file, text, at: 0, lines: Lines::of(text) };
    reader.space()?;
    if reader.at == text.len() {
        return Err(reader.error("the file is empty; expected `{`"));
    }
    let node = reader.value(0)?;
    reader.space()?;
    match reader.peek() {
        None => Ok(node),
        Some(found) => Err(reader.error(format!("expected the end of the file, found `{found}`"))),
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    at: usize,
    lines: Lines<'a>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn error(&self, what: impl std::fmt::Display) -> PortError {
        malformed(self.file, Place::of(self.text, self.at), what)
    }

    fn expected(&self, what: &str) -> PortError {
        match self.peek() {
            None => self.error(format!("expected {what}, found the end of the file")),
            Some('\'') => {
                self.error(format!("expected {what}, found `'` (JSON texts stand in double quotes)"))
            }
            Some(found) => self.error(format!("expected {what}, found `{found}`")),
        }
    }

    /// Points to the comma, which is what must go, not to the bracket after it.
    fn trailing(&self, comma: usize, bracket: &str) -> PortError {
        let what = format!("this comma stands before `{bracket}`, where JSON allows none; take it out");
        malformed(self.file, Place::of(self.text, comma), what)
    }

    fn space(&mut self) -> Result<(), PortError> {
        while let Some(' ' | '\t' | '\n' | '\r') = self.peek() {
            self.at += 1;
        }
        let rest = &self.text[self.at..];
        if rest.starts_with("//") || rest.starts_with("/*") || rest.starts_with('#') {
            return Err(self.error("comments are not allowed in JSON"));
        }
        Ok(())
    }

    fn value(&mut self, depth: u32) -> Result<Node, PortError> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} levels of nesting")));
        }
        let place = self.lines.place(self.at);
        let value = match self.peek() {
            Some('{') => self.table(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Value::Text(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            Some('a'..='z' | 'A'..='Z') => self.word()?,
            _ => return Err(self.expected("a value")),
        };
        Ok(Node { value, place })
    }

    fn table(&mut self, depth: u32) -> Result<Value, PortError> {
        self.at += 1;
        let mut members: Vec<Member> = Vec::new();
        self.space()?;
        if self.peek() == Some('}') {
            self.at += 1;
            return Ok(Value::Table(members));
        }
        loop {
            let comma = self.at.saturating_sub(1);
            self.space()?;
            let place = self.lines.place(self.at);
            match self.peek() {
                Some('"') => {}
                Some('}') => {
                    return Err(self.trailing(comma, "}"));
                }
                _ => return Err(self.expected("a key in double quotes")),
            }
            let key = self.string()?;
            self.space()?;
            if self.peek() != Some(':') {
                return Err(self.expected(&format!("`:` after the key \"{key}\"")));
            }
            self.at += 1;
            self.space()?;
            let node = self.value(depth + 1)?;
            members.push(Member { key, place, node });
            self.space()?;
            match self.peek() {
                Some(',') => self.at += 1,
                Some('}') => {
                    self.at += 1;
                    return Ok(Value::Table(last_of_each(members)));
                }
                _ => return Err(self.expected("`,` or `}`")),
            }
        }
    }

    fn list(&mut self, depth: u32) -> Result<Value, PortError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space()?;
        if self.peek() == Some(']') {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            let comma = self.at.saturating_sub(1);
            self.space()?;
            if self.peek() == Some(']') {
                return Err(self.trailing(comma, "]"));
            }
            items.push(self.value(depth + 1)?);
            self.space()?;
            match self.peek() {
                Some(',') => self.at += 1,
                Some(']') => {
                    self.at += 1;
                    return Ok(Value::List(items));
                }
                _ => return Err(self.expected("`,` or `]`")),
            }
        }
    }

    fn word(&mut self) -> Result<Value, PortError> {
        for (word, value) in
            [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)]
        {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.expected("a value (texts stand in double quotes)"))
    }

    fn number(&mut self) -> Result<Value, PortError> {
        let rest = &self.text[self.at..];
        let length =
            rest.find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9')).unwrap_or(rest.len());
        let number = &rest[..length];
        if serde_json::from_str::<serde_json::Number>(number).is_err() {
            return Err(self.error(format!("`{number}` is not a number")));
        }
        self.at += length;
        Ok(Value::Number(number.to_owned()))
    }

    fn string(&mut self) -> Result<String, PortError> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some('"') => break,
                Some('\\') => {
                    self.take();
                    self.take();
                }
                Some('\n') | None => {
                    self.at = start;
                    return Err(self.error("this text has no closing double quote on its line"));
                }
                Some(c) => self.at += c.len_utf8(),
            }
        }
        self.at += 1;
        let raw = &self.text[start..self.at];
        // Tabs inside texts are forbidden by the standard and harmless; everything else is left to the strict reader.
        serde_json::from_str::<String>(&raw.replace('\t', "\\t")).map_err(|_| {
            self.at = start;
            self.error(format!("{raw} is not a text (look for a single backslash)"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        parse("railway.json", text).unwrap_err().message
    }

    #[test]
    fn every_value_knows_its_line() {
        let tree = parse("x", "{\n \"a\": {\"b\": [1, null, \"\\u00e4\"]}\n}").unwrap();
        let list = tree.at(&["a", "b"]).unwrap();
        assert_eq!(list.place, Place { line: 2, column: 13 });
        assert_eq!(list.items()[2].text(), Some("ä"));
    }

    #[test]
    fn broken_json_is_named_by_place_and_expectation() {
        assert_eq!(fails("{\n\"a\": 1\n  \"b\": 2}"), "railway.json:3:3: expected `,` or `}`, found `\"`");
        assert_eq!(
            fails("{\"a\": 1,}"),
            "railway.json:1:8: this comma stands before `}`, where JSON allows none; take it out"
        );
        assert!(fails("{\n\"a\": [\n1,\n\n]}").starts_with("railway.json:3:2: this comma stands before `]`"));
        assert_eq!(fails("{ // c\n}"), "railway.json:1:3: comments are not allowed in JSON");
        assert_eq!(fails(""), "railway.json:1:1: the file is empty; expected `{`");
        assert_eq!(fails("{\"a\": "), "railway.json:1:7: expected a value, found the end of the file");
        assert!(fails(&"[".repeat(100)).contains("64 levels"));
        for text in
            ["{'a': 1}", "{\"a\": yes}", "{\"a\": \"x\n\"}", "{\"a\": \"\\q\"}", "{\"a\": 1.}", "{} {}"]
        {
            assert!(fails(text).starts_with("railway.json:"), "{text}");
        }
    }
}
