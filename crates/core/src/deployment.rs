//! A deployment: one attempt to make a release live, as named steps that are stored before they are taken.

mod state;
mod step;
mod stopwatch;

use serde::{Deserialize, Deserializer, Serialize};

use crate::git::Commit;
use crate::image::Image;
use crate::plan::Plan;
use crate::restore_point::{Capture, Difference};
use crate::settings::Handover;
use crate::{DeploymentId, Digest, InstanceId, ReleaseId, RestorePointId, ServiceId, Timestamp, VolumeId};

pub use state::{DeploymentEvent, DeploymentState, Refused};
pub use step::Step;
pub use stopwatch::Stopwatch;

/// What asked for the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentKind {
    /// A pushed source: plan and build it.
    Up,
    /// The newest source once more, with today's settings and variables.
    Redeploy,
    /// An earlier release as it was: same image, settings and variables.
    Rollback,
    /// The live release in a fresh instance.
    Restart,
    /// The live release on data of a restore point.
    Restore,
}

/// Something that happened in a deployment, for the person who watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows within the deployment, from 1.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// The step it belongs to.
    pub step: Step,
    /// What kind of news it is.
    pub kind: EventKind,
    /// For people.
    pub message: String,
}

/// Kinds of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A step began.
    Started,
    /// A step is done.
    Done,
    /// Worth knowing.
    Note,
    /// Worth mending.
    Warning,
    /// The deployment failed.
    Failed,
}

/// Why a deployment failed, for the person who pushed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub stage: Step,
    /// What happened, with the value.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The last lines of the app or of the build.
    pub log_tail: Vec<String>,
}

/// What callers saw of a `held` handover: the requests that waited while neither release served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pause {
    /// The longest wait of a request, in milliseconds.
    pub longest_ms: u64,
    /// Requests that waited.
    pub requests: u64,
    /// Of those, the ones that were given up with 503.
    pub refused: u64,
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let requests = match self.requests {
            0 => return f.write_str("no caller had to wait"),
            1 => "1 request".to_owned(),
            count => format!("{count} requests"),
        };
        #[allow(clippy::cast_precision_loss, reason = "a wait is no age of the world")]
        let longest = self.longest_ms as f64 / 1000.0;
        let refused = match self.refused {
            0 => "none refused".to_owned(),
            count => format!("{count} refused"),
        };
        write!(f, "callers waited at most {longest:.1} s, {requests}, {refused}")
    }
}

/// Why a deployment is given up although nothing of it failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "lowercase")]
pub enum Withdrawal {
    /// Its owner said so.
    Cancelled,
    /// A newer one was asked for.
    Superseded {
        /// Which.
        by: DeploymentId,
    },
    /// Nothing that the service watches has changed.
    Skipped {
        /// In words.
        reason: String,
    },
}

/// The data of a volume just before a release started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The volume.
    pub volume: VolumeId,
    /// The point that holds its data.
    pub point: RestorePointId,
    /// What was captured; none until it was.
    pub capture: Option<Capture>,
}

/// Data that is to be put in place before a release starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataWish {
    /// The volume.
    pub volume: VolumeId,
    /// The point to go back to.
    pub point: RestorePointId,
}

/// How the data that is wanted differs from what was there when it was staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The volume.
    pub volume: VolumeId,
    /// What the wish takes out of it; that is set aside.
    pub difference: Difference,
}

/// A trial of the new release on a copy of the data. Its ids are chosen at step `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The instance that is started without network.
    pub instance: InstanceId,
    /// The name of the stage that it runs on.
    pub stage: DeploymentId,
    /// The points that its data comes from, one for each volume. Nobody can go back to them.
    pub points: Vec<DataWish>,
}

/// The putting back of a volume's data when a deployment is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBack {
    /// The volume.
    pub volume: VolumeId,
    /// What the failed release had changed; that is set aside in the stage [`Deployment::aside`].
    pub difference: Difference,
    /// Where the pin is staged, so that only the swap is left; afterwards what is set aside lies there.
    pub place: Option<String>,
}

/// Files that an app keeps outside its volumes and that are to move into one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// Absolute paths of files or directories below `/app`, as the app sees them; none lies below another.
    #[serde(alias = "path", deserialize_with = "one_or_more")]
    pub paths: Vec<String>,
    /// The volume that takes them.
    pub volume: VolumeId,
}

/// Deployments that were stored when only one path could be adopted have it as a text.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Paths {
        One(String),
        More(Vec<String>),
    }
    Ok(match Paths::deserialize(deserializer)? {
        Paths::One(path) => vec![path],
        Paths::More(paths) => paths,
    })
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The service.
    pub service: ServiceId,
    /// What asked for it.
    pub kind: DeploymentKind,
    /// Where it is.
    pub state: DeploymentState,
    /// The step that is being taken, or was taken last.
    pub step: Step,
    /// The step whose beginning has been told; a step that is taken again after a crash is told once.
    #[serde(default)]
    pub entered: Option<Step>,
    /// Since when the step is taken, or undone once [`Deployment::is_given_up`].
    #[serde(default)]
    pub stopwatch: Option<Stopwatch>,
    /// Set once a step has failed: what remains is undoing, also after a crash.
    pub failure: Option<Failure>,
    /// Set once it is given up though nothing failed: what remains is undoing, also after a crash.
    #[serde(default)]
    pub withdrawal: Option<Withdrawal>,
    /// The commit that a push brought; none for what was asked for on the box.
    #[serde(default)]
    pub commit: Option<Commit>,
    /// What is deployed: known from the start for `up` and `redeploy`.
    pub source: Option<Digest>,
    /// Known from step `release` on.
    pub release: Option<ReleaseId>,
    /// The release that served when this deployment touched the service; undoing brings it back.
    pub previous: Option<ReleaseId>,
    /// The new instance, known before it is started.
    pub instance: Option<InstanceId>,
    /// The instance that served before; retired after the switch.
    pub old_instance: Option<InstanceId>,
    /// The port that the new instance was found healthy on.
    pub port: Option<u16>,
    /// What step `plan` decided.
    pub plan: Option<Plan>,
    /// What step `build` made.
    pub image: Option<Image>,
    /// Decided at step `check`.
    pub handover: Option<Handover>,
    /// How long a `held` handover may take from the moment of parking until the new release is healthy, in
    /// milliseconds. Decided at step `check`.
    #[serde(default)]
    pub hold_window_ms: Option<u64>,
    /// How long the new instance took until it was healthy, in milliseconds.
    #[serde(default)]
    pub start_took_ms: Option<u64>,
    /// What callers saw of it; none until it is known, and for an `overlap`.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// The data just before the new release started, one pin for each volume. The ids are chosen at step `check`.
    #[serde(default)]
    pub pins: Vec<Pin>,
    /// The data that is wanted: points to go back to. Empty means: the data as it is.
    #[serde(default)]
    pub restore: Vec<DataWish>,
    /// What the app keeps outside its volumes and is to move into one.
    #[serde(default)]
    pub adopt: Option<Adoption>,
    /// What the wished data replaces, as far as that was found out.
    #[serde(default)]
    pub replaced: Vec<Replaced>,
    /// The trial of the new release; none when the service does not ask for one.
    #[serde(default)]
    pub rehearsal: Option<Rehearsal>,
    /// The name of the stage in which the data of a pin is put back, and what the failed release left is set aside.
    /// Chosen at step `check`.
    #[serde(default)]
    pub aside: Option<DeploymentId>,
    /// How far the data was put back; only volumes whose data had changed are here.
    #[serde(default)]
    pub put_back: Vec<PutBack>,
    /// The instance that runs the command before the start; none when there is nothing to run. Chosen at step `check`.
    #[serde(default)]
    pub pre_deploy: Option<InstanceId>,
    /// How long that command took, in milliseconds.
    #[serde(default)]
    pub pre_deploy_took_ms: Option<u64>,
    /// What was done to the data when the deployment was undone, for people.
    #[serde(default)]
    pub data_undone: Option<String>,
    /// How long the new release took until it was healthy on a copy of the data, in milliseconds; none when it was not
    /// tried.
    #[serde(default)]
    pub rehearsal_took_ms: Option<u64>,
    /// Flags of `trackbed up` that override settings: dotted key and value.
    pub overrides: Vec<(String, String)>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When nothing was left to do for it, the old instance's retirement included.
    pub finished_at: Option<Timestamp>,
}

impl Deployment {
    /// Returns whether it has failed or was withdrawn, so that all that remains is undoing it.
    pub fn is_given_up(&self) -> bool {
        self.failure.is_some() || self.withdrawal.is_some()
    }

    /// Returns the state that people are told. It is a success from the moment that is stored, but callers reach the release
    /// once the edge has taken the route, with which step `switch` ends.
    pub fn told(&self) -> DeploymentState {
        self.state.told_at(self.step)
    }

    /// Returns the points whose data it may still need: none of them is collected while it is unfinished.
    pub fn points(&self) -> impl Iterator<Item = DataWish> + '_ {
        let pins =
            self.pins.iter().map(|pin| DataWish { volume: pin.volume.clone(), point: pin.point.clone() });
        let rehearsed = self.rehearsal.iter().flat_map(|rehearsal| rehearsal.points.iter().cloned());
        pins.chain(self.restore.iter().cloned()).chain(rehearsed)
    }

    /// Returns the names of the stages that it may have made, whatever lies in them.
    pub fn stages(&self) -> impl Iterator<Item = &DeploymentId> {
        let rehearsed = self.rehearsal.iter().map(|rehearsal| &rehearsal.stage);
        std::iter::once(&self.id).chain(&self.aside).chain(rehearsed)
    }

    /// Returns whether it puts other data in place: a restore, a rollback with data, an adoption. A newer deployment waits
    /// behind such a one, because nobody who asks for code says that data shall not go back.
    pub fn moves_data(&self) -> bool {
        !self.restore.is_empty() || self.adopt.is_some()
    }

    /// Returns the volumes whose data it may have changed before it was live, each with the point that holds the data from
    /// before: what undoing it has to put back. Under `overlap` that is nothing, because the old release wrote on.
    pub fn may_have_changed(&self) -> impl Iterator<Item = DataWish> + '_ {
        let is_held = self.handover == Some(Handover::Held);
        let pinned = self.pins.iter().filter(move |pin| is_held && pin.capture.is_some());
        let changed = pinned.filter(|pin| {
            let is_swapped = self.restore.iter().any(|wish| wish.volume == pin.volume);
            self.step >= Step::PreDeploy || is_swapped && self.step >= Step::Swap
        });
        changed.map(|pin| DataWish { volume: pin.volume.clone(), point: pin.point.clone() })
    }

    /// Returns whether its handover is past the point from which the old release no longer serves: it has been told to
    /// stop, or is gone.
    pub fn has_touched_old(&self) -> bool {
        let held = self.handover == Some(Handover::Held) && self.previous.is_some();
        let is_stopping = self.step == Step::Stop && self.entered == Some(Step::Stop);
        held && (is_stopping || self.step > Step::Stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adoption_of_before_there_could_be_several_is_read() {
        let volume = VolumeId::from_random([7; crate::ids::ID_BYTES]);
        let old = format!(r#"{{"path":"/app/a.db","volume":"{volume}"}}"#);
        let read: Adoption = serde_json::from_str(&old).unwrap();
        assert_eq!(read, Adoption { paths: vec!["/app/a.db".into()], volume });
        let again: Adoption = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn a_pause_is_told_in_one_sentence() {
        let told = |longest_ms, requests, refused| Pause { longest_ms, requests, refused }.to_string();
        assert_eq!(told(1234, 14, 0), "callers waited at most 1.2 s, 14 requests, none refused");
        assert_eq!(told(30_000, 1, 1), "callers waited at most 30.0 s, 1 request, 1 refused");
        assert_eq!(told(0, 0, 0), "no caller had to wait");
    }
}
