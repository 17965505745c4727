//! What the edge keeps per target: counters, idle connections of each worker, and every open link, so that it can be cut.
//! The target's identity is its instance: nothing here is ever shared with a later instance on the same address.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use trackbed_core::route::{Address, Target, TargetStats};

use crate::dial::Dialler;
use crate::files::Site;
use crate::limits::UPSTREAM_IDLE_COUNT_MAX;
use crate::streams::Streams;
use crate::upstream::Upstream;
use crate::watch::coarse_ms;

/// Links looked through for dead ones first at this count, then whenever the count has doubled.
const LINKS_SWEPT_FROM: usize = 64;

/// A target and what is going on with it.
pub(crate) struct TargetState {
    target: Target,
    place: io::Result<Place>,
    /// Not in the table in force: no request may begin.
    retired: AtomicBool,
    in_flight: AtomicU64,
    pub(crate) streams: Streams,
    requests: AtomicU64,
    cuts: AtomicU64,
    /// Wakes the answers that no connection to a target carries.
    cut: Notify,
    /// One list per worker, newest last.
    idle: Box<[Mutex<Vec<Arc<Upstream>>>]>,
    links: Mutex<Links>,
}

/// What an address leads to.
enum Place {
    /// A port of an instance.
    Port(Dialler),
    /// A folder, which is served here.
    Files(Site),
}

impl Place {
    fn of(address: &Address) -> io::Result<Self> {
        match Site::of(&address.0) {
            Some(site) => site.map(Place::Files),
            None => Dialler::new(address).map(Place::Port),
        }
    }
}

#[derive(Default)]
struct Links {
    open: Vec<Weak<Upstream>>,
    sweep_at: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TargetState {
    pub(crate) fn new(target: &Target, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            target: target.clone(),
            place: Place::of(&target.address),
            retired: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            streams: Streams::default(),
            requests: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            cut: Notify::new(),
            idle: (0..workers).map(|_| Mutex::default()).collect(),
            links: Mutex::default(),
        })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Counts a request in, unless the target has left the table. Counting comes before the look at `retired`, and
    /// retiring comes before the look at the counter, so a drain never sees zero while a request is on its way in.
    pub(crate) fn begin_request(&self) -> bool {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.retired.load(Ordering::SeqCst) {
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        true
    }

    pub(crate) fn end_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Takes the target out of use: requests in flight go on, idle connections are dropped now.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        for idle in &self.idle {
            let dropped = std::mem::take(&mut *lock(idle));
            drop(dropped);
        }
    }

    /// Puts the target back into use.
    pub(crate) fn reinstate(&self) {
        self.retired.store(false, Ordering::SeqCst);
    }

    /// Ends every open connection to the target.
    pub(crate) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.cut.notify_waiters();
        let open = std::mem::take(&mut lock(&self.links).open);
        for link in open {
            if let Some(upstream) = link.upgrade() {
                upstream.link.cut();
            }
        }
    }

    /// Returns the folder that is served in place of an instance's port.
    pub(crate) fn site(&self) -> Option<&Site> {
        match &self.place {
            Ok(Place::Files(site)) => Some(site),
            Ok(Place::Port(_)) | Err(_) => None,
        }
    }

    /// Ends when the target is cut, from now on.
    pub(crate) fn cut_notice(&self) -> impl Future<Output = ()> + '_ {
        self.cut.notified()
    }

    /// Returns how many requests are open.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn stats(&self) -> TargetStats {
        let requests = self.requests.load(Ordering::Relaxed);
        let mut stats = TargetStats { requests, ..TargetStats::default() };
        // Streams first: one that ends between the two readings must not look like a stream without its request.
        self.streams.count_into(&mut stats);
        stats.in_flight = self.in_flight();
        stats.streams = stats.streams.min(stats.in_flight);
        stats
    }

    /// Returns an idle connection that can take a request now.
    pub(crate) fn take_idle(&self, worker: usize, is_repeatable: bool) -> Option<Arc<Upstream>> {
        let mut idle = lock(&self.idle[worker]);
        while let Some(upstream) = idle.pop() {
            if upstream.is_usable(is_repeatable) {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection for a later request, if there may be one.
    pub(crate) fn keep_idle(&self, worker: usize, upstream: Arc<Upstream>) {
        upstream.rest();
        let mut idle = lock(&self.idle[worker]);
        // Looked at under the lock that `retire` takes after it has set it.
        if !self.retired.load(Ordering::SeqCst) && idle.len() < UPSTREAM_IDLE_COUNT_MAX {
            idle.push(upstream);
        }
    }

    /// Drops connections that have been idle for too long.
    pub(crate) fn sweep_idle(&self) {
        let now = coarse_ms();
        for idle in &self.idle {
            lock(idle).retain(|upstream| upstream.is_fresh_at(now));
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When the target does not accept, or is cut meanwhile.
    pub(crate) async fn dial(&self) -> io::Result<Arc<Upstream>> {
        let cuts = self.cuts.load(Ordering::SeqCst);
        let dialler = match &self.place {
            Ok(Place::Port(dialler)) => dialler,
            Ok(Place::Files(_)) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "a folder has no port"));
            }
            Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        let upstream = Arc::new(Upstream::new(dialler.connect().await?));
        self.remember(&upstream);
        if self.cuts.load(Ordering::SeqCst) != cuts {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the target was cut"));
        }
        Ok(upstream)
    }

    fn remember(&self, upstream: &Arc<Upstream>) {
        let mut links = lock(&self.links);
        if links.open.len() >= links.sweep_at.max(LINKS_SWEPT_FROM) {
            links.open.retain(|link| link.strong_count() > 0);
            links.sweep_at = links.open.len() * 2;
        }
        links.open.push(Arc::downgrade(upstream));
    }
}
