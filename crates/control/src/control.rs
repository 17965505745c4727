//! The control plane's parts, its errors, and the wake-up calls between them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use trackbed_core::deployment::Step;
use trackbed_core::ports::{Builder, Edge, Engine, PortError, Volumes};
use trackbed_core::{Host, Network, ServiceId, Timestamp};
use trackbed_stdx::tasks::Tasks;
use trackbed_store::{Store, StoreError};

use crate::bounded::{BoundedEdge, BoundedEngine, BoundedVolumes};
use crate::keeping::Keeping;
use crate::offsite::OffsiteKeeping;
use crate::routes::RoutesKnown;
use crate::streams::NoticesSeen;
use crate::sweep::Jobs;
use crate::turns::Turns;

/// How long the start may wait for strays of an earlier control plane to end; services wait meanwhile.
const FIRST_SWEEP_LIMIT: Duration = Duration::from_secs(30);

/// What the control plane is made of.
pub struct Parts {
    /// The state.
    pub store: Store,
    /// Makes images.
    pub builder: Arc<dyn Builder>,
    /// Runs instances.
    pub engine: Arc<dyn Engine>,
    /// Moves traffic.
    pub edge: Arc<dyn Edge>,
    /// Keeps volumes.
    pub volumes: Arc<dyn Volumes>,
    /// Reads the wall clock.
    pub clock: fn() -> Timestamp,
    /// What may differ between boxes.
    pub config: Config,
}

/// What may differ between boxes.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory; build logs are kept below it.
    pub data_dir: PathBuf,
    /// Services answer at `<service>.<domain>`.
    pub domain: Host,
    /// The port that the edge listens on, for URLs.
    pub public_port: u16,
    /// Proxies in front of the box whose word about their clients is taken.
    pub trusted_proxies: Vec<Network>,
    /// How many builds may run at once.
    pub builds_at_once: usize,
    /// For tests of crash safety: end the process here.
    pub abort_at: Option<AbortPoint>,
}

/// A place in a deployment at which a test wants the process to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortPoint {
    /// Which step.
    pub step: Step,
    /// Before or after its effect.
    pub moment: Moment,
}

/// When in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The step is stored, nothing of it is done.
    Before,
    /// It is done, but that is not stored.
    After,
}

impl std::str::FromStr for AbortPoint {
    type Err = String;

    /// Reads `before:start` or `after:build`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (moment, step) =
            text.split_once(':').ok_or_else(|| format!("`{text}` is not `before:STEP` or `after:STEP`"))?;
        let moment = match moment {
            "before" => Moment::Before,
            "after" => Moment::After,
            _ => return Err(format!("`{moment}` is neither `before` nor `after`")),
        };
        let step = Step::ALL.into_iter().find(|known| known.as_str() == step);
        Ok(Self { step: step.ok_or_else(|| format!("`{text}` names no step"))?, moment })
    }
}

/// Why a request was refused or a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It does not fit the state things are in.
    #[error("{message}")]
    Conflict {
        /// What does not fit.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A port refused.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The state database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of ours cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The control plane. Clones share it.
#[derive(Clone)]
pub struct Control {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) builder: Arc<dyn Builder>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) edge: Arc<dyn Edge>,
    pub(crate) volumes: Arc<dyn Volumes>,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) config: Config,
    pub(crate) tasks: Tasks,
    /// Builds that may begin.
    pub(crate) turns: Turns,
    /// Held while a route table is computed and applied, so that tables reach the edge in the order of the states.
    pub(crate) route_order: tokio::sync::Mutex<()>,
    pub(crate) routes_known: RoutesKnown,
    pub(crate) notices_seen: NoticesSeen,
    /// What the keepers of data remember.
    pub(crate) keeping: Keeping,
    /// Copies off the box.
    pub(crate) offsite: OffsiteKeeping,
    /// Since when callers of a service are held for a handover.
    pub(crate) held_since: Mutex<HashMap<ServiceId, tokio::time::Instant>>,
    /// Wakes the worker of a service.
    wakers: Mutex<HashMap<ServiceId, Arc<Notify>>>,
    /// Counts changes that somebody may be waiting to see.
    news: watch::Sender<u64>,
}

impl Control {
    /// Puts the parts together. Nothing runs until [`Control::start`].
    pub fn new(parts: Parts, tasks: Tasks) -> Self {
        let turns = Turns::new(parts.config.builds_at_once);
        Self {
            inner: Arc::new(Inner {
                store: parts.store,
                builder: parts.builder,
                engine: Arc::new(BoundedEngine(parts.engine)),
                edge: Arc::new(BoundedEdge(parts.edge)),
                volumes: Arc::new(BoundedVolumes(parts.volumes)),
                clock: parts.clock,
                config: parts.config,
                tasks,
                turns,
                route_order: tokio::sync::Mutex::new(()),
                routes_known: RoutesKnown::default(),
                notices_seen: NoticesSeen::default(),
                keeping: Keeping::default(),
                offsite: OffsiteKeeping::default(),
                held_since: Mutex::default(),
                wakers: Mutex::default(),
                news: watch::Sender::new(0),
            }),
        }
    }

    /// Puts today's routes in force, removes strays, and starts a worker for every service.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn start(&self) -> Result<(), ControlError> {
        if let Err(error) = self.sync_routes().await {
            tracing::warn!(%error, "the edge did not take the routes yet");
        }
        // Before the workers, because a stray may hold a volume that a service needs.
        let swept = within(FIRST_SWEEP_LIMIT, async {
            if let Err(error) = self.sweep_strays(Jobs::AreOrphans).await {
                tracing::warn!(%error, "strays of an earlier control plane are not removed yet");
            }
        });
        if !swept.await {
            tracing::warn!("strays of an earlier control plane take long to end; the next sweep goes on");
        }
        let services = self.inner.store.with(|db| db.list_services()).await?;
        for service in services {
            self.wake(&service.id);
        }
        self.spawn_sweeper();
        self.spawn_route_keeper();
        self.spawn_backup_keeper();
        self.spawn_drills();
        self.spawn_retention_keeper();
        self.spawn_stray_keeper();
        Ok(())
    }

    /// Wakes the worker of a service; starts it when it has none yet.
    pub(crate) fn wake(&self, service: &ServiceId) {
        let mut wakers = self.inner.wakers.lock().expect("no holder of this lock panics");
        if let Some(waker) = wakers.get(service) {
            waker.notify_one();
            return;
        }
        let waker = Arc::new(Notify::new());
        wakers.insert(service.clone(), waker.clone());
        self.spawn_worker(service.clone(), waker);
    }

    pub(crate) fn forget_waker(&self, service: &ServiceId) {
        if let Ok(mut wakers) = self.inner.wakers.lock() {
            wakers.remove(service);
        }
    }

    /// Returns a receiver that changes whenever there is something new to see.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.inner.news.subscribe()
    }

    pub(crate) fn announce(&self) {
        self.inner.news.send_modify(|count| *count += 1);
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    /// Returns where a host answers: `http://assistant.localhost:8080`.
    pub fn url(&self, host: &Host) -> String {
        match self.inner.config.public_port {
            80 => format!("http://{host}"),
            port => format!("http://{host}:{port}"),
        }
    }

    /// Dies here when a test asked for it. Aborts without unwinding, as `kill -9` would.
    pub(crate) fn reach(&self, step: Step, moment: Moment) {
        if self.inner.config.abort_at == Some(AbortPoint { step, moment }) {
            std::process::abort();
        }
    }
}

/// Runs a wait with a limit and says whether it came to its end.
pub(crate) async fn within(limit: Duration, wait: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(limit, wait).await.is_ok()
}
