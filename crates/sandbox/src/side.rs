//! The processes beside the main one, as init keeps them: started with it, and each started again when it has ended.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use trackbed_core::settings::RestartPolicy;
use trackbed_stdx::backoff;

use crate::launch;
use crate::records::Order;
use crate::tree::Step;

/// Wait before the first start again.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait: what always fails costs two starts a minute.
const BACKOFF_CEILING: Duration = Duration::from_secs(30);
/// Tells a process which copy of which it is, where there are several.
const PROCESS_VARIABLE: &str = "TRACKBED_PROCESS";

/// What init tells its shim of one of them; the index is that of its order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum News {
    /// It runs, under this pid inside.
    Began { index: usize, pid: i32 },
    /// It ended with this wait status, and is started again after a while; not at all when the end was asked for.
    Ended { index: usize, status: i32, again_ms: Option<u64> },
    /// It could not be started.
    NotBegun { index: usize, message: String, again_ms: u64 },
}

/// All of them.
pub(crate) struct Sides {
    all: Vec<Side>,
    /// Whether none is started any more.
    is_over: bool,
}

struct Side {
    command: Vec<CString>,
    env: Vec<CString>,
    streams: [RawFd; 2],
    phase: Phase,
    /// Ends in a row, each soon after its start.
    short_runs: u32,
}

#[derive(Clone, Copy)]
enum Phase {
    Runs { pid: i32, since: Instant },
    Due { at: Instant },
}

/// Returns the variables of a process of an order.
pub(crate) fn variables(order: &Order, process: &str) -> Step<Vec<CString>> {
    let mut env = order.env.clone();
    if !order.formation.beside.is_empty() {
        env.push((PROCESS_VARIABLE.to_owned(), process.to_owned()));
    }
    launch::environment(&env, order.level)
}

/// Returns the words that run a command.
pub(crate) fn shell(command: &str) -> Step<Vec<CString>> {
    launch::words(&["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()])
}

impl Sides {
    /// Makes them of an order; all are due at once. Each has two pipes.
    pub(crate) fn of(order: &Order, streams: &[[RawFd; 2]]) -> Step<Sides> {
        let now = Instant::now();
        let both = order.formation.beside.iter().zip(streams);
        let side = both.map(|(beside, streams)| {
            let (command, env) = (shell(&beside.command)?, variables(order, &beside.name)?);
            Step::Ok(Side { command, env, streams: *streams, phase: Phase::Due { at: now }, short_runs: 0 })
        });
        Ok(Sides { all: side.collect::<Step<_>>()?, is_over: false })
    }

    /// Starts those that are due, by `start`, which returns a pid.
    pub(crate) fn start_due(
        &mut self,
        mut start: impl FnMut(&[CString], &[CString], [RawFd; 2]) -> Result<i32, String>,
    ) -> Vec<News> {
        let mut news = Vec::new();
        for (index, side) in self.all.iter_mut().enumerate() {
            let is_due = matches!(side.phase, Phase::Due { at } if at <= Instant::now());
            if !is_due || self.is_over {
                continue;
            }
            news.push(match start(&side.command, &side.env, side.streams) {
                Ok(pid) => {
                    side.phase = Phase::Runs { pid, since: Instant::now() };
                    News::Began { index, pid }
                }
                Err(message) => News::NotBegun { index, message, again_ms: side.wait_its_turn() },
            });
        }
        news
    }

    /// Returns when the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = |side: &Side| match side.phase {
            Phase::Due { at } => Some(at),
            Phase::Runs { .. } => None,
        };
        self.all.iter().filter(|_| !self.is_over).filter_map(due).min()
    }

    /// Finds the one with this pid.
    pub(crate) fn find(&self, pid: i32) -> Option<usize> {
        self.running().position(|running| running == Some(pid))
    }

    /// Returns the pids of those that run. Each leads a group.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.running().flatten().collect()
    }

    fn running(&self) -> impl Iterator<Item = Option<i32>> {
        self.all.iter().map(|side| match side.phase {
            Phase::Runs { pid, .. } => Some(pid),
            Phase::Due { .. } => None,
        })
    }

    /// Notes that one has ended.
    pub(crate) fn end(&mut self, index: usize, status: i32) -> News {
        let side = &mut self.all[index];
        if matches!(side.phase, Phase::Runs { since, .. } if since.elapsed() >= RestartPolicy::STEADY) {
            side.short_runs = 0;
        }
        let again_ms = side.wait_its_turn();
        News::Ended { index, status, again_ms: (!self.is_over).then_some(again_ms) }
    }

    /// From now on none is started.
    pub(crate) fn stop_starting(&mut self) {
        self.is_over = true;
    }
}

impl Side {
    fn wait_its_turn(&mut self) -> u64 {
        let wait = backoff::exponential(BACKOFF_FIRST, BACKOFF_CEILING, self.short_runs);
        self.short_runs = self.short_runs.saturating_add(1);
        self.phase = Phase::Due { at: Instant::now() + wait };
        u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
    }
}
