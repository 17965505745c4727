//! Removes what nothing refers to any more: strays of a crash, and old instances with their logs.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use trackbed_core::deployment::DeploymentState;
use trackbed_core::instance::{InstanceKind, InstanceState, InstanceStatus};
use trackbed_core::job::Job;
use trackbed_core::{InstanceId, ServiceId, Timestamp};

use crate::control::{Control, ControlError, within};

/// Ended instances whose logs and writable tops are kept, per service.
const ENDED_KEPT: usize = 5;
/// Deployments of a service whose instances are kept beyond that: data that an app kept outside its volumes can be had
/// until the next deployment but one.
const DEPLOYMENTS_KEPT: usize = 2;
/// Runs since then that are kept because they left a database outside the volumes.
const WITH_DATA_KEPT: usize = 10;
/// Deployments of a service that are looked through for those.
const LOOKED_THROUGH: u32 = 50;
/// Time between sweeps.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long requests that are open to a stray may finish; it has had the whole drain limit of its deployment.
const STRAY_FINISH: Duration = Duration::from_secs(10);
/// How often that is looked at.
const STRAY_POLL: Duration = Duration::from_millis(50);
/// Time between SIGTERM and SIGKILL for a stray, which may be closing a database.
const STRAY_GRACE: Duration = Duration::from_secs(10);

/// What to think of jobs, which nothing in the state refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jobs {
    /// Whoever started them waits for them, and removes them.
    Run,
    /// They were started by an earlier control plane: nobody waits for them any more.
    AreOrphans,
}

/// The runs whose writable tops are kept.
#[derive(Default)]
struct LastRuns {
    instances: HashSet<InstanceId>,
    /// When the last deployment but one was asked for.
    since: Option<Timestamp>,
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
                // A worker that ended by a panic is started again, whoever may be waiting for it.
                match control.inner.store.with(|db| db.list_services()).await {
                    Ok(services) => services.iter().for_each(|service| control.wake(&service.id)),
                    Err(error) => tracing::warn!(%error, "services could not be looked after"),
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
                    // One that does not end must not keep the others; it is tried again by the next sweep.
                    if let Err(error) = self.end_stray(&instance).await {
                        tracing::error!(instance = %instance.id, %error, "it could not be stopped");
                    }
                }
                InstanceState::Ended { .. } => {
                    ended.entry(instance.service.clone()).or_default().push(instance)
                }
            }
        }
        for (service, mut instances) in ended {
            instances.sort_by_key(|instance| std::cmp::Reverse(instance.started_at));
            if instances.len() <= ENDED_KEPT {
                continue;
            }
            let last_runs = self.last_runs(&service).await?;
            let mut with_data = 0;
            for old in instances.iter().skip(ENDED_KEPT) {
                if last_runs.instances.contains(&old.id) {
                    continue;
                }
                // A release that crashes again and again must not push out the run in which it wrote.
                let is_recent = last_runs.since.is_some_and(|since| old.started_at >= since);
                if is_recent && with_data < WITH_DATA_KEPT && self.has_data_outside(&old.id).await {
                    with_data += 1;
                    continue;
                }
                self.inner.engine.remove(&old.id).await?;
            }
        }
        Ok(())
    }

    /// Returns which instances the last deployments of a service started and ended.
    async fn last_runs(&self, service: &ServiceId) -> Result<LastRuns, ControlError> {
        let id = service.clone();
        let newest = self.inner.store.with(move |db| db.list_deployments(&id, LOOKED_THROUGH)).await?;
        let mut runs = LastRuns::default();
        let successes = newest.into_iter().filter(|deployment| deployment.state == DeploymentState::Success);
        for deployment in successes.take(DEPLOYMENTS_KEPT) {
            runs.since = Some(deployment.created_at);
            runs.instances.extend(deployment.instance);
            runs.instances.extend(deployment.old_instance);
        }
        Ok(runs)
    }

    async fn has_data_outside(&self, instance: &InstanceId) -> bool {
        match self.inner.engine.stray_files(instance, 1).await {
            Ok(files) => files.iter().any(|file| file.is_database),
            // What cannot be looked at may hold data.
            Err(_) => true,
        }
    }

    /// Ends an instance that nothing refers to. It may be an old release that could not be retired in time, so the edge
    /// must no longer send requests there, and those that are open may finish.
    async fn end_stray(&self, instance: &InstanceStatus) -> Result<(), ControlError> {
        let id = &instance.id;
        if instance.kind == InstanceKind::Job {
            return Ok(self.inner.engine.stop(id, Duration::ZERO).await?);
        }
        if self.inner.edge.stats().await?.targets.contains_key(id.as_str()) {
            self.sync_routes().await?;
            let finished = within(STRAY_FINISH, async {
                loop {
                    // An edge that does not answer says nothing about its requests: it is asked again.
                    if let Ok(stats) = self.inner.edge.stats().await
                        && stats.targets.get(id.as_str()).is_none_or(|target| target.in_flight == 0)
                    {
                        break;
                    }
                    tokio::time::sleep(STRAY_POLL).await;
                }
            });
            if !finished.await {
                self.inner.edge.cut(id).await?;
            }
        }
        Ok(self.inner.engine.stop(id, STRAY_GRACE).await?)
    }

    async fn referred_instances(&self) -> Result<HashSet<InstanceId>, ControlError> {
        let referred = self
            .inner
            .store
            .with(|db| {
                let mut referred = HashSet::new();
                for service in db.list_services()? {
                    if let Some(live) = service.live {
                        referred.extend(live.job.iter().flat_map(Job::instances).cloned());
                        referred.extend(live.instance);
                    }
                    for deployment in db.list_unfinished(&service.id)? {
                        referred.extend(deployment.instance);
                        referred.extend(deployment.old_instance);
                        referred.extend(deployment.pre_deploy);
                        referred.extend(deployment.rehearsal.map(|rehearsal| rehearsal.instance));
                    }
                }
                Ok(referred)
            })
            .await?;
        Ok(referred)
    }
}
