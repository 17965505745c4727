//! The [`Engine`] port for containers: each call from what is on disk, in `/proc` and in the engine.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::StatsOptions;
use futures_util::StreamExt;
use trackbed_core::instance::{
    Exit, InstanceSpec, InstanceState, InstanceStats, InstanceStatus, Listener, LogCursor, LogPage,
};
use trackbed_core::isolation::{Isolation, IsolationLevel};
use trackbed_core::ports::{BuildLog, Engine, Frozen, PortError, StrayFile, VolumeLease, VolumePlace};
use trackbed_core::route::Address;
use trackbed_core::{InstanceId, Secret};
use trackbed_sandbox::beside::{self, Process, read_log};
use trackbed_stdx::files;
use trackbed_stdx::tasks::Tasks;

use crate::daemon::{self, words};
use crate::life::Life;
use crate::records::{Folder, Order, State, living_keeper};
use crate::start::waiting;

/// Longest wait for a container to run, or for a sign that its preparation goes on.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);
/// The port of every instance: each has a network of its own.
const OWN_NETWORK_PORT: u16 = 8080;
/// How often [`Engine::wait`] looks where there is no keeper to wait for.
const WAIT_LOOK: Duration = Duration::from_millis(400);

/// What the engine is opened with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Records of instances go to `containers` below it.
    pub data_dir: PathBuf,
    /// Where control sockets lie: a short path, because a socket's name is limited to 107 bytes.
    pub run_dir: PathBuf,
    /// The program that is started as `<binary> keeper <instance dir>`: normally this very one.
    pub binary: PathBuf,
    /// The environment of the process: `DOCKER_HOST`, `CONTAINER_HOST` and `XDG_RUNTIME_DIR` say where an engine listens.
    pub environment: Vec<(String, String)>,
}

/// Runs instances as containers. Needs no engine until the first is started. Cloning shares it.
#[derive(Clone)]
pub struct Docker {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    tag: String,
    tasks: Tasks,
    /// Instances whose start is under way here.
    starting: Mutex<HashSet<InstanceId>>,
    network: tokio::sync::Mutex<()>,
}

/// A start that is under way. Dropping it says that it is not any more.
pub(crate) struct Starting(Docker, InstanceId);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.starting().remove(&self.1);
    }
}

impl Docker {
    /// Opens the engine. `tasks` own what watches frozen containers.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn open(config: Config, tasks: Tasks) -> Result<Docker, PortError> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = config.data_dir.join("containers");
        for path in [&folder, &config.run_dir] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| PortError::new(format!("cannot make {}: {error}", path.display())))?;
        }
        let tag = beside::tag(&config.data_dir);
        let inner =
            Inner { config, tag, tasks, starting: Mutex::default(), network: tokio::sync::Mutex::default() };
        Ok(Docker { inner: Arc::new(inner) })
    }

    /// Returns whether an instance is one of this engine's.
    pub fn knows(&self, id: &InstanceId) -> bool {
        self.is_starting(id) || self.folder(id).root().is_dir()
    }

    pub(crate) fn folder(&self, id: &InstanceId) -> Folder {
        Folder::new(self.inner.config.data_dir.join("containers").join(id.as_str()))
    }

    pub(crate) fn socket(&self, id: &InstanceId) -> PathBuf {
        self.inner.config.run_dir.join(format!("{id}.sock"))
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.inner.config.binary
    }

    pub(crate) fn environment(&self) -> &[(String, String)] {
        &self.inner.config.environment
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// Returns this box's mark in names.
    pub(crate) fn tag(&self) -> &str {
        &self.inner.tag
    }

    pub(crate) fn network_name(&self) -> String {
        format!("trackbed-{}", self.tag())
    }

    pub(crate) async fn network_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.network.lock().await
    }

    fn starting(&self) -> MutexGuard<'_, HashSet<InstanceId>> {
        self.inner.starting.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn is_starting(&self, id: &InstanceId) -> bool {
        self.starting().contains(id)
    }

    /// Marks a start as under way. Returns none when it is already.
    pub(crate) fn claim_start(
        &self,
        id: &InstanceId,
        asked: &Weak<()>,
    ) -> Result<Option<Starting>, PortError> {
        let mut starting = self.starting();
        // Under the lock: a stop that comes after the caller has gone finds it marked, or never to come.
        if asked.strong_count() == 0 {
            return Err(PortError::new(format!("nobody waits for the start of instance {id} any more")));
        }
        Ok(starting.insert(id.clone()).then(|| Starting(self.clone(), id.clone())))
    }

    /// Returns the ids of all instances that have a directory.
    pub(crate) fn ids(&self) -> Result<Vec<InstanceId>, PortError> {
        let path = self.inner.config.data_dir.join("containers");
        let entries = std::fs::read_dir(&path)
            .map_err(|error| PortError::new(format!("cannot read {}: {error}", path.display())))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    pub(crate) fn remove_folder(&self, id: &InstanceId) -> Result<(), PortError> {
        files::remove_tree(self.folder(id).root())
            .map_err(|error| PortError::new(format!("cannot remove the files of instance {id}: {error}")))
    }

    /// Returns the order and the first process of an instance that runs.
    pub(crate) async fn living(&self, id: &InstanceId) -> Result<(Order, State, Process), PortError> {
        match (self.life(id).await, self.folder(id).find_order()) {
            (Some(Life::Living { state: Some(state) }), Some(order)) if state.init.is_some() => {
                let init = state.init.ok_or_else(|| unknown(id))?;
                Ok((order, state, init))
            }
            (Some(Life::Ended(end)), _) => {
                Err(PortError::new(format!("instance {id} does not run: it {}", end.exit)))
            }
            (Some(Life::Beginning | Life::Living { .. }), _) => {
                Err(PortError::new(format!("instance {id} is still starting")))
            }
            (None, _) => Err(unknown(id)),
        }
    }

    async fn status(&self, id: &InstanceId) -> Option<InstanceStatus> {
        let life = self.life(id).await?;
        let order = self.folder(id).find_order()?;
        let mut pids = Vec::new();
        let state = match life {
            Life::Beginning => InstanceState::Starting,
            Life::Ended(end) => InstanceState::Ended { exit: end.exit, at: end.at },
            Life::Living { state } => match state {
                Some(State { keeper, init: Some(init), .. }) => {
                    pids.push(keeper.pid());
                    pids.extend(init.descendants().into_iter().map(|(process, _)| process.pid()));
                    InstanceState::Running
                }
                Some(State { init: None, .. }) | None => InstanceState::Starting,
            },
        };
        let pids = pids.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect();
        let Order { kind, service, started_at, port, .. } = order;
        Some(InstanceStatus {
            id: id.clone(),
            kind,
            service,
            state,
            pids,
            started_at,
            port,
            processes: Vec::new(),
        })
    }
}

pub(crate) fn unknown(id: &InstanceId) -> PortError {
    PortError::new(format!("instance {id} is unknown"))
}

#[async_trait]
impl Engine for Docker {
    /// A container always has namespaces and limits of its own, whatever this box gives to others.
    fn isolation(&self) -> Isolation {
        Isolation { level: IsolationLevel::Full, missing: Vec::new() }
    }

    /// When the future is dropped, a start that has not begun never will; one that has goes on, and [`Engine::stop`] waits
    /// for it.
    async fn start(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        let (wanted, asked) = waiting();
        let started = self.begin(spec, &asked).await;
        drop(wanted);
        started
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        self.end(id, grace).await
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), PortError> {
        if matches!(self.life(id).await, Some(Life::Living { .. } | Life::Beginning)) {
            return Err(
                PortError::new(format!("cannot remove instance {id}: it still runs")).hint("stop it first")
            );
        }
        self.forget(id).await
    }

    async fn list(&self) -> Result<Vec<InstanceStatus>, PortError> {
        let mut all = Vec::new();
        for id in self.ids()? {
            all.extend(self.status(&id).await);
        }
        Ok(all)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<InstanceStatus>, PortError> {
        Ok(self.status(id).await)
    }

    async fn wait(&self, id: &InstanceId) {
        loop {
            match self.life(id).await {
                None | Some(Life::Ended(_)) => return,
                Some(Life::Living { .. } | Life::Beginning) => {}
            }
            match living_keeper(&self.folder(id)) {
                // Its record is there before it goes.
                Some(state) => state.keeper.gone().await,
                None => tokio::time::sleep(WAIT_LOOK).await,
            }
        }
    }

    async fn logs(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError> {
        let folder = self.folder(id);
        if !folder.root().is_dir() {
            return Err(unknown(id));
        }
        let read = tokio::task::spawn_blocking(move || read_log(&folder.path("log"), from, limit));
        let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        read.map_err(|error| PortError::new(format!("cannot read the log of instance {id}: {error}")))
    }

    async fn stats(&self, id: &InstanceId) -> Result<InstanceStats, PortError> {
        let (order, ..) = self.living(id).await?;
        let daemon = daemon::connect(&order.daemon).await?;
        let options = StatsOptions { stream: false, one_shot: true };
        let name = order.container();
        let told = daemon.api.stats(&name, Some(options)).next().await;
        let failed =
            |why: String| PortError::new(format!("{} tells nothing of instance {id}: {why}", daemon.title));
        let told = told
            .ok_or_else(|| failed("it runs no more".to_owned()))?
            .map_err(|error| failed(words(&error)))?;
        let nanos = told.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or_default();
        let pids = told.pids_stats.and_then(|pids| pids.current).unwrap_or_default();
        Ok(InstanceStats {
            memory_bytes: told.memory_stats.and_then(|memory| memory.usage).unwrap_or_default(),
            cpu: Duration::from_nanos(nanos),
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
        })
    }

    async fn listeners(&self, id: &InstanceId) -> Result<Vec<Listener>, PortError> {
        let (_, _, init) = self.living(id).await?;
        Ok(init.listeners())
    }

    /// The edge enters the container's network as it does the sandbox's; where it may not, the port is published on loopback.
    async fn address(&self, id: &InstanceId, port: u16) -> Result<Address, PortError> {
        let (order, state, init) = self.living(id).await?;
        if !order.published {
            return Ok(Address(format!("netns:{}@{}:127.0.0.1:{port}", init.pid(), init.start_time())));
        }
        match state.host_port.filter(|_| order.port == Some(port)) {
            Some(host_port) => Ok(Address(format!("tcp:127.0.0.1:{host_port}"))),
            None => Err(PortError::new(format!("port {port} of instance {id} cannot be reached"))
                .hint("it must listen on the port in PORT, on every address (0.0.0.0)")),
        }
    }

    async fn free_port(&self) -> Result<u16, PortError> {
        Ok(OWN_NETWORK_PORT)
    }

    async fn lease(&self, place: &VolumePlace) -> Result<VolumeLease, PortError> {
        let path = place.lock.clone();
        let looked = tokio::task::spawn_blocking(move || beside::lease(&path)).await;
        looked.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|error| {
            PortError::new(format!("cannot read the lock {}: {error}", place.lock.display()))
        })
    }

    async fn freeze(&self, id: &InstanceId, limit: Duration) -> Result<Box<dyn Frozen>, PortError> {
        crate::freeze::freeze(self, id, limit).await
    }

    async fn stray_files(&self, id: &InstanceId, limit: usize) -> Result<Vec<StrayFile>, PortError> {
        crate::strays::find(self, id, limit).await
    }

    async fn exec(
        &self,
        id: &InstanceId,
        command: &[String],
        env: &[(String, Secret<String>)],
        log: &dyn BuildLog,
    ) -> Result<Exit, PortError> {
        crate::exec::exec(self, id, command, env, log).await
    }
}
