//! Request corpora of other servers, fetched by `corpora.py`.

use std::process::Command;

use serde_json::Value;

use super::judge::{Case, Ending, Expected};
use super::{Deviation, kept_in, run};

/// Where we differ from a suite on purpose.
const DEVIATIONS: &[Deviation] = &[
    gunicorn("invalid/041", "which `Content-Type` counts is the app's to say; it frames nothing"),
    gunicorn("invalid/rfc9110_trailer_forbidden_cl_01", TRAILERS_DROPPED),
    gunicorn("invalid/rfc9110_trailer_forbidden_host_01", TRAILERS_DROPPED),
    gunicorn("invalid/rfc9110_trailer_forbidden_te_01", TRAILERS_DROPPED),
    gunicorn(
        "invalid/rfc9112_leading_crlf_02",
        "empty lines before a request are skipped (RFC 9112 section 2.2)",
    ),
    gunicorn(
        "invalid/rfc9112_target_non_ascii_02",
        "it arrives in the form that RFC 3986 wants: percent-encoded",
    ),
    gunicorn("valid/025", CHUNKED_ONLY),
    gunicorn("valid/025_line", CHUNKED_ONLY),
    gunicorn("valid/029", CHUNKED_ONLY),
    gunicorn("valid/030", CHUNKED_ONLY),
    gunicorn("valid/rfc9112_smuggle_gzip_chunked_01", CHUNKED_ONLY),
    gunicorn("valid/rfc9112_smuggle_te_identity_chunked_01", CHUNKED_ONLY),
    gunicorn("valid/rfc9112_target_absolute_ipv6_01", "no service is reached by a bare address"),
    gunicorn("valid/rfc9112_target_absolute_userinfo_01", USER_IN_TARGET),
    gunicorn("valid/rfc9112_target_authority_connect_01", CONNECT),
    gunicorn("valid/rfc9112_target_authority_ipv6_01", CONNECT),
    llhttp("invalid: HTTP protocol and ANNOUNCE method", ANY_TOKEN),
    llhttp("invalid: Invalid method", ANY_TOKEN),
    llhttp("method: SOURCE request with ICE", OTHER_PROTOCOL),
    llhttp("method: OPTIONS request with RTSP", OTHER_PROTOCOL),
    llhttp("method: ANNOUNCE request with RTSP", OTHER_PROTOCOL),
    llhttp("sample: No HTTP version", "HTTP/0.9 has no host and no end"),
    llhttp("method: M-SEARCH request", "a bare asterisk is for OPTIONS alone (RFC 9112 section 3.2.4)"),
    llhttp("transfer-encoding: POST with `chunked` as last transfer-encoding", CHUNKED_ONLY),
    llhttp(
        "transfer-encoding: POST with `chunked` as last transfer-encoding (multiple headers)",
        CHUNKED_ONLY,
    ),
    llhttp("transfer-encoding: Unbalanced chunk extensions quoting", EXTENSIONS),
    llhttp(
        "uri: Disallow UTF-8 in URI path in strict mode",
        "it arrives in the form that RFC 3986 wants: percent-encoded",
    ),
    llhttp("transfer-encoding: No extension after semicolon", EXTENSIONS),
    llhttp("uri: `host:port` and basic auth", USER_IN_TARGET),
];

const ANY_TOKEN: &str =
    "every token is a method (RFC 9110 section 9.1); which ones there are is the app's to say";
const TRAILERS_DROPPED: &str =
    "such a trailer is dropped (RFC 9110 section 6.5.1), and nothing behind us sees it";
const CHUNKED_ONLY: &str =
    "no coding but chunked is passed on: apps behind us know no other (RFC 9112 section 6.1)";
const EXTENSIONS: &str = "an extension frames nothing: any line of text without control characters will do";
const USER_IN_TARGET: &str = "a name and password before a host are an error (RFC 9110 section 4.2.4)";
const CONNECT: &str = "we are in front of apps, and no way to elsewhere: 405";
const OTHER_PROTOCOL: &str = "that is not HTTP";

const fn gunicorn(case: &'static str, reason: &'static str) -> Deviation {
    Deviation { suite: "gunicorn", case, reason }
}

const fn llhttp(case: &'static str, reason: &'static str) -> Deviation {
    Deviation { suite: "llhttp", case, reason }
}

/// Exit code of the script when the archives cannot be had.
const CANNOT_FETCH: i32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_other_servers_suites_end_as_those_suites_say() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/edge/conformance/corpora.py");
    let output = Command::new("python3").arg(script).arg(kept_in()).output().expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(CANNOT_FETCH) {
        eprintln!("NOT TESTED (the corpora cannot be fetched here): {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    let suites: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut unexplained = Vec::new();
    for suite in suites.as_array().unwrap() {
        let name = suite["suite"].as_str().unwrap();
        let cases: Vec<Case> = suite["cases"].as_array().unwrap().iter().map(case_of).collect();
        assert!(cases.len() > 100, "{name} has only {} cases", cases.len());
        let left_out = suite["left_out"].as_array().unwrap().len();
        let outcome = run(name, suite["source"].as_str().unwrap(), left_out, &cases, DEVIATIONS).await;
        unexplained.extend(outcome.unexplained().into_iter().map(|line| format!("{name}: {line}")));
    }
    assert!(unexplained.is_empty(), "{} cases:\n{}", unexplained.len(), unexplained.join("\n"));
}

fn case_of(value: &Value) -> Case {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let expected = |request: &Value| Expected {
        method: text(&request["method"]),
        target: text(&request["target"]),
        headers: request["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (text(&pair[0]), text(&pair[1])))
            .collect(),
        body: bytes_of(&request["body"]),
    };
    Case {
        name: text(&value["name"]),
        raw: bytes_of(&value["raw"]),
        ending: match value["ending"].as_str() {
            Some("clean") => Ending::Clean,
            Some("error") => Ending::Error,
            Some("incomplete") => Ending::Incomplete,
            other => panic!("no ending: {other:?}"),
        },
        requests: value["requests"].as_array().unwrap().iter().map(expected).collect(),
        status: None,
        silence_will_do: false,
    }
}

fn bytes_of(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
