//! Splits source code into tokens: names, texts, numbers and signs, comments left out. It never fails: what is not closed
//! ends at the end of its line or of the file.

/// Whose rules for comments and texts hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    /// JavaScript and TypeScript.
    Script,
    Go,
    Rust,
}

impl Language {
    /// Tells the language of a file by its name.
    pub(crate) fn of(path: &str) -> Option<Language> {
        let (_, extension) = path.rsplit_once('.')?;
        match extension {
            "py" => Some(Language::Python),
            "js" | "mjs" | "cjs" | "ts" | "mts" | "cts" | "jsx" | "tsx" => Some(Language::Script),
            "go" => Some(Language::Go),
            "rs" => Some(Language::Rust),
            _ => None,
        }
    }
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Name,
    Number,
    /// A text, its quotes left out.
    Text,
    /// A text in which expressions stand: `f"…"`, or a template with `${…}`.
    Formatted,
    /// One character.
    Sign,
}

/// A token: a piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) begin: usize,
    pub(crate) end: usize,
    /// From 1.
    pub(crate) line: u32,
    /// Spaces before it when it is the first of its line.
    pub(crate) indent: Option<u32>,
}

/// Splits a text.
pub(crate) fn tokens(text: &str, language: Language) -> Vec<Token> {
    let mut lexer = Lexer {
        bytes: text.as_bytes(),
        language,
        at: 0,
        line: 1,
        indent: Some(0),
        found: Vec::with_capacity(text.len() / 5),
    };
    while lexer.at < lexer.bytes.len() {
        lexer.step();
    }
    lexer.found
}

struct Lexer<'a> {
    bytes: &'a [u8],
    language: Language,
    at: usize,
    line: u32,
    indent: Option<u32>,
    found: Vec<Token>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn starts_with(&self, what: &str) -> bool {
        self.bytes[self.at..].starts_with(what.as_bytes())
    }

    fn step(&mut self) {
        let byte = self.peek(0);
        match (byte, self.language) {
            (b'\n', _) => {
                self.line += 1;
                self.indent = Some(0);
                self.at += 1;
            }
            (b' ' | b'\t' | b'\r' | 0x0c, _) => {
                if let Some(indent) = &mut self.indent {
                    // A tab goes on to the next eighth column, as Python has it.
                    *indent = if byte == b'\t' { (*indent / 8 + 1) * 8 } else { *indent + 1 };
                }
                self.at += 1;
            }
            (b'\\', Language::Python) if matches!(self.peek(1), b'\n' | b'\r') => {
                self.at += if self.peek(1) == b'\r' { 3 } else { 2 };
                self.line += 1;
            }
            (b'#', Language::Python) => self.skip_line(),
            (b'#', Language::Script) if self.at == 0 => self.skip_line(),
            (b'/', Language::Script | Language::Go | Language::Rust) if self.peek(1) == b'/' => {
                self.skip_line()
            }
            (b'/', Language::Script | Language::Go | Language::Rust) if self.peek(1) == b'*' => {
                self.skip_block()
            }
            (b'/', Language::Script) if self.begins_pattern() => self.pattern(),
            (b'"' | b'\'', Language::Python) => self.python_text(self.at),
            (b'"', _) => self.quoted(b'"', self.language == Language::Rust),
            (b'\'', Language::Script) => self.quoted(b'\'', false),
            (b'\'', Language::Go | Language::Rust) => self.character(),
            (b'`', Language::Script) => self.template(),
            (b'`', Language::Go) => self.raw(self.at + 1, b"`"),
            (b'r' | b'b', Language::Rust) if self.rust_raw() => {}
            (b'0'..=b'9', _) => self.word(Kind::Number),
            (byte, _) if is_name(byte) => self.name(),
            _ => {
                self.push(Kind::Sign, self.at, self.at + 1, self.line);
                self.at += 1;
            }
        }
    }

    fn push(&mut self, kind: Kind, begin: usize, end: usize, line: u32) {
        let indent = self.indent.take();
        self.found.push(Token { kind, begin, end: end.min(self.bytes.len()), line, indent });
    }

    fn skip_line(&mut self) {
        while self.at < self.bytes.len() && self.peek(0) != b'\n' {
            self.at += 1;
        }
    }

    fn skip_block(&mut self) {
        let mut depth = 0;
        while self.at < self.bytes.len() {
            if self.starts_with("/*") && (depth == 0 || self.language == Language::Rust) {
                depth += 1;
                self.at += 2;
            } else if self.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.pass();
            }
        }
    }

    /// Goes on by one byte, counting lines.
    fn pass(&mut self) {
        if self.peek(0) == b'\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    fn word(&mut self, kind: Kind) {
        let begin = self.at;
        while is_name(self.peek(0)) || (kind == Kind::Number && self.peek(0) == b'.' && self.peek(1) != b'.')
        {
            self.at += 1;
        }
        self.push(kind, begin, self.at, self.line);
    }

    fn name(&mut self) {
        if self.language == Language::Python {
            let length = (0..3).take_while(|ahead| is_prefix(self.peek(*ahead))).count();
            if length > 0 && matches!(self.peek(length), b'"' | b'\'') {
                let begin = self.at;
                self.at += length;
                return self.python_text(begin);
            }
        }
        self.word(Kind::Name);
    }

    /// A Python text; `begin` is where its prefix begins.
    fn python_text(&mut self, begin: usize) {
        let is_formatted =
            self.bytes[begin..self.at].iter().any(|byte| matches!(byte, b'f' | b'F' | b't' | b'T'));
        let kind = if is_formatted { Kind::Formatted } else { Kind::Text };
        let quote = self.peek(0);
        let is_long = self.peek(1) == quote && self.peek(2) == quote;
        let width = if is_long { 3 } else { 1 };
        self.at += width;
        let (inside, line) = (self.at, self.line);
        let closes = |lexer: &Self| (0..width).all(|ahead| lexer.peek(ahead) == quote);
        let mut depth = 0u32;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\\' => self.pass(),
                b'\n' if !is_long => return self.push(kind, inside, self.at, line),
                b'{' if is_formatted && self.peek(1) == b'{' && depth == 0 => self.at += 1,
                b'{' if is_formatted => depth += 1,
                b'}' if is_formatted => depth = depth.saturating_sub(1),
                // Since 3.12 the quotes of a text may stand in its expressions.
                _ if depth == 0 && closes(self) => {
                    self.push(kind, inside, self.at, line);
                    self.at += width;
                    return;
                }
                _ => {}
            }
            self.pass();
        }
        self.push(kind, inside, self.at, line);
    }

    fn quoted(&mut self, quote: u8, has_lines: bool) {
        self.at += 1;
        let (inside, line) = (self.at, self.line);
        while self.at < self.bytes.len() && self.peek(0) != quote {
            match self.peek(0) {
                b'\\' => self.pass(),
                b'\n' if !has_lines => return self.push(Kind::Text, inside, self.at, line),
                _ => {}
            }
            self.pass();
        }
        self.push(Kind::Text, inside, self.at, line);
        self.at += 1;
    }

    fn template(&mut self) {
        self.at += 1;
        let (inside, line) = (self.at, self.line);
        let (mut depth, mut kind) = (0u32, Kind::Text);
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\\' => self.pass(),
                b'$' if self.peek(1) == b'{' => {
                    kind = Kind::Formatted;
                    depth += 1;
                    self.at += 1;
                }
                b'{' if depth > 0 => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                b'`' if depth == 0 => break,
                _ => {}
            }
            self.pass();
        }
        self.push(kind, inside, self.at, line);
        self.at += 1;
    }

    /// A text without escapes, up to `end`.
    fn raw(&mut self, inside: usize, end: &[u8]) {
        let line = self.line;
        self.at = inside;
        while self.at < self.bytes.len() && !self.bytes[self.at..].starts_with(end) {
            self.pass();
        }
        self.push(Kind::Text, inside, self.at, line);
        self.at += end.len();
    }

    /// Takes `r"…"`, `r#"…"#`, `b"…"` and `br"…"`.
    fn rust_raw(&mut self) -> bool {
        let mut ahead = usize::from(self.peek(0) == b'b');
        if self.peek(ahead) != b'r' {
            if self.peek(ahead) == b'"' {
                self.at += ahead;
                self.quoted(b'"', true);
                return true;
            }
            return false;
        }
        ahead += 1;
        let hashes = (0..32).take_while(|more| self.peek(ahead + more) == b'#').count();
        if self.peek(ahead + hashes) != b'"' {
            return false;
        }
        let mut end = vec![b'"'];
        end.resize(1 + hashes, b'#');
        self.raw(self.at + ahead + hashes + 1, &end);
        true
    }

    /// A character, or a lifetime of Rust, which is passed over.
    fn character(&mut self) {
        let is_lifetime = self.language == Language::Rust
            && is_name(self.peek(1))
            && self.peek(1).is_ascii()
            && self.peek(2) != b'\'';
        if is_lifetime {
            self.at += 1;
            while is_name(self.peek(0)) {
                self.at += 1;
            }
            return;
        }
        self.quoted(b'\'', false);
    }

    /// Tells a pattern (`/a+/`) from a division by what stands before.
    fn begins_pattern(&self) -> bool {
        let Some(last) = self.found.last() else { return true };
        let text = &self.bytes[last.begin..last.end];
        match last.kind {
            Kind::Sign => !matches!(text, b")" | b"]" | b"}" | b"<"),
            Kind::Name => matches!(text, b"return" | b"typeof" | b"case" | b"in" | b"of" | b"do" | b"else"),
            Kind::Number | Kind::Text | Kind::Formatted => false,
        }
    }

    fn pattern(&mut self) {
        let mut in_class = false;
        self.at += 1;
        while self.at < self.bytes.len() && self.peek(0) != b'\n' {
            match self.peek(0) {
                b'\\' => self.at += 1,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => {
                    self.at += 1;
                    break;
                }
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.at.min(self.bytes.len());
        while self.peek(0).is_ascii_alphabetic() {
            self.at += 1;
        }
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn is_prefix(byte: u8) -> bool {
    matches!(byte.to_ascii_lowercase(), b'r' | b'b' | b'u' | b'f' | b't')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, language: Language) -> Vec<String> {
        let shown = |token: &Token| {
            let inside = &text[token.begin..token.end];
            match token.kind {
                Kind::Text => format!("«{inside}»"),
                Kind::Formatted => format!("‹{inside}›"),
                Kind::Name | Kind::Number | Kind::Sign => inside.to_owned(),
            }
        };
        tokens(text, language).iter().map(shown).collect()
    }

    #[test]
    fn python_texts_are_told_from_code() {
        let code = "x = 'a#b' # c 'd\n\"\"\"long\n'x'\"\"\" f\"{d[\"k\"]}y\" rb'z' 'un\ny=1.5";
        assert_eq!(
            words(code, Language::Python),
            ["x", "=", "«a#b»", "«long\n'x'»", "‹{d[\"k\"]}y›", "«z»", "«un»", "y", "=", "1.5"]
        );
        assert_eq!(words("a \\\n b '\\'' f'{{x' g", Language::Python), ["a", "b", "«\\'»", "‹{{x›", "g"]);
    }

    #[test]
    fn script_texts_patterns_and_comments_are_told_apart() {
        let code = "a = b / c; // 'x\nd = /['\"]\\//g; /* \" */ `t` `u${v(`w`)}` <p>Don't</p>\n'e'";
        let found = words(code, Language::Script);
        assert_eq!(found[..11].join(" "), "a = b / c ; d = ; «t» ‹u${v(`w`)}›");
        assert_eq!(found.last().unwrap(), "«e»");
    }

    #[test]
    fn rust_and_go_have_texts_of_their_own() {
        let code = "fn a<'b>(c: &'b str) { r#\"d\"e\"#; 'f'; \"g\nh\" /* /* */ */ br\"i\" }";
        assert_eq!(
            words(code, Language::Rust).join(" "),
            "fn a < > ( c : & str ) { «d\"e» ; «f» ; «g\nh» «i» }"
        );
        assert_eq!(words("x := `a\"b` // c\n'd'", Language::Go), ["x", ":", "=", "«a\"b»", "«d»"]);
    }

    #[test]
    fn lines_and_indents_are_kept() {
        let found = tokens("a\n  b\n\tc \"\"\"\n\n\"\"\" d\n", Language::Python);
        let seen: Vec<_> = found.iter().map(|token| (token.line, token.indent)).collect();
        assert_eq!(seen, [(1, Some(0)), (2, Some(2)), (3, Some(8)), (3, None), (5, None)]);
    }

    #[test]
    fn any_bytes_come_to_an_end() {
        for text in ["\"", "'''", "f'{", "`${", "/*", "r#\"", "\\", "b'\\", "/[", "'a", "é'ü", "\"\\"] {
            for language in [Language::Python, Language::Script, Language::Go, Language::Rust] {
                for token in tokens(text, language) {
                    assert!(text.get(token.begin..token.end).is_some(), "{text} {token:?}");
                }
            }
        }
    }
}
