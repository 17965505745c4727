//! What people ask for: stored at once, done by the workers.

use trackbed_core::deployment::{Deployment, DeploymentState, Event, EventKind, Step, Withdrawal};
use trackbed_core::git::Commit;
use trackbed_core::ids::ID_BYTES;
use trackbed_core::plan::Plan;
use trackbed_core::ports::{PlanRequest, Source};
use trackbed_core::release::Release;
use trackbed_core::service::Service;
use trackbed_core::{DeploymentId, Digest, Name};
use trackbed_stdx::random;

use crate::cancel::{is_waiting, withdraw};
use crate::control::{Control, ControlError};
use crate::environment::owner_variables;
use crate::resolve::{PointAt, resolve};
use crate::scale;
use crate::stray::settings_among;

/// A deployment that somebody wants.
#[derive(Debug, Clone)]
pub enum DeploymentWish {
    /// Deploy a source that the box has taken in.
    Up {
        /// Which.
        source: Digest,
        /// Flags that override settings: dotted key and value.
        overrides: Vec<(String, String)>,
    },
    /// Deploy the source of a commit that was pushed, unless it changes nothing that the service watches.
    Pushed {
        /// Which.
        source: Digest,
        /// What it was made of.
        commit: Commit,
        /// The number of the delivery that brought it, which is answered by the same transaction.
        delivery: Option<i64>,
    },
    /// Deploy the newest source once more.
    Redeploy,
    /// Deploy an earlier release.
    Rollback {
        /// Which; none means the one that was live before.
        version: Option<u32>,
        /// Whether the data goes back, too: to what it was when that release served last.
        with_data: bool,
    },
    /// Start the live release in a fresh instance.
    Restart,
    /// Put the data of a restore point in place of a volume's, under the live release.
    Restore {
        /// Which volume; none means the only one.
        volume: Option<Name>,
        /// The point to go back to.
        at: PointAt,
    },
    /// Move what the app keeps outside its volumes into one, all at once.
    Adopt {
        /// Absolute paths of files or directories below `/app`, as the app sees them; none means every database there.
        paths: Vec<String>,
        /// The volume that takes them; none means the only one.
        volume: Option<Name>,
    },
}

impl Control {
    /// Writes down that a source is on the box.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn add_source(&self, digest: Digest) -> Result<(), ControlError> {
        let now = self.now();
        Ok(self.inner.store.with(move |db| db.add_source(&digest, now)).await?)
    }

    /// Asks for a deployment. `up` makes project and service when they are new.
    ///
    /// # Errors
    /// When there is nothing to deploy: unknown source, service or release.
    pub async fn request_deployment(
        &self,
        project: Name,
        service: Name,
        wish: DeploymentWish,
    ) -> Result<Deployment, ControlError> {
        let wish = self.name_databases_outside(&project, &service, wish).await?;
        let (domain, now) = (self.inner.config.domain.clone(), self.now());
        let id = DeploymentId::from_random(random::bytes::<ID_BYTES>());
        let outcome = self
            .inner
            .store
            .with(move |db| {
                let found = match &wish {
                    DeploymentWish::Up { source, .. } | DeploymentWish::Pushed { source, .. }
                        if !db.has_source(source)? =>
                    {
                        return Ok(Err(ControlError::NotFound(format!(
                            "the box has no source {}",
                            source.short()
                        ))));
                    }
                    DeploymentWish::Up { .. } | DeploymentWish::Pushed { .. } => {
                        db.ensure_service(&project, &service, &domain, now)?
                    }
                    _ => match db.find_service(&project, &service)? {
                        Some(found) => found,
                        None => return Ok(Err(no_service(&project, &service))),
                    },
                };
                let ahead = db.list_unfinished(&found.id)?;
                let moving = ahead.iter().find(|ahead| ahead.moves_data() && !is_over(ahead));
                if let Some(moving) = moving
                    && !matches!(
                        wish,
                        DeploymentWish::Up { .. } | DeploymentWish::Pushed { .. } | DeploymentWish::Redeploy
                    )
                {
                    return Ok(Err(ControlError::Conflict {
                        message: format!(
                            "deployment {} of service `{}` is putting data in place, which decides what is live",
                            moving.id, found.name
                        ),
                        hint: Some("ask again when it has ended (trackbed status), or end it: trackbed cancel".into()),
                    }));
                }
                let delivery = match &wish {
                    DeploymentWish::Pushed { delivery, .. } => *delivery,
                    _ => None,
                };
                let wanted = match resolve(db, &found, wish)? {
                    Ok(wanted) => wanted,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let deployment = Deployment {
                    id,
                    service: found.id.clone(),
                    kind: wanted.kind,
                    state: DeploymentState::Queued,
                    step: Step::first(wanted.kind),
                    entered: None,
                    stopwatch: None,
                    failure: None,
                    withdrawal: None,
                    commit: wanted.commit,
                    source: wanted.source,
                    release: wanted.release.map(|release| release.id),
                    previous: None,
                    instance: None,
                    old_instance: None,
                    port: None,
                    plan: None,
                    image: None,
                    handover: None,
                    hold_window_ms: None,
                    start_took_ms: None,
                    pause: None,
                    pins: Vec::new(),
                    restore: wanted.restore,
                    adopt: wanted.adopt,
                    replaced: Vec::new(),
                    rehearsal: None,
                    aside: None,
                    put_back: Vec::new(),
                    pre_deploy: None,
                    pre_deploy_took_ms: None,
                    data_undone: None,
                    rehearsal_took_ms: None,
                    overrides: wanted.overrides,
                    created_at: now,
                    finished_at: None,
                };
                db.add_deployment(&deployment)?;
                if let Some(delivery) = delivery {
                    db.set_delivery_deployment(delivery, &deployment.id)?;
                }
                if let Some(moving) = moving {
                    let message = format!("waits for deployment {}, which puts data in place", moving.id);
                    let (step, kind) = (deployment.step, EventKind::Note);
                    db.add_event(&deployment.id, Event { sequence: 0, at: now, step, kind, message })?;
                }
                // Of several that have not begun, only the newest is worth doing; but data that was to go back goes back.
                for waiting in ahead.iter().filter(|ahead| !ahead.moves_data()).cloned() {
                    if is_waiting(&waiting) {
                        withdraw(db, waiting, Withdrawal::Superseded { by: deployment.id.clone() }, now)?;
                    }
                }
                Ok(Ok(deployment))
            })
            .await??;
        self.announce();
        self.wake(&outcome.service);
        Ok(outcome)
    }

    /// Asks that a service stops. Its volumes and releases stay. A deployment on its way fails, unless it is live.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn request_stop(&self, project: &Name, service: &Name) -> Result<Service, ControlError> {
        let found = self.service(project, service).await?;
        let id = found.id.clone();
        self.inner.store.with(move |db| db.set_stopped(&id)).await?;
        self.owe_routes();
        self.announce();
        self.wake(&found.id);
        self.service(project, service).await
    }

    /// Returns a service.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn service(&self, project: &Name, service: &Name) -> Result<Service, ControlError> {
        let (wanted_project, wanted) = (project.clone(), service.clone());
        let found = self.inner.store.with(move |db| db.find_service(&wanted_project, &wanted)).await?;
        found.ok_or_else(|| no_service(project, service))
    }

    /// Returns all services.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn services(&self) -> Result<Vec<Service>, ControlError> {
        Ok(self.inner.store.with(|db| db.list_services()).await?)
    }

    /// Returns a deployment.
    ///
    /// # Errors
    /// When there is none.
    pub async fn deployment(&self, id: &DeploymentId) -> Result<Deployment, ControlError> {
        let wanted = id.clone();
        let found = self.inner.store.with(move |db| db.find_deployment(&wanted)).await?;
        found.ok_or_else(|| ControlError::NotFound(format!("there is no deployment `{id}`")))
    }

    /// Returns the service of a deployment, and its release when it has one.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn around(&self, deployment: &Deployment) -> Result<(Service, Option<Release>), ControlError> {
        let (service, release) = (deployment.service.clone(), deployment.release.clone());
        Ok(self
            .inner
            .store
            .with(move |db| {
                let release = release.map(|id| db.load_release(&id)).transpose()?;
                Ok((db.load_service(&service)?, release))
            })
            .await?)
    }

    /// Returns the newest deployments of a service, newest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn deployments(&self, service: &Service, limit: u32) -> Result<Vec<Deployment>, ControlError> {
        let id = service.id.clone();
        Ok(self.inner.store.with(move |db| db.list_deployments(&id, limit)).await?)
    }

    /// Returns the events of a deployment after a sequence.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn events(&self, id: &DeploymentId, after: u64) -> Result<Vec<Event>, ControlError> {
        let id = id.clone();
        Ok(self.inner.store.with(move |db| db.list_events(&id, after)).await?)
    }

    /// Returns what a deployment of a source would do. Needs no service; one that exists lends its variables.
    ///
    /// # Errors
    /// When the source cannot be deployed as it is.
    pub async fn plan(
        &self,
        project: &Name,
        service: &Name,
        source: Digest,
        overrides: Vec<(String, String)>,
    ) -> Result<Plan, ControlError> {
        let (project, service, wanted) = (project.clone(), service.clone(), source.clone());
        let (known, variables, stored) = self
            .inner
            .store
            .with(move |db| {
                let (variables, counts) = match db.find_service(&project, &service)? {
                    Some(found) => (owner_variables(db, &found)?, db.list_process_counts(&found.id)?),
                    None => (Vec::new(), Vec::new()),
                };
                Ok((db.has_source(&wanted)?, variables, scale::settings(&counts)))
            })
            .await?;
        if !known {
            return Err(ControlError::NotFound(format!("the box has no source {}", source.short())));
        }
        let path = self.inner.config.data_dir.join("sources").join(source.as_str());
        let source = Source { digest: source, path };
        let overrides = settings_among(&overrides);
        Ok(self.inner.builder.plan(PlanRequest { source, overrides, stored, variables }).await?)
    }
}

/// Returns whether a deployment that is not finished decides nothing any more: it is live, or is being undone.
fn is_over(deployment: &Deployment) -> bool {
    deployment.state.is_terminal() || deployment.is_given_up()
}

pub(crate) fn no_service(project: &Name, service: &Name) -> ControlError {
    ControlError::NotFound(match project == service {
        true => format!("there is no service `{service}`"),
        false => format!("there is no service `{service}` in project `{project}`"),
    })
}
