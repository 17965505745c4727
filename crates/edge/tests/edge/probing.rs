//! Health probes see what a request would see.

use std::time::Duration;

use trackbed_core::ports::{Edge, Probe};
use trackbed_edge::EdgeClient;

use crate::support::*;

async fn probe(upstream: &Upstream, path: Option<&str>, limit: Duration) -> Probe {
    let client = EdgeClient::new("/nonexistent");
    soon(client.probe(&target(1, upstream.address), path, "health.test", limit)).await
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_answer_is_quoted_and_the_request_is_plain() {
    let target = Upstream::start(|mut connection, _| async move {
        let request = connection.message().await;
        assert!(request.head.starts_with("GET /health?x=1 HTTP/1.1\r\n"));
        assert_eq!(request.header("host"), Some("health.test"));
        assert_eq!(request.header("user-agent"), Some("Trackbed-Health"));
        assert_eq!(request.header("connection"), Some("close"));
        let body = "b".repeat(1000);
        connection.send(format!("HTTP/1.1 503 Nope\r\nContent-Length: 1000\r\n\r\n{body}")).await;
    })
    .await;
    let seen = probe(&target, Some("/health?x=1"), LONG).await;
    assert_eq!(seen, Probe::Answered { status: 503, detail: "b".repeat(200) });
}

#[tokio::test]
async fn a_redirect_tells_where_to() {
    let target = Upstream::start(|mut connection, _| async move {
        connection.message().await;
        connection
            .send("HTTP/1.1 307 X\r\nLocation: https://health.test/\r\nContent-Length: 0\r\n\r\n")
            .await;
    })
    .await;
    let seen = probe(&target, Some("/"), LONG).await;
    assert_eq!(seen, Probe::Answered { status: 307, detail: "https://health.test/".into() });
}

#[tokio::test]
async fn the_ways_to_fail_are_told_apart() {
    let silent = Upstream::start(|mut connection, _| async move {
        connection.wait_closed().await;
    })
    .await;
    assert_eq!(probe(&silent, None, LONG).await, Probe::Answered { status: 200, detail: String::new() });
    let detail = |seen: Probe| match seen {
        Probe::Broken { detail } => detail,
        other => panic!("{other:?}"),
    };
    let late = detail(probe(&silent, Some("/"), Duration::from_millis(100)).await);
    assert!(late.contains("no answer to GET / within 100 ms"), "{late}");
    let closing = Upstream::start(|mut connection, _| async move {
        connection.message().await;
    })
    .await;
    let closed = detail(probe(&closing, Some("/"), LONG).await);
    assert!(closed.contains("closed without an answer"), "{closed}");
    let other = Upstream::start(|mut connection, _| async move {
        connection.message().await;
        connection.send("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    })
    .await;
    let garbage = detail(probe(&other, Some("/"), LONG).await);
    assert!(garbage.contains("not HTTP"), "{garbage}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = EdgeClient::new("/nonexistent");
    assert_eq!(client.probe(&target(1, nobody), Some("/"), "x", LONG).await, Probe::Refused);
}
