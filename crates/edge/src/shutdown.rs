//! How the edge ends: it stops accepting, says so on its answers, closes idle connections, lets open requests finish
//! up to a limit, and leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::limits::{CLOSE_NOTICE, ELDER_LIFE_MAX, ELDER_NOTICE};

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Accept nothing yet: another edge still does, on the same socket.
    Waiting,
    /// Go on.
    Running,
    /// Accept no more, finish what is open, end. May be said again with other limits, which count from then.
    Draining(Drain),
}

/// How long a drain may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// How long answers ask clients to go before idle connections are closed.
    pub(crate) notice: Duration,
    /// How long open requests may go on.
    pub(crate) limit: Duration,
}

impl Drain {
    /// That of an edge which is replaced.
    pub(crate) const ELDER: Drain = Drain { notice: ELDER_NOTICE, limit: ELDER_LIFE_MAX };

    /// That of an edge which ends.
    pub(crate) fn within(limit: Duration) -> Self {
        Self { notice: CLOSE_NOTICE.min(limit), limit }
    }
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

/// Waits until work may start. A sender that is gone means that it never does; [`draining`] tells it then.
pub(crate) async fn started(stage: &mut watch::Receiver<Stage>) {
    let _ = stage.wait_for(|stage| *stage != Stage::Waiting).await;
}

/// Waits until draining starts. A sender that is gone means: at once.
pub(crate) async fn draining(stage: &mut watch::Receiver<Stage>) -> Drain {
    match stage.wait_for(|stage| matches!(stage, Stage::Draining(_))).await.as_deref() {
        Ok(Stage::Draining(drain)) => *drain,
        _ => Drain::within(Duration::ZERO),
    }
}
