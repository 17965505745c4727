//! A file of code as tokens, and the few shapes that rules look for in it: calls with their arguments, dotted names,
//! constants, reads of the environment, and what stands under a condition.

use std::cell::Cell;
use std::ops::Range;

use crate::check::lex::{self, Kind, Language, Token};

/// A file of code.
pub(crate) struct Code {
    /// Relative to the source.
    pub(crate) path: String,
    pub(crate) language: Language,
    pub(crate) tokens: Vec<Token>,
    /// The brace that is open at each token.
    braces: Vec<Option<usize>>,
    text: String,
    /// Tokens that may still be gone through by looks that begin anew each time: a file made to be slow ends them.
    budget: Cell<usize>,
}

/// What such looks of one file may cost: well below a second.
const BUDGET: usize = 50_000_000;

/// An argument of a call: its name when it is given by name, and its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) name: Option<String>,
    pub(crate) value: Range<usize>,
}

/// A call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The dotted name that is called: `os.environ.get`.
    pub(crate) path: String,
    /// Token of the last name of that.
    pub(crate) at: usize,
    pub(crate) arguments: Vec<Argument>,
    /// Token behind the call.
    pub(crate) end: usize,
}

impl Call {
    /// Returns the last name of what is called.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// Finds an argument by name.
    pub(crate) fn named(&self, name: &str) -> Option<&Argument> {
        self.arguments.iter().find(|argument| argument.name.as_deref() == Some(name))
    }

    /// Finds an argument by place.
    pub(crate) fn nth(&self, number: usize) -> Option<&Argument> {
        self.arguments.get(number).filter(|argument| argument.name.is_none())
    }
}

impl Code {
    /// Splits a file.
    pub(crate) fn new(path: String, text: String, language: Language) -> Self {
        let tokens = lex::tokens(&text, language);
        let mut code = Self { path, language, tokens, braces: Vec::new(), text, budget: Cell::new(BUDGET) };
        let mut open = Vec::new();
        code.braces = (0..code.tokens.len())
            .map(|at| {
                if code.is_sign(at, "}") {
                    open.pop();
                }
                let inside = open.last().copied();
                if code.is_sign(at, "{") {
                    open.push(at);
                }
                inside
            })
            .collect();
        code
    }

    /// Returns the text of a token; empty behind the end.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.tokens.get(at).and_then(|token| self.text.get(token.begin..token.end)).unwrap_or_default()
    }

    /// Returns what stands in quotes when a token is a text without expressions.
    pub(crate) fn quoted(&self, at: usize) -> Option<&str> {
        (self.tokens.get(at)?.kind == Kind::Text).then(|| self.word(at))
    }

    pub(crate) fn is_name(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Name)
    }

    pub(crate) fn is_sign(&self, at: usize, sign: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Sign) && self.word(at) == sign
    }

    /// Returns the line of a token.
    pub(crate) fn line(&self, at: usize) -> u32 {
        self.tokens.get(at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    /// Returns whether a name stands anywhere.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.is_name(at) && self.word(at) == name)
    }

    /// Returns whether a text holds something anywhere.
    pub(crate) fn has_text(&self, part: &str) -> bool {
        let is_text = |token: &Token| matches!(token.kind, Kind::Text | Kind::Formatted);
        (0..self.tokens.len()).any(|at| is_text(&self.tokens[at]) && self.word(at).contains(part))
    }

    /// Returns the line as it stands, shortened for a message.
    pub(crate) fn shown(&self, line: u32) -> String {
        const SHOWN_MAX: usize = 80;
        let text = self.text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default().trim();
        match text.chars().count() > SHOWN_MAX {
            true => format!("{}…", text.chars().take(SHOWN_MAX).collect::<String>()),
            false => text.to_owned(),
        }
    }

    /// Returns the dotted name that ends at a token, `::` of Rust as dots.
    pub(crate) fn dotted(&self, end: usize) -> String {
        let mut parts = vec![self.word(end)];
        let mut at = end;
        loop {
            let width = if at >= 2 && self.is_sign(at - 1, ".") {
                1
            } else if at >= 3 && self.is_sign(at - 1, ":") && self.is_sign(at - 2, ":") {
                2
            } else {
                break;
            };
            // `a?.b` is `a.b` here, and `f().b` begins at `b`.
            let before = if self.is_sign(at - width - 1, "?") { at - width - 2 } else { at - width - 1 };
            if !self.is_name(before) {
                parts.push("");
                break;
            }
            parts.push(self.word(before));
            at = before;
        }
        parts.reverse();
        parts.join(".")
    }

    /// Returns the token behind the bracket that closes the one at `open`.
    pub(crate) fn close(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for at in open..self.tokens.len() {
            if self.tokens[at].kind != Kind::Sign {
                continue;
            }
            match self.word(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return at + 1;
                    }
                }
                _ => {}
            }
        }
        self.tokens.len()
    }

    /// Splits what stands between a bracket and its end at the commas.
    pub(crate) fn items(&self, open: usize) -> Vec<Argument> {
        let end = self.close(open).saturating_sub(1);
        let mut items = Vec::new();
        let (mut begin, mut at) = (open + 1, open + 1);
        while at <= end {
            if at == end || self.is_sign(at, ",") {
                if begin < at {
                    items.push(self.argument(begin..at));
                }
                begin = at + 1;
                at += 1;
            } else if ["(", "[", "{"].iter().any(|sign| self.is_sign(at, sign)) {
                at = self.close(at).min(end).max(at + 1);
            } else {
                at += 1;
            }
        }
        items
    }

    fn argument(&self, tokens: Range<usize>) -> Argument {
        let sign = if self.language == Language::Python { "=" } else { ":" };
        let at = tokens.start;
        let is_key = self.is_name(at) || (self.language == Language::Script && self.quoted(at).is_some());
        let is_named = is_key && self.is_sign(at + 1, sign) && !self.is_sign(at + 2, sign);
        match is_named && tokens.len() > 2 {
            true => Argument { name: Some(self.word(at).to_owned()), value: at + 2..tokens.end },
            false => Argument { name: None, value: tokens },
        }
    }

    /// Returns the call whose last name is at a token, if it is one. Definitions are none.
    pub(crate) fn call(&self, at: usize) -> Option<Call> {
        if !self.is_name(at) || !self.is_sign(at + 1, "(") {
            return None;
        }
        let before = at.checked_sub(1).map_or("", |before| self.word(before));
        if matches!(before, "def" | "class" | "fn" | "func" | "function") {
            return None;
        }
        let end = self.close(at + 1);
        self.pay(end - at)?;
        let path = self.dotted(at);
        Some(Call { path, at, arguments: self.items(at + 1), end })
    }

    /// Returns every call of one of these names, by the last part.
    pub(crate) fn calls(&self, names: &[&str]) -> Vec<Call> {
        self.calls_in(0..self.tokens.len(), names)
    }

    /// Returns the calls of some tokens.
    pub(crate) fn calls_in(&self, tokens: Range<usize>, names: &[&str]) -> Vec<Call> {
        let of_those = tokens.filter(|at| self.is_name(*at) && names.contains(&self.word(*at)));
        of_those.filter_map(|at| self.call(at)).collect()
    }

    /// Returns whether a module is imported, in any spelling.
    pub(crate) fn imports(&self, module: &str) -> bool {
        (0..self.tokens.len()).any(|at| match self.language {
            Language::Python => {
                matches!(self.word(at), "import" | "from")
                    && self.tokens[at].indent.is_some()
                    && self.import_line(at, module)
            }
            Language::Script | Language::Go => {
                self.quoted(at).is_some_and(|text| text == module || text.starts_with(&format!("{module}/")))
            }
            Language::Rust => self.is_name(at) && self.word(at) == module,
        })
    }

    fn import_line(&self, from: usize, module: &str) -> bool {
        let line = self.line(from);
        let same = (from + 1..self.tokens.len()).take_while(|at| self.line(*at) == line);
        let mut names = same.filter(|at| self.is_name(*at) && !self.is_sign(at - 1, "."));
        if self.word(from) == "from" {
            return names.next().is_some_and(|at| self.word(at) == module);
        }
        names.any(|at| self.word(at) == module)
    }

    fn pay(&self, tokens: usize) -> Option<()> {
        self.budget.set(self.budget.get().checked_sub(tokens)?);
        Some(())
    }

    /// Finds the only value that a name is given at the left edge of the file, as tokens.
    pub(crate) fn constant(&self, name: &str) -> Option<Range<usize>> {
        self.pay(self.tokens.len())?;
        let mut found = None;
        for at in 0..self.tokens.len() {
            if !self.is_name(at) || self.word(at) != name {
                continue;
            }
            let sign = match self.language {
                Language::Go if self.is_sign(at + 1, ":") => at + 2,
                _ => at + 1,
            };
            let is_given = self.is_sign(sign, "=")
                && !self.is_sign(sign + 1, "=")
                && !self.is_sign(sign + 1, ">")
                && !at.checked_sub(1).is_some_and(|before| self.is_sign(before, "."));
            if !is_given {
                continue;
            }
            let is_edge = self.language != Language::Python || self.tokens[at].indent == Some(0);
            if found.is_some() || !is_edge {
                return None;
            }
            let end = self.statement_end(sign + 1);
            found = Some(sign + 1..end);
        }
        found
    }

    /// Returns the token at which a statement ends that goes on at `at`.
    pub(crate) fn statement_end(&self, mut at: usize) -> usize {
        while at < self.tokens.len() {
            if ["(", "[", "{"].iter().any(|sign| self.is_sign(at, sign)) {
                at = self.close(at);
                continue;
            }
            let ends = [";", ",", ")", "]", "}"].iter().any(|sign| self.is_sign(at, sign));
            let goes_on = matches!(self.word(at), "|" | "?" | ":" | "." | "&" | "/" | "+");
            if ends || (self.tokens[at].indent.is_some() && !goes_on) {
                return at;
            }
            at += 1;
        }
        at
    }

    /// Returns whether a token of a language with braces stands in a block that may not run: below `if`, `match` and their
    /// kin, or in a function without a name.
    pub(crate) fn is_conditional(&self, at: usize) -> bool {
        self.blocks(at).any(|open| {
            self.head(open).into_iter().any(|word| {
                matches!(
                    word,
                    "if" | "else" | "match" | "switch" | "case" | "for" | "while" | "catch" | "=" | "|"
                )
            })
        })
    }

    /// Returns the braces that are open at a token, the innermost first.
    pub(crate) fn blocks(&self, at: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.braces.get(at).copied().flatten(), |open| self.braces[*open])
    }

    /// Returns the words before a brace, back to the end of what came before.
    fn head(&self, open: usize) -> Vec<&str> {
        let mut words = Vec::new();
        for at in (0..open).rev() {
            if ["{", "}", ";"].iter().any(|sign| self.is_sign(at, sign)) {
                break;
            }
            words.push(self.word(at));
            if words.len() > 40 {
                break;
            }
        }
        words
    }
}
