//! Removes what nothing refers to any more: strays of a crash, and old instances with their logs.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use trackbed_core::instance::{InstanceKind, InstanceState, InstanceStatus};
use trackbed_core::{InstanceId, ServiceId};

use crate::control::{Control, ControlError};

/// Ended instances whose logs and writable tops are kept, per service.
const ENDED_KEPT: usize = 5;
/// Time between sweeps.
const INTERVAL: Duration = Duration::from_secs(60);

/// What to think of jobs, which nothing in the state refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jobs {
    /// Whoever started them waits for them, and removes them.
    Run,
    /// They were started by an earlier control plane: nobody waits for them any more.
    AreOrphans,
}

impl Control {
    pub(crate) fn spawn_sweeper(&self) {
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn("sweeper", async move {
            loop {
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                if let Err(error) = control.sweep_strays(Jobs::Run).await {
                    tracing::warn!(%error, "sweeping failed");
                }
            }
        });
    }

    /// Stops running instances that no service and no unfinished deployment refers to, and forgets old ended ones.
    pub(crate) async fn sweep_strays(&self, jobs: Jobs) -> Result<(), ControlError> {
        // Listed before the references are read: an instance started in between is referred to by then, because its
        // id is stored before it is started.
        let instances = self.inner.engine.list().await?;
        let referred = self.referred_instances().await?;
        let mut ended: BTreeMap<ServiceId, Vec<InstanceStatus>> = BTreeMap::new();
        for instance in instances {
            let is_waited_for = instance.kind == InstanceKind::Job && jobs == Jobs::Run;
            if referred.contains(&instance.id) || is_waited_for {
                continue;
            }
            match instance.state {
                InstanceState::Starting | InstanceState::Running => {
                    tracing::warn!(instance = %instance.id, "stopping an instance that nothing refers to");
                    self.inner.engine.stop(&instance.id, Duration::ZERO).await?;
                }
                InstanceState::Ended { .. } => {
                    ended.entry(instance.service.clone()).or_default().push(instance)
                }
            }
        }
        for mut instances in ended.into_values() {
            instances.sort_by_key(|instance| std::cmp::Reverse(instance.started_at));
            for old in instances.iter().skip(ENDED_KEPT) {
                self.inner.engine.remove(&old.id).await?;
            }
        }
        Ok(())
    }

    async fn referred_instances(&self) -> Result<HashSet<InstanceId>, ControlError> {
        let referred = self
            .inner
            .store
            .with(|db| {
                let mut referred = HashSet::new();
                for service in db.list_services()? {
                    referred.extend(service.live.and_then(|live| live.instance));
                    for deployment in db.list_unfinished(&service.id)? {
                        referred.extend(deployment.instance);
                        referred.extend(deployment.old_instance);
                    }
                }
                Ok(referred)
            })
            .await?;
        Ok(referred)
    }
}
