//! The client: opens many streams and books when each event arrives, and whether it came alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bench::peers::HOST;

/// Longest read, in bytes: many events, so that coalesced ones would be seen.
const READ_BYTES: usize = 4096;

/// What all streams of one measurement share.
pub(super) struct Watch {
    clock: Instant,
    /// Streams that have had their head.
    pub(super) open: AtomicU64,
    /// Streams that failed to open or ended.
    pub(super) lost: AtomicU64,
    /// Reads that brought more than one event.
    pub(super) coalesced: AtomicU64,
    /// Latencies are booked only while this is set.
    counting: AtomicBool,
    latencies_ns: Mutex<Vec<u64>>,
}

impl Watch {
    pub(super) fn new(clock: Instant) -> Arc<Watch> {
        Arc::new(Watch {
            clock,
            open: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
            counting: AtomicBool::new(false),
            latencies_ns: Mutex::default(),
        })
    }

    /// Counts for a while and returns the latencies, sorted, in nanoseconds.
    pub(super) async fn count_for(&self, time: Duration) -> Vec<u64> {
        self.coalesced.store(0, Relaxed);
        self.counting.store(true, Relaxed);
        tokio::time::sleep(time).await;
        self.counting.store(false, Relaxed);
        let mut latencies = std::mem::take(&mut *self.latencies_ns.lock().expect("no stream panics with it"));
        latencies.sort_unstable();
        latencies
    }

    fn book(&self, event: &str) {
        let now = self.clock.elapsed().as_nanos();
        let sent = event.strip_prefix("data: ").and_then(|rest| rest.split(' ').next()?.parse::<u128>().ok());
        if let (Some(sent), true) = (sent, self.counting.load(Relaxed)) {
            let took = u64::try_from(now.saturating_sub(sent)).unwrap_or(u64::MAX);
            self.latencies_ns.lock().expect("no stream panics with it").push(took);
        }
    }
}

/// Reads one stream until it ends.
pub(super) async fn stream(port: u16, watch: Arc<Watch>) {
    if read(port, &watch).await.is_err() {
        watch.lost.fetch_add(1, Relaxed);
    }
}

async fn read(port: u16, watch: &Watch) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let head = format!("GET /events HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    let mut in_body = false;
    loop {
        stream.readable().await?;
        let mut buffer = [0; READ_BYTES];
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if !in_body {
            let Some(at) = text.find("\r\n\r\n") else { continue };
            if !text.starts_with("HTTP/1.1 200") {
                return Err(std::io::Error::other(text));
            }
            text.drain(..at + 4);
            in_body = true;
            watch.open.fetch_add(1, Relaxed);
        }
        let mut events = 0;
        while let Some(end) = text.find("\n\n") {
            let begin = text.find("data: ").unwrap_or(0);
            watch.book(&text[begin.min(end)..end]);
            text.drain(..end + 2);
            events += 1;
        }
        if events > 1 {
            watch.coalesced.fetch_add(1, Relaxed);
        }
    }
}
