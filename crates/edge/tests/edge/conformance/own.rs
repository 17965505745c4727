//! Cases of our own: what a proxy is attacked with, and what it must not be confused by. Heads are written as their
//! lines; `Host: a.test` is the first field unless a case is about it.

use super::judge::{Case, Ending, Expected};
use super::own_bodies::{chunks, codings, framing};
use super::own_heads::{hosts, lines, targets, versions};
use super::run;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_and_nothing_well_formed_is_refused() {
    let cases: Vec<Case> =
        [framing(), codings(), chunks(), lines(), targets(), hosts(), versions(), sizes(), well_formed()]
            .concat();
    let outcome = run("own", "this repository", 0, &cases, &[]).await;
    let unexplained = outcome.unexplained();
    assert!(unexplained.is_empty(), "{} cases:\n{}", unexplained.len(), unexplained.join("\n"));
}

/// What is put behind a message that ends early for one reader and late for another.
pub(super) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Lines of a POST to `/p` with these fields, and what follows the head.
pub(super) fn post(fields: &str, rest: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{rest}").into_bytes()
}

pub(super) fn chunked(rest: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", rest)
}

pub(super) fn get(fields: &str) -> Vec<u8> {
    format!("GET /g HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

pub(super) fn case(name: &str, raw: impl AsRef<[u8]>, ending: Ending, requests: Vec<Expected>) -> Case {
    Case {
        name: name.to_owned(),
        raw: raw.as_ref().to_vec(),
        ending,
        requests,
        status: None,
        silence_will_do: false,
    }
}

pub(super) fn refused(name: &str, raw: impl AsRef<[u8]>) -> Case {
    case(name, raw, Ending::Error, Vec::new())
}

pub(super) fn refused_with(name: &str, status: u16, raw: impl AsRef<[u8]>) -> Case {
    Case { status: Some(status), ..refused(name, raw) }
}

pub(super) fn silent(name: &str, raw: impl AsRef<[u8]>) -> Case {
    Case { silence_will_do: true, ..refused(name, raw) }
}

pub(super) fn passed(name: &str, raw: impl AsRef<[u8]>, requests: Vec<Expected>) -> Case {
    case(name, raw, Ending::Clean, requests)
}

pub(super) fn either(name: &str, raw: impl AsRef<[u8]>, request: Expected) -> Case {
    case(name, raw, Ending::Either, vec![request])
}

pub(super) fn wants(method: &str, target: &str, body: &str) -> Expected {
    Expected { method: method.into(), target: target.into(), headers: Vec::new(), body: body.into() }
}

pub(super) fn wants_with(method: &str, target: &str, name: &str, value: &str) -> Expected {
    Expected { headers: vec![(name.into(), value.into())], ..wants(method, target, "") }
}

/// Beyond the limits.
fn sizes() -> Vec<Case> {
    let long = |count: usize| "x".repeat(count);
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    vec![
        refused_with("a field of 80 KB", 431, get(&format!("X-A: {}\r\n", long(80 * 1024)))),
        refused_with("fields of 80 KB together", 431, get(&many(6000))),
        refused("a target of 80 KB", format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", long(80 * 1024))),
        refused_with("two thousand fields", 431, get(&many(2000))),
        passed("fifty fields", get(&many(50)), vec![wants_with("GET", "/g", "x-49", "y")]),
        passed(
            "a field of 30 KB",
            get(&format!("X-A: {}\r\n", long(30 * 1024))),
            vec![wants("GET", "/g", "")],
        ),
        passed(
            "a target of 8,000 bytes",
            format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", long(7999)),
            vec![wants("GET", &format!("/{}", long(7999)), "")],
        ),
    ]
}

/// What ordinary clients send, several at once.
fn well_formed() -> Vec<Case> {
    let host = "Host: a.test\r\n";
    vec![
        passed(
            "four requests in one packet",
            format!(
                "GET /1 HTTP/1.1\r\n{host}\r\nPOST /2 HTTP/1.1\r\n{host}Content-Length: 2\r\n\r\nhi\
                 POST /3 HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n\
                 DELETE /4 HTTP/1.1\r\n{host}\r\n"
            ),
            vec![
                wants("GET", "/1", ""),
                wants("POST", "/2", "hi"),
                wants("POST", "/3", "ho"),
                wants("DELETE", "/4", ""),
            ],
        ),
        case(
            "a good one, then a bad one",
            format!("GET /1 HTTP/1.1\r\n{host}\r\nGET /2 HTTP/1.1\r\n{host}X : y\r\n\r\n"),
            Ending::Error,
            vec![wants("GET", "/1", "")],
        ),
        case(
            "nothing is read after Connection: close",
            format!("GET /1 HTTP/1.1\r\n{host}Connection: close\r\n\r\n{SMUGGLED}"),
            Ending::Error,
            vec![wants("GET", "/1", "")],
        ),
        case(
            "nothing is read after HTTP/1.0",
            format!("GET /1 HTTP/1.0\r\n{host}\r\n{SMUGGLED}"),
            Ending::Error,
            vec![wants("GET", "/1", "")],
        ),
        passed(
            "HEAD, then GET",
            format!("HEAD /1 HTTP/1.1\r\n{host}\r\nGET /2 HTTP/1.1\r\n{host}\r\n"),
            vec![wants("HEAD", "/1", ""), wants("GET", "/2", "")],
        ),
        passed(
            "Expect: 100-continue with the body already there",
            post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"),
            vec![wants("POST", "/p", "hello")],
        ),
        passed(
            "GET with a chunked body, then another",
            format!(
                "GET /1 HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n{SMUGGLED}"
            ),
            vec![wants("GET", "/1", "hi"), wants("GET", "/smuggled", "")],
        ),
        passed(
            "a body that is a request",
            post(&format!("Content-Length: {}\r\n", SMUGGLED.len()), SMUGGLED),
            vec![wants("POST", "/p", SMUGGLED)],
        ),
        case("half a head", format!("GET /1 HTTP/1.1\r\n{host}X"), Ending::Incomplete, Vec::new()),
    ]
}
