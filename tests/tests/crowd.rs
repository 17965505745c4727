//! As many slow connections as the limit of open files allows, ten thousand at most: heads that trickle, bodies that
//! stall, answers that nobody reads. Others are served meanwhile, and the edge's memory stays bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, listen};
use trackbed_tests::{Connection, LoneEdge, wait_for};

/// Slow connections in all, when files enough may be open.
const CROWD: usize = 10_000;
/// Of them, those that stall in the middle of a body, and those that do not read a large answer. The app is this
/// test, with a thread for each of them; and an unread answer takes some MB of kernel memory.
const STALLED_SHARE: usize = 10;
const UNREAD_SHARE: usize = 50;
/// An answer that no buffers of the kernel take in whole.
const LARGE_BYTES: usize = 16 << 20;
/// It is sent in pieces.
static PIECE: [u8; 1 << 18] = [b'l'; 1 << 18];
/// What the edge may ever have had in memory.
const MEMORY_MAX: u64 = 150 << 20;
/// Descriptors that edge and test need beside the crowd's, the ordinary clients' among them.
const RESERVED: usize = 256;
/// Above the edge's limit for a head, 10 s.
const CUT_LIMIT: Duration = Duration::from_secs(60);
/// Time between two bytes of a trickling head.
const TRICKLE: Duration = Duration::from_secs(1);
const READ_LIMIT: Duration = Duration::from_secs(30);
const HOST: &str = "lone.localhost";

/// An app that answers `/large` with a lot, swallows the bodies of `/body`, and answers the rest with `ok`.
fn start_app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    // The crowd comes at once, and must not keep others from the app's door.
    listen(&listener, Backlog::MAXCONN).expect("our socket");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let thread = std::thread::Builder::new().stack_size(64 << 10);
            // It ends with its connection.
            let _ = thread.spawn(move || answer(stream)).expect("a thread");
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => head.extend_from_slice(&bytes[..count]),
        }
    }
    if head.starts_with(b"GET /large ") {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\nConnection: close\r\n\r\n")?;
        for _ in 0..LARGE_BYTES / PIECE.len() {
            stream.write_all(&PIECE)?;
        }
        return Ok(());
    }
    if head.starts_with(b"POST /body ") {
        while stream.read(&mut bytes)? > 0 {}
        return Ok(());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

/// Raises the limit of open files as the edge does, and returns how many slow connections fit: at the edge each may take
/// two files, and so here, where both ends are.
fn crowd() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    let room = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(RESERVED * 2) / 2;
    let crowd = room.min(CROWD);
    eprintln!("{crowd} slow connections with {hard} open files");
    crowd
}

fn open(port: u16, begin: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the edge accepts");
    stream.write_all(begin.as_bytes()).expect("the edge takes a little");
    stream
}

/// Returns whether the edge has ended the connection, having read what it said.
fn is_cut(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("our socket");
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn ten_thousand_slow_connections_cost_little_memory_and_nobody_else_their_answer() {
    let crowd = crowd();
    let edge = LoneEdge::start(start_app());
    let (port, files, at_first) = (edge.port(), edge.open_files(), edge.peak_resident_bytes());
    let over = Arc::new(AtomicBool::new(false));
    let ordinary = std::thread::spawn({
        let over = over.clone();
        move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                let sent = Connection::send(port, HOST, "GET", "/", "Connection: close\r\n", b"");
                let answer = sent.and_then(Connection::read_all).expect("an ordinary request is answered");
                assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
                (count, slowest) = (count + 1, slowest.max(began.elapsed()));
                std::thread::sleep(Duration::from_millis(50));
            }
            (count, slowest)
        }
    });

    let stalled = format!("POST /body HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\nbegun");
    let stalled: Vec<TcpStream> = (0..crowd / STALLED_SHARE).map(|_| open(port, &stalled)).collect();
    let unread = format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut unread: Vec<TcpStream> = (0..crowd / UNREAD_SHARE).map(|_| open(port, &unread)).collect();
    let heads = crowd - stalled.len() - unread.len();
    let mut heads: Vec<TcpStream> = (0..heads).map(|_| open(port, "GET /trickle")).collect();
    // Both those that stall are with the app now, as their second file shows.
    let expected = files + stalled.len() * 2 + unread.len() * 2;
    wait_for("the edge has all requests", READ_LIMIT, || edge.open_files() >= expected);
    let (count, opened) = (heads.len(), Instant::now());
    eprintln!("{count} heads, {} bodies, {} unread answers", stalled.len(), unread.len());
    while !heads.is_empty() {
        assert!(opened.elapsed() < CUT_LIMIT, "{} of {count} heads trickle on", heads.len());
        heads.retain_mut(|head| !is_cut(head) && head.write_all(b"x").is_ok());
        std::thread::sleep(TRICKLE);
    }
    eprintln!("the last trickling head was cut after {:?}", opened.elapsed());
    over.store(true, Ordering::SeqCst);
    let (served, slowest) = ordinary.join().expect("ordinary requests are answered");
    let peak = edge.peak_resident_bytes();
    eprintln!(
        "{served} ordinary requests, slowest {slowest:?}; resident at first {} KiB, at most {} KiB",
        at_first >> 10,
        peak >> 10
    );
    assert!(served > 10, "hardly anything was asked beside the crowd: {served}");
    assert!(peak < MEMORY_MAX, "the edge had {peak} bytes");

    // Those that were slow for a reason are served in the end, whole.
    let reader = unread.first_mut().expect("one");
    reader.set_read_timeout(Some(READ_LIMIT)).expect("our socket");
    let (mut bytes, mut read) = (vec![0; 1 << 20], 0);
    while read < LARGE_BYTES {
        let count = reader.read(&mut bytes).expect("the answer goes on");
        assert!(count > 0, "cut after {read} bytes");
        read += count;
    }
    drop((stalled, unread));
    wait_for("the edge has closed everything", READ_LIMIT, || edge.open_files() <= files + 8);
}
