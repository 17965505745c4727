//! Clients that send too much or too slowly.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::support::*;

#[tokio::test]
async fn a_head_that_is_too_large_is_a_431() {
    let target = Upstream::saying("never").await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    let filler = "x".repeat(70 * 1024);
    // The edge may answer and close before all of it is written.
    let _ = client
        .stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {filler}\r\n\r\n").as_bytes())
        .await;
    let head = client.read_to("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_large_head_within_the_limit_passes() {
    let mirror = Upstream::mirror().await;
    let edge = TestEdge::start().await;
    edge.serve(1, mirror.address).await;
    let mut client = edge.connect().await;
    let filler = "x".repeat(40 * 1024);
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {filler}\r\n\r\n")).await;
    assert!(client.message().await.text().contains(&filler));
}

#[tokio::test]
async fn a_client_that_trickles_its_head_is_cut_and_an_idle_one_is_not() {
    let target = Upstream::saying("hello").await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut idle = edge.connect().await;
    idle.get("/").await;
    let slow = edge.connect().await;
    let (mut reader, mut writer) = slow.stream.into_split();
    let began = Instant::now();
    let trickle = tokio::spawn(async move {
        writer.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ").await.unwrap();
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let mut byte = [0];
    let read = soon(tokio::io::AsyncReadExt::read(&mut reader, &mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(14), "{took:?}");
    trickle.abort();
    assert_eq!(idle.get("/").await.text(), "hello", "idle for ten seconds is fine");
}

#[tokio::test]
async fn one_source_gets_its_share_of_connections_and_no_more() {
    let target = Upstream::saying("hello").await;
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let edge = TestEdge::start_so(folder, |config| config.connections_per_source = 3).await;
    edge.serve(1, target.address).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = edge.connect().await;
        assert_eq!(client.get("/").await.text(), "hello");
        held.push(client);
    }
    let mut refused = edge.connect().await;
    assert!(refused.wait_closed().await.is_empty());
    held.pop();
    until(|| async {
        let mut client = edge.connect().await;
        let _ = client.stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        String::from_utf8_lossy(&client.read_once().await).contains("hello")
    })
    .await;
}

#[tokio::test]
async fn a_proxy_in_front_is_believed_only_when_it_is_named() {
    let mirror = Upstream::mirror().await;
    let ask = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n";
    for (trusted, wanted) in
        [(vec![], ("127.0.0.1", "http")), (vec!["127.0.0.0/8".parse().unwrap()], ("1.2.3.4", "https"))]
    {
        let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let edge = TestEdge::start_in(folder).await;
        let mut table = table(1, &[("a.test", serving(1, mirror.address))]);
        table.trusted_proxies = trusted;
        trackbed_core::ports::Edge::apply(&*edge.client, &table).await.unwrap();
        let mut client = edge.connect().await;
        client.send(ask).await;
        let seen = Message { head: client.message().await.text().to_owned(), body: Vec::new() };
        let told = (seen.header("x-forwarded-for").unwrap(), seen.header("x-forwarded-proto").unwrap());
        assert_eq!(told, wanted, "{}", seen.head);
    }
}
