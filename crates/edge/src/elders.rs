//! Edges that have been replaced and still finish requests. Each listens on a socket of its own; the newest edge speaks
//! to them, so that the control plane sees one edge.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trackbed_core::route::{EdgeStats, ParkedStats, StreamNotice, TargetStats};

use crate::client::Caller;
use crate::limits::{ELDER_LOOK_INTERVAL, ELDER_TIME_MAX};
use crate::wire::{Answers, Op, Outcome, line};

/// How often an order is repeated to an elder whose connection breaks off.
const ORDER_REPEATS_MAX: u32 = 5;

const PREFIX: &str = "elder-";
const SUFFIX: &str = ".sock";

/// Returns where a replaced edge listens, by its process.
pub(crate) fn socket(folder: &Path, pid: u32) -> PathBuf {
    folder.join(format!("{PREFIX}{pid}{SUFFIX}"))
}

/// Returns whether an attempt to connect found nobody. Anything else may be somebody who is only slow.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Returns whether a connection ended before the reply: by somebody who is ending, or who has just died.
fn broke_off(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionReset | K::BrokenPipe | K::UnexpectedEof)
}

/// Gives an order, again as long as the connection only breaks off: then nobody knows yet whether the elder is gone,
/// and every order may be repeated.
async fn order(elder: &Caller, line: &[u8]) -> io::Result<Outcome> {
    for _ in 0..ORDER_REPEATS_MAX {
        match elder.call(line, ELDER_TIME_MAX).await {
            Err(error) if broke_off(&error) => tokio::time::sleep(ELDER_LOOK_INTERVAL).await,
            outcome => return outcome,
        }
    }
    elder.call(line, ELDER_TIME_MAX).await
}

/// The elders of one edge. Their number only falls: an edge that is replaced is the elder of its successor.
#[derive(Debug, Default)]
pub(crate) struct Elders(Mutex<Vec<Arc<Caller>>>);

impl Elders {
    /// Finds those that left a socket in a folder. Who of them lives shows with the first order.
    pub(crate) fn find(&self, folder: &Path) {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let sockets = names.filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
        });
        *self.known() = sockets.map(|entry| Arc::new(Caller::new(entry.path()))).collect();
    }

    fn known(&self) -> MutexGuard<'_, Vec<Arc<Caller>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Caller>> {
        self.known().clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    /// Gives an order to every elder at once. One that is dead is forgotten and has obeyed.
    ///
    /// # Errors
    /// When one lives and has not obeyed: then nobody may believe that the order is in force. The others have it.
    pub(crate) async fn tell(&self, line: &[u8]) -> Result<Vec<Outcome>, String> {
        let orders = self.all().into_iter().map(|elder| async move {
            let outcome = order(&elder, line).await;
            (elder, outcome)
        });
        let mut outcomes = Vec::new();
        let mut failed = None;
        for (elder, outcome) in futures_util::future::join_all(orders).await {
            let socket = elder.socket();
            let reason = match outcome {
                Ok(Outcome::Failed { message }) => message,
                Ok(outcome) => {
                    outcomes.push(outcome);
                    continue;
                }
                Err(error) if is_gone(&error) => {
                    let _ = std::fs::remove_file(socket);
                    self.known().retain(|known| !Arc::ptr_eq(known, &elder));
                    continue;
                }
                Err(error) => error.to_string(),
            };
            failed = Some(format!("an earlier edge at {} did not obey: {reason}", socket.display()));
        }
        failed.map_or(Ok(outcomes), Err)
    }

    /// Waits until the last one has ended.
    pub(crate) async fn wait_gone(&self) {
        let Ok(question) = line(Op::Stats) else { return };
        loop {
            // Asking is what finds out; one that answers, or is too slow to, is not gone.
            let _ = self.tell(&question).await;
            if self.is_empty() {
                return;
            }
            tokio::time::sleep(ELDER_LOOK_INTERVAL).await;
        }
    }

    /// Adds the counters of all elders to those of the newest edge.
    ///
    /// # Errors
    /// When one lives and does not tell: a sum without it would say that its requests have ended.
    pub(crate) async fn add_stats(
        &self,
        stats: &mut EdgeStats,
        answers: &mut BTreeMap<String, Answers>,
    ) -> Result<(), String> {
        let question = line(Op::Stats).map_err(|error| error.to_string())?;
        for outcome in self.tell(&question).await? {
            let Outcome::Stats { stats: more, answers: more_answers } = outcome else {
                return Err(format!("an earlier edge gave an unexpected reply: {outcome:?}"));
            };
            stats.draining += 1;
            add(stats, more);
            for (service, more) in more_answers {
                add_answers(answers.entry(service).or_default(), more);
            }
        }
        Ok(())
    }
}

fn add(stats: &mut EdgeStats, more: EdgeStats) {
    for (instance, more) in more.targets {
        add_target(stats.targets.entry(instance).or_default(), more);
    }
    for (service, more) in more.parked {
        add_parked(stats.parked.entry(service).or_default(), more);
    }
    for (service, more) in more.notices {
        add_notices(stats.notices.entry(service).or_default(), more);
    }
}

fn add_target(sum: &mut TargetStats, more: TargetStats) {
    let TargetStats { in_flight, streams, websockets, oldest_stream_ms, longest_silence_ms, requests } = more;
    sum.in_flight += in_flight;
    sum.streams += streams;
    sum.websockets += websockets;
    sum.oldest_stream_ms = sum.oldest_stream_ms.max(oldest_stream_ms);
    sum.longest_silence_ms = sum.longest_silence_ms.max(longest_silence_ms);
    sum.requests += requests;
}

fn add_parked(sum: &mut ParkedStats, more: ParkedStats) {
    let ParkedStats { now, total, longest_ms, refused } = more;
    sum.now += now;
    sum.total += total;
    sum.longest_ms = sum.longest_ms.max(longest_ms);
    sum.refused += refused;
}

fn add_notices(sum: &mut Vec<StreamNotice>, more: Vec<StreamNotice>) {
    for notice in more {
        match sum.iter_mut().find(|known| known.fault == notice.fault) {
            // The path stays that of the newest edge.
            Some(known) => known.count += notice.count,
            None => sum.push(notice),
        }
    }
}

fn add_answers(sum: &mut Answers, more: Answers) {
    let Answers { ok, redirects, client_errors, server_errors, left, first_byte } = more;
    sum.ok += ok;
    sum.redirects += redirects;
    sum.client_errors += client_errors;
    sum.server_errors += server_errors;
    sum.left += left;
    if sum.first_byte.len() < first_byte.len() {
        sum.first_byte.resize(first_byte.len(), 0);
    }
    for (sum, count) in sum.first_byte.iter_mut().zip(first_byte) {
        *sum += count;
    }
}
