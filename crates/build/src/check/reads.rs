//! Where code reads the environment, in every language that is known.

use std::ops::Range;

use crate::check::code::Code;
use crate::check::lex::Language;

/// A read of a variable.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) name: String,
    /// Token of the variable's name.
    pub(crate) at: usize,
    /// Token at which the expression begins.
    pub(crate) begin: usize,
    /// Token behind it.
    pub(crate) end: usize,
    /// Whether the read itself fails when the variable is missing.
    pub(crate) fails: bool,
    /// What is taken instead.
    pub(crate) default: Option<Range<usize>>,
}

/// Finds every read of a variable by its name as it stands.
pub(crate) fn reads(code: &Code) -> Vec<Read> {
    let found = (0..code.tokens.len()).filter(|at| code.is_name(*at));
    match code.language {
        Language::Python => found.filter_map(|at| python(code, at)).collect(),
        Language::Script => found.filter_map(|at| script(code, at)).collect(),
        Language::Go => found.filter_map(|at| called(code, at, &["os.Getenv", "os.LookupEnv"])).collect(),
        Language::Rust => {
            let names = ["env.var", "std.env.var", "env.var_os", "std.env.var_os", "dotenvy.var"];
            found.filter_map(|at| called(code, at, &names)).collect()
        }
    }
}

fn python(code: &Code, at: usize) -> Option<Read> {
    let word = code.word(at);
    if word == "environ" && code.is_sign(at + 1, "[") {
        let name = code.quoted(at + 2)?;
        let end = code.close(at + 1);
        let is_given = code.is_sign(end, "=") && !code.is_sign(end + 1, "=");
        let begin = start(code, at);
        let is_deleted = begin.checked_sub(1).is_some_and(|before| code.word(before) == "del");
        if end != at + 4 || is_given || is_deleted {
            return None;
        }
        return Some(Read { name: name.to_owned(), at: at + 2, begin, end, fails: true, default: None });
    }
    let path = || code.dotted(at);
    let by_library = match word {
        "getenv" => false,
        "get" if path().ends_with("environ.get") => false,
        // python-decouple and django-environ fail on a variable that is missing and has no default.
        "config" if code.imports("decouple") => true,
        "env" | "str" | "int" | "bool" | "list" | "float" | "url" | "db"
            if matches!(path().split('.').next(), Some("env")) && code.imports("environ") =>
        {
            true
        }
        _ => return None,
    };
    let call = code.call(at)?;
    let first = call.nth(0)?;
    let name = code.quoted(first.value.start).filter(|_| first.value.len() == 1)?;
    let default = call.named("default").or(call.nth(1).filter(|_| !by_library || word == "config"));
    let default = default.map(|argument| argument.value.clone());
    let fails = by_library && default.is_none() && !(word == "env" && call.arguments.len() > 1);
    let begin = start(code, at);
    Some(Read { name: name.to_owned(), at: first.value.start, begin, end: call.end, fails, default })
}

fn script(code: &Code, at: usize) -> Option<Read> {
    if code.word(at) == "get" && code.dotted(at) == "Deno.env.get" {
        return called(code, at, &["Deno.env.get"]);
    }
    if code.word(at) != "env"
        || !matches!(code.dotted(at).as_str(), "process.env" | "Bun.env" | "import.meta.env")
    {
        return None;
    }
    let begin = start(code, at);
    let (name, name_at, end) = if code.is_sign(at + 1, ".") && code.is_name(at + 2) {
        (code.word(at + 2), at + 2, at + 3)
    } else if code.is_sign(at + 1, "[") {
        (code.quoted(at + 2)?, at + 2, at + 4)
    } else {
        return None;
    };
    let is_given = code.is_sign(end, "=") && !code.is_sign(end + 1, "=");
    if is_given {
        return None;
    }
    let falls_back = ["|", "?"].iter().any(|sign| code.is_sign(end, sign) && code.is_sign(end + 1, sign));
    let default = falls_back.then(|| end + 2..code.statement_end(end + 2));
    Some(Read { name: name.to_owned(), at: name_at, begin, end, fails: false, default })
}

fn called(code: &Code, at: usize, paths: &[&str]) -> Option<Read> {
    let call = code.call(at).filter(|call| paths.contains(&call.path.as_str()))?;
    let first = call.nth(0)?.value.start;
    let name = code.quoted(first)?.to_owned();
    Some(Read { name, at: first, begin: start(code, at), end: call.end, fails: false, default: None })
}

/// Returns the token at which a dotted name begins that ends at `at`.
fn start(code: &Code, mut at: usize) -> usize {
    while at >= 2 {
        if code.is_sign(at - 1, ".") && code.is_name(at - 2) {
            at -= 2;
        } else if at >= 3 && code.is_sign(at - 1, ":") && code.is_sign(at - 2, ":") && code.is_name(at - 3) {
            at -= 3;
        } else {
            break;
        }
    }
    at
}
