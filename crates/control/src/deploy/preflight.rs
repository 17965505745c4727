//! The pre-flight of a release: what can be found wrong with its image and start command before the old one is touched.

use std::time::Duration;

use trackbed_core::InstanceId;
use trackbed_core::deployment::{Deployment, DeploymentKind, EventKind, Step};
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::{Preflight, PreflightRequest};
use trackbed_core::release::Release;
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;

use super::{StepError, failed};
use crate::control::Control;
use crate::environment::{InstanceEnvironment, for_instance};
use crate::spec::PORT_PLACEHOLDER;

/// It has a limit of its own; this one catches a sandbox that hangs.
const LIMIT: Duration = Duration::from_secs(60);

impl Control {
    /// Fails when the release cannot start. What cannot be looked at for a reason of the box is a warning.
    pub(super) async fn fly_ahead(
        &self,
        service: &Service,
        deployment: &Deployment,
        instance: &InstanceId,
        release: &Release,
        volumes: &[Volume],
    ) -> Result<(), StepError> {
        if deployment.kind == DeploymentKind::Restart || self.runs_already(service, release).await? {
            return Ok(());
        }
        if self.inner.engine.isolation().level > IsolationLevel::Userns {
            // Without mounts every instance copies its image: too much for a look.
            return self.not_looked_at(deployment, "this box has no mounts for apps").await;
        }
        let id = release.id.clone();
        let owner = self.inner.store.with(move |db| db.load_release_variables(&id)).await?;
        let env = for_instance(&InstanceEnvironment {
            service,
            release,
            deployment: Some(deployment.id.as_str()),
            instance,
            volumes,
            url: &self.url(&service.host),
            port: release.config.port.unwrap_or(PORT_PLACEHOLDER),
            owner: &owner,
        });
        let request = PreflightRequest {
            image: release.image.clone(),
            command: release.config.start_command.clone(),
            service: service.id.clone(),
            service_number: service.number,
            title: format!("pre-flight of {} {}", service.name, release.label()),
            env,
        };
        let looked = tokio::time::timeout(LIMIT, self.inner.builder.preflight(request)).await;
        match looked.unwrap_or_else(|_| Preflight::NotRun("the sandbox gave no answer".to_owned())) {
            Preflight::Passed { found, warnings } => {
                self.event(deployment, EventKind::Note, &format!("pre-flight: {found}")).await?;
                for warning in &warnings {
                    self.event(deployment, EventKind::Warning, warning).await?;
                }
                Ok(())
            }
            Preflight::Failed(error) => Err(failed(Step::Check, error, Vec::new())),
            Preflight::NotRun(why) => self.not_looked_at(deployment, &why).await,
        }
    }

    async fn not_looked_at(&self, deployment: &Deployment, why: &str) -> Result<(), StepError> {
        let text = format!("the release was not looked at before the old one is touched: {why}");
        Ok(self.event(deployment, EventKind::Warning, &text).await?)
    }

    /// Returns whether the live release has the same image and start command, and serves: it has been shown then.
    async fn runs_already(&self, service: &Service, release: &Release) -> Result<bool, StepError> {
        let Some(live) = service.live.as_ref().filter(|live| live.port.is_some() && live.given_up.is_none())
        else {
            return Ok(false);
        };
        let id = live.release.clone();
        let live = self.inner.store.with(move |db| db.load_release(&id)).await?;
        Ok(live.image.digest == release.image.digest
            && live.config.start_command == release.config.start_command)
    }
}
