//! What stands on disk for an instance: the order that its shim carries out, and what the shim says of itself.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trackbed_core::instance::{AppLink, BindMount, Exit, InstanceKind, VolumeMount};
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::process::{Formation, ProcessStatus};
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, ServiceId, Timestamp};
use trackbed_stdx::files;

use crate::cgroup::Cgroup;
use crate::folder::{self, WithVariables};
use crate::process::{self, ProcessId};

/// Version of the records and of the control protocol. A control plane speaks this one and the one before.
pub(crate) const VERSION: u32 = 1;

/// What stands at `/app`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AppRoot {
    /// Read-only directories, the topmost first, under a writable top.
    Layers(Vec<PathBuf>),
    /// One writable directory.
    Directory(PathBuf),
}

/// The instance's place in the network of the box.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) bridge: String,
    /// The box's end.
    pub(crate) veth: String,
    pub(crate) address: std::net::Ipv4Addr,
    pub(crate) gateway: std::net::Ipv4Addr,
    pub(crate) prefix: u8,
}

/// The order that a shim carries out. Holds secrets until the app runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) version: u32,
    pub(crate) id: InstanceId,
    pub(crate) kind: InstanceKind,
    pub(crate) service: ServiceId,
    pub(crate) title: String,
    pub(crate) command: String,
    /// What runs beside the command.
    #[serde(default)]
    pub(crate) formation: Formation,
    pub(crate) level: IsolationLevel,
    /// The user that the app runs as, when the shim may choose.
    pub(crate) uid: u32,
    pub(crate) app: AppRoot,
    pub(crate) volumes: Vec<VolumeMount>,
    pub(crate) binds: Vec<BindMount>,
    pub(crate) host_paths: Vec<PathBuf>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) limits: Limits,
    pub(crate) port: Option<u16>,
    pub(crate) link: Option<Link>,
    /// Whether it has a network with nobody else in it.
    #[serde(default)]
    pub(crate) offline: bool,
    /// Made before the command runs. Checked when the order was made.
    #[serde(default)]
    pub(crate) links: Vec<AppLink>,
    pub(crate) cgroup: Cgroup,
    /// The control socket.
    pub(crate) socket: PathBuf,
    pub(crate) started_at: Timestamp,
}

impl Order {
    /// Returns whether the instance shares its network with nobody, so that its ports are its own.
    pub(crate) fn has_own_network(&self) -> bool {
        self.link.is_some() || self.offline
    }
}

/// How far a shim has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Starting,
    Running,
}

/// What a shim says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) version: u32,
    pub(crate) phase: Phase,
    pub(crate) boot_id: String,
    pub(crate) shim: ProcessId,
    pub(crate) init: Option<ProcessId>,
    /// What this instance had to do without.
    pub(crate) notes: Vec<String>,
    /// What runs beside the main process.
    #[serde(default)]
    pub(crate) processes: Vec<Side>,
}

/// A process beside the main one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Side {
    #[serde(flatten)]
    pub(crate) status: ProcessStatus,
    /// Its pid inside, while it runs.
    pub(crate) pid: Option<i32>,
}

/// The directory of one instance.
pub(crate) type Folder = folder::Folder<Order, State>;

impl WithVariables for Order {
    fn without_variables(&self) -> Self {
        Self { env: Vec::new(), ..self.clone() }
    }
}

impl Folder {
    /// Returns the shim when it lives.
    pub(crate) fn living_shim(&self) -> Option<(State, ProcessId)> {
        let state = self.find_state()?;
        let shim = state.shim;
        (state.boot_id == process::boot_id() && shim.is_alive()).then_some((state, shim))
    }

    /// Writes how it ended, when nothing of it lives.
    pub(crate) fn close(&self, exit: Exit) -> io::Result<()> {
        // The overlay's own scratch folder: its mount is gone, and its mode (none at all) would keep an ordinary user
        // from removing the data directory.
        let _ = files::remove_tree(&self.path("work"));
        self.write_end(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the version before instances could be offline, have links or several processes wrote it.
    const EARLIER: &str = r#"{"version":1,"id":"ins_0000000000000000","kind":"service","service":"svc_0000000000000000",
        "title":"assistant v1","command":"true","level":"full","uid":10001,"app":{"layers":["/l"]},"volumes":[],
        "binds":[],"host_paths":[],"env":[],"limits":{"memory_bytes":null,"cpu_millis":null,"pids":null},"port":8080,
        "link":null,"cgroup":{"v2":false,"dirs":[]},"socket":"/run/x.sock","started_at":1}"#;

    #[test]
    fn an_instance_of_the_version_before_is_still_known() {
        let order: Order = serde_json::from_str(EARLIER).expect("it can be read");
        assert!(!order.offline && order.links.is_empty() && !order.has_own_network());
        assert_eq!(order.formation, Formation::default());
        let state = r#"{"version":1,"phase":"running","boot_id":"b","shim":{"pid":1,"start_time":2},"init":null,"notes":[]}"#;
        let state: State = serde_json::from_str(state).expect("it can be read");
        assert!(state.processes.is_empty());
    }
}
