//! The control socket: takes orders of the control plane, which must run as the same user or as root. Closing it
//! changes nothing: the table stays until another one comes.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use trackbed_core::InstanceId;
use trackbed_core::route::{EdgeStats, RouteTable};
use trackbed_stdx::tasks::Tasks;

use crate::error::EdgeError;
use crate::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_LINE_BYTES_MAX};
use crate::shutdown::Stage;
use crate::snapshot::Snapshot;
use crate::table::Routes;
use crate::wire::{Op, Outcome, PROTOCOL, Reply, Request};

/// What orders act on.
pub(crate) struct Control {
    pub(crate) routes: Arc<Routes>,
    pub(crate) snapshot: Snapshot,
    pub(crate) listen: String,
    pub(crate) stage: watch::Sender<Stage>,
    /// Held while a table is kept and put in force, so that file and memory change in the same order.
    pub(crate) applying: tokio::sync::Mutex<()>,
}

/// Binds the socket under a name of its own, closes it to others, and only then gives it its name, in place of one that
/// an earlier edge left.
///
/// # Errors
/// When the folder is missing or the disk refuses.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, EdgeError> {
    let made = (|| {
        let beside = trackbed_stdx::files::temporary_beside(path)?;
        let listener = UnixListener::bind(&beside)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&beside, path)?;
        Ok(listener)
    })();
    made.map_err(|error| EdgeError::state(path, error))
}

/// Takes orders for ever.
pub(crate) async fn serve(control: Arc<Control>, listener: UnixListener, tasks: &Tasks) {
    let permits = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(crate::limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !is_trusted(&stream) {
            tracing::warn!("another user tried to use the control socket");
            continue;
        }
        let control = Arc::clone(&control);
        let mut shutdown = tasks.shutdown();
        tasks.spawn("edge control connection", async move {
            let _permit = permit;
            tokio::select! {
                ended = control.converse(stream) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "control connection ended");
                    }
                }
                () = shutdown.wait() => {}
            }
        });
    }
}

fn is_trusted(stream: &UnixStream) -> bool {
    let own = nix::unistd::Uid::effective().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

impl Control {
    async fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = CONTROL_LINE_BYTES_MAX as u64;
            let read = (&mut reader).take(limit).read_until(b'\n', &mut line).await?;
            if read == 0 {
                return Ok(());
            }
            let outcome = if line.ends_with(b"\n") {
                self.obey_line(&line).await
            } else {
                Outcome::Failed { message: format!("a message is at most {limit} bytes") }
            };
            let mut reply = serde_json::to_vec(&Reply { v: PROTOCOL, outcome })?;
            reply.push(b'\n');
            writer.write_all(&reply).await?;
            if !line.ends_with(b"\n") {
                return Ok(());
            }
            if line.capacity() > 64 * 1024 {
                // A big table comes seldom; its buffer need not stay.
                line = Vec::new();
            }
        }
    }

    async fn obey_line(&self, line: &[u8]) -> Outcome {
        match serde_json::from_slice::<Request>(line) {
            Ok(request) if request.v == PROTOCOL => self.obey(request.op).await,
            Ok(request) => Outcome::Failed {
                message: format!("this edge speaks protocol {PROTOCOL}, not {}", request.v),
            },
            Err(error) => Outcome::Failed { message: format!("not understood: {error}") },
        }
    }

    async fn obey(&self, op: Op) -> Outcome {
        match op {
            Op::Apply { table } => match self.apply(table).await {
                Ok(sequence) => Outcome::Applied { sequence },
                Err(error) => Outcome::Failed { message: format!("cannot keep the table: {error}") },
            },
            Op::Stats => self.stats(),
            Op::Cut { instance } => self.cut(&instance),
            Op::EndStreams { instance, over_ms } => {
                crate::worker::spawn(self.routes.end_streams(&instance, Duration::from_millis(over_ms)));
                Outcome::Done
            }
            Op::Shutdown { drain_ms } => {
                self.stage.send_replace(Stage::Draining(Duration::from_millis(drain_ms)));
                Outcome::Done
            }
        }
    }

    /// Keeps a table and puts it in force, in this order: what a restart brings back is never older than what was acked.
    async fn apply(&self, table: RouteTable) -> io::Result<u64> {
        let _applying = self.applying.lock().await;
        let in_force = self.routes.sequence();
        if table.sequence < in_force {
            tracing::warn!(sent = table.sequence, in_force, "an older table was ignored");
            return Ok(in_force);
        }
        let snapshot = self.snapshot.clone();
        let table = tokio::task::spawn_blocking(move || snapshot.store_routes(&table).map(|()| table))
            .await
            .map_err(io::Error::other)??;
        Ok(self.routes.apply(&table))
    }

    fn stats(&self) -> Outcome {
        let services = self.routes.service_stats();
        let stats = EdgeStats {
            listen: self.listen.clone(),
            pid: std::process::id(),
            sequence: self.routes.sequence(),
            targets: self.routes.target_stats(),
            parked: services.parked,
            notices: services.notices,
            version: env!("CARGO_PKG_VERSION").into(),
            draining: 0,
        };
        Outcome::Stats { stats, answers: services.answers }
    }

    fn cut(&self, instance: &InstanceId) -> Outcome {
        self.routes.cut(instance);
        Outcome::Done
    }
}
