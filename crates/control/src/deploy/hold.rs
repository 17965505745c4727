//! The hold of a `held` handover: how long callers may wait while neither release serves, and what they saw of it.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trackbed_core::ServiceId;
use trackbed_core::deployment::{Deployment, DeploymentState, EventKind, Failure, Pause, Step};
use trackbed_core::service::{Live, Service, Wanted};
use trackbed_core::settings::{HOLD_WINDOW_DEFAULT, Handover, ServiceConfig};

use super::StepError;
use super::drain::DRAIN_POLL;
use super::undo::UNDO_GRACE;
use crate::control::{Control, ControlError};

/// How long short requests in flight may take once new ones are parked; a longer one is cut with its instance. Every
/// caller waits for them.
pub(crate) const FINISH_LIMIT: Duration = Duration::from_secs(10);
/// A release is given this many times what the last start of the service took.
pub(super) const START_MARGIN: u32 = 2;
/// How long a start may take, in the eyes of those who wait for it, when nothing is known of the release.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long the requests that were parked may take to leave the edge before what they saw is written down.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// What putting data back takes at least, in the eyes of those who wait.
const DATA_PATIENCE: Duration = Duration::from_secs(10);
/// And at most: who waits longer is told that the service is not ready, and asks again.
const DATA_PATIENCE_MAX: Duration = Duration::from_secs(10 * 60);
/// Reading a restore point and writing it to a slow disk.
const DATA_BYTES_PER_SECOND: u64 = 40_000_000;
/// Deployments that are looked through for the one that was undone.
const NEWEST: u32 = 10;

/// Decides how long a handover may hold callers: what the owner says, or what starts of the service usually take.
/// None when nobody serves whom callers could be given back to: then only the health timeout counts.
pub(super) fn hold_window(service: &Service, config: &ServiceConfig) -> Option<Duration> {
    let live = service.live.as_ref()?;
    // One that is just started again after an undo will serve; one that crashes may not.
    let serves = live.port.is_some() || live.waited_ms > 0;
    if service.wanted == Wanted::Stopped || !serves || live.given_up.is_some() {
        return None;
    }
    let usual = live.start_took_ms.map(Duration::from_millis).unwrap_or_default();
    Some(config.hold_window.unwrap_or(HOLD_WINDOW_DEFAULT.max(usual * START_MARGIN)))
}

/// The longest that a request may have waited when the old release is started again: its last requests, its stop, the
/// window of the new one, the new one's stop, and putting the data back.
pub(crate) fn waited_at_most(stop_grace: Duration, window: Duration, data: Duration) -> Duration {
    FINISH_LIMIT + stop_grace + window + UNDO_GRACE + data
}

/// How long callers wait while the data of a deployment is put back. It goes on after that; see `deadlines.rs`.
pub(crate) fn data_patience(deployment: &Deployment) -> Duration {
    if deployment.pins.is_empty() {
        return Duration::ZERO;
    }
    let by_size = Duration::from_secs(pinned_bytes(deployment) / DATA_BYTES_PER_SECOND);
    (DATA_PATIENCE + by_size).min(DATA_PATIENCE_MAX)
}

/// The size of the data that a deployment has pinned, in bytes.
pub(super) fn pinned_bytes(deployment: &Deployment) -> u64 {
    deployment.pins.iter().filter_map(|pin| Some(pin.capture.as_ref()?.bytes)).sum()
}

/// How long callers are held for a start of the live release.
pub(crate) fn start_patience(live: Option<&Live>) -> Duration {
    let usual = live.and_then(|live| live.start_took_ms).map(Duration::from_millis).unwrap_or_default();
    START_PATIENCE.max(usual * START_MARGIN)
}

impl Control {
    /// Notes that callers of a service are held from now on, unless they are already. Kept in memory alone: the window
    /// is measured by a clock that does not jump, and a `serve` that takes over in the middle begins it anew.
    pub(super) fn begin_hold(&self, service: &ServiceId) {
        self.holds().entry(service.clone()).or_insert_with(Instant::now);
    }

    pub(super) fn end_hold(&self, service: &ServiceId) {
        self.holds().remove(service);
    }

    fn holds(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<ServiceId, Instant>> {
        self.inner.held_since.lock().expect("no holder of this lock panics")
    }

    /// Returns how much of its hold window a deployment has left; none when callers have nobody to be given back to.
    pub(super) fn hold_left(&self, deployment: &Deployment) -> Option<Duration> {
        let window = Duration::from_millis(deployment.hold_window_ms?);
        let since = *self.holds().entry(deployment.service.clone()).or_insert_with(Instant::now);
        Some(window.saturating_sub(since.elapsed()))
    }

    /// Notes what callers saw of a handover, once those who were held are gone.
    pub(super) async fn note_pause(&self, deployment: &mut Deployment) -> Result<(), ControlError> {
        if deployment.hold_window_ms.is_none() || deployment.pause.is_some() {
            return Ok(());
        }
        let Some(pause) = self.pause_of(&deployment.service).await else { return Ok(()) };
        deployment.pause = Some(pause);
        self.event(deployment, EventKind::Note, &pause.to_string()).await
    }

    /// Notes what callers saw of a handover that was undone, when the old release is healthy again. Repeating it is
    /// fine. Returns the live release as it is stored now.
    pub(crate) async fn note_end_of_undo(&self, service: &Service, live: Live) -> Result<Live, ControlError> {
        if live.waited_ms == 0 {
            return Ok(live);
        }
        let id = service.id.clone();
        let newest = self.inner.store.with(move |db| db.list_deployments(&id, NEWEST)).await?;
        let undone = newest.into_iter().find(|deployment| {
            deployment.state.is_terminal()
                && deployment.state != DeploymentState::Success
                && deployment.handover == Some(Handover::Held)
                && deployment.step.has_parked()
        });
        if let Some(mut undone) = undone {
            self.note_pause(&mut undone).await?;
            self.inner.store.with(move |db| db.update_deployment(&undone)).await?;
        }
        let live = Live { waited_ms: 0, ..live };
        let (id, stored) = (service.id.clone(), live.clone());
        self.inner.store.with(move |db| db.set_live(&id, &stored)).await?;
        self.announce();
        Ok(live)
    }

    /// Asks the edge until nobody waits there any more. What it said last counts when somebody still does; none when it
    /// said nothing.
    async fn pause_of(&self, service: &ServiceId) -> Option<Pause> {
        let began = Instant::now();
        let mut pause = None;
        loop {
            if let Ok(stats) = self.inner.edge.stats().await {
                let parked = stats.parked.get(service.as_str()).copied().unwrap_or_default();
                pause = Some(Pause {
                    longest_ms: parked.longest_ms,
                    requests: parked.total,
                    refused: parked.refused,
                });
                if parked.now == 0 {
                    return pause;
                }
            }
            if began.elapsed() >= LEAVE_LIMIT {
                return pause;
            }
            sleep(DRAIN_POLL).await;
        }
    }
}

/// The failure of a handover whose window was over before the new release had begun.
pub(super) fn window_was_over(deployment: &Deployment) -> StepError {
    StepError::Failed(Box::new(Failure {
        stage: Step::Start,
        reason: format!(
            "the hold window of {} was over before the new release could start: the old one needed all of it to stop",
            words(deployment)
        ),
        hint: Some(format!("let the app end sooner at SIGTERM, or {}", longer(deployment))),
        log_tail: Vec::new(),
    }))
}

/// Says in a failure that the window was what made it one, and how to widen it.
pub(super) fn blame_window(failure: Failure, deployment: &Deployment) -> Failure {
    let reason = format!(
        "{}; with that the hold window of {} was over, for which callers are held while one release takes over from the other",
        failure.reason,
        words(deployment)
    );
    let way_out = format!("if it only needs longer, {}", longer(deployment));
    let hint = match failure.hint {
        Some(hint) => {
            format!("{}; {way_out}", hint.replace("; if it only needs longer, raise healthcheckTimeout", ""))
        }
        None => way_out,
    };
    Failure { reason, hint: Some(hint), ..failure }
}

fn words(deployment: &Deployment) -> String {
    format!("{} s", Duration::from_millis(deployment.hold_window_ms.unwrap_or_default()).as_secs_f64())
}

pub(super) fn longer(deployment: &Deployment) -> String {
    let window = Duration::from_millis(deployment.hold_window_ms.unwrap_or_default());
    format!("hold callers longer: holdSeconds = {} under [deploy] in trackbed.toml", window.as_secs() * 2 + 1)
}
