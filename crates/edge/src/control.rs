//! The control socket: takes orders of the control plane, which must run as the same user or as root. Closing it
//! changes nothing: the table stays until another one comes.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OnceCell, Semaphore, watch};
use trackbed_core::InstanceId;
use trackbed_core::route::{EdgeStats, RouteTable};
use trackbed_stdx::program;
use trackbed_stdx::tasks::Tasks;

use crate::elders::Elders;
use crate::error::EdgeError;
use crate::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_LINE_BYTES_MAX};
use crate::shutdown::{Drain, Stage};
use crate::snapshot::Snapshot;
use crate::table::Routes;
use crate::takeover::Place;
use crate::wire::{Op, Outcome, PROTOCOL, Reply, Request, line};

/// What orders act on.
pub(crate) struct Control {
    pub(crate) routes: Arc<Routes>,
    pub(crate) snapshot: Snapshot,
    pub(crate) listen: String,
    pub(crate) stage: watch::Sender<Stage>,
    /// Held while a table is kept and put in force, so that file and memory change in the same order, and while the
    /// place is given to a successor.
    pub(crate) place: tokio::sync::Mutex<Place>,
    /// Where sockets are.
    pub(crate) folder: PathBuf,
    /// Who speaks for the box also speaks for these.
    pub(crate) elders: Elders,
    /// The socket of an edge that has just been replaced, until its accepting begins.
    pub(crate) elder_orders: Mutex<Option<UnixListener>>,
    /// Set when a successor has taken the place.
    pub(crate) replaced: AtomicBool,
    /// The digest of this program, once somebody has asked for it.
    pub(crate) build: OnceCell<String>,
}

/// Through which socket an order came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The control socket: its orders are for the box, so for every edge that still has requests.
    Face,
    /// The socket of a replaced edge: its orders come from the one that has replaced it.
    Elder,
}

/// A line's buffer that is not given back, in bytes: most tables fit.
const LINE_BYTES_KEPT: usize = 64 * 1024;

/// Binds the socket under a name of its own, closes it to others, and only then gives it its name, in place of one that
/// an earlier edge left.
///
/// # Errors
/// When the folder is missing or the disk refuses.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, EdgeError> {
    let made = (|| {
        // A short name: a path of a socket has at most 107 bytes (unix(7)).
        let name = format!(".{:x}", u32::from_le_bytes(trackbed_stdx::random::bytes()));
        let beside = path.with_file_name(name);
        let listener = UnixListener::bind(&beside)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&beside, path)?;
        Ok(listener)
    })();
    made.map_err(|error| EdgeError::state(path, error))
}

/// Takes orders for ever. Cancel-safe: what has been accepted is answered.
pub(crate) async fn serve(control: &Arc<Control>, listener: &UnixListener, door: Door, tasks: &Tasks) {
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
        let control = Arc::clone(control);
        let mut shutdown = tasks.shutdown();
        tasks.spawn("edge control connection", async move {
            let _permit = permit;
            tokio::select! {
                ended = control.converse(Talk::new(stream), door) => {
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

/// One conversation: lines and replies.
pub(crate) struct Talk {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    line: Vec<u8>,
}

impl Talk {
    fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer, line: Vec::new() }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        self.writer.as_ref()
    }

    /// The last line.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Reads the next line, or as much of it as is allowed. Returns false at the end.
    pub(crate) async fn next(&mut self) -> io::Result<bool> {
        if self.line.capacity() > LINE_BYTES_KEPT {
            // A big table comes seldom; its buffer need not stay.
            self.line = Vec::new();
        }
        self.line.clear();
        let limit = CONTROL_LINE_BYTES_MAX as u64;
        Ok((&mut self.reader).take(limit).read_until(b'\n', &mut self.line).await? > 0)
    }

    pub(crate) async fn reply(&mut self, outcome: Outcome) -> io::Result<()> {
        let mut reply = serde_json::to_vec(&Reply { v: PROTOCOL, outcome })?;
        reply.push(b'\n');
        self.writer.write_all(&reply).await
    }
}

impl Control {
    async fn converse(&self, mut talk: Talk, door: Door) -> io::Result<()> {
        while talk.next().await? {
            let request = match serde_json::from_slice::<Request>(talk.line()) {
                _ if !talk.line().ends_with(b"\n") => {
                    let message = format!("a message is at most {CONTROL_LINE_BYTES_MAX} bytes");
                    return talk.reply(Outcome::Failed { message }).await;
                }
                Ok(request) if request.v == PROTOCOL => Ok(request.op),
                Ok(request) => Err(format!("this edge speaks protocol {PROTOCOL}, not {}", request.v)),
                Err(error) => Err(format!("not understood: {error}")),
            };
            let outcome = match request {
                Ok(Op::TakeOver) if door == Door::Face => {
                    self.hand_over(&mut talk).await?;
                    continue;
                }
                Ok(op) => self.obey(op, door).await,
                Err(message) => Outcome::Failed { message },
            };
            if door == Door::Face && self.replaced.load(Ordering::SeqCst) {
                // Who asks again reaches the successor, which speaks for this edge too.
                return Ok(());
            }
            talk.reply(outcome).await?;
        }
        Ok(())
    }

    /// Obeys, and sees to it that every elder does.
    async fn obey(&self, op: Op, door: Door) -> Outcome {
        let for_elders = door == Door::Face && op.is_for_elders() && !self.elders.is_empty();
        let order = if for_elders { line(op.clone()) } else { Ok(Vec::new()) };
        let outcome = match op {
            Op::Stats => self.stats(door).await,
            Op::Who => self.stats(Door::Elder).await,
            op => self.obey_alone(op, door).await,
        };
        if !for_elders || matches!(outcome, Outcome::Failed { .. }) {
            return outcome;
        }
        let told = match order {
            Ok(order) => self.elders.tell(&order).await,
            Err(error) => Err(error.to_string()),
        };
        told.map_or_else(|message| Outcome::Failed { message }, |_| outcome)
    }

    async fn obey_alone(&self, op: Op, door: Door) -> Outcome {
        match op {
            Op::Apply { table } => match self.apply(table, door).await {
                Ok(sequence) => Outcome::Applied { sequence },
                Err(error) => Outcome::Failed { message: format!("cannot keep the table: {error}") },
            },
            Op::Stats | Op::Who => self.stats(door).await,
            Op::Cut { instance } => self.cut(&instance),
            Op::EndStreams { instance, over_ms } => {
                crate::worker::spawn(self.routes.end_streams(&instance, Duration::from_millis(over_ms)));
                Outcome::Done
            }
            Op::Shutdown { drain_ms } => {
                self.shut_down(Duration::from_millis(drain_ms));
                Outcome::Done
            }
            Op::TakeOver | Op::Ready => Outcome::Failed { message: "nobody is taking over here".into() },
        }
    }

    /// Starts to end this edge.
    pub(crate) fn shut_down(&self, limit: Duration) {
        self.routes.closing.store(true, Ordering::SeqCst);
        self.stage.send_replace(Stage::Draining(Drain::within(limit)));
    }

    /// Keeps a table and puts it in force, in this order: what a restart brings back is never older than what was acked.
    /// A replaced edge keeps none: the file is its successor's.
    async fn apply(&self, table: RouteTable, door: Door) -> io::Result<u64> {
        let place = self.place.lock().await;
        let in_force = self.routes.sequence();
        if table.sequence < in_force {
            tracing::warn!(sent = table.sequence, in_force, "an older table was ignored");
            return Ok(in_force);
        }
        match (&*place, door) {
            (Place::Face(_) | Place::Ending { .. }, Door::Face | Door::Elder) => {}
            (Place::Elder, Door::Elder) => return Ok(self.routes.apply(&table)),
            // It came while the place was given away; the reply is never sent.
            (Place::Elder, Door::Face) => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        let snapshot = self.snapshot.clone();
        let table = tokio::task::spawn_blocking(move || snapshot.store_routes(&table).map(|()| table))
            .await
            .map_err(io::Error::other)??;
        Ok(self.routes.apply(&table))
    }

    async fn stats(&self, door: Door) -> Outcome {
        let services = self.routes.service_stats();
        let mut answers = services.answers;
        let mut stats = EdgeStats {
            listen: self.listen.clone(),
            pid: std::process::id(),
            sequence: self.routes.sequence(),
            targets: self.routes.target_stats(),
            parked: services.parked,
            notices: services.notices,
            version: env!("CARGO_PKG_VERSION").into(),
            build: self.build().await,
            draining: 0,
        };
        if door == Door::Face
            && let Err(message) = self.elders.add_stats(&mut stats, &mut answers).await
        {
            return Outcome::Failed { message };
        }
        Outcome::Stats { stats, answers }
    }

    async fn build(&self) -> String {
        let digest = || async {
            let read = || program::digest(Path::new(program::OWN)).unwrap_or_default();
            tokio::task::spawn_blocking(read).await.unwrap_or_default()
        };
        self.build.get_or_init(digest).await.clone()
    }

    fn cut(&self, instance: &InstanceId) -> Outcome {
        self.routes.cut(instance);
        Outcome::Done
    }
}
