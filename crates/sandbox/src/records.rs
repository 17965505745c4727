//! What stands on disk for an instance: its order (`spec.json`), its shim (`state.json`), its end (`exit.json`).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trackbed_core::instance::{AppLink, BindMount, Exit, InstanceKind, VolumeMount};
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::process::{Formation, ProcessStatus};
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, ServiceId, Timestamp};
use trackbed_stdx::files;

use crate::cgroup::Cgroup;
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

/// How it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct End {
    #[serde(flatten)]
    pub(crate) exit: Exit,
    pub(crate) at: Timestamp,
}

/// Longest time that writing an order may take.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);

/// Holds the room for `exit.json`.
const RESERVE: &str = "exit.reserve";
/// A block of any common filesystem; an end is far shorter.
const RESERVE_BYTES: usize = 4096;

/// The directory of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn find_order(&self) -> Option<Order> {
        read(&self.path("spec.json")).ok().flatten()
    }

    pub(crate) fn find_state(&self) -> Option<State> {
        read(&self.path("state.json")).ok().flatten()
    }

    pub(crate) fn find_end(&self) -> Option<End> {
        read(&self.path("exit.json")).ok().flatten()
    }

    pub(crate) fn write_order(&self, order: &Order) -> io::Result<()> {
        write(&self.path("spec.json"), order)
    }

    /// Takes the variables out of the order on disk: the app has them, or nobody will.
    ///
    /// # Errors
    /// When they are still there.
    pub(crate) fn clear_variables(&self, order: &Order) -> io::Result<()> {
        let order = Order { env: Vec::new(), ..order.clone() };
        self.write_order(&order).or_else(|_| self.overwrite_order(&order))
    }

    /// The same for an instance that has ended: rather no order than a secret.
    pub(crate) fn clear_variables_at_end(&self, order: &Order) {
        if self.clear_variables(order).is_err() {
            let _ = fs::remove_file(self.path("spec.json"));
        }
    }

    /// Needs no room on a full disk.
    fn overwrite_order(&self, order: &Order) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(order)?;
        let mut file = fs::OpenOptions::new().write(true).open(self.path("spec.json"))?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        if bytes.len() > length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // White space may follow a JSON value.
        bytes.resize(length, b' ');
        file.write_all(&bytes)?;
        file.sync_all()
    }

    /// Removes what interrupted writes of the order have left, which may hold variables.
    pub(crate) fn remove_leftovers(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_order =
                name.to_str().is_some_and(|name| name.starts_with(".spec.json.") && name.ends_with(".tmp"));
            let age =
                entry.metadata().and_then(|data| data.modified()).map(|at| at.elapsed().unwrap_or_default());
            // A younger one may be about to be renamed.
            if is_order && age.is_ok_and(|age| age > LEFTOVER_AGE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(crate) fn write_state(&self, state: &State) -> io::Result<()> {
        write(&self.path("state.json"), state)
    }

    pub(crate) fn write_end(&self, exit: Exit) -> io::Result<()> {
        let at = Timestamp(trackbed_stdx::clock::now_ms());
        // The overlay's own scratch folder: its mount is gone, and its mode (none at all) would keep an ordinary user
        // from removing the data directory.
        let _ = trackbed_stdx::files::remove_tree(&self.path("work"));
        let end = End { exit, at };
        match write(&self.path("exit.json"), &end) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => self.write_end_in_reserve(&end),
            written => {
                let _ = fs::remove_file(self.path(RESERVE));
                written
            }
        }
    }

    /// Takes the room that the end will need. How an instance ended must be known above all when it filled the disk.
    pub(crate) fn reserve_end(&self) -> io::Result<()> {
        files::write_atomic(&self.path(RESERVE), &[b' '; RESERVE_BYTES], 0o600)
    }

    fn write_end_in_reserve(&self, end: &End) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(end)?;
        if bytes.len() > RESERVE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // White space may follow a JSON value.
        bytes.resize(RESERVE_BYTES, b' ');
        let mut file = fs::OpenOptions::new().write(true).open(self.path(RESERVE))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(self.path(RESERVE), self.path("exit.json"))
    }

    /// Returns the shim when it lives.
    pub(crate) fn living_shim(&self) -> Option<(State, ProcessId)> {
        let state = self.find_state()?;
        let shim = state.shim;
        (state.boot_id == process::boot_id() && shim.is_alive()).then_some((state, shim))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    files::write_atomic(path, &serde_json::to_vec(value)?, 0o600)
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
