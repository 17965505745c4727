//! From what was seen of an instance that failed to what its owner should do: reason and hint.

use trackbed_core::InstanceId;
use trackbed_core::deployment::{Failure, Step};
use trackbed_core::instance::{Exit, Listener, LogCursor, LogLine, LogStream};
use trackbed_core::ports::Probe;

use crate::control::Control;
use crate::health::{Gate, Verdict};

/// Lines of the app that a failure quotes.
const TAIL_LINES: usize = 20;
/// Lines read at once, and pages read at most, to find the last ones.
const PAGE_LINES: usize = 2000;
const PAGES_MAX: usize = 64;

impl Control {
    /// Explains why a gate did not open.
    pub(crate) async fn explain(&self, stage: Step, gate: &Gate<'_>, verdict: &Verdict) -> Failure {
        let log_tail = match verdict {
            Verdict::SideFailed { process, .. } => {
                self.tail_of(gate.instance, |line| line.is_of(process)).await
            }
            Verdict::Ended(_) | Verdict::TimedOut { .. } | Verdict::Healthy { .. } => {
                self.last_lines(gate.instance).await
            }
        };
        let (reason, hint) = match verdict {
            Verdict::Ended(exit) => ended(exit, &log_tail, gate.port),
            Verdict::SideFailed { process, exit } => side_failed(process, exit, &log_tail, gate.port),
            Verdict::TimedOut { last, listeners } => timed_out(gate, last.as_ref(), listeners, &log_tail),
            Verdict::Healthy { .. } => ("the app is healthy".to_owned(), None),
        };
        Failure { stage, reason, hint, log_tail }
    }

    /// Returns what an app that ended wrote of the cause, when it is known.
    pub(crate) async fn cause_of_end(&self, instance: &InstanceId, port: u16) -> Option<String> {
        let log = self.last_lines(instance).await;
        known_cause(&log, port).map(|(cause, _)| cause)
    }

    /// Returns the last lines that the main process of an instance wrote.
    pub(crate) async fn last_lines(&self, instance: &InstanceId) -> Vec<String> {
        self.tail_of(instance, LogLine::is_of_main).await
    }

    async fn tail_of(&self, instance: &InstanceId, is_wanted: impl Fn(&LogLine) -> bool) -> Vec<String> {
        let mut tail: Vec<String> = Vec::new();
        let mut from = LogCursor::START;
        for _ in 0..PAGES_MAX {
            let Ok(page) = self.inner.engine.logs(instance, from, PAGE_LINES).await else { break };
            if page.lines.is_empty() {
                break;
            }
            from = page.next;
            let lines = page.lines.into_iter();
            let wanted = lines.filter(|line| line.stream != LogStream::System && is_wanted(line));
            tail.extend(wanted.map(|line| line.text));
            let excess = tail.len().saturating_sub(TAIL_LINES);
            tail.drain(..excess);
        }
        tail
    }
}

fn ended(exit: &Exit, log: &[String], port: u16) -> (String, Option<String>) {
    let reason = match exit {
        Exit::Setup { message } => return (format!("the app could not be started: {message}"), None),
        Exit::Code { code: 0 } => "the app exited with code 0 before it was healthy".to_owned(),
        other => format!("the app {other} before it was healthy"),
    };
    if *exit == Exit::Oom {
        return (
            reason,
            Some("raise the memory limit ([limits] memory in trackbed.toml), or load less at start".into()),
        );
    }
    if let Some((cause, hint)) = known_cause(log, port) {
        return (format!("{reason}: {cause}"), Some(hint));
    }
    let hint = match exit {
        Exit::Code { code: 0 } => Some(
            "the start command must stay in the foreground; remove `&`, `--daemon` or `-D` from it"
                .to_owned(),
        ),
        Exit::Code { code: 126 } => Some("the start command's program is not executable".to_owned()),
        Exit::Code { code: 127 } => {
            Some("a program of the start command was not found; is it in the requirements?".to_owned())
        }
        _ => None,
    };
    (reason, hint)
}

fn side_failed(process: &str, exit: &Exit, log: &[String], port: u16) -> (String, Option<String>) {
    let reason = format!("process `{process}` {exit} before the release was healthy");
    if let Some((cause, hint)) = known_cause(log, port) {
        return (format!("{reason}: {cause}"), Some(hint));
    }
    let name = process.split('.').next().unwrap_or(process);
    (reason, Some(format!("mend it, or deploy without it: trackbed scale {name}=0")))
}

fn timed_out(
    gate: &Gate<'_>,
    last: Option<&Probe>,
    listeners: &[Listener],
    log: &[String],
) -> (String, Option<String>) {
    let seconds = gate.timeout.as_secs();
    let path = gate.check.path.as_deref().unwrap_or("/");
    match last {
        Some(Probe::Answered { status: status @ (400 | 403 | 421), detail }) => (
            format!("{path} answered {status} for {seconds} s, not 200: {detail}"),
            Some(format!(
                "the app may refuse the host: allow `{}` (and `healthcheck.railway.app`) in its allowed hosts",
                gate.host
            )),
        ),
        Some(Probe::Answered { status: status @ 300..400, detail }) => (
            format!("{path} answered {status} (to {detail}) for {seconds} s, not 200"),
            Some("the health path must answer 200 itself: name the final path, without a redirect to https or a login".into()),
        ),
        Some(Probe::Answered { status: status @ (401 | 404), .. }) => (
            format!("{path} answered {status} for {seconds} s, not 200"),
            Some("is healthcheckPath right, and reachable without signing in?".into()),
        ),
        Some(Probe::Answered { status, detail }) => {
            let hint = known_cause(log, gate.port).map(|(_, hint)| hint);
            (format!("{path} answered {status} for {seconds} s, not 200: {detail}"), hint)
        }
        Some(Probe::Broken { detail }) => (
            format!("{path} gave no answer within {seconds} s: {detail}"),
            Some("does the app speak HTTP (not TLS) on $PORT, and does its health path answer quickly?".into()),
        ),
        Some(Probe::Refused) | None => nothing_listens(gate, seconds, listeners, log),
    }
}

fn nothing_listens(
    gate: &Gate<'_>,
    seconds: u64,
    listeners: &[Listener],
    log: &[String],
) -> (String, Option<String>) {
    let port = gate.port;
    if listeners.is_empty() {
        let reason = format!("nothing listened on $PORT ({port}) for {seconds} s");
        let hint = known_cause(log, port).map(|(_, hint)| hint).or(Some(
            "bind the server to 0.0.0.0:$PORT; if it only needs longer, raise healthcheckTimeout".to_owned(),
        ));
        return (reason, hint);
    }
    let ports: Vec<String> = listeners.iter().map(|listener| listener.port.to_string()).collect();
    (
        format!("the app listens on port {}, not on $PORT ({port})", ports.join(" and ")),
        Some("let it listen on $PORT, or name its port: [deploy] port in trackbed.toml".to_owned()),
    )
}

/// Recognises what apps write when they die. The newest line that matches wins.
fn known_cause(log: &[String], port: u16) -> Option<(String, String)> {
    log.iter().rev().find_map(|line| cause_of(line, log, port))
}

fn cause_of(line: &str, log: &[String], port: u16) -> Option<(String, String)> {
    let text = line.trim();
    let some = |hint: &str| Some((text.to_owned(), hint.to_owned()));
    if let Some(module) = between(text, "ModuleNotFoundError: No module named '", "'") {
        return match module.split('.').next() {
            Some("pkg_resources") => {
                some("add `setuptools<81` to the requirements: pkg_resources comes from there")
            }
            Some(package) => some(&format!(
                "add `{package}` to the requirements, or mend the module's name in the start command"
            )),
            None => None,
        };
    }
    if let Some(name) = between(text, "KeyError: '", "'")
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    {
        return some(&format!(
            "if `{name}` is an environment variable, set it: trackbed variables set {name}=…"
        ));
    }
    if text.contains("Field required") || text.contains("field required") {
        let names = missing_fields(log);
        let set: Vec<String> = names.iter().map(|name| format!("{}=…", name.to_uppercase())).collect();
        let hint = match set.is_empty() {
            true => "a required setting is missing: trackbed variables set NAME=…".to_owned(),
            false => format!("set what is missing: trackbed variables set {}", set.join(" ")),
        };
        return Some((format!("required settings are missing ({})", names.join(", ")), hint));
    }
    let lower = text.to_lowercase();
    if lower.contains("missing")
        && (lower.contains("variable") || lower.contains("setting") || lower.contains("required"))
    {
        return some("set what is missing: trackbed variables set NAME=…");
    }
    if lower.contains("address already in use") {
        return some(&format!(
            "something else listens there already; bind to $PORT ({port} here) and only once"
        ));
    }
    if lower.contains("unable to open database file") {
        return some(
            "the database's folder must exist and be writable: put it on a volume (trackbed volume list) by an absolute path",
        );
    }
    if lower.contains("permission denied")
        && (lower.contains("bind") || lower.contains("listen") || lower.contains("address"))
    {
        return some(&format!("ports below 1024 cannot be bound; listen on $PORT ({port} here)"));
    }
    if lower.contains("permission denied") || lower.contains("read-only file system") {
        return some("the app may write to its volumes, /tmp and /app only");
    }
    if lower.contains("command not found") || lower.contains(": not found") {
        return some("a program of the start command was not found; is it in the requirements?");
    }
    if text.contains("SyntaxError") || text.contains("ImportError") || text.contains("AttributeError") {
        return some("the app fails while it is imported; run it locally with the same start command");
    }
    None
}

/// Names of the fields in a pydantic validation error: the unindented line before each `Field required`.
fn missing_fields(log: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    for pair in log.windows(2) {
        let is_name = !pair[0].is_empty() && !pair[0].starts_with(' ') && !pair[0].contains(' ');
        if is_name && pair[1].to_lowercase().contains("field required") && !names.contains(&pair[0]) {
            names.push(pair[0].clone());
        }
    }
    names
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    Some(&text[start..start + length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_missing_setting_is_named() {
        let log = lines(
            "pydantic_core._pydantic_core.ValidationError: 2 validation errors for Settings\nsecret_key\n  Field required [type=missing]\nbackend_url\n  Field required [type=missing]",
        );
        let (reason, hint) = ended(&Exit::Code { code: 3 }, &log, 8080);
        assert!(reason.contains("secret_key, backend_url"), "{reason}");
        assert_eq!(hint.unwrap(), "set what is missing: trackbed variables set SECRET_KEY=… BACKEND_URL=…");
    }

    #[test]
    fn a_missing_module_is_named() {
        let (reason, hint) =
            ended(&Exit::Code { code: 1 }, &lines("ModuleNotFoundError: No module named 'foo.bar'"), 1);
        assert!(reason.ends_with("No module named 'foo.bar'"), "{reason}");
        assert!(hint.unwrap().starts_with("add `foo`"));
    }

    #[test]
    fn memory_and_background_are_told_apart_from_plain_exits() {
        assert!(ended(&Exit::Oom, &[], 1).1.unwrap().contains("memory"));
        assert!(ended(&Exit::Code { code: 0 }, &[], 1).1.unwrap().contains("foreground"));
        assert!(ended(&Exit::Signal { signal: 11 }, &[], 1).0.contains("signal 11"));
    }
}
