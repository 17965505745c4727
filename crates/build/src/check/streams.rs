//! Event streams that do not arrive one event at a time: compressed or collected on their way.

use trackbed_core::finding::{Finding, Level, Rule};

use crate::check::app::{App, Unit};
use crate::check::health::last_of;
use crate::check::lex::Language;
use crate::python::dependencies;
use crate::python::version::Version;

/// The first Starlette whose GZipMiddleware leaves event streams alone, and the first FastAPI that admits it.
const STARLETTE: Version = Version { major: 0, minor: 46, patch: 0 };
const FASTAPI: Version = Version { major: 0, minor: 115, patch: 10 };

/// Looks.
pub(crate) fn find(app: &App<'_>, found: &mut Vec<Finding>) {
    let streams = app.units.iter().any(|unit| {
        unit.code.has_text("text/event-stream")
            || unit.code.imports("sse_starlette")
            || unit.code.imports("fastapi_sse")
    });
    if !streams {
        return;
    }
    for unit in &app.units {
        match unit.code.language {
            Language::Python => {
                if is_old(app) {
                    found.extend(compressing(unit, "GZipMiddleware"));
                }
                found.extend(compressing(unit, "BrotliMiddleware"));
                found.extend(collecting(unit));
            }
            Language::Script => found.extend(express(app, unit)),
            Language::Go | Language::Rust => {}
        }
    }
}

fn finding(unit: &Unit, line: u32, what: String, why: &str, mend: &str) -> Finding {
    Finding {
        rule: Rule::StreamHeldBack,
        level: Level::Warning,
        file: Some(unit.code.path.clone()),
        line: Some(line),
        what,
        why: why.to_owned(),
        mend: mend.to_owned(),
    }
}

/// Returns whether the requirements pin a Starlette, or a FastAPI, whose compression holds event streams back.
fn is_old(app: &App<'_>) -> bool {
    let Ok(Some(found)) = dependencies::find(app.tree.root(), app.folder())
        .or_else(|_| dependencies::find(app.tree.root(), ""))
    else {
        return false;
    };
    // What is not pinned is resolved to something newer.
    let is_below = |name: &str, first: Version| {
        let pinned = found.list.iter().find(|requirement| requirement.name == name)?.pinned()?;
        Some(pinned < first)
    };
    is_below("starlette", STARLETTE).or_else(|| is_below("fastapi", FASTAPI)).unwrap_or(false)
}

fn compressing(unit: &Unit, name: &str) -> Option<Finding> {
    let code = &unit.code;
    let added = code
        .calls(&["add_middleware", "Middleware"])
        .into_iter()
        .find(|call| call.nth(0).is_some_and(|first| code.word(first.value.end - 1) == name))?;
    let line = code.line(added.at);
    Some(finding(
        unit,
        line,
        format!("`{}` compresses event streams", code.shown(line)),
        "compressed events are kept until there are enough of them",
        match name {
            "GZipMiddleware" => {
                "upgrade starlette to 0.46 or newer (fastapi 0.115.10), which leaves text/event-stream alone"
            }
            _ => "keep it away from the routes that stream",
        },
    ))
}

/// A middleware that reads the whole body: `[part async for part in response.body_iterator]`.
fn collecting(unit: &Unit) -> Option<Finding> {
    let (code, statements) = (&unit.code, &unit.statements);
    let at = (2..code.tokens.len()).find(|at| {
        code.word(*at) == "body_iterator" && code.is_sign(at - 1, ".") && code.word(at - 3) == "in"
    })?;
    let around = statements.iter().enumerate().rev().find(|(number, statement)| {
        let start = statement.tokens.start;
        let is_function = code.word(start) == "def" || code.word(start + 1) == "def";
        is_function && start < at && at < last_of(statements, *number)
    })?;
    let inside = around.1.tokens.start..last_of(statements, around.0);
    let has = |word: &str| inside.clone().any(|at| code.word(at) == word);
    let knows_streams = inside.clone().any(|at| {
        let text = code.word(at).to_ascii_lowercase();
        text.contains("event-stream")
            || text.contains("content_type")
            || text.contains("content-type")
            || text == "path"
    });
    if !has("call_next") || has("yield") || knows_streams {
        return None;
    }
    let line = code.line(at);
    Some(finding(
        unit,
        line,
        format!("`{}` collects the whole answer", code.shown(line)),
        "an event stream arrives all at once, when it has ended",
        "pass answers of type text/event-stream on as they are",
    ))
}

/// `app.use(compression())`, when nothing flushes.
fn express(app: &App<'_>, unit: &Unit) -> Option<Finding> {
    let code = &unit.code;
    let call = code.calls(&["compression"]).into_iter().find(|call| call.path == "compression")?;
    let is_used =
        code.imports("compression") && call.at >= 2 && code.word(call.at.saturating_sub(2)) == "use";
    let is_tamed = !call.arguments.is_empty()
        || app.units.iter().any(|unit| unit.code.has_name("flush") || unit.code.has_text("no-transform"));
    if !is_used || is_tamed {
        return None;
    }
    let line = code.line(call.at);
    Some(finding(
        unit,
        line,
        format!("`{}` compresses event streams", code.shown(line)),
        "events are kept until there are enough of them to compress",
        "send `Cache-Control: no-transform` with event streams, or call res.flush() after each event",
    ))
}
