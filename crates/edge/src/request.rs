//! A client's request head: read, checked, and written anew for the target, without what concerned only the client's
//! connection, without what the client claims about itself, and with what the edge knows instead.

use std::io::Write;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ops::Range;

use httparse::Header;
use trackbed_core::Network;

use crate::body::Body;
use crate::fields::{ConnectionOptions, Field, field_of, length_of, put, put_field, tokens};
use crate::host;
use crate::limits::{HEADERS_MAX, REQUEST_ID_BYTES_MAX};
use crate::pages::Fault;
use crate::trust::client_of;

/// What the edge knows about a client beside what it says.
pub(crate) struct ClientFacts<'a> {
    /// Who is connected: the client, or a proxy in front of the box.
    pub(crate) peer: IpAddr,
    /// The peer's address as text.
    pub(crate) peer_text: &'a str,
    /// Proxies whose word is taken.
    pub(crate) trusted: &'a [Network],
}

/// A request whose head has been written for the target.
#[derive(Debug)]
pub(crate) struct Request {
    /// Bytes of the client's head.
    pub(crate) head_bytes: usize,
    pub(crate) body: Body,
    pub(crate) is_head: bool,
    /// May be sent again when a target closed the connection without an answer (RFC 9110 §9.2.2), having no body.
    pub(crate) is_repeatable: bool,
    pub(crate) is_http10: bool,
    /// Whether the client wants to go on with its connection.
    pub(crate) keeps_alive: bool,
    pub(crate) expects_continue: bool,
    pub(crate) wants_upgrade: bool,
    /// Whether the client is a browser.
    pub(crate) wants_page: bool,
    /// Places in the target's head.
    pub(crate) authority: Range<usize>,
    pub(crate) path: Range<usize>,
    pub(crate) id: Range<usize>,
}

/// A request that is answered by the edge itself.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) fault: Fault,
    pub(crate) wants_page: bool,
    pub(crate) is_head: bool,
}

impl Refusal {
    fn plain(fault: Fault) -> Self {
        Self { fault, wants_page: false, is_head: false }
    }
}

/// What the fields say.
#[derive(Default)]
struct Said<'a> {
    host: Option<&'a [u8]>,
    hosts: u32,
    options: ConnectionOptions<'a>,
    length: Option<&'a [u8]>,
    lengths_differ: bool,
    encoding: Option<&'a [u8]>,
    encodings: u32,
    accept: Option<&'a [u8]>,
    expects_continue: bool,
    is_websocket: bool,
    id: Option<&'a [u8]>,
    forwarded_for: Vec<&'a [u8]>,
    forwarded_host: Option<&'a [u8]>,
    forwarded_proto: Option<&'a [u8]>,
}

impl<'a> Said<'a> {
    fn note(&mut self, field: Field, value: &'a [u8]) {
        match field {
            Field::Accept => self.accept = Some(value),
            Field::Connection => self.options.read(value),
            Field::ContentLength => {
                self.lengths_differ |= self.length.is_some_and(|length| length != value);
                self.length = Some(value);
            }
            Field::Expect => self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            Field::Host => {
                self.hosts += 1;
                self.host = Some(value);
            }
            Field::RequestId => self.id = Some(value),
            Field::TransferEncoding => {
                self.encodings += 1;
                self.encoding = Some(value);
            }
            Field::Upgrade => self.is_websocket |= value.eq_ignore_ascii_case(b"websocket"),
            Field::XForwardedFor => self.forwarded_for.push(value),
            Field::XForwardedHost => self.forwarded_host = Some(value),
            Field::XForwardedProto => self.forwarded_proto = Some(value),
            _ => {}
        }
    }

    /// Tells where the body ends.
    fn body(&self, is_http10: bool) -> Result<Body, Fault> {
        match (self.encoding, self.length) {
            (None, None) => Ok(Body::NONE),
            (Some(_), Some(_)) => Err(Fault::TwoLengths),
            (Some(_), None) if is_http10 => Err(Fault::Malformed("HTTP/1.0 has no Transfer-Encoding")),
            (Some(encoding), None) if self.encodings == 1 && encoding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Body::chunked())
            }
            (Some(_), None) => Err(Fault::Malformed("the only Transfer-Encoding is chunked")),
            (None, Some(_)) if self.lengths_differ => Err(Fault::TwoLengths),
            (None, Some(length)) => length_of(length)
                .map(Body::Length)
                .ok_or(Fault::Malformed("Content-Length is not a number of bytes")),
        }
    }
}

/// Reads a head from the beginning of `bytes` and writes it for the target into `out`. None when it is not whole yet.
///
/// # Errors
/// When the request must not be forwarded.
pub(crate) fn read_request(
    bytes: &[u8],
    facts: &ClientFacts<'_>,
    new_id: impl FnOnce() -> u64,
    out: &mut Vec<u8>,
) -> Result<Option<Request>, Box<Refusal>> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let head_bytes = match parsed.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Box::new(Refusal::plain(fault_of(error)))),
    };
    if has_bare_line_end(&bytes[..head_bytes], 0) {
        return Err(Box::new(Refusal::plain(Fault::BareLineEnd)));
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Ok(None) };
    // A fragment is the client's own business and has no place in a request (RFC 9110 §7.1).
    let target = target.split('#').next().unwrap_or_default();
    let is_http10 = parsed.version == Some(0);
    let mut fields = [Field::Other; HEADERS_MAX];
    let mut said = Said::default();
    for (field, header) in fields.iter_mut().zip(parsed.headers.iter()) {
        *field = field_of(header.name);
        said.note(*field, header.value);
    }
    if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        // Methods have a case (RFC 9110 §9.1); an app that ignores it would answer `head` as HEAD, and we would not.
        return Err(Box::new(Refusal::plain(Fault::Malformed("a method is written in capitals"))));
    }
    if said.options.are_too_many() {
        return Err(Box::new(Refusal::plain(Fault::Malformed("Connection names too many fields"))));
    }
    let (is_head, wants_page) = (method == "HEAD", wants_page(said.accept));
    let refuse = |fault| Box::new(Refusal { fault, wants_page, is_head });
    if method == "CONNECT" {
        return Err(refuse(Fault::Connect));
    }
    let body = said.body(is_http10).map_err(refuse)?;
    let (authority, target) = place_of(method, target, &said, is_http10).map_err(refuse)?;
    let is_trusted = facts.trusted.iter().any(|network| network.contains(facts.peer));
    let wants_upgrade = said.is_websocket && said.options.upgrade && !is_http10;

    out.clear();
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    let start = out.len();
    put_target(out, target);
    let path = start..out.len();
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    let authority = put_marked(out, authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    put_others(out, parsed.headers, &fields, &said.options, is_trusted);
    match &body {
        Body::Chunked(_) => put(out, "Transfer-Encoding", b"chunked"),
        _ => {
            if let Some(length) = said.length {
                put(out, "Content-Length", length);
            }
        }
    }
    if wants_upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: websocket\r\n");
    }
    put_client(out, facts, &said, is_trusted, authority.clone());
    out.extend_from_slice(b"X-Request-Id: ");
    let id = match said.id.filter(|id| is_harmless_id(id)) {
        Some(id) => put_marked(out, id),
        None => put_marked(out, &hex(new_id())),
    };
    out.extend_from_slice(b"\r\n\r\n");
    let query = out[path.clone()].iter().position(|byte| *byte == b'?');
    let path = path.start..query.map_or(path.end, |query| path.start + query);
    Ok(Some(Request {
        head_bytes,
        is_repeatable: matches!(method, "GET" | "HEAD" | "OPTIONS") && body.is_done(),
        body,
        is_head,
        is_http10,
        keeps_alive: if is_http10 { said.options.keep_alive } else { !said.options.close },
        expects_continue: said.expects_continue && !is_http10,
        wants_upgrade,
        wants_page,
        authority,
        path,
        id,
    }))
}

fn fault_of(error: httparse::Error) -> Fault {
    match error {
        httparse::Error::TooManyHeaders => Fault::HeadTooLarge,
        httparse::Error::Version => Fault::Version,
        httparse::Error::HeaderName => Fault::Malformed("a header name is not one"),
        httparse::Error::HeaderValue => Fault::Malformed("a header value has control characters"),
        _ => Fault::Malformed("the head is not HTTP/1.1"),
    }
}

/// Returns the host as the client wrote it, and the target in the form for an origin server (RFC 9112 §3.2).
fn place_of<'a>(
    method: &str,
    target: &'a str,
    said: &Said<'a>,
    is_http10: bool,
) -> Result<(&'a str, &'a str), Fault> {
    if said.hosts > 1 {
        return Err(Fault::BadHost);
    }
    let own = said.host.map(|host| std::str::from_utf8(host).map_err(|_| Fault::BadHost)).transpose()?;
    let checked =
        |authority: &'a str| if host::is_plain(authority) { Ok(authority) } else { Err(Fault::BadHost) };
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((checked(own.ok_or(Fault::BadHost)?)?, target));
    }
    if own.is_none() && !is_http10 {
        // Required even where the target names the host (RFC 9112 §3.2).
        return Err(Fault::BadHost);
    }
    let scheme_end = target.find("://").ok_or(Fault::Malformed("the target is not a path"))?;
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Fault::Malformed("the target's scheme is not http"));
    }
    let rest = &target[scheme_end + 3..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    // The target's own host wins over the field (RFC 9112 §3.2.2).
    let (authority, path) = rest.split_at(end);
    // A target has a path, be it empty; a request for a server has at least a slash (RFC 9112 §3.2.1).
    Ok((checked(authority)?, if path.is_empty() { "/" } else { path }))
}

/// Writes the target. Bytes that are not ASCII have no place in one (RFC 3986 §2.1): clients that send them mean UTF-8,
/// and are helped by the form that every program behind the edge understands.
fn put_target(out: &mut Vec<u8>, target: &str) {
    if target.starts_with('?') {
        out.push(b'/');
    }
    if target.is_ascii() {
        return out.extend_from_slice(target.as_bytes());
    }
    for byte in target.bytes() {
        match byte {
            0x80.. => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => out.push(byte),
        }
    }
}

/// Returns whether a line of a head ends with a line feed alone, from byte `from` on: programs differ on whether that ends
/// a line, and such a difference hides requests.
pub(crate) fn has_bare_line_end(head: &[u8], from: usize) -> bool {
    memchr::memchr_iter(b'\n', &head[from..]).any(|at| from + at == 0 || head[from + at - 1] != b'\r')
}

/// Returns whether there is an empty line.
pub(crate) fn ends_head(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| {
        let rest = &bytes[at + 1..];
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    })
}

/// Writes the fields that pass as they are.
fn put_others(
    out: &mut Vec<u8>,
    headers: &[Header<'_>],
    fields: &[Field],
    options: &ConnectionOptions<'_>,
    is_trusted: bool,
) {
    for (header, field) in headers.iter().zip(fields) {
        let passes = match field {
            Field::Accept | Field::ContentEncoding | Field::ContentType | Field::Other => {
                !options.names(header.name)
            }
            Field::XForwarded => is_trusted,
            _ => false,
        };
        if passes {
            put_field(out, header);
        }
    }
}

/// Writes what the edge knows about the client.
fn put_client(
    out: &mut Vec<u8>,
    facts: &ClientFacts<'_>,
    said: &Said<'_>,
    is_trusted: bool,
    authority: Range<usize>,
) {
    let told;
    let client = if is_trusted && !said.forwarded_for.is_empty() {
        told = client_of(facts.peer, &said.forwarded_for, facts.trusted).to_string();
        told.as_str()
    } else {
        facts.peer_text
    };
    put(out, "X-Forwarded-For", client.as_bytes());
    put(out, "X-Real-IP", client.as_bytes());
    let is_https = is_trusted
        && said.forwarded_proto.is_some_and(|proto| {
            // Some proxies name the scheme of a WebSocket.
            proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
        });
    put(out, "X-Forwarded-Proto", if is_https { b"https" } else { b"http" });
    let told_host =
        said.forwarded_host.filter(|host| is_trusted && std::str::from_utf8(host).is_ok_and(host::is_plain));
    out.extend_from_slice(b"X-Forwarded-Host: ");
    match told_host {
        Some(host) => out.extend_from_slice(host),
        None => out.extend_from_within(authority),
    }
    // Writing into a vector cannot fail.
    let _ = write!(out, "\r\nX-Request-Start: {}\r\n", trackbed_stdx::clock::now_ms());
}

fn put_marked(out: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    let start = out.len();
    out.extend_from_slice(bytes);
    start..out.len()
}

/// Returns whether a client's own request id is short and breaks no log.
fn is_harmless_id(id: &[u8]) -> bool {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.iter().all(harmless)
}

pub(crate) fn hex(id: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|place| DIGITS[usize::try_from((id >> (60 - 4 * place)) & 15).unwrap_or_default()])
}

/// Returns whether the client is a browser: it names HTML, and not after JSON.
fn wants_page(accept: Option<&[u8]>) -> bool {
    let first = tokens(accept.unwrap_or_default()).find_map(|token| {
        if token.starts_with(b"text/html") {
            return Some(true);
        }
        token.starts_with(b"application/json").then_some(false)
    });
    first.unwrap_or(false)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
