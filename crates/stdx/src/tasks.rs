//! The one place that spawns: every task has a name and an owner, hears of shutdown, and is waited for.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Tells a task that it should end.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Waits until shutdown is asked for. Cancel-safe.
    pub async fn wait(&mut self) {
        // An error means that the owner is gone, which is shutdown too.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }

    /// Returns whether shutdown has been asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }
}

type Named = (String, JoinHandle<()>);

/// Owns tasks. Cloning shares the ownership.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: Arc<watch::Sender<bool>>,
    running: Arc<Mutex<Vec<Named>>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { stop: Arc::new(watch::Sender::new(false)), running: Arc::default() }
    }
}

impl Tasks {
    /// Returns the signal that this owner gives its tasks.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.stop.subscribe())
    }

    /// Starts a task. It should end soon after [`Shutdown::wait`] returns.
    #[allow(clippy::disallowed_methods, reason = "this is the one home of spawn")]
    pub fn spawn(&self, name: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(work);
        let mut running = self.running.lock().expect("no holder of this lock panics");
        running.retain(|(_, handle)| !handle.is_finished());
        running.push((name.into(), handle));
    }

    /// Asks every task to end and waits for them, at most `limit`. Returns the names of those that had to be aborted.
    pub async fn stop(&self, limit: Duration) -> Vec<String> {
        self.stop.send_replace(true);
        let deadline = tokio::time::Instant::now() + limit;
        let tasks = std::mem::take(&mut *self.running.lock().expect("no holder of this lock panics"));
        let mut late = Vec::new();
        for (name, mut handle) in tasks {
            match tokio::time::timeout_at(deadline, &mut handle).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(task = name, %error, "task ended badly"),
                Err(_) => {
                    handle.abort();
                    late.push(name);
                }
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_the_good_and_names_the_late() {
        let tasks = Tasks::default();
        let mut shutdown = tasks.shutdown();
        tasks.spawn("good", async move { shutdown.wait().await });
        tasks.spawn("late", std::future::pending());
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, ["late"]);
    }
}
