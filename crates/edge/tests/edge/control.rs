//! The control socket, and what the edge does when nobody uses it.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use trackbed_core::ports::Edge;
use trackbed_edge::{EdgeClient, EdgeError};

use crate::support::*;

#[tokio::test]
async fn a_restarted_edge_serves_the_same_routes_on_the_same_port_by_itself() {
    let target = Upstream::saying("hello").await;
    let edge = TestEdge::start().await;
    edge.serve(1, target.address).await;
    let address = edge.address;
    let folder = edge.stop().await;
    let edge = TestEdge::start_in(folder).await;
    assert_eq!(edge.address, address);
    assert_eq!(edge.connect().await.get("/").await.text(), "hello");
    assert_eq!(edge.stats().await.sequence, 1);
}

#[tokio::test]
async fn an_older_table_is_ignored() {
    let (new, old) = (Upstream::saying("new").await, Upstream::saying("old").await);
    let edge = TestEdge::start().await;
    edge.client.apply(&table(7, &[("a.test", serving(1, new.address))])).await.unwrap();
    edge.client.apply(&table(6, &[("a.test", serving(2, old.address))])).await.unwrap();
    assert_eq!(edge.stats().await.sequence, 7);
    assert_eq!(edge.connect().await.get("/").await.text(), "new");
}

#[tokio::test]
async fn the_table_stays_when_the_control_plane_goes() {
    let target = Upstream::saying("hello").await;
    let edge = TestEdge::start().await;
    let own = EdgeClient::new(edge.folder.path().join("control.sock"));
    own.apply(&table(3, &[("a.test", serving(1, target.address))])).await.unwrap();
    drop(own);
    assert_eq!(edge.connect().await.get("/").await.text(), "hello");
    assert_eq!(edge.stats().await.sequence, 3);
}

#[tokio::test]
async fn the_client_finds_a_restarted_edge_again() {
    let edge = TestEdge::start().await;
    let client = Arc::clone(&edge.client);
    client.stats().await.unwrap();
    let folder = edge.stop().await;
    let error = client.stats().await.unwrap_err();
    assert!(error.message.contains("cannot reach the edge"), "{error}");
    let _edge = TestEdge::start_in(folder).await;
    client.stats().await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_told_apart_and_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = config_in(&folder, address);
    let (_stop, stopped) = oneshot::channel();
    let error = tokio::task::spawn_blocking(move || serve(&config, stopped)).await.unwrap().unwrap_err();
    assert!(matches!(error, EdgeError::PortTaken { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(error.exit_code(), 3);
}

#[tokio::test]
async fn a_second_edge_on_the_same_state_does_not_start() {
    let edge = TestEdge::start().await;
    let config = config_in(&edge.folder, "127.0.0.1:0".parse().unwrap());
    let (_stop, stopped) = oneshot::channel();
    let error = tokio::task::spawn_blocking(move || serve(&config, stopped)).await.unwrap().unwrap_err();
    assert!(matches!(error, EdgeError::AlreadyRunning { .. }), "{error}");
    edge.client.stats().await.unwrap();
}

#[tokio::test]
async fn the_socket_is_private_and_nonsense_gets_an_answer() {
    let edge = TestEdge::start().await;
    let path = edge.folder.path().join("control.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
    for (line, wanted) in
        [("hello", "not understood"), (r#"{"v":99,"op":"stats"}"#, "speaks protocol 1, not 99")]
    {
        stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut reply = String::new();
        soon(stream.read_line(&mut reply)).await.unwrap();
        assert!(reply.contains("failed") && reply.contains(wanted), "{reply}");
    }
}

#[tokio::test]
async fn shutting_down_lets_open_requests_finish_and_takes_no_new_ones() {
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = Upstream::start(move |mut connection, _| {
        let mut released = released.clone();
        async move {
            connection.message().await;
            released.wait_for(|released| *released).await.unwrap();
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
        }
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, slow.address).await;
    let (mut client, mut idle) = (edge.connect().await, edge.connect().await);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    until(|| async { edge.in_flight(1).await == 1 }).await;
    edge.client.shutdown(Duration::from_secs(20)).await.unwrap();
    assert!(idle.wait_closed().await.is_empty());
    until(|| async { tokio::net::TcpStream::connect(edge.address).await.is_err() }).await;
    release.send(true).unwrap();
    let answer = client.message().await;
    assert_eq!((answer.text(), answer.header("connection")), ("done", Some("close")));
    edge.stop().await;
}

#[tokio::test]
async fn shutting_down_ends_at_its_limit() {
    let hangs = Upstream::start(|mut connection, _| async move {
        connection.wait_closed().await;
    })
    .await;
    let edge = TestEdge::start().await;
    edge.serve(1, hangs.address).await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    until(|| async { edge.in_flight(1).await == 1 }).await;
    edge.client.shutdown(Duration::from_millis(700)).await.unwrap();
    client.wait_closed().await;
    edge.stop().await;
}
