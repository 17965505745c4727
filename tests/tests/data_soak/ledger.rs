//! What callers heard to be committed, kept outside the volume.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use trackbed_tests::Connection;

/// Time until the next attempt when nobody answers.
const PAUSE: Duration = Duration::from_millis(30);
/// Silence after which the app is asked anew.
const SILENCE: Duration = Duration::from_secs(2);

/// A caller that listens all the while.
pub(super) struct Ledger {
    last: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    caller: Option<JoinHandle<()>>,
}

impl Ledger {
    /// Begins to listen, and goes on through every death of the app.
    pub(super) fn listen(port: u16, service: &str) -> Ledger {
        let (last, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let host = format!("{service}.localhost:{port}");
        let (heard, stopped) = (Arc::clone(&last), Arc::clone(&stop));
        let caller = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let _ = hear(port, &host, &heard, &stopped);
                std::thread::sleep(PAUSE);
            }
        });
        Ledger { last, stop, caller: Some(caller) }
    }

    /// Returns the last transaction that is acknowledged: it and all before it are committed.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }
}

/// Listens until the stream ends.
fn hear(port: u16, host: &str, heard: &AtomicU64, stopped: &AtomicBool) -> std::io::Result<()> {
    let connection = Connection::send(port, host, "GET", "/committed", "", b"")?;
    connection.stream.set_read_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(connection.stream);
    let mut line = String::new();
    while !stopped.load(Ordering::SeqCst) {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        // What was cut in its middle has no end of line.
        let number = line.strip_prefix("data: ").and_then(|text| text.strip_suffix('\n'));
        if let Some(number) = number.and_then(|text| text.parse().ok()) {
            heard.fetch_max(number, Ordering::SeqCst);
        }
    }
    Ok(())
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(caller) = self.caller.take() {
            let _ = caller.join();
        }
    }
}
