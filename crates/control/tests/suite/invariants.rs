//! What must be true of every service once the control plane has had time, whatever happened before.

use std::time::Duration;

use tokio::time::Instant;
use trackbed_core::deployment::{DeploymentState, EventKind, Step, Withdrawal};
use trackbed_core::route::{DownReason, UpstreamState};
use trackbed_core::service::Wanted;
use trackbed_core::settings::Handover;

use crate::rig::Rig;

/// How long the control plane may take to repair what happened, in virtual time: a sweep comes once a minute.
const REPAIR_LIMIT: Duration = Duration::from_secs(240);

/// Likewise when a call hangs that began before the port was mended: until that is given up.
const HANG_LIMIT: Duration = Duration::from_secs(900);

impl Rig {
    /// Lets the world come to rest and asserts that every invariant holds then.
    pub(crate) async fn settle(&mut self) {
        let began = Instant::now();
        let mut calm = 0;
        while calm < 2 {
            self.pass_time(Duration::from_millis(500)).await;
            let wrong = self.wrong().await;
            calm = if wrong.is_empty() { calm + 1 } else { 0 };
            if began.elapsed() > REPAIR_LIMIT {
                panic!("not repaired: {wrong:?}\n{}", self.story().await);
            }
        }
        let mut never = self.never().await;
        never.extend(self.data_faults().await);
        assert!(never.is_empty(), "must never happen: {never:?}\n{}", self.story().await);
    }

    /// What the data says against the newest deployment, and what is left beside it.
    async fn data_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for ((volume, stage), left) in self.world.stages() {
            if !left.is_swapped {
                faults.push(format!("{stage} is left beside {volume}, and nobody needs it"));
            }
        }
        let service = self.service().await;
        let newest = self.control.deployments(&service, 1).await.unwrap();
        let Some(deployment) = newest.first().filter(|newest| newest.state.is_terminal()) else {
            return faults;
        };
        let source = match &service.live {
            Some(_) if service.wanted == Wanted::Running => Some(self.live_source().await),
            _ => None,
        };
        for pin in deployment.pins.iter().filter(|pin| pin.capture.is_some()) {
            let wish = deployment.restore.iter().find(|wish| wish.volume == pin.volume);
            let is_live = deployment.state == DeploymentState::Success;
            if !is_live && deployment.handover != Some(Handover::Held) {
                continue;
            }
            let begins_with = wish.filter(|_| is_live).map_or(&pin.point, |wish| &wish.point);
            let now = self.world.content(&pin.volume).writes;
            let Some(then) = self.world.point(&pin.volume, begins_with) else {
                faults.push(format!("the data of {begins_with} is gone"));
                continue;
            };
            // Whoever is live wrote on; nobody else did, unless it was replaced since.
            let is_kept = now.starts_with(&then.writes);
            let later = now.iter().skip(then.writes.len());
            let strangers =
                later.filter(|(_, writer)| source.as_ref().is_some_and(|source| source != writer));
            if !is_kept || strangers.count() > 0 {
                faults.push(format!(
                    "after {} ({:?}) {} holds {now:?}, not {:?} and what the live release wrote",
                    deployment.id, deployment.state, pin.volume, then.writes
                ));
            }
        }
        faults
    }

    /// As [`Rig::settle`], after a port has hung: what a deployment tells of itself may then end otherwise.
    pub(crate) async fn settle_after(&mut self, what: &str, hung: Option<&str>) {
        let began = Instant::now();
        while !self.wrong().await.is_empty() {
            self.pass_time(Duration::from_secs(1)).await;
            let wrong = self.wrong().await;
            assert!(began.elapsed() < HANG_LIMIT, "{what}: not repaired: {wrong:?}\n{}", self.story().await);
        }
        let mut never = self.world.violations();
        // What cannot be ended keeps its volume; asking for it all the same is refused by the lock, and harmless.
        let may_hold = hung == Some("engine.stop");
        never.retain(|text| !(may_hold && text.contains(" while ")));
        assert!(never.is_empty(), "{what}: must never happen: {never:?}\n{}", self.story().await);
    }

    /// What is not as it should be yet.
    pub(crate) async fn wrong(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let service = self.service().await;
        for deployment in self.control.deployments(&service, 1000).await.unwrap() {
            if deployment.finished_at.is_none() {
                wrong.push(format!("{} is unfinished at {:?}", deployment.id, deployment.step));
            }
            if deployment.state.is_terminal() {
                let before = self.outcomes.insert(deployment.id.clone(), deployment.state);
                assert!(
                    before.is_none_or(|before| before == deployment.state),
                    "the outcome of {} changed from {before:?} to {:?}",
                    deployment.id,
                    deployment.state
                );
            }
        }
        let living: Vec<_> = self.world.living().into_iter().map(|instance| instance.spec.id).collect();
        let host = "web.localhost".parse().unwrap();
        let Some(upstream) = self.world.upstream(&host) else { return vec!["no route".into()] };
        let down = |reason| UpstreamState::Down { reason };
        let Some(live) = service.live else {
            let reason = match service.wanted {
                Wanted::Running => DownReason::Undeployed,
                Wanted::Stopped => DownReason::Stopped,
            };
            if !living.is_empty() || upstream != down(reason) {
                wrong.push(format!("nothing is live, but {living:?} run and requests go to {upstream:?}"));
            }
            return wrong;
        };
        if service.wanted == Wanted::Stopped {
            if !living.is_empty() || upstream != down(DownReason::Stopped) {
                wrong.push(format!("it is stopped, but {living:?} run and requests go to {upstream:?}"));
            }
            return wrong;
        }
        if live.job.is_some() {
            if living.iter().any(|id| Some(id) != live.instance.as_ref())
                || upstream != down(DownReason::Stopped)
            {
                wrong.push(format!("it is a job, but {living:?} run and requests go to {upstream:?}"));
            }
            return wrong;
        }
        if live.given_up.is_some() {
            if !living.is_empty() || upstream != down(DownReason::Crashed) {
                wrong.push(format!("it is given up, but {living:?} run and requests go to {upstream:?}"));
            }
            return wrong;
        }
        let instance: Vec<_> = live.instance.iter().cloned().collect();
        if living != instance || living.is_empty() {
            wrong.push(format!("{instance:?} should run, but {living:?} run"));
        }
        match &upstream {
            UpstreamState::Serving { target } if Some(&target.instance) == live.instance.as_ref() => {}
            other => wrong.push(format!("requests go to {other:?}")),
        }
        wrong
    }

    /// What must not have happened at any time.
    pub(crate) async fn never(&self) -> Vec<String> {
        let mut never = self.world.violations();
        let service = self.service().await;
        for deployment in self.control.deployments(&service, 1000).await.unwrap() {
            let events = self.events(&deployment.id).await;
            let expected: Vec<u64> = (1..=events.len() as u64).collect();
            let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
            let failures = events.iter().filter(|event| event.kind == EventKind::Failed).count();
            let last = events.last().map(|event| (event.step, event.kind));
            let fits = match deployment.state {
                DeploymentState::Success => {
                    failures == 0
                        && !deployment.is_given_up()
                        && matches!(last, Some((Step::Retire, EventKind::Done)))
                }
                DeploymentState::Failed => failures == 1 && deployment.failure.is_some(),
                DeploymentState::Superseded => {
                    failures == 0 && matches!(deployment.withdrawal, Some(Withdrawal::Superseded { .. }))
                }
                DeploymentState::Cancelled => {
                    failures == 0 && deployment.withdrawal == Some(Withdrawal::Cancelled)
                }
                DeploymentState::Skipped => {
                    failures == 0 && matches!(deployment.withdrawal, Some(Withdrawal::Skipped { .. }))
                }
                DeploymentState::Queued | DeploymentState::Building | DeploymentState::Deploying => false,
            };
            if self.cancelled.contains(&deployment.id) && deployment.state == DeploymentState::Success {
                never.push(format!("{} was cancelled, and became live", deployment.id));
            }
            if sequences != expected || !fits {
                never.push(format!("{} ended as {:?} with {events:#?}", deployment.id, deployment.state));
            }
        }
        never
    }
}
