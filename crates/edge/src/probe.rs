//! A health probe: one request on one fresh connection, dialled exactly as the edge dials.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trackbed_core::ports::Probe;
use trackbed_core::route::Address;

use crate::dial::Dialler;
use crate::files::{self, Site};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, PROBE_QUOTE_BYTES_MAX, PROBE_QUOTE_TIME_MAX};
use crate::response::{Asked, Response, read_response};

/// How the question is asked: the connection is ours alone and ends with the answer.
const ASKED: Asked<'static> =
    Asked { is_head: false, is_http10: false, keeps_alive: false, wants_upgrade: false, id: b"" };

/// Asks once. Without a path an accepted connection is the answer.
pub(crate) async fn probe(address: &Address, path: Option<&str>, host: &str, limit: Duration) -> Probe {
    if let Some(site) = Site::of(&address.0) {
        return files::probe(site, path, limit).await;
    }
    let connecting = async {
        let dialler = Dialler::new(address)?;
        dialler.connect().await
    };
    let deadline = tokio::time::Instant::now() + limit;
    let stream = match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(stream)) => stream,
        // A namespace that cannot be entered is no refusal of the app, and the reason helps.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Probe::Refused,
        Ok(Err(error)) => return Probe::Broken { detail: format!("cannot connect: {error}") },
        Err(_) => return Probe::Refused,
    };
    let Some(path) = path else {
        return Probe::Answered { status: 200, detail: String::new() };
    };
    match tokio::time::timeout_at(deadline, ask(stream, path, host)).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(detail)) => Probe::Broken { detail },
        Err(_) => {
            Probe::Broken { detail: format!("no answer to GET {path} within {} ms", limit.as_millis()) }
        }
    }
}

async fn ask(mut stream: TcpStream, path: &str, host: &str) -> Result<Probe, String> {
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!("`{path}` cannot be asked for: a path has no spaces"));
    }
    let question = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Trackbed-Health\r\nConnection: close\r\n\r\n"
    );
    let unanswered = |error: io::Error| format!("no answer: {error}");
    stream.write_all(question.as_bytes()).await.map_err(unanswered)?;
    let mut bytes = Vec::new();
    let answer = loop {
        if let Some(answer) = find_answer(&mut bytes)? {
            break answer;
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(format!("the answer's head has more than {HEAD_BYTES_MAX} bytes"));
        }
        if stream.read_buf(&mut bytes).await.map_err(unanswered)? == 0 {
            return Err("the connection was closed without an answer".into());
        }
    };
    let status = answer.status;
    let location = location_of(&bytes[..answer.head_bytes]);
    if let Some(location) = location.filter(|_| (300..400).contains(&status)) {
        return Ok(Probe::Answered { status, detail: location });
    }
    let mut quote = Vec::new();
    let quoting = read_quote(&mut stream, answer, &mut bytes, &mut quote);
    let _ = tokio::time::timeout(PROBE_QUOTE_TIME_MAX, quoting).await;
    quote.truncate(PROBE_QUOTE_BYTES_MAX);
    Ok(Probe::Answered { status, detail: String::from_utf8_lossy(&quote).trim().to_owned() })
}

/// Returns the final answer once its head is whole; drops those before it.
fn find_answer(bytes: &mut Vec<u8>) -> Result<Option<Response>, String> {
    loop {
        let mut head = Vec::new();
        match read_response(bytes, &ASKED, &mut head) {
            Ok(Some(interim)) if interim.status < 200 => drop(bytes.drain(..interim.head_bytes)),
            Ok(answer) => return Ok(answer),
            Err(_) => return Err("the answer was not HTTP/1.1".into()),
        }
    }
}

/// Returns where a redirect leads.
fn location_of(head: &[u8]) -> Option<String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed.parse(head).ok()?;
    let location = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("location"))?;
    Some(String::from_utf8_lossy(location.value).into_owned())
}

/// Reads the first bytes of the body, as far as they come.
async fn read_quote(stream: &mut TcpStream, mut answer: Response, bytes: &mut Vec<u8>, quote: &mut Vec<u8>) {
    bytes.drain(..answer.head_bytes);
    while answer.body.take(bytes, |content| quote.extend_from_slice(content)).is_ok() {
        bytes.clear();
        let is_enough = answer.body.is_done() || quote.len() >= PROBE_QUOTE_BYTES_MAX;
        if is_enough || !matches!(stream.read_buf(bytes).await, Ok(1..)) {
            return;
        }
    }
}
