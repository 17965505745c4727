//! Which target a request goes to, and what is said when there is none.

use trackbed_core::route::DownReason;

use crate::support::*;

#[tokio::test]
async fn the_host_decides_whatever_its_case_port_or_dot() {
    let (a, b) = (Upstream::saying("from a").await, Upstream::saying("from b").await);
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", serving(1, a.address)), ("b.test", serving(2, b.address))]).await;
    let mut client = edge.connect().await;
    for (host, wanted) in [("a.test", "from a"), ("B.Test:8080", "from b"), ("a.test.", "from a")] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.message().await.text(), wanted, "{host}");
    }
}

#[tokio::test]
async fn an_absolute_target_wins_over_the_host_and_is_forwarded_as_a_path() {
    let mirror = Upstream::mirror().await;
    let edge = TestEdge::start().await;
    edge.serve(1, mirror.address).await;
    let mut client = edge.connect().await;
    client.send("GET http://A.test:8080/x?y=1 HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
    let seen = client.message().await;
    assert!(seen.text().starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{}", seen.text());
    let seen = Message { head: seen.text().to_owned(), body: Vec::new() };
    assert_eq!(seen.header("host"), Some("A.test:8080"));
    assert_eq!(seen.header("x-forwarded-host"), Some("A.test:8080"));
}

#[tokio::test]
async fn requests_without_one_clear_host_are_refused() {
    let edge = TestEdge::start().await;
    for request in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"] {
        let mut client = edge.connect().await;
        client.send(request).await;
        assert_eq!(client.message().await.status(), 400);
    }
    let mut client = edge.connect().await;
    client.send("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").await;
    assert_eq!(client.message().await.status(), 405);
}

#[tokio::test]
async fn a_host_without_target_gets_a_page_that_says_why() {
    let edge = TestEdge::start().await;
    edge.apply(&[
        ("a.test", down(DownReason::Starting)),
        ("b.test", down(DownReason::Stopped)),
        ("c.test", down(DownReason::Crashed)),
    ])
    .await;
    let mut client = edge.connect().await;
    for (host, status, code, retry) in [
        ("a.test", 503, "service_starting", true),
        ("b.test", 503, "service_stopped", false),
        ("c.test", 503, "service_crashed", false),
        ("nobody.test", 404, "unknown_host", false),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = client.message().await;
        assert_eq!(answer.status(), status);
        assert!(answer.text().contains(&format!("\"code\":\"{code}\"")), "{}", answer.text());
        assert_eq!(answer.header("retry-after").is_some(), retry, "{host}");
        assert!(answer.text().contains(answer.header("x-request-id").unwrap()));
    }
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nAccept: text/html,*/*;q=0.8\r\n\r\n").await;
    let page = client.message().await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("a.test is starting"));
}

#[tokio::test]
async fn a_target_that_refuses_or_hangs_up_is_a_502() {
    let hangs_up = Upstream::start(|mut connection, _| async move {
        connection.message().await;
    })
    .await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", serving(1, hangs_up.address)), ("b.test", serving(2, nobody))]).await;
    let mut client = edge.connect().await;
    let answer = client.get("/").await;
    assert_eq!((answer.status(), answer.text().contains("no_answer")), (502, true));
    assert_eq!(hangs_up.connections(), 1, "a request that was written is never sent twice");
    client.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.text().contains("service_unreachable")), (502, true));
    assert_eq!((edge.in_flight(1).await, edge.in_flight(2).await), (0, 0));
}

#[tokio::test]
async fn connections_to_a_target_are_used_again() {
    let target = Upstream::saying("hello").await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "hello");
    }
    assert_eq!(target.connections(), 1);
    assert_eq!(edge.stats().await.targets[instance(1).as_str()].requests, 20);
    assert_eq!(edge.client.answers().await.unwrap().values().map(|answers| answers.ok).sum::<u64>(), 20);
}

#[tokio::test]
async fn a_connection_that_the_target_closed_between_requests_is_replaced_unnoticed() {
    let target = Upstream::start(|mut connection, number| async move {
        connection.message().await;
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    for number in 1..=20 {
        let answer = client.get("/").await;
        assert_eq!((answer.status(), answer.text().len()), (200, 1), "request {number}");
        // The target's end of the connection is closed right after its answer; let that arrive.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(target.connections(), 20);
}

#[tokio::test]
async fn answers_without_a_body_stay_without_one() {
    let target = Upstream::start(|mut connection, _| async move {
        while let Some(request) = connection.try_message().await {
            let answer = match request.head.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 9\r\n\r\n",
                "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            };
            connection.send(answer).await;
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let mut client = edge.connect().await;
    for (request, length) in [
        ("GET /204", None),
        ("GET /304", None),
        ("HEAD /", Some("1234")),
        ("HEAD /chunked", None),
        ("GET /204", None),
    ] {
        client.send(format!("{request} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        let head = client.read_to("\r\n\r\n").await;
        let answer = Message { head, body: Vec::new() };
        assert!(answer.status() < 400, "{request}: {}", answer.head);
        if let Some(length) = length {
            assert_eq!(answer.header("content-length"), Some(length), "{request}: {}", answer.head);
        } else {
            assert_eq!(answer.header("content-length"), None, "{request}: {}", answer.head);
        }
    }
    assert_eq!(target.connections(), 1);
}
