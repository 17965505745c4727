//! The clients: each goes on until told to stop, with one connection at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::tally::{Tally, count};
use super::wire::{Fault, Wire};

/// Pause after something failed, so that an outage is not counted a million times.
const AFTER_FAULT: Duration = Duration::from_millis(50);
/// Events of a stream that ends by itself.
const EVENTS: u64 = 20;
/// Longest body of a POST, in bytes, beyond its name.
const BODY_BYTES_MAX: usize = 6000;

/// What a client needs to know. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) port: u16,
    pub(super) host: Arc<str>,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) number: usize,
}

impl Client {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn fail(&self, what: Fault) {
        self.tally.fail(format!("{} client {}: {what}", self.host, self.number));
        tokio::time::sleep(AFTER_FAULT).await;
    }

    /// GET and POST by turns on one keep-alive connection, `posts` of ten being POSTs.
    pub(super) async fn short_requests(self, posts: usize) {
        let (mut wire, mut number) = (None, 0);
        while !self.stopped() {
            number += 1;
            let name = format!("{}.{number}", self.number);
            let body = match number % 10 < posts {
                true => format!("{name} {}", "b".repeat(number * 7919 % BODY_BYTES_MAX)),
                false => String::new(),
            };
            let began = Instant::now();
            match self.short_request(&mut wire, body.as_bytes()).await {
                Ok(()) if body.is_empty() => count(&self.tally.gets),
                Ok(()) => {
                    count(&self.tally.posts);
                    self.tally.acknowledge(name);
                }
                Err(fault) => {
                    wire = None;
                    let verb = if body.is_empty() { "GET" } else { "POST" };
                    self.fail(format!("{verb} after {:?}: {fault}", began.elapsed())).await;
                    continue;
                }
            }
            self.tally.waited(began.elapsed());
        }
    }

    async fn short_request(&self, kept: &mut Option<Wire>, body: &[u8]) -> Result<(), Fault> {
        if kept.as_ref().is_some_and(Wire::is_closed) {
            *kept = None;
            count(&self.tally.reconnects);
        }
        let wire = match kept {
            Some(wire) => wire,
            None => kept.insert(Wire::connect(self.port).await?),
        };
        let line = if body.is_empty() { "GET /version" } else { "POST /notes" };
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{line} HTTP/1.1\r\nHost: {}\r\n{length}\r\n", self.host);
        wire.send(&[head.as_bytes(), body].concat()).await?;
        let head = wire.read_head().await?;
        let answer = wire.read_body(&head).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let right = match body {
            [] => head.status == 200 && answer.parse::<u64>().is_ok(),
            body => head.status == 201 && answer == format!("{} {}", body.len(), adler32(body)),
        };
        if !right {
            return Err(format!("{} {:.200}", head.status, answer.replace('\n', " ")));
        }
        if head.closes() {
            *kept = None;
        }
        Ok(())
    }

    /// Event streams one after the other: `endless`, or those that end by themselves.
    pub(super) async fn event_streams(self, endless: bool) {
        while !self.stopped() {
            if let Err(fault) = self.event_stream(endless).await {
                self.fail(fault).await;
            }
        }
    }

    async fn event_stream(&self, endless: bool) -> Result<(), Fault> {
        let mut wire = Wire::connect(self.port).await?;
        let wanted = if endless { 0 } else { EVENTS };
        let head = format!(
            "GET /events?{wanted} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
            self.host
        );
        wire.send(head.as_bytes()).await?;
        let head = wire.read_head().await?;
        if head.status != 200 {
            return Err(format!("event stream: {}", head.status));
        }
        let (mut text, mut next) = (String::new(), 0_u64);
        let mut hint = false;
        loop {
            if self.stopped() {
                return Ok(());
            }
            let chunk = match wire.read_chunk().await {
                Ok(chunk) => chunk,
                Err(fault) => {
                    // It was open and useful, so it is no failed request; but it was not ended, it was cut.
                    count(&self.tally.cut);
                    let place = if text.is_empty() { "between events" } else { "inside an event" };
                    self.tally.example(format!("{}: stream cut {place}: {fault}", self.host));
                    return Ok(());
                }
            };
            if chunk.is_empty() {
                break;
            }
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some(at) = text.find("\n\n") {
                let event: String = text.drain(..at + 2).collect();
                hint |= event.lines().any(|line| line.starts_with("retry:"));
                let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
                if data.split(' ').next().and_then(|word| word.parse().ok()) != Some(next) {
                    return Err(format!("event stream: event {next} was {data:.40}"));
                }
                next += 1;
                count(&self.tally.events);
            }
        }
        if !text.is_empty() {
            count(&self.tally.cut);
            self.tally.example(format!("{}: stream ended inside an event: {text:.60}", self.host));
        } else if !endless && next == EVENTS {
            count(&self.tally.streams);
        } else {
            count(&self.tally.streams);
            count(&self.tally.ended_politely);
            if hint {
                count(&self.tally.ended_with_hint);
            }
        }
        Ok(())
    }

    /// WebSockets, each until it is closed, with one message after the other.
    pub(super) async fn web_sockets(self) {
        while !self.stopped() {
            if let Err(fault) = self.web_socket().await {
                self.fail(fault).await;
            }
        }
    }

    async fn web_socket(&self) -> Result<(), Fault> {
        let mut wire = Wire::connect(self.port).await?;
        // The key's value does not matter to us: that the other side is the app is known by what it echoes.
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            self.host
        );
        wire.send(head.as_bytes()).await?;
        let head = wire.read_head().await?;
        if head.status != 101 {
            return Err(format!("WebSocket: {}", head.status));
        }
        for number in 0_u64.. {
            if self.stopped() {
                return wire.send(&frame(CLOSE, &1000_u16.to_be_bytes())).await;
            }
            let text = format!("message {number} of {}", self.number);
            if wire.send(&frame(TEXT, text.as_bytes())).await.is_err() {
                // What the other side said before it went is still to be read.
            }
            match read_frame(&mut wire).await {
                Ok((TEXT, echo)) if echo == text.as_bytes() => count(&self.tally.echoes),
                Ok((CLOSE, payload)) => {
                    let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                    count(&self.tally.unanswered);
                    match code {
                        1000 | 1001 | 1012 => count(&self.tally.closed_politely),
                        code => return Err(format!("WebSocket closed with {code}")),
                    }
                    if code == 1012 {
                        count(&self.tally.closed_1012);
                    }
                    // The other side may be gone already.
                    let _ = wire.send(&frame(CLOSE, &payload)).await;
                    return Ok(());
                }
                Ok((kind, echo)) => {
                    return Err(format!(
                        "WebSocket: frame {kind} {:.60} for {text}",
                        String::from_utf8_lossy(&echo)
                    ));
                }
                Err(fault) => {
                    count(&self.tally.torn);
                    self.tally.example(format!("{}: WebSocket torn: {fault}", self.host));
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Opcodes (RFC 6455 section 5.2).
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// A whole frame of a client. The mask is zero: it protects proxies that do not know WebSockets, and costs time here.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len().min(125)).unwrap_or_default();
    let mut frame = vec![0x80 | kind, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(&payload[..usize::from(length)]);
    frame
}

async fn read_frame(wire: &mut Wire) -> Result<(u8, Vec<u8>), Fault> {
    let head = wire.read_exact(2).await?;
    let length = match head[1] & 127 {
        126 => {
            let long = wire.read_exact(2).await?;
            usize::from(long[0]) << 8 | usize::from(long[1])
        }
        127 => return Err("a frame of more than 64 KB".to_owned()),
        length => usize::from(length),
    };
    Ok((head[0] & 15, wire.read_exact(length).await?))
}

/// Checksum of RFC 1950, as Python's `zlib.adler32`.
fn adler32(bytes: &[u8]) -> u32 {
    const PRIME: u32 = 65_521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % PRIME;
        (low, (high + low) % PRIME)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::adler32;

    #[test]
    fn the_checksum_is_the_one_of_zlib() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }
}
