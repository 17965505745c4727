//! How long each step of a deployment may take, and what happens when that is over.

use std::time::Duration;

use trackbed_core::deployment::{Deployment, Failure, Step};
use trackbed_core::settings::ServiceConfig;
use trackbed_store::StoreError;

use super::hold::pinned_bytes;
use crate::control::Control;

const MINUTE: Duration = Duration::from_secs(60);

/// How long undoing may take besides the grace of the old release, which may be just ending, and besides putting data
/// back: ending two instances, and trying again what fails.
/// What is left then is the sweeper's.
const UNDO: Duration = Duration::from_secs(4 * 60);
/// What putting data back may take at least, as long as it gets on: comparing, reading a point, and writing it.
const PUT_BACK: Duration = Duration::from_secs(10 * 60);
/// How fast the slowest disk is on which it is not given up. An attempt has half of the time.
const PUT_BACK_BYTES_PER_SECOND: u64 = 5_000_000;

/// What a step may take beyond what the service's own settings ask for.
struct Limit {
    own: Duration,
    asked: Asked,
    /// What to do when it is over.
    hint: &'static str,
}

/// What the service's settings ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// The drain limit of the old release, twice: a drain begins anew when the box is restarted in the middle.
    DrainTwice,
    /// The grace of the old release.
    Grace,
    /// Both, one after the other.
    DrainTwiceAndGrace,
    /// The health timeout of the new release.
    Health,
}

const BOX_HANGS: &str = "something on the box hangs or is very slow: look at its disk, its memory and the log of `trackbed serve`, then deploy again";

const DATA_IS_SLOW: &str = "the disk of the box is slow for this much data, or hangs: look at it and at the log of `trackbed serve`, then deploy again";

/// The table. Each limit lies above everything that the step itself waits for, so that it ends only what hangs.
fn limit_of(step: Step) -> Limit {
    let limit = |own, asked, hint| Limit { own, asked, hint };
    match step {
        // A Python and the installer may have to be fetched first, over a slow line: 3 and 5 minutes of their own.
        Step::Plan => {
            limit(15 * MINUTE, Asked::Nothing, "can the box reach the package index and GitHub? deploy again")
        }
        // Two commands with 20 minutes each of their own; the turns of builds before it are added.
        Step::Build => limit(
            60 * MINUTE,
            Asked::Nothing,
            "the end of `trackbed logs --build` says what took so long; deploy again",
        ),
        // One transaction of our own.
        Step::Release => limit(MINUTE, Asked::Nothing, BOX_HANGS),
        // Directories are made, and the image's own interpreter may be tried.
        Step::Check => limit(5 * MINUTE, Asked::Nothing, BOX_HANGS),
        // The old release serves meanwhile; a big volume may have to be read and written as a whole.
        Step::Stage => limit(60 * MINUTE, Asked::Nothing, DATA_IS_SLOW),
        // Likewise, and then the health timeout of the new release.
        Step::Rehearse => limit(60 * MINUTE, Asked::Health, DATA_IS_SLOW),
        // It ends by itself at the drain limit, and begins it anew after a restart of the box.
        Step::Drain => limit(MINUTE, Asked::DrainTwice, BOX_HANGS),
        // Requests in flight have 10 s of their own; callers wait.
        Step::Park => limit(MINUTE, Asked::Nothing, BOX_HANGS),
        // After the grace the kill, with some seconds each for app, init and supervisor.
        Step::Stop => limit(
            Duration::from_secs(90),
            Asked::Grace,
            "a process of the old release is frozen or hangs in the kernel, often on a disk; look at `dmesg` of the box",
        ),
        // Callers wait: what was not read ahead must be little. Where nobody waits it may be more.
        Step::Pin => limit(10 * MINUTE, Asked::Nothing, DATA_IS_SLOW),
        // Renames; only an adoption copies.
        Step::Swap => limit(10 * MINUTE, Asked::Nothing, BOX_HANGS),
        // A migration of much data where nobody waits; where callers do, the hold window ends it.
        Step::PreDeploy => limit(
            60 * MINUTE,
            Asked::Nothing,
            "the pre-deploy command must end; `trackbed logs` shows what it said",
        ),
        // A big volume is handed to its user, or a big image is copied where nothing can be mounted.
        Step::Start => limit(10 * MINUTE, Asked::Nothing, BOX_HANGS),
        // It ends by itself at the health timeout.
        Step::Health => limit(MINUTE, Asked::Health, BOX_HANGS),
        // The edge is told; who keeps the routes goes on telling it.
        Step::Switch => limit(MINUTE, Asked::Nothing, BOX_HANGS),
        // Drained, then ended; who sweeps goes on ending it.
        Step::Retire => limit(Duration::from_secs(90), Asked::DrainTwiceAndGrace, BOX_HANGS),
    }
}

impl Control {
    /// Returns how long the step that a deployment is at may take, or its undoing once it is given up.
    pub(super) async fn time_limit(&self, deployment: &Deployment) -> Result<Duration, StoreError> {
        let Limit { own, asked, .. } = limit_of(deployment.step);
        // Its turn may come late, and that is not its fault.
        let own = match deployment.step {
            Step::Build => own.saturating_add(self.inner.turns.longest_wait()),
            _ => own,
        };
        let (own, asked) = match deployment.is_given_up() {
            true => (UNDO.saturating_add(put_back_limit(deployment)), Asked::Grace),
            false => (own, asked),
        };
        let release = match asked {
            Asked::Nothing => None,
            Asked::Health => deployment.release.clone(),
            Asked::DrainTwice | Asked::Grace | Asked::DrainTwiceAndGrace => deployment.previous.clone(),
        };
        let Some(release) = release else { return Ok(own) };
        let config = self.inner.store.with(move |db| db.load_release(&release)).await?.config;
        Ok(own.saturating_add(asked_by(&config, asked)))
    }
}

/// How long undoing is tried again when it fails, out of its whole limit: a disk that is full or a point that is broken
/// does not mend itself, while what is slow may go on.
pub(super) fn retries_of_undo(deployment: &Deployment, limit: Duration) -> Duration {
    limit.saturating_sub(put_back_limit(deployment))
}

/// How long putting the data of a deployment back may take, by the size of the data. Nothing runs meanwhile.
fn put_back_limit(deployment: &Deployment) -> Duration {
    match deployment.may_have_changed().next() {
        Some(_) => PUT_BACK + Duration::from_secs(pinned_bytes(deployment) / PUT_BACK_BYTES_PER_SECOND),
        None => Duration::ZERO,
    }
}

fn asked_by(config: &ServiceConfig, asked: Asked) -> Duration {
    match asked {
        Asked::Nothing => Duration::ZERO,
        Asked::DrainTwice => config.drain_timeout.saturating_mul(2),
        Asked::Grace => config.stop_grace,
        Asked::DrainTwiceAndGrace => config.drain_timeout.saturating_mul(2).saturating_add(config.stop_grace),
        Asked::Health => config.health.timeout,
    }
}

/// Says that a step took too long, with what kept it when that is known.
pub(super) fn overrun(stage: Step, limit: Duration, last: Option<String>) -> Failure {
    let last = last.map(|last| format!("; the last error was: {last}")).unwrap_or_default();
    Failure {
        stage,
        reason: format!("step {} was not done within {} s{last}", stage.as_str(), limit.as_secs()),
        hint: Some(limit_of(stage).hint.to_owned()),
        log_tail: Vec::new(),
    }
}
