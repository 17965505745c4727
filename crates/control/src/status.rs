//! How a service does, and what it wrote.

use trackbed_core::deployment::Deployment;
use trackbed_core::instance::{Exit, InstanceState, InstanceStats, InstanceStatus, LogCursor, LogLine};
use trackbed_core::release::Release;
use trackbed_core::route::TargetStats;
use trackbed_core::service::{Service, Wanted};
use trackbed_core::settings::Handover;
use trackbed_core::volume::Volume;
use trackbed_core::{InstanceId, Secret};

use trackbed_core::ports::BuildLog;

use crate::control::{Control, ControlError};

/// How a service does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// Nothing was ever live.
    New,
    /// The live release is being started.
    Starting,
    /// It serves.
    Running,
    /// It ended and is started again.
    Restarting,
    /// Stopped on purpose.
    Stopped,
    /// It ended and is not started again.
    Crashed,
    /// It is not started, because its data could not be put back after a deployment that failed.
    Blocked,
    /// It is a job that waits for its next tick.
    Scheduled,
}

/// How a service does.
#[derive(Debug, Clone)]
pub struct ServiceStatus {
    /// The service.
    pub service: Service,
    /// In one word.
    pub state: ServiceState,
    /// One sentence about the state when it needs one: how it ended, and what brings an earlier release back.
    pub detail: Option<String>,
    /// The live release.
    pub release: Option<Release>,
    /// Its instance, as the engine sees it.
    pub instance: Option<InstanceStatus>,
    /// What the instance uses.
    pub stats: InstanceStats,
    /// What the edge counts for it.
    pub traffic: TargetStats,
    /// Requests that wait at the edge.
    pub parked: u64,
    /// What is odd about the streams of the live release, about its data and their backups, and the mend.
    pub warnings: Vec<String>,
    /// The newest deployment.
    pub last_deployment: Option<Deployment>,
    /// Its volumes, by mount path.
    pub volumes: Vec<Volume>,
}

/// Lines of a service, across its instances.
#[derive(Debug)]
pub struct ServiceLogPage {
    /// Oldest first, each with the instance that wrote it.
    pub lines: Vec<(InstanceId, LogLine)>,
    /// Where to go on: instance and place.
    pub next: Option<(InstanceId, LogCursor)>,
}

/// Most lines in one page of a service's log.
const PAGE_LINES: usize = 2000;

impl Control {
    /// Returns how a service does now.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn status(&self, service: Service) -> Result<ServiceStatus, ControlError> {
        let (id, live) = (service.id.clone(), service.live.clone());
        let (release, before, last_deployment, volumes) = self
            .inner
            .store
            .with(move |db| {
                let release = live.map(|live| db.load_release(&live.release)).transpose()?;
                let before = match &release {
                    Some(release) => db.find_release_before(&id, release.version)?,
                    None => None,
                };
                let last_deployment = db.list_deployments(&id, 1)?.into_iter().next();
                Ok((release, before, last_deployment, db.list_volumes(&id)?))
            })
            .await?;
        let id = service.live.as_ref().and_then(|live| live.instance.clone());
        let mut instance = None;
        let mut stats = InstanceStats::default();
        let edge = self.inner.edge.stats().await.unwrap_or_default();
        let mut traffic = TargetStats::default();
        let parked = edge.parked.get(service.id.as_str()).map_or(0, |parked| parked.now);
        let mut warnings = self.stream_warnings(&service).await?;
        warnings.extend(self.data_warnings(&service).await?);
        if let Some(id) = id {
            instance = self.inner.engine.inspect(&id).await?;
            stats = self.inner.engine.stats(&id).await.unwrap_or_default();
            traffic = edge.targets.get(id.as_str()).copied().unwrap_or_default();
        }
        let mut state = state_of(&service, instance.as_ref());
        let mut detail = detail_of(&service, state, instance.as_ref(), before.as_ref());
        if state == ServiceState::Restarting && last_deployment.as_ref().is_some_and(holds_callers) {
            // Its end was asked for: nothing has gone wrong.
            state = ServiceState::Starting;
            detail = Some("it was stopped for the next release, which starts; callers wait".to_owned());
        }
        Ok(ServiceStatus {
            service,
            state,
            detail,
            release,
            instance,
            stats,
            traffic,
            parked,
            warnings,
            last_deployment,
            volumes,
        })
    }

    /// Returns lines of a service's instances, of all processes or those of one. With `from` none, the last `tail` lines.
    ///
    /// # Errors
    /// When the engine's records cannot be read.
    pub async fn service_logs(
        &self,
        service: &Service,
        from: Option<(InstanceId, LogCursor)>,
        tail: usize,
        process: Option<&str>,
    ) -> Result<ServiceLogPage, ControlError> {
        let mut instances = self.inner.engine.list().await?;
        instances.retain(|instance| instance.service == service.id);
        instances.sort_by_key(|instance| instance.started_at);
        let mut lines = Vec::new();
        let first =
            from.as_ref().and_then(|(id, _)| instances.iter().position(|instance| instance.id == *id));
        let mut next = None;
        for (index, instance) in instances.iter().enumerate().skip(first.unwrap_or(0)) {
            let mut cursor = match &from {
                Some((id, cursor)) if *id == instance.id => *cursor,
                _ => LogCursor::START,
            };
            loop {
                let page = self.inner.engine.logs(&instance.id, cursor, PAGE_LINES).await?;
                let is_last = page.lines.len() < PAGE_LINES;
                cursor = page.next;
                let wanted =
                    page.lines.into_iter().filter(|line| process.is_none_or(|process| line.is_of(process)));
                lines.extend(wanted.map(|line| (instance.id.clone(), line)));
                if from.is_none() && lines.len() > tail {
                    lines.drain(..lines.len() - tail);
                }
                if is_last || from.is_some() && lines.len() >= PAGE_LINES {
                    break;
                }
            }
            next = Some((instance.id.clone(), cursor));
            let more = from.is_some() && lines.len() >= PAGE_LINES;
            if more && index + 1 < instances.len() {
                break;
            }
        }
        Ok(ServiceLogPage { lines, next })
    }

    /// Runs a command inside the live instance of a service. Dropping the future ends it.
    ///
    /// # Errors
    /// When nothing runs.
    pub async fn run(
        &self,
        service: &Service,
        command: &[String],
        log: &dyn BuildLog,
    ) -> Result<Exit, ControlError> {
        let refusal = || ControlError::Conflict {
            message: format!("service `{}` has no running instance", service.name),
            hint: Some(match service.live {
                Some(_) => "start it first: trackbed restart".into(),
                None => "deploy it first: trackbed up".into(),
            }),
        };
        let live = service.live.as_ref().ok_or_else(refusal)?;
        let instance = live.instance.as_ref().ok_or_else(refusal)?;
        let release = live.release.clone();
        let (owner, release) = self
            .inner
            .store
            .with(move |db| Ok((db.load_release_variables(&release)?, db.load_release(&release)?)))
            .await?;
        let volumes = self.volumes(service).await?;
        let env: Vec<(String, Secret<String>)> =
            crate::environment::for_instance(&crate::environment::InstanceEnvironment {
                service,
                release: &release,
                deployment: None,
                instance,
                volumes: &volumes,
                url: &self.url(&service.host),
                port: live.port.unwrap_or_default(),
                owner: &owner,
            });
        Ok(self.inner.engine.exec(instance, command, &env, log).await?)
    }
}

/// Returns whether a deployment has stopped the live release, so that its own may have the volume.
fn holds_callers(deployment: &Deployment) -> bool {
    let is_held = deployment.handover == Some(Handover::Held);
    is_held && !deployment.state.is_terminal() && deployment.step.has_parked()
}

fn state_of(service: &Service, instance: Option<&InstanceStatus>) -> ServiceState {
    let runs = matches!(
        instance.map(|instance| &instance.state),
        Some(InstanceState::Starting | InstanceState::Running)
    );
    let is_blocked = service.live.as_ref().is_some_and(|live| !live.unsettled.is_empty());
    if is_blocked && !runs {
        return ServiceState::Blocked;
    }
    if service.wanted == Wanted::Stopped && !runs {
        return ServiceState::Stopped;
    }
    let Some(live) = &service.live else { return ServiceState::New };
    if live.job.is_some() {
        return if runs { ServiceState::Running } else { ServiceState::Scheduled };
    }
    match (service.wanted, &live.given_up) {
        (_, Some(_)) => ServiceState::Crashed,
        _ if live.port.is_some() && runs => ServiceState::Running,
        _ if live.restarts > 0 || !runs => ServiceState::Restarting,
        _ => ServiceState::Starting,
    }
}

/// Says how the live release ended, and that the one before it is one command away.
fn detail_of(
    service: &Service,
    state: ServiceState,
    instance: Option<&InstanceStatus>,
    before: Option<&Release>,
) -> Option<String> {
    let live = service.live.as_ref()?;
    let text = match (state, &live.given_up, instance.map(|instance| &instance.state)) {
        // Its reason names the ways out.
        (ServiceState::Blocked, Some(reason), _) => return Some(reason.clone()),
        (ServiceState::Crashed, Some(reason), _) => reason.clone(),
        (ServiceState::Restarting, _, Some(InstanceState::Ended { exit, .. })) => {
            format!("it {exit}, and is started again")
        }
        (ServiceState::Restarting, _, _) if live.restarts > 0 => "it ended, and is started again".to_owned(),
        _ => return None,
    };
    // Without a restart in a row behind it, an end is no reason to doubt the release.
    let back = before.filter(|_| live.restarts > 0 || live.given_up.is_some());
    Some(match back {
        Some(before) => format!("{text}; to go back: trackbed rollback {}", before.label()),
        None => text,
    })
}
