//! From the domain to the wire. Nothing is decided here.

use trackbed_api as wire;
use trackbed_control::{Control, ServiceState, ServiceStatus};
use trackbed_core::deployment::{
    Deployment, DeploymentKind, DeploymentState, Event, EventKind, Failure, Withdrawal,
};
use trackbed_core::git::{Commit, Via};
use trackbed_core::instance::{Exit, LogLine, LogStream};
use trackbed_core::isolation::Isolation;
use trackbed_core::job::{Job, Run};
use trackbed_core::plan::Plan;
use trackbed_core::process::ProcessStatus;
use trackbed_core::release::Release;
use trackbed_core::service::Service;
use trackbed_core::settings::{Handover, Origin};

use crate::convert_data::DataOfDeployment;

pub(crate) fn deployment(
    control: &Control,
    deployment: &Deployment,
    service: &Service,
    release: Option<&Release>,
    data: DataOfDeployment,
) -> wire::Deployment {
    let live = service.live.as_ref().map(|live| &live.release);
    wire::Deployment {
        id: deployment.id.to_string(),
        project: service.project_name.to_string(),
        service: service.name.to_string(),
        kind: match deployment.kind {
            DeploymentKind::Up => "up",
            DeploymentKind::Redeploy => "redeploy",
            DeploymentKind::Rollback => "rollback",
            DeploymentKind::Restart => "restart",
            DeploymentKind::Restore => "restore",
        }
        .into(),
        commit: deployment.commit.as_ref().map(commit),
        status: match deployment.told() {
            DeploymentState::Queued => "queued",
            DeploymentState::Building => "building",
            DeploymentState::Deploying => "deploying",
            DeploymentState::Success => "success",
            DeploymentState::Failed => "failed",
            DeploymentState::Superseded => "superseded",
            DeploymentState::Cancelled => "cancelled",
            DeploymentState::Skipped => "skipped",
        }
        .into(),
        step: deployment.step.as_str().into(),
        release: release.map(Release::label),
        image_bytes: deployment.image.as_ref().map(trackbed_core::image::Image::size_bytes),
        handover: deployment.handover.map(|handover| {
            match handover {
                Handover::Overlap => "overlap",
                Handover::Held => "held",
            }
            .into()
        }),
        hold_window_ms: deployment.hold_window_ms,
        pause: deployment.pause.map(|pause| wire::Pause {
            longest_ms: pause.longest_ms,
            requests: pause.requests,
            refused: pause.refused,
        }),
        pins: data.pins,
        restores: data.restores,
        replaced: data.replaced,
        adopts: data.adopts,
        data_undone: deployment.data_undone.clone(),
        rehearsal_took_ms: deployment.rehearsal_took_ms,
        failure: deployment.failure.as_ref().map(failure),
        superseded_by: match &deployment.withdrawal {
            Some(Withdrawal::Superseded { by }) => Some(by.to_string()),
            Some(Withdrawal::Cancelled | Withdrawal::Skipped { .. }) | None => None,
        },
        skipped: match &deployment.withdrawal {
            Some(Withdrawal::Skipped { reason }) => Some(reason.clone()),
            Some(Withdrawal::Cancelled | Withdrawal::Superseded { .. }) | None => None,
        },
        live: deployment.state == DeploymentState::Success
            && live.is_some()
            && live == deployment.release.as_ref(),
        url: control.url(&service.host),
        created_at: deployment.created_at.0,
        finished_at: deployment.finished_at.map(|at| at.0),
    }
}

pub(crate) fn commit(commit: &Commit) -> wire::Commit {
    wire::Commit {
        via: match commit.via {
            Via::Push => "push",
            Via::Remote => "remote",
        }
        .into(),
        id: commit.id.clone(),
        branch: commit.branch.clone(),
        subject: commit.subject.clone(),
    }
}

fn failure(failure: &Failure) -> wire::Failure {
    wire::Failure {
        stage: failure.stage.as_str().into(),
        reason: failure.reason.clone(),
        hint: failure.hint.clone(),
        log_tail: failure.log_tail.clone(),
    }
}

pub(crate) fn event(event: &Event) -> wire::Event {
    wire::Event {
        sequence: event.sequence,
        at: event.at.0,
        step: event.step.as_str().into(),
        kind: match event.kind {
            EventKind::Started => "started",
            EventKind::Done => "done",
            EventKind::Note => "note",
            EventKind::Warning => "warning",
            EventKind::Failed => "failed",
        }
        .into(),
        message: event.message.clone(),
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Flag => "flag",
        Origin::TrackbedToml => "trackbed-toml",
        Origin::Railway => "railway",
        Origin::Railpack => "railpack",
        Origin::Nixpacks => "nixpacks",
        Origin::Procfile => "procfile",
        Origin::Platform => "platform",
        Origin::Detection => "detection",
        Origin::Stored => "stored",
        Origin::Default => "default",
    }
}

pub(crate) fn plan(plan: Plan) -> wire::Plan {
    wire::Plan {
        provider: plan.provider,
        summary: plan.summary,
        settings: plan
            .settings
            .into_iter()
            .map(|setting| wire::PlannedSetting {
                key: setting.key,
                value: setting.value,
                place: setting.place,
                origin: origin(setting.origin).into(),
            })
            .collect(),
        warnings: plan
            .warnings
            .into_iter()
            .map(|warning| wire::Warning { file: warning.file, line: warning.line, message: warning.message })
            .collect(),
    }
}

pub(crate) fn isolation(isolation: Isolation) -> wire::IsolationInfo {
    wire::IsolationInfo { level: isolation.level.as_str().into(), missing: isolation.missing }
}

pub(crate) fn stream(stream: LogStream) -> String {
    match stream {
        LogStream::Out => "out",
        LogStream::Err => "err",
        LogStream::System => "system",
    }
    .into()
}

pub(crate) fn log_line(line: LogLine, instance: Option<String>) -> wire::LogLine {
    let LogLine { at, stream: from, process, text } = line;
    wire::LogLine { at: at.0, stream: stream(from), text, instance, process }
}

/// What of a service's view is found outside the control plane.
pub(crate) struct Around {
    pub(crate) volumes: Vec<wire::Volume>,
    pub(crate) isolation: Isolation,
    pub(crate) last_deployment: Option<wire::Deployment>,
}

fn job(job: &Job) -> wire::Job {
    let run = |run: &Run| wire::JobRun {
        due_at: run.due_at.0,
        state: match (&run.instance, &run.end) {
            (None, _) => "skipped",
            (Some(_), None) => "running",
            (Some(_), Some(_)) => "ended",
        }
        .into(),
        instance: run.instance.as_ref().map(ToString::to_string),
        ended_at: run.end.as_ref().map(|end| end.at.0),
        exit_code: match run.end.as_ref().map(|end| &end.exit) {
            Some(Exit::Code { code }) => Some(*code),
            _ => None,
        },
        outcome: run.end.as_ref().map(|end| end.exit.to_string()),
    };
    wire::Job {
        schedule: job.schedule.to_string(),
        next_at: job.next().map(|at| at.0),
        runs: job.runs.iter().map(run).collect(),
    }
}

fn process(process: &ProcessStatus) -> wire::Process {
    wire::Process {
        name: process.name.clone(),
        since: process.since.map(|since| since.0),
        ends: process.ends,
        failures: process.failures,
        last: process.last.as_ref().map(ToString::to_string),
    }
}

pub(crate) fn service(control: &Control, status: ServiceStatus, around: Around) -> wire::Service {
    let live = status.service.live.as_ref();
    let instance = status.instance.as_ref().map(|instance| wire::Instance {
        id: instance.id.to_string(),
        port: live.and_then(|live| live.port),
        started_at: instance.started_at.0,
        restarts: live.map_or(0, |live| live.restarts),
        memory_bytes: status.stats.memory_bytes,
        cpu_seconds: status.stats.cpu.as_secs_f64(),
        in_flight: status.traffic.in_flight,
        streams: status.traffic.streams,
        websockets: status.traffic.websockets,
        oldest_stream_ms: status.traffic.oldest_stream_ms,
        longest_silence_ms: status.traffic.longest_silence_ms,
        requests: status.traffic.requests,
        processes: instance.processes.iter().map(process).collect(),
    });
    // What holds for all its data is what holds for the worst of its volumes.
    let worst = |of: fn(&wire::Volume) -> Option<i64>| around.volumes.iter().map(of).min().flatten();
    let (last_restore_point, last_proven, last_proof) = (
        worst(|volume| volume.last_restore_point),
        worst(|volume| volume.last_proven),
        worst(|volume| volume.last_proof),
    );
    let under_way = ["queued", "building", "deploying"];
    wire::Service {
        project: status.service.project_name.to_string(),
        service: status.service.name.to_string(),
        state: match status.state {
            ServiceState::New => "new",
            ServiceState::Starting => "starting",
            ServiceState::Running => "running",
            ServiceState::Restarting => "restarting",
            ServiceState::Stopped => "stopped",
            ServiceState::Crashed => "crashed",
            ServiceState::Blocked => "blocked",
            ServiceState::Scheduled => "scheduled",
        }
        .into(),
        detail: status.detail,
        url: control.url(&status.service.host),
        job: live.and_then(|live| live.job.as_ref()).map(job),
        release: status.release.map(|release| wire::Release {
            version: release.version,
            provider: release.image.provider,
            source: release.source.to_string(),
            created_at: release.created_at.0,
        }),
        deploying: around
            .last_deployment
            .clone()
            .filter(|deployment| under_way.contains(&deployment.status.as_str())),
        last_deployment: around.last_deployment,
        volumes: around.volumes,
        isolation: isolation(around.isolation),
        parked: status.parked,
        warnings: status.warnings,
        pids: status.instance.map(|instance| instance.pids).unwrap_or_default(),
        instance,
        last_restore_point,
        last_proven,
        last_proof,
    }
}
