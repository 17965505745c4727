//! The pre-flight of any release: are the variables there that its start command names, and does the image hold what it
//! runs? Nothing of the app itself runs; what only running would show is left to the health gate.

use std::sync::Mutex;
use std::time::Duration;

use trackbed_core::instance::{AppTree, Exit, InstanceKind, InstanceSpec, LogStream};
use trackbed_core::ports::{BuildLog, JobEnd, JobRunner, PortError, Preflight, PreflightRequest};
use trackbed_core::process::Formation;
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, Secret};
use trackbed_stdx::random;

use crate::python;
use crate::python::command;

/// A shell starts in a millisecond, an interpreter in some 20; ten seconds are a box that is busy with something else.
const TIME_LIMIT: Duration = Duration::from_secs(10);
const PIDS_MAX: u32 = 64;
/// Lines that are kept at all.
const LINES_MAX: usize = 200;
/// What a line of the look for programs begins with.
const MISSING: &str = "TRACKBED-MISSING ";
/// Looks for the programs that it is given, as the app's own shell would.
const LOOK: &str = "cd /app && for word in $TRACKBED_PREFLIGHT_PROGRAMS; do \
                    command -v \"$word\" >/dev/null || echo \"TRACKBED-MISSING $word\"; done";

/// Looks. Never fails for a reason of the box.
pub(crate) async fn run(jobs: &dyn JobRunner, request: PreflightRequest) -> Preflight {
    let mut warnings = Vec::new();
    let (used, required) = command::variables(&request.command);
    let is_set = |name: &String| request.env.iter().any(|(known, _)| known == name);
    if let Some(name) = required.iter().find(|name| !is_set(name)) {
        let error = PortError::new(format!("the start command requires ${name}, which is not set"));
        return Preflight::Failed(error.hint(format!("trackbed variables set {name}=…")));
    }
    for name in used.iter().filter(|name| !is_set(name) && !matches!(name.as_str(), "HOME" | "PWD" | "PATH"))
    {
        warnings.push(format!(
            "the start command uses ${name}, which is not set: it stands for nothing; trackbed variables set {name}=…"
        ));
    }
    if request.image.container.is_some() {
        // The sandbox, in which it is looked, is not where it runs.
        return Preflight::Passed {
            found: "what is in a container's image is not looked into".to_owned(),
            warnings,
        };
    }
    match request.image.provider.as_str() {
        "python" => python::preflight::run(jobs, request, warnings).await,
        _ => programs(jobs, request, warnings).await,
    }
}

/// Looks whether the programs of the start command are there.
async fn programs(jobs: &dyn JobRunner, request: PreflightRequest, warnings: Vec<String>) -> Preflight {
    let named: Vec<String> = command::read(&request.command)
        .into_iter()
        // One that is entered by `cd` first is named from there.
        .filter(|ask| ask.folder.is_empty() || !ask.program.contains('/'))
        .map(|ask| ask.program)
        .filter(|program| !program.is_empty() && !program.contains(char::is_whitespace))
        .collect();
    if named.is_empty() {
        return Preflight::Passed { found: "nothing to look for".to_owned(), warnings };
    }
    let list = ("TRACKBED_PREFLIGHT_PROGRAMS", named.join(" "));
    let lines = match look(jobs, request, LOOK.to_owned(), &[list]).await {
        Ok((_, lines)) => lines,
        Err(reason) => return Preflight::NotRun(reason),
    };
    if let Some(program) = lines.iter().find_map(|line| line.strip_prefix(MISSING)) {
        let error = PortError::new(format!(
            "the start command runs `{program}`, which is neither in the image nor on the box"
        ));
        return Preflight::Failed(error.hint("is it spelt right, and does the build make it?"));
    }
    Preflight::Passed { found: format!("{} found", named.join(", ")), warnings }
}

/// Runs a command in the image, as the release would, without its volumes. Returns how it ended and its lines, or why it
/// could not be run.
pub(crate) async fn look(
    jobs: &dyn JobRunner,
    request: PreflightRequest,
    command: String,
    more: &[(&str, String)],
) -> Result<(Exit, Vec<String>), String> {
    let mut env = request.env;
    env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value.clone()))));
    let spec = InstanceSpec {
        id: InstanceId::from_random(random::bytes()),
        kind: InstanceKind::Job,
        service: request.service,
        service_number: request.service_number,
        title: request.title,
        command,
        formation: Formation::default(),
        app: AppTree::Image { image: Box::new(request.image) },
        volumes: Vec::new(),
        binds: Vec::new(),
        env,
        limits: Limits { memory_bytes: None, cpu_millis: None, pids: Some(PIDS_MAX) },
        port: None,
        offline: false,
        links: Vec::new(),
    };
    let lines = Lines::default();
    let end = jobs.run_job(spec, TIME_LIMIT, &lines).await;
    let lines = lines.0.into_inner().unwrap_or_default();
    match end {
        Err(error) => Err(error.message),
        Ok(JobEnd::TimedOut) => Err(format!("it took longer than {} s", TIME_LIMIT.as_secs())),
        Ok(JobEnd::Exit(Exit::Setup { message })) => Err(message),
        Ok(JobEnd::Exit(exit @ (Exit::Lost | Exit::Oom | Exit::Signal { .. }))) => Err(format!("it {exit}")),
        Ok(JobEnd::Exit(exit @ Exit::Code { .. })) => Ok((exit, lines)),
    }
}

/// The lines of the job, the last ones if there are many.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl BuildLog for Lines {
    fn line(&self, stream: LogStream, text: &str) {
        if stream == LogStream::System {
            return;
        }
        let mut lines = self.0.lock().expect("no holder of this lock panics");
        if lines.len() == LINES_MAX {
            lines.remove(0);
        }
        lines.push(text.to_owned());
    }
}
