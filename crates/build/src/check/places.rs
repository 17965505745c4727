//! Where a database lies that code names: the path behind a URL or an expression, and whether a volume holds it.

use std::ops::Range;

use crate::check::app::{App, Facts, Unit};
use crate::check::code::Code;
use crate::check::lex::Language;
use crate::check::reads::Read;
use crate::source_tree::join;

/// Most names followed from one to the next.
const DEPTH_MAX: usize = 4;
/// Where nobody expects anything to stay.
const FLEETING: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/proc"];

/// A path that code names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// As an instance sees it: absolute.
    pub(crate) path: String,
    /// As it is written.
    pub(crate) written: String,
    /// The variable that can name another one.
    pub(crate) variable: Option<String>,
}

/// Takes the path out of an SQLite URL. SQLAlchemy and its kin have a slash more than others: `sqlite:///a.db` is relative.
pub(crate) fn path_of_url(url: &str, language: Language) -> Option<&str> {
    let rest = url.strip_prefix("sqlite")?;
    let (driver, rest) = rest.split_once(':')?;
    if !(driver.is_empty() || driver.starts_with('+'))
        || !driver.chars().all(|c| c.is_ascii_alphanumeric() || c == '+')
    {
        return None;
    }
    let path = match language {
        Language::Python => rest.strip_prefix("///")?,
        Language::Script | Language::Go | Language::Rust => rest.strip_prefix("//").unwrap_or(rest),
    };
    is_file(path.split('?').next()?)
}

/// Takes the path out of what a driver is given: a path, or `file:a.db?mode=…`.
pub(crate) fn path_of_name(name: &str) -> Option<&str> {
    is_file(name.strip_prefix("file:").unwrap_or(name).split('?').next()?)
}

fn is_file(path: &str) -> Option<&str> {
    let lower = path.to_ascii_lowercase();
    let is_none =
        path.is_empty() || path.contains([' ', '{', '}', '%', '$', '<', '\n']) || path.ends_with('/');
    let is_fleeting = ["memory", "tmp", "temp", "cache", "test"].iter().any(|word| lower.contains(word));
    (!is_none && !is_fleeting).then_some(path)
}

/// Makes a path absolute, as an instance sees it.
pub(crate) fn absolute(app: &App<'_>, path: &str) -> Option<String> {
    match path.strip_prefix('/') {
        Some(rest) => Some(format!("/{}", join("", rest)?)),
        None => {
            let folder = format!("app/{}", app.folder());
            Some(format!("/{}", join(&folder, path)?))
        }
    }
}

/// Returns whether a path is lost with its release. Where volumes are not known yet, an absolute one may well be in one.
pub(crate) fn is_outside(facts: &Facts, path: &str) -> bool {
    let below =
        |folder: &str| path == folder || path.starts_with(&format!("{}/", folder.trim_end_matches('/')));
    let is_known = facts.is_service || !facts.mounts.is_empty() || below("/app");
    is_known && !facts.mounts.iter().any(|mount| below(mount)) && !FLEETING.into_iter().any(below)
}

/// Finds the path that an expression comes to, when that can be told.
pub(crate) fn named(app: &App<'_>, unit: &Unit, tokens: Range<usize>) -> Option<Named> {
    follow(app, &unit.code, &unit.reads, tokens, 0)
}

fn follow(app: &App<'_>, code: &Code, known: &[Read], tokens: Range<usize>, depth: usize) -> Option<Named> {
    if depth > DEPTH_MAX || tokens.is_empty() || tokens.end > code.tokens.len() {
        return None;
    }
    if let Some(read) = known.iter().find(|read| tokens.contains(&read.at)) {
        let default = match &read.default {
            Some(default) => default.clone(),
            // `os.environ.get("X") or "y"`
            None if code.word(read.end) == "or" && read.end < tokens.end => read.end + 1..tokens.end,
            None => return None,
        };
        let inner = follow(app, code, &[], default, depth + 1)?;
        return Some(Named { variable: Some(read.name.clone()), ..inner });
    }
    let first = tokens.start;
    if tokens.len() == 1 {
        if let Some(text) = code.quoted(first) {
            // URLs are found wherever they stand.
            let path = path_of_name(text).filter(|_| !text.contains("://"))?;
            return Some(Named { path: absolute(app, path)?, written: text.to_owned(), variable: None });
        }
        let value = code.is_name(first).then(|| code.constant(code.word(first)))??;
        return follow(app, code, known, value, depth + 1);
    }
    let last = (tokens.start..tokens.end).rev().find(|at| code.quoted(*at).is_some());
    let call = (tokens.start..tokens.end).find_map(|at| code.call(at)).filter(|call| call.end == tokens.end);
    if let Some(call) = &call
        && matches!(call.name(), "Path" | "str" | "abspath" | "resolve" | "fspath" | "String" | "from")
        && call.arguments.len() == 1
        && call.at <= tokens.start + 4
    {
        return follow(app, code, known, call.arguments[0].value.clone(), depth + 1);
    }
    let last = last?;
    beside(app, code, tokens, last)
}

/// A file beside the code: `BASE_DIR / "app.db"`, `os.path.join(basedir, "app.db")`.
fn beside(app: &App<'_>, code: &Code, tokens: Range<usize>, last: usize) -> Option<Named> {
    if app.facts.mounts.iter().any(|mount| mount.starts_with("/app")) {
        return None;
    }
    let file = code.quoted(last)?;
    let is_database = [".db", ".sqlite", ".sqlite3", ".duckdb"].iter().any(|end| file.ends_with(end));
    let is_base = |at: usize| {
        let word = code.word(at).to_ascii_lowercase();
        code.is_name(at)
            && ["basedir", "base_dir", "__file__", "__dirname", "project_root", "root_dir", "here", "app_dir"]
                .contains(&word.as_str())
    };
    let is_absolute = tokens.clone().any(|at| code.quoted(at).is_some_and(|text| text.starts_with('/')));
    if !is_database || is_absolute || !tokens.clone().any(is_base) {
        return None;
    }
    let file = is_file(file)?;
    let folder = code.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = format!("/{}", join(&format!("app/{folder}"), file)?);
    Some(Named { path, written: file.to_owned(), variable: None })
}
