//! Builds the image of a Python source: the layer of its dependencies, and on top the source itself or what its build
//! command made of it.

use trackbed_core::Secret;
use trackbed_core::image::Layer;
use trackbed_core::instance::LogStream;
use trackbed_core::ports::{BuildLog, BuildRequest, PortError};

use crate::builder::{Made, Workshop, blocking};
use crate::job::{self, Failure, Job};
use crate::layers::{self, Record, disk};
use crate::python::plan::{RECIPE_VERSION, Recipe};
use crate::python::{explain, install};
use crate::tools::Uv;

/// Raised when the way of running build commands changes.
const FORMAT: &str = "python-build-command 1";
/// What an instance has in its environment before the service's variables.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/app/.venv/bin:/usr/local/bin:/usr/bin:/bin"),
    ("VIRTUAL_ENV", "/app/.venv"),
    ("PYTHONUNBUFFERED", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("LANG", "C.UTF-8"),
];

/// Builds.
pub(crate) async fn build(
    workshop: &Workshop,
    request: &BuildRequest,
    uv: &Uv,
    log: &dyn BuildLog,
) -> Result<Made, PortError> {
    let recipe: Recipe = serde_json::from_value(request.plan.recipe.clone())
        .ok()
        .filter(|recipe: &Recipe| recipe.version == RECIPE_VERSION)
        .ok_or_else(|| {
            PortError::new("the plan was made by another version of Trackbed").hint("plan and build again")
        })?;
    let python = &recipe.python;
    if !python.program.exists() {
        return Err(PortError::new(format!(
            "Python {} is gone: {}",
            python.version,
            python.program.display()
        ))
        .hint("deploy again, so that another one is looked for"));
    }
    log.line(LogStream::System, &format!("python {} from {}", python.version, python.program.display()));
    let (deps, deps_record) = install::ensure(workshop, request, &recipe, uv, log).await?;
    let layers = match &recipe.build_command {
        None => {
            log.line(LogStream::System, &format!("source: {}", request.source.digest.short()));
            vec![layers::source_layer(&workshop.data_dir, request), deps]
        }
        Some(command) => {
            let (built, record) =
                run_command(workshop, request, &recipe, uv, (&deps, &deps_record), command, log).await?;
            // With its own `.venv` it stands alone: a file that the command removed must not show through.
            if record.has_venv { vec![built] } else { vec![built, deps] }
        }
    };
    let host_paths = if python.is_system() { Vec::new() } else { vec![python.prefix.display().to_string()] };
    Ok(Made {
        provider: "python".to_owned(),
        layers,
        host_paths,
        site: None,
        env: ENVIRONMENT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        container: None,
    })
}

async fn run_command(
    workshop: &Workshop,
    request: &BuildRequest,
    recipe: &Recipe,
    uv: &Uv,
    (deps, deps_record): (&Layer, &Record),
    command: &str,
    log: &dyn BuildLog,
) -> Result<(Layer, Record), PortError> {
    let digest = layers::key(&[
        ("format", FORMAT.as_bytes()),
        ("source", request.source.digest.as_str().as_bytes()),
        ("dependencies", deps.digest.as_str().as_bytes()),
        ("command", command.as_bytes()),
        ("variables", layers::variables_key(&request.variables).as_str().as_bytes()),
    ]);
    let _turn = workshop.turn(&digest).await;
    if let Some(found) = workshop.layers.find(&digest) {
        log.line(LogStream::System, &format!("build command: reused layer {}", digest.short()));
        return Ok(found);
    }
    log.line(LogStream::System, &format!("build command: {command}"));
    let staging = workshop.layers.stage()?;
    let (source, venv) = (request.source.path.clone(), workshop.data_dir.join(&deps.path));
    let folder = staging.path().to_owned();
    blocking(move || {
        layers::copy_writable(&source, &folder)
            .and_then(|()| layers::copy_writable(&venv, &folder))
            .map_err(|error| disk("cannot copy source and dependencies", &error))
    })
    .await?;
    let mut env = install::environment(workshop, request);
    for (name, value) in &request.variables {
        env.retain(|(other, _)| other != name);
        env.push((name.clone(), value.clone()));
    }
    env.retain(|(name, _)| name != "PATH");
    let path = "/app/.venv/bin:/opt/trackbed/bin:/usr/local/bin:/usr/bin:/bin";
    env.push(("PATH".to_owned(), Secret::new(path.to_owned())));
    // A fresh environment has no pip, and people write `pip install` into build commands.
    let pip = command.split(|c: char| !c.is_alphanumeric()).any(|word| word == "pip" || word == "pip3");
    let seed = if pip { "uv pip install --quiet pip\n" } else { "" };
    let job = Job {
        title: format!("build {}", request.source.digest.short()),
        command: format!("set -e\numask 022\n{seed}{command}\n"),
        app: staging.path(),
        binds: install::binds(workshop, request, recipe, uv)?,
        env,
    };
    job::run(workshop, request, job, log).await.map_err(|failure| match failure {
        Failure::Port(error) => error,
        Failure::Command { how, tail } => explain::command(command, &how, &tail),
    })?;
    let layers = workshop.layers.clone();
    let (venv, size) = (workshop.data_dir.join(&deps.path).join(".venv"), deps_record.size_bytes);
    let kept = blocking(move || {
        let own = staging.path().join(".venv");
        // Unchanged: the layer below has it already.
        if layers::same(&venv, &own) {
            trackbed_stdx::files::remove_tree(&own).map_err(|error| disk("cannot tidy the build", &error))?;
        }
        layers.keep(&digest, staging.path(), "build command")
    })
    .await?;
    let line = format!(
        "build command: layer {} ({} MB; dependencies {} MB)",
        kept.0.digest.short(),
        kept.0.size_bytes >> 20,
        size >> 20
    );
    log.line(LogStream::System, &line);
    Ok(kept)
}
