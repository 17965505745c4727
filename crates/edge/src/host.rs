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
/// else the `Host` header, of which there must be exactly one.
pub(crate) fn authority_of(parts: &Parts) -> Result<&str, HostFault> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(HostFault::Malformed);
    }
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority.as_str());
    }
    let text = first.ok_or(HostFault::Missing)?.to_str().map_err(|_| HostFault::Malformed)?.trim();
    if text.is_empty() { Err(HostFault::Missing) } else { Ok(text) }
}

/// Returns the part that the table compares. Allocates only when the client wrote capitals.
pub(crate) fn normalize(authority: &str) -> Cow<'_, str> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        // The colons of a bare IPv6 literal are inside brackets.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
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
            ("user@a.example", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(normalize(given), wanted, "{given}");
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
