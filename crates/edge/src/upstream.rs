//! A connection to a target.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpStream;

use crate::limits::UPSTREAM_IDLE_MAX;
use crate::link::Link;
use crate::watch::coarse_ms;

/// A connection that carries one request at a time. It belongs to that request, or to the idle ones of a worker.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) link: Link,
    /// When it last fell idle; 0 while it has not carried a whole exchange.
    idle_since_ms: AtomicU64,
}

impl Upstream {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { link: Link::new(stream), idle_since_ms: AtomicU64::new(0) }
    }

    /// Returns whether it has carried a request before: the target may be closing it right now.
    pub(crate) fn is_used(&self) -> bool {
        self.idle_since_ms.load(Ordering::Relaxed) > 0
    }

    /// Notes when the connection fell idle.
    pub(crate) fn rest(&self) {
        self.idle_since_ms.store(coarse_ms(), Ordering::Relaxed);
    }

    pub(crate) fn is_fresh_at(&self, now_ms: u64) -> bool {
        let idle = now_ms.saturating_sub(self.idle_since_ms.load(Ordering::Relaxed));
        u128::from(idle) < UPSTREAM_IDLE_MAX.as_millis()
    }

    /// Returns whether an idle connection can take a request. The target closes it whenever it likes: a request that
    /// could not be sent again is worth asking the kernel.
    pub(crate) fn is_usable(&self, is_repeatable: bool) -> bool {
        self.is_fresh_at(coarse_ms())
            && if is_repeatable { self.link.seems_quiet() } else { self.link.is_quiet() }
    }
}
