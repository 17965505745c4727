//! Requests that wait for a service to come back.

use std::time::Duration;

use crate::support::*;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_parked_request_is_served_when_the_service_is_back_with_its_whole_body() {
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
    edge.apply(&[("a.test", parked(LONG))]).await;
    let body = vec![b'p'; 3_000_000];
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = edge.connect().await;
        client
            .send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len()))
            .await;
        let body = body.clone();
        clients.push(tokio::spawn(async move {
            client.send(&body).await;
            client.message().await
        }));
    }
    until(|| async { edge.parked().await == 10 }).await;
    edge.apply(&[("a.test", parked(LONG)), ("b.test", parked(LONG))]).await;
    assert_eq!(edge.parked().await, 10, "a table that changes nothing for them leaves them waiting");
    edge.serve(1, echo.address).await;
    for client in clients {
        let answer = soon(client).await.unwrap();
        assert_eq!((answer.status(), answer.body == body), (200, true));
    }
    assert_eq!(edge.parked().await, 0);
}

#[tokio::test]
async fn a_request_that_waited_too_long_is_asked_to_come_back() {
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", parked(Duration::from_millis(200)))]).await;
    let mut client = edge.connect().await;
    let answer = client.get("/").await;
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("2")));
    assert!(answer.text().contains("service_paused"));
    assert_eq!(edge.parked().await, 0);
}

#[tokio::test]
async fn beyond_a_thousand_parked_requests_the_next_is_refused_and_leavers_make_room() {
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", parked(LONG))]).await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let mut client = edge.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        clients.push(client);
    }
    until(|| async { edge.parked().await == 1000 }).await;
    let mut one_more = edge.connect().await;
    let answer = one_more.get("/").await;
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("2")));
    assert!(answer.text().contains("too_many_waiting"));
    clients.truncate(900);
    until(|| async { edge.parked().await == 900 }).await;
    drop(clients);
    until(|| async { edge.parked().await == 0 }).await;
}

#[tokio::test]
async fn a_parked_request_hears_when_its_service_is_gone() {
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", parked(LONG))]).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    until(|| async { edge.parked().await == 1 }).await;
    edge.apply(&[("a.test", down(trackbed_core::route::DownReason::Crashed))]).await;
    assert_eq!(client.message().await.status(), 503);
}
