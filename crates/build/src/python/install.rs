//! Installs the dependencies of a Python source into a layer that holds `.venv` and nothing else.
//!
//! The layer is keyed by exactly what it depends on. Neither caches nor layers are shared between services, and files are
//! copied out of caches, never linked: what one service's build script writes cannot reach another's image.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use trackbed_core::image::Layer;
use trackbed_core::instance::{BindMount, LogStream};
use trackbed_core::ports::{BuildLog, BuildRequest, PortError};
use trackbed_core::{Digest, Secret};
use trackbed_stdx::files;

use crate::builder::{Workshop, blocking};
use crate::host::PIP_NAMES;
use crate::job::{self, Failure, Job};
use crate::layers::{self, Record, disk};
use crate::python::bytecode;
use crate::python::dependencies::{self, Dependencies, Install, LOCKED, join};
use crate::python::explain;
use crate::python::plan::Recipe;
use crate::tools::Uv;

/// Raised when the way of installing changes.
const FORMAT: &str = "python-dependencies 3";
const CACHE_INSIDE: &str = "/opt/trackbed/cache";
const UV_INSIDE: &str = "/opt/trackbed/bin/uv";

/// Returns the layer with the dependencies, made now or before.
pub(crate) async fn ensure(
    workshop: &Workshop,
    request: &BuildRequest,
    recipe: &Recipe,
    uv: &Uv,
    log: &dyn BuildLog,
) -> Result<(Layer, Record), PortError> {
    let deps = read(&request.source.path, recipe)?;
    for (requirement, reason) in &recipe.extra {
        log.line(LogStream::System, &format!("dependencies: {requirement} is added, because {reason}"));
    }
    let command = command(&deps, recipe);
    let whole = deps.project || deps.local;
    let digest = key(request, recipe, &deps, uv, &command, whole);
    let _turn = workshop.turn(&digest).await;
    if let Some((layer, record)) = workshop.layers.find(&digest) {
        log.line(
            LogStream::System,
            &format!("dependencies: reused layer {} ({})", digest.short(), record.summary),
        );
        return Ok((layer, record));
    }
    let file = join(&deps.folder, deps.install.file());
    let from = match deps.install {
        Install::Nothing => "none are asked for, making an empty environment".to_owned(),
        _ => format!("installing from {file}"),
    };
    log.line(LogStream::System, &format!("dependencies: {from}; layer {}", digest.short()));
    let staging = workshop.layers.stage()?;
    let folder = staging.path().to_owned();
    let (source, files) = (request.source.path.clone(), deps.files.clone());
    blocking(move || lay_out(&source, &folder, &files, whole)).await?;
    let job = Job {
        title: format!("dependencies {}", digest.short()),
        command,
        app: staging.path(),
        binds: binds(workshop, request, recipe, uv)?,
        env: environment(workshop, request).into_iter().chain([bytecode::variable()]).collect(),
    };
    job::run(workshop, request, job, log).await.map_err(|failure| match failure {
        Failure::Port(error) => error,
        Failure::Command { how, tail } => explain::install(&file, &how, &tail, &deps.list),
    })?;
    let layers = workshop.layers.clone();
    let kept = blocking(move || {
        let venv = staging.path().join(".venv");
        let packages = packages(&venv);
        let layer = staging.path().join(".layer");
        fs::create_dir(&layer)
            .and_then(|()| fs::rename(&venv, layer.join(".venv")))
            .map_err(|error| disk("cannot take the environment out of the build", &error))?;
        let plural = if packages == 1 { "" } else { "s" };
        layers.keep(&digest, &layer, &format!("{packages} package{plural}"))
    })
    .await?;
    let size = kept.0.size_bytes >> 20;
    let line = format!("dependencies: layer {} has {}, {size} MB", kept.0.digest.short(), kept.1.summary);
    log.line(LogStream::System, &line);
    Ok(kept)
}

fn read(source: &Path, recipe: &Recipe) -> Result<Dependencies, PortError> {
    let found = match recipe.install {
        Install::Nothing => None,
        _ => dependencies::find(source, &recipe.folder)?,
    };
    Ok(found.unwrap_or_else(|| Dependencies {
        folder: recipe.folder.clone(),
        install: Install::Nothing,
        project: false,
        local: false,
        files: Vec::new(),
        list: Vec::new(),
        extra: Vec::new(),
        notes: Vec::new(),
    }))
}

fn command(deps: &Dependencies, recipe: &Recipe) -> String {
    let python = quote(&recipe.python.program.display().to_string());
    let extra: String =
        recipe.extra.iter().map(|(requirement, _)| format!(" {}", quote(requirement))).collect();
    let folder =
        if deps.folder.is_empty() { "/app".to_owned() } else { quote(&format!("/app/{}", deps.folder)) };
    let pip = "uv pip install";
    let install = match deps.install {
        // pip resolves paths in a list from the working directory, uv too; the list of the root is installed at the root.
        Install::Requirements => format!("{pip} -r requirements.txt{extra}"),
        Install::UvLock => {
            let project = if deps.project { "" } else { " --no-install-project" };
            format!("uv sync --locked --no-dev{project} --python /app/.venv/bin/python")
        }
        Install::PoetryLock | Install::PdmLock | Install::PipfileLock => {
            format!("{pip} --no-deps -r {LOCKED}{extra}")
        }
        Install::Pyproject if deps.project => format!("{pip} -e .{extra}"),
        Install::Pyproject => format!("{pip} -r pyproject.toml{extra}"),
        Install::Project => format!("{pip} -e .{extra}"),
        Install::Nothing => "true".to_owned(),
    };
    format!(
        "set -e\numask 022\nuv venv --quiet --python {python} /app/.venv\ncd {folder}\n{install}\n{}",
        bytecode::COMMAND
    )
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn key(
    request: &BuildRequest,
    recipe: &Recipe,
    deps: &Dependencies,
    uv: &Uv,
    command: &str,
    whole: bool,
) -> Digest {
    let python = format!("{} {}", recipe.python.version, recipe.python.prefix.display());
    let mut parts: Vec<(&str, &[u8])> = vec![
        ("format", FORMAT.as_bytes()),
        ("arch", std::env::consts::ARCH.as_bytes()),
        ("libc", recipe.python.libc.as_bytes()),
        ("python", python.as_bytes()),
        ("uv", uv.version.as_bytes()),
        ("command", command.as_bytes()),
        ("bytecode", bytecode::CODE.as_bytes()),
        // Its index and its cache are the service's own, and so is what they gave.
        ("service", request.service.as_str().as_bytes()),
    ];
    for (path, text) in &deps.files {
        parts.push(("path", path.as_bytes()));
        parts.push(("file", text.as_bytes()));
    }
    if whole {
        parts.push(("source", request.source.digest.as_str().as_bytes()));
    }
    layers::key(&parts)
}

/// Puts the files that the install reads where it reads them.
fn lay_out(source: &Path, folder: &Path, texts: &[(String, String)], whole: bool) -> Result<(), PortError> {
    if whole {
        layers::copy_writable(source, folder).map_err(|error| disk("cannot copy the source", &error))?;
    }
    for (path, text) in texts {
        let path = folder.join(path);
        let written = path
            .parent()
            .map_or(Ok(()), |parent| {
                // Every folder on the way belongs to the job too.
                fs::create_dir_all(parent)?;
                fs::set_permissions(parent, Permissions::from_mode(0o777))
            })
            .and_then(|()| files::write_atomic(&path, text.as_bytes(), 0o644));
        written.map_err(|error| disk("cannot write the list of dependencies", &error))?;
    }
    Ok(())
}

/// Mounts for any job that installs: uv, its cache, the interpreter, and files that the environment names.
pub(crate) fn binds(
    workshop: &Workshop,
    request: &BuildRequest,
    recipe: &Recipe,
    uv: &Uv,
) -> Result<Vec<BindMount>, PortError> {
    let cache = workshop.data_dir.join(format!("cache/uv/{}", request.service_number));
    fs::create_dir_all(&cache)
        .and_then(|()| fs::set_permissions(workshop.data_dir.join("cache"), Permissions::from_mode(0o700)))
        .and_then(|()| fs::set_permissions(&cache, Permissions::from_mode(0o777)))
        .map_err(|error| disk(&format!("cannot make {}", cache.display()), &error))?;
    let bind = |host_path: &Path, inside: &str, writable| BindMount {
        host_path: host_path.display().to_string(),
        inside: inside.to_owned(),
        writable,
    };
    let mut binds = vec![bind(&uv.program, UV_INSIDE, false), bind(&cache, CACHE_INSIDE, true)];
    binds.extend(job::show(&recipe.python.prefix.display().to_string()));
    for (_, value) in workshop.host.passed() {
        if value.starts_with('/') {
            binds.extend(job::show(&value));
        }
    }
    binds.dedup();
    Ok(binds)
}

/// The environment of any job that installs: nothing of the service's but what configures the installer.
pub(crate) fn environment(workshop: &Workshop, request: &BuildRequest) -> Vec<(String, Secret<String>)> {
    let fixed = [
        ("PATH", "/opt/trackbed/bin:/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("VIRTUAL_ENV", "/app/.venv"),
        ("UV_PROJECT_ENVIRONMENT", "/app/.venv"),
        ("UV_CACHE_DIR", CACHE_INSIDE),
        ("UV_LINK_MODE", "copy"),
        ("UV_PYTHON_DOWNLOADS", "never"),
        ("UV_NO_PROGRESS", "1"),
        ("NO_COLOR", "1"),
    ];
    let mut env: Vec<(String, Secret<String>)> =
        fixed.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect();
    env.extend(workshop.host.passed().into_iter().map(|(name, value)| (name, Secret::new(value))));
    for (name, value) in of_service(&request.variables) {
        if !fixed.iter().any(|(fixed, _)| *fixed == name) {
            env.retain(|(other, _)| *other != name);
            env.push((name, value));
        }
    }
    env
}

/// The service's own variables that configure the installer. pip's names are given to uv too, unless the service sets
/// uv's own.
fn of_service(variables: &[(String, Secret<String>)]) -> Vec<(String, Secret<String>)> {
    let find = |wanted: &str| {
        let set = variables.iter().find(|(name, value)| name == wanted && !value.expose().is_empty());
        set.map(|(_, value)| value.clone())
    };
    let configures = |name: &str| name.starts_with("UV_") || name.starts_with("PIP_");
    let mut configuring: Vec<_> = variables.iter().filter(|(name, _)| configures(name)).cloned().collect();
    // A certificate's file is one of the box, which a build does not see.
    for (pip, uv) in PIP_NAMES.into_iter().filter(|(_, uv)| uv.starts_with("UV_")) {
        let is_taken = find(uv).is_some() || (pip == "PIP_INDEX_URL" && find("UV_INDEX_URL").is_some());
        if let Some(value) = find(pip).filter(|_| !is_taken) {
            configuring.push((uv.to_owned(), value));
        }
    }
    configuring
}

/// Counts what is installed.
fn packages(venv: &Path) -> usize {
    let libraries = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
    libraries
        .flat_map(|library| {
            fs::read_dir(library.path().join("site-packages")).into_iter().flatten().flatten()
        })
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".dist-info"))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_index_of_the_service_reaches_uv_by_either_name() {
        let given = |pairs: &[(&str, &str)]| {
            let variables: Vec<_> = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())))
                .collect();
            let found = of_service(&variables).into_iter();
            found.map(|(name, value)| format!("{name}={}", value.expose())).collect::<Vec<_>>()
        };
        let index = ("PIP_EXTRA_INDEX_URL", "https://me:secret@index/simple");
        assert_eq!(
            given(&[index, ("DATABASE_URL", "x")]),
            [
                "PIP_EXTRA_INDEX_URL=https://me:secret@index/simple",
                "UV_EXTRA_INDEX_URL=https://me:secret@index/simple"
            ]
        );
        assert_eq!(
            given(&[index, ("UV_EXTRA_INDEX_URL", "own")])[1..],
            ["UV_EXTRA_INDEX_URL=own".to_owned()]
        );
        assert_eq!(given(&[("UV_INDEX_URL", "own"), ("PIP_INDEX_URL", "pip")]).len(), 2);
    }
}
