//! How a container ended: by itself, by a signal, or because memory was short.

use std::time::{Duration, Instant};

use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;
use trackbed_core::instance::{Exit, InstanceKind};
use trackbed_sandbox::beside::{Log, OomCount, Process};

use crate::daemon::{self, Daemon};
use crate::records::Order;
use crate::supervise::feed;

/// How long the engine may take to say how a container ended that the kernel has ended. It may be restarting.
const EXIT_LIMIT: Duration = Duration::from_secs(30);
/// How long the engine may take to say that memory was short, once it knows of the end.
const OOM_NEWS_LIMIT: Duration = Duration::from_secs(1);
/// How engines tell SIGKILL.
const KILLED: i32 = 128 + 9;
/// How long the last lines may take.
pub(crate) const LAST_LINES_LIMIT: Duration = Duration::from_secs(3);
/// Pause before an engine that did not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause before an engine is asked again that answers, and has not heard yet that a container has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long after its start the group of a container may be gone before anybody looked for it. Until then the count of the
/// whole box must do.
const EARLY: Duration = Duration::from_secs(60);

/// What the kernel tells of a container's memory. Without a limit of its own that says nothing of the container.
#[derive(Debug)]
pub(crate) struct Memory {
    has_limit: bool,
    begun: Instant,
    /// How often the kernel had killed for want of memory on this box.
    kills_before: u64,
    group: Option<OomCount>,
    /// Whether it has killed in the container.
    is_short: bool,
    /// Whether it has killed on this box since the container began, and that was just now.
    is_box_short: bool,
}

impl Memory {
    /// Begins before the container does.
    pub(crate) fn before(order: &Order) -> Self {
        Self {
            has_limit: order.limits.memory_bytes.is_some(),
            begun: Instant::now(),
            kills_before: OomCount::of_box().read(),
            group: None,
            is_short: false,
            is_box_short: false,
        }
    }

    /// Finds where the kernel counts for the container.
    pub(crate) fn watch(&mut self, init: Process) {
        self.group = if self.has_limit { init.find_oom_count() } else { None };
    }

    /// Looks once it has ended; at once, because its group is about to go.
    pub(crate) fn look(&mut self) {
        self.is_short = self.group.as_ref().is_some_and(|group| group.read() > 0);
        let is_early = self.has_limit && self.begun.elapsed() < EARLY;
        self.is_box_short = is_early && OomCount::of_box().read() > self.kills_before;
    }
}

/// Asks the engine how a container ended of which nothing lives. That memory was short it may hear a little later than the
/// end, and Podman not at all: then the kernel's own word counts. Neither does when `killed`, because that was us.
pub(crate) async fn find_exit(daemon: &Daemon, order: &Order, memory: &Memory, killed: bool) -> Exit {
    let deadline = Instant::now() + EXIT_LIMIT;
    let mut news_at = None;
    let mut daemon = daemon.clone();
    while Instant::now() < deadline {
        match daemon.inspect(&order.container()).await {
            Ok(seen) => {
                let state = seen.state.unwrap_or_default();
                let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
                if let (Some(false), Some(code)) = (state.running, code) {
                    let is_told = !killed && (memory.is_short || state.oom_killed == Some(true));
                    let news_at = *news_at.get_or_insert_with(|| Instant::now() + OOM_NEWS_LIMIT);
                    let may_come = !killed && code == KILLED && memory.has_limit;
                    if is_told || !may_come || Instant::now() >= news_at {
                        return exit_of(code, is_told || (may_come && memory.is_box_short));
                    }
                }
            }
            Err(error) if daemon::is_missing(&error) => return Exit::Lost,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                if let Ok(again) = daemon::connect(&order.daemon).await {
                    daemon = again;
                }
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Exit::Lost
}

/// Reads the log and the end of a container that has ended before anybody could look.
pub(crate) async fn read_log_and_exit(
    daemon: &Daemon,
    order: &Order,
    mut memory: Memory,
    log: &mut Log,
) -> Exit {
    memory.look();
    let options = LogsOptions { stdout: true, stderr: true, tail: "all".to_owned(), ..Default::default() };
    let mut stream = daemon.api.logs(&order.container(), Some(options));
    let read = async {
        while let Some(Ok(output)) = stream.next().await {
            feed(log, &output);
        }
    };
    let _ = tokio::time::timeout(LAST_LINES_LIMIT, read).await;
    log.finish();
    let exit = find_exit(daemon, order, &memory, false).await;
    tell(order, &exit, false, log);
    exit
}

/// Writes into the log how it ended. An end that was asked for is no news.
pub(crate) fn tell(order: &Order, exit: &Exit, asked: bool, log: &mut Log) {
    if *exit == Exit::Oom {
        let limit = order.limits.memory_bytes.unwrap_or(0) >> 20;
        log.note(&format!("killed for using more memory than its limit of {limit} MiB"));
    } else if !asked && order.kind == InstanceKind::Service {
        log.note(&format!("the app {exit}"));
    }
}

/// Engines tell a signal as 128 and its number, as shells do.
fn exit_of(code: i32, is_oom: bool) -> Exit {
    match code {
        KILLED if is_oom => Exit::Oom,
        129..=192 => Exit::Signal { signal: code - 128 },
        _ => Exit::Code { code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_from_a_code_and_from_the_want_of_memory() {
        assert_eq!(exit_of(3, false), Exit::Code { code: 3 });
        assert_eq!(exit_of(137, false), Exit::Signal { signal: 9 });
        assert_eq!(exit_of(137, true), Exit::Oom);
        assert_eq!(exit_of(143, true), Exit::Signal { signal: 15 });
    }
}
