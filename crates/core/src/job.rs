//! A job: a release whose start command runs at the ticks of a schedule and ends, instead of serving.

use serde::{Deserialize, Serialize};

use crate::cron::CronSchedule;
use crate::instance::Exit;
use crate::{InstanceId, Timestamp};

/// Runs that are remembered, with their logs.
pub const RUNS_KEPT: usize = 20;

/// What is known of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// When it runs.
    pub schedule: CronSchedule,
    /// Ticks up to here are served. Ticks that passed while the box was down are served by one run.
    pub served_until: Timestamp,
    /// Its last runs, the oldest first; at most [`RUNS_KEPT`].
    pub runs: Vec<Run>,
}

/// One tick of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The tick.
    pub due_at: Timestamp,
    /// What ran; none when it was skipped because the run before still ran.
    pub instance: Option<InstanceId>,
    /// How and when it ended; none while it runs, and for one that was skipped.
    pub end: Option<RunEnd>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// When.
    pub at: Timestamp,
    /// How.
    pub exit: Exit,
}

impl Job {
    /// Makes one that becomes live now, with the runs of the release before.
    pub fn begin(schedule: CronSchedule, now: Timestamp, runs: Vec<Run>) -> Self {
        Self { schedule, served_until: now, runs }
    }

    /// Returns the next tick that is not served.
    pub fn next(&self) -> Option<Timestamp> {
        self.schedule.next_after(self.served_until)
    }

    /// Notes that a tick, and all before it, are served: by an instance, or by none because one still runs.
    pub fn serve(&mut self, due_at: Timestamp, now: Timestamp, instance: Option<InstanceId>) {
        self.served_until = now.max(due_at);
        self.runs.push(Run { due_at, instance, end: None });
        let excess = self.runs.len().saturating_sub(RUNS_KEPT);
        self.runs.drain(..excess);
    }

    /// A clock that was ahead served ticks that are still to come; they come.
    pub fn set_clock(&mut self, now: Timestamp) {
        self.served_until = self.served_until.min(now);
    }

    /// Returns the instances whose logs are kept.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.runs.iter().filter_map(|run| run.instance.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn ticks_that_were_missed_are_served_by_one_run() {
        let mut job = Job::begin("* * * * *".parse().unwrap(), Timestamp(10), Vec::new());
        assert_eq!(job.next(), Some(Timestamp(MINUTE)));
        let late = Timestamp(90 * MINUTE + 5);
        job.serve(Timestamp(MINUTE), late, None);
        assert_eq!(job.next(), Some(Timestamp(91 * MINUTE)));
        job.set_clock(Timestamp(30 * MINUTE));
        assert_eq!(job.next(), Some(Timestamp(31 * MINUTE)), "the clock was set back");
    }

    #[test]
    fn only_the_last_runs_are_remembered() {
        let mut job = Job::begin("* * * * *".parse().unwrap(), Timestamp(0), Vec::new());
        for minute in 1..100 {
            job.serve(Timestamp(minute * MINUTE), Timestamp(minute * MINUTE), None);
        }
        assert_eq!(job.runs.len(), RUNS_KEPT);
        assert_eq!(job.runs[RUNS_KEPT - 1].due_at, Timestamp(99 * MINUTE));
    }
}
