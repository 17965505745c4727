//! What switches protocols passes through untouched.

use tokio::io::AsyncWriteExt;

use crate::support::*;

async fn switching_echo() -> Upstream {
    Upstream::start(|mut connection, _| async move {
        let request = connection.message().await;
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.header("connection"), Some("upgrade"));
        assert_eq!(request.header("sec-websocket-key"), Some("abc"));
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: xyz\r\n\r\nhello,")
            .await;
        loop {
            let bytes = connection.read_once().await;
            if bytes.is_empty() {
                connection.send("bye").await;
                return;
            }
            connection.send(bytes).await;
        }
    })
    .await
}

const SWITCH: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Key: abc\r\n\r\n";

#[tokio::test]
async fn a_websocket_echoes_and_each_side_may_finish_first() {
    let echo = switching_echo().await;
    let edge = TestEdge::start().await;
    edge.serve(1, echo.address).await;
    let mut client = edge.connect().await;
    client.send(SWITCH).await;
    let head = client.read_to("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Sec-WebSocket-Accept: xyz"), "{head}");
    assert_eq!(client.read_exact(6).await, b"hello,");
    for number in 0..50 {
        let frame = format!("\u{1}frame {number}");
        client.send(&frame).await;
        assert_eq!(client.read_exact(frame.len()).await, frame.as_bytes());
    }
    let stats = edge.stats().await.targets[instance(1).as_str()];
    assert_eq!((stats.in_flight, stats.streams), (1, 1));
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.wait_closed().await, b"bye", "what comes after our end still arrives");
    until(|| async { edge.in_flight(1).await == 0 }).await;
}

#[tokio::test]
async fn a_websocket_outlives_its_route_until_it_is_cut() {
    let echo = switching_echo().await;
    let edge = TestEdge::start().await;
    edge.serve(1, echo.address).await;
    let mut client = edge.connect().await;
    client.send(SWITCH).await;
    client.read_to("hello,").await;
    edge.apply(&[]).await;
    client.send("still there?").await;
    assert_eq!(client.read_exact(12).await, b"still there?");
    let stats = edge.stats().await;
    assert_eq!(stats.targets[instance(1).as_str()].in_flight, 1, "it stays in the figures");
    trackbed_core::ports::Edge::cut(&*edge.client, &instance(1)).await.unwrap();
    client.wait_closed().await;
    until(|| async { edge.stats().await.targets.is_empty() }).await;
}

#[tokio::test]
async fn a_target_may_decline_to_switch() {
    let target = Upstream::saying("plain").await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client.send(SWITCH).await;
        assert_eq!(client.message().await.text(), "plain");
    }
}
