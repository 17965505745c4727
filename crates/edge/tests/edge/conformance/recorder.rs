//! The target behind the edge: reads requests as strictly as the RFC allows, answers each whole one, and remembers
//! everything, also what never became a request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A whole request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) method: String,
    pub(super) target: String,
    /// Names in lower case, values without surrounding blanks, in their order; text by Latin-1.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What arrived since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) requests: Vec<Arrived>,
    /// What no server should have to see.
    pub(super) malformed: Vec<String>,
    /// Connections with bytes after the last whole request, by number: a request that never ended, or something smuggled.
    pub(super) unfinished: Vec<(usize, String)>,
}

pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Mutex::new(Record::default()));
        let shared = Arc::clone(&record);
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                number += 1;
                tokio::spawn(attend(stream, number, Arc::clone(&shared)));
            }
        });
        Self { address, record }
    }

    /// Returns what arrived and forgets it.
    pub(super) fn take(&self) -> Record {
        std::mem::take(&mut *self.record.lock().unwrap())
    }

    /// Forgets the last request if it is the one for `target`. Returns whether it was.
    pub(super) fn take_back(&self, target: &str) -> bool {
        let mut record = self.record.lock().unwrap();
        record.requests.pop_if(|last| last.target == target).is_some()
    }

    /// Returns how many whole requests arrived so far.
    pub(super) fn count(&self) -> usize {
        self.record.lock().unwrap().requests.len()
    }
}

async fn attend(mut stream: TcpStream, number: usize, record: Arc<Mutex<Record>>) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut answers = 0;
        loop {
            match parse(&bytes) {
                Parsed::More => break,
                Parsed::Whole(arrived, length) => {
                    record.lock().unwrap().requests.push(arrived);
                    bytes.drain(..length);
                    answers += 1;
                }
                Parsed::Malformed(what) => {
                    let seen = String::from_utf8_lossy(&bytes).into_owned();
                    record.lock().unwrap().malformed.push(format!("{what}: {seen:?}"));
                    return;
                }
            }
        }
        note_unfinished(&record, number, &bytes);
        for _ in 0..answers {
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err() {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
}

fn note_unfinished(record: &Mutex<Record>, number: usize, bytes: &[u8]) {
    let mut record = record.lock().unwrap();
    record.unfinished.retain(|(known, _)| *known != number);
    if !bytes.is_empty() {
        record.unfinished.push((number, String::from_utf8_lossy(bytes).into_owned()));
    }
}

enum Parsed {
    More,
    Whole(Arrived, usize),
    Malformed(String),
}

fn is_token(text: &[u8]) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || special.contains(byte))
}

fn latin(text: &[u8]) -> String {
    text.iter().map(|byte| char::from(*byte)).collect()
}

/// Reads one request. Every line ends with CRLF, one blank between the parts of the first, no folding, no controls, one
/// framing, stated once.
fn parse(bytes: &[u8]) -> Parsed {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Parsed::More };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let bad = |what: &str| Parsed::Malformed(what.to_owned());
    let parts: Vec<&[u8]> = first.strip_suffix(b"\r").unwrap_or(first).split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return bad("the request line has not three parts") };
    let visible = |text: &[u8]| !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic());
    if !is_token(method) || !visible(target) || version != b"HTTP/1.1" {
        return bad("the request line is no request line");
    }
    let mut headers = Vec::new();
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return bad("a field without colon");
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let control = |byte: &u8| *byte == 127 || (*byte < 32 && *byte != b'\t');
        if !is_token(name) || value.iter().any(control) {
            return bad("a field with a name or value that is none");
        }
        headers.push((latin(name).to_lowercase(), latin(value)));
    }
    let all = |wanted: &str| -> Vec<&str> {
        let found = headers.iter().filter(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str()).collect()
    };
    let body = match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => Some((Vec::new(), 0)),
        ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let Ok(length) = length.parse::<usize>() else { return bad("a length that is too long") };
            bytes[end + 4..].get(..length).map(|body| (body.to_vec(), length))
        }
        ([coding], []) if coding.to_lowercase().split(',').next_back().map(str::trim) == Some("chunked") => {
            match chunks(&bytes[end + 4..]) {
                Ok(body) => body,
                Err(what) => return bad(what),
            }
        }
        _ => return bad("two framings, or one that is none"),
    };
    if all("host").len() != 1 {
        return bad("not exactly one host");
    }
    let Some((body, length)) = body else { return Parsed::More };
    let arrived = Arrived { method: latin(method), target: latin(target), headers, body };
    Parsed::Whole(arrived, end + 4 + length)
}

/// Reads a chunked body to its end: body and length on the wire, or none when more must come.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = &bytes[at..at + end];
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err("a chunk size that is none");
        }
        if line.contains(&b'\n') || line.contains(&b'\r') {
            return Err("a chunk extension with a line break");
        }
        let size = usize::from_str_radix(&latin(size), 16).map_err(|_| "a chunk size that is none")?;
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk without its end");
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        at += end + 2;
        if end == 0 {
            return Ok(Some((body, at)));
        }
        let name = bytes[at - end - 2..].split(|byte| *byte == b':').next().unwrap_or_default();
        let framing = ["content-length", "transfer-encoding", "host"];
        if !is_token(name) || framing.contains(&latin(name).to_lowercase().as_str()) {
            return Err("a trailer that is none, or may not be one");
        }
    }
}

pub(super) fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
