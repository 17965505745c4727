//! One worker per service: first the unfinished deployments, then the live release. Nothing of a service ever happens
//! twice at once, because only its worker acts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use trackbed_core::service::Wanted;
use trackbed_core::{InstanceId, ServiceId};

use crate::control::{Control, ControlError};
use crate::supervise::Queue;

/// How often a worker looks after its service without being woken. The end of an instance wakes it at once.
const TICK: Duration = Duration::from_secs(5);
/// How often it looks while something is not as it should be: a restart that waits, an instance that is not healthy.
const TICK_UNSETTLED: Duration = Duration::from_millis(250);
/// Pause after a pass that failed for a reason of our own (disk, database), so that it is not tried in a hot loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(2);

/// How a pass left a service.
#[derive(Debug)]
pub(crate) enum Settled {
    /// It serves, by this instance.
    Yes(InstanceId),
    /// There is nothing to look after.
    Idle,
    /// It is a job that runs again after this time at the latest.
    Due(Duration),
    /// Something is under way.
    No,
}

/// Forgets the waker of a worker that has ended, however it ended.
struct Gone {
    control: Control,
    service: ServiceId,
}

impl Drop for Gone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(service = %self.service, "the worker of a service ended by a bug; the sweeper starts it again");
        }
        self.control.forget_waker(&self.service);
    }
}

impl Control {
    pub(crate) fn spawn_worker(&self, service: ServiceId, wake: Arc<Notify>) {
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn(format!("worker {service}"), async move {
            // A worker that panics is started again by the next wish for its service.
            let _gone = Gone { control: control.clone(), service: service.clone() };
            loop {
                // Dropping a pass in the middle is safe: it is what a crash does, and every pass starts from the store.
                let pass = tokio::select! {
                    biased;
                    () = shutdown.wait() => return,
                    pass = control.pass(&service) => pass,
                };
                let pause = match pass {
                    Ok(Settled::Yes(instance)) => {
                        tokio::select! {
                            () = shutdown.wait() => return,
                            () = wake.notified() => {}
                            () = control.inner.engine.wait(&instance) => {}
                            () = tokio::time::sleep(TICK) => {}
                        }
                        continue;
                    }
                    Ok(Settled::Idle) => TICK,
                    // The timer may be a hair early.
                    Ok(Settled::Due(wait)) => TICK.min(wait + Duration::from_millis(1)),
                    Ok(Settled::No) => TICK_UNSETTLED,
                    Err(error) => {
                        tracing::error!(%service, error = &error as &dyn std::error::Error, "a pass over the service failed");
                        PAUSE_AFTER_ERROR
                    }
                };
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = wake.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Brings one service to what is wanted of it, as far as that is possible now.
    pub(crate) async fn pass(&self, service: &ServiceId) -> Result<Settled, ControlError> {
        loop {
            let id = service.clone();
            let unfinished = self.inner.store.with(move |db| db.list_unfinished(&id)).await?;
            let Some(next) = unfinished.into_iter().next() else { break };
            Box::pin(self.drive(next)).await?;
        }
        self.supervise(service, Queue::Matters).await?;
        self.settled(service).await
    }

    /// Tells what there is to wait for until the next pass.
    async fn settled(&self, service: &ServiceId) -> Result<Settled, ControlError> {
        let id = service.clone();
        let service = self.inner.store.with(move |db| db.load_service(&id)).await?;
        let Some(live) = service.live else { return Ok(Settled::Idle) };
        if let (Wanted::Running, Some(job)) = (service.wanted, &live.job) {
            return Ok(match live.instance {
                Some(instance) => Settled::Yes(instance),
                None => Settled::Due(self.until_tick(job)),
            });
        }
        Ok(match (service.wanted, live.given_up, live.instance, live.port) {
            (Wanted::Running, None, Some(instance), Some(_)) => Settled::Yes(instance),
            (Wanted::Running, Some(_), _, _) | (Wanted::Stopped, _, None, _) => Settled::Idle,
            (Wanted::Running, None, _, _) | (Wanted::Stopped, _, Some(_), _) => Settled::No,
        })
    }
}
