//! Bodies in both directions: nothing is held back, nothing runs ahead of its reader.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};

use crate::support::*;

const EVENT_STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The target sends an event only when the test has received the one before, so an event that waited for another one
/// anywhere on its way would hang the test.
#[tokio::test]
async fn each_event_arrives_by_itself_before_the_next_is_sent() {
    let (go, gone) = mpsc::channel::<usize>(1);
    let gone = Arc::new(tokio::sync::Mutex::new(gone));
    let target = Upstream::start(move |mut connection, _| {
        let gone = Arc::clone(&gone);
        async move {
            connection.message().await;
            connection.send(EVENT_STREAM).await;
            while let Some(number) = gone.lock().await.recv().await {
                connection.send(chunk(&format!("data: event {number}\n\n"))).await;
            }
            connection.send("0\r\n\r\n").await;
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    client.read_to("\r\n\r\n").await;
    for number in 0..30 {
        go.send(number).await.unwrap();
        let wanted = chunk(&format!("data: event {number}\n\n"));
        let mut seen = Vec::new();
        while seen.len() < wanted.len() {
            seen.extend(client.read_once().await);
        }
        assert!(wanted.eq_ignore_ascii_case(std::str::from_utf8(&seen).unwrap()), "{seen:?}");
        if number == 0 {
            let stats = edge.stats().await.targets[instance(1).as_str()];
            assert_eq!((stats.in_flight, stats.streams), (1, 1));
        }
    }
    drop(go);
    assert_eq!(client.read_to("\r\n\r\n").await, "0\r\n\r\n");
    until(|| async { edge.stats().await.targets[instance(1).as_str()].streams == 0 }).await;
}

#[tokio::test]
async fn a_target_learns_that_the_client_left() {
    let (asked, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (heard, noticed) = (Arc::clone(&asked), Arc::clone(&left));
    let target = Upstream::start(move |mut connection, _| {
        let (heard, noticed) = (Arc::clone(&heard), Arc::clone(&noticed));
        async move {
            let request = connection.message().await;
            heard.notify_one();
            if request.head.starts_with("GET /events") {
                connection.send(EVENT_STREAM).await;
            }
            connection.wait_closed().await;
            noticed.notify_one();
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    for path in ["/events", "/slow"] {
        let mut client = edge.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        soon(asked.notified()).await;
        assert_eq!(edge.in_flight(1).await, 1);
        drop(client);
        soon(left.notified()).await;
        until(|| async { edge.in_flight(1).await == 0 }).await;
    }
    let answers = edge.client.answers().await.unwrap().into_values().next().unwrap();
    assert_eq!((answers.left, answers.server_errors), (2, 0));
}

#[tokio::test]
async fn a_body_of_any_size_arrives_whole_in_both_directions() {
    let echo = Upstream::start(|mut connection, _| async move {
        while let Some(request) = connection.try_message().await {
            connection
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()))
                .await;
            connection.send(&request.body).await;
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, echo.address).await;
    let mut client = edge.connect().await;
    let body: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    assert!(client.message().await.body == body);
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for piece in body.chunks(100_000).take(50) {
        client.send(format!("{:x}\r\n", piece.len())).await;
        client.send(piece).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    assert!(client.message().await.body == body[..5_000_000]);
    assert_eq!(echo.connections(), 1);
}

#[tokio::test]
async fn a_target_that_does_not_read_stops_the_client() {
    let target = Upstream::start(|connection, _| async move {
        std::future::pending::<()>().await;
        drop(connection);
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n").await;
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), client.stream.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 60_000_000, "the edge takes what the target does not: {sent} bytes so far");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_target() {
    let (told, mut sent) = mpsc::unbounded_channel();
    let target = Upstream::start(move |mut connection, _| {
        let told = told.clone();
        async move {
            connection.message().await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
            let piece = vec![b'x'; 64 * 1024];
            let mut sent = 0;
            while let Ok(Ok(written)) =
                tokio::time::timeout(Duration::from_secs(1), connection.stream.write(&piece)).await
            {
                sent += written;
                if sent > 60_000_000 {
                    break;
                }
            }
            told.send(sent).unwrap();
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let sent = soon(sent.recv()).await.unwrap();
    assert!(sent < 60_000_000, "the edge takes what the client does not: {sent} bytes");
}

#[tokio::test]
async fn chunks_pass_in_both_directions_and_trailers_in_none() {
    let target = Upstream::start(|mut connection, _| async move {
        let head = connection.read_to("\r\n\r\n").await.to_lowercase();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        assert_eq!(connection.read_to("0\r\n\r\n").await, format!("{}0\r\n\r\n", chunk("hello")));
        let answer = format!("{}0\r\nX-Total: 9\r\n\r\n", chunk("world"));
        connection.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{answer}")).await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    let body = format!("{}0\r\nX-Sum: 5\r\nContent-Length: 9\r\n\r\n", chunk("hello"));
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}{body}")).await;
    client.read_to("\r\n\r\n").await;
    assert_eq!(client.read_to("0\r\n\r\n").await, format!("{}0\r\n\r\n", chunk("world")));
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let target = Upstream::start(|mut connection, _| async move {
        let request = connection.message().await;
        assert_eq!(request.header("expect"), None);
        let text = request.text().to_owned();
        connection.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n").await;
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())).await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.read_to("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    let hints = client.read_to("\r\n\r\n").await;
    assert!(hints.starts_with("HTTP/1.1 103 ") && hints.contains("Link: </x>"), "{hints}");
    assert_eq!(client.message().await.text(), "hello");
}

#[tokio::test]
async fn an_answer_that_the_target_breaks_off_is_broken_off_for_the_client() {
    let target = Upstream::start(|mut connection, _| async move {
        connection.message().await;
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let seen = String::from_utf8(client.wait_closed().await).unwrap();
    assert!(!seen.contains("\r\n0\r\n"), "no end was sent: {seen}");
    let answers = edge.client.answers().await.unwrap().into_values().next().unwrap();
    assert_eq!((answers.left, answers.server_errors), (0, 1));
}

#[tokio::test]
async fn an_old_target_that_ends_its_answers_by_closing_is_understood() {
    let target = Upstream::start(|mut connection, _| async move {
        connection.message().await;
        connection.send("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold but whole").await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    for _ in 0..3 {
        let answer = client.get("/").await;
        assert_eq!((answer.text(), answer.header("transfer-encoding")), ("old but whole", Some("chunked")));
    }
}
