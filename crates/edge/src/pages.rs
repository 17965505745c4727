//! What the edge says itself: JSON for programs, a small page for people. Every inserted text is escaped.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use serde_json::json;
use trackbed_core::route::DownReason;

use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, RETRY_AFTER_SECONDS};
use crate::response::put_status_line;

/// Why the edge answers instead of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No host, or an unusable one.
    BadHost,
    /// The head says in two ways where the body ends.
    TwoLengths,
    /// A line of the head ends with a line feed alone.
    BareLineEnd,
    /// It is not HTTP/1.1, for this reason.
    Malformed(&'static str),
    /// The chunks of the body are broken.
    BadChunks,
    /// The head is longer than allowed, or has more fields.
    HeadTooLarge,
    /// Another version of HTTP.
    Version,
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
    /// The target's answer cannot be passed on.
    BadAnswer { service: String },
    /// The target has files, and none at this path.
    NoFile { service: String },
    /// The target has files, which are only ever read.
    NoMethodOfFiles { service: String },
    /// The target's files cannot be read.
    FilesUnreadable { service: String },
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
    /// Returns why requests of a service have no target.
    pub(crate) fn of_service(reason: DownReason, service: String) -> Self {
        match reason {
            DownReason::Starting => Fault::Starting { service },
            DownReason::Undeployed => Fault::Undeployed { service },
            DownReason::Stopped => Fault::Stopped { service },
            DownReason::Crashed => Fault::Crashed { service },
        }
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
            Fault::TwoLengths => words(
                bad,
                "conflicting_length",
                "The request says in two ways where its body ends.".into(),
                "Send one Content-Length, or Transfer-Encoding: chunked.".into(),
            ),
            Fault::BareLineEnd => words(
                bad,
                "bare_line_end",
                "A line of the request's head ends without a carriage return.".into(),
                "End each line with CR LF, as RFC 9112 §2.1 says.".into(),
            ),
            Fault::Malformed(what) => words(
                bad,
                "malformed_request",
                format!("The request cannot be understood: {what}."),
                "Send a request as RFC 9112 describes it.".into(),
            ),
            Fault::BadChunks => words(
                bad,
                "malformed_chunks",
                "The chunks of the request's body are broken.".into(),
                "Send each chunk as RFC 9112 §7.1 describes it.".into(),
            ),
            Fault::HeadTooLarge => words(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_large",
                format!("The request's head has more than {HEAD_BYTES_MAX} bytes or {HEADERS_MAX} fields."),
                "Send fewer or shorter cookies and headers.".into(),
            ),
            Fault::Version => words(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "version_not_supported",
                "This port speaks HTTP/1.1.".into(),
                "Send the request with HTTP/1.1.".into(),
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
            Fault::BadAnswer { service } => words(
                broken,
                "bad_answer",
                format!("{service} answered with something that is not HTTP/1.1."),
                "Run `trackbed logs` to see what happened.".into(),
            ),
            Fault::NoFile { service } => words(
                StatusCode::NOT_FOUND,
                "no_such_file",
                format!("{service} has no file at this path."),
                "Check the path. A page of your own stands here once the site has a `404.html`.".into(),
            ),
            Fault::NoMethodOfFiles { service } => words(
                StatusCode::METHOD_NOT_ALLOWED,
                "files_are_read",
                format!("{service} is a static site: its files are read with GET and HEAD."),
                "Send GET or HEAD, or send the request to the service that answers it.".into(),
            ),
            Fault::FilesUnreadable { service } => words(
                StatusCode::INTERNAL_SERVER_ERROR,
                "files_unreadable",
                format!("The files of {service} cannot be read."),
                "Run `trackbed redeploy`; the log of the edge says what is wrong.".into(),
            ),
            Fault::NoAnswer { service } => words(
                broken,
                "no_answer",
                format!("{service} closed the connection without an answer."),
                "Run `trackbed logs` to see what happened.".into(),
            ),
        }
    }

    /// Writes the answer, all of it.
    pub(crate) fn write(&self, form: &Form<'_>, out: &mut Vec<u8>) -> u16 {
        let words = self.words();
        let (kind, body) = if form.wants_page {
            ("text/html; charset=utf-8", page(&words, form.id))
        } else {
            let (code, id) = (words.code, form.id);
            let error =
                json!({ "code": code, "message": words.message, "hint": words.hint, "request_id": id });
            ("application/json", format!("{}\n", json!({ "error": error })))
        };
        let since = Duration::from_millis(u64::try_from(trackbed_stdx::clock::now_ms()).unwrap_or_default());
        let now = UNIX_EPOCH + since;
        out.clear();
        put_status_line(out, words.status.as_u16(), words.status.canonical_reason().unwrap_or_default());
        // Writing into a vector cannot fail.
        let _ = write!(
            out,
            "Date: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Request-Id: {}\r\n",
            httpdate::fmt_http_date(now),
            body.len(),
            form.id
        );
        if matches!(self, Fault::NoMethodOfFiles { .. }) {
            out.extend_from_slice(b"Allow: GET, HEAD\r\n");
        }
        if words.retry {
            let _ = write!(out, "Retry-After: {RETRY_AFTER_SECONDS}\r\n");
        }
        if form.closes {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !form.is_head {
            out.extend_from_slice(body.as_bytes());
        }
        words.status.as_u16()
    }
}

/// How an answer of the edge's own looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form<'a> {
    pub(crate) wants_page: bool,
    /// Whether the request was HEAD.
    pub(crate) is_head: bool,
    /// Whether the connection ends with it.
    pub(crate) closes: bool,
    /// The request's id.
    pub(crate) id: &'a str,
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

    fn answer(fault: &Fault, wants_page: bool) -> String {
        let mut out = Vec::new();
        let status = fault.write(&Form { wants_page, is_head: false, closes: false, id: "id-1" }, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    #[test]
    fn a_program_gets_json_and_a_browser_a_page() {
        let fault = Fault::Crashed { service: "notes".into() };
        let parsed: serde_json::Value = serde_json::from_str(&answer(&fault, false)).unwrap();
        assert_eq!(parsed["error"]["code"], "service_crashed");
        assert_eq!(parsed["error"]["request_id"], "id-1");
        let page = answer(&fault, true);
        assert!(page.contains("<code>trackbed logs</code>") && page.contains("notes has crashed"), "{page}");
        assert!(!page.contains("http://") && !page.contains("https://"), "no external asset");
    }

    #[test]
    fn a_hostile_host_is_escaped() {
        let fault = Fault::UnknownHost { host: "<script>alert(1)</script>{hint}".into() };
        let page = answer(&fault, true);
        assert!(!page.contains("<script>") && page.contains("{hint}"), "{page}");
    }
}
