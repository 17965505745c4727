//! Runs the jobs: a live release with a schedule has no instance but at its ticks.
//!
//! A tick whose predecessor still runs is skipped, and said so. What runs is in `live`, as an instance that serves is, so
//! a deployment ends it before it touches the volumes, and a new control plane takes it up.

use std::time::Duration;

use trackbed_core::InstanceId;
use trackbed_core::ids::ID_BYTES;
use trackbed_core::instance::{Exit, InstanceState};
use trackbed_core::job::{Job, RunEnd};
use trackbed_core::service::{Live, Service};
use trackbed_stdx::random;

use crate::control::{Control, ControlError};
use crate::spec::{Data, Process, Start};

impl Control {
    /// Notes what ended, and starts what is due. Repeating it is fine.
    pub(crate) async fn look_after_job(&self, service: &Service, live: Live) -> Result<(), ControlError> {
        let Some(mut job) = live.job.clone() else { return Ok(()) };
        let before = live.clone();
        job.set_clock(self.now());
        let running = self.note_ends(service, &mut job, live.instance.as_ref()).await?;
        let now = self.now();
        let due = job.next().filter(|due| *due <= now);
        let mut live = Live { instance: running.clone(), ..live };
        match (due, &running) {
            (Some(due), Some(_)) => {
                tracing::warn!(service = %service.name, "a run is skipped: the one before still runs");
                job.serve(due, now, None);
            }
            (Some(due), None) => {
                let instance = InstanceId::from_random(random::bytes::<ID_BYTES>());
                job.serve(due, now, Some(instance.clone()));
                live.instance = Some(instance);
            }
            (None, _) => {}
        }
        live.job = Some(job);
        if live != before {
            self.store_live(service, live.clone()).await?;
        }
        match &live.instance {
            // Also one that was stored before a crash and never began.
            Some(instance) => self.start_run(service, &live, instance).await,
            None => Ok(()),
        }
    }

    async fn start_run(
        &self,
        service: &Service,
        live: &Live,
        instance: &InstanceId,
    ) -> Result<(), ControlError> {
        let start = Start {
            service,
            release: &live.release,
            instance,
            deployment: None,
            data: Data::Live,
            process: Process::Job,
        };
        // A backup that has begun since the last run holds the volumes for its moment.
        let started = {
            let _turn = self.turn_to_capture(&service.id).await;
            self.start_on(start).await
        };
        match started {
            Ok(_) => Ok(()),
            // It never ran, and the next tick is another chance.
            Err(ControlError::Port(error)) => {
                tracing::error!(service = %service.name, %error, "a run could not be started");
                let Some(mut job) = live.job.clone() else { return Ok(()) };
                let end = RunEnd { at: self.now(), exit: Exit::Setup { message: error.message } };
                for run in job.runs.iter_mut().filter(|run| run.instance.as_ref() == Some(instance)) {
                    run.end.get_or_insert(end.clone());
                }
                self.store_live(service, Live { instance: None, job: Some(job), ..live.clone() }).await
            }
            Err(error) => Err(error),
        }
    }

    /// Notes how runs have ended, and returns the one that runs or is about to.
    pub(crate) async fn note_ends(
        &self,
        service: &Service,
        job: &mut Job,
        current: Option<&InstanceId>,
    ) -> Result<Option<InstanceId>, ControlError> {
        let mut running = None;
        for run in job.runs.iter_mut().filter(|run| run.end.is_none()) {
            let Some(instance) = &run.instance else { continue };
            let end = match self.inner.engine.inspect(instance).await?.map(|status| status.state) {
                Some(InstanceState::Starting | InstanceState::Running) => {
                    running = Some(instance.clone());
                    continue;
                }
                Some(InstanceState::Ended { exit, at }) => RunEnd { at, exit },
                None if current == Some(instance) => {
                    running = Some(instance.clone());
                    continue;
                }
                None => RunEnd { at: self.now(), exit: Exit::Lost },
            };
            let text = end.exit.to_string();
            match end.exit.is_success() {
                true => tracing::info!(service = %service.name, %instance, "a run {text}"),
                false => tracing::warn!(service = %service.name, %instance, "a run {text}"),
            }
            run.end = Some(end);
        }
        Ok(running)
    }

    /// Returns how long it is until the next tick.
    pub(crate) fn until_tick(&self, job: &Job) -> Duration {
        job.next().map_or(Duration::MAX, |next| next.since(self.now()))
    }
}
