//! SQL text as it is typed: where a statement ends.

/// Cuts the first whole statement off a text: what comes before its `;`, and the rest. None when it has not ended yet.
/// Quotes, comments and the bodies of triggers are looked through, as SQLite's own shell does.
pub(crate) fn split(text: &str) -> Option<(&str, &str)> {
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' | '`' => quoted(rest, first)?,
            '[' => quoted(rest, ']')?,
            '-' if rest.starts_with("--") => rest.find('\n')? + 1,
            '/' if rest.starts_with("/*") => 2 + rest[2..].find("*/")? + 2,
            ';' if !is_inside_trigger(&words) => {
                let end = text.len() - rest.len();
                return Some((&text[..end], &text[end + 1..]));
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                words.push(rest[..end].to_ascii_uppercase());
                end
            }
            c => {
                if !c.is_whitespace() {
                    words.push(c.to_string());
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    None
}

/// Returns whether a text holds anything but blanks, comments and `;`.
pub(crate) fn says_something(text: &str) -> bool {
    let mut rest = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
    loop {
        let end = if rest.starts_with("--") {
            rest.find('\n').map(|at| at + 1)
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|at| at + 2)
        } else {
            return !rest.is_empty();
        };
        let Some(end) = end else { return false };
        rest = rest[end..].trim_start_matches(|c: char| c.is_whitespace() || c == ';');
    }
}

/// Returns how long a quoted text is, quotes included; a doubled quote stands for itself. None when it does not end.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].find(quote)? + 1;
        match text[at..].starts_with(quote) && quote != ']' {
            true => at += 1,
            false => return Some(at),
        }
    }
}

/// Returns whether a `;` after these words belongs to the body of a trigger, which ends with `; END`.
fn is_inside_trigger(words: &[String]) -> bool {
    let mut head = words
        .iter()
        .map(String::as_str)
        .skip_while(|word| *word == "EXPLAIN" || *word == "QUERY" || *word == "PLAN");
    let is_trigger = matches!(
        (head.next(), head.next(), head.next()),
        (Some("CREATE"), Some("TRIGGER"), _) | (Some("CREATE"), Some("TEMP" | "TEMPORARY"), Some("TRIGGER"))
    );
    let has_ended = matches!(words, [.., before, last] if before == ";" && last == "END");
    is_trigger && !has_ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut text: &str) -> (Vec<&str>, &str) {
        let mut statements = Vec::new();
        while let Some((statement, rest)) = split(text) {
            statements.push(statement.trim());
            text = rest;
        }
        (statements, text.trim())
    }

    #[test]
    fn a_statement_ends_at_its_semicolon() {
        assert_eq!(all("SELECT 1; SELECT\n2;SELECT"), (vec!["SELECT 1", "SELECT\n2"], "SELECT"));
    }

    #[test]
    fn quotes_and_comments_hide_semicolons() {
        let text = "SELECT ';''', \";\", [;], `;` -- ; not here\n/* ; nor; here */ + 1;";
        assert_eq!(all(text), (vec![text.trim_end_matches(';')], ""));
        for open in ["SELECT ';", "SELECT 1 -- ;", "SELECT /* ; ", "SELECT [;"] {
            assert_eq!(split(open), None, "{open}");
        }
    }

    #[test]
    fn a_trigger_ends_with_its_body() {
        let text = "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET x = CASE 1 WHEN 1 THEN 2 END; DELETE FROM b; END";
        assert_eq!(all(&format!("{text}; SELECT 1;")), (vec![text, "SELECT 1"], ""));
    }

    #[test]
    fn letters_of_any_script_are_looked_through() {
        assert_eq!(all("SELECT 'é' AS größe; x"), (vec!["SELECT 'é' AS größe"], "x"));
    }

    #[test]
    fn comments_alone_say_nothing() {
        for empty in ["", " ; ;", "-- a\n", "/* a */ ;", "-- a", "/* a"] {
            assert!(!says_something(empty), "{empty}");
        }
        assert!(says_something("-- a\n/* b */ SELECT 1"));
    }
}
