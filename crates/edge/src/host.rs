//! The host of a request, as the table knows hosts: lower case, no port, no trailing dot.

use std::borrow::Cow;

/// Returns whether a text is `name`, `name:port`, `[address]` or `[address]:port`. It reaches the app, which may build
/// links from it: nothing else passes that a link could be bent with.
pub(crate) fn is_plain(text: &str) -> bool {
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
}
