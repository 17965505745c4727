//! What a target sees of a request's head, and what never gets past the edge.

use crate::support::*;

async fn seen_by_target(request: &str) -> Message {
    let mirror = Upstream::mirror().await;
    let edge = TestEdge::start().await;
    edge.serve(1, mirror.address).await;
    let mut client = edge.connect().await;
    client.send(request).await;
    Message { head: client.message().await.text().to_owned(), body: Vec::new() }
}

#[tokio::test]
async fn what_a_client_claims_about_itself_is_replaced() {
    let seen = seen_by_target(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Real-IP: 6.6.6.6\r\n\
         Forwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
         X-Request-Start: 1\r\nConnection: X-Forwarded-For\r\n\r\n",
    )
    .await;
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.test"));
    assert!(seen.header("x-request-start").unwrap().parse::<u64>().unwrap() > 1_600_000_000_000);
    assert!(!seen.head.contains("6.6.6.6") && !seen.head.contains("7.7.7.7") && !seen.head.contains("evil"));
    assert_eq!((seen.header("forwarded"), seen.header("x-forwarded-port")), (None, None));
}

#[tokio::test]
async fn what_concerns_one_connection_is_not_forwarded() {
    let seen = seen_by_target(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: x\r\nProxy-Authorization: x\r\nTE: gzip, trailers\r\nUpgrade: h2c\r\nAccept: a/b\r\n\r\n",
    )
    .await;
    for gone in
        ["connection", "x-private", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "te"]
    {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(seen.header("accept"), Some("a/b"));
}

#[tokio::test]
async fn the_answer_is_cleaned_too_and_carries_the_request_id() {
    let target = Upstream::start(|mut connection, _| async move {
        connection.message().await;
        connection
            .send("HTTP/1.1 200 OK\r\nConnection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nX-Public: 1\r\nContent-Length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-Request-Id: mine-1\r\n\r\n").await;
    let answer = client.message().await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert_eq!((answer.header("x-private"), answer.header("keep-alive")), (None, None));
    assert_eq!((answer.header("x-public"), answer.header("connection")), (Some("1"), None));
    assert_eq!(client.get("/").await.status(), 200, "the target's close is not the client's");
}

#[tokio::test]
async fn a_message_with_two_lengths_is_refused_and_never_forwarded() {
    let target = Upstream::saying("never").await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    for lengths in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ncontent-length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 4",
        "Content-Length: +3",
        "Content-Length: -1",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
    ] {
        let mut client = edge.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lengths}\r\n\r\n0\r\n\r\n")).await;
        let answer = String::from_utf8(client.wait_closed().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lengths}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{lengths}: {answer}");
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn equal_lengths_said_twice_are_forwarded_once() {
    let seen =
        seen_by_target("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok")
            .await;
    assert_eq!(seen.head.to_lowercase().matches("content-length").count(), 1);
}
