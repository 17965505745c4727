//! The host of a request, as the table knows hosts: lower case, no port, no trailing dot.

use std::borrow::Cow;

use http::header::HOST;
use http::request::Parts;

/// Why a request names no usable host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostFault {
    /// There is none.
    Missing,
    /// There is more than one, or it is not text.
    Malformed,
}

/// Returns the host as the client wrote it, port included: the target's authority when it has one (RFC 9112 §3.2.2),
/// else the `Host` header, of which there must be exactly one. It reaches the app, which may build links from it: only a
/// name or bracketed address and a port pass, nothing that a link could be bent with.
pub(crate) fn authority_of(parts: &Parts) -> Result<&str, HostFault> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(HostFault::Malformed);
    }
    let text = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => first.ok_or(HostFault::Missing)?.to_str().map_err(|_| HostFault::Malformed)?.trim(),
    };
    match text {
        "" => Err(HostFault::Missing),
        text if is_plain(text) => Ok(text),
        _ => Err(HostFault::Malformed),
    }
}

/// Returns whether a text is `name`, `name:port`, `[address]` or `[address]:port`.
fn is_plain(text: &str) -> bool {
    let (name, port) = split_port(text);
    let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
    };
    is_name && is_port && !name.is_empty()
}

/// The colons of a bare IPv6 literal are inside brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    }
}

/// Returns the part that the table compares. Allocates only when the client wrote capitals.
pub(crate) fn normalize(authority: &str) -> Cow<'_, str> {
    let (host, _) = split_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_without_case_port_and_dot() {
        for (given, wanted) in [
            ("a.example", "a.example"),
            ("A.Example:8080", "a.example"),
            ("a.example.", "a.example"),
            ("a.example.:80", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(normalize(given), wanted, "{given}");
        }
    }

    #[test]
    fn a_host_that_could_bend_a_link_is_a_fault() {
        for bad in
            ["evil.com/x?@a.example", "u:p@a.example", "a.example:80/x", "a\"b", "a b", ":80", "[::1", "[x]"]
        {
            assert!(!is_plain(bad), "{bad}");
        }
        for good in ["a_b.example", "a.example.", "a:", "127.0.0.1:8080", "[::1]:80"] {
            assert!(is_plain(good), "{good}");
        }
    }

    #[test]
    fn two_hosts_or_none_are_faults() {
        let parts = |hosts: &[&str]| {
            let mut request = http::Request::builder().uri("/");
            for host in hosts {
                request = request.header(HOST, *host);
            }
            request.body(()).unwrap().into_parts().0
        };
        assert_eq!(authority_of(&parts(&[])), Err(HostFault::Missing));
        assert_eq!(authority_of(&parts(&["a", "b"])), Err(HostFault::Malformed));
        assert_eq!(authority_of(&parts(&["a:1"])), Ok("a:1"));
    }
}
