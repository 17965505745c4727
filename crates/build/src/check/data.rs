//! Databases outside every volume: relative SQLite URLs and paths, in code, in Prisma's schema and in variables.

use trackbed_core::finding::{Finding, Level, Rule};

use crate::check::app::{App, Unit};
use crate::check::code::Call;
use crate::check::lex::{Kind, Language};
use crate::check::places::{Named, absolute, is_outside, named, path_of_url};
use crate::check::python::{Runs, runs, statement_of};
use crate::check::settings;

/// Calls that open a store, the module that must be imported, and the argument that names it.
struct Opener {
    module: &'static str,
    call: &'static str,
    argument: Argument,
}

enum Argument {
    Nth(usize),
    Named(&'static str),
}

const OPENERS: [Opener; 14] = [
    opener("sqlite3", "connect", Argument::Nth(0)),
    opener("aiosqlite", "connect", Argument::Nth(0)),
    opener("duckdb", "connect", Argument::Nth(0)),
    opener("peewee", "SqliteDatabase", Argument::Nth(0)),
    opener("chromadb", "PersistentClient", Argument::Named("path")),
    opener("chromadb", "PersistentClient", Argument::Nth(0)),
    opener("langchain_chroma", "Chroma", Argument::Named("persist_directory")),
    opener("better-sqlite3", "Database", Argument::Nth(0)),
    opener("sqlite3", "Database", Argument::Nth(0)),
    opener("bun:sqlite", "Database", Argument::Nth(0)),
    opener("node:sqlite", "DatabaseSync", Argument::Nth(0)),
    opener("database/sql", "Open", Argument::Nth(1)),
    opener("gorm.io/driver/sqlite", "Open", Argument::Nth(0)),
    opener("rusqlite", "open", Argument::Nth(0)),
];

const fn opener(module: &'static str, call: &'static str, argument: Argument) -> Opener {
    Opener { module, call, argument }
}

/// Looks.
pub(crate) fn find(app: &App<'_>, found: &mut Vec<Finding>) {
    let fields = settings::fields(app);
    for unit in &app.units {
        for at in 0..unit.code.tokens.len() {
            if let Some(finding) = url_at(app, unit, at, &fields) {
                found.push(finding);
            }
        }
        for opener in &OPENERS {
            if !unit.code.imports(opener.module) {
                continue;
            }
            let opened = unit.code.calls(&[opener.call]).into_iter();
            found.extend(opened.filter_map(|call| opened_at(app, unit, opener, &call)));
        }
        if unit.code.has_text("django.db.backends.sqlite3") {
            found.extend(django(app, unit));
        }
    }
    found.extend(prisma(app));
    for (name, value) in &app.facts.variables {
        let Some(path) =
            path_of_url(value, app.units.first().map_or(Language::Python, |unit| unit.code.language))
        else {
            continue;
        };
        let Some(path) = absolute(app, path).filter(|path| is_outside(app.facts, path)) else { continue };
        let is_relative = path.starts_with("/app/");
        found.push(Finding {
            rule: Rule::DataOutside,
            level: level(app),
            file: None,
            line: None,
            what: format!(
                "the variable {name} names an SQLite file {}",
                if is_relative { "by a relative path" } else { "outside the volumes" }
            ),
            why: "no volume holds it, so it is lost with the next release".to_owned(),
            mend: mend(app, Some(name), value),
        });
    }
}

fn level(app: &App<'_>) -> Level {
    // Without a volume the owner may mean the data to be scratch.
    if app.facts.mounts.is_empty() { Level::Warning } else { Level::Error }
}

/// A URL as it stands in the code.
fn url_at(app: &App<'_>, unit: &Unit, at: usize, fields: &[settings::Field]) -> Option<Finding> {
    let code = &unit.code;
    let text = code.quoted(at).filter(|text| text.starts_with("sqlite") && text.contains(':'))?;
    if is_talk(unit, at) {
        return None;
    }
    let (path, written) = match path_of_url(text, code.language) {
        Some(path) => (absolute(app, path)?, text.to_owned()),
        // `"sqlite:///" + os.path.join(basedir, "app.db")`
        None if text.ends_with("///") && code.is_sign(at + 1, "+") => {
            let end = statement_of(&unit.statements, at).map(|here| unit.statements[here].tokens.end)?;
            let named = named(app, unit, at + 2..end)?;
            (named.path, format!("{text}…/{}", named.written))
        }
        None => return None,
    };
    let mut variable =
        fields.iter().find(|field| field.holds(unit, at)).map(|field| field.variables[0].clone());
    if variable.is_none() {
        let (begin, end) = match statement_of(&unit.statements, at) {
            Some(here) => (unit.statements[here].tokens.start, unit.statements[here].tokens.end),
            None => (at.saturating_sub(24), at + 1),
        };
        let before = unit.reads.iter().filter(|read| (begin..end).contains(&read.at) && read.at < at);
        variable = before.max_by_key(|read| read.at).map(|read| read.name.clone());
    }
    let named = Named { path, written, variable };
    let is_chosen = code.language == Language::Python && runs(code, &unit.statements, at) == Runs::Perhaps;
    if is_chosen && named.variable.is_none() {
        // The other branch may well be the one that is taken.
        return None;
    }
    finding(app, unit, at, &named)
}

/// Returns whether a text is told or compared, not used: a docstring, a description, an argument of `startswith`.
fn is_talk(unit: &Unit, at: usize) -> bool {
    let code = &unit.code;
    let alone =
        statement_of(&unit.statements, at).is_some_and(|here| unit.statements[here].tokens.len() == 1);
    let before = at.checked_sub(2).map_or("", |before| code.word(before));
    let is_compared = [
        "startswith",
        "replace",
        "removeprefix",
        "split",
        "description",
        "example",
        "examples",
        "help",
        "title",
        "startsWith",
        "strip_prefix",
        "starts_with",
        "HasPrefix",
        "TrimPrefix",
        "in",
    ];
    let is_equal = code.is_sign(at.wrapping_sub(1), "=") && code.is_sign(at.wrapping_sub(2), "=");
    let listed =
        code.is_sign(at.wrapping_sub(1), "[") && is_compared.contains(&code.word(at.wrapping_sub(3)));
    alone || is_equal || listed || is_compared.contains(&before)
}

fn opened_at(app: &App<'_>, unit: &Unit, opener: &Opener, call: &Call) -> Option<Finding> {
    let code = &unit.code;
    let is_qualified = match (code.language, opener.call) {
        (Language::Python, "connect") => call.path == format!("{}.connect", opener.module),
        (Language::Go, _) if opener.module == "database/sql" => {
            call.path == "sql.Open"
                && call.nth(0).is_some_and(|kind| code.word(kind.value.start).starts_with("sqlite"))
        }
        (Language::Go, _) => call.path == "sqlite.Open",
        (Language::Rust, _) => call.path.ends_with("Connection.open"),
        (Language::Script, _) => {
            call.at.checked_sub(1).is_some_and(|before| code.word(before) == "new") || call.path.contains('.')
        }
        (Language::Python, _) => true,
    };
    // One that is only searched was made beforehand, and may come with the source.
    let is_filled = || {
        let fills = ["add_documents", "add_texts", "from_documents", "aadd_documents"];
        app.units.iter().any(|unit| fills.iter().any(|name| unit.code.has_name(name)))
    };
    if opener.call == "Chroma" && !is_filled() {
        return None;
    }
    let argument = match opener.argument {
        Argument::Nth(number) => call.nth(number),
        Argument::Named(name) => call.named(name),
    };
    let value = argument.filter(|_| is_qualified)?.value.clone();
    finding(app, unit, call.at, &named(app, unit, value)?)
}

/// `DATABASES = {"default": {"ENGINE": …sqlite3, "NAME": BASE_DIR / "db.sqlite3"}}`
fn django(app: &App<'_>, unit: &Unit) -> Option<Finding> {
    let code = &unit.code;
    let engine = (0..code.tokens.len()).find(|at| code.quoted(*at) == Some("django.db.backends.sqlite3"))?;
    let open = (0..engine).rev().find(|at| code.is_sign(*at, "{"))?;
    let is_chosen = runs(code, &unit.statements, engine) == Runs::Perhaps;
    // `DATABASES["default"] = dj_database_url.config(…)` further down takes its place.
    let is_replaced = code.has_name("dj_database_url") || code.imports("environ") || code.imports("environs");
    let item = code.items(open).into_iter().find(|item| code.quoted(item.value.start) == Some("NAME"))?;
    let named = named(app, unit, item.value.start + 2..item.value.end)?;
    if is_chosen || is_replaced {
        return None;
    }
    finding(app, unit, item.value.start, &named)
}

/// `url = "file:./dev.db"` in a Prisma schema.
fn prisma(app: &App<'_>) -> Option<Finding> {
    let name = ["prisma/schema.prisma", "schema.prisma"].into_iter().find(|name| app.tree.has(name))?;
    let text = app.tree.read(name)?;
    let is_sqlite = text.lines().any(|line| {
        let plain: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        plain.starts_with("provider=\"sqlite\"")
    });
    let (line, url) = (1u32..).zip(text.lines()).find_map(|(number, line)| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "url").then(|| (number, value.trim().trim_matches('"').to_owned()))
    })?;
    let path = url.strip_prefix("file:").filter(|path| is_sqlite && !path.starts_with('/'))?;
    Some(Finding {
        rule: Rule::DataOutside,
        level: level(app),
        file: Some(name.to_owned()),
        line: Some(line),
        what: format!("the SQLite file `{path}` lies beside the schema"),
        why: "no volume holds it, so it is lost with the next release".to_owned(),
        mend: format!(
            "write url = env(\"DATABASE_URL\"), and {}",
            mend(app, Some("DATABASE_URL"), "file:app.db")
        ),
    })
}

fn finding(app: &App<'_>, unit: &Unit, at: usize, named: &Named) -> Option<Finding> {
    let facts = app.facts;
    if !is_outside(facts, &named.path) || named.variable.as_ref().is_some_and(|name| facts.is_set(name)) {
        return None;
    }
    let line = unit.code.line(at);
    let unless = match &named.variable {
        Some(name) if !facts.is_service => format!(" unless {name} is set"),
        Some(name) => format!(", because {name} is not set"),
        None => String::new(),
    };
    let level = if named.variable.is_some() && !facts.is_service { Level::Warning } else { level(app) };
    Some(Finding {
        rule: Rule::DataOutside,
        level,
        file: Some(unit.code.path.clone()),
        line: Some(line),
        what: format!("`{}` is {}{unless}", named.written, named.path),
        why: "no volume holds it, so it is lost with the next release".to_owned(),
        mend: mend(app, named.variable.as_deref(), &named.written),
    })
}

/// Says how the data come into a volume. `written` gives the scheme of the URL, nothing else.
fn mend(app: &App<'_>, variable: Option<&str>, written: &str) -> String {
    let mount = app.facts.mounts.first().map_or("/data", |mount| mount.trim_end_matches('/'));
    let scheme = match written.split_once(':') {
        Some((scheme, _)) if scheme.starts_with("sqlite") && scheme.len() < 32 => format!("{scheme}:///"),
        Some(("file", _)) => "file:".to_owned(),
        _ => String::new(),
    };
    let path = format!("{scheme}{mount}/app.db");
    let place = match variable {
        Some(name) => format!("trackbed variables set {name}={path}"),
        None => format!("name a path below the mount of a volume, such as `{path}`"),
    };
    match app.facts.mounts.is_empty() {
        true => format!("trackbed volume add data {mount}, and {place}"),
        false => place,
    }
}

/// Returns where the app puts a database into WAL mode.
pub(crate) fn wal_use<'a>(app: &'a App<'_>) -> Option<(&'a Unit, u32)> {
    app.units.iter().find_map(|unit| {
        let code = &unit.code;
        let at = (0..code.tokens.len()).find(|at| {
            let is_text = matches!(code.tokens[*at].kind, Kind::Text | Kind::Formatted);
            (is_text && code.word(*at).to_ascii_lowercase().replace(' ', "").contains("journal_mode=wal"))
                && !is_talk(unit, *at)
        })?;
        Some((unit, code.line(at)))
    })
}
