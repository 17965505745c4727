//! The health path: is there one, does a route answer it, and does it ask for a login?

use std::ops::Range;

use trackbed_core::finding::{Finding, Level, Rule};

use crate::check::app::{App, Unit};
use crate::check::lex::{Kind, Language};
use crate::check::python::{Statement, block};

/// Paths that people use.
const USUAL: [&str; 8] =
    ["/health", "/healthz", "/api/health", "/health/", "/healthcheck", "/readyz", "/livez", "/api/healthz"];
/// Decorators that a route is made by.
const METHODS: [&str; 5] = ["get", "route", "head", "api_route", "websocket"];
/// Paths that frameworks answer by themselves.
const BY_FRAMEWORK: [&str; 6] = ["/", "/docs", "/openapi.json", "/redoc", "/_stcore/health", "/admin/"];

/// Looks.
pub(crate) fn find(app: &App<'_>, found: &mut Vec<Finding>) {
    let Some((path, place)) = &app.facts.health else {
        if app.facts.start.is_some() && !app.units.is_empty() {
            found.push(unset(app));
        }
        return;
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let is_python = app.units.iter().any(|unit| unit.code.language == Language::Python);
    if !is_python {
        return;
    }
    let routes: Vec<(&Unit, usize)> = app.units.iter().flat_map(|unit| routes(unit, path)).collect();
    for (unit, statement) in &routes {
        found.extend(protected(unit, *statement, path));
    }
    for unit in &app.units {
        found.extend(middleware(unit, path));
    }
    let is_anywhere = app.units.iter().any(|unit| mentions(unit, path));
    if routes.is_empty() && !is_anywhere && !BY_FRAMEWORK.contains(&path) {
        let (file, line) = place.rsplit_once(':').unwrap_or((place, ""));
        let is_file = app.tree.has(file);
        found.push(Finding {
            rule: Rule::HealthUnanswered,
            level: Level::Warning,
            file: is_file.then(|| file.to_owned()),
            line: line.parse().ok().filter(|_| is_file),
            what: format!("the health path is {path}, and no route of it was found in the code"),
            why: "a release becomes live only when it answers 200".to_owned(),
            mend: "add the route, or mend healthcheckPath".to_owned(),
        });
    }
}

fn unset(app: &App<'_>) -> Finding {
    let route = app.units.iter().find_map(|unit| {
        let at = (0..unit.code.tokens.len()).find(|at| {
            let is_usual = unit.code.quoted(*at).is_some_and(|text| USUAL.contains(&text));
            is_usual
                && unit.code.is_sign(at.wrapping_sub(1), "(")
                && METHODS.contains(&unit.code.word(at.wrapping_sub(2)))
        })?;
        Some((unit, at))
    });
    match route {
        Some((unit, at)) => Finding {
            rule: Rule::HealthUnset,
            level: Level::Warning,
            file: Some(unit.code.path.clone()),
            line: Some(unit.code.line(at)),
            what: format!("there is a route {}, and nothing asks it", unit.code.word(at)),
            why: "a release counts as healthy as soon as it accepts connections".to_owned(),
            mend: "put healthcheckPath under deploy in railway.json, or trackbed up --health-path".to_owned(),
        },
        None => Finding {
            rule: Rule::HealthUnset,
            level: Level::Note,
            file: None,
            line: None,
            what: "no health path is set".to_owned(),
            why: "a release counts as healthy as soon as it accepts connections".to_owned(),
            mend: "add a route that answers 200 when the app can work, and name it in healthcheckPath"
                .to_owned(),
        },
    }
}

/// Finds the decorators that make a route of the path, or of its end where a prefix comes from elsewhere.
fn routes<'a>(unit: &'a Unit, path: &str) -> Vec<(&'a Unit, usize)> {
    let code = &unit.code;
    let decorators = unit.statements.iter().enumerate().filter(|(_, statement)| {
        let inside = statement.tokens.clone();
        code.is_sign(inside.start, "@")
            && code.calls_in(inside.clone(), &METHODS).iter().any(|call| {
                call.nth(0).is_some_and(|first| {
                    code.quoted(first.value.start).is_some_and(|text| is_path(text, path))
                })
            })
    });
    decorators.map(|(number, _)| (unit, number)).collect()
}

fn is_path(text: &str, path: &str) -> bool {
    let (text, path) = (text.trim_matches('/'), path.trim_matches('/'));
    !text.is_empty() && (text == path || path.ends_with(&format!("/{text}")))
}

/// Returns whether the path, or the end of it, stands in any text, as in Django's `path("health/", …)`.
fn mentions(unit: &Unit, path: &str) -> bool {
    let last = path.trim_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    last.is_empty() || unit.code.has_text(&last) || unit.code.imports("health_check")
}

/// A route whose own definition asks for a login.
fn protected(unit: &Unit, decorator: usize, path: &str) -> Option<Finding> {
    let (code, statements) = (&unit.code, &unit.statements);
    // All decorators of the function, and its parameters.
    let mut number = decorator;
    while number > 0 && is_decorator(unit, number - 1) {
        number -= 1;
    }
    let router = code.word(statements[decorator].tokens.start + 1).to_owned();
    let mut parts: Vec<Range<usize>> = Vec::new();
    while is_decorator(unit, number) {
        parts.push(statements[number].tokens.clone());
        number += 1;
    }
    let name = statements.get(number).and_then(|statement| function_name(unit, statement));
    if let Some(name) = name.filter(|name| code.is_sign(name + 1, "(")) {
        parts.push(name + 1..code.close(name + 1));
    }
    // What its router or app asks of every route.
    if let Some(value) = code.constant(&router)
        && let Some(call) = value.clone().find_map(|at| code.call(at))
        && let Some(all) = call.named("dependencies")
    {
        parts.push(all.value.clone());
    }
    let at = parts.into_iter().flatten().find(|at| asks_for_login(unit, *at))?;
    Some(Finding {
        rule: Rule::HealthProtected,
        level: Level::Error,
        file: Some(code.path.clone()),
        line: Some(code.line(at)),
        what: format!("the health path {path} depends on `{}`", code.word(at)),
        why: "the health gate has no login, so every deploy would fail".to_owned(),
        mend: "leave the health path open".to_owned(),
    })
}

fn is_decorator(unit: &Unit, number: usize) -> bool {
    unit.statements.get(number).is_some_and(|statement| unit.code.is_sign(statement.tokens.start, "@"))
}

fn function_name(unit: &Unit, statement: &Statement) -> Option<usize> {
    let at = statement.tokens.start;
    match (unit.code.word(at), unit.code.word(at + 1)) {
        ("def", _) => Some(at + 1),
        ("async", "def") => Some(at + 2),
        _ => None,
    }
}

/// `Depends(get_current_user)`, `Security(…)`, `@login_required`.
fn asks_for_login(unit: &Unit, at: usize) -> bool {
    let code = &unit.code;
    if !code.is_name(at) {
        return false;
    }
    let word = code.word(at).to_ascii_lowercase();
    let is_decorator = code.is_sign(at.wrapping_sub(1), "@")
        && [
            "login_required",
            "auth_required",
            "token_required",
            "jwt_required",
            "requires_auth",
            "require_auth",
        ]
        .contains(&word.as_str());
    let is_dependency = code.is_sign(at.wrapping_sub(1), "(")
        && matches!(code.word(at.wrapping_sub(2)), "Depends" | "Security");
    let names = [
        "current_user",
        "auth",
        "verify_token",
        "api_key",
        "apikey",
        "require_user",
        "jwt",
        "login",
        "verify_key",
    ];
    is_decorator
        || (is_dependency
            && names.iter().any(|name| word.contains(name))
            && !word.contains("optional")
            && !word.contains("author"))
}

/// A middleware that answers 401 or 403, and knows no exception for the path.
fn middleware(unit: &Unit, path: &str) -> Option<Finding> {
    let (code, statements) = (&unit.code, &unit.statements);
    for (number, statement) in statements.iter().enumerate() {
        let Some(name) = function_name(unit, statement) else { continue };
        let has_next = (name..code.close(name + 1)).any(|at| code.word(at) == "call_next");
        if !has_next {
            continue;
        }
        let end = last_of(statements, number);
        let inside = statement.tokens.start..end;
        let refuses = inside.clone().find(|at| match code.tokens[*at].kind {
            Kind::Number => matches!(code.word(*at), "401" | "403"),
            Kind::Name => matches!(code.word(*at), "HTTP_401_UNAUTHORIZED" | "HTTP_403_FORBIDDEN"),
            Kind::Text | Kind::Formatted | Kind::Sign => false,
        });
        // One that looks at paths at all has exceptions, perhaps made elsewhere.
        let looks_at_path = inside.clone().any(|at| {
            let word = code.word(at).to_ascii_lowercase();
            word == "path"
                || word.contains("health")
                || word.contains("public")
                || word.contains("exempt")
                || word.contains("exclude")
        });
        if let Some(at) = refuses.filter(|_| !looks_at_path) {
            return Some(Finding {
                rule: Rule::HealthProtected,
                level: Level::Warning,
                file: Some(code.path.clone()),
                line: Some(code.line(at)),
                what: format!(
                    "the middleware `{}` answers {} and makes no exception for {path}",
                    code.word(name),
                    code.word(at)
                ),
                why: "the health gate has no login, so a deploy may fail".to_owned(),
                mend: format!("let {path} through"),
            });
        }
    }
    None
}

/// Returns the token behind everything that stands in a statement's block.
pub(crate) fn last_of(statements: &[Statement], number: usize) -> usize {
    let mut end = statements[number].tokens.end;
    let mut last = number;
    while let Some((inner, statement)) = statements
        .iter()
        .enumerate()
        .skip(last + 1)
        .take_while(|(_, statement)| statement.indent > statements[number].indent)
        .last()
    {
        (last, end) = (inner, statement.tokens.end);
    }
    debug_assert!(block(statements, number).all(|inner| inner.tokens.end <= end));
    end
}
