//! An engine whose instances are scripts of the world. It holds the locks of volumes as the real one does.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use trackbed_core::instance::{
    AppTree, Exit, InstanceSpec, InstanceState, InstanceStats, InstanceStatus, Listener, LogCursor, LogPage,
};
use trackbed_core::isolation::{Isolation, IsolationLevel};
use trackbed_core::ports::{
    BuildLog, Engine, Frozen, LeaseHolder, PortError, StrayFile, VolumeLease, VolumePlace,
};
use trackbed_core::route::{Address, UpstreamState};
use trackbed_core::{InstanceId, Secret};

use crate::clock;
use crate::faults::Faults;
use crate::world::{Happening, Instance, World, later};

/// How long a start waits for the lock of a volume.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// How long a start takes.
const START_TAKES: Duration = Duration::from_millis(5);
/// Longest time that an instance stands still, whatever was asked for.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// How often ends are looked for.
const POLL: Duration = Duration::from_millis(5);

/// The engine of a world.
pub struct FakeEngine {
    world: World,
    faults: Faults,
}

impl FakeEngine {
    /// Makes the engine of a world.
    pub fn new(world: World, faults: Faults) -> Self {
        Self { world, faults }
    }

    fn living(&self, id: &InstanceId) -> Result<Instance, PortError> {
        let found = self.world.instance(id).filter(|instance| instance.lives(clock::now()));
        found.ok_or_else(|| PortError::new(format!("instance {id} does not run")))
    }

    async fn begin(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        let began = Instant::now();
        loop {
            {
                let mut state = self.world.lock();
                if state.instances.contains_key(&spec.id) {
                    return Ok(());
                }
                let held = spec.volumes.iter().find_map(|mount| {
                    let holder = state.holder(mount, &spec.id)?;
                    Some((mount.volume.clone(), holder))
                });
                match held {
                    None => {
                        let app = match &spec.app {
                            AppTree::Image { image } => state.apps.get(&image.digest).cloned(),
                            AppTree::Directory { .. } => None,
                        };
                        let app = app.ok_or_else(|| PortError::new("the image's layers are missing"))?;
                        state.begin(spec.clone(), app);
                        break;
                    }
                    Some((volume, holder)) => {
                        let text = format!("{} asked for {volume} while {holder} held it", spec.id);
                        if !state.violations.contains(&text) {
                            state.violations.push(text);
                        }
                        if began.elapsed() >= LOCK_WAIT {
                            return Err(PortError::new(format!("volume {volume} is held by {holder}")));
                        }
                    }
                }
            }
            sleep(POLL).await;
        }
        sleep(START_TAKES).await;
        Ok(())
    }

    async fn end(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        {
            let now = clock::now();
            let mut state = self.world.lock();
            let is_served = state.table.routes.values().any(|route| {
                matches!(&route.upstream, UpstreamState::Serving { target } if target.instance == *id)
            });
            let Some(instance) = state.instances.get_mut(id) else { return Ok(()) };
            if instance.lives(now) {
                let takes = match instance.app.ignores_term {
                    true => grace,
                    false => instance.app.stop_takes.min(grace),
                };
                let signal = if takes == grace { 9 } else { 15 };
                instance.end_by(later(now, takes), Exit::Signal { signal });
                if is_served {
                    state.violations.push(format!("{id} was stopped while requests were sent to it"));
                }
                state.note(Happening::Stopping(id.clone()));
                state.thaw(id);
            }
        }
        while self.living(id).is_ok() {
            sleep(POLL).await;
        }
        self.world.lock().note(Happening::Stopped(id.clone()));
        Ok(())
    }

    fn hold(&self, id: &InstanceId, limit: Duration) -> Result<Box<dyn Frozen>, PortError> {
        self.living(id)?;
        let mut state = self.world.lock();
        let until = later(clock::now(), limit.min(FREEZE_LIMIT));
        if state.is_frozen(id) {
            return Err(PortError::new(format!("instance {id} is frozen already")));
        }
        let number = state.freeze(id.clone(), until);
        let since = Instant::now();
        Ok(Box::new(FakeFrozen { world: self.world.clone(), id: id.clone(), number, since }))
    }

    fn strays(&self, id: &InstanceId, limit: usize) -> Result<Vec<StrayFile>, PortError> {
        let found = self.world.instance(id);
        let instance = found.ok_or_else(|| PortError::new(format!("there is no instance {id}")))?;
        let mut files = instance.app.strays;
        files.sort_by_key(|file| std::cmp::Reverse((file.is_database, file.size_bytes)));
        files.truncate(limit);
        Ok(files)
    }

    fn status(instance: &Instance) -> InstanceStatus {
        let ended = instance.ended(clock::now());
        InstanceStatus {
            id: instance.spec.id.clone(),
            kind: instance.spec.kind,
            service: instance.spec.service.clone(),
            pids: if ended.is_some() { Vec::new() } else { vec![100, 101] },
            state: match ended {
                Some((at, exit)) => InstanceState::Ended { exit, at },
                None => InstanceState::Running,
            },
            started_at: instance.started_at,
            port: instance.spec.port,
            processes: instance.app.processes.clone(),
        }
    }

    fn read_log(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError> {
        let found = self.world.instance(id);
        let instance = found.ok_or_else(|| PortError::new(format!("there is no instance {id}")))?;
        let skipped = usize::try_from(from.0).unwrap_or(usize::MAX);
        let lines: Vec<_> = instance.lines.into_iter().skip(skipped).take(limit).collect();
        let next = LogCursor(from.0 + lines.len() as u64);
        Ok(LogPage { lines, next })
    }

    fn forget(&self, id: &InstanceId) -> Result<(), PortError> {
        if self.living(id).is_ok() {
            return Err(PortError::new(format!("instance {id} still runs")));
        }
        self.world.lock().instances.remove(id);
        Ok(())
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn isolation(&self) -> Isolation {
        Isolation { level: IsolationLevel::Userns, missing: vec!["everything: this is a fake".into()] }
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        self.faults.pass("engine.start", Err, || self.begin(spec)).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        self.faults.pass("engine.stop", Err, || self.end(id, grace)).await
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), PortError> {
        self.faults.pass("engine.remove", Err, || async { self.forget(id) }).await
    }

    async fn list(&self) -> Result<Vec<InstanceStatus>, PortError> {
        let list = || async { Ok(self.world.lock().instances.values().map(Self::status).collect()) };
        self.faults.pass("engine.list", Err, list).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<InstanceStatus>, PortError> {
        let inspect = || async { Ok(self.world.instance(id).as_ref().map(Self::status)) };
        self.faults.pass("engine.inspect", Err, inspect).await
    }

    async fn wait(&self, id: &InstanceId) {
        while self
            .world
            .instance(id)
            .is_some_and(|instance| !matches!(Self::status(&instance).state, InstanceState::Ended { .. }))
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn logs(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError> {
        self.faults.pass("engine.logs", Err, || async { self.read_log(id, from, limit) }).await
    }

    async fn stats(&self, id: &InstanceId) -> Result<InstanceStats, PortError> {
        let stats = || async {
            self.living(id)?;
            Ok(InstanceStats { memory_bytes: 1 << 20, cpu: Duration::from_millis(1), pids: 2 })
        };
        self.faults.pass("engine.stats", Err, stats).await
    }

    async fn listeners(&self, id: &InstanceId) -> Result<Vec<Listener>, PortError> {
        let listeners = || async {
            let ports = self.living(id)?.ports(clock::now());
            Ok(ports.into_iter().map(|port| Listener { port, loopback_only: false }).collect())
        };
        self.faults.pass("engine.listeners", Err, listeners).await
    }

    async fn address(&self, id: &InstanceId, port: u16) -> Result<Address, PortError> {
        let address = || async {
            self.living(id)?;
            Ok(Address(format!("fake:{id}:{port}")))
        };
        self.faults.pass("engine.address", Err, address).await
    }

    async fn free_port(&self) -> Result<u16, PortError> {
        let free = || async {
            let mut state = self.world.lock();
            state.next_port += 1;
            Ok(state.next_port)
        };
        self.faults.pass("engine.free_port", Err, free).await
    }

    async fn lease(&self, place: &VolumePlace) -> Result<VolumeLease, PortError> {
        let lease = || async {
            let lock = place.lock.to_string_lossy().into_owned();
            let mut instances = self.world.living();
            instances.sort_by_key(|instance| std::cmp::Reverse(instance.started_at));
            let holders: Vec<_> = instances
                .into_iter()
                .filter_map(|instance| {
                    let mount = instance.spec.volumes.iter().find(|mount| mount.lock_path == lock)?;
                    let shared = mount.shared;
                    Some(LeaseHolder { instance: instance.spec.id, title: instance.spec.title, shared })
                })
                .collect();
            let fence = self.world.fence(&lock);
            Ok(VolumeLease { fence, is_held: !holders.is_empty(), holders })
        };
        self.faults.pass("engine.lease", Err, lease).await
    }

    async fn freeze(&self, id: &InstanceId, limit: Duration) -> Result<Box<dyn Frozen>, PortError> {
        self.faults.pass("engine.freeze", Err, || async { self.hold(id, limit) }).await
    }

    async fn stray_files(&self, id: &InstanceId, limit: usize) -> Result<Vec<StrayFile>, PortError> {
        self.faults.pass("engine.stray_files", Err, || async { self.strays(id, limit) }).await
    }

    async fn exec(
        &self,
        id: &InstanceId,
        _command: &[String],
        _env: &[(String, Secret<String>)],
        _log: &dyn BuildLog,
    ) -> Result<Exit, PortError> {
        let exec = || async {
            self.living(id)?;
            self.world.lock().thaw(id);
            Ok(Exit::Code { code: 0 })
        };
        self.faults.pass("engine.exec", Err, exec).await
    }
}

/// An instance that stands still: nothing runs in the world by itself, so it is only remembered.
struct FakeFrozen {
    world: World,
    id: InstanceId,
    number: u64,
    since: Instant,
}

#[async_trait]
impl Frozen for FakeFrozen {
    async fn thaw(self: Box<Self>) -> Result<Duration, PortError> {
        let lives = self.world.instance(&self.id).is_some_and(|instance| instance.lives(clock::now()));
        match self.world.lock().thaw_hold(&self.id, self.number) && lives {
            true => Ok(self.since.elapsed()),
            false => Err(PortError::new(format!("instance {} did not stand still until the end", self.id))),
        }
    }
}

impl Drop for FakeFrozen {
    fn drop(&mut self) {
        self.world.lock().thaw_hold(&self.id, self.number);
    }
}
