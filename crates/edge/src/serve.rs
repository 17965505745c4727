//! The edge's process: takes its place (state, port, control socket), restores the last routes, starts the workers,
//! and ends in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use trackbed_stdx::files::try_lock;
use trackbed_stdx::tasks::Tasks;

use crate::control::{self, Control};
use crate::error::EdgeError;
use crate::limits::{DRAIN_TIME_DEFAULT, SOURCE_CONNECTIONS_MIN, SOURCE_SHARE, SWEEP_INTERVAL};
use crate::listen;
use crate::shutdown::{Stage, draining};
use crate::snapshot::Snapshot;
use crate::table::Routes;
use crate::trust::Network;
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
    /// Proxies in front of the box: what they say about their clients (`X-Forwarded-…`) is believed.
    pub trusted_proxies: Vec<Network>,
    /// Connections that one address may hold; 0 means a quarter of all when others than this machine can connect.
    pub connections_per_source: usize,
}

/// Runs the process `trackbed edge` until SIGTERM, SIGINT or an order to shut down. Logging is the caller's.
///
/// # Errors
/// See [`EdgeError`]; [`EdgeError::exit_code`] tells a taken port from the rest.
pub fn run(config: &Config) -> Result<(), EdgeError> {
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
        serve(config, asked).await
    });
    runtime.shutdown_background();
    served
}

/// Runs an edge until `shutdown` ends or the control plane orders it, then drains. The workers have threads of their
/// own; the calling runtime carries only the control socket. Dropping the future leaves the workers draining at once.
///
/// # Errors
/// See [`EdgeError`]. After the start nothing is an error any more.
pub async fn serve(config: &Config, shutdown: impl Future<Output = ()>) -> Result<(), EdgeError> {
    let snapshot = Snapshot::open(&config.state_dir)?;
    let lock = try_lock(&snapshot.lock).map_err(|error| EdgeError::state(&snapshot.lock, error))?;
    let Some(_lock) = lock else {
        return Err(EdgeError::AlreadyRunning { state_dir: config.state_dir.clone() });
    };
    let listener = listen::bind(config.listen, snapshot.find_listen())?;
    let address =
        listener.local_addr().map_err(|source| EdgeError::Listen { address: config.listen, source })?;
    snapshot.store_listen(address)?;
    let orders = control::bind(&config.control_socket)?;

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
    let routes = Arc::new(Routes::new(workers, config.trusted_proxies.clone(), per_source));
    let sequence = routes.apply(&snapshot.load_routes());
    let (stage, mut stages) = watch::channel(Stage::Running);
    let mut threads = Vec::new();
    for number in 0..workers {
        let worker =
            Worker { number, routes: Arc::clone(&routes), connections_max, stage: stage.subscribe() };
        let listener = listener.try_clone().map_err(EdgeError::Worker)?;
        threads.push(worker.start(listener).map_err(EdgeError::Worker)?);
    }
    drop(listener);
    tracing::info!(%address, workers, connections_max, sequence, "edge listens");

    let tasks = Tasks::default();
    let control = Arc::new(Control {
        routes: Arc::clone(&routes),
        snapshot,
        listen: address.to_string(),
        stage,
        applying: tokio::sync::Mutex::default(),
    });
    let limit = tokio::select! {
        () = shutdown => DRAIN_TIME_DEFAULT,
        limit = draining(&mut stages) => limit,
        () = control::serve(Arc::clone(&control), orders, &tasks) => Duration::ZERO,
        () = sweep(&routes) => Duration::ZERO,
    };
    routes.closing.store(true, Ordering::SeqCst);
    control.stage.send_replace(Stage::Draining(limit));
    tracing::info!(limit_s = limit.as_secs(), "edge drains");
    let ended =
        tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok())).await;
    if !ended.unwrap_or(false) {
        tracing::error!("a worker ended badly");
    }
    tasks.stop(CONTROL_END_LIMIT).await;
    // Left behind, it would look like an edge that does not answer. Gone already is fine.
    let _ = std::fs::remove_file(&config.control_socket);
    Ok(())
}

async fn sweep(routes: &Routes) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        routes.sweep();
    }
}
