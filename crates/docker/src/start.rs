//! A start: from a spec to an order on disk and a keeper that carries it out.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bollard::models::NetworkCreateRequest;
use tokio::io::AsyncReadExt;
use trackbed_core::instance::{AppTree, Exit, InstanceSpec};
use trackbed_core::ports::PortError;
use trackbed_core::{InstanceId, Timestamp};
use trackbed_sandbox::beside::{PROGRESS, service_uid};
use trackbed_stdx::clock::now_ms;

use crate::container::BOX_LABEL;
use crate::daemon::{self, Daemon, words};
use crate::engine::{Docker, START_LIMIT};
use crate::life::Life;
use crate::records::{Folder, Order};
use crate::supervise::is_root;

/// Time between two looks at a start of somebody else.
const LOOK: Duration = Duration::from_millis(5);

impl Docker {
    /// Starts an instance, or finds it started. Does nothing when `asked` shows that whoever asked is gone.
    pub(crate) async fn begin(&self, spec: &InstanceSpec, asked: &Weak<()>) -> Result<(), PortError> {
        let mine =
            if self.life(&spec.id).await.is_some() { None } else { self.claim_start(&spec.id, asked)? };
        match mine {
            None => self.await_start(&spec.id).await?,
            Some(_starting) => {
                if let Err(error) = self.launch(spec).await {
                    let folder = self.folder(&spec.id);
                    if folder.find_state().is_none() && folder.root().is_dir() {
                        let _ = folder.write_end(Exit::Setup { message: error.message.clone() });
                        if let Some(order) = folder.find_order() {
                            folder.clear_variables_at_end(&order);
                        }
                    }
                    return Err(error);
                }
            }
        }
        match self.life(&spec.id).await {
            Some(Life::Ended(end)) => match end.exit {
                Exit::Setup { message } => {
                    Err(PortError::new(format!("cannot start {} ({}): {message}", spec.title, spec.id)))
                }
                Exit::Code { .. } | Exit::Signal { .. } | Exit::Oom | Exit::Lost => Ok(()),
            },
            Some(Life::Living { .. } | Life::Beginning) | None => Ok(()),
        }
    }

    /// Somebody else starts it: waits for them.
    async fn await_start(&self, id: &InstanceId) -> Result<(), PortError> {
        let mut deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            let is_starting = self.is_starting(id);
            if is_starting {
                // The other one here knows when to give up.
                deadline = Instant::now() + START_LIMIT;
            }
            match self.life(id).await {
                Some(Life::Living { state: Some(state) }) if state.init.is_some() => return Ok(()),
                Some(Life::Ended(_)) => return Ok(()),
                None if !is_starting => return Err(crate::engine::unknown(id)),
                Some(Life::Living { .. } | Life::Beginning) | None => {}
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(PortError::new(format!("instance {id} did not start in time")))
    }

    /// Writes the order and starts its keeper. Returns when the container runs or has ended.
    async fn launch(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        let daemon = daemon::find(self.environment()).await?;
        let order = self.order(spec, &daemon)?;
        if let Some(network) = &order.network {
            self.ensure_network(&daemon, network).await?;
        }
        let folder = self.folder(&spec.id);
        let failed = |attempt: &str, error: &std::io::Error| {
            PortError::new(format!("cannot {attempt} for instance {} ({}): {error}", spec.id, spec.title))
        };
        let log = folder.path("log");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&log)
            .map_err(|error| failed(&format!("make {}", log.display()), &error))?;
        folder.write_order(&order).map_err(|error| failed("write the order", &error))?;
        self.spawn_keeper(&folder).await.map_err(|error| failed("start the keeper", &error))
    }

    /// Turns what the control plane wants into what a keeper does.
    fn order(&self, spec: &InstanceSpec, daemon: &Daemon) -> Result<Order, PortError> {
        let AppTree::Image { image } = &spec.app else {
            return Err(PortError::new(format!(
                "cannot start {}: a directory is no container image",
                spec.title
            )));
        };
        let Some(container) = &image.container else {
            return Err(PortError::new(format!(
                "cannot start {}: image {} is no container's",
                spec.title, image.digest
            )));
        };
        Ok(Order {
            id: spec.id.clone(),
            kind: spec.kind,
            service: spec.service.clone(),
            title: spec.title.clone(),
            command: spec.command.clone(),
            image: container.clone(),
            volumes: spec.volumes.clone(),
            binds: spec.binds.clone(),
            links: spec.links.clone(),
            env: spec.env.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect(),
            limits: spec.limits,
            sandbox_uid: service_uid(spec.service_number),
            port: spec.port,
            network: (!spec.offline).then(|| self.network_name()),
            published: !spec.offline && !is_root(),
            tag: self.tag().to_owned(),
            folder: self.folder(&spec.id).root().to_owned(),
            daemon: daemon.socket.clone(),
            socket: self.socket(&spec.id),
            started_at: Timestamp(now_ms()),
        })
    }

    /// Makes the network of this box, or finds it made: containers reach the world, never each other.
    pub(crate) async fn ensure_network(&self, daemon: &Daemon, name: &str) -> Result<(), PortError> {
        let _one_at_a_time = self.network_turn().await;
        match daemon.api.inspect_network(name, None).await {
            Ok(_) => return Ok(()),
            Err(error) if daemon::is_missing(&error) => {}
            Err(error) => {
                return Err(PortError::new(format!(
                    "{} does not show network {name}: {}",
                    daemon.title,
                    words(&error)
                )));
            }
        }
        let apart = ("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned());
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            // Podman knows no such option and keeps containers of one network together.
            options: (!daemon.is_podman()).then(|| [apart].into()),
            labels: Some([(BOX_LABEL.to_owned(), self.tag().to_owned())].into()),
            ..Default::default()
        };
        daemon.api.create_network(request).await.map(|_| ()).map_err(|error| {
            PortError::new(format!("{} makes no network {name}: {}", daemon.title, words(&error)))
        })
    }

    async fn spawn_keeper(&self, folder: &Folder) -> std::io::Result<()> {
        let errors =
            fs::OpenOptions::new().create(true).append(true).mode(0o600).open(folder.path("keeper.err"))?;
        let mut child = tokio::process::Command::new(self.binary())
            .arg("keeper")
            .arg(folder.root())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let ready = child.stdout.take();
        // It forks at once and this half ends.
        let status = child.wait().await?;
        if !status.success() {
            return Err(std::io::Error::other(format!(
                "`{} keeper` ended: {status}",
                self.binary().display()
            )));
        }
        let Some(mut ready) = ready else { return Ok(()) };
        loop {
            // A byte when the container runs, the end of the file when the keeper is gone; its record says why. Before
            // that, a sign now and then while it hands over a big volume.
            let mut byte = [0];
            match tokio::time::timeout(START_LIMIT, ready.read(&mut byte)).await {
                Ok(Ok(1)) if byte == [PROGRESS] => {}
                Ok(read) => return read.map(|_| ()),
                Err(_) => {
                    return Err(std::io::Error::other(format!(
                        "nothing ran within {} s",
                        START_LIMIT.as_secs()
                    )));
                }
            }
        }
    }
}

/// Returns what shows that its caller still waits, and the caller's half of it.
pub(crate) fn waiting() -> (Arc<()>, Weak<()>) {
    let wanted = Arc::new(());
    let asked = Arc::downgrade(&wanted);
    (wanted, asked)
}
