//! Where a deployment is, and what may come next.

use serde::{Deserialize, Serialize};

use super::Step;

/// Where a deployment is, in the words of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentState {
    /// Waiting for an earlier deployment of the same service.
    Queued,
    /// Becoming an image.
    Building,
    /// Becoming live.
    Deploying,
    /// Live, or was live until a later one took over.
    Success,
    /// Not live; the previous release serves.
    Failed,
    /// Given up for a newer one before it was live; the previous release serves.
    Superseded,
    /// Given up because its owner said so, before it was live; the previous release serves.
    Cancelled,
    /// Not done, because the commit changes nothing that the service watches; the previous release serves.
    Skipped,
}

/// What can happen to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentEvent {
    /// It is its turn, and there is something to build.
    BuildBegan,
    /// There is an image.
    DeployBegan,
    /// The route points to it.
    BecameLive,
    /// It failed, and was undone.
    WasUndone,
    /// It was undone for a newer one.
    WasSuperseded,
    /// It was undone because its owner said so.
    WasCancelled,
    /// It is not worth doing.
    WasSkipped,
}

/// An event that does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a deployment that is {state:?} cannot take {event:?}")]
pub struct Refused {
    /// The state it is in.
    pub state: DeploymentState,
    /// What was asked.
    pub event: DeploymentEvent,
}

impl DeploymentState {
    /// States in which nothing more happens.
    pub const TERMINAL: [DeploymentState; 5] = [
        DeploymentState::Success,
        DeploymentState::Failed,
        DeploymentState::Superseded,
        DeploymentState::Cancelled,
        DeploymentState::Skipped,
    ];

    /// Returns whether nothing more happens.
    pub fn is_terminal(self) -> bool {
        Self::TERMINAL.contains(&self)
    }

    pub(super) fn told_at(self, step: Step) -> DeploymentState {
        match self {
            DeploymentState::Success if step <= Step::Switch => DeploymentState::Deploying,
            state => state,
        }
    }

    /// Returns the state after an event, or why there is none.
    pub fn apply(self, event: DeploymentEvent) -> Result<DeploymentState, Refused> {
        use DeploymentEvent as E;
        use DeploymentState as S;
        match (self, event) {
            (S::Queued | S::Building, E::BuildBegan) => Ok(S::Building),
            (S::Queued | S::Building | S::Deploying, E::DeployBegan) => Ok(S::Deploying),
            (S::Deploying | S::Success, E::BecameLive) => Ok(S::Success),
            (S::Queued | S::Building | S::Deploying | S::Failed, E::WasUndone) => Ok(S::Failed),
            (S::Queued | S::Building | S::Deploying | S::Superseded, E::WasSuperseded) => Ok(S::Superseded),
            (S::Queued | S::Building | S::Deploying | S::Cancelled, E::WasCancelled) => Ok(S::Cancelled),
            (S::Queued | S::Building | S::Skipped, E::WasSkipped) => Ok(S::Skipped),
            (state, event) => Err(Refused { state, event }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_deployment_never_changes_its_outcome() {
        use DeploymentEvent as E;
        for event in [E::BuildBegan, E::DeployBegan, E::WasSuperseded, E::WasCancelled] {
            assert!(DeploymentState::Success.apply(event).is_err());
            assert!(DeploymentState::Failed.apply(event).is_err());
        }
        assert!(DeploymentState::Cancelled.apply(E::WasSuperseded).is_err());
        assert!(DeploymentState::Superseded.apply(E::WasCancelled).is_err());
        assert!(DeploymentState::Success.apply(DeploymentEvent::WasUndone).is_err());
        assert!(DeploymentState::Failed.apply(DeploymentEvent::BecameLive).is_err());
        assert!(DeploymentState::Deploying.apply(DeploymentEvent::WasSkipped).is_err());
    }

    #[test]
    fn a_release_is_told_to_be_live_when_its_callers_reach_it() {
        use DeploymentState as S;
        assert_eq!(S::Success.told_at(Step::Switch), S::Deploying);
        assert_eq!(S::Success.told_at(Step::Retire), S::Success);
        assert_eq!(S::Failed.told_at(Step::Switch), S::Failed);
    }

    #[test]
    fn every_event_may_be_repeated_after_a_crash() {
        let building = DeploymentState::Queued.apply(DeploymentEvent::BuildBegan).unwrap();
        assert_eq!(building.apply(DeploymentEvent::BuildBegan).unwrap(), building);
        let deploying = building.apply(DeploymentEvent::DeployBegan).unwrap();
        assert_eq!(deploying.apply(DeploymentEvent::DeployBegan).unwrap(), deploying);
        let live = deploying.apply(DeploymentEvent::BecameLive).unwrap();
        assert_eq!(live.apply(DeploymentEvent::BecameLive).unwrap(), live);
    }
}
