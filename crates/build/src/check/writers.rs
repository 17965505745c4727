//! Several processes on one embedded store, and an SQLite that can damage a database when several write.

use trackbed_core::finding::{Finding, Level, Rule};

use crate::check::app::{App, Facts, Unit};
use crate::check::code::Call;
use crate::check::data;
use crate::check::lex::{Kind, Language};
use crate::python::command;
use crate::python::version::Version;

/// Looks for stores that are made for one process, below a server that starts several and in what runs beside it.
pub(crate) fn find(app: &App<'_>, found: &mut Vec<Finding>) {
    let before = found.len();
    find_in_workers(app, found);
    if found.len() == before {
        find_beside(app, found);
    }
}

/// The same store in the server and in a process beside it, or in several copies of that.
fn find_beside(app: &App<'_>, found: &mut Vec<Finding>) {
    let first = |unit: &Unit, call: &Call| {
        call.nth(0).and_then(|first| unit.code.quoted(first.value.start)).map(|text| text.to_string())
    };
    for side in &app.facts.sides {
        let facts = Facts { start: Some((side.command.clone(), side.name.clone())), ..app.facts.clone() };
        let beside = App::read(app.tree, &facts);
        for unit in beside.units.iter().filter(|_| beside.is_by_entry && app.is_by_entry) {
            for (call, store, level) in stores(unit) {
                let path = first(unit, &call);
                let in_server = app.units.iter().any(|known| {
                    known.code.path == unit.code.path
                        || path.is_some() && stores(known).iter().any(|(call, ..)| first(known, call) == path)
                });
                let line = unit.code.line(call.at);
                if (!in_server && side.count == 1) || found.iter().any(|known| is_at(known, unit, line)) {
                    continue;
                }
                found.push(Finding {
                    rule: Rule::SeveralWriters,
                    level,
                    file: Some(unit.code.path.clone()),
                    line: Some(line),
                    what: format!(
                        "`{}` opens {store} in process `{}`{}",
                        unit.code.shown(line),
                        side.name,
                        if in_server { ", and the server opens it, too" } else { ", of which several run" }
                    ),
                    why: why(level).to_owned(),
                    mend: "let one process open it and ask that one, or run the store as a server of its own"
                        .to_owned(),
                });
            }
        }
    }
}

fn is_at(known: &Finding, unit: &Unit, line: u32) -> bool {
    known.rule == Rule::SeveralWriters
        && known.file.as_ref() == Some(&unit.code.path)
        && known.line == Some(line)
}

fn why(level: Level) -> &'static str {
    match level {
        Level::Error => "the second process cannot open it",
        Level::Warning | Level::Note => {
            "it is not made for several processes: each has its own index in memory, and writes are lost"
        }
    }
}

fn find_in_workers(app: &App<'_>, found: &mut Vec<Finding>) {
    let Some((workers, said)) = workers(app).filter(|(workers, _)| *workers > 1) else { return };
    for unit in &app.units {
        for (call, store, level) in stores(unit) {
            let line = unit.code.line(call.at);
            found.push(Finding {
                rule: Rule::SeveralWriters,
                level,
                file: Some(unit.code.path.clone()),
                line: Some(line),
                what: format!(
                    "`{}` opens {store} in each of {workers} processes ({said})",
                    unit.code.shown(line)
                ),
                why: why(level).to_owned(),
                mend: "start one worker (`--workers 1`), or run the store as a server of its own".to_owned(),
            });
        }
    }
}

/// Finds how many processes serve, and where that is said.
fn workers(app: &App<'_>) -> Option<(u32, String)> {
    let (command, place) = app.facts.start.as_ref()?;
    let words = command::simple_commands(command).into_iter().last()?;
    let serves = words.iter().flatten().any(|word| {
        ["gunicorn", "uvicorn", "hypercorn", "granian"].contains(&word.rsplit('/').next().unwrap_or(word))
    });
    if !serves {
        return None;
    }
    for (at, word) in words.iter().enumerate() {
        let Some(word) = word else { continue };
        let value = match word.split_once('=') {
            Some(("--workers", value)) => Some(value.to_owned()),
            _ if word == "--workers" || word == "-w" => words.get(at + 1).cloned().flatten(),
            _ => word.strip_prefix("-w").filter(|rest| rest.parse::<u32>().is_ok()).map(str::to_owned),
        };
        if let Some(count) = value.and_then(|value| value.parse().ok()) {
            return Some((count, place.clone()));
        }
        if word == "--workers" || word == "-w" {
            return None;
        }
    }
    if let Some(count) = app.facts.variables.get("WEB_CONCURRENCY").and_then(|value| value.parse().ok()) {
        return Some((count, "WEB_CONCURRENCY".to_owned()));
    }
    let name = "gunicorn.conf.py";
    let text = app.tree.read(name)?;
    let code = crate::check::code::Code::new(name.to_owned(), text, Language::Python);
    let value = code.constant("workers")?;
    let count = (value.len() == 1 && code.tokens[value.start].kind == Kind::Number)
        .then(|| code.word(value.start))?;
    Some((count.parse().ok()?, format!("{name}:{}", code.line(value.start))))
}

/// Calls that open a store, what it is, and how bad several processes are.
fn stores(unit: &Unit) -> Vec<(Call, &'static str, Level)> {
    let code = &unit.code;
    let mut found = Vec::new();
    for call in code.calls(&["PersistentClient", "Chroma", "connect", "QdrantClient"]) {
        let is_given = |name: &str| call.named(name).is_some();
        let first = call.nth(0).and_then(|first| code.quoted(first.value.start));
        match call.name() {
            "PersistentClient" if code.imports("chromadb") => found.push((call, "Chroma", Level::Warning)),
            "Chroma" if is_given("persist_directory") => found.push((call, "Chroma", Level::Warning)),
            "QdrantClient" if is_given("path") => found.push((call, "Qdrant", Level::Error)),
            "connect" if call.path == "duckdb.connect" => {
                let is_memory = call.arguments.is_empty()
                    || first.is_some_and(|name| name.contains("memory") || name.is_empty());
                if !is_memory && !is_given("read_only") {
                    found.push((call, "DuckDB", Level::Error));
                }
            }
            _ => {}
        }
    }
    found
}

/// Looks whether a database in WAL mode is written by an SQLite that can damage it.
pub(crate) fn find_old_sqlite(app: &App<'_>, found: &mut Vec<Finding>) {
    let Some(version) = app.facts.sqlite.as_deref().and_then(Version::parse) else { return };
    if is_mended(version) {
        return;
    }
    let Some((unit, line)) = data::wal_use(app) else { return };
    let several = workers(app).is_some_and(|(workers, _)| workers > 1) || !app.facts.sides.is_empty();
    found.push(Finding {
        rule: Rule::SqliteOld,
        level: if several { Level::Warning } else { Level::Note },
        file: Some(unit.code.path.clone()),
        line: Some(line),
        what: format!(
            "the Python that is used here brings SQLite {version}, and the database is in WAL mode{}",
            if several { ", written by several processes" } else { "" }
        ),
        why: "before 3.51.3 a write during a checkpoint can, rarely, damage the database".to_owned(),
        mend: "use a Python with a newer SQLite (`.python-version`, uv python install); the box's backups are proven either way"
            .to_owned(),
    });
}

/// Versions without the fault: 3.51.3 and newer, 3.50.7 and 3.44.6 of theirs, and those before WAL.
fn is_mended(version: Version) -> bool {
    let of = |minor, patch| version.major == 3 && version.minor == minor && version.patch >= patch;
    version >= (Version { major: 3, minor: 51, patch: 3 })
        || of(50, 7)
        || of(44, 6)
        || version < (Version { major: 3, minor: 7, patch: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mended_versions_of_sqlite_are_known() {
        for (version, mended) in [
            ("3.40.1", false),
            ("3.44.5", false),
            ("3.44.6", true),
            ("3.45.0", false),
            ("3.50.6", false),
            ("3.50.7", true),
            ("3.51.2", false),
            ("3.51.3", true),
            ("3.52.0", true),
        ] {
            assert_eq!(is_mended(Version::parse(version).unwrap()), mended, "{version}");
        }
    }
}
