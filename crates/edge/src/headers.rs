//! What the edge takes out of a head and what it puts in, in both directions.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, FORWARDED, HOST, HeaderName, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use crate::limits::REQUEST_ID_BYTES_MAX;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
/// Names one request in logs, error pages and answers.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the edge says about the client to the target.
#[derive(Debug)]
pub(crate) struct ClientFacts<'a> {
    /// The client's address. Trusted proxies, once there are any, would change what is passed here.
    pub(crate) peer: IpAddr,
    /// The host as the client wrote it.
    pub(crate) authority: &'a HeaderValue,
    /// The scheme that the client used.
    pub(crate) scheme: &'static str,
    /// When the head had been read, in milliseconds since 1970.
    pub(crate) started_ms: i64,
    /// The request's id.
    pub(crate) request_id: &'a HeaderValue,
}

/// Makes a client's request head fit for the target: nothing that concerned only the client's connection, nothing the
/// client claims about itself, and what we know instead. `upgrade` is the protocol when the request asks for one.
pub(crate) fn prepare_request(
    headers: &mut HeaderMap,
    upgrade: Option<HeaderValue>,
    facts: &ClientFacts<'_>,
) {
    let takes_trailers = headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
    remove_hop_by_hop(headers);
    // The edge answers `100 Continue` itself, as soon as the target reads.
    for name in [EXPECT, PROXY_AUTHORIZATION, FORWARDED] {
        headers.remove(name);
    }
    remove_claims(headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    // The digits and dots of an address are always a valid value.
    if let Ok(peer) = HeaderValue::from_str(&facts.peer.to_string()) {
        headers.insert(X_FORWARDED_FOR, peer.clone());
        headers.insert(X_REAL_IP, peer);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(facts.scheme));
    headers.insert(X_FORWARDED_HOST, facts.authority.clone());
    headers.insert(X_REQUEST_START, HeaderValue::from(facts.started_ms));
    headers.insert(X_REQUEST_ID, facts.request_id.clone());
    headers.insert(HOST, facts.authority.clone());
}

/// Makes a target's answer head fit for the client.
pub(crate) fn prepare_answer(headers: &mut HeaderMap, request_id: HeaderValue, closing: bool) {
    remove_hop_by_hop(headers);
    headers.insert(X_REQUEST_ID, request_id);
    if closing {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Returns the protocol that a head asks to switch to, if `Connection` confirms it. Only WebSocket: behind a switch to
/// another HTTP the edge would see none of the requests.
pub(crate) fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol =
        headers.get(UPGRADE).filter(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))?;
    let confirmed = headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"));
    confirmed.then(|| protocol.clone())
}

/// Returns the client's own request id when it is short and harmless.
pub(crate) fn request_id_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    let value = headers.get(X_REQUEST_ID)?;
    let bytes = value.as_bytes();
    (!bytes.is_empty() && bytes.len() <= REQUEST_ID_BYTES_MAX && bytes.iter().all(harmless))
        .then(|| value.clone())
}

/// Returns whether an answer is an event stream, which may last for hours.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let start = value.as_bytes().get(..EVENT_STREAM.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
    })
}

/// Removes what a client may not say about itself: every `X-Forwarded-…`, and every name with an underscore, which WSGI
/// and CGI cannot tell from the same name with a dash (`X_Forwarded_For`) or from their own words (`SCRIPT_NAME`).
fn remove_claims(headers: &mut HeaderMap) {
    let is_claim =
        |name: &HeaderName| name.as_str().contains('_') || name.as_str().starts_with("x-forwarded-");
    if headers.keys().any(is_claim) {
        let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }
}

/// Removes what belongs to one connection (RFC 9110 §7.6.1), including what `Connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let usual = [b"close".as_slice(), b"keep-alive", b"upgrade"];
            if token.is_empty() || usual.iter().any(|usual| token.eq_ignore_ascii_case(usual)) {
                continue;
            }
            // What frames the message and says where it goes cannot be talked away.
            if let Ok(name) = HeaderName::from_bytes(token)
                && ![HOST, CONTENT_LENGTH, TRAILER].contains(&name)
            {
                named.push(name);
            }
        }
    }
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

fn has_token(value: &HeaderValue, wanted: &str) -> bool {
    let token =
        |part: &[u8]| part.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_vec();
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .any(|part| token(part).eq_ignore_ascii_case(wanted.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn what_connection_names_goes_but_never_the_framing() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "host, content-length"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("host", "a"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn a_client_cannot_claim_what_only_the_edge_knows() {
        let mut headers = map(&[
            ("x_forwarded_for", "6.6.6.6"),
            ("script_name", "/evil"),
            ("x-forwarded-prefix", "/p"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-request-start", "1"),
        ]);
        remove_claims(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-request-start"]);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(upgrade_of(&map(&[("upgrade", "websocket")])).is_none());
        assert!(upgrade_of(&map(&[("upgrade", "h2c"), ("connection", "upgrade")])).is_none());
        assert!(
            upgrade_of(&map(&[("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")])).is_some()
        );
    }

    #[test]
    fn a_request_id_that_could_break_a_log_is_not_taken_over() {
        assert!(request_id_of(&map(&[("x-request-id", "abc-123")])).is_some());
        assert!(request_id_of(&map(&[("x-request-id", "a b\"")])).is_none());
    }
}
