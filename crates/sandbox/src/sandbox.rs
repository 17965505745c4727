//! What the control plane holds: where things lie, which isolation this box gives, and how a shim is started.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trackbed_core::InstanceId;
use trackbed_core::instance::{InstanceKind, InstanceSpec};
use trackbed_core::isolation::{Isolation, IsolationLevel};
use trackbed_core::ports::PortError;
use trackbed_stdx::clock::now_ms;

use crate::cgroup::Cgroup;
use crate::network::Network;
use crate::records::{AppRoot, Folder, Order, VERSION};
use crate::shim;

/// The user that jobs run as. Services have 10,000 to 59,999.
pub(crate) const BUILD_UID: u32 = 60_002;
/// First user of services.
pub(crate) const SERVICE_UID: u32 = 10_000;
/// Longest wait for a command to run, or for a sign that its preparation goes on.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(20);
/// Ports remembered after they were promised.
const PROMISES: usize = 2000;

/// What a sandbox is opened with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where instances, layers and volumes lie.
    pub data_dir: PathBuf,
    /// Where control sockets lie: a short path, because a socket's name is limited to 107 bytes.
    pub run_dir: PathBuf,
    /// The program that is started as `<binary> shim <instance dir>`: normally this very one.
    pub binary: PathBuf,
    /// The isolation to use, or none for the best that works here.
    pub level: Option<IsolationLevel>,
}

/// Runs instances on this box. Cloning shares it.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) isolation: Isolation,
    pub(crate) cgroup: Cgroup,
    pub(crate) network: Option<Network>,
    memory: Mutex<Memory>,
}

/// What lasts only as long as this process.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) promised_ports: VecDeque<u16>,
    /// Instances whose start is under way here.
    pub(crate) starting: HashSet<InstanceId>,
    /// Jobs that a caller of this process waits for.
    pub(crate) jobs: HashSet<InstanceId>,
    /// How often instances are frozen by a caller of this process.
    pub(crate) holds: HashMap<InstanceId, u32>,
}

impl Sandbox {
    /// Opens the engine and finds, by really running one instance each, the best isolation that works on this box.
    /// Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// When the directories cannot be made, a path is too long for a socket, or a forced level does not work.
    pub fn open(config: Config) -> Result<Sandbox, PortError> {
        crate::probe::open(config)
    }

    pub(crate) fn assemble(
        config: Config,
        isolation: Isolation,
        cgroup: Cgroup,
        network: Option<Network>,
    ) -> Sandbox {
        let memory = Mutex::default();
        Sandbox { inner: Arc::new(Inner { config, isolation, cgroup, network, memory }) }
    }
}

impl Memory {
    /// Remembers a port, and forgets the oldest of very many.
    pub(crate) fn promise(&mut self, port: u16) {
        self.promised_ports.push_back(port);
        if self.promised_ports.len() > PROMISES {
            self.promised_ports.pop_front();
        }
    }
}

impl Inner {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.config.data_dir.join("instances")
    }

    pub(crate) fn folder(&self, id: &InstanceId) -> Folder {
        Folder::new(self.instances().join(id.as_str()))
    }

    pub(crate) fn socket(&self, id: &InstanceId) -> PathBuf {
        self.config.run_dir.join(format!("{id}.sock"))
    }

    /// Returns the ids of all instances that have a directory.
    pub(crate) fn ids(&self) -> Result<Vec<InstanceId>, PortError> {
        let path = self.instances();
        let entries = fs::read_dir(&path)
            .map_err(|error| PortError::new(format!("cannot read {}: {error}", path.display())))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    /// Turns what the control plane wants into what a shim does.
    fn order(&self, spec: &InstanceSpec, level: IsolationLevel) -> Result<Order, PortError> {
        crate::links::check(spec)?;
        if spec.offline && level > IsolationLevel::Userns {
            let (title, level) = (&spec.title, level.as_str());
            let message =
                format!("cannot start {title} without network: isolation level `{level}` cannot cut it off");
            return Err(PortError::new(message).hint(NAMESPACES_HINT));
        }
        let (app, host_paths) = match &spec.app {
            trackbed_core::instance::AppTree::Image { image } => {
                let layers =
                    image.layers.iter().map(|layer| self.config.data_dir.join(&layer.path)).collect();
                (AppRoot::Layers(layers), image.host_paths.iter().map(PathBuf::from).collect())
            }
            trackbed_core::instance::AppTree::Directory { path } => {
                (AppRoot::Directory(path.into()), Vec::new())
            }
        };
        let mut env: Vec<(String, String)> =
            spec.env.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect();
        if level > IsolationLevel::Userns {
            self.check_without_mounts(spec)?;
            let at = match &app {
                AppRoot::Layers(_) => self.folder(&spec.id).path("root/app"),
                AppRoot::Directory(path) => path.clone(),
            };
            env.push(("TRACKBED_APP_DIR".to_owned(), at.display().to_string()));
            env.push((MARK.to_owned(), spec.id.to_string()));
        }
        let uid = match spec.kind {
            InstanceKind::Service => SERVICE_UID + spec.service_number,
            InstanceKind::Job => BUILD_UID,
        };
        Ok(Order {
            version: VERSION,
            id: spec.id.clone(),
            kind: spec.kind,
            service: spec.service.clone(),
            title: spec.title.clone(),
            command: spec.command.clone(),
            formation: spec.formation.clone(),
            level,
            uid,
            app,
            volumes: spec.volumes.clone(),
            binds: spec.binds.clone(),
            host_paths,
            env,
            limits: spec.limits,
            port: spec.port,
            link: None,
            offline: spec.offline,
            links: spec.links.clone(),
            cgroup: self.cgroup.child(spec.id.as_str()),
            socket: self.socket(&spec.id),
            started_at: trackbed_core::Timestamp(now_ms()),
        })
    }

    fn check_without_mounts(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        let hint = NAMESPACES_HINT;
        for volume in &spec.volumes {
            if !volume.mount.as_str().starts_with("/app/") {
                let at = volume.mount.as_str();
                let message =
                    format!("cannot mount volume {} at {at}: this box has no mounts for apps", volume.volume);
                return Err(PortError::new(message).hint(hint));
            }
        }
        match spec.binds.iter().find(|bind| bind.inside != bind.host_path) {
            None => Ok(()),
            Some(bind) => {
                let message = format!("cannot show {} at {} without mounts", bind.host_path, bind.inside);
                Err(PortError::new(message).hint(hint))
            }
        }
    }

    /// Writes the order and starts its shim. Returns when the command runs or the instance has ended.
    pub(crate) fn launch(&self, spec: &InstanceSpec, level: IsolationLevel) -> Result<(), PortError> {
        let mut order = self.order(spec, level)?;
        let folder = self.folder(&spec.id);
        let failed = |attempt: &str, error: &std::io::Error| {
            PortError::new(format!("cannot {attempt} for instance {} ({}): {error}", spec.id, spec.title))
        };
        for (name, mode) in [("", 0o711), ("log", 0o700)] {
            let path = folder.path(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .map_err(|error| failed(&format!("make {}", path.display()), &error))?;
        }
        {
            // Under the lock until it is on disk: the next one must see this address as taken.
            let _one_at_a_time = self.memory();
            if level == IsolationLevel::Full
                && spec.kind == InstanceKind::Service
                && !spec.offline
                && let Some(network) = &self.network
            {
                order.link = Some(
                    network
                        .free_link(&spec.id, &self.used_addresses())
                        .ok_or_else(|| PortError::new("every address of the box's network is in use"))?,
                );
            }
            folder.write_order(&order).map_err(|error| failed("write the order", &error))?;
        }
        self.spawn_shim(&folder).map_err(|error| failed("start the supervisor", &error))
    }

    fn used_addresses(&self) -> HashSet<std::net::Ipv4Addr> {
        let ids = self.ids().unwrap_or_default();
        let living = ids.iter().map(|id| self.folder(id)).filter(|folder| folder.find_end().is_none());
        living.filter_map(|folder| Some(folder.find_order()?.link?.address)).collect()
    }

    fn spawn_shim(&self, folder: &Folder) -> std::io::Result<()> {
        let errors =
            fs::OpenOptions::new().create(true).append(true).mode(0o600).open(folder.path("shim.err"))?;
        let mut child = Command::new(&self.config.binary)
            .arg("shim")
            .arg(folder.root())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let ready = child.stdout.take();
        // It forks at once and this half ends.
        let status = child.wait()?;
        if !status.success() {
            return Err(std::io::Error::other(format!(
                "`{} shim` failed: {status}",
                self.config.binary.display()
            )));
        }
        let Some(mut ready) = ready else { return Ok(()) };
        let limit = PollTimeout::try_from(START_LIMIT).unwrap_or(PollTimeout::MAX);
        loop {
            if poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], limit)? == 0 {
                return Err(std::io::Error::other(format!("nothing ran within {} s", START_LIMIT.as_secs())));
            }
            // A byte when the command runs, the end of the file when the shim is gone; its record says why. Before that,
            // a sign now and then while it hands over a big volume or copies a big image.
            let mut byte = [0];
            if ready.read(&mut byte)? == 0 || byte != [shim::PROGRESS] {
                return Ok(());
            }
        }
    }
}

const NAMESPACES_HINT: &str =
    "run the box as root or allow user namespaces; `trackbed status` says what is missing";

/// The variable that marks the processes of an instance where nothing else does.
pub(crate) const MARK: &str = "TRACKBED_INSTANCE";

/// Returns the box's mark in kernel names (control groups, links, rules).
pub(crate) fn tag(data_dir: &Path) -> String {
    trackbed_stdx::paths::tag(&fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned()))
}
