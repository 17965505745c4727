//! A client's connection: HTTP/1.1 as it is on the wire. Nothing is retried, nothing is merged.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for anything: above every limit of the platform, so that its own answer comes first.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest head or line of an answer, in bytes: what goes beyond is no answer of ours.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What went wrong, for people.
pub(super) type Fault = String;

pub(super) struct Wire {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// Head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    text: String,
}

impl Head {
    /// Value of a field, by its name in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(super) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

async fn within<T>(what: &str, work: impl Future<Output = std::io::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: nothing for {} s", LIMIT.as_secs())),
    }
}

impl Wire {
    pub(super) async fn connect(port: u16) -> Result<Wire, Fault> {
        let stream = within("connect", TcpStream::connect(("127.0.0.1", port))).await?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Wire { stream, bytes: Vec::new() })
    }

    /// Returns whether the other side has closed while nothing was asked of it. That is its right.
    pub(super) fn is_closed(&self) -> bool {
        let mut byte = [0];
        match self.stream.try_read(&mut byte) {
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        within("send", self.stream.write_all(bytes)).await
    }

    /// Reads more. Returns false at the end of the connection.
    async fn more(&mut self) -> Result<bool, Fault> {
        let count = within("read", self.stream.read_buf(&mut self.bytes)).await?;
        Ok(count > 0)
    }

    /// Reads up to a mark and returns what was before it.
    async fn read_to(&mut self, mark: &[u8]) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(at) = self.bytes.windows(mark.len()).position(|window| window == mark) {
                let taken = self.bytes[..at].to_vec();
                self.bytes.drain(..at + mark.len());
                return Ok(taken);
            }
            if self.bytes.len() > HEAD_BYTES_MAX {
                return Err("an endless line".to_owned());
            }
            if !self.more().await? {
                return Err(format!("cut off after {} bytes", self.bytes.len()));
            }
        }
    }

    pub(super) async fn read_exact(&mut self, count: usize) -> Result<Vec<u8>, Fault> {
        while self.bytes.len() < count {
            if !self.more().await? {
                return Err(format!("cut off {} bytes early", count - self.bytes.len()));
            }
        }
        Ok(self.bytes.drain(..count).collect())
    }

    pub(super) async fn read_head(&mut self) -> Result<Head, Fault> {
        let text = String::from_utf8_lossy(&self.read_to(b"\r\n\r\n").await?).into_owned();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok(Head { status: status.ok_or_else(|| format!("no answer: {text:?}"))?, text })
    }

    /// Reads the next chunk; empty is the last.
    pub(super) async fn read_chunk(&mut self) -> Result<Vec<u8>, Fault> {
        let line = self.read_to(b"\r\n").await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = usize::from_str_radix(&line, 16).map_err(|_| format!("{line:?} is no chunk size"))?;
        let mut chunk = self.read_exact(size + 2).await?;
        chunk.truncate(size);
        Ok(chunk)
    }

    pub(super) async fn read_body(&mut self, head: &Head) -> Result<Vec<u8>, Fault> {
        if head.field("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let chunk = self.read_chunk().await?;
                if chunk.is_empty() {
                    return Ok(body);
                }
                body.extend(chunk);
            }
        }
        let length = head.field("content-length").and_then(|length| length.parse().ok());
        self.read_exact(length.ok_or("an answer without a length")?).await
    }
}
