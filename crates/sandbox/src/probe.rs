//! Finds the isolation that this box gives by running a real instance at each level, best first.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use trackbed_core::image::{Image, Layer};
use trackbed_core::instance::{AppTree, Exit, InstanceKind, InstanceSpec};
use trackbed_core::isolation::{Isolation, IsolationLevel};
use trackbed_core::ports::PortError;
use trackbed_core::process::Formation;
use trackbed_core::settings::Limits;
use trackbed_core::{Digest, InstanceId, ServiceId, Timestamp};
use trackbed_stdx::{files, random};

use crate::cgroup::{Cgroup, PROCESS_LIMIT};
use crate::network::Network;
use crate::process;
use crate::sandbox::{Config, Sandbox, tag};

const LEVELS: [IsolationLevel; 4] =
    [IsolationLevel::Full, IsolationLevel::Userns, IsolationLevel::Landlock, IsolationLevel::Plain];
/// Longest path of a socket: `sun_path` less the closing zero.
const SOCKET_PATH_LIMIT_BYTES: usize = 107;

pub(crate) fn open(mut config: Config) -> Result<Sandbox, PortError> {
    make(&config.data_dir.join("instances"), 0o711)?;
    make(&config.run_dir, 0o700)?;
    for path in [&mut config.data_dir, &mut config.run_dir] {
        // Shims work elsewhere than we do.
        *path = fs::canonicalize(&*path)
            .map_err(|error| PortError::new(format!("cannot resolve {}: {error}", path.display())))?;
    }
    let longest = config.run_dir.as_os_str().len() + "/ins_0123456789abcdef.sock".len();
    if longest > SOCKET_PATH_LIMIT_BYTES {
        let message = format!("the run directory {} is too long for sockets", config.run_dir.display());
        return Err(PortError::new(message).hint("choose one of at most 80 characters"));
    }
    let tag = tag(&config.data_dir);
    let (cgroup, mut missing) = Cgroup::ensure_root(&format!("trackbed-{tag}"));
    let root = nix::unistd::geteuid().is_root();
    let wants_full = config.level.is_none_or(|level| level == IsolationLevel::Full);
    let network = match (root && wants_full).then(|| Network::ensure(&tag)) {
        None => None,
        Some(Ok((network, notes))) => {
            missing.extend(notes);
            Some(network)
        }
        Some(Err(error)) => {
            missing.push(format!("own network: {error}; apps share the network of the box"));
            None
        }
    };
    let isolation = Isolation { level: IsolationLevel::Plain, missing };
    let mut sandbox = Sandbox::assemble(config, isolation, cgroup, network);
    let (level, notes) = find_level(&sandbox)?;
    let inner = std::sync::Arc::get_mut(&mut sandbox.inner).expect("nobody has a clone yet");
    inner.isolation.level = level;
    inner.isolation.missing.extend(notes);
    if process::are_counted_within(level) {
        inner.isolation.missing.retain(|what| !what.starts_with(PROCESS_LIMIT));
    }
    if level != IsolationLevel::Full
        && let Some(network) = inner.network.take()
    {
        network.give_up();
    }
    Ok(sandbox)
}

fn make(path: &Path, mode: u32) -> Result<(), PortError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| PortError::new(format!("cannot make {}: {error}", path.display())))
}

fn find_level(sandbox: &Sandbox) -> Result<(IsolationLevel, Vec<String>), PortError> {
    let forced = sandbox.inner.config.level;
    let mut missing = Vec::new();
    for level in LEVELS {
        if forced.is_some_and(|forced| level < forced) {
            missing.push(format!("{}: a lower level was asked for", level.as_str()));
            continue;
        }
        let root = nix::unistd::geteuid().is_root();
        let tried = if level == IsolationLevel::Full && !root {
            Err("the box does not run as root".to_owned())
        } else {
            // Without mounts, apps of other users reach their files by the paths of the box.
            let passable = match root && level > IsolationLevel::Userns {
                true => let_through(&sandbox.inner.config.data_dir),
                false => Ok(()),
            };
            passable.and_then(|()| try_level(sandbox, level))
        };
        match tried {
            Ok(notes) => {
                missing.extend(notes);
                match level {
                    IsolationLevel::Full => {}
                    IsolationLevel::Userns => missing.push("own network: apps share the network of the box".to_owned()),
                    IsolationLevel::Landlock | IsolationLevel::Plain => missing.push(
                        "own file tree, own processes, own network: no namespaces here, so nothing is built, and volumes are only below /app"
                            .to_owned(),
                    ),
                }
                return Ok((level, missing));
            }
            Err(why) if forced.is_some() => {
                let message =
                    format!("isolation level `{}` does not work on this box: {why}", level.as_str());
                return Err(PortError::new(message).hint("leave the level open to get the best that works"));
            }
            Err(why) => missing.push(format!("{}: {why}", level.as_str())),
        }
    }
    Err(PortError::new(format!("no instance can be run on this box: {}", missing.join("; "))))
}

/// Lets every user pass through a folder, not look into it.
fn let_through(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let changed = fs::metadata(folder).and_then(|metadata| {
        let mode = metadata.permissions().mode();
        fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o011))
    });
    changed.map_err(|error| format!("cannot let apps pass through {}: {error}", folder.display()))
}

/// Runs one instance with two layers and a volume-less top, and forgets it. Returns what it had to do without.
fn try_level(sandbox: &Sandbox, level: IsolationLevel) -> Result<Vec<String>, String> {
    let inner = &sandbox.inner;
    let id = InstanceId::from_random(random::bytes());
    let folder = inner.folder(&id);
    let mut layers = Vec::new();
    for name in ["layer-1", "layer-2"] {
        let path = folder.path(name);
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        layers.push(Layer {
            digest: Digest::from_bytes([0; 32]),
            path: path.display().to_string(),
            size_bytes: 0,
        });
    }
    let image = Image {
        digest: Digest::from_bytes([0; 32]),
        provider: "probe".to_owned(),
        layers,
        host_paths: Vec::new(),
        env: Vec::new(),
        site: None,
        built_at: Timestamp(0),
        container: None,
    };
    let spec = InstanceSpec {
        id: id.clone(),
        // A service, so that the network is tried too.
        kind: InstanceKind::Service,
        service: ServiceId::from_random(random::bytes()),
        service_number: 0,
        title: "probe".to_owned(),
        command: "echo ok > probe && exit 42".to_owned(),
        formation: Formation::default(),
        app: AppTree::Image { image: Box::new(image) },
        volumes: Vec::new(),
        binds: Vec::new(),
        env: Vec::new(),
        limits: Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(1000), pids: Some(16) },
        port: None,
        offline: false,
        links: Vec::new(),
    };
    let launched = inner.launch(&spec, level).or_else(|error| inner.give_up(&id, error));
    let result = launched.map_err(|error| error.message).and_then(|()| {
        if let Some((_, shim)) = folder.living_shim() {
            shim.wait_gone(std::time::Duration::from_secs(10));
        }
        match folder.find_end().map(|end| end.exit) {
            Some(Exit::Code { code: 42 }) => {
                Ok(folder.find_state().map(|state| state.notes).unwrap_or_default())
            }
            Some(exit) => Err(format!("a probe {exit}")),
            None => Err("a probe vanished".to_owned()),
        }
    });
    let _ = inner.kill(&id);
    let _ = files::remove_tree(folder.root());
    result
}
