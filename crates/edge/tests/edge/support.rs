//! What the tests are built with: an edge on a free port, a raw HTTP client, and targets scripted connection by
//! connection.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use trackbed_core::ports::Edge;
use trackbed_core::route::{Address, DownReason, EdgeStats, Route, RouteTable, Target, UpstreamState};
use trackbed_core::{InstanceId, ServiceId};
use trackbed_edge::{Config, EdgeClient, EdgeError};

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what should happen soon.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("this should have happened long ago")
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    soon(async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) struct TestEdge {
    pub(crate) address: SocketAddr,
    pub(crate) client: Arc<EdgeClient>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    sequence: AtomicU64,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<(), EdgeError>>>,
}

impl TestEdge {
    pub(crate) async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap())).await
    }

    pub(crate) async fn start_in(folder: Arc<tempfile::TempDir>) -> Self {
        Self::start_so(folder, |_| {}).await
    }

    /// One worker has one set of idle upstream connections.
    pub(crate) async fn start_with_workers(workers: usize) -> Self {
        Self::start_so(Arc::new(tempfile::tempdir().unwrap()), |config| config.workers = workers).await
    }

    pub(crate) async fn start_so(folder: Arc<tempfile::TempDir>, change: impl FnOnce(&mut Config)) -> Self {
        let control_socket = folder.path().join("control.sock");
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            control_socket: control_socket.clone(),
            state_dir: folder.path().join("state"),
            workers: 2,
            connections_per_source: 0,
        };
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || serve(&config, stopped));
        let client = Arc::new(EdgeClient::new(control_socket));
        until(|| async { client.stats().await.is_ok() }).await;
        let stats = client.stats().await.unwrap();
        let sequence = AtomicU64::new(stats.sequence);
        let address = stats.listen.parse().unwrap();
        Self { address, client, folder, sequence, stop: Some(stop), thread: Some(thread) }
    }

    /// Ends it as SIGTERM would, and returns its folder for the next one.
    pub(crate) async fn stop(mut self) -> Arc<tempfile::TempDir> {
        drop(self.stop.take());
        let thread = self.thread.take().unwrap();
        soon(tokio::task::spawn_blocking(move || thread.join())).await.unwrap().unwrap().unwrap();
        Arc::clone(&self.folder)
    }

    /// Puts these in force and nothing else.
    pub(crate) async fn apply(&self, routes: &[(&str, UpstreamState)]) {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        self.client.apply(&table(sequence, routes)).await.unwrap();
    }

    /// Applies one route, `a.test`, to a target with instance number `instance`.
    pub(crate) async fn serve(&self, instance: u8, address: SocketAddr) {
        self.apply(&[("a.test", serving(instance, address))]).await;
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), rest: Vec::new() }
    }

    pub(crate) async fn stats(&self) -> EdgeStats {
        self.client.stats().await.unwrap()
    }

    pub(crate) async fn in_flight(&self, number: u8) -> u64 {
        self.stats().await.targets.get(instance(number).as_str()).map_or(0, |stats| stats.in_flight)
    }

    pub(crate) async fn parked(&self) -> u64 {
        self.stats().await.parked.values().map(|parked| parked.now).sum()
    }
}

pub(crate) fn serve(config: &Config, stopped: oneshot::Receiver<()>) -> Result<(), EdgeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(trackbed_edge::serve(config, async move {
        let _ = stopped.await;
    }))
}

pub(crate) fn config_in(folder: &tempfile::TempDir, listen: SocketAddr) -> Config {
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    Config {
        listen,
        control_socket: path("control.sock"),
        state_dir: path("state"),
        workers: 1,
        connections_per_source: 0,
    }
}

pub(crate) fn instance(number: u8) -> InstanceId {
    InstanceId::from_random([number; 10])
}

pub(crate) fn serving(number: u8, address: SocketAddr) -> UpstreamState {
    UpstreamState::Serving { target: target(number, address) }
}

pub(crate) fn target(number: u8, address: SocketAddr) -> Target {
    Target { instance: instance(number), address: Address(format!("tcp:{address}")) }
}

pub(crate) fn parked(limit: Duration) -> UpstreamState {
    UpstreamState::Parked { limit }
}

pub(crate) fn down(reason: DownReason) -> UpstreamState {
    UpstreamState::Down { reason }
}

pub(crate) fn table(sequence: u64, routes: &[(&str, UpstreamState)]) -> RouteTable {
    let route = |(host, upstream): &(&str, UpstreamState)| {
        let first = host.bytes().next().unwrap();
        let service = ServiceId::from_random([first; 10]);
        (host.parse().unwrap(), Route { service, name: (*host).to_owned(), upstream: upstream.clone() })
    };
    RouteTable { sequence, routes: routes.iter().map(route).collect(), ..RouteTable::default() }
}

/// A raw client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    rest: Vec<u8>,
}

/// An answer, or a request as a target saw it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let pair = |line: &'_ str| line.split_once(':').map(|(_, value)| value.trim().len());
        self.head
            .lines()
            .skip(1)
            .find(|line| line.split(':').next().unwrap().eq_ignore_ascii_case(name) && pair(line).is_some())
            .map(|line| line.split_once(':').unwrap().1.trim())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, rest: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: impl AsRef<[u8]>) {
        soon(self.stream.write_all(text.as_ref())).await.unwrap();
    }

    /// Sends a GET for `a.test` and returns the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        self.message().await
    }

    /// Reads more bytes; returns how many came, 0 at the end.
    async fn more(&mut self) -> usize {
        let mut buffer = vec![0; 16 * 1024];
        let count = soon(self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.rest.extend_from_slice(&buffer[..count]);
        count
    }

    /// Returns exactly what one read brings, or what is left from before.
    pub(crate) async fn read_once(&mut self) -> Vec<u8> {
        if self.rest.is_empty() {
            self.more().await;
        }
        std::mem::take(&mut self.rest)
    }

    /// Reads up to and including `mark`; panics at the end of the connection.
    pub(crate) async fn read_to(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.rest.windows(mark.len()).position(|window| window == mark.as_bytes()) {
                let taken: Vec<u8> = self.rest.drain(..at + mark.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            let seen = String::from_utf8_lossy(&self.rest).into_owned();
            assert!(self.more().await > 0, "ended before {mark:?}, after {seen:?}");
        }
    }

    pub(crate) async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.rest.len() < count {
            assert!(self.more().await > 0, "ended {} bytes early", count - self.rest.len());
        }
        self.rest.drain(..count).collect()
    }

    /// Reads a whole message: by length, by chunks (trailers are dropped), or none.
    pub(crate) async fn message(&mut self) -> Message {
        let head = self.read_to("\r\n\r\n").await;
        let mut message = Message { head, body: Vec::new() };
        if message.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(self.read_to("\r\n").await.trim(), 16).unwrap();
                if size == 0 {
                    while self.read_to("\r\n").await != "\r\n" {}
                    return message;
                }
                message.body.extend(self.read_exact(size).await);
                self.read_exact(2).await;
            }
        }
        let length = message.header("content-length").map_or(0, |length| length.parse().unwrap());
        message.body = self.read_exact(length).await;
        message
    }

    /// Waits for the other side to close; returns what came before.
    pub(crate) async fn wait_closed(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.rest)
    }
}

/// A target: every accepted connection is given to a script, with its number from 1.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) async fn start<F, S>(script: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Client, usize) -> F + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(script(Client::over(stream), number));
            }
        });
        Self { address, connections }
    }

    /// Answers every request with `text` and keeps its connections.
    pub(crate) async fn saying(text: &'static str) -> Self {
        Self::start(move |mut connection, _| async move {
            while connection.try_message().await.is_some() {
                let length = text.len();
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}")).await;
            }
        })
        .await
    }

    /// Answers every request with its own head, as text.
    pub(crate) async fn mirror() -> Self {
        Self::start(|mut connection, _| async move {
            while let Some(request) = connection.try_message().await {
                let (length, head) = (request.head.len(), &request.head);
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}")).await;
            }
        })
        .await
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Client {
    /// Reads a whole message, or none when the connection ends first.
    pub(crate) async fn try_message(&mut self) -> Option<Message> {
        while self.rest.is_empty() {
            // An idle connection may wait for longer than the test's patience.
            let mut buffer = vec![0; 16 * 1024];
            let count = self.stream.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.rest.extend_from_slice(&buffer[..count]);
        }
        Some(self.message().await)
    }
}
