//! A control plane over a world of fakes: starts it, asks things of it, lets it crash, and waits until it is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use trackbed_control::{Config, Control, ControlError, DeploymentWish, Parts};
use trackbed_core::deployment::{Deployment, DeploymentState, Event, Step};
use trackbed_core::release::Release;
use trackbed_core::restore_point::{Proof, RestorePoint};
use trackbed_core::route::UpstreamState;
use trackbed_core::service::Service;
use trackbed_core::{DeploymentId, Digest, InstanceId, Name, RestorePointId, Secret, VolumeId};
use trackbed_stdx::tasks::Tasks;
use trackbed_store::{Key, Store};
use trackbed_testkit::{
    App, Content, FakeBuilder, FakeEdge, FakeEngine, FakeVolumes, Faults, Happening, World, clock,
};

/// Longest wait for anything, in virtual time: longer than every limit of the control plane together.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often a wait looks.
const POLL: Duration = Duration::from_millis(40);

pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) faults: Faults,
    pub(crate) control: Control,
    pub(crate) crashes: u32,
    /// Ends the control plane once this many changes of the state have been stored and announced.
    pub(crate) crash_after_changes: Option<u64>,
    /// Deployments of which it was said that they are cancelled: they must never be live.
    pub(crate) cancelled: Vec<DeploymentId>,
    /// Outcomes seen so far; they must never change.
    pub(crate) outcomes: BTreeMap<DeploymentId, DeploymentState>,
    pub(crate) store: Store,
    tasks: Tasks,
    ends: watch::Receiver<u32>,
    folder: TempDir,
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn open_store(folder: &TempDir) -> Store {
    let key = Key::open(&folder.path().join("key")).unwrap();
    Store::open(&folder.path().join("state.db"), key).unwrap()
}

fn parts(store: Store, folder: &TempDir, world: &World, faults: &Faults) -> Parts {
    Parts {
        store,
        builder: Arc::new(FakeBuilder::new(world.clone(), faults.clone())),
        engine: Arc::new(FakeEngine::new(world.clone(), faults.clone())),
        edge: Arc::new(FakeEdge::new(world.clone(), faults.clone())),
        volumes: Arc::new(FakeVolumes::new(world.clone(), faults.clone())),
        clock: clock::wall,
        config: Config {
            data_dir: folder.path().to_owned(),
            domain: "localhost".parse().unwrap(),
            public_port: 8080,
            trusted_proxies: Vec::new(),
            builds_at_once: 1,
            abort_at: None,
        },
    }
}

/// Memory, where there is any: nothing here has to survive the test, and syncing to a disk would take most of its time.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs a scenario on a runtime of its own whose time is paused.
pub(crate) fn on_paused_time<T>(scenario: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(scenario)
}

impl Rig {
    pub(crate) async fn new() -> Rig {
        let (world, faults, folder, tasks) = (World::new(), Faults::default(), folder(), Tasks::default());
        let store = open_store(&folder);
        let control = Control::new(parts(store.clone(), &folder, &world, &faults), tasks.clone());
        control.start().await.unwrap();
        let (ends, outcomes) = (faults.crashes(), BTreeMap::new());
        Rig {
            world,
            faults,
            control,
            crashes: 0,
            crash_after_changes: None,
            cancelled: Vec::new(),
            outcomes,
            store,
            tasks,
            ends,
            folder,
        }
    }

    /// Ends the control plane as `kill -9` would, and starts another over the same files and the same world.
    pub(crate) async fn crash(&mut self) {
        loop {
            self.crashes += 1;
            self.tasks.stop(Duration::ZERO).await;
            // Aborted tasks are dropped when the runtime comes to them.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            self.tasks = Tasks::default();
            self.store = open_store(&self.folder);
            let parts = parts(self.store.clone(), &self.folder, &self.world, &self.faults);
            self.control = Control::new(parts, self.tasks.clone());
            tokio::select! {
                started = self.control.start() => return started.unwrap(),
                // The fault strikes during the start.
                _ = self.ends.changed() => {}
            }
        }
    }

    /// Ends the control plane and starts none.
    pub(crate) async fn end(&mut self) {
        self.tasks.stop(Duration::ZERO).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// A deployment as the state has it.
    pub(crate) async fn stored(&self, id: &DeploymentId) -> Deployment {
        let id = id.clone();
        self.store.with(move |db| db.load_deployment(&id)).await.unwrap()
    }

    /// Changes what the state says of a deployment.
    pub(crate) async fn store_as(&self, deployment: Deployment) {
        self.store.with(move |db| db.update_deployment(&deployment)).await.unwrap();
    }

    /// The restore points of a volume, newest first.
    pub(crate) async fn points(&self, volume: &VolumeId) -> Vec<RestorePoint> {
        let volume = volume.clone();
        self.store.with(move |db| db.list_restore_points(&volume)).await.unwrap()
    }

    /// Writes down what a drill found.
    pub(crate) async fn set_proof(&self, point: &RestorePointId, proof: Proof) {
        let point = point.clone();
        self.store.with(move |db| db.set_proof(&point, proof)).await.unwrap();
    }

    pub(crate) async fn limit_volume(&self, volume: &VolumeId, bytes: u64) {
        let volume = volume.clone();
        self.store.with(move |db| db.set_volume_limit(&volume, Some(bytes))).await.unwrap();
    }

    /// The names of the apps that wrote data, in order.
    pub(crate) fn writers(&self, content: &Content) -> Vec<String> {
        content.writes.iter().map(|(_, source)| self.world.name_of(source)).collect()
    }

    /// Lets virtual time pass, and the control plane crash when a fault says so.
    pub(crate) async fn pass_time(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let limit = self.crash_after_changes.unwrap_or(u64::MAX);
            let mut news = self.control.news();
            tokio::select! {
                biased;
                changed = self.ends.changed() => changed.unwrap(),
                changed = news.wait_for(|changes| *changes >= limit) => {
                    changed.unwrap();
                    self.crash_after_changes = None;
                }
                () = tokio::time::sleep_until(until) => return,
            }
            self.crash().await;
        }
    }

    /// Waits until a look at things is as wanted.
    pub(crate) async fn until(&mut self, what: &str, mut wanted: impl AsyncFnMut(&Rig) -> bool) {
        let began = Instant::now();
        while !wanted(self).await {
            assert!(began.elapsed() < PATIENCE, "waited too long: {what}\n{}", self.story().await);
            self.pass_time(POLL).await;
        }
    }

    pub(crate) async fn wish(&self, service: &str, wish: DeploymentWish) -> Result<Deployment, ControlError> {
        self.control.request_deployment(name(service), name(service), wish).await
    }

    /// Pushes an app and asks for its deployment as service `web`.
    pub(crate) async fn up(&self, app: &App) -> DeploymentId {
        let source = self.world.push(app);
        self.control.add_source(source.clone()).await.unwrap();
        self.wish("web", DeploymentWish::Up { source, overrides: Vec::new() }).await.unwrap().id
    }

    /// Waits until nothing is left to do for a deployment.
    pub(crate) async fn finish(&mut self, id: &DeploymentId) -> Deployment {
        self.until("the end of a deployment", async |rig| {
            rig.control.deployment(id).await.unwrap().finished_at.is_some()
        })
        .await;
        self.control.deployment(id).await.unwrap()
    }

    pub(crate) async fn deploy(&mut self, app: &App) -> Deployment {
        let id = self.up(app).await;
        self.finish(&id).await
    }

    /// Deploys an app that must become live.
    pub(crate) async fn deploy_well(&mut self, app: &App) -> Deployment {
        let deployment = self.deploy(app).await;
        assert_eq!(deployment.state, DeploymentState::Success, "{:?}", deployment.failure);
        deployment
    }

    /// Waits for a step of a deployment to begin.
    pub(crate) async fn reach(&mut self, id: &DeploymentId, step: Step) {
        self.until(step.as_str(), async |rig| rig.control.deployment(id).await.unwrap().step >= step).await;
    }

    /// Waits for a step of a deployment to begin, or for its end before that.
    pub(crate) async fn reach_or_end(&mut self, id: &DeploymentId, step: Step) {
        self.until(step.as_str(), async |rig| {
            let deployment = rig.control.deployment(id).await.unwrap();
            deployment.step >= step || deployment.finished_at.is_some()
        })
        .await;
    }

    /// Catches the moment in which a step of a deployment is stored as begun, however short it is. False when it never is.
    pub(crate) async fn catch(&mut self, id: &DeploymentId, step: Step) -> bool {
        let mut news = self.control.news();
        loop {
            news.mark_unchanged();
            let deployment = self.control.deployment(id).await.unwrap();
            if deployment.entered == Some(step) || deployment.finished_at.is_some() {
                return deployment.entered == Some(step) && deployment.finished_at.is_none();
            }
            news.changed().await.unwrap();
        }
    }

    /// Cancels whatever is under way, and remembers what was promised.
    pub(crate) async fn cancel(&mut self) -> Result<Deployment, ControlError> {
        let cancelled = self.control.request_cancel(&name("web"), &name("web")).await?;
        self.cancelled.push(cancelled.id.clone());
        Ok(cancelled)
    }

    pub(crate) async fn down(&self) {
        self.control.request_stop(&name("web"), &name("web")).await.unwrap();
    }

    pub(crate) async fn set_variable(&self, variable: &str, value: &str) {
        let set = BTreeMap::from([(variable.parse().unwrap(), Secret::new(value.to_owned()))]);
        let (project, service) = (name("web"), name("web"));
        self.control.change_variables(&project, &service, set, Vec::new(), false).await.unwrap();
    }

    pub(crate) async fn service(&self) -> Service {
        self.control.service(&name("web"), &name("web")).await.unwrap()
    }

    /// The live release and its instance, asked of the state alone: no port is called.
    pub(crate) async fn live(&self) -> (Release, InstanceId) {
        let live = self.service().await.live.expect("something is live");
        let release = self.store.with(move |db| db.load_release(&live.release)).await.unwrap();
        (release, live.instance.expect("it has an instance"))
    }

    pub(crate) async fn live_source(&self) -> Digest {
        let live = self.service().await.live.expect("something is live");
        self.store.with(move |db| db.load_release(&live.release)).await.unwrap().source
    }

    /// Which instance requests go to now, if any.
    pub(crate) async fn served(&self) -> Option<InstanceId> {
        match self.world.upstream(&"web.localhost".parse().unwrap()) {
            Some(UpstreamState::Serving { target }) => Some(target.instance),
            _ => None,
        }
    }

    pub(crate) async fn upstream(&self) -> UpstreamState {
        self.world.upstream(&"web.localhost".parse().unwrap()).expect("the edge knows the service")
    }

    /// What a living instance was given as a variable.
    pub(crate) fn variable(&self, instance: &InstanceId, variable: &str) -> Option<String> {
        let spec = self.world.instance(instance).expect("the instance is there").spec;
        let found = spec.env.into_iter().find(|(name, _)| name == variable);
        found.map(|(_, value)| value.into_exposed())
    }

    pub(crate) async fn events(&self, id: &DeploymentId) -> Vec<Event> {
        self.control.events(id, 0).await.unwrap()
    }

    /// Everything that a person would ask for when a test fails.
    pub(crate) async fn story(&self) -> String {
        let mut story = format!("crashes: {}\n", self.crashes);
        let service = self.service().await;
        story += &format!("wanted {:?}, live {:?}\n", service.wanted, service.live);
        for deployment in self.control.deployments(&service, 20).await.unwrap().into_iter().rev() {
            let outcome = (deployment.kind, deployment.state, deployment.step, &deployment.failure);
            story += &format!("{} {outcome:?} old {:?}\n", deployment.id, deployment.old_instance);
            for event in self.events(&deployment.id).await {
                story += &format!(
                    "    {} {} {:?} {}\n",
                    event.at.0,
                    event.step.as_str(),
                    event.kind,
                    event.message
                );
            }
        }
        for (at, happening) in self.world.journal() {
            story += &match happening {
                Happening::Applied(table) => {
                    let states: Vec<_> = table.routes.values().map(|route| &route.upstream).collect();
                    format!("{} table {} {states:?}\n", at.0, table.sequence)
                }
                other => format!("{} {other:?}\n", at.0),
            };
        }
        story + &format!("violations: {:?}\n", self.world.violations())
    }
}
