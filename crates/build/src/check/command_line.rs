//! The start command: does its server listen on `PORT` and on every address?

use trackbed_core::finding::{Finding, Level, Rule};

use crate::check::app::App;
use crate::python::command;

/// What a server does when it is told nothing.
struct Server {
    name: &'static str,
    /// The port that it takes; none takes `PORT`.
    port: Option<&'static str>,
    /// Whether it listens on 127.0.0.1.
    is_local: bool,
    port_options: &'static [&'static str],
    host_options: &'static [&'static str],
    /// Options that hold both: `0.0.0.0:8000`.
    both: &'static [&'static str],
    /// Variables that say it, too.
    variables: &'static [&'static str],
}

const SERVERS: [Server; 10] = [
    server("gunicorn", None, false, &[], &[], &["--bind", "-b"], &["GUNICORN_CMD_ARGS"]),
    server("uvicorn", Some("8000"), true, &["--port"], &["--host"], &["--uds", "--fd"], &["UVICORN_PORT"]),
    server("hypercorn", Some("8000"), true, &[], &[], &["--bind", "-b", "--insecure-bind"], &[]),
    server("daphne", Some("8000"), true, &["-p", "--port"], &["-b", "--bind"], &["-u", "-e"], &[]),
    server("granian", Some("8000"), true, &["--port"], &["--host"], &["--uds"], &["GRANIAN_PORT"]),
    server("waitress-serve", Some("8080"), false, &["--port"], &["--host"], &["--listen"], &[]),
    server("flask", Some("5000"), true, &["--port", "-p"], &["--host", "-h"], &[], &["FLASK_RUN_PORT"]),
    server("fastapi", Some("8000"), false, &["--port"], &["--host"], &[], &["UVICORN_PORT"]),
    server(
        "streamlit",
        Some("8501"),
        false,
        &["--server.port"],
        &["--server.address"],
        &[],
        &["STREAMLIT_SERVER_PORT"],
    ),
    server("http.server", Some("8000"), false, &[], &["--bind", "-b"], &[], &[]),
];

const fn server(
    name: &'static str,
    port: Option<&'static str>,
    is_local: bool,
    port_options: &'static [&'static str],
    host_options: &'static [&'static str],
    both: &'static [&'static str],
    variables: &'static [&'static str],
) -> Server {
    Server { name, port, is_local, port_options, host_options, both, variables }
}

/// Looks.
pub(crate) fn find(app: &App<'_>, found: &mut Vec<Finding>) {
    let Some((command, place)) = &app.facts.start else { return };
    // The last command is the one that stays; the ones before prepare.
    let Some(words) = command::simple_commands(command).into_iter().last() else { return };
    let Some(at) = words.iter().position(|word| {
        word.as_deref().is_some_and(|word| SERVERS.iter().any(|server| server.name == base(word)))
    }) else {
        return;
    };
    let name = words[at].as_deref().map(base).unwrap_or_default();
    let Some(server) = SERVERS.iter().find(|server| server.name == name) else { return };
    let words = &words[at + 1..];
    let has_variable =
        server.variables.iter().any(|name| app.facts.variables.contains_key(*name) || command.contains(name));
    if has_variable || (name == "gunicorn" && has_configuration(app, words)) || is_other_verb(name, words) {
        return;
    }
    let mut port = value(words, server.port_options);
    let mut host = value(words, server.host_options);
    if let Some(both) = value(words, server.both) {
        // A word that only a shell knows, a socket in the file system, or one that is inherited.
        let Some(both) = both else { return };
        if !both.contains(':') || both.starts_with("unix:") || both.starts_with("fd:") {
            return;
        }
        let (address, number) = both.rsplit_once(':').unwrap_or_default();
        (host, port) = (Some(Some(address.to_owned())), Some(Some(number.to_owned())));
    }
    if name == "http.server" && port.is_none() {
        port = words.iter().find(|word| word.as_deref().is_none_or(is_number)).cloned();
    }
    if name == "fastapi" && words.first().and_then(Option::as_deref) == Some("dev") && host.is_none() {
        host = Some(Some("127.0.0.1".to_owned()));
    }
    let (file, line) =
        place.rsplit_once(':').map_or((place.as_str(), None), |(file, line)| (file, line.parse().ok()));
    let is_file = app.tree.has(file);
    let mut add = |rule, what: String, why: &str, mend: String| {
        let file = is_file.then(|| file.to_owned());
        let line = line.filter(|_| is_file);
        found.push(Finding { rule, level: Level::Warning, file, line, what, why: why.to_owned(), mend });
    };
    let fixed = match &port {
        Some(None) => None,
        Some(Some(number)) => is_number(number).then_some(number.as_str()),
        None => server.port,
    };
    let is_told = |number: &str| {
        let asked = app.facts.port.map(|port| port.to_string());
        asked.as_deref() == Some(number)
            || app.facts.variables.get("PORT").map(String::as_str) == Some(number)
    };
    if let Some(number) = fixed.filter(|number| !is_told(number)) {
        let how = if port.is_some() { "is told to listen" } else { "listens, unless it is told otherwise," };
        add(
            Rule::PortFixed,
            format!("{name} {how} on port {number}"),
            "the platform sends requests to the port in PORT",
            format!("write {}, or trackbed variables set PORT={number}", written(server, "$PORT")),
        );
    }
    let is_local = match &host {
        Some(None) => false,
        Some(Some(host)) => matches!(host.as_str(), "127.0.0.1" | "localhost" | "::1" | "[::1]"),
        None => server.is_local,
    };
    if is_local {
        add(
            Rule::LoopbackOnly,
            format!("{name} listens on 127.0.0.1 only"),
            "nothing outside the app's own network reaches it there",
            format!("write {}", written(server, "$PORT")),
        );
    }
}

/// How it should be written.
fn written(server: &Server, port: &str) -> String {
    match (server.host_options.first(), server.port_options.first(), server.both.first()) {
        (Some(host), Some(option), _) => format!("`{host} 0.0.0.0 {option} {port}`"),
        (_, None, Some(both)) => format!("`{both} 0.0.0.0:{port}`"),
        _ => format!("`{port}` in place of the number"),
    }
}

/// Finds the value of an option: none when it is not given, none inside when only a shell knows it.
fn value(words: &[Option<String>], options: &[&str]) -> Option<Option<String>> {
    let mut found = None;
    for (at, word) in words.iter().enumerate() {
        let Some(word) = word else { continue };
        for option in options {
            if word == option {
                found = Some(words.get(at + 1).cloned().flatten());
            } else if let Some(value) = word.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')) {
                found = Some(Some(value.to_owned()));
            }
        }
        // `-b0.0.0.0:80`
        let glued = options.iter().filter(|option| option.len() == 2);
        found = glued
            .filter_map(|option| word.strip_prefix(option))
            .find(|rest| rest.contains(':') && !rest.starts_with('='))
            .map(|rest| Some(rest.to_owned()))
            .or(found);
    }
    // `--bind=0.0.0.0:$PORT` is a word that only a shell knows as a whole; the value of another option is none of ours.
    let is_value = |at: usize| {
        at.checked_sub(1).is_some_and(|at| words[at].as_deref().is_some_and(|word| word.starts_with('-')))
    };
    let is_open = words.iter().enumerate().any(|(at, word)| word.is_none() && !is_value(at));
    found.or_else(|| is_open.then_some(None))
}

/// Returns whether a configuration of gunicorn may say where it binds.
fn has_configuration(app: &App<'_>, words: &[Option<String>]) -> bool {
    let names = words.iter().any(|word| {
        word.as_deref()
            .is_none_or(|word| word == "-c" || word.starts_with("--config") || word.starts_with("-c"))
    });
    let bound = value(words, &["--bind", "-b"]).is_some_and(|value| value.is_some());
    !bound && (names || app.tree.has("gunicorn.conf.py"))
}

/// `flask db upgrade` and `fastapi --help` serve nothing.
fn is_other_verb(name: &str, words: &[Option<String>]) -> bool {
    let has = |verb: &str| words.iter().any(|word| word.as_deref() == Some(verb));
    match name {
        "flask" | "streamlit" => !has("run"),
        "fastapi" => !has("run") && !has("dev"),
        _ => false,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}
