//! Cases of our own about where a body ends: lengths, codings, chunks.

use super::judge::{Case, Ending};
use super::own::{SMUGGLED, case, chunked, either, passed, post, refused, wants};

/// Lengths, and lengths beside codings.
pub(super) fn framing() -> Vec<Case> {
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
pub(super) fn codings() -> Vec<Case> {
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
pub(super) fn chunks() -> Vec<Case> {
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
