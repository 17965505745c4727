//! A service: one source, one release history, one host name, and at most one live release.

use serde::{Deserialize, Serialize};

use crate::deployment::DataWish;
use crate::job::Job;
use crate::{EnvironmentId, Host, InstanceId, Name, ProjectId, ReleaseId, ServiceId, Timestamp};

/// What the owner wants of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// The live release runs.
    Running,
    /// Nothing runs (`trackbed down`).
    Stopped,
}

/// The live release and the instance that runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The release.
    pub release: ReleaseId,
    /// Its instance; none while it is stopped. Written before the instance is started.
    pub instance: Option<InstanceId>,
    /// The port that requests go to; none until the instance was found healthy.
    pub port: Option<u16>,
    /// Restarts in a row since it last ran steadily.
    pub restarts: u32,
    /// Why it is not started again, when it has ended for good.
    pub given_up: Option<String>,
    /// How long its last start took until it was healthy, in milliseconds.
    #[serde(default)]
    pub start_took_ms: Option<u64>,
    /// How long requests may have waited already when it is started again after a handover that was undone, in
    /// milliseconds; zero once it is healthy.
    #[serde(default)]
    pub waited_ms: u64,
    /// Volumes whose data a failed deployment may have changed and that could not be put back, each with the point that
    /// holds its data from before. While there are any the release is given up, and nothing starts on that data but what
    /// its owner asks for by name.
    #[serde(default)]
    pub unsettled: Vec<DataWish>,
    /// What is known of its runs, if it is a job: then `instance` is the one that runs now, and nothing listens.
    #[serde(default)]
    pub job: Option<Job>,
}

impl Live {
    /// A release that runs at the ticks of a schedule.
    pub fn job(release: ReleaseId, job: Job) -> Self {
        Self {
            release,
            instance: None,
            port: None,
            restarts: 0,
            given_up: None,
            start_took_ms: None,
            waited_ms: 0,
            unsettled: Vec::new(),
            job: Some(job),
        }
    }

    /// A release whose instance has just been found healthy.
    pub fn healthy(release: ReleaseId, instance: InstanceId, port: u16) -> Self {
        Self {
            release,
            instance: Some(instance),
            port: Some(port),
            restarts: 0,
            given_up: None,
            start_took_ms: None,
            waited_ms: 0,
            unsettled: Vec::new(),
            job: None,
        }
    }
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// The project it belongs to.
    pub project: ProjectId,
    /// The project's name.
    pub project_name: Name,
    /// The environment it belongs to.
    pub environment: EnvironmentId,
    /// The environment's name.
    pub environment_name: Name,
    /// Its name, unique within the environment.
    pub name: Name,
    /// The host it answers at, unique on the box.
    pub host: Host,
    /// A small number unique on the box and never reused; engines derive user ids from it.
    pub number: u32,
    /// What the owner wants.
    pub wanted: Wanted,
    /// What is live.
    pub live: Option<Live>,
    /// When it was made.
    pub created_at: Timestamp,
}
