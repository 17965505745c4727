//! Heads that clients send, and what a target gets of them.

use super::*;

fn read(text: &str) -> Result<(Request, String), Fault> {
    read_from(text, "9.9.9.9", &[])
}

fn read_from(text: &str, peer: &str, trusted: &[Network]) -> Result<(Request, String), Fault> {
    let mut out = Vec::new();
    let facts = ClientFacts { peer: peer.parse().unwrap(), peer_text: peer, trusted };
    let request =
        read_request(text.as_bytes(), &facts, || 0xabc, &mut out).map_err(|refusal| refusal.fault)?;
    Ok((request.expect("a whole head"), String::from_utf8(out).unwrap()))
}

#[test]
fn a_head_is_written_anew_for_the_target() {
    let (request, head) =
        read("GET /a?b HTTP/1.1\r\nhost: A.test:80\r\nCookie: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\nrest").unwrap();
    let (start, tail) = head.split_once("X-Request-Start: ").unwrap();
    assert_eq!(
        start,
        "GET /a?b HTTP/1.1\r\nHost: A.test:80\r\nCookie: x\r\nX-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Host: A.test:80\r\n"
    );
    assert!(tail.ends_with("\r\nX-Request-Id: 0000000000000abc\r\n\r\n"), "{tail}");
    assert_eq!((&head[request.authority], &head[request.path]), ("A.test:80", "/a"));
    assert!(!request.keeps_alive && request.is_repeatable && request.body.is_done());
}

#[test]
fn an_absolute_target_names_the_host() {
    let (request, head) = read("GET http://b.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    assert!(head.starts_with("GET /x HTTP/1.1\r\nHost: b.test\r\n"), "{head}");
    assert_eq!(&head[request.authority], "b.test");
    assert!(read("GET http://b.test?x HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap().1.starts_with("GET /?x "));
    assert!(read("GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().1.starts_with("GET /a?b HTTP"));
    assert!(read("GET /é?ü HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().1.starts_with("GET /%C3%A9?%C3%BC "));
    assert!(read("GET http://b.test HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap().1.starts_with("GET / "));
}

#[test]
fn what_could_lead_elsewhere_is_refused() {
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n X: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_client_cannot_claim_what_only_the_edge_knows() {
    let (_, head) = read(
        "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nSCRIPT_NAME: /evil\r\nX-Forwarded-Prefix: /p\r\n\
         Forwarded: for=6.6.6.6\r\nX-Request-Start: 1\r\nX-Request-Id: a b\r\n\r\n",
    )
    .unwrap();
    for claim in ["6.6.6.6", "SCRIPT_NAME", "Prefix", "Forwarded: ", "Start: 1\r\n", "a b"] {
        assert!(!head.contains(claim), "{claim}: {head}");
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-Host: b.test\r\nX-Forwarded-Prefix: /p\r\n\r\n";
    let (_, head) = read_from(text, "10.0.0.1", &["10.0.0.0/8".parse().unwrap()]).unwrap();
    for told in
        ["X-Forwarded-For: 1.1.1.1\r\n", "X-Real-IP: 1.1.1.1", "Proto: https", "Host: b.test", "Prefix: /p"]
    {
        assert!(head.contains(told), "{told}: {head}");
    }
    let (_, head) = read_from(text, "10.0.0.1", &[]).unwrap();
    assert!(head.contains("X-Forwarded-For: 10.0.0.1\r\n") && head.contains("Proto: http\r\n"), "{head}");
}

#[test]
fn an_upgrade_needs_both_headers_and_is_a_websocket() {
    let wants =
        |lines: &str| read(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).unwrap().0.wants_upgrade;
    assert!(!wants("Upgrade: websocket\r\n"));
    assert!(!wants("Upgrade: h2c\r\nConnection: upgrade\r\n"));
    assert!(wants("Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"));
}

#[test]
fn what_connection_names_goes_but_never_the_framing() {
    let (request, head) = read(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: host, content-length, x-secret\r\nX-Secret: 1\r\nContent-Length: 3\r\n\r\n",
    )
    .unwrap();
    assert!(
        head.contains("Host: a") && head.contains("Content-Length: 3") && !head.contains("Secret"),
        "{head}"
    );
    assert!(matches!(request.body, Body::Length(3)));
}
