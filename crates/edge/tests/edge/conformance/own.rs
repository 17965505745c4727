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

<<<<<<< HEAD
=======
/// Lengths, and lengths beside codings.
fn framing() -> Vec<Case> {
    let both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
    let turned = "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n";
    let with_length =
        |length: &str| post(&format!("Content-Length:{length}\r\n"), &format!("hello{SMUGGLED}"));
    vec![
        refused("length before coding (CL.TE)", post(both, &format!("0\r\n\r\n{SMUGGLED}"))),
        refused("coding before length (TE.CL)", post(turned, &format!("5c\r\n{SMUGGLED}\r\n0\r\n\r\n"))),
        refused(
            "length 0 beside a coding",
            post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        refused(
            "two different lengths",
            post("Content-Length: 5\r\nContent-Length: 0\r\n", &format!("hello{SMUGGLED}")),
        ),
        refused(
            "two different lengths, the smaller first",
            post("Content-Length: 0\r\nContent-Length: 44\r\n", SMUGGLED),
        ),
        either(
            "the same length twice",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            wants("POST", "/p", "hello"),
        ),
        either(
            "a list of equal lengths",
            post("Content-Length: 5, 5\r\n", "hello"),
            wants("POST", "/p", "hello"),
        ),
        refused("a list of lengths", with_length(" 5, 6")),
        refused("negative length", with_length(" -5")),
        refused("length minus zero", with_length(" -0")),
        refused("length with a plus", with_length(" +5")),
        refused("hexadecimal length", with_length(" 0x5")),
        refused("length with a fraction", with_length(" 5.0")),
        refused("length with an exponent", with_length(" 5e0")),
        refused("length with an underscore", with_length(" 0_5")),
        refused("length with a blank inside", with_length(" 5 5")),
        refused("length in quotes", with_length(" \"5\"")),
        refused("empty length", with_length("")),
        refused("length that overflows 64 bits", with_length(" 18446744073709551621")),
        refused("length with a vertical tab", with_length(" \x0b5")),
        refused("length in Arabic digits", with_length(" \u{665}")),
        passed(
            "length with leading zeros",
            post("Content-Length: 0005\r\n", "hello"),
            vec![wants("POST", "/p", "hello")],
        ),
        passed(
            "length without a blank",
            post("Content-Length:5\r\n", "hello"),
            vec![wants("POST", "/p", "hello")],
        ),
        passed(
            "length between tabs",
            post("Content-Length:\t5\t\r\n", "hello"),
            vec![wants("POST", "/p", "hello")],
        ),
        passed(
            "GET with a body, then another",
            format!("GET /g HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"),
            vec![wants("GET", "/g", "hello"), wants("GET", "/smuggled", "")],
        ),
        case(
            "POST without length, then another",
            post("", SMUGGLED),
            Ending::Clean,
            vec![wants("POST", "/p", ""), wants("GET", "/smuggled", "")],
        ),
        case(
            "a body that ends early",
            post("Content-Length: 10\r\n", "hello"),
            Ending::Incomplete,
            Vec::new(),
        ),
    ]
}

/// Transfer codings that one reader takes for `chunked` and another does not.
fn codings() -> Vec<Case> {
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let with = |fields: &str| post(fields, &body);
    let mut cases: Vec<Case> = [
        ("coding xchunked", "Transfer-Encoding: xchunked\r\n"),
        ("coding identity", "Transfer-Encoding: identity\r\n"),
        ("coding gzip alone", "Transfer-Encoding: gzip\r\n"),
        ("chunked before gzip", "Transfer-Encoding: chunked, gzip\r\n"),
        ("chunked before identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ("chunked twice in a list", "Transfer-Encoding: chunked, chunked\r\n"),
        ("chunked twice in two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked, then rubbish", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"),
        ("chunked in quotes", "Transfer-Encoding: \"chunked\"\r\n"),
        ("chunked with a parameter", "Transfer-Encoding: chunked;q=1\r\n"),
        ("chunked with a vertical tab", "Transfer-Encoding: \x0bchunked\r\n"),
        ("chunked with a form feed", "Transfer-Encoding: chunked\x0c\r\n"),
        ("chunked with NUL", "Transfer-Encoding: chunked\0\r\n"),
        ("chunked cut by a blank", "Transfer-Encoding: chun ked\r\n"),
        ("chunked after a blank and a comma", "Transfer-Encoding: , chunked x\r\n"),
        ("empty coding", "Transfer-Encoding:\r\n"),
        ("blank before the colon of a coding", "Transfer-Encoding : chunked\r\n"),
        ("tab before the colon of a coding", "Transfer-Encoding\t: chunked\r\n"),
        ("coding in a folded line", "Transfer-Encoding:\r\n chunked\r\n"),
        ("coding behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\n"),
        ("coding with a bare CR at its end", "Transfer-Encoding: chunked\r\r\n"),
        ("coding with NUL in its name", "Transfer\0-Encoding: chunked\r\n"),
        ("coding with a byte above ASCII in its name", "Transfer-Encoding\u{e9}: chunked\r\n"),
        ("a line that begins with a blank after the request line", " Transfer-Encoding: chunked\r\n"),
    ]
    .into_iter()
    .map(|(name, fields)| {
        let fields = match name {
            "a line that begins with a blank after the request line" => fields.to_owned(),
            _ => format!("Content-Type: x\r\n{fields}"),
        };
        refused(name, with(&fields))
    })
    .collect();
    cases.push(refused("coding behind a bare LF", with("X: y\nTransfer-Encoding: chunked\r\n")));
    cases.push(refused(
        "coding in HTTP/1.0",
        format!("POST /p HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
    ));
    for (name, fields) in [
        ("CHUNKED in capitals", "Transfer-Encoding: CHUNKED\r\n"),
        ("chunked between tabs", "Transfer-Encoding:\tchunked\t\r\n"),
        ("the field in capitals", "TRANSFER-ENCODING: chunked\r\n"),
    ] {
        let raw = post(fields, "5\r\nhello\r\n0\r\n\r\n");
        cases.push(passed(name, raw, vec![wants("POST", "/p", "hello")]));
    }
    // An unknown coding under `chunked` may be passed on or refused (501), but never dropped silently.
    cases.push(either(
        "gzip under chunked",
        post("Transfer-Encoding: gzip, chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        wants("POST", "/p", "hello"),
    ));
    // Underscores: a CGI-like app would take it for the real one, so it may be dropped or passed on but never obeyed.
    cases.push(passed(
        "Transfer_Encoding with an underscore is another field",
        post("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "hello"),
        vec![wants("POST", "/p", "hello")],
    ));
    cases
}

/// The inside of a chunked body.
fn chunks() -> Vec<Case> {
    let bad = |name: &str, body: &str| refused(name, chunked(&format!("{body}{SMUGGLED}")));
    let good =
        |name: &str, body: &str, meant: &str| passed(name, chunked(body), vec![wants("POST", "/p", meant)]);
    vec![
        bad("empty chunk size", "\r\nhello\r\n0\r\n\r\n"),
        bad("chunk size that is no number", "g\r\nhello\r\n0\r\n\r\n"),
        bad("negative chunk size", "-5\r\nhello\r\n0\r\n\r\n"),
        bad("chunk size with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
        bad("chunk size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        bad("chunk size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        bad("blank before a chunk size", " 5\r\nhello\r\n0\r\n\r\n"),
        bad("chunk size that overflows 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("chunk size that ends with LF alone", "5\nhello\r\n0\r\n\r\n"),
        bad("chunk size with a bare CR", "5\rX\r\nhello\r\n0\r\n\r\n"),
        bad("chunk size with NUL", "5\0\r\nhello\r\n0\r\n\r\n"),
        bad("extension with a bare LF", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        bad("extension with a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        bad("chunk longer than its size", "5\r\nhelloworld\r\n0\r\n\r\n"),
        bad("chunk without its line end", "5\r\nhello0\r\n\r\n"),
        bad("chunk that ends with LF alone", "5\r\nhello\n0\r\n\r\n"),
        bad("chunk that ends with CR alone", "5\r\nhello\r0\r\n\r\n"),
        bad("last chunk that ends with LF alone", "5\r\nhello\r\n0\n\r\n"),
        bad("body that ends with LF alone", "5\r\nhello\r\n0\r\n\n"),
        bad("trailer without a colon", "5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
        bad("trailer with a blank before the colon", "5\r\nhello\r\n0\r\nX : y\r\n\r\n"),
        bad("trailer with a bare LF", "5\r\nhello\r\n0\r\nX: y\nZ: w\r\n\r\n"),
        bad("an extension of 80 KB", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(80 * 1024))),
        bad("trailers of 80 KB", &format!("0\r\nX: {}\r\n\r\n", "t".repeat(80 * 1024))),
        good("one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        good(
            "sizes in both cases of hexadecimal",
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "01234567890123456789",
        ),
        good("sizes with leading zeros", "0005\r\nhello\r\n000\r\n\r\n", "hello"),
        good("an extension", "5;name=value\r\nhello\r\n0;end\r\n\r\n", "hello"),
        good("a quoted extension", "5;name=\"a;b\"\r\nhello\r\n0\r\n\r\n", "hello"),
        good("an ordinary trailer", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "hello"),
        good("a body of lines that look like chunks", "9\r\n0\r\n\r\nGET \r\n0\r\n\r\n", "0\r\n\r\nGET "),
        // It must never frame anything behind us.
        either(
            "a trailer that names a length",
            chunked("5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"),
            wants("POST", "/p", "hello"),
        ),
        either("blank after a chunk size", chunked("5 \r\nhello\r\n0\r\n\r\n"), wants("POST", "/p", "hello")),
        either(
            "blank before an extension",
            chunked("5 ;a=b\r\nhello\r\n0\r\n\r\n"),
            wants("POST", "/p", "hello"),
        ),
        case(
            "a chunk of almost 2^60 bytes is waited for",
            chunked(&format!("fffffffffffffff\r\nhello\r\n0\r\n\r\n{SMUGGLED}")),
            Ending::Incomplete,
            Vec::new(),
        ),
        case("a chunk that does not come", chunked("5\r\nhel"), Ending::Incomplete, Vec::new()),
        case("an end that does not come", chunked("5\r\nhello\r\n0\r\n"), Ending::Incomplete, Vec::new()),
    ]
}

/// Field lines and line ends.
fn lines() -> Vec<Case> {
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
fn targets() -> Vec<Case> {
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
fn hosts() -> Vec<Case> {
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
fn versions() -> Vec<Case> {
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

>>>>>>> main
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
