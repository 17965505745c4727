//! Header fields: which ones concern the edge, and how their values are read.

use httparse::Header;

/// What a field means to the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Accept,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Expect,
    Forwarded,
    Host,
    /// `Keep-Alive`, `Proxy-Connection`, `Proxy-Authorization`: for one connection, or for us.
    Hop,
    RequestId,
    RequestStart,
    RealIp,
    Te,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    /// Another `X-Forwarded-…`.
    XForwarded,
    /// A name with an underscore, which WSGI and CGI cannot tell from the same name with a dash (`X_Forwarded_For`) or
    /// from their own words (`SCRIPT_NAME`).
    Underscored,
    /// None of the edge's business.
    Other,
}

/// Fields that `Connection` may name: each is compared with each field of the head.
const NAMED_MAX: usize = 32;
const X_FORWARDED: &[u8] = b"x-forwarded-";

/// Tells what a field is.
pub(crate) fn field_of(name: &str) -> Field {
    let known: &[(&str, Field)] = match name.len() {
        2 => &[("te", Field::Te)],
        4 => &[("host", Field::Host)],
        6 => &[("accept", Field::Accept), ("expect", Field::Expect)],
        7 => &[("upgrade", Field::Upgrade)],
        9 => &[("forwarded", Field::Forwarded), ("x-real-ip", Field::RealIp)],
        10 => &[("connection", Field::Connection), ("keep-alive", Field::Hop)],
        12 => &[("content-type", Field::ContentType), ("x-request-id", Field::RequestId)],
        14 => &[("content-length", Field::ContentLength)],
        15 => &[("x-forwarded-for", Field::XForwardedFor), ("x-request-start", Field::RequestStart)],
        16 => &[
            ("content-encoding", Field::ContentEncoding),
            ("x-forwarded-host", Field::XForwardedHost),
            ("proxy-connection", Field::Hop),
        ],
        17 => {
            &[("transfer-encoding", Field::TransferEncoding), ("x-forwarded-proto", Field::XForwardedProto)]
        }
        19 => &[("proxy-authorization", Field::Hop)],
        _ => &[],
    };
    if let Some((_, field)) = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        return *field;
    }
    let bytes = name.as_bytes();
    if bytes.contains(&b'_') {
        return Field::Underscored;
    }
    match bytes.get(..X_FORWARDED.len()) {
        Some(start) if start.eq_ignore_ascii_case(X_FORWARDED) => Field::XForwarded,
        _ => Field::Other,
    }
}

/// Returns the tokens of a list, trimmed, without empty ones.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// What all `Connection` fields of a head say.
#[derive(Debug, Default)]
pub(crate) struct ConnectionOptions<'a> {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Other fields that concern only this connection (RFC 9110 §7.6.1).
    named: Vec<&'a [u8]>,
}

impl<'a> ConnectionOptions<'a> {
    pub(crate) fn read(&mut self, value: &'a [u8]) {
        for token in tokens(value) {
            match token.len() {
                5 if token.eq_ignore_ascii_case(b"close") => self.close = true,
                10 if token.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                7 if token.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                // One too many is kept, so that it shows.
                _ if self.named.len() <= NAMED_MAX => self.named.push(token),
                _ => {}
            }
        }
    }

    /// Returns whether more fields are named than anybody has reason to.
    pub(crate) fn are_too_many(&self) -> bool {
        self.named.len() > NAMED_MAX
    }

    /// Returns whether a field that is none of the edge's business is named. What frames the message and says where it
    /// goes is the edge's business, and cannot be talked away.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.named.iter().any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Reads a `Content-Length` (RFC 9112 §6.2): digits only. What two programs could read in two ways is none.
pub(crate) fn length_of(value: &[u8]) -> Option<u64> {
    // More digits than these can overflow 64 bits.
    const DIGITS_MAX: usize = 18;
    if value.is_empty() || value.len() > DIGITS_MAX || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Writes one field.
pub(crate) fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a field as it came.
pub(crate) fn put_field(out: &mut Vec<u8>, field: &Header<'_>) {
    put(out, field.name, field.value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_known_in_any_case() {
        for (name, wanted) in [
            ("TE", Field::Te),
            ("Transfer-ENCODING", Field::TransferEncoding),
            ("X-Forwarded-Prefix", Field::XForwarded),
            ("X_Forwarded_For", Field::Underscored),
            ("script_name", Field::Underscored),
            ("Keep-Alive", Field::Hop),
            ("X-Forwarded", Field::Other),
            ("trailer", Field::Other),
        ] {
            assert_eq!(field_of(name), wanted, "{name}");
        }
    }

    #[test]
    fn a_length_is_digits_and_nothing_else() {
        assert_eq!(length_of(b"0"), Some(0));
        assert_eq!(length_of(b"000123"), Some(123));
        for bad in ["", "+3", "-1", "3, 3", "0x3", " 3", "3 ", "1_0", "1000000000000000000000"] {
            assert_eq!(length_of(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn connection_options_are_told_from_names() {
        let mut options = ConnectionOptions::default();
        options.read(b"close, X-Secret ,, Upgrade");
        assert!(options.close && options.upgrade && !options.keep_alive);
        assert!(options.names("x-secret") && !options.names("close"));
    }
}
