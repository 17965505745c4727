//! Traffic moves from one target to the next, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use trackbed_core::ports::Edge;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapping_under_load_fails_no_request_and_none_reaches_the_old_target_after_the_ack() {
    let (a, b) = (Upstream::saying("a").await, Upstream::saying("b").await);
    let edge = Arc::new(TestEdge::start().await);
    edge.serve(1, a.address).await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let (edge, stop, served) = (Arc::clone(&edge), Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let mut client = edge.connect().await;
                while !stop.load(Ordering::SeqCst) {
                    if number % 2 == 0 {
                        client
                            .send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello")
                            .await;
                        assert_eq!(client.message().await.status(), 200);
                    } else {
                        assert_eq!(client.get("/").await.status(), 200);
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut witness = edge.connect().await;
    for swap in 0..40 {
        let (number, address, wanted) = if swap % 2 == 0 { (2, b.address, "b") } else { (1, a.address, "a") };
        edge.serve(number, address).await;
        for _ in 0..5 {
            assert_eq!(witness.get("/").await.text(), wanted, "after swap {swap}");
        }
        let old = 3 - number;
        until(|| async { edge.in_flight(old).await == 0 }).await;
        let before = served.load(Ordering::SeqCst);
        until(|| async { served.load(Ordering::SeqCst) > before + 50 }).await;
        assert_eq!(edge.in_flight(old).await, 0, "a drained target stays drained");
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        soon(client).await.unwrap();
    }
    let answers = edge.client.answers().await.unwrap().into_values().next().unwrap();
    assert_eq!((answers.server_errors, answers.client_errors, answers.left), (0, 0, 0));
}

#[tokio::test]
async fn a_new_instance_at_the_same_address_gets_connections_of_its_own() {
    let target = Upstream::start(|mut connection, number| async move {
        while connection.try_message().await.is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
        }
    })
    .await;
    let edge = TestEdge::start().await;
    let mut client = edge.connect().await;
    for number in 1..=5 {
        edge.serve(number, target.address).await;
        assert_eq!(client.get("/").await.text(), number.to_string());
        assert_eq!(client.get("/").await.text(), number.to_string());
    }
}

#[tokio::test]
async fn a_request_in_flight_finishes_on_the_target_it_began_on() {
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = Upstream::start(move |mut connection, _| {
        let mut released = released.clone();
        async move {
            connection.message().await;
            released.wait_for(|released| *released).await.unwrap();
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold").await;
            connection.wait_closed().await;
        }
    })
    .await;
    let new = Upstream::saying("new").await;
    let edge = TestEdge::start().await;
    edge.serve(1, slow.address).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    until(|| async { edge.in_flight(1).await == 1 }).await;
    edge.serve(2, new.address).await;
    assert_eq!(edge.in_flight(1).await, 1);
    release.send(true).unwrap();
    assert_eq!(client.message().await.text(), "old");
    assert_eq!(client.get("/").await.text(), "new");
    until(|| async { !edge.stats().await.targets.contains_key(instance(1).as_str()) }).await;
}

#[tokio::test]
async fn a_cut_ends_what_is_open_and_only_that() {
    let hangs = Upstream::start(|mut connection, _| async move {
        let request = connection.message().await;
        if request.head.starts_with("GET /until-close") {
            connection.send("HTTP/1.0 200 OK\r\n\r\nsome").await;
        }
        connection.wait_closed().await;
    })
    .await;
    let other = Upstream::saying("other").await;
    let edge = TestEdge::start().await;
    edge.apply(&[("a.test", serving(1, hangs.address)), ("b.test", serving(2, other.address))]).await;
    let (mut waiting, mut reading) = (edge.connect().await, edge.connect().await);
    waiting.send("GET /wait HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    reading.send("GET /until-close HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    reading.read_to("some").await;
    until(|| async { edge.in_flight(1).await == 2 }).await;
    edge.client.cut(&instance(1)).await.unwrap();
    assert_eq!(waiting.message().await.status(), 502);
    let rest = String::from_utf8(reading.wait_closed().await).unwrap();
    assert!(!rest.contains("0\r\n\r\n"), "a cut answer does not look whole: {rest:?}");
    until(|| async { edge.in_flight(1).await == 0 }).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert_eq!(client.message().await.text(), "other");
}
