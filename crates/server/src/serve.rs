//! The process `trackbed serve`: takes the data directory, opens every part, answers until it is told to end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use trackbed_build::LocalBuilder;
use trackbed_control::{AbortPoint, Config, Control, Parts};
use trackbed_core::instance::{InstanceKind, InstanceState};
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::Engine;
use trackbed_core::{Host, Network, Timestamp};
use trackbed_docker::Docker;
use trackbed_edge::EdgeClient;
use trackbed_offsite::Mirror;
use trackbed_sandbox::Sandbox;
use trackbed_site::Sites;
use trackbed_stdx::tasks::Tasks;
use trackbed_stdx::{clock, files, paths};
use trackbed_store::{Key, Store};
use trackbed_volume::LocalVolumes;

use crate::api::{self, Api};
use crate::edge_keeper::{self, EdgePlace};
use crate::engines::Engines;
use crate::git::GitDoor;
use crate::git::hooks::Hooks;
use crate::remote_drill::FromTarget;

/// How long the workers may take to reach a safe point when `serve` ends. They need none: it is only politeness.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Time between looks at network rules and strays.
const KERNEL_STATE_INTERVAL: Duration = Duration::from_secs(60);
/// How long to wait for an earlier `serve` that is just ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long open requests may finish when the whole box stops.
const EDGE_DRAIN: Duration = Duration::from_secs(5);
/// Time between SIGTERM and SIGKILL for instances when the whole box stops.
const INSTANCE_GRACE: Duration = Duration::from_secs(10);

/// What `serve` is started with.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Everything the box keeps is below it.
    pub data_dir: PathBuf,
    /// Where the edge listens; port 0 takes a free one.
    pub listen: String,
    /// Services answer at `<service>.<domain>`.
    pub domain: String,
    /// Proxies in front of the box, as addresses or ranges: what they say about their clients is believed.
    pub trusted_proxies: Vec<String>,
    /// Forces an isolation level; none means the best that works here.
    pub isolation: Option<String>,
    /// The systemd unit that runs the edge; none means that `serve` starts it.
    pub edge_unit: Option<String>,
    /// Where pushes of git are taken; none means on loopback, as soon as somebody may push.
    pub git_listen: Option<String>,
    /// How many builds may run at once.
    pub builds: usize,
    /// Most memory of one build, in bytes; none is the builds' share of the box.
    pub build_memory_bytes: Option<u64>,
    /// The environment of the process, from which the builder takes what it knows by name (certificates, proxies).
    pub environment: Vec<(String, String)>,
    /// For tests of crash safety, see [`AbortPoint`]: `before:start`.
    pub abort_at: Option<String>,
}

/// Runs the control plane until SIGTERM, SIGINT or an order through the API. Instances and the edge go on, except when
/// the order says otherwise.
///
/// # Errors
/// When the data directory is in use, from a newer version, or cannot be used; when the edge's port is taken.
pub async fn serve(config: ServeConfig) -> anyhow::Result<()> {
    let listen: SocketAddr = config.listen.parse().with_context(|| {
        format!("`{}` is not an address to listen on, such as 127.0.0.1:8080", config.listen)
    })?;
    let git_listen = config.git_listen.as_deref().map(str::parse::<SocketAddr>).transpose();
    let git_listen = git_listen.context("the address for pushes is not one, such as 127.0.0.1:8079")?;
    let domain: Host = config.domain.parse()?;
    let trusted_proxies =
        config.trusted_proxies.iter().map(|text| text.parse()).collect::<Result<Vec<Network>, _>>()?;
    let level = config.isolation.as_deref().map(str::parse::<IsolationLevel>).transpose()?;
    let abort_at =
        config.abort_at.as_deref().map(str::parse::<AbortPoint>).transpose().map_err(anyhow::Error::msg)?;

    let data_dir = prepare(&config.data_dir)?;
    let lock = lock(&data_dir)?;
    let run_dir = paths::ensure_run_dir(&data_dir).context("cannot make the folder for sockets")?;
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let store = Store::open(&data_dir.join("state.db"), Key::open(&data_dir.join("key"))?)?;

    let sandbox = Sandbox::open(trackbed_sandbox::Config {
        data_dir: data_dir.clone(),
        run_dir: run_dir.clone(),
        binary: binary.clone(),
        level,
    })?;
    let sandbox = Arc::new(sandbox);
    let tasks = Tasks::default();
    let docker = Docker::open(
        trackbed_docker::Config {
            data_dir: data_dir.clone(),
            run_dir: run_dir.clone(),
            binary: binary.clone(),
            environment: config.environment.clone(),
        },
        tasks.clone(),
    )?;
    let engines = Arc::new(Engines { sandbox: sandbox.as_ref().clone(), docker: docker.clone() });
    let builder = LocalBuilder::new(trackbed_build::Config {
        data_dir: data_dir.clone(),
        jobs: sandbox.clone(),
        images: Arc::new(docker),
        environment: config.environment.clone(),
        builds: config.builds,
        memory_bytes: config.build_memory_bytes,
    });

    let environment = config.environment;

    let edge_place = EdgePlace {
        binary,
        data_dir: data_dir.clone(),
        socket: run_dir.join("edge.sock"),
        listen: listen.to_string(),
        unit: config.edge_unit,
    };
    let edge = Arc::new(EdgeClient::new(edge_place.socket.clone()));
    let edge_stats = match edge_keeper::ensure(&edge_place, &edge).await {
        Ok(stats) => stats,
        Err(error) => {
            // What was made to find the isolation level must not stay behind a `serve` that never was.
            engines.dismantle().await;
            return Err(error);
        }
    };
    let edge_address: SocketAddr =
        edge_stats.listen.parse().context("the edge listens on an address that is none")?;
    if listen.port() != 0 && edge_address != listen {
        tracing::warn!(
            "the running edge listens on {edge_address}, not on {listen}; `trackbed down --all` ends it"
        );
    }

    // Jobs of an earlier `serve` are ended first: only then is what they were building nobody's.
    engines.reconcile().await?;
    builder.sweep().await?;
    let sites = Sites::open(&data_dir, engines.clone()).context("cannot read the records of static sites")?;
    let engine: Arc<dyn Engine> = Arc::new(sites);
    let volumes = Arc::new(LocalVolumes::new(&data_dir));
    let control = Control::new(
        Parts {
            store,
            builder: Arc::new(builder),
            engine: engine.clone(),
            edge: edge.clone(),
            volumes: volumes.clone(),
            clock: now,
            config: Config {
                data_dir: data_dir.clone(),
                domain: domain.clone(),
                public_port: edge_address.port(),
                trusted_proxies,
                builds_at_once: config.builds,
                abort_at,
            },
        },
        tasks.clone(),
    );
    control.start().await?;
    control.keep_offsite(
        Arc::new(Mirror::new(&data_dir, trackbed_offsite::Limits::default())),
        Arc::new(FromTarget { data_dir: data_dir.clone() }),
    );
    let hooks = Hooks::new(control.clone(), data_dir.clone(), environment, tasks.clone());
    let git = GitDoor::new(
        control.clone(),
        hooks.clone(),
        data_dir.clone(),
        domain.clone(),
        git_listen,
        tasks.clone(),
    );
    git.open_if_wanted().await;
    edge_keeper::keep(&tasks, edge_place, edge.clone(), control.clone());
    keep_kernel_state(&tasks, engines.clone());

    let socket = paths::api_socket(&data_dir);
    let _ = std::fs::remove_file(&socket);
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let (stop, mut stops) = mpsc::channel(1);
    let stopping = control.clone();
    let api = Api {
        control,
        engine: engine.clone(),
        edge: edge.clone(),
        volumes,
        git,
        hooks: hooks.clone(),
        data_dir: data_dir.clone(),
        domain,
        stop,
    };
    // The API answers until the very end, so that whoever asked the box to stop sees when it has.
    let api_tasks = Tasks::default();
    api::serve(&api_tasks, api, listener);
    // When the API answers: what is fetched is handed over through it.
    hooks.go_on().await;
    trackbed_stdx::notify::ready();
    tracing::info!(data_dir = %data_dir.display(), edge = %edge_address, isolation = sandbox.isolation().level.as_str(), "trackbed serves");

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop_instances = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        order = stops.recv() => order,
    };
    let late = tasks.stop(STOP_LIMIT).await;
    if !late.is_empty() {
        tracing::info!(
            tasks = late.join(", "),
            "ended in the middle; the next serve goes on from the stored state"
        );
    }
    match stop_instances {
        None => tracing::info!("serve ends; instances and the edge go on"),
        Some(instances) => {
            if instances && let Err(error) = stopping.set_instances_aside().await {
                tracing::warn!(%error, "services may count this stop as a crash");
            }
            stop_box(&edge, engine.as_ref(), instances).await;
            if instances {
                engines.dismantle().await;
            }
        }
    }
    // Before the lock: a new `serve` makes a socket of its own under the same name.
    let _ = std::fs::remove_file(&socket);
    drop(lock);
    api_tasks.stop(STOP_LIMIT).await;
    Ok(())
}

/// Firewall tools of others flush rules, and a killed shim or keeper may leave something: looks again from time to time.
fn keep_kernel_state(tasks: &Tasks, engines: Arc<Engines>) {
    let mut shutdown = tasks.shutdown();
    tasks.spawn("kernel state keeper", async move {
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(KERNEL_STATE_INTERVAL) => {}
            }
            if let Err(error) = engines.reconcile().await {
                tracing::warn!(%error, "network rules or strays could not be looked after");
            }
        }
    });
}

fn now() -> Timestamp {
    Timestamp(clock::now_ms())
}

fn prepare(data_dir: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
    // One that was there before may be open to others; what is in it is not for them.
    let mode = std::fs::metadata(data_dir).map(|metadata| metadata.permissions().mode() & 0o777);
    if mode.is_ok_and(|mode| mode & 0o066 != 0) {
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot make {} private", data_dir.display()))?;
    }
    // Private each, because levels without mounts let apps pass through the data directory.
    for name in ["sources", "tmp", "deployments", "offsite", "git"] {
        let folder = data_dir.join(name);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let database = data_dir.join("state.db");
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&database)
        .with_context(|| format!("cannot open {}", database.display()))?;
    data_dir.canonicalize().with_context(|| format!("cannot use the data directory {}", data_dir.display()))
}

fn lock(data_dir: &Path) -> anyhow::Result<impl Drop + use<>> {
    let path = data_dir.join("lock");
    // One that is just ending may hold it a moment longer than its socket.
    let deadline = std::time::Instant::now() + LOCK_PATIENCE;
    let held = loop {
        let held = files::try_lock(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if held.is_some() || std::time::Instant::now() >= deadline {
            break held;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let Some(mut held) = held else {
        let holder = std::fs::read_to_string(&path).unwrap_or_default();
        bail!(
            "another `trackbed serve` (process {}) already runs on {}; use it, or name another --data-dir",
            holder.trim(),
            data_dir.display()
        );
    };
    use std::io::Write;
    held.set_len(0)?;
    writeln!(held, "{}", std::process::id())?;
    Ok(held)
}

/// Ends the edge, and the instances when that is wanted. They come back with the next `serve`.
async fn stop_box(edge: &EdgeClient, engine: &dyn Engine, instances: bool) {
    if let Err(error) = edge.shutdown(EDGE_DRAIN).await {
        tracing::warn!(%error, "the edge could not be told to end");
    }
    let deadline = tokio::time::Instant::now() + EDGE_DRAIN + Duration::from_secs(1);
    use trackbed_core::ports::Edge;
    while edge.stats().await.is_ok() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if !instances {
        return;
    }
    let running = engine.list().await.unwrap_or_default().into_iter().filter(|instance| {
        !matches!(instance.state, InstanceState::Ended { .. }) || instance.kind == InstanceKind::Job
    });
    let stops =
        running.map(|instance| async move { (engine.stop(&instance.id, INSTANCE_GRACE).await, instance.id) });
    for (stopped, id) in futures_util::future::join_all(stops).await {
        if let Err(error) = stopped {
            tracing::error!(instance = %id, %error, "could not be stopped");
        }
    }
}
