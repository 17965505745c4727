//! The [`Engine`] port: blocking work beside the runtime, each call from what is on disk and in `/proc`.

use std::collections::HashSet;
use std::fs;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use trackbed_core::instance::{
    Exit, InstanceSpec, InstanceState, InstanceStats, InstanceStatus, Listener, LogCursor, LogPage,
};
use trackbed_core::isolation::{Isolation, IsolationLevel};
use trackbed_core::ports::{BuildLog, Engine, Frozen, PortError, StrayFile, VolumeLease, VolumePlace};
use trackbed_core::route::Address;
use trackbed_core::{InstanceId, Secret};
use trackbed_stdx::files;

use crate::folder::End;
use crate::listening::{listeners, socket_inodes};
use crate::reconcile::Life;
use crate::records::{Order, Phase, State};
use crate::sandbox::{Inner, START_LIMIT, Sandbox};
use crate::{door, freeze, jobs, locks, logfile, process, strays};

/// The port of every instance that has a network of its own.
const OWN_NETWORK_PORT: u16 = 8080;
/// Ports for instances that share the network of the box.
const SHARED_PORTS: std::ops::Range<u16> = 20_000..30_000;

impl Sandbox {
    /// Runs blocking work on a thread that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(PortError::new(format!("the engine failed: {error}"))),
        }
    }
}

/// How often [`Engine::wait`] looks where the kernel does not tell.
const WAIT_LOOK: Duration = Duration::from_millis(400);

#[async_trait]
impl Engine for Sandbox {
    fn isolation(&self) -> Isolation {
        self.inner.isolation.clone()
    }

    fn shares_ports(&self) -> bool {
        self.inner.network.is_none()
    }

    /// When the future is dropped, a start that has not begun never will; one that has goes on, and
    /// [`Engine::stop`] waits for it.
    async fn start(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        let spec = spec.clone();
        let wanted = Arc::new(());
        let asked = Arc::downgrade(&wanted);
        let started = self.blocking(move |inner| inner.start(&spec, &asked)).await;
        drop(wanted);
        started
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        let id = id.clone();
        self.blocking(move |inner| inner.end(&id, grace)).await
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), PortError> {
        let id = id.clone();
        self.blocking(move |inner| inner.remove(&id)).await
    }

    async fn list(&self) -> Result<Vec<InstanceStatus>, PortError> {
        self.blocking(|inner| Ok(inner.ids()?.iter().filter_map(|id| inner.status(id)).collect())).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<InstanceStatus>, PortError> {
        let id = id.clone();
        self.blocking(move |inner| Ok(inner.status(&id))).await
    }

    async fn wait(&self, id: &InstanceId) {
        loop {
            let looked = id.clone();
            let shim = self.blocking(move |inner| match inner.life(&looked) {
                Some(Life::Living { .. }) => Ok(Some(inner.folder(&looked).living_shim())),
                Some(Life::Beginning) => Ok(Some(None)),
                None | Some(Life::Ended(_)) => Ok(None),
            });
            let Ok(Some(shim)) = shim.await else { return };
            // Its record is there before the shim goes.
            let gone = shim.and_then(|(_, shim)| shim.watch_end());
            match gone {
                Some(gone) => drop(gone.readable().await),
                // It is just beginning, what it left does not end, or the kernel has no such handles.
                None => tokio::time::sleep(WAIT_LOOK).await,
            }
        }
    }

    async fn logs(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError> {
        let id = id.clone();
        self.blocking(move |inner| inner.logs(&id, from, limit)).await
    }

    async fn stats(&self, id: &InstanceId) -> Result<InstanceStats, PortError> {
        let id = id.clone();
        self.blocking(move |inner| {
            let (order, state) = inner.living(&id)?;
            Ok(order.cgroup.stats().unwrap_or_else(|| summed_stats(state.shim.pid)))
        })
        .await
    }

    async fn listeners(&self, id: &InstanceId) -> Result<Vec<Listener>, PortError> {
        let id = id.clone();
        self.blocking(move |inner| {
            let (order, state) = inner.living(&id)?;
            let init = state.init.map_or(state.shim.pid, |init| init.pid);
            if order.has_own_network() && order.formation.beside.is_empty() {
                return Ok(listeners(init, None));
            }
            // What runs beside the main process may listen for reasons of its own.
            let sides: Vec<i32> = state.processes.iter().filter_map(|side| side.pid).collect();
            let roots = process::children(init);
            let roots = roots
                .into_iter()
                .filter(|pid| process::inside_pid(*pid).is_some_and(|pid| sides.contains(&pid)));
            let others: HashSet<i32> = roots
                .flat_map(|root| process::descendants_by_children(root).into_iter().chain([root]))
                .collect();
            let main = process::descendants(state.shim.pid).into_iter().filter(|pid| !others.contains(pid));
            let inodes = main.flat_map(socket_inodes).collect();
            Ok(listeners(init, Some(&inodes)))
        })
        .await
    }

    async fn address(&self, id: &InstanceId, port: u16) -> Result<Address, PortError> {
        let id = id.clone();
        self.blocking(move |inner| {
            let (order, state) = inner.living(&id)?;
            if door::is_needed(&order) && order.port != Some(port) {
                let message = format!("port {port} of instance {id} cannot be reached: it is offline");
                return Err(PortError::new(message).hint("it must listen on the port in PORT"));
            }
            let is_entered = order.has_own_network() && !door::is_needed(&order);
            Ok(match state.init.filter(|_| is_entered) {
                Some(init) => Address(format!("netns:{}@{}:127.0.0.1:{port}", init.pid, init.start_time)),
                None => Address(format!("tcp:127.0.0.1:{port}")),
            })
        })
        .await
    }

    async fn free_port(&self) -> Result<u16, PortError> {
        self.blocking(Inner::free_port).await
    }

    async fn lease(&self, place: &VolumePlace) -> Result<VolumeLease, PortError> {
        let path = place.lock.clone();
        self.blocking(move |_| {
            locks::lease(&path)
                .map_err(|error| PortError::new(format!("cannot read the lock {}: {error}", path.display())))
        })
        .await
    }

    async fn freeze(&self, id: &InstanceId, limit: Duration) -> Result<Box<dyn Frozen>, PortError> {
        freeze::freeze(self, id, limit).await
    }

    async fn stray_files(&self, id: &InstanceId, limit: usize) -> Result<Vec<StrayFile>, PortError> {
        let id = id.clone();
        self.blocking(move |inner| {
            let folder = inner.folder(&id);
            let order = folder.find_order().ok_or_else(|| unknown(&id))?;
            strays::find(&order, folder.root(), limit)
                .map_err(|error| PortError::new(format!("cannot read the files of instance {id}: {error}")))
        })
        .await
    }

    async fn exec(
        &self,
        id: &InstanceId,
        command: &[String],
        env: &[(String, Secret<String>)],
        log: &dyn BuildLog,
    ) -> Result<Exit, PortError> {
        jobs::exec(self, id, command, env, log).await
    }
}

impl Inner {
    /// Starts an instance, or finds it started. Does nothing when `asked` shows that whoever asked is gone.
    pub(crate) fn start(&self, spec: &InstanceSpec, asked: &Weak<()>) -> Result<(), PortError> {
        if self.life(&spec.id).is_some() || !self.begin(&spec.id, asked)? {
            self.await_start(&spec.id)?;
        } else {
            let launched = self.launch(spec, self.isolation.level);
            let given_up = launched.or_else(|error| self.give_up(&spec.id, error));
            self.memory().starting.remove(&spec.id);
            given_up?;
        }
        match self.life(&spec.id) {
            Some(Life::Ended(End { exit: Exit::Setup { message }, .. })) => {
                Err(PortError::new(format!("cannot start {} ({}): {message}", spec.title, spec.id)))
            }
            Some(Life::Living { .. } | Life::Beginning | Life::Ended(_)) | None => Ok(()),
        }
    }

    /// Marks a start as under way. Returns false when it is already.
    fn begin(&self, id: &InstanceId, asked: &Weak<()>) -> Result<bool, PortError> {
        let mut memory = self.memory();
        // Under the lock: a stop that comes after the caller has gone finds it marked, or never to come.
        if asked.strong_count() == 0 {
            return Err(PortError::new(format!("nobody waits for the start of instance {id} any more")));
        }
        Ok(memory.starting.insert(id.clone()))
    }

    /// Leaves a record of a start that failed before or beside its shim.
    pub(crate) fn give_up(&self, id: &InstanceId, error: PortError) -> Result<(), PortError> {
        let folder = self.folder(id);
        if folder.find_state().is_none() && folder.root().is_dir() {
            let _ = folder.close(Exit::Setup { message: error.message.clone() });
            if let Some(order) = folder.find_order() {
                folder.clear_variables_at_end(&order);
            }
        }
        self.end_begun(id, Duration::ZERO)?;
        Err(error)
    }

    /// Somebody else starts it: waits for them.
    fn await_start(&self, id: &InstanceId) -> Result<(), PortError> {
        let mut deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            let starting = self.memory().starting.contains(id);
            if starting {
                // The other one here knows when to give up.
                deadline = Instant::now() + START_LIMIT;
            }
            match self.life(id) {
                Some(Life::Living { state }) if state.phase == Phase::Running => return Ok(()),
                Some(Life::Ended(_)) => return Ok(()),
                None if !starting => return Err(unknown(id)),
                Some(Life::Living { .. } | Life::Beginning) | None => {}
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(PortError::new(format!("instance {id} did not start in time")))
    }

    pub(crate) fn remove(&self, id: &InstanceId) -> Result<(), PortError> {
        if matches!(self.life(id), Some(Life::Living { .. } | Life::Beginning)) {
            return Err(
                PortError::new(format!("cannot remove instance {id}: it still runs")).hint("stop it first")
            );
        }
        if let Some((_, shim)) = self.folder(id).living_shim() {
            // It has written its record and is about to go.
            shim.wait_gone(Duration::from_secs(5));
        }
        files::remove_tree(self.folder(id).root())
            .map_err(|error| PortError::new(format!("cannot remove the files of instance {id}: {error}")))
    }

    pub(crate) fn status(&self, id: &InstanceId) -> Option<InstanceStatus> {
        let life = self.life(id)?;
        let order = self.folder(id).find_order()?;
        let mut pids = Vec::new();
        let mut processes = Vec::new();
        let state = match life {
            Life::Beginning => InstanceState::Starting,
            Life::Ended(end) => InstanceState::Ended { exit: end.exit, at: end.at },
            Life::Living { state } => {
                let init = state.init.map(|init| init.pid);
                pids.push(state.shim.pid);
                processes.extend(state.processes.into_iter().map(|side| side.status));
                pids.extend(
                    process::descendants(state.shim.pid).into_iter().filter(|pid| Some(*pid) != init),
                );
                match state.phase {
                    Phase::Starting => InstanceState::Starting,
                    Phase::Running => InstanceState::Running,
                }
            }
        };
        let pids = pids.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect();
        let Order { kind, service, started_at, port, .. } = order;
        Some(InstanceStatus { id: id.clone(), kind, service, state, pids, started_at, port, processes })
    }

    pub(crate) fn logs(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError> {
        let folder = self.folder(id);
        if !folder.root().is_dir() {
            return Err(unknown(id));
        }
        logfile::read(&folder.path("log"), from, limit)
            .map_err(|error| PortError::new(format!("cannot read the log of instance {id}: {error}")))
    }

    pub(crate) fn living(&self, id: &InstanceId) -> Result<(Order, State), PortError> {
        match (self.life(id), self.folder(id).find_order()) {
            (Some(Life::Living { state }), Some(order)) => Ok((order, state)),
            (Some(Life::Ended(end)), _) => {
                Err(PortError::new(format!("instance {id} does not run: it {}", end.exit)))
            }
            (Some(Life::Beginning | Life::Living { .. }), _) => {
                Err(PortError::new(format!("instance {id} is still starting")))
            }
            (None, _) => Err(unknown(id)),
        }
    }

    fn free_port(&self) -> Result<u16, PortError> {
        if self.isolation.level == IsolationLevel::Full && self.network.is_some() {
            return Ok(OWN_NETWORK_PORT);
        }
        let ids = self.ids()?;
        let taken: HashSet<u16> = ids
            .iter()
            .filter(|id| self.folder(id).find_end().is_none())
            .filter_map(|id| self.folder(id).find_order()?.port)
            .collect();
        let mut memory = self.memory();
        let first = u16::from_ne_bytes(trackbed_stdx::random::bytes()) % 10_000;
        for step in 0..10_000 {
            let port = SHARED_PORTS.start + (first + step) % 10_000;
            let free = |address: &str| std::net::TcpListener::bind((address, port)).is_ok();
            if !taken.contains(&port) && !memory.promised_ports.contains(&port) && free("0.0.0.0") {
                memory.promise(port);
                return Ok(port);
            }
        }
        Err(PortError::new("no port from 20000 to 29999 is free"))
    }
}

fn unknown(id: &InstanceId) -> PortError {
    PortError::new(format!("instance {id} is unknown"))
}

/// Sums up what each process uses, where no group does.
fn summed_stats(shim: i32) -> InstanceStats {
    let mut stats = InstanceStats::default();
    for pid in process::descendants(shim) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
        stats.memory_bytes += pss.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) << 10;
        stats.cpu += process::cpu_time(pid);
        stats.pids += 1;
    }
    stats
}
