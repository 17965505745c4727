//! The steps of a deployment, in their order.

use serde::{Deserialize, Serialize};

use super::DeploymentKind;
use crate::settings::Handover;

/// A step of a deployment. Each is stored before it is taken and may be taken again after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Read the source and decide everything.
    Plan,
    /// Make the image.
    Build,
    /// Write the release down: image, configuration, variables.
    Release,
    /// Make volumes and check what must be there, before the old release is touched.
    Check,
    /// Get the data ready while the old release serves: restore what is wanted into a new place and verify it, and read
    /// ahead what the pin will need.
    Stage,
    /// Try the new release on a copy of the data, when the service asks for it.
    Rehearse,
    /// Let open streams finish while the old release still serves everything (`held` only).
    Drain,
    /// Park new requests and let the short ones in flight finish (`held` only).
    Park,
    /// Stop the old instance and wait until nothing of it lives (`held` only).
    Stop,
    /// Pin the data as it is just before the new release starts.
    Pin,
    /// Put restored or adopted data in its place (`held` only).
    Swap,
    /// Run the command that prepares the data for the new release, when it has one.
    PreDeploy,
    /// Start the new instance.
    Start,
    /// Wait until it is healthy.
    Health,
    /// Point the route to it. The point of no return: before it undo, after it only forward.
    Switch,
    /// Drain and stop what served before.
    Retire,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Step; 16] = [
        Step::Plan,
        Step::Build,
        Step::Release,
        Step::Check,
        Step::Stage,
        Step::Rehearse,
        Step::Drain,
        Step::Park,
        Step::Stop,
        Step::Pin,
        Step::Swap,
        Step::PreDeploy,
        Step::Start,
        Step::Health,
        Step::Switch,
        Step::Retire,
    ];

    /// Returns the first step of a kind of deployment.
    pub fn first(kind: DeploymentKind) -> Step {
        match kind {
            DeploymentKind::Up | DeploymentKind::Redeploy => Step::Plan,
            DeploymentKind::Rollback | DeploymentKind::Restart | DeploymentKind::Restore => Step::Check,
        }
    }

    /// Returns the step after this one, or none after the last.
    pub fn next(self, handover: Handover) -> Option<Step> {
        match (self, handover) {
            (Step::Plan, _) => Some(Step::Build),
            (Step::Build, _) => Some(Step::Release),
            (Step::Release, _) => Some(Step::Check),
            (Step::Check, _) => Some(Step::Stage),
            (Step::Stage, _) => Some(Step::Rehearse),
            (Step::Rehearse, Handover::Held) => Some(Step::Drain),
            (Step::Rehearse, Handover::Overlap) => Some(Step::Pin),
            (Step::Drain, _) => Some(Step::Park),
            (Step::Park, _) => Some(Step::Stop),
            (Step::Stop, _) => Some(Step::Pin),
            (Step::Pin, Handover::Held) => Some(Step::Swap),
            (Step::Pin, Handover::Overlap) | (Step::Swap, _) => Some(Step::PreDeploy),
            (Step::PreDeploy, _) => Some(Step::Start),
            (Step::Start, _) => Some(Step::Health),
            (Step::Health, _) => Some(Step::Switch),
            (Step::Switch, _) => Some(Step::Retire),
            (Step::Retire, _) => None,
        }
    }

    /// Returns whether the step can still be undone when it fails.
    pub fn can_undo(self) -> bool {
        self < Step::Switch
    }

    /// Returns whether requests are parked at this step of a `held` handover.
    pub fn parks(self) -> bool {
        matches!(
            self,
            Step::Park | Step::Stop | Step::Pin | Step::Swap | Step::PreDeploy | Step::Start | Step::Health
        )
    }

    /// Returns whether a `held` handover that failed at this step may have had callers wait.
    pub fn has_parked(self) -> bool {
        self >= Step::Park
    }

    /// Returns the word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Plan => "plan",
            Step::Build => "build",
            Step::Release => "release",
            Step::Check => "check",
            Step::Stage => "stage",
            Step::Rehearse => "rehearse",
            Step::Drain => "drain",
            Step::Park => "park",
            Step::Stop => "stop",
            Step::Pin => "pin",
            Step::Swap => "swap",
            Step::PreDeploy => "predeploy",
            Step::Start => "start",
            Step::Health => "health",
            Step::Switch => "switch",
            Step::Retire => "retire",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_handover_stops_the_old_before_it_starts_the_new() {
        let mut step = Step::Check;
        let mut order = vec![step];
        while let Some(next) = step.next(Handover::Held) {
            step = next;
            order.push(step);
        }
        let at = |wanted| order.iter().position(|step| *step == wanted).unwrap();
        assert!(at(Step::Park) < at(Step::Stop) && at(Step::Stop) < at(Step::Start));
        assert!(at(Step::Health) < at(Step::Switch));
    }
}
