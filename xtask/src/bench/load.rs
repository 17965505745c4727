//! How busy the machine was while something was measured, so that a noisy round can be seen.

use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

/// `/proc/stat` counts in hundredths of a second (proc_stat(5), `USER_HZ`).
const TICK_SECONDS: f64 = 0.01;

/// State of the counters at one moment.
pub(super) struct Load {
    at: Instant,
    waiting_us: f64,
    busy_s: f64,
    stolen_s: f64,
}

/// What happened between two moments.
pub(super) struct Noise {
    /// Share of the time in which something that could run waited for a processor (PSI `some`), percent. The
    /// measurement itself, which fills both processors, is part of it.
    pub(super) waiting_percent: f64,
    /// Processor time of everybody else, percent of one processor.
    pub(super) foreign_percent: f64,
    /// Processor time that the hypervisor gave to others, percent of one processor.
    pub(super) stolen_percent: f64,
}

impl std::fmt::Display for Noise {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Noise { waiting_percent, foreign_percent, stolen_percent } = self;
        write!(out, "psi {waiting_percent:.0} %, others {foreign_percent:.0} %, stolen {stolen_percent:.0} %")
    }
}

impl Load {
    /// Reads the counters.
    pub(super) fn now() -> Result<Load> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("the first line of /proc/stat")?;
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal
        let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index)).sum();
        // A kernel without PSI has no such file: then it stays 0.
        let pressure = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
        let waiting = pressure.lines().next().and_then(|line| line.rsplit_once("total=")).map(|(_, us)| us);
        Ok(Load {
            at: Instant::now(),
            waiting_us: waiting.and_then(|us| us.parse().ok()).unwrap_or(0.0),
            busy_s: busy * TICK_SECONDS,
            stolen_s: ticks.get(7).copied().unwrap_or(0.0) * TICK_SECONDS,
        })
    }

    /// Returns what happened since, when the measured programs took `own_s` seconds of processor time.
    pub(super) fn noise_since(&self, own_s: f64) -> Result<Noise> {
        let now = Load::now()?;
        let wall = now.at.duration_since(self.at).as_secs_f64();
        Ok(Noise {
            waiting_percent: (now.waiting_us - self.waiting_us) / wall / 1e4,
            foreign_percent: ((now.busy_s - self.busy_s - own_s) / wall * 100.0).max(0.0),
            stolen_percent: (now.stolen_s - self.stolen_s) / wall * 100.0,
        })
    }
}

/// Processor time of a process, all of its living threads, in nanoseconds: the scheduler's own sum, without the 10 ms steps of
/// `/proc/PID/stat`.
pub(super) fn cpu_ns(process: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let ran = text.split(' ').next().context("schedstat has three numbers")?;
        sum += ran.parse::<u64>()?;
    }
    Ok(sum)
}

/// Resident memory of a process, in bytes.
pub(super) fn resident_bytes(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a VmRSS line")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

/// Processor time of ended and awaited children, in seconds.
pub(super) fn children_cpu_s() -> Result<f64> {
    cpu_s_of(UsageWho::RUSAGE_CHILDREN)
}

/// Processor time of this process, in seconds.
pub(super) fn own_cpu_s() -> Result<f64> {
    cpu_s_of(UsageWho::RUSAGE_SELF)
}

fn cpu_s_of(who: UsageWho) -> Result<f64> {
    let usage = getrusage(who)?;
    let sum = usage.user_time() + usage.system_time();
    Ok(std::time::Duration::from_micros(sum.num_microseconds().unsigned_abs()).as_secs_f64())
}

/// Raises the limit of open files as far as allowed, for us and our children, and returns it.
pub(super) fn raise_open_files() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
