//! Streams that are open to a target: how old, how quiet, and how they are asked to end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, sleep_until};
use trackbed_core::route::TargetStats;

use crate::limits::{RETRY_HINT_MAX_MS, RETRY_HINT_MIN_MS, STREAM_END_GRACE};
use crate::upstream::Upstream;
use crate::watch::coarse_ms;

/// Streams are looked through for ended ones first at this count, then whenever the count has doubled.
const SWEPT_FROM: usize = 64;

/// An event stream or an upgraded connection.
#[derive(Debug)]
pub(crate) struct OpenStream {
    pub(crate) is_websocket: bool,
    opened_ms: u64,
    /// When the target last sent something.
    last_ms: AtomicU64,
    longest_silence_ms: AtomicU64,
    /// The `retry:` hint that it ends with; 0 until it is asked to end.
    retry_ms: AtomicU64,
    waker: AtomicWaker,
    upstream: Arc<Upstream>,
}

impl OpenStream {
    pub(crate) fn new(upstream: &Arc<Upstream>, is_websocket: bool) -> Arc<Self> {
        let now = coarse_ms();
        Arc::new(Self {
            is_websocket,
            opened_ms: now,
            last_ms: AtomicU64::new(now),
            longest_silence_ms: AtomicU64::new(0),
            retry_ms: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            upstream: Arc::clone(upstream),
        })
    }

    /// Notes that the target sent something.
    pub(crate) fn touch(&self) {
        let now = coarse_ms();
        let silence = now.saturating_sub(self.last_ms.swap(now, Ordering::Relaxed));
        if silence > self.longest_silence_ms.load(Ordering::Relaxed) {
            self.longest_silence_ms.store(silence, Ordering::Relaxed);
        }
    }

    /// Returns the `retry:` hint in milliseconds once the stream should end.
    pub(crate) fn asked_to_end(&self) -> Option<u64> {
        Some(self.retry_ms.load(Ordering::Acquire)).filter(|retry| *retry > 0)
    }

    /// Wakes this task when the stream is asked to end.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn ask_to_end(&self, retry_ms: u64) {
        self.retry_ms.store(retry_ms, Ordering::Release);
        self.waker.wake();
    }
}

/// The streams of one target.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    all: Vec<Weak<OpenStream>>,
    sweep_at: usize,
}

impl Streams {
    pub(crate) fn add(&self, stream: &Arc<OpenStream>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.all.len() >= known.sweep_at.max(SWEPT_FROM) {
            known.all.retain(|stream| stream.strong_count() > 0);
            known.sweep_at = known.all.len() * 2;
        }
        known.all.push(Arc::downgrade(stream));
    }

    pub(crate) fn open(&self) -> Vec<Arc<OpenStream>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Adds what is known of the open streams.
    pub(crate) fn count_into(&self, stats: &mut TargetStats) {
        let now = coarse_ms();
        for stream in self.open() {
            let silence = now.saturating_sub(stream.last_ms.load(Ordering::Relaxed));
            let silence = silence.max(stream.longest_silence_ms.load(Ordering::Relaxed));
            stats.streams += 1;
            stats.websockets += u64::from(stream.is_websocket);
            stats.oldest_stream_ms = stats.oldest_stream_ms.max(now.saturating_sub(stream.opened_ms));
            stats.longest_silence_ms = stats.longest_silence_ms.max(silence);
        }
    }
}

/// Asks streams to end, evenly spread over a time, and cuts each that has not ended [`STREAM_END_GRACE`] after its turn.
/// Dropping the future leaves the rest open.
pub(crate) async fn end_evenly(streams: Vec<Arc<OpenStream>>, over: Duration) {
    let began = Instant::now();
    let count = u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
    let turn = |number: usize| began + over * u32::try_from(number).unwrap_or(u32::MAX) / count;
    // Only whoever carries a stream keeps it open: one that has ended is none of ours, nor is its connection.
    let streams: Vec<Weak<OpenStream>> = streams.into_iter().map(|stream| Arc::downgrade(&stream)).collect();
    let mut cut = 0;
    let cut_due = |cut: &mut usize, now: Instant| {
        while *cut < streams.len() && turn(*cut) + STREAM_END_GRACE <= now {
            if let Some(stream) = streams[*cut].upgrade() {
                stream.upstream.link.cut();
            }
            *cut += 1;
        }
    };
    for (number, stream) in streams.iter().enumerate() {
        sleep_until(turn(number)).await;
        if let Some(stream) = stream.upgrade() {
            stream.ask_to_end(retry_hint());
        }
        cut_due(&mut cut, turn(number));
    }
    while cut < streams.len() {
        sleep_until(turn(cut) + STREAM_END_GRACE).await;
        cut_due(&mut cut, Instant::now());
    }
}

/// Returns a different time for each client, so that they do not come back together.
fn retry_hint() -> u64 {
    let random = u64::from(u16::from_le_bytes(trackbed_stdx::random::bytes()));
    RETRY_HINT_MIN_MS + random * (RETRY_HINT_MAX_MS - RETRY_HINT_MIN_MS) / u64::from(u16::MAX)
}
