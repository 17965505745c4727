//! Backups: restore points that the schedules of a volume ask for, or a person does.
//!
//! All volumes of a service that are due are captured together, at one instant. Nothing is captured while a handover of
//! the service is under way, because its writers change just then and its own pin is taken anyway.

use std::time::Duration;

use tokio::sync::oneshot;
use trackbed_core::deployment::{Deployment, Step};
use trackbed_core::ids::ID_BYTES;
use trackbed_core::instance::InstanceState;
use trackbed_core::ports::{CaptureOrder, Freezer};
use trackbed_core::restore_point::{PointReason, RestorePoint, Schedule};
use trackbed_core::service::{Service, Wanted};
use trackbed_core::settings::Handover;
use trackbed_core::volume::Volume;
use trackbed_core::{Name, RestorePointId, ServiceId};
use trackbed_stdx::random;
use trackbed_store::{Db, StoreError};

use crate::control::{Control, ControlError};
use crate::freezer::InstanceFreezer;
use crate::keeping::{lock, note_trouble};
use crate::ticks::due;

/// How often schedules are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How long a backup that somebody asked for waits for a handover to end.
const HANDOVER_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long the asker is kept waiting; the backup itself goes on.
const ANSWER_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Why a service cannot be captured now, although nothing is broken.
enum NotNow {
    /// A deployment moves it from one release to the next.
    Handover(Box<Deployment>),
    /// Its instance is being started or restarted.
    Restart,
}

impl NotNow {
    fn refusal(&self, service: &Service) -> ControlError {
        let (message, hint) = match self {
            NotNow::Handover(deployment) => (
                format!("service `{}` is being handed over by {} just now", service.name, deployment.id),
                "that takes a restore point by itself; try again when it has ended",
            ),
            NotNow::Restart => (
                format!("service `{}` is being restarted just now", service.name),
                "try again in a moment, or stop it first: trackbed down",
            ),
        };
        ControlError::Conflict { message, hint: Some(hint.into()) }
    }
}

/// A volume to capture, and why.
#[derive(Debug, Clone)]
struct Wish {
    volume: Volume,
    reason: PointReason,
}

impl Control {
    pub(crate) fn spawn_backup_keeper(&self) {
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn("backup keeper", async move {
            loop {
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
                let looked = tokio::select! {
                    () = shutdown.wait() => return,
                    looked = control.back_up_what_is_due() => looked,
                };
                if let Err(error) = looked {
                    tracing::warn!(%error, "the schedules of volumes could not be read");
                }
            }
        });
    }

    /// Serves every schedule that is due, one service after the other.
    async fn back_up_what_is_due(&self) -> Result<(), ControlError> {
        for service in self.services().await? {
            let wishes = self.wishes_of_schedules(&service).await?;
            let waits =
                lock(&self.inner.keeping.troubles).get(&service.id).is_some_and(|last| !last.is_over());
            if wishes.is_empty() || waits {
                continue;
            }
            match self.back_up(&service.id, wishes).await {
                Ok(Ok(_)) => {}
                // Tried again at the next look; the ticks are not served.
                Ok(Err(_not_now)) => {}
                Err(error) => {
                    tracing::error!(service = %service.name, error = &error as &dyn std::error::Error, "a backup failed");
                }
            }
        }
        Ok(())
    }

    async fn wishes_of_schedules(&self, service: &Service) -> Result<Vec<Wish>, ControlError> {
        let (id, now) = (service.id.clone(), self.now());
        let wishes = self.inner.store.with(move |db| {
            let mut wishes = Vec::new();
            for volume in db.list_volumes(&id)? {
                let schedules = due(&volume.schedules, &db.list_ticks(&volume.id)?, volume.created_at, now);
                if !schedules.is_empty() {
                    wishes.push(Wish { volume, reason: PointReason::Schedule { schedules } });
                }
            }
            Ok(wishes)
        });
        Ok(wishes.await?)
    }

    /// Takes a backup of a service's volumes now, all at one instant, or of one of them. Returns the points. Dropping the
    /// future does not stop the backup.
    ///
    /// # Errors
    /// When there is no such service or volume, a handover does not end in time, or the capture fails.
    pub async fn request_backup(
        &self,
        project: &Name,
        service: &Name,
        volume: Option<Name>,
    ) -> Result<Vec<RestorePoint>, ControlError> {
        self.take_points(project, service, volume, PointReason::Command).await
    }

    /// As [`Control::request_backup`], for somebody who looks into databases: such points are kept for an hour, and take no
    /// place among those that their owner asked for.
    ///
    /// # Errors
    /// Likewise.
    pub async fn request_look(
        &self,
        project: &Name,
        service: &Name,
        volume: Option<Name>,
    ) -> Result<Vec<RestorePoint>, ControlError> {
        self.take_points(project, service, volume, PointReason::Look).await
    }

    async fn take_points(
        &self,
        project: &Name,
        service: &Name,
        volume: Option<Name>,
        reason: PointReason,
    ) -> Result<Vec<RestorePoint>, ControlError> {
        let found = self.service(project, service).await?;
        let mut volumes = self.volumes(&found).await?;
        if let Some(name) = &volume {
            volumes.retain(|volume| volume.name == *name);
        }
        if volumes.is_empty() {
            return Err(ControlError::NotFound(match volume {
                Some(name) => format!("service `{service}` has no volume `{name}`"),
                None => format!("service `{service}` has no volume, so there is nothing to back up"),
            }));
        }
        let wishes: Vec<_> =
            volumes.into_iter().map(|volume| Wish { volume, reason: reason.clone() }).collect();
        let (told, answer) = oneshot::channel();
        let (control, id) = (self.clone(), found.id.clone());
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn(format!("backup of {id}"), async move {
            let outcome = tokio::select! {
                () = shutdown.wait() => return,
                outcome = control.back_up_when_possible(&id, wishes) => outcome,
            };
            if let Err(outcome) = told.send(outcome) {
                tracing::info!(service = %id, ok = outcome.is_ok(), "a backup ended that nobody waits for any more");
            }
        });
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ControlError::Conflict {
                message: "the box is shutting down; the backup was given up".into(),
                hint: Some("ask again when it is back".into()),
            }),
            Err(_) => Err(ControlError::Conflict {
                message: format!("the backup has taken {} min and goes on", ANSWER_LIMIT.as_secs() / 60),
                hint: Some(
                    "it is listed among the restore points once it is taken: trackbed volume list".into(),
                ),
            }),
        }
    }

    async fn back_up_when_possible(
        &self,
        service: &ServiceId,
        wishes: Vec<Wish>,
    ) -> Result<Vec<RestorePoint>, ControlError> {
        let until = tokio::time::Instant::now() + HANDOVER_WAIT;
        let mut news = self.news();
        loop {
            news.mark_unchanged();
            let not_now = match self.back_up(service, wishes.clone()).await? {
                Ok(points) => return Ok(points),
                Err(not_now) => not_now,
            };
            let changed = tokio::time::timeout_at(until, news.changed()).await;
            if changed.is_err() {
                let id = service.clone();
                let service = self.inner.store.with(move |db| db.load_service(&id)).await?;
                return Err(not_now.refusal(&service));
            }
        }
    }

    /// Captures volumes of a service at one instant and stores the points.
    async fn back_up(
        &self,
        service: &ServiceId,
        wishes: Vec<Wish>,
    ) -> Result<Result<Vec<RestorePoint>, NotNow>, ControlError> {
        let _turn = self.turn_to_capture(service).await;
        let id = service.clone();
        let (service, handover) = self
            .inner
            .store
            .with(move |db| Ok((db.load_service(&id)?, handover_under_way(db, &id)?)))
            .await?;
        if let Some(deployment) = handover {
            return Ok(Err(NotNow::Handover(Box::new(deployment))));
        }
        let freezer = match self.writer_of(&service).await? {
            Ok(freezer) => freezer,
            Err(not_now) => return Ok(Err(not_now)),
        };
        let captured = self.capture(&service, wishes, freezer).await;
        match &captured {
            Ok(_) => drop(lock(&self.inner.keeping.troubles).remove(&service.id)),
            Err(error) => {
                let troubles = &self.inner.keeping.troubles;
                note_trouble(troubles, service.id.clone(), error.to_string(), self.now());
            }
        }
        self.announce();
        Ok(Ok(captured?))
    }

    async fn capture(
        &self,
        service: &Service,
        wishes: Vec<Wish>,
        freezer: Option<InstanceFreezer>,
    ) -> Result<Vec<RestorePoint>, ControlError> {
        let _kept = self.keep_collections_away().await;
        let volumes: Vec<_> = wishes.iter().map(|wish| wish.volume.clone()).collect();
        self.inner.volumes.read_ahead(&volumes).await?;
        let order =
            |volume| CaptureOrder { volume, point: RestorePointId::from_random(random::bytes::<ID_BYTES>()) };
        let orders: Vec<_> = volumes.into_iter().map(order).collect();
        let taken_at = self.now();
        let freezer = freezer.as_ref().map(|freezer| freezer as &dyn Freezer);
        let captures = self.inner.volumes.capture(&orders, freezer).await?;
        let release = service.live.as_ref().map(|live| live.release.clone());
        let points: Vec<_> = orders
            .into_iter()
            .zip(wishes)
            .zip(captures)
            .map(|((order, wish), capture)| RestorePoint {
                id: order.point,
                volume: order.volume.id,
                service: service.id.clone(),
                taken_at,
                reason: wish.reason,
                release: release.clone(),
                capture,
                proof: None,
            })
            .collect();
        let stored = points.clone();
        self.inner
            .store
            .with(move |db| {
                for point in &stored {
                    db.add_restore_point(point)?;
                    for schedule in served_by(point) {
                        db.set_tick(&point.volume, *schedule, taken_at)?;
                    }
                }
                Ok(())
            })
            .await?;
        Ok(points)
    }

    /// Returns how to make the writer of a service's volumes stand still: none when nothing of the service runs.
    async fn writer_of(
        &self,
        service: &Service,
    ) -> Result<Result<Option<InstanceFreezer>, NotNow>, ControlError> {
        let Some(live) = &service.live else { return Ok(Ok(None)) };
        // A job is started at its next tick, not in a moment.
        let is_wanted = service.wanted == Wanted::Running && live.given_up.is_none() && live.job.is_none();
        let state = match &live.instance {
            Some(instance) => self.inner.engine.inspect(instance).await?.map(|status| status.state),
            None => None,
        };
        Ok(match state {
            Some(InstanceState::Running) => match self.freezer_of(service).await? {
                Some(freezer) => Ok(Some(freezer)),
                // It has ended since.
                None => Err(NotNow::Restart),
            },
            Some(InstanceState::Starting) => Err(NotNow::Restart),
            // Its worker is about to start it, and must not find the volumes held.
            Some(InstanceState::Ended { .. }) | None if is_wanted => Err(NotNow::Restart),
            Some(InstanceState::Ended { .. }) | None => Ok(None),
        })
    }
}

fn served_by(point: &RestorePoint) -> &[Schedule] {
    match &point.reason {
        PointReason::Schedule { schedules } => schedules,
        PointReason::Deployment { .. }
        | PointReason::Command
        | PointReason::Look
        | PointReason::BeforeRestore { .. } => &[],
    }
}

/// Returns the deployment that moves a service from one release to the next just now, or takes that back.
fn handover_under_way(db: &Db<'_>, service: &ServiceId) -> Result<Option<Deployment>, StoreError> {
    let moves = |deployment: &Deployment| {
        let step = deployment.step;
        match deployment.handover {
            // From the last drained stream on it is a matter of moments, and callers wait.
            Some(Handover::Held) => (Step::Drain..Step::Switch).contains(&step),
            // Two instances may hold the volumes together.
            Some(Handover::Overlap) => step >= Step::Pin,
            None => false,
        }
    };
    Ok(db.list_unfinished(service)?.into_iter().find(moves))
}
