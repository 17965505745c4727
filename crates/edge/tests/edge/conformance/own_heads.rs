//! Cases of our own about heads: field lines, targets, hosts, versions.

use super::judge::{Case, Ending};
use super::own::{case, either, get, passed, refused, silent, wants, wants_with};

/// Field lines and line ends.
pub(super) fn lines() -> Vec<Case> {
    let simple = wants("GET", "/g", "");
    vec![
        refused("blank before a colon", get("X-A : b\r\n")),
        refused("tab before a colon", get("X-A\t: b\r\n")),
        refused("field without a colon", get("nonsense\r\n")),
        refused("field without a name", get(": b\r\n")),
        refused("blank in a name", get("X A: b\r\n")),
        refused("NUL in a name", get("X\0A: b\r\n")),
        refused("NUL in a value", get("X-A: b\0c\r\n")),
        refused("bell in a value", get("X-A: b\x07c\r\n")),
        refused("DEL in a value", get("X-A: b\x7fc\r\n")),
        refused("bare CR in a value", get("X-A: b\rc\r\n")),
        refused("bare CR as a line end", get("X-A: b\rX-B: c\r\n")),
        refused("a byte above ASCII in a name", get("X-\u{e9}: b\r\n")),
        refused("brackets in a name", get("X[A]: b\r\n")),
        either("folded line", get("X-A: b\r\n c\r\n"), simple.clone()),
        either("folded line with a tab", get("X-A: b\r\n\tc\r\n"), simple.clone()),
        either("lines that all end with LF alone", "GET /g HTTP/1.1\nHost: a.test\n\n", simple.clone()),
        either(
            "one line that ends with LF alone",
            "GET /g HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n",
            simple.clone(),
        ),
        either("a head that ends with LF alone", "GET /g HTTP/1.1\r\nHost: a.test\r\n\n", simple.clone()),
        either("one empty line before", "\r\nGET /g HTTP/1.1\r\nHost: a.test\r\n\r\n", simple.clone()),
        refused("blank before the request line", " GET /g HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        case(
            "lines that all end with CR alone are no head",
            "GET /g HTTP/1.1\rHost: a.test\r\r",
            Ending::Incomplete,
            Vec::new(),
        ),
        passed(
            "obsolete text in a value",
            [&b"GET /g HTTP/1.1\r\nHost: a.test\r\nX-A: caf\xe9\r\n\r\n"[..]].concat(),
            vec![wants_with("GET", "/g", "x-a", "caf\u{e9}")],
        ),
        passed("empty value", get("X-A:\r\n"), vec![simple.clone()]),
        passed(
            "every character of a token but _ in a name",
            get("!#$%&'*+-.^`|~9z: b\r\n"),
            vec![wants_with("GET", "/g", "!#$%&'*+-.^`|~9z", "b")],
        ),
        passed(
            "blanks around a value",
            get("X-A:  \t b c \t \r\n"),
            vec![wants_with("GET", "/g", "x-a", "b c")],
        ),
        passed("fields named by Connection stay here", get("Connection: X-A\r\nX-A: b\r\n"), vec![simple]),
    ]
}

/// The request line.
pub(super) fn targets() -> Vec<Case> {
    let line = |line: &str| format!("{line}\r\nHost: a.test\r\n\r\n");
    vec![
        refused("two blanks before the target", line("GET  /g HTTP/1.1")),
        refused("two blanks before the version", line("GET /g  HTTP/1.1")),
        refused("tab before the target", line("GET\t/g HTTP/1.1")),
        refused("tab in the target", line("GET /g\th HTTP/1.1")),
        refused("blank in the target", line("GET /g h HTTP/1.1")),
        refused("blank after the version", line("GET /g HTTP/1.1 ")),
        refused("vertical tab in the request line", line("GET /g\x0bHTTP/1.1")),
        refused("bare CR in the request line", line("GET /g\rh HTTP/1.1")),
        refused("NUL in the target", line("GET /g\0 HTTP/1.1")),
        refused("DEL in the target", line("GET /g\x7f HTTP/1.1")),
        refused("empty target", line("GET  HTTP/1.1")),
        refused("relative target", line("GET g HTTP/1.1")),
        refused("no method", line("/g HTTP/1.1")),
        refused("brackets in the method", line("G[]T /g HTTP/1.1")),
        refused("colon in the method", line("GET: /g HTTP/1.1")),
        refused("asterisk with GET", line("GET * HTTP/1.1")),
        refused("authority with GET", line("GET a.test:80 HTTP/1.1")),
        refused("CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"),
        refused("absolute target of another scheme", line("GET ftp://a.test/g HTTP/1.1")),
        passed("asterisk with OPTIONS", line("OPTIONS * HTTP/1.1"), vec![wants("OPTIONS", "*", "")]),
        passed("a method nobody knows", line("BREW /g HTTP/1.1"), vec![wants("BREW", "/g", "")]),
        refused("a method in small letters is none", line("get /g HTTP/1.1")),
        passed(
            "encoded line ends stay encoded",
            line("GET /g%0d%0aX:%20y HTTP/1.1"),
            vec![wants("GET", "/g%0d%0aX:%20y", "")],
        ),
        passed(
            "slashes and dots stay as they are",
            line("GET //a/../b/./c?d=//e HTTP/1.1"),
            vec![wants("GET", "//a/../b/./c?d=//e", "")],
        ),
        passed("a question mark alone", line("GET /g? HTTP/1.1"), vec![wants("GET", "/g?", "")]),
        either(
            "quotes and brackets in the target",
            line("GET /g?a=\"b\"&c={d}|e HTTP/1.1"),
            wants("GET", "/g?a=\"b\"&c={d}|e", ""),
        ),
    ]
}

/// Which host it is.
pub(super) fn hosts() -> Vec<Case> {
    let with = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\n{fields}\r\n");
    vec![
        refused("no host", with("/g", "")),
        refused("empty host", with("/g", "Host:\r\n")),
        refused("two hosts", with("/g", "Host: a.test\r\nHost: b.test\r\n")),
        refused("the same host twice", with("/g", "Host: a.test\r\nHost: a.test\r\n")),
        refused("two hosts in one", with("/g", "Host: a.test, b.test\r\n")),
        refused("host with a user", with("/g", "Host: me@a.test\r\n")),
        refused("host with a path", with("/g", "Host: a.test/b\r\n")),
        refused("host with a blank", with("/g", "Host: a.test b.test\r\n")),
        refused("host with a port that is none", with("/g", "Host: a.test:8o\r\n")),
        refused("blank before the colon of a host", with("/g", "Host : a.test\r\n")),
        refused("absolute target without a host field", with("http://a.test/g", "")),
        refused(
            "absolute target with two hosts",
            with("http://a.test/g", "Host: a.test\r\nHost: b.test\r\n"),
        ),
        passed(
            "the target's host wins over the field",
            with("http://a.test/g", "Host: b.test\r\n"),
            vec![wants_with("GET", "/g", "host", "a.test")],
        ),
        passed(
            "absolute target without a path",
            with("http://a.test", "Host: a.test\r\n"),
            vec![wants("GET", "/", "")],
        ),
        passed(
            "host with a port",
            with("/g", "Host: a.test:8080\r\n"),
            vec![wants_with("GET", "/g", "host", "a.test:8080")],
        ),
        passed("host in capitals", with("/g", "HOST: A.TEST\r\n"), vec![wants("GET", "/g", "")]),
    ]
}

/// Other protocols, and versions.
pub(super) fn versions() -> Vec<Case> {
    let line = |line: &str| format!("{line}\r\nHost: a.test\r\n\r\n");
    vec![
        refused("HTTP/0.9", "GET /g\r\n\r\n"),
        refused("HTTP/0.9 with fields", line("GET /g")),
        refused("HTTP/0.9 by its version", line("GET /g HTTP/0.9")),
        refused("HTTP/1.2 digits", line("GET /g HTTP/1.10")),
        refused("HTTP/2.0", line("GET /g HTTP/2.0")),
        silent("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        refused("version in small letters", line("GET /g http/1.1")),
        refused("version with a blank", line("GET /g HTTP/1. 1")),
        refused("version with a comma", line("GET /g HTTP/1,1")),
        refused("version of another protocol", line("GET /g ICY/1.1")),
        refused("no digits", line("GET /g HTTP/x.y")),
        silent("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        passed("HTTP/1.0", line("GET /g HTTP/1.0"), vec![wants("GET", "/g", "")]),
    ]
}
