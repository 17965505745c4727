//! A target's answer head: read, and written anew for the client.

use std::mem::MaybeUninit;

use crate::body::Body;
use crate::fields::{ConnectionOptions, Field, field_of, length_of, put, put_field};
use crate::limits::HEADERS_MAX;

/// What the client's side needs to know to answer it.
pub(crate) struct Asked<'a> {
    pub(crate) is_head: bool,
    pub(crate) is_http10: bool,
    /// Whether the client's connection goes on after this answer, as far as the request and the edge are concerned.
    pub(crate) keeps_alive: bool,
    pub(crate) wants_upgrade: bool,
    pub(crate) id: &'a [u8],
}

/// A head that has been written for the client.
#[derive(Debug)]
pub(crate) struct Response {
    /// Bytes of the target's head.
    pub(crate) head_bytes: usize,
    pub(crate) status: u16,
    pub(crate) body: Body,
    pub(crate) recoding: Recoding,
    /// Whether the target's connection can take another request after this answer.
    pub(crate) reusable: bool,
    /// Whether the client's connection goes on.
    pub(crate) keeps_alive: bool,
    pub(crate) is_event_stream: bool,
    pub(crate) is_compressed: bool,
}

/// What has to happen to a body on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recoding {
    /// Nothing.
    Verbatim,
    /// It ends with its connection; the client gets chunks, and can go on with its own.
    IntoChunks,
    /// It has chunks, which an HTTP/1.0 client does not know.
    OutOfChunks,
}

/// The answer cannot be understood, or must not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not HTTP/1.1")]
pub(crate) struct BadAnswer;

/// Reads a head from the beginning of `bytes` and writes it for the client into `out`. None when it is not whole yet.
///
/// # Errors
/// When it is none, or says in two ways where its body ends.
pub(crate) fn read_response(
    bytes: &[u8],
    asked: &Asked<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<Response>, BadAnswer> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let head_bytes = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut headers) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadAnswer),
    };
    let status = parsed.code.filter(|status| *status >= 100).ok_or(BadAnswer)?;
    let mut fields = [Field::Other; HEADERS_MAX];
    let mut options = ConnectionOptions::default();
    let (mut length, mut encoding, mut encodings) = (None, None, 0);
    let (mut is_event_stream, mut is_compressed) = (false, false);
    for (field, header) in fields.iter_mut().zip(parsed.headers.iter()) {
        *field = field_of(header.name);
        match field {
            Field::Connection => options.read(header.value),
            Field::ContentLength => {
                let said = length_of(header.value).ok_or(BadAnswer)?;
                if length.is_some_and(|length| length != said) {
                    return Err(BadAnswer);
                }
                length = Some(said);
            }
            Field::TransferEncoding => {
                encodings += 1;
                encoding = Some(header.value);
            }
            Field::ContentType => is_event_stream = is_event_stream_type(header.value),
            Field::ContentEncoding => is_compressed = !header.value.eq_ignore_ascii_case(b"identity"),
            _ => {}
        }
    }
    let is_chunked = match encoding {
        Some(encoding) if encodings == 1 && encoding.eq_ignore_ascii_case(b"chunked") => true,
        Some(_) => return Err(BadAnswer),
        None => false,
    };
    let has_no_body = asked.is_head || status < 200 || status == 204 || status == 304;
    let body = match (is_chunked, length) {
        _ if has_no_body => Body::NONE,
        (true, _) => Body::chunked(),
        (false, Some(length)) => Body::Length(length),
        (false, None) => Body::UntilClose,
    };
    let recoding = match &body {
        Body::UntilClose if !asked.is_http10 => Recoding::IntoChunks,
        Body::Chunked(_) if asked.is_http10 => Recoding::OutOfChunks,
        _ => Recoding::Verbatim,
    };
    let ends_with_connection = asked.is_http10 && matches!(body, Body::UntilClose | Body::Chunked(_));
    let keeps_alive = asked.keeps_alive && !ends_with_connection;
    // Two lengths are a program that is wrong about one of them.
    let has_two_lengths = is_chunked && length.is_some();
    let reusable =
        parsed.version == Some(1) && !options.close && !matches!(body, Body::UntilClose) && !has_two_lengths;
    let switches = status == 101 && asked.wants_upgrade;

    put_status_line(out, status, parsed.reason.unwrap_or_default());
    for (header, field) in parsed.headers.iter().zip(&fields) {
        let passes = match field {
            Field::Connection | Field::Hop | Field::Te | Field::TransferEncoding | Field::RequestId => false,
            Field::Upgrade => switches,
            // With chunks there is no length, and without a body by its status neither.
            Field::ContentLength => {
                !is_chunked && !matches!(status, ..200 | 204 | 304) && length.take().is_some()
            }
            Field::Underscored | Field::Other => !options.names(header.name),
            _ => true,
        };
        if passes {
            put_field(out, header);
        }
    }
    let is_recoded = recoding == Recoding::IntoChunks;
    if is_recoded || (is_chunked && !asked.is_http10 && !matches!(status, ..200 | 204 | 304)) {
        put(out, "Transfer-Encoding", b"chunked");
    }
    put(out, "X-Request-Id", asked.id);
    match (switches, keeps_alive) {
        (true, _) => put(out, "Connection", b"upgrade"),
        (false, false) if status >= 200 => put(out, "Connection", b"close"),
        (false, true) if asked.is_http10 => put(out, "Connection", b"keep-alive"),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(Response {
        head_bytes,
        status,
        body,
        recoding,
        reusable,
        keeps_alive,
        is_event_stream,
        is_compressed,
    }))
}

/// Writes a status line.
pub(crate) fn put_status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(
        &[100, 10, 1].map(|place| b'0' + u8::try_from(status / place % 10).unwrap_or_default()),
    );
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Returns whether a content type is that of an event stream, which may last for hours.
fn is_event_stream_type(value: &[u8]) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    value.get(..EVENT_STREAM.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked<'static> {
        Asked { is_head: false, is_http10: false, keeps_alive: true, wants_upgrade: false, id: b"id-1" }
    }

    fn read(text: &str, asked: &Asked<'_>) -> Result<(Response, String), BadAnswer> {
        let mut out = Vec::new();
        let response = read_response(text.as_bytes(), asked, &mut out)?.expect("a whole head");
        Ok((response, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn a_head_is_cleaned_for_the_client() {
        let (response, head) = read(
            "HTTP/1.1 200 OK\r\nConnection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: x\r\nSet-Cookie: a\r\n\
             Set-Cookie: b\r\nX-Request-Id: theirs\r\nContent-Length: 2\r\n\r\nok",
            &asked(),
        )
        .unwrap();
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\nX-Request-Id: id-1\r\n\r\n"
        );
        assert!(!response.reusable && response.keeps_alive);
    }

    #[test]
    fn the_end_of_a_body_is_known_from_status_method_and_fields() {
        let body = |text: &str, asked: &Asked<'_>| format!("{:?}", read(text, asked).unwrap().0.body);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(body(chunked, &asked()).starts_with("Chunked"));
        assert_eq!(body(chunked, &Asked { is_head: true, ..asked() }), "Length(0)");
        assert_eq!(body("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", &asked()), "Length(0)");
        assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n", &asked()), "Length(0)");
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", &asked()), "Length(9)");
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\n", &asked()), "UntilClose");
    }

    #[test]
    fn an_answer_that_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "hello\r\n\r\n",
        ] {
            assert!(read(bad, &asked()).is_err(), "{bad:?}");
        }
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (response, head) = read(both, &asked()).unwrap();
        assert!(!response.reusable && !head.contains("Content-Length"), "{head}");
    }

    #[test]
    fn an_old_client_gets_what_it_understands() {
        let old = Asked { is_http10: true, ..asked() };
        let (response, head) = read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &old).unwrap();
        assert_eq!(response.recoding, Recoding::OutOfChunks);
        assert!(
            !response.keeps_alive && head.contains("Connection: close") && !head.contains("chunked"),
            "{head}"
        );
        let (response, head) = read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", &old).unwrap();
        assert!(response.keeps_alive && head.contains("Connection: keep-alive"), "{head}");
        let (_, head) = read("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", &asked()).unwrap();
        assert!(!head.contains("Content-Length"), "{head}");
    }
}
