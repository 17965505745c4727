//! Where the code itself listens: a port that is written down, the loopback address only.

use std::ops::Range;

use trackbed_core::finding::{Finding, Level, Rule};

use crate::check::app::{App, Unit};
use crate::check::code::Call;
use crate::check::lex::{Kind, Language};

/// What a call says about where it listens.
#[derive(Debug, Default)]
struct Listens {
    port: Option<String>,
    is_local: bool,
}

/// Looks. An app that reads `PORT` anywhere has thought of it, and what else it listens on is its own matter.
pub(crate) fn find(app: &App<'_>, found: &mut Vec<Finding>) {
    let reads_port = app.units.iter().any(|unit| {
        unit.reads.iter().any(|read| read.name == "PORT")
            || unit.code.has_name("PORT") && unit.code.has_name("env")
            || (0..unit.code.tokens.len()).any(|at| unit.code.quoted(at) == Some("PORT"))
    });
    let is_told = app.facts.start.as_ref().is_some_and(|(command, _)| command.contains("PORT"));
    for unit in &app.units {
        for (call, listens) in calls(app, unit) {
            let line = unit.code.line(call.at);
            let mut add = |rule, what: String, why: &str, mend: String| {
                found.push(Finding {
                    rule,
                    level: Level::Warning,
                    file: Some(unit.code.path.clone()),
                    line: Some(line),
                    what,
                    why: why.to_owned(),
                    mend,
                });
            };
            let is_set = |port: &String| {
                app.facts.port.is_some_and(|known| known.to_string() == *port)
                    || app.facts.variables.get("PORT") == Some(port)
            };
            if let Some(port) = listens.port.as_ref().filter(|port| !is_set(port) && !reads_port && !is_told)
            {
                add(
                    Rule::PortFixed,
                    format!("`{}` listens on port {port}", unit.code.shown(line)),
                    "the platform sends requests to the port in PORT",
                    format!("read PORT from the environment, or trackbed variables set PORT={port}"),
                );
            }
            if listens.is_local && !is_told && (!reads_port || listens.port.is_none()) {
                add(
                    Rule::LoopbackOnly,
                    format!("`{}` listens on the loopback address only", unit.code.shown(line)),
                    "nothing outside the app's own network reaches it there",
                    "listen on 0.0.0.0".to_owned(),
                );
            }
        }
    }
}

fn calls(app: &App<'_>, unit: &Unit) -> Vec<(Call, Listens)> {
    match unit.code.language {
        Language::Python => python(app, unit),
        Language::Script => script(unit),
        Language::Go => go(unit),
        Language::Rust => rust(unit),
    }
}

/// `uvicorn.run(…)` and Flask's `app.run(…)`, in a file that is the main program.
fn python(app: &App<'_>, unit: &Unit) -> Vec<(Call, Listens)> {
    let code = &unit.code;
    if !app.scripts.contains(&code.path) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for call in code.calls(&["run"]) {
        let is_uvicorn = call.path == "uvicorn.run";
        let is_flask = code.imports("flask") && matches!(call.path.as_str(), "app.run" | "application.run");
        // `**options` may say anything.
        let is_open = call.arguments.iter().any(|argument| code.is_sign(argument.value.start, "*"));
        if !(is_uvicorn || is_flask) || is_open {
            continue;
        }
        let usual = if is_uvicorn { "8000" } else { "5000" };
        let port = match call.named("port").or_else(|| call.nth(1).filter(|_| is_flask)) {
            Some(argument) => number(unit, argument.value.clone()),
            None => Some(usual.to_owned()),
        };
        let is_local = match call.named("host").or_else(|| call.nth(0).filter(|_| is_flask)) {
            Some(argument) => is_loopback(unit, argument.value.clone()),
            None => true,
        };
        let is_socket = call.named("uds").is_some() || call.named("fd").is_some();
        if !is_socket {
            found.push((call, Listens { port, is_local }));
        }
    }
    found
}

/// `app.listen(3000)`, `app.listen({port: 3000})`, `Bun.serve({port: 3000})`.
fn script(unit: &Unit) -> Vec<(Call, Listens)> {
    let code = &unit.code;
    let mut found = Vec::new();
    for call in code.calls(&["listen", "serve"]) {
        if call.name() == "serve" && !matches!(call.path.as_str(), "Bun.serve" | "serve") {
            continue;
        }
        let Some(first) = call.arguments.first() else { continue };
        let mut listens = Listens::default();
        if code.is_sign(first.value.start, "{") {
            for item in code.items(first.value.start) {
                match item.name.as_deref() {
                    Some("port") => listens.port = number(unit, item.value),
                    Some("host" | "hostname") => listens.is_local = is_loopback(unit, item.value),
                    _ => {}
                }
            }
        } else if call.name() == "listen" {
            listens.port = number(unit, first.value.clone());
            let host = call.arguments.get(1);
            listens.is_local = host.is_some_and(|host| is_loopback(unit, host.value.clone()));
        }
        if listens.port.is_some() || listens.is_local {
            found.push((call, listens));
        }
    }
    found
}

/// `http.ListenAndServe(":8080", …)`, gin's `r.Run(":8080")`, fiber's and echo's kin.
fn go(unit: &Unit) -> Vec<(Call, Listens)> {
    let code = &unit.code;
    let mut found = Vec::new();
    for call in code.calls(&["ListenAndServe", "ListenAndServeTLS", "Run", "Listen", "Start"]) {
        let is_net = call.path == "net.Listen";
        let argument = if is_net { call.nth(1) } else { call.nth(0) };
        let frameworks = [
            ("Run", "github.com/gin-gonic/gin"),
            ("Listen", "github.com/gofiber/fiber"),
            ("Start", "github.com/labstack/echo"),
        ];
        let is_known = is_net
            || call.name().starts_with("ListenAndServe")
            || frameworks.iter().any(|(name, module)| call.name() == *name && code.imports(module));
        let text = argument.filter(|argument| argument.value.len() == 1).and_then(|argument| {
            let at = argument.value.start;
            code.quoted(at).or_else(|| code.quoted(code.constant(code.word(at))?.start))
        });
        if let Some(listens) = text.filter(|_| is_known).and_then(of_address) {
            found.push((call, listens));
        }
    }
    found
}

/// `TcpListener::bind("127.0.0.1:3000")`.
fn rust(unit: &Unit) -> Vec<(Call, Listens)> {
    let code = &unit.code;
    let mut found = Vec::new();
    for call in code.calls(&["bind"]) {
        if !call.path.contains("TcpListener")
            && !call.path.contains("HttpServer")
            && !call.path.contains("Server")
        {
            continue;
        }
        let text = call.nth(0).and_then(|argument| code.quoted(argument.value.end - 1));
        if let Some(listens) = text.and_then(of_address) {
            found.push((call, listens));
        }
    }
    found
}

/// Reads `127.0.0.1:8080` and `:8080`. Port 0 is any.
fn of_address(text: &str) -> Option<Listens> {
    let (host, port) = text.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()) && port != "0";
    let is_local = matches!(host, "127.0.0.1" | "localhost" | "[::1]");
    is_port.then(|| Listens { port: Some(port.to_owned()), is_local })
}

/// Finds the number that tokens come to: written there, or a constant of the file.
fn number(unit: &Unit, tokens: Range<usize>) -> Option<String> {
    let code = &unit.code;
    let only = |tokens: &Range<usize>| (tokens.len() == 1).then_some(tokens.start);
    let at = only(&tokens)?;
    let of_token = |at: usize| {
        let word = code.word(at);
        (code.tokens[at].kind == Kind::Number && word != "0").then(|| word.to_owned())
    };
    of_token(at).or_else(|| of_token(only(&code.constant(code.word(at))?)?))
}

fn is_loopback(unit: &Unit, tokens: Range<usize>) -> bool {
    let code = &unit.code;
    let at = tokens.start;
    let is_local =
        |at: usize| code.quoted(at).is_some_and(|text| matches!(text, "127.0.0.1" | "localhost" | "::1"));
    tokens.len() == 1
        && (is_local(at)
            || code.constant(code.word(at)).is_some_and(|value| value.len() == 1 && is_local(value.start)))
}
