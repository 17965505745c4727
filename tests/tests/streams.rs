//! What flows: events one by one, upgraded connections, large bodies, connections that are used again; and the edge's
//! own pages.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use trackbed_tests::{App, Connection, TestBox, Traffic, assistant, get, request, wait_for};

/// An event stream that is read as it arrives.
struct Events {
    connection: Connection,
    text: String,
}

impl Events {
    fn open(port: u16, service: &str, method: &str, path: &str, body: &str) -> Events {
        let host = format!("{service}.localhost:{port}");
        let extra = "Accept: text/event-stream\r\nContent-Type: application/json\r\n";
        let connection = Connection::send(port, &host, method, path, extra, body.as_bytes());
        let mut events = Events { connection: connection.expect("the edge answers"), text: String::new() };
        let head = events.next_ending("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        events
    }

    /// Reads on until what has come since the last call ends like this, and returns all of it.
    fn next_ending(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let read = self.connection.read_once().expect("the stream goes on");
            assert!(!read.is_empty(), "the stream ended after {:?}", self.text);
            self.text.push_str(&read);
        }
    }

    /// Reads to the end and returns the numbers of all events.
    fn rest(mut self) -> (Vec<usize>, bool) {
        while !self.text.ends_with("0\r\n\r\n") {
            match self.connection.read_once() {
                Ok(read) if !read.is_empty() => self.text.push_str(&read),
                Ok(_) | Err(_) => break,
            }
        }
        let numbers = self.text.lines().filter_map(|line| line.strip_prefix("data: ")?.trim().parse().ok());
        (numbers.collect(), self.text.ends_with("0\r\n\r\n"))
    }
}

#[test]
fn no_two_events_are_coalesced() {
    const COUNT: usize = 50;
    let town = TestBox::start();
    town.up_ok(&App::plain("lockstep").path());
    let port = town.port();
    let mut events = Events::open(port, "lockstep", "GET", &format!("/lockstep?{}", COUNT + 1), "");
    assert_eq!(events.text, "", "nothing comes before it was sent");
    for number in 0..COUNT {
        // The app makes the next event only now; it comes all the same, alone and whole.
        assert_eq!(town.get("lockstep", "/confirm").body, "go on");
        let event = events.next_ending("\n\n\r\n");
        assert_eq!(
            event.to_lowercase(),
            format!("{:x}\r\ndata: {number}\n\n\r\n", format!("data: {number}\n\n").len())
        );
        assert_eq!(events.text, "", "nothing comes along with event {number}");
    }
    assert_eq!(town.get("lockstep", "/confirm").body, "go on");
    assert!(events.next_ending("0\r\n\r\n").ends_with("\n\n\r\n0\r\n\r\n"));
}

#[test]
fn the_assistant_streams_its_reply_event_by_event() {
    let town = TestBox::start();
    town.up_ok(&assistant().path());
    let made = town.request("assistant", "POST", "/threads", r#"{"title": "A talk"}"#);
    assert_eq!(made.status, 201, "{made:?}");
    let made: serde_json::Value = serde_json::from_str(&made.body).expect("JSON");
    let path = format!("/threads/{}/chat", made["id"]);
    let mut events = Events::open(town.port(), "assistant", "POST", &path, r#"{"message": "Hello"}"#);
    let (mut reads, mut count, mut most) = (0, 0, 0);
    let first = Instant::now();
    while !events.text.ends_with("0\r\n\r\n") {
        let read = events.connection.read_once().expect("the stream goes on");
        let in_read = read.matches("data:").count();
        reads += usize::from(in_read > 0);
        count += in_read;
        most = most.max(in_read);
        events.text.push_str(&read);
    }
    eprintln!("{count} events in {reads} reads, at most {most} in one, in {:?}", first.elapsed());
    assert!(count >= 10, "{count} events: {}", events.text);
    assert!(reads >= 5, "{count} events came in {reads} reads");
    assert!(events.text.contains("event: done"), "{}", events.text);
}

#[test]
fn a_stream_goes_on_while_the_release_is_replaced_beside_it() {
    let town = TestBox::start();
    let app = App::plain("overlap");
    town.up_ok(&app.path());
    let port = town.port();
    let mut events = Events::open(port, "overlap", "GET", "/events?150", "");
    events.next_ending("data: 3\n\n");
    town.up_ok(&app.version("two").path());
    assert_eq!(town.get("overlap", "/version").body, "two");
    assert_eq!(town.living_instances().len(), 2, "the old release finishes its stream");
    let (numbers, whole) = events.rest();
    assert!(whole, "cut after {numbers:?}");
    assert_eq!(numbers, (4..150).collect::<Vec<_>>());
    wait_for("the old release is retired", Duration::from_secs(10), || town.living_instances().len() == 1);
}

#[test]
fn a_stream_that_never_ends_is_ended_whole_at_the_drain_limit() {
    let town = TestBox::start();
    let app = App::plain("endless");
    app.write(
        "railway.json",
        r#"{"deploy": {"startCommand": "python app.py", "healthcheckPath": "/health", "drainingSeconds": 1}}"#,
    );
    town.up_ok(&app.path());
    let mut events = Events::open(town.port(), "endless", "GET", "/events?100000", "");
    events.next_ending("data: 3\n\n");
    town.up_ok(&app.version("two").path());
    let (numbers, whole) = events.rest();
    assert!(whole && (11..99_000).contains(&numbers.len()), "{} events, whole: {whole}", numbers.len());
    wait_for("the old release is retired", Duration::from_secs(10), || town.living_instances().len() == 1);
}

#[test]
fn a_held_redeploy_lets_a_stream_finish_before_anybody_waits() {
    let town = TestBox::start();
    let app = App::plain("polite");
    town.up_ok(&app.with_volume("/data").path());
    let port = town.port();
    let mut events = Events::open(port, "polite", "GET", "/events?60", "");
    events.next_ending("data: 3\n\n");
    let traffic = Traffic::get(port, "polite", 1, Duration::from_millis(10));
    let path = app.version("two").path();
    let (numbers, whole) = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| town.up_ok(&path));
        let rest = events.rest();
        assert_eq!(town.living_instances().len(), 1);
        deploy.join().expect("the deployment succeeds");
        rest
    });
    assert!(whole, "cut after {numbers:?}");
    assert_eq!(numbers, (4..60).collect::<Vec<_>>());
    assert_eq!(traffic.end().failures, Vec::<String>::new());
    assert_eq!(town.get("polite", "/version").body, "two");
}

/// A WebSocket frame with a final fragment from a client.
fn frame(opcode: u8, body: &[u8]) -> Vec<u8> {
    let mask = [7, 1, 200, 99];
    let mut bytes = vec![0x80 | opcode];
    match u16::try_from(body.len()).expect("a test's frame is small") {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).expect("below 126")),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn read_frame(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut length = usize::from(head[1]);
    if length == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long)?;
        length = usize::from(u16::from_be_bytes(long));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head[0] & 15, body))
}

#[test]
fn a_websocket_echoes_through_the_edge_and_outlives_a_redeploy() {
    let town = TestBox::start();
    let app = App::plain("socket");
    town.up_ok(&app.path());
    let port = town.port();
    let extra = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let host = format!("socket.localhost:{port}");
    let mut connection = Connection::send(port, &host, "GET", "/ws", extra, b"").expect("the edge answers");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push_str(&connection.read_once().expect("an answer"));
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // The example of RFC 6455.
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let mut stream = connection.stream;
    for size in [0, 5, 125, 126, 20_000] {
        let body = vec![b'w'; size];
        stream.write_all(&frame(2, &body)).expect("the tunnel is open");
        assert_eq!(read_frame(&mut stream).expect("an echo"), (2, body));
    }
    town.up_ok(&app.version("two").path());
    assert_eq!(town.get("socket", "/version").body, "two");
    stream.write_all(&frame(1, b"still here")).expect("the tunnel is open");
    assert_eq!(read_frame(&mut stream).expect("an echo"), (1, b"still here".to_vec()));
    stream.write_all(&frame(8, b"")).expect("the tunnel is open");
    assert_eq!(read_frame(&mut stream).expect("the answer to a close"), (8, Vec::new()));
    drop(stream);
    wait_for("the old release is retired", Duration::from_secs(10), || town.living_instances().len() == 1);
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

#[test]
fn large_bodies_arrive_whole_both_ways() {
    const SIZE: usize = 20 << 20;
    let town = TestBox::start();
    town.up_ok(&App::plain("bulk").path());
    let port = town.port();
    let host = format!("bulk.localhost:{port}");
    let upload: Vec<u8> =
        (0..SIZE).map(|place| u8::try_from(place * 131 % 251).expect("below 251")).collect();
    let sent = Connection::send(port, &host, "POST", "/adler", "Connection: close\r\n", &upload);
    let answer = sent.and_then(Connection::read_all).expect("an answer");
    assert_eq!(answer.body, format!("{SIZE} {}", adler32(&upload)));
    let download = get(port, &host, &format!("/blob?{SIZE}")).expect("an answer");
    let expected = (0..SIZE).map(|place| u8::try_from(32 + place % 95 * 31 % 95).expect("ASCII"));
    assert_eq!(download.body.len(), SIZE);
    assert!(download.body.bytes().eq(expected), "the download is not what was sent");
}

/// Sends a request on an open connection and reads exactly its answer, by its length.
fn exchange(stream: &mut TcpStream, host: &str, method: &str, path: &str) -> (String, String) {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("the connection is open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the head goes on");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ASCII").to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize =
        length.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no length: {head}"));
    let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
    stream.read_exact(&mut body).expect("the body");
    (head, String::from_utf8(body).expect("text"))
}

#[test]
fn connections_are_used_again_on_both_sides_of_the_edge() {
    let town = TestBox::start();
    town.up_ok(&App::plain("again").path());
    let port = town.port();
    let host = format!("again.localhost:{port}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the edge listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    let mut peers: Vec<String> = (0..50).map(|_| exchange(&mut stream, &host, "GET", "/peer").1).collect();
    peers.dedup();
    assert_eq!(peers.len(), 1, "the edge dialled the app anew");
    // A HEAD has the length of the body and no body: what follows on the connection is the next answer.
    for _ in 0..3 {
        let (head, body) = exchange(&mut stream, &host, "HEAD", "/version");
        assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 3\r\n"), "{head}");
        assert_eq!(body, "");
        assert_eq!(exchange(&mut stream, &host, "GET", "/version").1, "one");
    }
    assert_eq!(exchange(&mut stream, &host, "GET", "/nowhere").1, "no such path");
    let (head, page) = exchange(&mut stream, "elsewhere.localhost", "GET", "/");
    assert!(head.starts_with("http/1.1 404") && page.contains("unknown_host"), "{head}{page}");
    assert_eq!(exchange(&mut stream, &host, "GET", "/version").1, "one");
}

#[test]
fn an_unknown_host_gets_a_page_that_says_so() {
    let town = TestBox::start();
    let port = town.port();
    let plain = get(port, "nobody.localhost", "/").expect("the edge answers");
    assert_eq!(plain.status, 404);
    let error: serde_json::Value = serde_json::from_str(&plain.body).expect("JSON");
    assert_eq!(error["error"]["code"], "unknown_host");
    let browser = Connection::send(
        port,
        "<b>evil</b>.localhost",
        "GET",
        "/",
        "Accept: text/html\r\nConnection: close\r\n",
        b"",
    );
    let page = browser.and_then(Connection::read_all).expect("the edge answers");
    assert!(page.status == 400 || page.status == 404, "{page:?}");
    assert!(!page.body.contains("<b>evil"), "{page:?}");
    let named = Connection::send(
        port,
        "nobody.localhost",
        "GET",
        "/",
        "Accept: text/html\r\nConnection: close\r\n",
        b"",
    );
    let page = named.and_then(Connection::read_all).expect("the edge answers");
    assert_eq!(page.status, 404);
    assert!(
        page.head.to_lowercase().contains("text/html") && page.body.contains("nobody.localhost"),
        "{page:?}"
    );
}

#[test]
fn a_first_deployment_shows_a_page_until_it_is_healthy() {
    let town = TestBox::start();
    let app = App::plain("early");
    let path = app.path().to_string_lossy().into_owned();
    let set = town.trackbed(&["variables", "set", "START_DELAY=2", "--service", "early"]);
    assert_eq!(set.code, 0, "{set:?}");
    let up = town.trackbed(&["up", &path, "--detach"]);
    assert_eq!(up.code, 0, "{up:?}");
    let port = town.port();
    let ask = || request(port, "early.localhost", "GET", "/version", "").expect("the edge answers");
    wait_for("the edge knows the new service", Duration::from_secs(1), || ask().status != 404);
    let early = ask();
    assert_eq!(early.status, 503, "{early:?}");
    assert!(early.body.contains("service_starting"), "{early:?}");
    assert!(early.head.to_lowercase().contains("retry-after:"), "{early:?}");
    let mut seen = vec![early.status];
    wait_for("it is healthy", Duration::from_secs(20), || {
        seen.push(ask().status);
        seen.last() == Some(&200)
    });
    seen.dedup();
    assert_eq!(seen, [503, 200], "nothing but the page, then the app");
}
