//! Clients that try what HTTP/1.1 leaves open, and those that are merely old or fast.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use trackbed_core::ports::Edge;

use crate::support::*;

#[tokio::test]
async fn broken_chunks_are_refused_and_the_target_sees_no_end() {
    let target = Upstream::start(|mut connection, _| async move {
        let seen = connection.wait_closed().await;
        assert!(!seen.windows(5).any(|window| window == b"0\r\n\r\n"), "an end was made up");
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    for chunks in
        ["5\nhello\n0\n\n", "5\r\nhelloX\r\n", "zz\r\n", "5;\nx\r\nhello\r\n", "ffffffffffffffffff\r\n"]
    {
        for apart in [false, true] {
            let mut client = edge.connect().await;
            let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
            if apart {
                client.send(head).await;
                until(|| async { edge.in_flight(1).await == 1 }).await;
                client.send(chunks).await;
            } else {
                client.send(format!("{head}{chunks}")).await;
            }
            let answer = String::from_utf8(client.wait_closed().await).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
            until(|| async { edge.in_flight(1).await == 0 }).await;
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let mirror = Upstream::mirror().await;
    let edge = TestEdge::start().await;
    edge.serve(1, mirror.address).await;
    let mut client = edge.connect().await;
    let mut all = String::new();
    for number in 0..20 {
        all += &format!("POST /{number} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc");
    }
    client.send(all).await;
    for number in 0..20 {
        assert!(client.message().await.text().starts_with(&format!("POST /{number} ")), "{number}");
    }
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let mirror = Upstream::mirror().await;
    let edge = TestEdge::start().await;
    edge.serve(1, mirror.address).await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        for byte in
            b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert!(client.message().await.text().starts_with("POST /x "));
    }
}

#[tokio::test]
async fn nonsense_is_answered_at_once() {
    let edge = TestEdge::start().await;
    for (nonsense, status) in [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n", 400),
    ] {
        let mut client = edge.connect().await;
        client.send(nonsense).await;
        let answer = String::from_utf8(client.wait_closed().await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{nonsense:?}: {answer}");
    }
}

#[tokio::test]
async fn an_old_client_gets_its_answer_and_the_end() {
    let target = Upstream::start(|mut connection, _| async move {
        while connection.try_message().await.is_some() {
            connection
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
                .await;
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let answer = String::from_utf8(client.wait_closed().await).unwrap();
    assert!(answer.ends_with("\r\n\r\nhello") && !answer.contains("chunked"), "{answer}");
}

#[tokio::test]
async fn a_parked_client_that_leaves_is_forgotten_at_once() {
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", parked(Duration::from_secs(60)))]).await;
    let mut client = edge.connect().await;
    // Part of the body is there, unread: the end behind it must be seen all the same.
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\nabc").await;
    until(|| async { edge.parked().await == 1 }).await;
    drop(client);
    until(|| async { edge.parked().await == 0 }).await;
    let answers = edge.client.answers().await.unwrap().into_values().next().unwrap();
    assert_eq!((answers.left, answers.server_errors), (1, 0), "it is counted as what it is");
}

#[tokio::test]
async fn a_body_that_came_while_parked_arrives() {
    let mirror = Upstream::start(|mut connection, _| async move {
        let text = connection.message().await.text().to_owned();
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())).await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", parked(Duration::from_secs(60)))]).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n").await;
    until(|| async { edge.parked().await == 1 }).await;
    client.send("0123456789").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    edge.serve(1, mirror.address).await;
    assert_eq!(client.message().await.text(), "0123456789");
    let stats = edge.stats().await.parked.into_values().next().unwrap();
    assert_eq!((stats.now, stats.total, stats.refused), (0, 1, 0));
    assert!(stats.longest_ms >= 50, "{stats:?}");
}

#[tokio::test]
async fn a_repeatable_request_survives_a_target_that_just_closed() {
    let target = Upstream::start(|mut connection, number| async move {
        connection.message().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        if number == 1 {
            // The next request is read, and the connection closed without an answer.
            connection.message().await;
        } else {
            connection.wait_closed().await;
        }
    })
    .await;
    let edge = TestEdge::start_with_workers(1).await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    assert_eq!(client.get("/").await.text(), "ok");
    assert_eq!(client.get("/").await.text(), "ok", "sent once more over a fresh connection");
    assert_eq!(target.connections(), 2);
}

#[tokio::test]
async fn a_request_that_may_have_been_done_is_not_sent_again() {
    let target = Upstream::start(|mut connection, _| async move {
        connection.message().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        connection.message().await;
    })
    .await;
    let edge = TestEdge::start_with_workers(1).await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    assert_eq!(client.get("/").await.text(), "ok");
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(client.message().await.status(), 502);
    assert_eq!(target.connections(), 1);
}

#[tokio::test]
async fn what_an_app_does_to_its_streams_is_noticed() {
    let target = Upstream::start(|mut connection, _| async move {
        while let Some(request) = connection.try_message().await {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
            let events = "data: a\n\ndata: b\n\ndata: c\n\n";
            let chunked =
                format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{events}\r\n0\r\n\r\n", events.len());
            if request.head.starts_with("GET /gzip") {
                connection.send(format!("{head}Content-Encoding: gzip\r\n{chunked}")).await;
            } else if request.head.starts_with("GET /sized") {
                connection.send(format!("{head}Content-Length: {}\r\n\r\n{events}", events.len())).await;
            } else if request.head.starts_with("GET /late") {
                tokio::time::sleep(Duration::from_millis(1100)).await;
                connection.send(format!("{head}{chunked}")).await;
            } else {
                connection.send(format!("{head}{chunked}")).await;
            }
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    for path in ["/fine", "/gzip?x=1", "/gzip", "/sized", "/late"] {
        assert_eq!(client.get(path).await.status(), 200);
    }
    let notices = edge.stats().await.notices.into_values().next().unwrap();
    let seen: Vec<_> = notices.iter().map(|n| (format!("{:?}", n.fault), n.path.as_str(), n.count)).collect();
    let wanted = [("Compressed", "/gzip", 2), ("Sized", "/sized", 1), ("Buffered", "/late", 1)];
    assert_eq!(seen, wanted.map(|(fault, path, count)| (fault.to_owned(), path, count)));
}

#[tokio::test]
async fn the_age_and_silence_of_streams_are_told() {
    let target = Upstream::start(|mut connection, _| async move {
        connection.message().await;
        connection
            .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        connection.wait_closed().await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    client.read_to("\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stats = edge.client.stats().await.unwrap().targets[instance(1).as_str()];
    assert!(stats.oldest_stream_ms >= 150 && stats.longest_silence_ms >= 150, "{stats:?}");
}

/// The kernel tells once that there is something to read. What was looked past while parked must be found all the same.
#[tokio::test]
async fn a_large_body_that_came_while_parked_arrives_whole() {
    let echo = Upstream::start(|mut connection, _| async move {
        while let Some(request) = connection.try_message().await {
            let length = request.body.len();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{length:08}")).await;
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, echo.address).await;
    let mut client = edge.connect().await;
    // Grows the kernel's buffers for this connection.
    let warm = vec![b'x'; 30_000_000];
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", warm.len())).await;
    client.send(&warm).await;
    assert_eq!(client.message().await.text(), "30000000");
    edge.apply(&[("a.test", parked(Duration::from_secs(60)))]).await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n").await;
    until(|| async { edge.parked().await == 1 }).await;
    let (mut reader, mut writer) = client.stream.split();
    let body = vec![b'x'; 1_000_000];
    let send = writer.write_all(&body);
    let release = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        edge.serve(1, echo.address).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"01000000") {
            let mut buffer = [0; 1024];
            let count = soon(tokio::io::AsyncReadExt::read(&mut reader, &mut buffer)).await.unwrap();
            assert!(count > 0);
            seen.extend_from_slice(&buffer[..count]);
        }
    };
    let (sent, ()) = tokio::join!(send, release);
    sent.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_behind_an_unread_body_is_noticed() {
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
    let wait = Duration::from_millis(500);
    while tokio::time::timeout(wait, client.stream.write(&piece)).await.is_ok() {}
    assert_eq!(edge.in_flight(1).await, 1);
    // An end in order would wait behind what the edge does not read; a reset does not.
    client.stream.set_zero_linger().unwrap();
    drop(client);
    until(|| async { edge.in_flight(1).await == 0 }).await;
}

#[tokio::test]
async fn an_early_answer_says_that_the_connection_ends() {
    let target = Upstream::start(|mut connection, _| async move {
        connection.read_to("\r\n\r\n").await;
        connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
        connection.wait_closed().await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nabc").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.header("connection")), (401, Some("close")));
}

#[tokio::test]
async fn an_answer_that_is_reset_is_never_taken_for_a_whole_one() {
    let target = Upstream::start(|mut connection, _| async move {
        connection.message().await;
        connection.send("HTTP/1.0 200 OK\r\n\r\nhalf of").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.stream.set_zero_linger().unwrap();
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let seen = String::from_utf8(client.wait_closed().await).unwrap();
    assert!(seen.ends_with("7\r\nhalf of\r\n"), "no end was made up: {seen:?}");
}
