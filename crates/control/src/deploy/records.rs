//! Storing a deployment and what happens to it.

use trackbed_core::deployment::{Deployment, Event, EventKind, Step};
use trackbed_core::service::Service;

use crate::control::{Control, ControlError};

impl Control {
    pub(crate) async fn load_service(&self, deployment: &Deployment) -> Result<Service, ControlError> {
        let id = deployment.service.clone();
        Ok(self.inner.store.with(move |db| db.load_service(&id)).await?)
    }

    pub(super) async fn reload(&self, deployment: &Deployment) -> Result<Deployment, ControlError> {
        let id = deployment.id.clone();
        Ok(self.inner.store.with(move |db| db.load_deployment(&id)).await?)
    }

    pub(super) async fn save(&self, deployment: &Deployment) -> Result<(), ControlError> {
        let copy = deployment.clone();
        self.inner.store.with(move |db| db.update_deployment(&copy)).await?;
        self.announce();
        Ok(())
    }

    /// Stores a deployment and an event of it in one transaction: it never fails twice, nor fails and goes on; and each
    /// transaction is a wait for the disk that somebody's parked request may be part of.
    pub(super) async fn save_with(&self, deployment: &Deployment, event: Event) -> Result<(), ControlError> {
        let copy = deployment.clone();
        self.inner
            .store
            .with(move |db| {
                db.update_deployment(&copy)?;
                db.add_event(&copy.id, event)
            })
            .await?;
        self.announce();
        Ok(())
    }

    /// As [`Control::save_with`], but does nothing and returns false when the deployment was ended meanwhile.
    pub(super) async fn save_unless_ended(
        &self,
        deployment: &Deployment,
        event: Event,
    ) -> Result<bool, ControlError> {
        let copy = deployment.clone();
        let stored = self.inner.store.with(move |db| {
            if copy.finished_at.is_none() && db.load_deployment(&copy.id)?.finished_at.is_some() {
                return Ok(false);
            }
            db.update_deployment(&copy)?;
            db.add_event(&copy.id, event)?;
            Ok(true)
        });
        let stored = stored.await?;
        self.announce();
        Ok(stored)
    }

    /// Adds an event for whoever watches.
    pub(crate) async fn event(
        &self,
        deployment: &Deployment,
        kind: EventKind,
        message: &str,
    ) -> Result<(), ControlError> {
        let event = self.news_of(deployment.step, kind, message);
        let id = deployment.id.clone();
        self.inner.store.with(move |db| db.add_event(&id, event)).await?;
        self.announce();
        Ok(())
    }

    pub(super) fn news_of(&self, step: Step, kind: EventKind, message: &str) -> Event {
        Event { sequence: 0, at: self.now(), step, kind, message: message.to_owned() }
    }
}
