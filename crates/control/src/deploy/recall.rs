//! What ends a deployment before it is live though nothing of it failed: its owner, or a newer deployment.
//!
//! Whatever can be undone ends at once, with two exceptions, both in a `held` handover that has begun to touch the old
//! release. While the old release is stopping, nobody can unsay that: the step is finished first. And once it is
//! stopped, a newer deployment that has yet to be built waits a moment for the health of this one: going back means a
//! start of the old release now and another handover after the build, while callers are parked; see
//! docs/decisions/0006. One that puts data in place is not superseded at all: the newer one waits behind it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use trackbed_core::DeploymentId;
use trackbed_core::deployment::{Deployment, DeploymentKind, DeploymentState, Failure, Step, Withdrawal};
use trackbed_store::StoreError;

use crate::control::Control;

/// How long a release whose predecessor is stopped may take to become healthy although a newer one waits to be built.
/// Long enough for most apps to start; what callers lose by it is bounded, and less than a start of the old release.
const HELD_PATIENCE: Duration = Duration::from_secs(10);

/// Why a deployment shall end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recall {
    /// The service was stopped.
    Stopped,
    /// Its owner cancelled it.
    Cancelled,
    /// A newer one was asked for.
    Superseded {
        by: DeploymentId,
        /// Whether the newer one has yet to be built.
        must_build: bool,
    },
}

impl Recall {
    /// Returns for how long a deployment may go on with its step all the same, or none when it may finish the step.
    fn patience(&self, deployment: &Deployment) -> Option<Duration> {
        let at_once = Some(Duration::ZERO);
        let touched = deployment.has_touched_old();
        match (deployment.step, self) {
            (Step::Retire, _) => None,
            // The transaction of the switch looks for it once more: a cancellation that was accepted is kept.
            (Step::Switch, Recall::Cancelled) => at_once,
            (Step::Switch, Recall::Stopped | Recall::Superseded { .. }) => None,
            (_, Recall::Superseded { must_build: true, .. }) if touched => Some(HELD_PATIENCE),
            _ => at_once,
        }
    }
}

/// What becomes of a deployment that is recalled.
pub(super) enum Verdict {
    Fails(Failure),
    Withdrawn(Withdrawal),
}

impl Recall {
    pub(super) fn verdict(self, stage: Step) -> Verdict {
        match self {
            Recall::Stopped => Verdict::Fails(Failure {
                stage,
                reason: "the service was stopped before this deployment was live".into(),
                hint: Some("deploy it again: trackbed up".into()),
                log_tail: Vec::new(),
            }),
            Recall::Cancelled => Verdict::Withdrawn(Withdrawal::Cancelled),
            Recall::Superseded { by, .. } => Verdict::Withdrawn(Withdrawal::Superseded { by }),
        }
    }
}

impl Control {
    /// Returns why a deployment shall end now, if it shall.
    pub(super) async fn recalled(&self, deployment: &Deployment) -> Result<Option<Recall>, StoreError> {
        let recall = self.find_recall(deployment).await?;
        Ok(recall.filter(|recall| recall.patience(deployment) == Some(Duration::ZERO)))
    }

    /// Waits until a deployment shall end. Cancel-safe.
    pub(super) async fn until_recalled(&self, deployment: &Deployment) -> Recall {
        let began = Instant::now();
        let mut news = self.news();
        loop {
            // What the state cannot say now it says with the next news.
            let recall = self.find_recall(deployment).await.ok().flatten();
            let due = recall.and_then(|recall| Some((began + recall.patience(deployment)?, recall)));
            let changed = match due {
                Some((at, recall)) if at <= Instant::now() => return recall,
                Some((at, _)) => tokio::select! {
                    changed = news.changed() => changed,
                    () = sleep_until(at) => Ok(()),
                },
                None => news.changed().await,
            };
            if changed.is_err() {
                // The box ends, and this future with it.
                return std::future::pending().await;
            }
        }
    }

    async fn find_recall(&self, deployment: &Deployment) -> Result<Option<Recall>, StoreError> {
        if deployment.state == DeploymentState::Success {
            return Ok(None);
        }
        let (id, moves_data) = (deployment.id.clone(), deployment.moves_data());
        self.inner
            .store
            .with(move |db| {
                if db.is_cancel_asked(&id)? {
                    return Ok(Some(Recall::Cancelled));
                }
                if db.was_stopped_after(&id)? {
                    return Ok(Some(Recall::Stopped));
                }
                if moves_data {
                    return Ok(None);
                }
                Ok(db.find_newer(&id)?.map(|newer| Recall::Superseded {
                    must_build: matches!(newer.kind, DeploymentKind::Up | DeploymentKind::Redeploy),
                    by: newer.id,
                }))
            })
            .await
    }
}
