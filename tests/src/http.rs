//! HTTP as a raw client sees it: what arrives in one read is visible, nothing is merged or retried.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest silence of an answer, above every deadline of the box that a test waits for.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// An answer read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The head as it came, lower-cased names not guaranteed.
    pub head: String,
    /// The body, chunks joined.
    pub body: String,
}

/// An open connection, for what must be watched as it arrives.
pub struct Connection {
    /// The socket.
    pub stream: TcpStream,
}

impl Connection {
    /// Connects to the edge and sends a request head and body. `extra` are header lines, each with its end.
    pub fn send(
        port: u16,
        host: &str,
        method: &str,
        path: &str,
        extra: &str,
        body: &[u8],
    ) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{extra}\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        Ok(Self { stream })
    }

    /// Returns what one read gives; empty at the end.
    pub fn read_once(&mut self) -> std::io::Result<String> {
        let mut buffer = vec![0; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }

    /// Reads to the end of the connection.
    pub fn read_all(mut self) -> std::io::Result<Response> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {text:?}")))?;
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { dechunk(body)? } else { body.to_owned() };
        Ok(Response { status, head: head.to_owned(), body })
    }
}

/// Sends one request on a connection of its own and reads the answer to its end.
pub fn request(port: u16, host: &str, method: &str, path: &str, body: &str) -> std::io::Result<Response> {
    let extra = "Connection: close\r\nContent-Type: application/json\r\n";
    Connection::send(port, host, method, path, extra, body.as_bytes())?.read_all()
}

/// A GET.
pub fn get(port: u16, host: &str, path: &str) -> std::io::Result<Response> {
    request(port, host, "GET", path, "")
}

fn dechunk(mut text: &str) -> std::io::Result<String> {
    let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the chunked body is cut off");
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").ok_or_else(cut)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| cut())?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(rest.get(..size).ok_or_else(cut)?);
        text = rest.get(size + 2..).ok_or_else(cut)?;
    }
}
