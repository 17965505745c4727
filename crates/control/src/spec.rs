//! From a release to the instance that runs it.

use trackbed_core::instance::{AppTree, InstanceKind, InstanceSpec, VolumeMount};
use trackbed_core::ports::VolumePlace;
use trackbed_core::process::Formation;
use trackbed_core::release::Release;
use trackbed_core::service::Service;
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, ReleaseId, VolumeId};

use crate::control::{Control, ControlError};
use crate::environment::{InstanceEnvironment, for_instance};

/// Processes and threads of an instance when nothing else is asked for: far above any backend, far below a fork bomb.
const PIDS_DEFAULT: u32 = 1024;

/// What an instance finds in its volumes.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    /// The data of the service.
    Live,
    /// Copies in places of their own. It has no network: nothing that it does may reach the world.
    Copies(&'a [(VolumeId, VolumePlace)]),
}

/// Which command of the release it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// The start command, which listens.
    Service,
    /// The start command of a job, which ends and does not listen.
    Job,
    /// The one that prepares the data, which ends and does not listen.
    PreDeploy,
}

/// What stands for a port where nobody listens.
pub(crate) const PORT_PLACEHOLDER: u16 = 8080;

/// An instance to start.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) service: &'a Service,
    pub(crate) release: &'a ReleaseId,
    /// Its id, which is already stored.
    pub(crate) instance: &'a InstanceId,
    pub(crate) deployment: Option<&'a str>,
    pub(crate) data: Data<'a>,
    pub(crate) process: Process,
}

impl Control {
    /// Starts an instance of a release under an id that is already stored. Repeating it is fine.
    pub(crate) async fn start_instance(
        &self,
        service: &Service,
        release: &ReleaseId,
        instance: &InstanceId,
        deployment: Option<&str>,
    ) -> Result<Release, ControlError> {
        let (data, process) = (Data::Live, Process::Service);
        self.start_on(Start { service, release, instance, deployment, data, process }).await
    }

    /// Starts an instance on data. Repeating it is fine.
    pub(crate) async fn start_on(&self, start: Start<'_>) -> Result<Release, ControlError> {
        let Start { service, release, instance, deployment, data, process } = start;
        let (service_id, release_id) = (service.id.clone(), release.clone());
        let (release, owner, volumes, mut links) = self
            .inner
            .store
            .with(move |db| {
                let release = db.load_release(&release_id)?;
                let owner = db.load_release_variables(&release_id)?;
                Ok((release, owner, db.list_volumes(&service_id)?, db.list_app_links(&service_id)?))
            })
            .await?;
        if self.inner.engine.inspect(instance).await?.is_some() {
            return Ok(release);
        }
        let port = match (release.config.port, process) {
            (Some(port), _) => port,
            (None, Process::Service) => self.inner.engine.free_port().await?,
            (None, Process::Job | Process::PreDeploy) => PORT_PLACEHOLDER,
        };
        let label = release.label();
        let (command, title) = match process {
            Process::Service | Process::Job => {
                (Some(&release.config.start_command), format!("{} {label}", service.name))
            }
            Process::PreDeploy => {
                (release.config.pre_deploy.as_ref(), format!("pre-deploy of {} {label}", service.name))
            }
        };
        let mut mounts = Vec::new();
        for volume in &volumes {
            let place = match data {
                Data::Live => self.inner.volumes.ensure(volume).await?,
                Data::Copies(places) => match places.iter().find(|(id, _)| *id == volume.id) {
                    Some((_, place)) => place.clone(),
                    None => continue,
                },
            };
            mounts.push(VolumeMount {
                volume: volume.id.clone(),
                host_path: place.directory.to_string_lossy().into_owned(),
                lock_path: place.lock.to_string_lossy().into_owned(),
                mount: volume.mount.clone(),
                shared: release.config.shares_volumes(),
            });
        }
        // A link into a volume that is removed leads nowhere; the app then finds what its image has there.
        links.retain(|link| {
            let below = |mount: &VolumeMount| link.to.strip_prefix(mount.mount.as_str());
            mounts.iter().filter_map(below).any(|rest| rest.starts_with('/'))
        });
        let env = for_instance(&InstanceEnvironment {
            service,
            release: &release,
            deployment,
            instance,
            volumes: &volumes,
            url: &self.url(&service.host),
            port,
            owner: &owner,
        });
        // A copy of the data is for the main process alone: what runs beside it mostly waits for others, which are out of
        // reach there.
        let formation = match (process, data) {
            (Process::Service, Data::Live) => release.config.formation(),
            (Process::Service, Data::Copies(_)) | (Process::Job | Process::PreDeploy, _) => {
                Formation::default()
            }
        };
        let limits =
            Limits { pids: release.config.limits.pids.or(Some(PIDS_DEFAULT)), ..release.config.limits };
        let spec = InstanceSpec {
            id: instance.clone(),
            kind: InstanceKind::Service,
            service: service.id.clone(),
            service_number: service.number,
            title,
            command: command.cloned().unwrap_or_default(),
            formation,
            app: AppTree::Image { image: Box::new(release.image.clone()) },
            volumes: mounts,
            binds: Vec::new(),
            env,
            limits,
            port: (process == Process::Service).then_some(port),
            offline: matches!(data, Data::Copies(_)),
            links,
        };
        self.inner.engine.start(&spec).await?;
        Ok(release)
    }
}
