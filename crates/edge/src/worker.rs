//! A worker: one thread, one runtime, one copy of the listening socket, its own idle upstream connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::connection;
use crate::limits::{ACCEPT_PAUSE, DISK_THREADS_MAX, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL};
use crate::proxy::Client;
use crate::shutdown::{Closing, Drain, Stage, draining, started};
use crate::table::Routes;

/// What a worker is made of.
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) routes: Arc<Routes>,
    /// Client connections at once.
    pub(crate) connections_max: usize,
    pub(crate) stage: watch::Receiver<Stage>,
}

/// Starts a task on the runtime of the calling worker.
#[allow(
    clippy::disallowed_methods,
    reason = "connections and tunnels hold a permit of the worker's semaphore, which shutdown collects again"
)]
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

/// A client that vanished without a word must not hold a quiet stream for ever: after a minute of silence the kernel
/// asks, and after four unanswered questions the connection is gone (tcp(7)).
fn keepalive() -> socket2::TcpKeepalive {
    socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(4)
}

impl Worker {
    /// Starts the thread. It ends after draining.
    ///
    /// # Errors
    /// When no thread or runtime can be made.
    pub(crate) fn start(self, listener: std::net::TcpListener) -> io::Result<std::thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(DISK_THREADS_MAX)
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        std::thread::Builder::new().name(format!("edge-{}", self.number)).spawn(move || {
            runtime.block_on(self.work(listener));
            runtime.shutdown_background();
        })
    }

    async fn work(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(self.connections_max));
        let closing = Closing::default();
        let mut stage = self.stage.clone();
        started(&mut stage).await;
        let drain = tokio::select! {
            // First, so that a worker which was never started accepts nothing.
            biased;
            drain = draining(&mut stage) => drain,
            () = self.accept(&listener, &permits, &closing) => Drain::within(Duration::ZERO),
        };
        // The other workers drop theirs now too: with the last one the kernel refuses, or a successor has a copy.
        drop(listener);
        self.drain(&permits, &closing, drain, stage).await;
    }

    async fn accept(&self, listener: &TcpListener, permits: &Arc<Semaphore>, closing: &Closing) {
        let client = Arc::new(Client { routes: Arc::clone(&self.routes), worker: self.number });
        loop {
            // At the limit new connections wait in the kernel's queue.
            let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Fails only for a client that has left already.
            let _ = stream.set_nodelay(true);
            let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive());
            let client = Arc::clone(&client);
            spawn(connection::serve(stream, peer.ip().to_canonical(), permit, client, closing.clone()));
        }
    }

    /// Answers say `Connection: close` for a while, so that clients go by themselves; then idle connections are closed
    /// and open requests have the rest of the limit.
    async fn drain(
        &self,
        permits: &Semaphore,
        closing: &Closing,
        mut drain: Drain,
        mut stage: watch::Receiver<Stage>,
    ) {
        let all = u32::try_from(self.connections_max).unwrap_or(u32::MAX);
        loop {
            let gone = async {
                let _ = tokio::time::timeout(drain.notice, permits.acquire_many(all)).await;
                closing.announce();
                let _ = permits.acquire_many(all).await;
            };
            tokio::select! {
                ended = tokio::time::timeout(drain.limit, gone) => {
                    if ended.is_err() {
                        let open = self.connections_max - permits.available_permits();
                        tracing::warn!(worker = self.number, open, "connections are cut at the drain limit");
                    }
                    return;
                }
                Ok(()) = stage.changed() => {
                    if let Stage::Draining(again) = *stage.borrow_and_update() {
                        drain = again;
                    }
                }
            }
        }
    }
}
