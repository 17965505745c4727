//! What stands on disk for a container: the order that its keeper carries out, and what the keeper says of itself.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trackbed_core::image::ContainerImage;
use trackbed_core::instance::{AppLink, BindMount, InstanceKind, VolumeMount};
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, ServiceId, Timestamp};
use trackbed_sandbox::beside::{self, Process, WithVariables, boot_id};

/// The order that a keeper carries out. Holds secrets until the container runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: InstanceId,
    pub(crate) kind: InstanceKind,
    pub(crate) service: ServiceId,
    pub(crate) title: String,
    /// Run by `/bin/sh -c`; empty means what the image says.
    pub(crate) command: String,
    pub(crate) image: ContainerImage,
    pub(crate) volumes: Vec<VolumeMount>,
    pub(crate) binds: Vec<BindMount>,
    /// Made before the container is started, in place of what the image has there.
    pub(crate) links: Vec<AppLink>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) limits: Limits,
    /// The user that the sandbox runs the service as.
    pub(crate) sandbox_uid: u32,
    pub(crate) port: Option<u16>,
    /// The engine's network that it joins; none means that it reaches nothing but itself.
    pub(crate) network: Option<String>,
    /// Whether its port is published on loopback, because the edge may not enter its network.
    pub(crate) published: bool,
    /// This box, among all that use the same engine.
    pub(crate) tag: String,
    /// The instance's own directory.
    pub(crate) folder: PathBuf,
    /// The engine's socket.
    pub(crate) daemon: PathBuf,
    /// The keeper's socket.
    pub(crate) socket: PathBuf,
    pub(crate) started_at: Timestamp,
}

impl Order {
    /// Returns the name of its container.
    pub(crate) fn container(&self) -> String {
        container_name(&self.tag, &self.id)
    }

    /// Returns the symbolic link through which the container is given a volume, by its place in the order. It is there as
    /// long as the lock is held: without it the container cannot be started again, by nobody.
    pub(crate) fn link(&self, number: usize) -> PathBuf {
        self.folder.join(format!("volume-{number}"))
    }

    /// Makes the links.
    pub(crate) fn link_volumes(&self) -> io::Result<()> {
        for (number, volume) in self.volumes.iter().enumerate() {
            std::os::unix::fs::symlink(&volume.host_path, self.link(number))?;
        }
        Ok(())
    }

    /// Removes them. Those that are gone are fine.
    pub(crate) fn unlink_volumes(&self) {
        for number in 0..self.volumes.len() {
            let _ = fs::remove_file(self.link(number));
        }
    }
}

/// Returns the name of an instance's container.
pub(crate) fn container_name(tag: &str, id: &InstanceId) -> String {
    format!("trackbed-{tag}-{id}")
}

/// What a keeper says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) boot_id: String,
    pub(crate) keeper: Process,
    /// The container's first process, as soon as it runs.
    pub(crate) init: Option<Process>,
    /// The port of the box that leads to the instance's, when it is published.
    pub(crate) host_port: Option<u16>,
}

/// The directory of one instance.
pub(crate) type Folder = beside::Folder<Order, State>;

impl WithVariables for Order {
    fn without_variables(&self) -> Self {
        Self { env: Vec::new(), ..self.clone() }
    }
}

/// Returns a container's first process, of this boot.
pub(crate) fn find_init(folder: &Folder) -> Option<Process> {
    folder.find_state().filter(|state| state.boot_id == boot_id())?.init
}

/// Returns what a keeper says when it lives.
pub(crate) fn living_keeper(folder: &Folder) -> Option<State> {
    folder.find_state().filter(|state| state.boot_id == boot_id() && state.keeper.is_alive())
}
