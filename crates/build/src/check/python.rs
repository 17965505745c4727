//! Python as statements: which one stands under which, and which modules a file imports.

use std::ops::Range;

use crate::check::code::Code;

/// A logical line.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) tokens: Range<usize>,
    pub(crate) indent: u32,
    /// The statement whose block this one stands in.
    pub(crate) parent: Option<usize>,
}

/// Splits a file into statements. Those behind a `;` or the `:` of a header go with what is before.
pub(crate) fn statements(code: &Code) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < code.tokens.len() {
        let indent = code.tokens[at].indent.unwrap_or(0);
        let mut end = at;
        while end < code.tokens.len() && (end == at || code.tokens[end].indent.is_none()) {
            end = match ["(", "[", "{"].iter().any(|sign| code.is_sign(end, sign)) {
                true => code.close(end),
                false => end + 1,
            };
        }
        while open.last().is_some_and(|last| found[*last].indent >= indent) {
            open.pop();
        }
        found.push(Statement { tokens: at..end, indent, parent: open.last().copied() });
        open.push(found.len() - 1);
        at = end;
    }
    found
}

/// Where a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// When the file is imported.
    AtImport,
    /// When the file is imported, and something holds.
    Perhaps,
    /// When somebody calls.
    WhenCalled,
}

/// Tells when the statement runs that a token belongs to.
pub(crate) fn runs(code: &Code, statements: &[Statement], at: usize) -> Runs {
    let Some(mut here) = statement_of(statements, at) else { return Runs::WhenCalled };
    let mut runs = match code.word(statements[here].tokens.start) {
        // The rest of a one-line `if x: y` runs perhaps; `with` and `class` have nothing to decide.
        "if" | "elif" | "while" | "for" | "assert" => Runs::Perhaps,
        "def" | "async" | "lambda" => Runs::WhenCalled,
        _ => Runs::AtImport,
    };
    let has_lambda = statements[here].tokens.clone().any(|token| token < at && code.word(token) == "lambda");
    let is_chosen =
        statements[here].tokens.clone().any(|token| code.word(token) == "else" && code.is_name(token));
    if has_lambda {
        return Runs::WhenCalled;
    }
    if is_chosen {
        runs = Runs::Perhaps;
    }
    while let Some(parent) = statements[here].parent {
        match code.word(statements[parent].tokens.start) {
            "class" | "with" => {}
            "def" | "async" => return Runs::WhenCalled,
            _ => runs = Runs::Perhaps,
        }
        here = parent;
    }
    runs
}

/// Returns the statement that a token belongs to.
pub(crate) fn statement_of(statements: &[Statement], at: usize) -> Option<usize> {
    let after = statements.partition_point(|statement| statement.tokens.start <= at);
    after.checked_sub(1)
}

/// Returns the statements in the block of another.
pub(crate) fn block(statements: &[Statement], of: usize) -> impl Iterator<Item = &Statement> {
    statements.iter().filter(move |statement| statement.parent == Some(of))
}

/// A module that a file imports: `.`s in front, dotted name, and a name taken out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) ups: usize,
    pub(crate) module: String,
    pub(crate) names: Vec<String>,
}

/// Finds what a file imports, anywhere in it.
pub(crate) fn imports(code: &Code, statements: &[Statement]) -> Vec<Import> {
    let mut found = Vec::new();
    for statement in statements {
        let mut tokens =
            statement.tokens.clone().filter(|at| !code.is_sign(*at, "(") && !code.is_sign(*at, ")"));
        match tokens.next().map(|at| code.word(at)) {
            Some("import") => {
                let words: Vec<&str> = tokens.map(|at| code.word(at)).collect();
                for part in words.split(|word| *word == ",") {
                    let module = part.iter().take_while(|word| **word != "as").copied().collect();
                    found.push(Import { ups: 0, module, names: Vec::new() });
                }
            }
            Some("from") => {
                let words: Vec<&str> = tokens.map(|at| code.word(at)).collect();
                let ups = words.iter().take_while(|word| **word == ".").count();
                let Some(split) = words.iter().position(|word| *word == "import") else { continue };
                let module = words.get(ups..split).unwrap_or_default().concat();
                let names = words[split + 1..].split(|word| *word == ",");
                let names = names.filter_map(|part| part.first().map(|name| (*name).to_owned())).collect();
                found.push(Import { ups, module, names });
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lex::Language;

    fn code(text: &str) -> Code {
        Code::new("a.py".into(), text.into(), Language::Python)
    }

    #[test]
    fn statements_know_when_they_run() {
        let text = "a(\n b)\nif x:\n    c\n    with y:\n        d\nclass K:\n    e = 1\n    def m(self):\n        f\ng = lambda: h\ni if j else k\n";
        let code = code(text);
        let statements = statements(&code);
        let when = |name: &str| {
            let at = (0..code.tokens.len()).find(|at| code.word(*at) == name).unwrap();
            runs(&code, &statements, at)
        };
        for (name, expected) in [
            ("b", Runs::AtImport),
            ("c", Runs::Perhaps),
            ("d", Runs::Perhaps),
            ("e", Runs::AtImport),
            ("f", Runs::WhenCalled),
            ("h", Runs::WhenCalled),
            ("i", Runs::Perhaps),
        ] {
            assert_eq!(when(name), expected, "{name}");
        }
    }

    #[test]
    fn imports_are_read_in_every_spelling() {
        let code = code(
            "import a.b as c, d\nfrom . import (e,\n  f as g)\nfrom ..h.i import j\n# import k\n'import l'\n",
        );
        let found = imports(&code, &statements(&code));
        let seen: Vec<_> =
            found.iter().map(|i| format!("{}{} {}", i.ups, i.module, i.names.join(","))).collect();
        assert_eq!(seen, ["0a.b ", "0d ", "1 e,f", "2h.i j"]);
    }
}
