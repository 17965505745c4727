//! What the edge keeps per service, from table to table: counters, parked requests, what it noticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use trackbed_core::route::{ParkedStats, StreamFault, StreamNotice};

use crate::limits::{PARKED_BYTES_MAX, PARKED_COUNT_MAX, STREAM_PATH_BYTES_MAX};
use crate::metrics::Counters;
use crate::wire::Answers;

/// A service at the edge.
pub(crate) struct ServiceState {
    pub(crate) name: String,
    /// Wakes parked requests when there is a new table.
    pub(crate) changed: Notify,
    counters: Box<[Counters]>,
    parking: Mutex<Parking>,
    notices: Mutex<HashMap<StreamFault, StreamNotice>>,
}

/// The requests that wait, and those that waited in the last pause.
#[derive(Default)]
struct Parking {
    /// Arrivals of those that wait, by number.
    waiting: HashMap<u64, Instant>,
    next: u64,
    bytes: u64,
    total: u64,
    refused: u64,
    longest: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServiceState {
    pub(crate) fn new(name: String, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            changed: Notify::new(),
            counters: (0..workers).map(|_| Counters::default()).collect(),
            parking: Mutex::default(),
            notices: Mutex::default(),
        })
    }

    pub(crate) fn counters(&self, worker: usize) -> &Counters {
        &self.counters[worker]
    }

    pub(crate) fn answers(&self) -> Answers {
        let mut sum = Answers::default();
        for counters in &self.counters {
            counters.add_to(&mut sum);
        }
        sum
    }

    /// A pause begins: what is told of parked requests is of this one. Those that still wait from an earlier one stay.
    pub(crate) fn begin_pause(&self) {
        let mut parking = lock(&self.parking);
        parking.total = parking.waiting.len() as u64;
        parking.refused = 0;
        parking.longest = Duration::ZERO;
    }

    /// Counts a request as parked until the returned value is dropped; none when too many are. `bytes` is what is kept
    /// for it.
    pub(crate) fn park(self: &Arc<Self>, bytes: usize) -> Option<ParkedRequest> {
        let bytes = bytes as u64;
        let mut parking = lock(&self.parking);
        parking.total += 1;
        if parking.waiting.len() as u64 >= PARKED_COUNT_MAX || parking.bytes + bytes > PARKED_BYTES_MAX {
            parking.refused += 1;
            return None;
        }
        parking.bytes += bytes;
        let number = parking.next;
        parking.next += 1;
        parking.waiting.insert(number, Instant::now());
        Some(ParkedRequest { service: Arc::clone(self), number, bytes })
    }

    pub(crate) fn parked(&self) -> ParkedStats {
        let parking = lock(&self.parking);
        let longest = parking.waiting.values().map(Instant::elapsed).max().unwrap_or_default();
        ParkedStats {
            now: parking.waiting.len() as u64,
            total: parking.total,
            longest_ms: u64::try_from(parking.longest.max(longest).as_millis()).unwrap_or(u64::MAX),
            refused: parking.refused,
        }
    }

    /// Notes what is wrong with a stream of this service.
    pub(crate) fn notice(&self, fault: StreamFault, path: &str) {
        let mut notices = lock(&self.notices);
        let notice =
            notices.entry(fault).or_insert_with(|| StreamNotice { fault, path: String::new(), count: 0 });
        notice.count += 1;
        notice.path = path.chars().take(STREAM_PATH_BYTES_MAX).collect();
    }

    pub(crate) fn notices(&self) -> Vec<StreamNotice> {
        let mut notices: Vec<_> = lock(&self.notices).values().cloned().collect();
        notices.sort_by_key(|notice| notice.fault);
        notices
    }
}

/// A request that waits.
pub(crate) struct ParkedRequest {
    service: Arc<ServiceState>,
    number: u64,
    bytes: u64,
}

impl ParkedRequest {
    /// The request has waited for too long.
    pub(crate) fn refuse(&self) {
        lock(&self.service.parking).refused += 1;
    }
}

impl Drop for ParkedRequest {
    fn drop(&mut self) {
        let mut parking = lock(&self.service.parking);
        if let Some(arrived) = parking.waiting.remove(&self.number) {
            parking.longest = parking.longest.max(arrived.elapsed());
            parking.bytes -= self.bytes;
        }
    }
}
