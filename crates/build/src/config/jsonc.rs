//! JSON with comments and commas at the end of lists, as Deno's configuration has it: both are blanked, so that places stay.

use trackbed_core::ports::PortError;

use crate::config::json;
use crate::config::tree::Node;

/// Reads a whole file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Node, PortError> {
    json::parse(file, &blank_commas(&blank_comments(text)))
}

/// Replaces comments by spaces, line ends kept.
fn blank_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(next) = rest.chars().next() {
        let end = match next {
            '\\' if quoted => rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at),
            '"' => {
                quoted = !quoted;
                1
            }
            '/' if !quoted && rest.starts_with("//") => {
                let end = rest.find('\n').unwrap_or(rest.len());
                out.extend(rest[..end].chars().map(|_| ' '));
                rest = &rest[end..];
                continue;
            }
            '/' if !quoted && rest.starts_with("/*") => {
                let end = rest[2..].find("*/").map_or(rest.len(), |at| at + 4);
                out.extend(rest[..end].chars().map(|c| if c == '\n' { c } else { ' ' }));
                rest = &rest[end..];
                continue;
            }
            other => other.len_utf8(),
        };
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    out
}

/// Replaces each comma before a closing bracket by a space.
fn blank_commas(text: &str) -> String {
    let mut out: Vec<char> = text.chars().collect();
    let (mut quoted, mut escaped, mut comma, mut before) = (false, false, None, '[');
    for at in 0..out.len() {
        let seen = out[at];
        match seen {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                comma = None;
            }
            // One that follows no value is a mistake.
            ',' if !quoted => comma = (!matches!(before, '[' | '{' | ',')).then_some(at),
            ']' | '}' if !quoted => {
                if let Some(at) = comma.take() {
                    out[at] = ' ';
                }
            }
            c if c.is_whitespace() => {}
            _ => comma = None,
        }
        if !seen.is_whitespace() {
            before = seen;
        }
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_last_commas_are_no_mistake() {
        let text = "{ // one\n  \"a//\\\"\": [1, 2,], /* two\n */ \"b\": \"/* no */,]\",\n}";
        let tree = parse("deno.jsonc", text).unwrap();
        assert_eq!(tree.get("a//\"").unwrap().items().len(), 2);
        let member = tree.member("b").unwrap();
        assert_eq!((member.node.text(), member.place.line), (Some("/* no */,]"), 3));
        assert!(parse("deno.jsonc", "{\"a\": [,]}").is_err() && parse("deno.jsonc", "{ /* x").is_err());
    }
}
