//! Data outside the volumes: databases that an app keeps where they are lost with its instance.
//!
//! A service with a volume means to keep its data, so a database elsewhere is taken for a mistake: it is a warning, and
//! the next `up`, `redeploy` or `restart` is refused, unless it moves such a file in or its owner says that it may go. A
//! service without a volume may well keep a scratch database in its own tree: there it is a warning only. A rollback or a
//! restore is what one does in need, so it is never refused for that; the file stays on the box until the next deployment
//! but one (`sweep.rs`).

use std::time::Duration;

use tokio::time::Instant;
use trackbed_core::deployment::{Deployment, DeploymentKind, EventKind, Failure, Step};
use trackbed_core::ports::StrayFile;
use trackbed_core::service::Service;
use trackbed_core::{InstanceId, ServiceId};

use crate::control::{Control, ControlError};
use crate::deploy::StepError;
use crate::keeping::{Strays, lock};
use crate::words;

/// The flag of a deployment that may leave databases behind: a dotted key among its overrides, with the value `true`.
pub const ALLOW_DATA_OUTSIDE: &str = "deploy.allowDataOutside";

/// How often it is looked whether a look is due.
const LOOK: Duration = Duration::from_secs(60);
/// How often the files of an instance are looked at.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Files that are asked for; databases come first.
const FILES: usize = 20;
/// Databases that are named in a message.
const NAMED: usize = 3;

impl Control {
    pub(crate) fn spawn_stray_keeper(&self) {
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn("looking for data outside volumes", async move {
            loop {
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
                let looked = tokio::select! {
                    () = shutdown.wait() => return,
                    looked = control.look_for_strays() => looked,
                };
                if let Err(error) = looked {
                    tracing::warn!(%error, "data outside volumes could not be looked for");
                }
            }
        });
    }

    async fn look_for_strays(&self) -> Result<(), ControlError> {
        for service in self.services().await? {
            let live = service.live.as_ref().filter(|live| live.port.is_some());
            let Some(instance) = live.and_then(|live| live.instance.clone()) else { continue };
            let is_known = lock(&self.inner.keeping.strays)
                .get(&service.id)
                .is_some_and(|last| last.instance == instance && last.seen.elapsed() < INTERVAL);
            if is_known {
                continue;
            }
            if let Err(error) = self.look_at_strays(&service, &instance).await {
                tracing::debug!(service = %service.name, %error, "the files of the instance could not be looked at");
            }
        }
        Ok(())
    }

    /// Looks at what an instance has written outside its volumes, and says what is new since the last look.
    async fn look_at_strays(
        &self,
        service: &Service,
        instance: &InstanceId,
    ) -> Result<Vec<StrayFile>, ControlError> {
        let files = self.inner.engine.stray_files(instance, FILES).await?;
        let before = {
            let seen = Strays { instance: instance.clone(), seen: Instant::now(), files: files.clone() };
            lock(&self.inner.keeping.strays).insert(service.id.clone(), seen)
        };
        let known = before.filter(|before| before.instance == *instance).map(|before| before.files);
        let is_new = |file: &&StrayFile| {
            file.is_database
                && !known.iter().flatten().any(|known| known.is_database && known.path == file.path)
        };
        let new: Vec<_> = files.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            let text = format!("the app keeps data outside its volumes: {}", named(&new));
            tracing::warn!(service = %service.name, text);
            self.announce();
        }
        Ok(files)
    }

    /// Returns the warnings about data that a service keeps outside its volumes, as seen last.
    pub(crate) fn stray_warnings(&self, service: &Service) -> Vec<String> {
        let live = service.live.as_ref().and_then(|live| live.instance.as_ref());
        let strays = lock(&self.inner.keeping.strays);
        let seen = strays.get(&service.id).filter(|seen| Some(&seen.instance) == live);
        let databases = seen.into_iter().flat_map(|seen| &seen.files).filter(|file| file.is_database);
        let text = |file: &StrayFile| {
            format!(
                "{} ({}) is a database outside every volume, and is lost with the next deployment; move it in: {}",
                file.path,
                words::bytes(file.size_bytes),
                mend(file)
            )
        };
        databases.take(NAMED).map(text).collect()
    }

    /// Refuses a deployment that would leave a database behind which the live instance keeps outside its volumes. Also
    /// says what it does not refuse. Called at step `check`; may be repeated.
    ///
    /// # Errors
    /// [`StepError::Failed`] with paths, sizes and the mend.
    pub(crate) async fn refuse_stray_data(
        &self,
        service: &Service,
        deployment: &Deployment,
    ) -> Result<(), StepError> {
        let Some(instance) = service.live.as_ref().and_then(|live| live.instance.clone()) else {
            return Ok(());
        };
        let databases = self.databases_outside(service, deployment, &instance).await;
        if databases.is_empty() {
            return Ok(());
        }
        let has_volume = !self.volumes(service).await?.is_empty();
        let is_asked_for = match deployment.kind {
            DeploymentKind::Up | DeploymentKind::Redeploy | DeploymentKind::Restart => true,
            DeploymentKind::Rollback | DeploymentKind::Restore => false,
        };
        // Whoever moves some of them in knows of the others; what they are left as is told when the old instance has ended.
        let is_allowed = deployment.adopt.is_some() || may_leave_data(&deployment.overrides);
        if has_volume && is_asked_for && !is_allowed {
            return Err(StepError::Failed(Box::new(Failure {
                stage: Step::Check,
                reason: format!(
                    "the live release keeps data outside its volumes, which would be left behind: {}",
                    named(&databases)
                ),
                hint: Some(format!(
                    "move it into a volume: {}; or leave it: --allow-data-outside",
                    mend_all(&databases)
                )),
                log_tail: Vec::new(),
            })));
        }
        let text = format!(
            "data outside the volumes stays behind: {}; it is on the box until the next deployment but one",
            named(&databases)
        );
        Ok(self.event(deployment, EventKind::Warning, &text).await?)
    }

    /// Says which databases the instance that was replaced leaves behind, as it ended. Called once it has.
    pub(crate) async fn tell_data_left(&self, deployment: &Deployment) -> Result<(), ControlError> {
        let Some(old) = &deployment.old_instance else { return Ok(()) };
        let Ok(mut files) = self.inner.engine.stray_files(old, FILES).await else { return Ok(()) };
        files.retain(|file| file.is_database && !is_adopted(deployment, file));
        if files.is_empty() {
            return Ok(());
        }
        let places: Vec<_> =
            files.iter().take(NAMED).map(|file| file.host_path.display().to_string()).collect();
        let text = format!(
            "the old release left data outside its volumes: {}; until the next deployment but one it is at {}",
            named(&files),
            places.join(", ")
        );
        self.event(deployment, EventKind::Warning, &text).await
    }

    /// Returns the databases outside the volumes of an instance that the deployment does not move in.
    async fn databases_outside(
        &self,
        service: &Service,
        deployment: &Deployment,
        instance: &InstanceId,
    ) -> Vec<StrayFile> {
        let mut files = match self.look_at_strays(service, instance).await {
            Ok(files) => files,
            Err(error) => {
                // A look that fails must not keep anybody from deploying; what was seen before counts.
                tracing::warn!(service = %service.name, %error, "data outside volumes could not be looked for");
                self.strays_seen(&service.id, instance)
            }
        };
        files.retain(|file| file.is_database && !is_adopted(deployment, file));
        files
    }

    fn strays_seen(&self, service: &ServiceId, instance: &InstanceId) -> Vec<StrayFile> {
        let strays = lock(&self.inner.keeping.strays);
        let seen = strays.get(service).filter(|seen| seen.instance == *instance);
        seen.map(|seen| seen.files.clone()).unwrap_or_default()
    }
}

/// Returns whether the flags of a deployment say that data outside the volumes may be left behind.
pub(crate) fn may_leave_data(overrides: &[(String, String)]) -> bool {
    overrides.iter().any(|(key, value)| key == ALLOW_DATA_OUTSIDE && value == "true")
}

/// Returns the flags of a deployment that are settings: a leave to do something once is none, and is not inherited.
pub(crate) fn settings_among(overrides: &[(String, String)]) -> Vec<(String, String)> {
    overrides.iter().filter(|(key, _)| key != ALLOW_DATA_OUTSIDE).cloned().collect()
}

fn is_adopted(deployment: &Deployment, file: &StrayFile) -> bool {
    deployment.adopt.as_ref().is_some_and(|adoption| {
        adoption.paths.iter().any(|path| {
            let rest = file.path.strip_prefix(path.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    })
}

fn named(files: &[StrayFile]) -> String {
    let some = files.iter().take(NAMED);
    let mut names: Vec<_> =
        some.map(|file| format!("{} ({})", file.path, words::bytes(file.size_bytes))).collect();
    if files.len() > NAMED {
        names.push(format!("and {} more", files.len() - NAMED));
    }
    names.join(", ")
}

fn mend_all(files: &[StrayFile]) -> String {
    match files {
        [only] => mend(only),
        _ => "trackbed volume adopt --all".to_owned(),
    }
}

fn mend(file: &StrayFile) -> String {
    format!("trackbed volume adopt {}", file.path)
}
