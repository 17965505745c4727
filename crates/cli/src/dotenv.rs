//! Reads `.env` files byte for byte: what is between the quotes is the value, and nothing is ever expanded.

use std::fmt;

/// A line that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// From 1.
    pub(crate) line: usize,
    /// What is wrong with it. Never holds a value.
    pub(crate) reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Malformed {}

/// Reads names and values in order; a name may come twice.
///
/// `KEY=value` and `export KEY=value`. A bare value ends at the line's end or at ` #`, and white space around it
/// goes. `'…'` is taken as it is, line ends included. `"…"` likewise, with `\n`, `\r`, `\t`, `\"`, `\\` and `\$`;
/// any other backslash stays.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, Malformed> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut pairs = Vec::new();
    while let Some(name) = reader.next_name()? {
        let line = reader.line;
        let value = reader.value(&name)?;
        if value.contains('\0') {
            return Err(Malformed { line, reason: format!("the value of `{name}` holds a NUL byte") });
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Returns whether a shell would take this as the name of a variable.
pub(crate) fn is_name(text: &str) -> bool {
    let starts = text.bytes().next().is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic());
    starts && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// Goes behind the next `NAME=`; none at the end of the file.
    fn next_name(&mut self) -> Result<Option<String>, Malformed> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let end = self.line_end();
            let line = self.rest[..end].trim();
            if !line.is_empty() && !line.starts_with('#') {
                break;
            }
            self.advance(end);
            self.skip_line_end();
        }
        let line = &self.rest[..self.line_end()];
        let Some((before, _)) = line.split_once('=') else {
            return Err(self.malformed("there is no `=`"));
        };
        let name = before.trim();
        let name = match name.split_once([' ', '\t']) {
            Some(("export", name)) => name.trim_start(),
            _ => name,
        };
        if !is_name(name) {
            let reason =
                "what stands before `=` is no name (letters, digits and `_`, not starting with a digit)";
            return Err(self.malformed(reason));
        }
        let name = name.to_owned();
        self.advance(before.len() + 1);
        Ok(Some(name))
    }

    fn value(&mut self, name: &str) -> Result<String, Malformed> {
        let line = &self.rest[..self.line_end()];
        let blank = line.len() - line.trim_start_matches([' ', '\t']).len();
        match line[blank..].chars().next() {
            Some(quote @ ('\'' | '"')) => {
                self.advance(blank + 1);
                let value = self.quoted(name, quote)?;
                self.nothing_but_a_comment(name)?;
                Ok(value)
            }
            _ => Ok(self.bare()),
        }
    }

    /// A bare value; `#` starts a comment only behind white space, so that `#fff` and `a#b` stay whole.
    fn bare(&mut self) -> String {
        let end = self.line_end();
        let line = &self.rest[..end];
        let comment = line
            .char_indices()
            .zip(line.chars().skip(1))
            .find_map(|((at, c), next)| (matches!(c, ' ' | '\t') && next == '#').then_some(at));
        let value = line[..comment.unwrap_or(end)].trim().to_owned();
        self.advance(end);
        self.skip_line_end();
        value
    }

    fn quoted(&mut self, name: &str, quote: char) -> Result<String, Malformed> {
        let begun = self.line;
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.advance(at + 1);
                    return Ok(value);
                }
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, c @ ('"' | '\\' | '$'))) => value.push(c),
                    Some((_, other)) => value.extend(['\\', other]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err(Malformed {
            line: begun,
            reason: format!("the {quote} that opens the value of `{name}` is never closed"),
        })
    }

    fn nothing_but_a_comment(&mut self, name: &str) -> Result<(), Malformed> {
        let end = self.line_end();
        let tail = self.rest[..end].trim();
        if !tail.is_empty() && !tail.starts_with('#') {
            return Err(self.malformed(&format!("something follows the closing quote of `{name}`")));
        }
        self.advance(end);
        self.skip_line_end();
        Ok(())
    }

    /// Where the line ends, without its line end.
    fn line_end(&self) -> usize {
        self.rest.find('\n').unwrap_or(self.rest.len())
    }

    fn skip_line_end(&mut self) {
        if self.rest.starts_with('\n') {
            self.advance(1);
        }
    }

    fn advance(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at(bytes);
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }

    fn malformed(&self, reason: &str) -> Malformed {
        Malformed { line: self.line, reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> String {
        let mut pairs = parse(text).unwrap();
        assert_eq!(pairs.len(), 1, "{pairs:?}");
        pairs.remove(0).1
    }

    #[test]
    fn bare_values_are_trimmed_and_lose_their_comment() {
        for (text, value) in [
            ("A=b", "b"),
            ("A=b c ", "b c"),
            ("  A = b\t", "b"),
            ("A=b # c", "b"),
            ("A=b#c", "b#c"),
            ("A=#fff", "#fff"),
            ("A= # nothing", ""),
            ("A=", ""),
            ("A=b=c==", "b=c=="),
            ("export A=b", "b"),
            ("export\tA=b", "b"),
            ("A=\\n$B${{ shared.C }}", "\\n$B${{ shared.C }}"),
            ("A=it's", "it's"),
            ("A=日本 é", "日本 é"),
            ("\u{feff}A=b", "b"),
        ] {
            assert_eq!(one(text), value, "{text:?}");
        }
    }

    #[test]
    fn single_quotes_take_everything_as_it_is() {
        for (text, value) in [
            ("A=' b '", " b "),
            (r"A='\n\t$X #'", r"\n\t$X #"),
            ("A='a\nb\r\nc'\n", "a\nb\r\nc"),
            ("A='say \"x\"' # why", "say \"x\""),
            ("A=''", ""),
        ] {
            assert_eq!(one(text), value, "{text:?}");
        }
    }

    #[test]
    fn double_quotes_know_escapes_and_line_ends() {
        for (text, value) in [
            (r#"A="a\nb\tc\"d\\e\$f""#, "a\nb\tc\"d\\e$f"),
            (r#"A="\d+\u00e9""#, r"\d+\u00e9"),
            ("A=\"-----BEGIN\nx\n-----END\n\"", "-----BEGIN\nx\n-----END\n"),
            ("A=\"it's # no comment\"", "it's # no comment"),
            ("A=\"\"\r\n", ""),
        ] {
            assert_eq!(one(text), value, "{text:?}");
        }
    }

    #[test]
    fn files_with_comments_blank_lines_and_crlf_are_read_in_order() {
        let pairs = parse("# head\r\n\r\nA=1\r\nexport B='2'\r\n  # more\nC=\"3\" \r\nA=4").unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "2"), ("C", "3"), ("A", "4")]);
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("\n\n# only\n").unwrap(), []);
    }

    #[test]
    fn a_value_of_64_kib_comes_through_whole() {
        let value = "é\"\\ #'".repeat(8192);
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
        assert_eq!(one(&format!("A=\"{escaped}\"")), value);
        let bare = "x".repeat(64 << 10);
        assert_eq!(one(&format!("A={bare}\n")), bare);
    }

    #[test]
    fn mistakes_name_their_line_and_no_value() {
        for (text, line, part) in [
            ("A=1\nsecretword\n", 2, "no `=`"),
            ("A=1\n\n1B=secret", 3, "no name"),
            ("=secret", 1, "no name"),
            ("A B=secret", 1, "no name"),
            ("A=1\nB='secret\n\n", 2, "never closed"),
            ("A=\"secret\\", 1, "never closed"),
            ("A='x\ny' secret", 2, "follows the closing quote of `A`"),
            ("A=x\0y", 1, "NUL"),
            ("A='x\ny'\nB", 3, "no `=`"),
        ] {
            let malformed = parse(text).unwrap_err();
            assert_eq!(malformed.line, line, "{text:?}: {malformed}");
            assert!(malformed.reason.contains(part), "{text:?}: {malformed}");
            assert!(!malformed.reason.contains("secret"), "{malformed}");
        }
    }
}
