//! How the streams of a release end when it goes: by themselves until the drain limit, then politely and one after the
//! other, and only what is left even then is cut.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trackbed_core::InstanceId;
use trackbed_core::deployment::{Deployment, EventKind};
use trackbed_core::route::TargetStats;

use crate::control::{Control, ControlError, within};

/// How often counters of the edge are read while something drains.
pub(super) const DRAIN_POLL: Duration = Duration::from_millis(20);
/// The last part of the drain limit over which streams are ended, so that their clients do not all come back at once.
const STAGGER_PART: u32 = 3;
/// More time than this between the first and the last helps nobody, and those ended first could have gone on.
const STAGGER_MAX: Duration = Duration::from_secs(10);
/// The edge cuts a stream that has not ended a second after its turn, and needs a moment to count it as ended.
const END_SLACK: Duration = Duration::from_millis(1500);

/// How a drain came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// Everything ended by itself.
    ByItself,
    /// So many streams were ended at the limit.
    Ended(u64),
    /// Something is open still.
    Left,
}

impl Control {
    /// Waits until `is_done`, and ends the streams that are still open so that the last of them ends at the limit.
    /// Cancel-safe; begun anew after a crash, with the whole limit.
    pub(super) async fn drain(
        &self,
        instance: &InstanceId,
        limit: Duration,
        is_done: impl Fn(TargetStats) -> bool + Copy,
    ) -> Drained {
        let stagger = stagger(limit);
        if within(limit - stagger, self.until(instance, is_done)).await {
            return Drained::ByItself;
        }
        let open = self.end_streams(instance, stagger).await;
        let slack = if open > 0 { END_SLACK } else { Duration::ZERO };
        match within(stagger + slack, self.until(instance, is_done)).await {
            true if open == 0 => Drained::ByItself,
            true => Drained::Ended(open),
            // Even a limit of zero may find that there was nothing to wait for.
            false if self.traffic(instance).await.is_some_and(is_done) => Drained::Ended(open),
            false => Drained::Left,
        }
    }

    /// Ends the streams that came back to a release while its drain went on. New requests are parked by now, so that
    /// they come back to the next one.
    pub(super) async fn end_returned_streams(&self, instance: &InstanceId) {
        if self.end_streams(instance, Duration::ZERO).await > 0 {
            within(END_SLACK, self.until(instance, |stats| stats.streams == 0)).await;
        }
    }

    /// Returns how many streams were open. An edge that does not answer ends none: they end with their instance.
    async fn end_streams(&self, instance: &InstanceId, over: Duration) -> u64 {
        let open = self.traffic(instance).await.map_or(0, |stats| stats.streams);
        if open == 0 {
            return 0;
        }
        match self.inner.edge.end_streams(instance, over).await {
            Ok(()) => open,
            Err(error) => {
                tracing::warn!(%instance, %error, "could not ask the edge to end streams");
                0
            }
        }
    }

    async fn traffic(&self, instance: &InstanceId) -> Option<TargetStats> {
        let stats = self.inner.edge.stats().await.ok()?;
        Some(stats.targets.get(instance.as_str()).copied().unwrap_or_default())
    }

    /// Tells how streams ended, unless they did by themselves.
    pub(super) async fn tell_of_streams(
        &self,
        deployment: &Deployment,
        drained: Drained,
        limit: Duration,
    ) -> Result<(), ControlError> {
        let limit_s = limit.as_secs_f64();
        match drained {
            Drained::ByItself => Ok(()),
            Drained::Ended(count) => {
                let streams = if count == 1 { "1 stream was" } else { &format!("{count} streams were") };
                let text = match stagger(limit) {
                    Duration::ZERO => format!("{streams} ended at once, by a drain limit of {limit_s} s"),
                    over => format!(
                        "{streams} ended at the drain limit of {limit_s} s, spread over its last {:.1} s",
                        over.as_secs_f64()
                    ),
                };
                self.event(deployment, EventKind::Note, &text).await
            }
            Drained::Left => {
                let text = format!(
                    "streams were still open at the drain limit of {limit_s} s; they end with the old release"
                );
                self.event(deployment, EventKind::Warning, &text).await
            }
        }
    }

    /// Waits until the counters of an instance satisfy a condition. An edge that does not answer says nothing about its
    /// requests: it is asked again, and callers bound the wait.
    pub(super) async fn until(&self, instance: &InstanceId, satisfied: impl Fn(TargetStats) -> bool) {
        let began = Instant::now();
        loop {
            if self.traffic(instance).await.is_some_and(&satisfied) {
                tracing::debug!(%instance, waited = ?began.elapsed(), "drained");
                return;
            }
            sleep(DRAIN_POLL).await;
        }
    }
}

fn stagger(limit: Duration) -> Duration {
    (limit / STAGGER_PART).min(STAGGER_MAX)
}
