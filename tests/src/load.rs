//! Everything that callers do at once, all the while: short requests on connections that are used again, bodies that
//! must be kept once acknowledged, event streams and WebSockets. What fails is remembered with its time.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::websocket;

/// Clients of each kind of short request, per service.
const CLIENTS: usize = 2;
/// Time between two requests of a client.
const PAUSE: Duration = Duration::from_millis(15);
/// A client comes with a new connection after so many requests.
const REQUESTS_PER_CONNECTION: usize = 20;
/// Longest silence of an answer, above every wait of the box.
const SILENCE_LIMIT: Duration = Duration::from_secs(90);

/// Something that was not answered as it should be.
#[derive(Debug)]
pub struct Failed {
    /// The service.
    pub service: String,
    /// What was asked, and what came.
    pub what: String,
    /// When it was asked.
    pub began: Instant,
    /// When it failed.
    pub ended: Instant,
}

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Short requests sent.
    pub requests: usize,
    /// Keys of bodies that were acknowledged, with their service.
    pub acknowledged: Vec<(String, String)>,
    /// Requests that failed.
    pub failures: Vec<Failed>,
    /// Answers that nothing excuses: another's, out of order, or altered.
    pub wrong: Vec<String>,
    /// Streams opened.
    pub streams: usize,
    /// Events and frames that came over them.
    pub messages: usize,
    /// The longest wait for an answer.
    pub slowest: Duration,
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Load {
    /// Starts all kinds of clients for each service. They speak to the app `tests/fixtures/writer`.
    pub fn start(port: u16, services: &[&str]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        let kinds: [(usize, Work); 4] =
            [(CLIENTS, Client::get), (CLIENTS, Client::post), (1, Client::events), (1, Client::frames)];
        for service in services {
            for (count, work) in kinds {
                for _ in 0..count {
                    let mut client = Client {
                        port,
                        service: (*service).to_owned(),
                        number: clients.len(),
                        stop: stop.clone(),
                        connection: None,
                        used: 0,
                        seen: Seen::default(),
                    };
                    clients.push(std::thread::spawn(move || {
                        while !client.is_over() {
                            work(&mut client);
                            std::thread::sleep(PAUSE);
                        }
                        client.seen
                    }));
                }
            }
        }
        Load { stop, clients }
    }

    /// Lets the last requests finish and returns what all clients saw.
    pub fn end(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        let mut whole = Seen::default();
        for client in self.clients {
            let seen = client.join().expect("a client does not panic");
            whole.requests += seen.requests;
            whole.acknowledged.extend(seen.acknowledged);
            whole.failures.extend(seen.failures);
            whole.wrong.extend(seen.wrong);
            whole.streams += seen.streams;
            whole.messages += seen.messages;
            whole.slowest = whole.slowest.max(seen.slowest);
        }
        whole
    }
}

/// One request, or one stream to its end.
type Work = fn(&mut Client);

struct Client {
    port: u16,
    service: String,
    number: usize,
    stop: Arc<AtomicBool>,
    connection: Option<BufReader<TcpStream>>,
    /// Requests sent over the connection.
    used: usize,
    seen: Seen,
}

impl Client {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn get(&mut self) {
        let service = self.service.clone();
        if let Some((status, body)) = self.ask("GET", "/identity", "")
            && (status != 200 || !body.starts_with(&format!("{service} v")))
        {
            self.seen.wrong.push(format!("{service}: GET /identity: {status} {body}"));
        }
    }

    fn post(&mut self) {
        let key = format!("{}-{}-{}", self.service, self.number, self.seen.requests);
        // Some fit into one packet with their head, others into none.
        let body = format!("{key} {}", "b".repeat(self.seen.requests * 7919 % 40_000));
        if let Some((status, answer)) = self.ask("POST", "/rows", &body) {
            if status != 201 || answer != body.len().to_string() {
                let wrong = format!("{key} with {} bytes: {status} {answer}", body.len());
                self.seen.wrong.push(wrong);
            }
            self.seen.acknowledged.push((self.service.clone(), key));
        }
    }

    /// Sends a request and returns what the app answered; none when it failed.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let began = Instant::now();
        self.seen.requests += 1;
        if self.used >= REQUESTS_PER_CONNECTION {
            self.connection = None;
        }
        let answer = self.exchange(method, path, body);
        self.seen.slowest = self.seen.slowest.max(began.elapsed());
        match answer {
            Ok((status, answer)) if status < 500 => return Some((status, answer)),
            // The app never says so: it is the edge that has nobody to ask.
            Ok((status, answer)) => self.fail(began, format!("{method} {path}: {status} {answer}")),
            Err(error) => {
                let way = if self.used > 1 { "a connection used before" } else { "a new connection" };
                self.connection = None;
                self.fail(began, format!("{method} {path}, {} bytes, on {way}: {error}", body.len()));
            }
        }
        None
    }

    fn fail(&mut self, began: Instant, what: String) {
        let failed = Failed { service: self.service.clone(), what, began, ended: Instant::now() };
        self.seen.failures.push(failed);
    }

    fn connect(&self) -> std::io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_LIMIT))?;
        stream.set_write_timeout(Some(SILENCE_LIMIT))?;
        Ok(BufReader::new(stream))
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.used = 0;
                self.connect()?
            }
        };
        self.used += 1;
        let (service, port, length) = (&self.service, self.port, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {service}.localhost:{port}\r\nContent-Length: {length}\r\n\r\n"
        );
        connection.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        let (status, fields) = read_head(&mut connection)?;
        let length = fields.iter().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|text| text.trim().parse().ok());
        let mut body = vec![0; length.ok_or_else(|| Error::other(format!("no length: {fields:?}")))?];
        connection.read_exact(&mut body)?;
        if !fields.iter().any(|line| line.starts_with("connection:") && line.contains("close")) {
            self.connection = Some(connection);
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Opens a stream; none when it failed.
    fn open(&mut self, path: &str, extra: &str, expected: u16) -> Option<BufReader<TcpStream>> {
        let began = Instant::now();
        let opened = self.connect().and_then(|mut connection| {
            let (service, port) = (&self.service, self.port);
            write!(
                connection.get_mut(),
                "GET {path} HTTP/1.1\r\nHost: {service}.localhost:{port}\r\n{extra}\r\n"
            )?;
            let (status, _) = read_head(&mut connection)?;
            if status == expected { Ok(connection) } else { Err(Error::other(format!("status {status}"))) }
        });
        match opened {
            Ok(connection) => {
                self.seen.streams += 1;
                Some(connection)
            }
            Err(error) => {
                self.fail(began, format!("opening {path}: {error}"));
                None
            }
        }
    }

    /// Reads events until the stream ends: none may be missing or come twice.
    fn events(&mut self) {
        let Some(mut connection) = self.open("/events", "Accept: text/event-stream\r\n", 200) else { return };
        let (mut line, mut next) = (String::new(), 0);
        while !self.is_over() {
            line.clear();
            // Broken off, or ended in good order: by the last chunk, after which the connection stays open.
            if !matches!(connection.read_line(&mut line), Ok(1..)) || line == "0\r\n" {
                return;
            }
            // What was cut in its middle has no end of line.
            let Some(number) = line.strip_prefix("data: ").and_then(|text| text.strip_suffix('\n')) else {
                continue;
            };
            if number.parse() != Ok(next) {
                self.seen.wrong.push(format!("{}: event {number} instead of {next}", self.service));
                return;
            }
            next += 1;
            self.seen.messages += 1;
        }
    }

    /// Sends frames until the WebSocket ends: each must come back.
    fn frames(&mut self) {
        let Some(mut connection) = self.open("/ws", websocket::UPGRADE, 101) else { return };
        while !self.is_over() {
            let text = format!("frame {}", self.seen.messages).into_bytes();
            if connection.get_mut().write_all(&websocket::frame(1, &text)).is_err() {
                return;
            }
            match websocket::read_frame(&mut connection) {
                Ok((1, back)) if back == text => self.seen.messages += 1,
                // The edge or the app says goodbye.
                Ok((8, _)) | Err(_) => return,
                Ok(other) => {
                    self.seen.wrong.push(format!("{}: frame {other:?} for {text:?}", self.service));
                    return;
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Reads a head: its status and its fields in lower case.
fn read_head(connection: &mut impl BufRead) -> std::io::Result<(u16, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            let what = if lines.is_empty() { "no answer" } else { "the head is cut off" };
            return Err(Error::new(ErrorKind::UnexpectedEof, what));
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_lowercase());
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| Error::other(format!("not HTTP: {lines:?}")))?;
    Ok((status, lines))
}
