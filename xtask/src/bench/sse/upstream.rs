//! The upstream: every connection gets an event stream with one event a second, each stream at its own moment of the
//! second. An event says when it was sent.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval_at};

/// Time between two events of one stream.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// Path that is answered at once, without a stream.
pub(super) const READY: &str = "/ready";
/// Streams are spread over the second in this many steps.
const MOMENTS: u32 = 1000;
/// Bytes of an event beyond its stamp: with it, an ordinary token of a chat reply and its JSON.
const FILLER: &str = "........................................................................";

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";

/// Serves until the runtime ends. `clock` is the moment that stamps count from.
pub(super) async fn serve(listener: TcpListener, clock: Instant) {
    let mut number: u32 = 0;
    while let Ok((stream, _)) = listener.accept().await {
        // Neighbours in time of connecting are far apart in the second (a step that shares no factor with it).
        number = (number + 619) % MOMENTS;
        tokio::spawn(attend(stream, clock, PERIOD * number / MOMENTS));
    }
}

async fn attend(mut stream: TcpStream, clock: Instant, moment: Duration) {
    let Some(request) = read_head(&mut stream).await else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    if request.starts_with(format!("GET {READY} ").as_bytes()) {
        // The client that asks is about to go: nothing is to be done about an error.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        return;
    }
    if stream.write_all(HEAD.as_bytes()).await.is_err() {
        return;
    }
    let mut ticks = interval_at(tokio::time::Instant::now() + moment, PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let event = format!("data: {:016} {FILLER}\n\n", clock.elapsed().as_nanos());
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        // Fails once the proxy has gone; that is the end of the stream.
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read_buf(&mut bytes).await {
            Ok(count) if count > 0 => {}
            _ => return None,
        }
    }
    Some(bytes)
}
