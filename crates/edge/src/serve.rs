//! The edge's process: takes its place (state, port, control socket) or another edge's, restores the last routes, starts
//! the workers, and ends in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinHandle;
use trackbed_core::route::RouteTable;
use trackbed_stdx::tasks::Tasks;

use crate::control::{self, Control, Door};
use crate::elders::{self, Elders};
use crate::error::EdgeError;
use crate::limits::{DRAIN_TIME_DEFAULT, SOURCE_CONNECTIONS_MIN, SOURCE_SHARE, SWEEP_INTERVAL};
use crate::listen;
use crate::shutdown::{Stage, draining};
use crate::snapshot::Snapshot;
use crate::table::Routes;
use crate::takeover::{self, Belongings, Place};
use crate::wire::{Op, line};
use crate::worker::Worker;

/// How long the tasks of the control socket may take to end, once everything else has.
const CONTROL_END_LIMIT: Duration = Duration::from_secs(1);

/// What an edge needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect. Port 0 takes a free one, and after a restart the same again.
    pub listen: SocketAddr,
    /// Where the control plane connects.
    pub control_socket: PathBuf,
    /// Where the edge keeps its own state; nobody else writes there.
    pub state_dir: PathBuf,
    /// Worker threads; 0 means one per processor.
    pub workers: usize,
    /// Connections that one address may hold; 0 means a quarter of all when others than this machine can connect.
    pub connections_per_source: usize,
}

/// Runs the process `trackbed edge` until SIGTERM, SIGINT or an order to shut down. Logging is the caller's.
///
/// # Errors
/// See [`EdgeError`]; [`EdgeError::exit_code`] tells a taken port from the rest.
pub fn run(config: &Config) -> Result<(), EdgeError> {
    run_as(config, Start::First)
}

/// As [`run`], but takes the place of the edge that runs on the same state, if one does: see [`succeed`].
///
/// # Errors
/// As [`run`]; and when the running edge keeps its place.
pub fn run_successor(config: &Config) -> Result<(), EdgeError> {
    run_as(config, Start::Successor)
}

fn run_as(config: &Config, start: Start) -> Result<(), EdgeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(EdgeError::Worker)?;
    let served = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(EdgeError::Worker)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(EdgeError::Worker)?;
        let asked = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve_as(config, start, asked).await
    });
    runtime.shutdown_background();
    served
}

/// Runs an edge until `shutdown` ends or the control plane orders it, then drains; or until a successor has taken its
/// place and the last request here has ended. The workers have threads of their own; the calling runtime carries only
/// the control socket. Dropping the future leaves the workers draining at once.
///
/// # Errors
/// See [`EdgeError`]. After the start nothing is an error any more.
pub async fn serve(config: &Config, shutdown: impl Future<Output = ()>) -> Result<(), EdgeError> {
    serve_as(config, Start::First, shutdown).await
}

/// As [`serve`], but takes the place of the edge that runs on the same state, if one does: its sockets, its lock and its
/// last table. That edge finishes what is open there.
///
/// # Errors
/// As [`serve`]; and when the running edge keeps its place, which it does whenever anything goes wrong on the way.
pub async fn succeed(config: &Config, shutdown: impl Future<Output = ()>) -> Result<(), EdgeError> {
    serve_as(config, Start::Successor, shutdown).await
}

#[derive(Debug, Clone, Copy)]
enum Start {
    First,
    Successor,
}

async fn serve_as(
    config: &Config,
    start: Start,
    shutdown: impl Future<Output = ()>,
) -> Result<(), EdgeError> {
    let snapshot = Snapshot::open(&config.state_dir)?;
    let found = match start {
        Start::First => None,
        Start::Successor => takeover::ask(&config.control_socket, &snapshot).await?,
    };
    let (belongings, predecessor) = match found {
        Some((belongings, predecessor)) => (belongings, Some(predecessor)),
        None => (occupy(config, &snapshot)?, None),
    };
    let failed = |error| EdgeError::state(&config.control_socket, error);
    let address = belongings.address().map_err(failed)?;
    let orders = belongings.orders.try_clone().and_then(UnixListener::from_std).map_err(failed)?;

    let workers = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let connections_max = listen::connections_per_worker(workers);
    let per_source = match config.connections_per_source {
        // Only this machine's own programs can connect, and they all have one address.
        0 if address.ip().is_loopback() => 0,
        0 => (connections_max * workers / SOURCE_SHARE).max(SOURCE_CONNECTIONS_MIN),
        max => max,
    };
    let routes = Arc::new(Routes::new(workers, per_source));
    let table = snapshot.load_routes();
    let sequence = routes.apply(&table);
    let (stage, mut stages) = watch::channel(Stage::Waiting);
    let mut threads = Vec::new();
    for number in 0..workers {
        let worker =
            Worker { number, routes: Arc::clone(&routes), connections_max, stage: stage.subscribe() };
        let listener = belongings.listener.try_clone().map_err(EdgeError::Worker)?;
        threads.push(worker.start(listener).map_err(EdgeError::Worker)?);
    }
    if let Some(predecessor) = predecessor {
        predecessor.succeed().await?;
    }
    stage.send_replace(Stage::Running);
    tracing::info!(%address, workers, connections_max, sequence, "edge listens");
    trackbed_stdx::notify::ready();

    let folder = config.control_socket.parent().unwrap_or(Path::new(".")).to_owned();
    let elders = Elders::default();
    elders.find(&folder);
    let control = Arc::new(Control {
        routes: Arc::clone(&routes),
        snapshot,
        listen: address.to_string(),
        stage,
        place: tokio::sync::Mutex::new(Place::Face(belongings)),
        folder,
        elders,
        elder_orders: Mutex::default(),
        replaced: AtomicBool::new(false),
        build: OnceCell::new(),
    });
    let tasks = Tasks::default();
    let mut life = Life { control: &control, tasks: &tasks, shutdown: pin!(shutdown), asked: false };
    life.speak_first(table).await;
    life.while_accepting(&orders, &mut stages).await;

    let elder_orders = control.elder_orders.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (orders, door, socket) = match elder_orders {
        // The successor's copy of the control socket is the only one from here on.
        Some(elder_orders) => {
            drop(orders);
            (elder_orders, Door::Elder, elders::socket(&control.folder, std::process::id()))
        }
        None => (orders, Door::Face, config.control_socket.clone()),
    };
    let ended = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
    life.while_draining(&orders, door, ended).await;
    tasks.stop(CONTROL_END_LIMIT).await;
    // Left behind, it would look like an edge that does not answer. Gone already is fine.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

/// Takes the lock, the port and the control socket's name.
fn occupy(config: &Config, snapshot: &Snapshot) -> Result<Belongings, EdgeError> {
    let Some(lock) = snapshot.try_lock()? else {
        return Err(EdgeError::AlreadyRunning { state_dir: config.state_dir.clone() });
    };
    let listener = listen::bind(config.listen, snapshot.find_listen())?;
    let address =
        listener.local_addr().map_err(|source| EdgeError::Listen { address: config.listen, source })?;
    snapshot.store_listen(address)?;
    let orders = control::bind(&config.control_socket)?
        .into_std()
        .map_err(|error| EdgeError::state(&config.control_socket, error))?;
    Ok(Belongings { listener, orders, lock })
}

/// An edge from its first accept to its last request.
struct Life<'a, S> {
    control: &'a Arc<Control>,
    tasks: &'a Tasks,
    shutdown: Pin<&'a mut S>,
    /// Whether `shutdown` has ended.
    asked: bool,
}

impl<S: Future<Output = ()>> Life<'_, S> {
    /// Tells the elders the table in force: the edge that they had before may have died before it could.
    async fn speak_first(&self, table: RouteTable) {
        let order = line(Op::Apply { table }).map_err(|error| error.to_string());
        let told = match order {
            Ok(order) => self.control.elders.tell(&order).await,
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            tracing::warn!(error, "the next table repairs it");
        }
    }

    /// Lasts until the edge is asked to end, or is replaced.
    async fn while_accepting(&mut self, orders: &UnixListener, stages: &mut watch::Receiver<Stage>) {
        tokio::select! {
            () = self.shutdown.as_mut() => {}
            _ = draining(stages) => return,
            () = control::serve(self.control, orders, Door::Face, self.tasks) => {}
            () = sweep(&self.control.routes) => {}
        }
        self.asked = true;
        self.end().await;
    }

    /// Lasts until the workers have ended. A replaced edge may still be asked to end sooner.
    async fn while_draining(&mut self, orders: &UnixListener, door: Door, ended: JoinHandle<bool>) {
        tracing::info!("edge drains");
        self.control.stop_listening().await;
        let all_ended = async {
            if !ended.await.unwrap_or(false) {
                tracing::error!("a worker ended badly");
            }
            // Whoever asked the box to end sees its end by ours. A replaced edge waits for nobody.
            let stage = *self.control.stage.borrow();
            if let (Door::Face, Stage::Draining(drain)) = (door, stage) {
                let gone = self.control.elders.wait_gone();
                let _ = tokio::time::timeout(drain.limit + CONTROL_END_LIMIT, gone).await;
            }
        };
        let mut all_ended = pin!(all_ended);
        loop {
            tokio::select! {
                () = &mut all_ended => return,
                () = self.shutdown.as_mut(), if !self.asked => {
                    self.asked = true;
                    self.end().await;
                }
                () = control::serve(self.control, orders, door, self.tasks) => {}
                () = sweep(&self.control.routes) => {}
            }
        }
    }

    /// Ends this edge, and the elders if it speaks for them.
    async fn end(&self) {
        self.control.shut_down(DRAIN_TIME_DEFAULT);
        if self.control.replaced.load(Ordering::SeqCst) {
            return;
        }
        let drain_ms = u64::try_from(DRAIN_TIME_DEFAULT.as_millis()).unwrap_or(u64::MAX);
        if let Ok(order) = line(Op::Shutdown { drain_ms })
            && let Err(error) = self.control.elders.tell(&order).await
        {
            tracing::warn!(error, "it ends by itself");
        }
    }
}

async fn sweep(routes: &Routes) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        routes.sweep();
    }
}
