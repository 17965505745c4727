//! Watches client connections: who is slow, who is idle, and since when. Connections only write down what they do; one
//! look a second closes those that are over a limit, so that none of them needs a timer of its own.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::time::{ClockId, clock_gettime};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::limits::{CLIENT_IDLE_MAX, CLIENT_STALL_MAX, HEAD_TIME_MAX};
use crate::link::Link;
use crate::sources::Place;

/// Connections are looked through for ended ones first at this count, then whenever the count has doubled.
const SWEPT_FROM: usize = 64;
const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
/// Stands for "not blocked": no machine runs that long.
const NEVER: u64 = u64::MAX;

/// Milliseconds since some moment before the edge started, a few too few: cheap, and exact enough for limits of seconds.
pub(crate) fn coarse_ms() -> u64 {
    // Cannot fail: every Linux since 2.6.32 has this clock (clock_gettime(2)).
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
    now.map_or(0, |now| now.tv_sec().unsigned_abs() * 1000 + now.tv_nsec().unsigned_abs() / 1_000_000)
}

/// A client's connection and what it is doing. Written by its own task only.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) link: Link,
    phase: AtomicU8,
    /// When the phase began.
    since_ms: AtomicU64,
    /// When the client stopped taking bytes.
    write_blocked_ms: AtomicU64,
    /// When the client stopped sending the body that a target waits for.
    body_blocked_ms: AtomicU64,
    /// The connection's place among those allowed.
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

impl Watch {
    pub(crate) fn new(stream: TcpStream, permit: OwnedSemaphorePermit, place: Place) -> Arc<Self> {
        Arc::new(Self {
            link: Link::new(stream),
            phase: AtomicU8::new(HEAD),
            since_ms: AtomicU64::new(coarse_ms()),
            write_blocked_ms: AtomicU64::new(NEVER),
            body_blocked_ms: AtomicU64::new(NEVER),
            _permit: permit,
            _place: place,
        })
    }

    fn enter(&self, phase: u8) {
        self.since_ms.store(coarse_ms(), Ordering::Relaxed);
        // Whoever sees the phase sees its beginning.
        self.phase.store(phase, Ordering::Release);
    }

    /// The client has begun to send a head.
    pub(crate) fn begin_head(&self) {
        self.enter(HEAD);
    }

    /// A request is being answered: nothing of it is limited but what the client delays.
    pub(crate) fn begin_answer(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// The answer is over.
    pub(crate) fn begin_idle(&self) {
        self.body_blocked_ms.store(NEVER, Ordering::Relaxed);
        self.enter(IDLE);
    }

    /// Notes how many bytes the client has yet to take, and how many it had. One that takes some, however slowly, is not
    /// stalled.
    pub(crate) fn note_progress(&self, before: usize, left: usize) {
        if left < before {
            note(&self.write_blocked_ms, false);
        }
        note(&self.write_blocked_ms, left > 0);
    }

    /// Notes whether a target waits for the client's body.
    pub(crate) fn note_body(&self, blocked: bool) {
        note(&self.body_blocked_ms, blocked);
    }

    fn is_overdue(&self, now: u64) -> bool {
        let over = |since: u64, limit: std::time::Duration| {
            since != NEVER && u128::from(now.saturating_sub(since)) >= limit.as_millis()
        };
        let phase = self.phase.load(Ordering::Acquire);
        let since = self.since_ms.load(Ordering::Relaxed);
        let by_phase = match phase {
            IDLE => over(since, CLIENT_IDLE_MAX),
            HEAD => over(since, HEAD_TIME_MAX),
            _ => over(self.body_blocked_ms.load(Ordering::Relaxed), CLIENT_STALL_MAX),
        };
        by_phase || over(self.write_blocked_ms.load(Ordering::Relaxed), CLIENT_STALL_MAX)
    }
}

fn note(what: &AtomicU64, blocked: bool) {
    let was_blocked = what.load(Ordering::Relaxed) != NEVER;
    if blocked != was_blocked {
        what.store(if blocked { coarse_ms() } else { NEVER }, Ordering::Relaxed);
    }
}

/// The client connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    all: Vec<Weak<Watch>>,
    sweep_at: usize,
}

impl Watches {
    pub(crate) fn add(&self, watch: &Arc<Watch>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.all.len() >= watched.sweep_at.max(SWEPT_FROM) {
            watched.all.retain(|watch| watch.strong_count() > 0);
            watched.sweep_at = watched.all.len() * 2;
        }
        watched.all.push(Arc::downgrade(watch));
    }

    /// Ends the connections that are over a limit.
    pub(crate) fn cut_overdue(&self) {
        let now = coarse_ms();
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.all.retain(|watch| {
            let Some(watch) = watch.upgrade() else { return false };
            if watch.is_overdue(now) {
                watch.link.cut();
            }
            true
        });
    }
}
