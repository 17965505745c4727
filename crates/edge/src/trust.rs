//! What proxies in front of the box say about their clients.

use std::net::IpAddr;

use trackbed_core::Network;

/// Reads `X-Forwarded-For` from the right: each trusted proxy wrote down who spoke to it, so the client is the last
/// address that is not one of them. What stands further left was said by the client itself.
pub(crate) fn client_of(peer: IpAddr, forwarded_for: &[&[u8]], trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    let hops = forwarded_for.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    for hop in hops {
        if !is_trusted(client) {
            break;
        }
        let text = std::str::from_utf8(hop.trim_ascii()).unwrap_or_default();
        match text.parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            // Not an address: whoever wrote it is the last one known.
            Err(_) => break,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let client = |peer: &str, values: &[&[u8]]| client_of(ip(peer), values, &trusted).to_string();
        assert_eq!(client("9.9.9.9", &[b"1.1.1.1"]), "9.9.9.9", "not a proxy of ours");
        assert_eq!(
            client("10.0.0.1", &[b"6.6.6.6, 1.1.1.1"]),
            "1.1.1.1",
            "the left one is the client's own word"
        );
        assert_eq!(client("10.0.0.1", &[b"6.6.6.6", b"1.1.1.1, 10.0.0.2"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &[b"10.0.0.3"]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[b"evil"]), "10.0.0.1");
    }
}
