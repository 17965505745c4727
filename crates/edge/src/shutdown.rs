//! How the edge ends: it stops accepting, says so on its answers, closes idle connections, lets open requests finish
//! up to a limit, and leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Go on.
    Running,
    /// Accept no more, finish what is open within the limit, end.
    Draining(Duration),
}

/// Tells one worker's connections to end after their current request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closing {
    notify: Arc<Notify>,
}

impl Closing {
    /// Tells every connection whose [`Closing::wait`] has been called.
    pub(crate) fn announce(&self) {
        self.notify.notify_waiters();
    }

    /// Returns a future that ends when the connections should.
    pub(crate) fn wait(self) -> impl Future<Output = ()> {
        self.notify.notified_owned()
    }
}

/// Waits until draining starts; returns its limit. A sender that is gone means: at once.
pub(crate) async fn draining(stage: &mut watch::Receiver<Stage>) -> Duration {
    match stage.wait_for(|stage| matches!(stage, Stage::Draining(_))).await.as_deref() {
        Ok(Stage::Draining(limit)) => *limit,
        _ => Duration::ZERO,
    }
}
