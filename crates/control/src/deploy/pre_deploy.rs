//! The command that prepares the data for a release: first on a copy of it, while the old release serves (as a part of
//! step rehearse), then in earnest at step predeploy, where nobody uses the data and its pin is taken.
//!
//! What fails on the copy ends the deployment before any caller waits. What fails in earnest is undone as a start that
//! fails: the data is put back.

use std::time::Duration;

use tokio::time::timeout;
use trackbed_core::InstanceId;
use trackbed_core::deployment::{Deployment, DeploymentKind, EventKind, Failure, Step};
use trackbed_core::instance::{Exit, InstanceState};
use trackbed_core::ports::{PortError, VolumePlace};
use trackbed_core::release::Release;
use trackbed_core::schema::{DatabaseSchema, schema_changes};
use trackbed_core::service::Service;
use trackbed_core::settings::ServiceConfig;
use trackbed_core::volume::Volume;

use super::hold::{longer, window_was_over};
use super::{StepError, failed};
use crate::control::{Control, ControlError};
use crate::spec::{Data, Process, Start};
use crate::words;

/// Changes of a schema that are told; the others are counted.
const CHANGES_MAX: usize = 40;
/// Letters of the command that are told.
const COMMAND_MAX: usize = 120;

/// How a command ended.
struct Ended {
    exit: Exit,
    took: Duration,
    output: Vec<String>,
}

/// What a trial came to.
pub(super) enum Trial {
    /// The command did well, and took so long.
    Done(Duration),
    /// The engine would not start it.
    NotBegun(PortError),
}

/// Returns whether a deployment runs the command. A rollback goes back to a release whose data is prepared already, and
/// a restart brings nothing new; restored data may be older than the release.
pub(super) fn is_wanted(kind: DeploymentKind, config: &ServiceConfig) -> bool {
    config.pre_deploy.is_some()
        && match kind {
            DeploymentKind::Up | DeploymentKind::Redeploy | DeploymentKind::Restore => true,
            DeploymentKind::Rollback | DeploymentKind::Restart => false,
        }
}

impl Control {
    /// Runs the command in earnest. Taken again after a crash, it goes on waiting for the one that was started.
    pub(super) async fn pre_deploy(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        let (Some(instance), Some(release)) = (deployment.pre_deploy.clone(), deployment.release.clone())
        else {
            return Ok(());
        };
        let release = self.inner.store.with(move |db| db.load_release(&release)).await?;
        let Some(command) = release.config.pre_deploy.as_deref().map(brief) else { return Ok(()) };
        let window = self.hold_left(deployment);
        if window == Some(Duration::ZERO) {
            return Err(window_was_over(deployment));
        }
        let run = async {
            match self.start_command(service, deployment, &release, &instance, Data::Live).await {
                Ok(()) => {}
                Err(ControlError::Port(error)) => return Err(failed(Step::PreDeploy, error, Vec::new())),
                Err(error) => return Err(error.into()),
            }
            Ok(self.await_command(&instance).await?)
        };
        let ended = match timeout(window.unwrap_or(Duration::MAX), run).await {
            Ok(ended) => ended?,
            Err(_) => {
                let reason =
                    format!("the hold window was over before the pre-deploy command `{command}` had ended");
                let log_tail = self.last_lines(&instance).await;
                let hint = Some(longer(deployment));
                return Err(StepError::Failed(Box::new(Failure {
                    stage: Step::PreDeploy,
                    reason,
                    hint,
                    log_tail,
                })));
            }
        };
        let text = told("pre-deploy", &command, &ended);
        if !ended.exit.is_success() {
            let mended = "mend the command and deploy again: trackbed up";
            let error = PortError::new(text).hint(mended);
            return Err(failed(Step::PreDeploy, error, ended.output));
        }
        deployment.pre_deploy_took_ms = u64::try_from(ended.took.as_millis()).ok();
        Ok(self.tell_of_command(deployment, &text, &ended.output).await?)
    }

    /// Runs the command on copies of the data, and says what it changed.
    pub(super) async fn try_pre_deploy(
        &self,
        service: &Service,
        deployment: &Deployment,
        release: &Release,
        instance: &InstanceId,
        places: &[(Volume, VolumePlace)],
    ) -> Result<Trial, StepError> {
        let command = brief(release.config.pre_deploy.as_deref().unwrap_or_default());
        let before = self.schemas(deployment, places).await?;
        let copies: Vec<_> =
            places.iter().map(|(volume, place)| (volume.id.clone(), place.clone())).collect();
        match self.start_command(service, deployment, release, instance, Data::Copies(&copies)).await {
            Ok(()) => {}
            Err(ControlError::Port(error)) => return Ok(Trial::NotBegun(error)),
            Err(error) => return Err(error.into()),
        }
        let ended = self.await_command(instance).await?;
        let text = told("pre-deploy on a copy of the data", &command, &ended);
        if !ended.exit.is_success() {
            let hint = "nothing was touched; the copy has no network: a command that needs it is tried in earnest alone \
                        with preDeployTrial = false under [deploy] in trackbed.toml";
            return Err(failed(Step::Rehearse, PortError::new(text).hint(hint), ended.output));
        }
        if let Some(window) = release.config.hold_window.filter(|window| ended.took >= *window) {
            let error = PortError::new(format!(
                "{text}, longer than callers may be held ({} s)",
                window.as_secs_f64()
            ));
            return Err(failed(Step::Rehearse, error.hint(longer(deployment)), ended.output));
        }
        self.tell_of_command(deployment, &text, &ended.output).await?;
        if let (Some(before), Some(after)) = (before, self.schemas(deployment, places).await?) {
            self.tell_of_schemas(deployment, &before, &after).await?;
        }
        Ok(Trial::Done(ended.took))
    }

    async fn start_command(
        &self,
        service: &Service,
        deployment: &Deployment,
        release: &Release,
        instance: &InstanceId,
        data: Data<'_>,
    ) -> Result<(), ControlError> {
        self.start_on(Start {
            service,
            release: &release.id,
            instance,
            deployment: Some(deployment.id.as_str()),
            data,
            process: Process::PreDeploy,
        })
        .await?;
        Ok(())
    }

    async fn await_command(&self, instance: &InstanceId) -> Result<Ended, ControlError> {
        loop {
            self.inner.engine.wait(instance).await;
            let status = self.inner.engine.inspect(instance).await?;
            let (exit, took) = match status.map(|status| (status.state, status.started_at)) {
                Some((InstanceState::Ended { exit, at }, started)) => (exit, at.since(started)),
                None => (Exit::Lost, Duration::ZERO),
                // What `wait` knows may be a moment old.
                Some((InstanceState::Starting | InstanceState::Running, _)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            return Ok(Ended { exit, took, output: self.last_lines(instance).await });
        }
    }

    async fn tell_of_command(
        &self,
        deployment: &Deployment,
        text: &str,
        output: &[String],
    ) -> Result<(), ControlError> {
        self.event(deployment, EventKind::Note, text).await?;
        for line in output {
            self.event(deployment, EventKind::Note, &format!("| {line}")).await?;
        }
        Ok(())
    }

    /// Looks at the databases of the copies, by volume; none when the box cannot look, which stops nobody.
    async fn schemas(
        &self,
        deployment: &Deployment,
        places: &[(Volume, VolumePlace)],
    ) -> Result<Option<Vec<DatabaseSchema>>, ControlError> {
        let mut all = Vec::new();
        for (volume, place) in places {
            match self.inner.volumes.schemas(place).await {
                Ok(schemas) => all.extend(schemas.into_iter().map(|schema| DatabaseSchema {
                    path: format!("{}:{}", volume.name, schema.path),
                    ..schema
                })),
                Err(error) => {
                    let text = format!("how the schema changes could not be found out: {error}");
                    self.event(deployment, EventKind::Warning, &text).await?;
                    return Ok(None);
                }
            }
        }
        Ok(Some(all))
    }

    async fn tell_of_schemas(
        &self,
        deployment: &Deployment,
        before: &[DatabaseSchema],
        after: &[DatabaseSchema],
    ) -> Result<(), ControlError> {
        let changes = schema_changes(before, after);
        if changes.is_empty() && !after.is_empty() {
            let databases = words::count(after.len() as u64, "database");
            self.event(deployment, EventKind::Note, &format!("schema: no change ({databases})")).await?;
        }
        for change in changes.iter().take(CHANGES_MAX) {
            self.event(deployment, EventKind::Note, &format!("schema: {change}")).await?;
        }
        if changes.len() > CHANGES_MAX {
            let more = words::count((changes.len() - CHANGES_MAX) as u64, "further change");
            self.event(deployment, EventKind::Note, &format!("schema: {more}")).await?;
        }
        Ok(())
    }
}

fn told(what: &str, command: &str, ended: &Ended) -> String {
    format!("{what}: `{command}` {} after {:.2} s", ended.exit, ended.took.as_secs_f64())
}

fn brief(command: &str) -> String {
    match command.char_indices().nth(COMMAND_MAX) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command.to_owned(),
    }
}
