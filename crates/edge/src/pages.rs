//! What the edge says itself: JSON for programs, a small page for people. Every inserted text is escaped.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::limits::RETRY_AFTER_SECONDS;

/// Why the edge answers instead of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No host, or an unusable one.
    BadHost,
    /// The head says in two ways where the body ends.
    Framing,
    /// A tunnel to elsewhere was asked for.
    Connect,
    /// The host is not in the table.
    UnknownHost { host: String },
    /// First deployment under way, or nothing deployed yet.
    Starting { service: String },
    /// Nothing of it was ever live.
    Undeployed { service: String },
    /// Stopped on purpose.
    Stopped { service: String },
    /// It ended by itself.
    Crashed { service: String },
    /// Parked for as long as allowed.
    ParkedTooLong { service: String },
    /// Too many are parked.
    TooManyParked { service: String },
    /// The target accepts no connection.
    Unreachable { service: String },
    /// The target closed before it answered.
    NoAnswer { service: String },
}

struct Words {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: String,
    retry: bool,
}

impl Fault {
    /// Returns the status of the answer.
    #[cfg(test)]
    fn status(&self) -> StatusCode {
        self.words().status
    }

    fn words(&self) -> Words {
        let words =
            |status, code, message: String, hint: String| Words { status, code, message, hint, retry: false };
        let again = |words: Words| Words { retry: true, ..words };
        let bad = StatusCode::BAD_REQUEST;
        let away = StatusCode::SERVICE_UNAVAILABLE;
        let broken = StatusCode::BAD_GATEWAY;
        match self {
            Fault::BadHost => words(
                bad,
                "bad_host",
                "The request names no host, or more than one.".into(),
                "Send exactly one Host header.".into(),
            ),
            Fault::Framing => words(
                bad,
                "conflicting_length",
                "The request has both Content-Length and Transfer-Encoding.".into(),
                "Send only one of them.".into(),
            ),
            Fault::Connect => words(
                StatusCode::METHOD_NOT_ALLOWED,
                "connect_refused",
                "This is not a forward proxy.".into(),
                "Send the request to the service itself.".into(),
            ),
            Fault::UnknownHost { host } => words(
                StatusCode::NOT_FOUND,
                "unknown_host",
                format!("No service answers at {host}."),
                "Run `trackbed status` to see the addresses of every service.".into(),
            ),
            Fault::Starting { service } => again(words(
                away,
                "service_starting",
                format!("{service} is starting."),
                "Try again in a moment. Run `trackbed status` to see how far it is.".into(),
            )),
            Fault::Undeployed { service } => words(
                away,
                "service_undeployed",
                format!("Nothing of {service} is live yet."),
                "Run `trackbed up`; if a deployment failed, `trackbed deployments` says which.".into(),
            ),
            Fault::Stopped { service } => words(
                away,
                "service_stopped",
                format!("{service} has been stopped."),
                "Run `trackbed restart` to start it again.".into(),
            ),
            Fault::Crashed { service } => words(
                away,
                "service_crashed",
                format!("{service} has crashed and is not being restarted."),
                "Run `trackbed logs` to see why.".into(),
            ),
            Fault::ParkedTooLong { service } => again(words(
                away,
                "service_paused",
                format!("{service} was paused for an update and did not come back in time."),
                "Try again in a moment. Run `trackbed status` to see how far it is.".into(),
            )),
            Fault::TooManyParked { service } => again(words(
                away,
                "too_many_waiting",
                format!("{service} is paused for an update and too many requests wait for it already."),
                "Try again in a moment.".into(),
            )),
            Fault::Unreachable { service } => words(
                broken,
                "service_unreachable",
                format!("{service} runs but accepts no connection."),
                "Run `trackbed status` to see its port and `trackbed logs` for what it says.".into(),
            ),
            Fault::NoAnswer { service } => words(
                broken,
                "no_answer",
                format!("{service} closed the connection without an answer."),
                "Run `trackbed logs` to see what happened.".into(),
            ),
        }
    }

    /// Makes the answer.
    pub(crate) fn answer(&self, accept: Option<&HeaderValue>, request_id: &HeaderValue) -> Response<Bytes> {
        let words = self.words();
        let id = request_id.to_str().unwrap_or_default();
        let (kind, body) = if wants_page(accept) {
            ("text/html; charset=utf-8", page(&words, id))
        } else {
            let error =
                json!({ "code": words.code, "message": words.message, "hint": words.hint, "request_id": id });
            ("application/json", format!("{}\n", json!({ "error": error })))
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = words.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if words.retry {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// Returns whether the client is a browser: it names HTML, and not after JSON.
fn wants_page(accept: Option<&HeaderValue>) -> bool {
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
    match (accept.find("text/html"), accept.find("application/json")) {
        (Some(html), Some(json)) => html < json,
        (html, _) => html.is_some(),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Escapes a hint and sets what stands in back quotes as a command.
fn escape_hint(hint: &str) -> String {
    let piece = |(index, text): (usize, &str)| match index % 2 {
        0 => escape(text),
        _ => format!("<code>{}</code>", escape(text)),
    };
    hint.split('`').enumerate().map(piece).collect()
}

fn page(words: &Words, request_id: &str) -> String {
    const TEMPLATE: &str = include_str!("page.html");
    TEMPLATE
        .replace("{status}", words.status.as_str())
        .replace("{reason}", words.status.canonical_reason().unwrap_or_default())
        .replace("{refresh}", if words.retry { "<meta http-equiv=\"refresh\" content=\"3\">" } else { "" })
        .replace("{code}", words.code)
        .replace("{hint}", &escape_hint(&words.hint))
        .replace("{request_id}", &escape(request_id))
        // Last, so that nothing a client wrote is taken for a place to fill.
        .replace("{message}", &escape(&words.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fault: &Fault, accept: &'static str) -> String {
        let accept = HeaderValue::from_static(accept);
        let response = fault.answer(Some(&accept), &HeaderValue::from_static("id-1"));
        assert_eq!(response.status(), fault.status());
        String::from_utf8(response.into_body().to_vec()).unwrap()
    }

    #[test]
    fn a_program_gets_json_and_a_browser_a_page() {
        let fault = Fault::Crashed { service: "notes".into() };
        let parsed: serde_json::Value = serde_json::from_str(&answer(&fault, "*/*")).unwrap();
        assert_eq!(parsed["error"]["code"], "service_crashed");
        assert_eq!(parsed["error"]["request_id"], "id-1");
        assert!(answer(&fault, "application/json, text/html").starts_with('{'));
        let page = answer(&fault, "text/html,application/xhtml+xml,*/*;q=0.8");
        assert!(page.contains("<code>trackbed logs</code>") && page.contains("notes has crashed"), "{page}");
        assert!(!page.contains("http://") && !page.contains("https://"), "no external asset");
    }

    #[test]
    fn a_hostile_host_is_escaped() {
        let fault = Fault::UnknownHost { host: "<script>alert(1)</script>{hint}".into() };
        let page = answer(&fault, "text/html");
        assert!(!page.contains("<script>") && page.contains("{hint}"), "{page}");
    }
}
