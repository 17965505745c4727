//! What all clients of one service saw, counted as it happens.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Failures that are kept word for word; the rest is only counted.
const EXAMPLES_MAX: usize = 20;

/// Counters of one service.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) gets: AtomicU64,
    pub(super) posts: AtomicU64,
    pub(super) echoes: AtomicU64,
    pub(super) streams: AtomicU64,
    pub(super) events: AtomicU64,
    /// Everything that was asked and not answered as it should be.
    pub(super) failed: AtomicU64,
    /// Keep-alive connections that the platform closed between two requests.
    pub(super) reconnects: AtomicU64,
    /// Endless streams that were ended between two events, with the end of the body; and those with a `retry:` hint.
    pub(super) ended_politely: AtomicU64,
    pub(super) ended_with_hint: AtomicU64,
    /// Streams that ended inside an event or without the end of the body.
    pub(super) cut: AtomicU64,
    /// WebSockets that got a close frame (1000, 1001 or 1012), and those of them with 1012.
    pub(super) closed_politely: AtomicU64,
    pub(super) closed_1012: AtomicU64,
    /// WebSockets that ended without one.
    pub(super) torn: AtomicU64,
    /// Messages that had no echo yet when a close frame came.
    pub(super) unanswered: AtomicU64,
    longest_ever_us: AtomicU64,
    longest_now_us: AtomicU64,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    acknowledged: Vec<String>,
    examples: Vec<String>,
}

impl Tally {
    /// Requests answered: GETs, POSTs, echoes and streams.
    pub(super) fn answered(&self) -> u64 {
        [&self.gets, &self.posts, &self.echoes, &self.streams]
            .map(|counter| counter.load(Relaxed))
            .iter()
            .sum()
    }

    /// Books how long a short request waited for its answer.
    pub(super) fn waited(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.longest_ever_us.fetch_max(time, Relaxed);
        self.longest_now_us.fetch_max(time, Relaxed);
    }

    /// Longest wait since this was last asked.
    pub(super) fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest_now_us.swap(0, Relaxed))
    }

    /// Longest wait of all.
    pub(super) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_ever_us.load(Relaxed))
    }

    pub(super) fn fail(&self, what: String) {
        self.failed.fetch_add(1, Relaxed);
        self.example(what);
    }

    /// Keeps the words of something bad.
    pub(super) fn example(&self, what: String) {
        let mut notes = self.notes.lock().expect("no client panics with it");
        if notes.examples.len() < EXAMPLES_MAX {
            notes.examples.push(what);
        }
    }

    pub(super) fn acknowledge(&self, name: String) {
        self.notes.lock().expect("no client panics with it").acknowledged.push(name);
    }

    pub(super) fn acknowledged(&self) -> Vec<String> {
        self.notes.lock().expect("no client panics with it").acknowledged.clone()
    }

    pub(super) fn examples(&self) -> Vec<String> {
        self.notes.lock().expect("no client panics with it").examples.clone()
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
