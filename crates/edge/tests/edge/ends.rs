//! Streams that are asked to end: at the end of an event, between two frames, one after the other.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use trackbed_core::ports::Edge;

use crate::support::*;

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const SWITCH: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Sends `first` to every client, `rest` once the test says so, and then nothing for ever.
async fn stream_of(head: &'static str, first: &'static str, rest: watch::Receiver<&'static str>) -> Upstream {
    Upstream::start(move |mut connection, _| {
        let mut rest = rest.clone();
        async move {
            connection.message().await;
            connection.send(format!("{head}{first}")).await;
            let more = *rest.wait_for(|more| !more.is_empty()).await.unwrap();
            connection.send(more).await;
            connection.wait_closed().await;
        }
    })
    .await
}

async fn open_stream(edge: &TestEdge, version: &str) -> Client {
    let mut client = edge.connect().await;
    client.send(format!("GET /events HTTP/{version}\r\nHost: a.test\r\n\r\n")).await;
    client.read_to("\r\n\r\n").await;
    client
}

#[tokio::test]
async fn an_event_stream_ends_with_a_hint_and_its_client_may_go_on() {
    let (_more, rest) = watch::channel("");
    let target = stream_of(CHUNKED, "9\r\ndata: a\n\n\r\n", rest).await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = open_stream(&edge, "1.1").await;
    assert_eq!(client.read_to("\n\n\r\n").await, "9\r\ndata: a\n\n\r\n");
    edge.client.end_streams(&instance(1), Duration::ZERO).await.unwrap();
    let hint = client.read_to("0\r\n\r\n").await;
    let retry = hint.split("retry: ").nth(1).unwrap().split('\n').next().unwrap();
    let retry: u64 = retry.parse().unwrap();
    assert!((500..=4000).contains(&retry), "{hint}");
    assert!(hint.contains("\n\n\r\n0\r\n\r\n"), "{hint}");
    until(|| async { edge.in_flight(1).await == 0 }).await;
    client.send("GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(
        client.read_to("\r\n\r\n").await.starts_with("HTTP/1.1 200 "),
        "the connection is as good as before"
    );
    let answers = edge.client.answers().await.unwrap().into_values().next().unwrap();
    assert_eq!((answers.ok, answers.server_errors, answers.left), (1, 0, 0));
}

#[tokio::test]
async fn a_stream_in_the_middle_of_an_event_waits_for_its_end() {
    let (more, rest) = watch::channel("");
    let target = stream_of(CHUNKED, "8\r\ndata: a\n\r\n", rest).await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = open_stream(&edge, "1.1").await;
    client.read_to("data: a\n\r\n").await;
    edge.client.end_streams(&instance(1), Duration::ZERO).await.unwrap();
    more.send("9\r\ndata: b\n\n\r\n").unwrap();
    let seen = client.read_to("0\r\n\r\n").await;
    assert!(seen.starts_with("9\r\ndata: b\n\n\r\n") && seen.contains("retry: "), "{seen}");
}

#[tokio::test]
async fn a_stream_that_never_ends_its_event_is_broken_off_after_a_second() {
    let (_more, rest) = watch::channel("");
    let target = stream_of(CHUNKED, "8\r\ndata: a\n\r\n", rest).await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = open_stream(&edge, "1.1").await;
    client.read_to("data: a\n\r\n").await;
    edge.client.end_streams(&instance(1), Duration::ZERO).await.unwrap();
    assert!(client.wait_closed().await.is_empty(), "nothing that looks like an end");
}

#[tokio::test]
async fn streams_end_for_clients_and_apps_of_every_age() {
    let (_more, rest) = watch::channel("");
    let old_app = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let target = stream_of(old_app, "data: a\n\n", rest.clone()).await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = open_stream(&edge, "1.1").await;
    client.read_to("data: a\n\n\r\n").await;
    edge.client.end_streams(&instance(1), Duration::ZERO).await.unwrap();
    assert!(client.read_to("0\r\n\r\n").await.contains("retry: "));
    let target = stream_of(CHUNKED, "9\r\ndata: a\n\n\r\n", rest).await;
    edge.serve(2, target.address).await;
    let mut client = open_stream(&edge, "1.0").await;
    client.read_to("data: a\n\n").await;
    edge.client.end_streams(&instance(2), Duration::ZERO).await.unwrap();
    let seen = String::from_utf8(client.wait_closed().await).unwrap();
    assert!(seen.starts_with("retry: ") && seen.ends_with("\n\n"), "no chunks for HTTP/1.0: {seen:?}");
}

#[tokio::test]
async fn streams_end_one_after_the_other() {
    let (_more, rest) = watch::channel("");
    let target = stream_of(CHUNKED, "9\r\ndata: a\n\n\r\n", rest).await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = open_stream(&edge, "1.1").await;
        client.read_to("\n\n\r\n").await;
        clients.push(client);
    }
    let began = Instant::now();
    edge.client.end_streams(&instance(1), Duration::from_secs(2)).await.unwrap();
    let mut ends = Vec::new();
    for mut client in clients {
        ends.push(tokio::spawn(async move {
            client.read_to("0\r\n\r\n").await;
            began.elapsed()
        }));
    }
    let mut times = Vec::new();
    for end in ends {
        times.push(end.await.unwrap());
    }
    times.sort_unstable();
    assert!(times[9] - times[0] > Duration::from_secs(1), "{times:?}");
}

#[tokio::test]
async fn a_websocket_gets_a_close_frame_on_both_sides() {
    let (close_seen, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let target = Upstream::start(move |mut connection, _| {
        let close_seen = close_seen.clone();
        async move {
            connection.message().await;
            connection.send(SWITCHED).await;
            connection.send([0x81, 2, b'h', b'i']).await;
            close_seen.send(connection.wait_closed().await).unwrap();
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send(SWITCH).await;
    client.read_to("\r\n\r\n").await;
    assert_eq!(client.read_exact(4).await, [0x81, 2, b'h', b'i']);
    let stats = edge.stats().await.targets[instance(1).as_str()];
    assert_eq!((stats.streams, stats.websockets), (1, 1));
    edge.client.end_streams(&instance(1), Duration::ZERO).await.unwrap();
    // 1012, "service restart".
    assert_eq!(client.read_exact(4).await, [0x88, 2, 0x03, 0xf4]);
    // A well-behaved client answers with a close frame of its own.
    client.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]).await;
    assert!(client.wait_closed().await.is_empty());
    let seen = soon(seen.recv()).await.unwrap();
    assert_eq!(seen, [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4], "the app gets a close frame too, once");
}

#[tokio::test]
async fn a_websocket_in_the_middle_of_a_frame_waits_for_its_end() {
    let (more, mut go) = watch::channel(false);
    let target = Upstream::start(move |mut connection, _| {
        let mut go = more.subscribe();
        async move {
            connection.message().await;
            connection.send(SWITCHED).await;
            connection.send([0x81, 4, b'h', b'a']).await;
            go.wait_for(|go| *go).await.unwrap();
            connection.send([b'l', b'f', 0x81, 1, b'x']).await;
            connection.wait_closed().await;
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send(SWITCH).await;
    client.read_to("\r\n\r\n").await;
    client.read_exact(4).await;
    edge.client.end_streams(&instance(1), Duration::ZERO).await.unwrap();
    let _ = go.borrow_and_update();
    drop(go);
    until(|| async { edge.in_flight(1).await == 1 }).await;
    assert!(client.wait_closed().await.is_empty(), "no frame of ours inside one of the app's");
}

#[tokio::test]
async fn a_connection_that_a_stream_has_given_back_is_not_cut_with_it() {
    let (go, gone) = watch::channel(false);
    let target = Upstream::start(move |mut connection, _| {
        let mut gone = gone.clone();
        async move {
            while let Some(request) = connection.try_message().await {
                if request.head.starts_with("GET") {
                    connection.send(format!("{CHUNKED}9\r\ndata: a\n\n\r\n")).await;
                    gone.wait_for(|gone| *gone).await.unwrap();
                    connection.send("0\r\n\r\n").await;
                } else {
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
                }
            }
        }
    })
    .await;
    let edge = TestEdge::start_with_workers(1).await;
    edge.serve(1, target.address).await;
    let mut client = open_stream(&edge, "1.1").await;
    client.read_to("\n\n\r\n").await;
    let mut other = open_stream(&edge, "1.1").await;
    other.read_to("\n\n\r\n").await;
    // The first of two is asked at once, and has gone by itself before it is told twice.
    edge.client.end_streams(&instance(1), Duration::from_secs(2)).await.unwrap();
    go.send(true).unwrap();
    client.read_to("0\r\n\r\n").await;
    other.read_to("0\r\n\r\n").await;
    until(|| async { edge.in_flight(1).await == 0 }).await;
    for client in [&mut client, &mut other] {
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx").await;
    }
    for client in [&mut client, &mut other] {
        assert_eq!(client.message().await.text(), "done");
    }
}

#[tokio::test]
async fn a_compressed_stream_ends_between_chunks() {
    let (_more, rest) = watch::channel("");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n";
    let target = stream_of(head, "3\r\nabc\r\n", rest).await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = open_stream(&edge, "1.1").await;
    client.read_to("abc\r\n").await;
    edge.client.end_streams(&instance(1), Duration::ZERO).await.unwrap();
    assert_eq!(client.read_to("0\r\n\r\n").await, "0\r\n\r\n", "nothing is added to what is compressed");
}
