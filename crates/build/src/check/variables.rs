//! Variables that an app cannot do without: read so that it ends when they are missing, and not set.

use std::collections::BTreeSet;
use std::ops::Range;

use trackbed_core::finding::{Finding, Level, Rule};

use crate::check::app::{App, Unit};
use crate::check::code::Code;
use crate::check::lex::Language;
use crate::check::python::{Runs, block, runs};
use crate::check::reads::Read;

/// Names that a note lists.
const NAMED_MAX: usize = 8;

/// Looks.
pub(crate) fn find(app: &App<'_>, found: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for unit in &app.units {
        let reads = &unit.reads;
        let required = match unit.code.language {
            Language::Python => python(unit, reads),
            Language::Script => script(unit, reads),
            Language::Go => go(unit, reads),
            Language::Rust => rust(unit, reads),
        };
        let is_certain = matches!(unit.code.language, Language::Python | Language::Script);
        for read in required {
            if app.facts.is_set(&read.name)
                || is_asked_for(app, &read.name)
                || !told.insert(read.name.clone())
            {
                continue;
            }
            let line = unit.code.line(read.at);
            let what = format!("`{}` needs {}", unit.code.shown(line), read.name);
            found.push(missing(app, &unit.code.path, line, &read.name, what, is_certain));
        }
    }
    found.extend(listed(app, found));
}

/// Says that a variable is missing: an error where all that are set are known, else a thing to do.
pub(crate) fn missing(
    app: &App<'_>,
    file: &str,
    line: u32,
    name: &str,
    what: String,
    is_certain: bool,
) -> Finding {
    let (level, why) = match (app.facts.is_service, is_certain) {
        (true, true) => (Level::Error, "it is not set, and the app ends at its start without it".to_owned()),
        (true, false) => (Level::Warning, "it is not set, and the app ends where it reads it".to_owned()),
        (false, _) => {
            (Level::Note, "the app ends without it, and no service of this name is known here".to_owned())
        }
    };
    Finding {
        rule: Rule::VariableUnset,
        level,
        file: Some(file.to_owned()),
        line: Some(line),
        what,
        why,
        mend: format!("trackbed variables set {name}=…"),
    }
}

/// Returns whether the code looks first whether a variable is there, or sets it itself.
fn is_asked_for(app: &App<'_>, name: &str) -> bool {
    app.units.iter().any(|unit| {
        let code = &unit.code;
        (0..code.tokens.len()).filter(|at| code.quoted(*at) == Some(name)).any(|at| {
            let is_in =
                code.word(at + 1) == "in" || (code.word(at + 1) == "not" && code.word(at + 2) == "in");
            let is_default = at >= 2 && code.word(at - 2) == "setdefault";
            let is_given =
                code.is_sign(at + 1, "]") && code.is_sign(at + 2, "=") && !code.is_sign(at + 3, "=");
            is_in || is_default || is_given
        })
    })
}

fn python<'a>(unit: &Unit, reads: &'a [Read]) -> Vec<&'a Read> {
    let code = &unit.code;
    let at_import = |at: usize| runs(code, &unit.statements, at) == Runs::AtImport;
    let refused = refused_names(unit);
    let is_required = |read: &&Read| {
        if read.default.is_some() || !at_import(read.at) {
            return false;
        }
        let is_number = read.begin >= 2
            && code.is_sign(read.begin - 1, "(")
            && matches!(code.word(read.begin - 2), "int" | "float")
            && code.is_sign(read.end, ")");
        let begin = read.begin;
        let is_whole = code.tokens.get(read.end).is_none_or(|next| next.indent.is_some());
        let name = (begin >= 2 && is_whole && code.is_sign(begin - 1, "=")).then(|| {
            // `NAME: str = os.getenv("NAME")`
            let typed = begin >= 4 && code.is_sign(begin - 3, ":");
            code.word(if typed { begin - 4 } else { begin - 2 })
        });
        read.fails || is_number || name.is_some_and(|name| refused.contains(name))
    };
    reads.iter().filter(is_required).collect()
}

/// The names without which a file refuses to be imported: `if not NAME: raise …`.
fn refused_names(unit: &Unit) -> BTreeSet<&str> {
    let (code, statements) = (&unit.code, &unit.statements);
    let mut names = BTreeSet::new();
    for (number, statement) in
        statements.iter().enumerate().filter(|(_, statement)| statement.parent.is_none())
    {
        let at = statement.tokens.start;
        let inside = statement.tokens.clone();
        if code.word(at) == "assert"
            && code.is_name(at + 1)
            && (inside.len() == 2 || code.is_sign(at + 2, ","))
        {
            names.insert(code.word(at + 1));
        }
        if code.word(at) != "if" || inside.clone().any(|token| code.word(token) == "and") {
            continue;
        }
        let ends = |tokens: Range<usize>| {
            tokens.clone().any(|token| code.word(token) == "raise")
                || code.calls(&["exit", "_exit", "quit"]).iter().any(|call| tokens.contains(&call.at))
        };
        if !block(statements, number).any(|inner| ends(inner.tokens.clone())) && !ends(inside.clone()) {
            continue;
        }
        for token in inside {
            let is_denied = code.word(token) == "not" && code.is_name(token + 1);
            let is_none = code.word(token + 1) == "is" && code.word(token + 2) == "None";
            match (is_denied, is_none) {
                (true, _) => names.insert(code.word(token + 1)),
                (_, true) => names.insert(code.word(token)),
                (false, false) => false,
            };
        }
    }
    names
}

fn script<'a>(unit: &Unit, reads: &'a [Read]) -> Vec<&'a Read> {
    let code = &unit.code;
    if reads.is_empty() {
        return Vec::new();
    }
    let mut required = Vec::new();
    for at in (0..code.tokens.len()).filter(|at| code.word(*at) == "if" && code.is_sign(at + 1, "(")) {
        let (condition, end) = (at + 2..code.close(at + 1) - 1, code.close(at + 1));
        let has_and = condition.clone().any(|token| code.is_sign(token, "&"));
        if code.blocks(at).next().is_some() || has_and || !ends(code, body(code, end), &["throw", "exit"]) {
            continue;
        }
        for token in condition.filter(|token| code.is_sign(*token, "!") && !code.is_sign(token + 1, "=")) {
            let value = code.constant(code.word(token + 1));
            required.extend(reads.iter().filter(|read| {
                let is_direct = read.begin == token + 1;
                let is_constant =
                    value.as_ref().is_some_and(|value| value.start == read.begin && value.end == read.end);
                read.default.is_none() && (is_direct || is_constant)
            }));
        }
    }
    required
}

fn go<'a>(unit: &Unit, reads: &'a [Read]) -> Vec<&'a Read> {
    let code = &unit.code;
    let mut required = Vec::new();
    for at in (0..code.tokens.len()).filter(|at| code.word(*at) == "if") {
        let is_empty = code.is_sign(at + 2, "=")
            && code.is_sign(at + 3, "=")
            && code.quoted(at + 4) == Some("")
            && code.is_sign(at + 5, "{");
        let stops = ["Fatal", "Fatalf", "Fatalln", "panic", "Panic", "Exit"];
        if !is_empty || code.is_conditional(at) || !ends(code, body(code, at + 5), &stops) {
            continue;
        }
        let Some(value) = code.constant(code.word(at + 1)) else { continue };
        required.extend(reads.iter().filter(|read| value.start == read.begin && value.end == read.end));
    }
    required
}

fn rust<'a>(unit: &Unit, reads: &'a [Read]) -> Vec<&'a Read> {
    let code = &unit.code;
    let fails = |read: &&Read| {
        code.is_sign(read.end, ".")
            && matches!(code.word(read.end + 1), "expect" | "unwrap")
            && !code.is_conditional(read.at)
    };
    reads.iter().filter(fails).collect()
}

/// Returns the tokens of a block, or of the one statement that stands in its place.
fn body(code: &Code, at: usize) -> Range<usize> {
    if code.is_sign(at, "{") { at..code.close(at) } else { at..(at + 8).min(code.statement_end(at + 1) + 1) }
}

fn ends(code: &Code, mut tokens: Range<usize>, words: &[&str]) -> bool {
    tokens.any(|at| code.is_name(at) && words.contains(&code.word(at)))
}

/// One note about the variables that `.env.example` leaves to be filled in, that the code reads, and that are not set.
fn listed(app: &App<'_>, found: &[Finding]) -> Option<Finding> {
    let name = [".env.example", ".env.sample", ".env.template", "env.example"]
        .into_iter()
        .find(|name| app.tree.has(name))?;
    let text = app.tree.read(name)?;
    let read: BTreeSet<String> = app
        .units
        .iter()
        .flat_map(|unit| &unit.reads)
        .filter(|read| read.default.is_none())
        .map(|read| read.name.clone())
        .collect();
    let mut first = None;
    let mut names = Vec::new();
    for (number, line) in (1u32..).zip(text.lines()) {
        let Some((variable, value)) = line.split_once('=') else { continue };
        let variable = variable.trim().trim_start_matches("export ").trim();
        let mend = format!("trackbed variables set {variable}=…");
        let is_open = value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']).is_empty();
        let is_told = found.iter().any(|finding| finding.mend == mend);
        if is_open && read.contains(variable) && !app.facts.is_set(variable) && !is_told {
            first.get_or_insert(number);
            names.push(variable.to_owned());
        }
    }
    let line = first?;
    let more = names.len().saturating_sub(NAMED_MAX);
    let mend = format!("trackbed variables set {}=…", names[0]);
    names.truncate(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(Finding {
        rule: Rule::VariableUnset,
        level: Level::Note,
        file: Some(name.to_owned()),
        line: Some(line),
        what: format!("{name} leaves open what the app reads: {}{more}", names.join(", ")),
        why: "none of them is set".to_owned(),
        mend,
    })
}
