//! A new edge takes the place of the running one. Each edge here is a process of its own, as on a box.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use trackbed_core::ports::Edge;
use trackbed_core::route::{EdgeStats, UpstreamState};
use trackbed_edge::EdgeClient;

use crate::support::*;

/// The exit code of an edge whose predecessor keeps its place.
const KEPT: i32 = 5;

/// Edges on one state, one after the other.
pub(crate) struct Dynasty {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client: EdgeClient,
    pub(crate) children: Vec<Child>,
    sequence: AtomicU64,
}

impl Dynasty {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let client = EdgeClient::new(folder.path().join("control.sock"));
        Self { folder, client, children: Vec::new(), sequence: AtomicU64::new(0) }
    }

    pub(crate) async fn start() -> Self {
        let mut dynasty = Self::new();
        dynasty.spawn(&[]);
        until(|| async { dynasty.client.stats().await.is_ok() }).await;
        dynasty
    }

    /// Starts an edge without waiting; returns its process id.
    pub(crate) fn spawn(&mut self, arguments: &[&str]) -> u32 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-process"));
        let child = command.arg(self.folder.path()).args(arguments).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }

    /// Replaces the edge.
    pub(crate) async fn upgrade(&mut self) {
        let pid = self.spawn(&["--take-over"]);
        until(|| async { self.client.stats().await.is_ok_and(|stats| stats.pid == pid) }).await;
    }

    pub(crate) async fn stats(&self) -> EdgeStats {
        self.client.stats().await.unwrap()
    }

    pub(crate) async fn address(&self) -> SocketAddr {
        self.stats().await.listen.parse().unwrap()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address().await).await.unwrap())
    }

    pub(crate) async fn apply(&self, upstream: UpstreamState) {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        self.client.apply(&table(sequence, &[("a.test", upstream)])).await.unwrap();
        assert_eq!(self.stats().await.sequence, sequence);
    }

    async fn in_flight(&self, number: u8) -> u64 {
        self.stats().await.targets.get(instance(number).as_str()).map_or(0, |stats| stats.in_flight)
    }

    async fn parked(&self) -> u64 {
        self.stats().await.parked.values().map(|parked| parked.now).sum()
    }

    /// Sockets of edges that have been replaced.
    pub(crate) fn elder_sockets(&self) -> usize {
        let names = std::fs::read_dir(self.folder.path()).unwrap().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().starts_with("elder-")).count()
    }

    /// Processes that have not ended.
    pub(crate) fn living(&mut self) -> Vec<u32> {
        let alive = |child: &mut Child| child.try_wait().unwrap().is_none();
        self.children.iter_mut().filter_map(|child| alive(child).then_some(child.id())).collect()
    }

    pub(crate) async fn wait_living(&mut self, count: usize) {
        soon(async {
            while self.living().len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Waits for a process and returns its exit code.
    async fn wait_code(&mut self, pid: u32) -> Option<i32> {
        let child = self.children.iter_mut().find(|child| child.id() == pid).unwrap();
        soon(async {
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

impl Drop for Dynasty {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Clients that ask again and again over connections that they keep for as long as they may.
pub(crate) struct Load {
    pub(crate) done: Arc<AtomicUsize>,
    pub(crate) failures: Arc<std::sync::Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        let (done, failures, stop) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { done, failures, stop, tasks: Vec::new() };
        for number in 0..clients {
            let (done, failures, stop) = (load.done.clone(), load.failures.clone(), load.stop.clone());
            load.tasks.push(tokio::spawn(async move {
                let mut kept = None;
                let mut turn = number;
                while !stop.load(Ordering::SeqCst) {
                    turn += 1;
                    match ask(address, &mut kept, turn).await {
                        Ok(()) => {
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            failures.lock().unwrap().push(format!("client {number}: {error}"));
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                }
            }));
        }
        load
    }

    /// Waits until so many more requests have been answered.
    pub(crate) async fn goes_on(&self, count: usize) {
        let wanted = self.done.load(Ordering::SeqCst) + count;
        until(|| async { self.done.load(Ordering::SeqCst) >= wanted }).await;
    }

    pub(crate) fn failed(&self) -> usize {
        self.failures.lock().unwrap().len()
    }

    /// Ends it; returns how many requests were answered and what failed.
    pub(crate) async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            soon(task).await.unwrap();
        }
        (self.done.load(Ordering::SeqCst), self.failures.lock().unwrap().clone())
    }
}

/// One request: every third has a body, which must come back.
async fn ask(address: SocketAddr, kept: &mut Option<TcpStream>, turn: usize) -> std::io::Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    let body =
        if turn.is_multiple_of(3) { vec![u8::try_from(turn % 251).unwrap(); 50_000] } else { Vec::new() };
    let method = if body.is_empty() { "GET" } else { "POST" };
    let length = body.len();
    let head = format!("{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    let mut answer = Vec::new();
    let (head, begin) = loop {
        if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break (String::from_utf8_lossy(&answer[..at]).to_lowercase(), at + 4);
        }
        if stream.read_buf(&mut answer).await? == 0 {
            let error = format!("closed after {} bytes of an answer", answer.len());
            return Err(std::io::Error::other(error));
        }
    };
    if !head.starts_with("http/1.1 200") {
        return Err(std::io::Error::other(head));
    }
    while answer.len() < begin + length {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::Error::other("closed in the middle of a body"));
        }
    }
    if answer[begin..] != body {
        return Err(std::io::Error::other("another body came back"));
    }
    if !head.contains("connection: close") {
        *kept = Some(stream);
    }
    Ok(())
}

/// A target that gives every body back, and does not mind being left in the middle.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo_all(stream));
        }
    });
    address
}

async fn echo_all(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let begin = head.len();
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
            if let Some(value) = head[begin..].to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        let begin = answer.len();
        answer.resize(begin + length, 0);
        stream.read_exact(&mut answer[begin..]).await?;
        stream.write_all(&answer).await?;
    }
}

/// A target with an endless event stream that tells the number it is given, and with a WebSocket that echoes.
async fn streaming(events: tokio::sync::watch::Receiver<u32>) -> Upstream {
    Upstream::start(move |mut connection, _| {
        let mut events = events.clone();
        async move {
            let request = connection.message().await;
            if request.header("upgrade").is_some() {
                connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
                loop {
                    let bytes = connection.read_once().await;
                    if bytes.is_empty() {
                        return;
                    }
                    connection.send(bytes).await;
                }
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
            while events.changed().await.is_ok() {
                let number = *events.borrow_and_update();
                connection.send(format!("data: {number}\n\n")).await;
            }
        }
    })
    .await
}

const STREAM: &str = "GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n";
const SWITCH: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_generations_serve_at_once_and_no_request_or_stream_is_lost() {
    let (tell, events) = tokio::sync::watch::channel(0);
    let (echo, streaming) = (echo().await, streaming(events).await);
    let mut dynasty = Dynasty::start().await;
    let address = dynasty.address().await;
    let mut open = Vec::new();
    for generation in 1..=3_u32 {
        dynasty.apply(serving(9, streaming.address)).await;
        let (mut stream, mut socket) = (dynasty.connect().await, dynasty.connect().await);
        stream.send(STREAM).await;
        stream.read_to("\r\n\r\n").await;
        socket.send(SWITCH).await;
        socket.read_to("\r\n\r\n").await;
        open.push((stream, socket));
        dynasty.apply(serving(1, echo)).await;
        // Connected, but silent until after the upgrade.
        let mut quiet = dynasty.connect().await;
        assert_eq!(quiet.get("/").await.status(), 200);
        let mut fresh = dynasty.connect().await;

        let load = Load::start(address, 6);
        load.goes_on(200).await;
        dynasty.upgrade().await;
        load.goes_on(200).await;
        let (_, failures) = load.end().await;
        assert_eq!(failures, Vec::<String>::new(), "upgrade {generation}");

        for client in [&mut quiet, &mut fresh] {
            let answer = client.get("/").await;
            assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
            client.wait_closed().await;
        }
        let stats = dynasty.stats().await;
        assert_eq!(stats.listen.parse::<SocketAddr>().unwrap(), address);
        assert_eq!(stats.draining, generation);
        let streams = stats.targets[instance(9).as_str()];
        assert_eq!(
            (streams.in_flight, streams.streams),
            (u64::from(generation) * 2, u64::from(generation) * 2)
        );
        tell.send(generation).unwrap();
        for (stream, socket) in &mut open {
            stream.read_to(&format!("data: {generation}\n\n")).await;
            socket.send("still there?").await;
            assert_eq!(socket.read_exact(12).await, b"still there?");
        }
    }
    assert_eq!((dynasty.living().len(), dynasty.elder_sockets()), (4, 3));
    // The last stream of a generation is its end.
    for left in (0..3).rev() {
        drop(open.remove(0));
        dynasty.wait_living(left + 1).await;
        until(|| async { dynasty.stats().await.draining == u32::try_from(left).unwrap() }).await;
    }
    assert_eq!(dynasty.elder_sockets(), 0);
    assert!(dynasty.children.iter_mut().take(3).all(|child| child.wait().unwrap().success()));
}

#[tokio::test]
async fn requests_parked_in_an_elder_are_released_by_a_later_table() {
    let target = Upstream::saying("hello").await;
    let mut dynasty = Dynasty::start().await;
    dynasty.apply(parked(Duration::from_secs(60))).await;
    let mut waiting = Vec::new();
    for generation in 1..=3 {
        for _ in 0..5 {
            let mut client = dynasty.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            waiting.push(client);
        }
        until(|| async { dynasty.parked().await == generation * 5 }).await;
        if generation < 3 {
            dynasty.upgrade().await;
            assert_eq!(dynasty.parked().await, generation * 5, "none was lost, none counted twice");
        }
    }
    dynasty.apply(serving(1, target.address)).await;
    for client in &mut waiting {
        assert_eq!(client.message().await.text(), "hello");
    }
    assert_eq!(dynasty.parked().await, 0);
    let answers = dynasty.client.answers().await.unwrap();
    assert!(answers.values().all(|answers| answers.server_errors == 0), "{answers:?}");
}

#[tokio::test]
async fn a_drain_sees_what_an_elder_still_does_and_can_cut_it() {
    let (_tell, events) = tokio::sync::watch::channel(0);
    let (streaming, next) = (streaming(events).await, Upstream::saying("next").await);
    let mut dynasty = Dynasty::start().await;
    dynasty.apply(serving(9, streaming.address)).await;
    let mut stream = dynasty.connect().await;
    stream.send(STREAM).await;
    stream.read_to("\r\n\r\n").await;
    dynasty.upgrade().await;
    dynasty.apply(serving(1, next.address)).await;
    assert_eq!(dynasty.connect().await.get("/").await.text(), "next");
    assert_eq!(dynasty.in_flight(9).await, 1);
    dynasty.client.cut(&instance(9)).await.unwrap();
    stream.wait_closed().await;
    until(|| async { dynasty.in_flight(9).await == 0 }).await;
}

#[tokio::test]
async fn an_elder_sends_no_request_to_a_target_that_has_left_the_table() {
    let (old, new) = (Upstream::saying("old").await, Upstream::saying("new").await);
    let mut dynasty = Dynasty::start().await;
    dynasty.apply(serving(1, old.address)).await;
    let mut client = dynasty.connect().await;
    dynasty.upgrade().await;
    dynasty.apply(serving(2, new.address)).await;
    assert_eq!(client.get("/").await.text(), "new");
}

#[tokio::test]
async fn one_order_ends_every_generation() {
    let (_tell, events) = tokio::sync::watch::channel(0);
    let streaming = streaming(events).await;
    let mut dynasty = Dynasty::start().await;
    dynasty.apply(serving(9, streaming.address)).await;
    for _ in 0..2 {
        let mut stream = dynasty.connect().await;
        stream.send(STREAM).await;
        stream.read_to("\r\n\r\n").await;
        // Lives for as long as its edge.
        tokio::spawn(async move { stream.wait_closed().await });
        dynasty.upgrade().await;
    }
    assert_eq!(dynasty.living().len(), 3);
    dynasty.client.shutdown(Duration::from_millis(100)).await.unwrap();
    dynasty.wait_living(0).await;
    let left: Vec<_> = std::fs::read_dir(dynasty.folder.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "the state, and no socket: {left:?}");
}

#[tokio::test]
async fn without_an_edge_a_successor_simply_starts() {
    let mut dynasty = Dynasty::new();
    dynasty.upgrade().await;
    assert_eq!(dynasty.stats().await.draining, 0);
}

#[tokio::test]
async fn the_lock_never_falls_and_ends_with_the_last_owner() {
    let mut dynasty = Dynasty::start().await;
    let lock = std::fs::File::open(dynasty.folder.path().join("state/lock")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (lock, stop) = (lock.try_clone().unwrap(), Arc::clone(&stop));
        move || {
            let mut looks = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                assert!(lock.try_lock().is_err(), "nobody held the lock");
                looks += 1;
            }
            looks
        }
    });
    for _ in 0..5 {
        dynasty.upgrade().await;
    }
    stop.store(true, Ordering::SeqCst);
    assert!(watcher.join().unwrap() > 0);
    dynasty.client.shutdown(Duration::ZERO).await.unwrap();
    dynasty.wait_living(0).await;
    lock.try_lock().unwrap();
}

#[tokio::test]
async fn a_successor_that_does_not_get_ready_changes_nothing() {
    let (one, two) = (Upstream::saying("one").await, Upstream::saying("two").await);
    let mut dynasty = Dynasty::start().await;
    let (pid, socket) = (dynasty.stats().await.pid, dynasty.folder.path().join("control.sock"));
    let mut client = dynasty.connect().await;
    for said in ["", "{\"v\":1,\"op\":\"stats\"}\n", "nonsense\n", "silence"] {
        dynasty.apply(serving(1, one.address)).await;
        let mut stream = BufReader::new(UnixStream::connect(&socket).await.unwrap());
        stream.write_all(b"{\"v\":1,\"op\":\"take_over\"}\n").await.unwrap();
        let mut reply = String::new();
        soon(stream.read_line(&mut reply)).await.unwrap();
        assert!(reply.contains("handed"), "{reply}");
        match said {
            "silence" => {
                let mut verdict = String::new();
                soon(stream.read_line(&mut verdict)).await.unwrap();
                assert!(verdict.contains("failed") && verdict.contains("was not ready"), "{verdict}");
                // Too late: the place is no longer on offer.
                stream.write_all(b"{\"v\":1,\"op\":\"ready\"}\n").await.unwrap();
                let mut refused = String::new();
                soon(stream.read_line(&mut refused)).await.unwrap();
                assert!(refused.contains("failed"), "{refused}");
            }
            said => stream.write_all(said.as_bytes()).await.unwrap(),
        }
        drop(stream);
        dynasty.apply(serving(2, two.address)).await;
        assert_eq!(client.get("/").await.text(), "two", "after {said:?}");
        assert_eq!(dynasty.connect().await.get("/").await.text(), "two");
        assert_eq!((dynasty.stats().await.pid, dynasty.elder_sockets()), (pid, 0), "after {said:?}");
    }
    dynasty.upgrade().await;
}

#[tokio::test]
async fn an_edge_that_is_ending_keeps_its_place_to_the_end() {
    let (_tell, events) = tokio::sync::watch::channel(0);
    let streaming = streaming(events).await;
    let mut dynasty = Dynasty::start().await;
    dynasty.apply(serving(9, streaming.address)).await;
    let mut stream = dynasty.connect().await;
    stream.send(STREAM).await;
    stream.read_to("\r\n\r\n").await;
    dynasty.client.shutdown(Duration::from_secs(60)).await.unwrap();
    let late = dynasty.spawn(&["--take-over"]);
    assert_eq!(dynasty.wait_code(late).await, Some(KEPT));
    drop(stream);
    dynasty.wait_living(0).await;
}

/// An edge that is only a socket: offers a place that consists of real files, as process `pid`, and then does `then`.
async fn offer<F: Future<Output = ()>>(
    folder: &Path,
    pid: u32,
    then: impl FnOnce(BufReader<UnixStream>) -> F,
) {
    let (control, state) = (folder.join("control.sock"), folder.join("state"));
    std::fs::create_dir_all(&state).unwrap();
    let lock = std::fs::File::create(state.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let clients = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    clients.set_nonblocking(true).unwrap();
    let orders = UnixListener::bind(control).unwrap();
    let (stream, _) = soon(orders.accept()).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut asked = String::new();
    soon(stream.read_line(&mut asked)).await.unwrap();
    assert!(asked.contains("take_over"), "{asked}");
    let handed = format!("{{\"v\":1,\"outcome\":\"handed\",\"pid\":{pid}}}\n");
    let files: [BorrowedFd<'_>; 3] = [clients.as_fd(), orders.as_fd(), lock.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    sendmsg(stream.get_ref(), &[IoSlice::new(handed.as_bytes())], &mut ancillary, SendFlags::empty())
        .unwrap();
    let mut ready = String::new();
    soon(stream.read_line(&mut ready)).await.unwrap();
    assert!(ready.contains("ready"), "{ready}");
    then(stream).await;
}

#[tokio::test]
async fn a_predecessor_that_lives_keeps_its_place_whatever_it_says_or_does_not() {
    for verdict in ["", "{\"v\":1,\"outcome\":\"failed\",\"message\":\"too late\"}\n", "nonsense\n"] {
        let mut dynasty = Dynasty::new();
        let folder = dynasty.folder.path().to_owned();
        let offered = tokio::spawn(async move {
            offer(&folder, std::process::id(), |mut stream| async move {
                stream.write_all(verdict.as_bytes()).await.unwrap();
            })
            .await;
        });
        until(|| async { dynasty.folder.path().join("control.sock").exists() }).await;
        let successor = dynasty.spawn(&["--take-over"]);
        assert_eq!(dynasty.wait_code(successor).await, Some(KEPT), "{verdict:?}");
        soon(offered).await.unwrap();
    }
}

#[tokio::test]
async fn a_predecessor_that_dies_in_the_last_moment_leaves_its_place_to_the_successor() {
    let mut dynasty = Dynasty::new();
    let folder = dynasty.folder.path().to_owned();
    let mut dies = Command::new("sleep").arg("600").spawn().unwrap();
    let offered = tokio::spawn(async move {
        offer(&folder, dies.id(), |stream| async move {
            dies.kill().unwrap();
            dies.wait().unwrap();
            drop(stream);
        })
        .await;
    });
    until(|| async { dynasty.folder.path().join("control.sock").exists() }).await;
    let successor = dynasty.spawn(&["--take-over"]);
    soon(offered).await.unwrap();
    assert_eq!(dynasty.stats().await.pid, successor);
    let lock = std::fs::File::open(dynasty.folder.path().join("state/lock")).unwrap();
    assert!(lock.try_lock().is_err(), "the lock came with the place");
    assert_eq!(dynasty.connect().await.get("/").await.status(), 404);
}

#[tokio::test]
async fn an_edge_on_another_state_is_not_succeeded() {
    let mut dynasty = Dynasty::start().await;
    let state = dynasty.folder.path().join("state");
    std::fs::rename(&state, dynasty.folder.path().join("moved")).unwrap();
    let successor = dynasty.spawn(&["--take-over"]);
    assert_eq!(dynasty.wait_code(successor).await, Some(KEPT));
    assert_eq!(dynasty.living().len(), 1);
    dynasty.stats().await;
}
