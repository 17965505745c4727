//! `trackbed status`: the box and what runs on it.

use anyhow::Result;
use serde_json::{Value, json};
use trackbed_api::{BoxInfo, Instance, Job, Process, Service};
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, count, duration, headline, pause, plain, size, span};
use crate::names::parse_name;
use crate::output::Ink;
use crate::session::Session;
use crate::target::Target;

/// Show the box and every service on it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trackbed status\n  trackbed status -s api\n  trackbed status --json | jq '.services[].url'"
)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Show this service only [default: the box and all services]
    #[arg(long, short, value_name = "NAME", value_parser = parse_name)]
    service: Option<String>,
    /// Show the services of this project only
    #[arg(long, short, value_name = "NAME", value_parser = parse_name)]
    project: Option<String>,
}

impl Args {
    fn is_about(&self, service: &Service) -> bool {
        self.service.as_ref().is_none_or(|name| *name == service.service)
            && self.project.as_ref().is_none_or(|name| *name == service.project)
    }
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let client = session.client();
    let info = client.box_info().await?;
    let all = client.services().await?;
    let is_narrow = args.service.is_some() || args.project.is_some();
    let services: Vec<_> = all.iter().filter(|service| args.is_about(service)).collect();
    if is_narrow && services.is_empty() {
        let target = Target { service: args.service.clone(), project: args.project.clone() };
        return Err(target.unknown(&all));
    }
    let output = &session.output;
    if args.json {
        let services: Vec<_> = services.iter().copied().map(service_json).collect::<Result<_, _>>()?;
        output.json_pretty(&json!({ "box": info, "services": services }))?;
        return Ok(0);
    }
    if !is_narrow {
        for line in box_lines(&info) {
            output.result(line)?;
        }
    }
    let now = now_ms();
    for (place, service) in services.iter().enumerate() {
        let ink = match service.state.as_str() {
            "running" => Ink::Good,
            "crashed" | "blocked" => Ink::Bad,
            "restarting" => Ink::Odd,
            _ => Ink::Dim,
        };
        if place > 0 || !is_narrow {
            output.result("")?;
        }
        let name = output.ink_result(Ink::Bold, &service_name(service));
        output.result(format!(
            "{name}  {}{}",
            output.ink_result(ink, &service.state),
            release(service, now)
        ))?;
        for line in service_lines(service, now) {
            output.result(format!("  {line}"))?;
        }
    }
    if services.is_empty() {
        output.talk("no services yet: `trackbed up` in the folder of an app makes the first one");
    }
    Ok(0)
}

/// A service as the API tells it, and beside it what scripts ask for most.
fn service_json(service: &Service) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(service)?;
    value["name"] = json!(service_name(service));
    value["version"] = json!(service.release.as_ref().map(|release| format!("v{}", release.version)));
    value["isolation_level"] = json!(service.isolation.level);
    Ok(value)
}

fn service_name(service: &Service) -> String {
    if service.project == service.service {
        service.service.clone()
    } else {
        format!("{}/{}", service.project, service.service)
    }
}

fn box_lines(info: &BoxInfo) -> Vec<String> {
    let edge = match &info.edge {
        Some(edge) => {
            let earlier = match edge.draining {
                0 => String::new(),
                count => format!(", {count} replaced and finishing what is open"),
            };
            format!("serving *.{} on {}, {}{earlier}", info.domain, edge.listen, size(edge.resident_bytes))
        }
        None => "not answering".to_owned(),
    };
    let mut lines = vec![
        format!("box        trackbed {}, {}, pid {}", info.version, size(info.resident_bytes), info.pid),
        format!("edge       {edge}"),
        format!("data       {}", info.data_dir),
        format!("isolation  {}", info.isolation.level),
    ];
    if let Some(copies) = &info.backup {
        let last = copies.succeeded_at.map_or("none yet".to_owned(), |at| ago(now_ms(), at));
        let missing = match copies.missing_objects {
            0 => String::new(),
            objects => format!(", {} to go", count(objects, "object")),
        };
        lines.push(format!("copies     {}, last {last}{missing}", plain(&copies.url)));
        lines.extend(copies.warning.iter().map(|warning| format!("           WARNING: {warning}")));
    }
    lines.extend(info.isolation.missing.iter().map(|missing| format!("           missing: {missing}")));
    lines
}

fn release(service: &Service, now: i64) -> String {
    match &service.release {
        Some(release) => format!("  v{} of {}", release.version, ago(now, release.created_at)),
        None => String::new(),
    }
}

fn service_lines(service: &Service, now: i64) -> Vec<String> {
    let mut lines = vec![service.url.clone()];
    lines.extend(service.detail.clone());
    // The figures of an instance that ended say nothing.
    let runs = !matches!(service.state.as_str(), "stopped" | "crashed" | "blocked");
    if let Some(instance) = service.instance.as_ref().filter(|_| runs) {
        let up = span(now - instance.started_at).unwrap_or_else(|| "a moment".to_owned());
        let port = instance.port.map(|port| format!("port {port}, ")).unwrap_or_default();
        let restarts = match instance.restarts {
            0 => String::new(),
            1 => ", restarted once".to_owned(),
            count => format!(", restarted {count} times in a row"),
        };
        let memory = size(instance.memory_bytes);
        // A static site: nothing of it runs that could be measured.
        lines.push(match service.release.as_ref().is_some_and(|release| release.provider == "static") {
            true => format!("up {up}, its files are served by the edge, without a process"),
            false => format!("{port}up {up}, {memory}, {:.1} CPU s{restarts}", instance.cpu_seconds),
        });
        lines.push(format!(
            "{}, {} open{}",
            count(instance.requests, "request"),
            instance.in_flight,
            streams(instance)
        ));
        lines.extend(instance.processes.iter().map(|process| process_line(process, now)));
    }
    if let Some(job) = &service.job {
        lines.extend(job_lines(job, now));
    }
    if service.parked > 0 {
        let verb = if service.parked == 1 { "waits" } else { "wait" };
        lines.push(format!("{} {verb} for it at the edge", count(service.parked, "request")));
    }
    lines.extend(service.warnings.iter().map(|warning| format!("! {}", plain(warning))));
    for volume in &service.volumes {
        let (used, free) = (size(volume.used_bytes), size(volume.free_bytes));
        let limit = volume.limit_bytes.map_or_else(String::new, |limit| format!(" of {}", size(limit)));
        lines.push(format!("volume {} at {}: {used}{limit} used, {free} free", volume.name, volume.mount));
    }
    if !service.volumes.is_empty() {
        lines.push(data(service, now));
    }
    if service.isolation.level != "full" {
        lines.push(format!("isolation {}", service.isolation.level));
    }
    if let Some(deployment) = &service.deploying {
        lines.push(format!("deploying: {} ({})", deployment.step, deployment.id));
    } else if let Some(deployment) = &service.last_deployment
        && let Some(failure) = &deployment.failure
    {
        let when = ago(now, deployment.finished_at.unwrap_or(deployment.created_at));
        let reason = headline(&failure.reason);
        lines.push(format!("last deployment failed {when} at {}: {reason}", failure.stage));
    }
    if let Some(seen) = service.last_deployment.as_ref().and_then(|deployment| deployment.pause.as_ref()) {
        lines.push(format!("last deployment: {}", pause(seen)));
    }
    if let Some(undone) = service.last_deployment.as_ref().and_then(|last| last.data_undone.as_ref()) {
        lines.push(format!("last deployment: {}", headline(undone)));
    }
    lines
}

/// How a process beside the main one does: `worker.1  up 3 min`, `! worker.1 crashed 4 times, last it exited with code 1`.
fn process_line(process: &Process, now: i64) -> String {
    let name = plain(&process.name);
    let how = match process.since {
        Some(since) => format!("up {}", span(now - since).unwrap_or_else(|| "a moment".to_owned())),
        None => "waits to be started again".to_owned(),
    };
    let last = process.last.as_deref().unwrap_or_default();
    let times = |count: u32| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    match (process.failures, process.ends) {
        (0, 0) => format!("{name}  {how}"),
        (0, ends) => format!("{name}  {how}, ended {}, last it {last}", times(ends)),
        (failures, _) => format!("! {name} crashed {}, last it {last}; {how}", times(failures)),
    }
}

/// Runs of a job that are listed; `--json` has more.
const RUNS_LISTED: usize = 5;

/// When a job runs, and how its last runs ended, the newest first.
fn job_lines(job: &Job, now: i64) -> Vec<String> {
    let next = match job.next_at {
        Some(at) => {
            span(at - now).map_or_else(|| ", next now".to_owned(), |wait| format!(", next in {wait}"))
        }
        None => String::new(),
    };
    let mut lines = vec![format!("job at `{}` UTC{next}", job.schedule)];
    lines.extend(job.runs.iter().rev().take(RUNS_LISTED).map(|run| {
        let how = match (run.state.as_str(), &run.outcome) {
            ("skipped", _) => "skipped, because the one before still ran",
            (_, Some(outcome)) => outcome,
            (_, None) => "runs",
        };
        format!("run {}: {how}", ago(now, run.due_at))
    }));
    lines
}

/// How far the data could go back for certain: `data: restore point 5 min ago, proven restorable: 2 h ago`.
fn data(service: &Service, now: i64) -> String {
    match (service.last_restore_point, service.last_proven) {
        (Some(at), Some(proven)) => {
            format!("data: restore point {}, proven restorable: {}", ago(now, at), ago(now, proven))
        }
        (Some(at), None) => format!("data: restore point {}, none is proven restorable yet", ago(now, at)),
        (None, _) => {
            let bare = service.volumes.iter().filter(|volume| volume.last_restore_point.is_none());
            let bare: Vec<_> = bare.map(|volume| volume.name.as_str()).collect();
            format!("data: no restore point yet of {}", bare.join(", "))
        }
    }
}

/// The open streams of an instance: `, 3 streams (1 WebSocket; oldest 4 min 2 s, longest silence 14 s)`.
fn streams(instance: &Instance) -> String {
    let time = |ms: u64| duration(i64::try_from(ms).unwrap_or(i64::MAX));
    let websockets = match instance.websockets {
        0 => String::new(),
        1 => "1 WebSocket; ".to_owned(),
        count => format!("{count} WebSockets; "),
    };
    match instance.streams {
        0 => ", no streams".to_owned(),
        count => format!(
            ", {count} stream{} ({websockets}oldest {}, longest silence {})",
            if count == 1 { "" } else { "s" },
            time(instance.oldest_stream_ms),
            time(instance.longest_silence_ms)
        ),
    }
}
