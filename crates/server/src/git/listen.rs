//! The listener: a bounded number of connections, each for one request, each with a limit for its head.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::GitDoor;
use super::request;

/// Connections at once. A push has one; strangers must not take the descriptors that the box needs.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to say what it wants.
const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// How long to wait when the kernel has no descriptor to give.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Answers on the listener until the owner of the door's tasks asks them to end.
pub(super) fn serve(door: &GitDoor, listener: TcpListener) {
    let (tasks, mut shutdown) = (door.inner.tasks.clone(), door.inner.tasks.shutdown());
    let router = Router::new().fallback(request::answer).with_state(door.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    door.inner.tasks.spawn("git listener", async move {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = shutdown.wait() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a push");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                    continue;
                }
            };
            let answering = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
            let mut shutdown = tasks.shutdown();
            tasks.spawn("git connection", async move {
                tokio::select! {
                    // Why a connection ended is its client's to know.
                    _ = answering => {}
                    () = shutdown.wait() => {}
                }
                drop(place);
            });
        }
    });
}
