//! Builds what a provider asks for as steps: an install whose layer depends on the lists of dependencies alone, then a
//! build command on the source with that layer under it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trackbed_core::image::Layer;
use trackbed_core::instance::{BindMount, LogStream};
use trackbed_core::ports::{BuildLog, BuildRequest, PortError};
use trackbed_core::{Digest, Secret};
use trackbed_stdx::files;

use crate::builder::{Made, Workshop, blocking};
use crate::explain;
use crate::fetch;
use crate::job::{self, Failure, Job};
use crate::layers::{self, disk};
use crate::toolchain::Program;

/// Raised when the way of running steps changes.
const FORMAT: &str = "steps 3";
/// Where the caches of a service are while it is built.
const CACHE_INSIDE: &str = "/opt/trackbed/cache";

/// What a provider asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// Raised when the fields change their meaning.
    pub(crate) version: u32,
    /// Programs that the steps and the app need.
    pub(crate) programs: Vec<Program>,
    /// Whether the app runs with them, or the build alone needs them.
    pub(crate) at_run: bool,
    /// Gets the dependencies.
    pub(crate) install: Option<Install>,
    /// Makes the source into what is started.
    pub(crate) build: Option<String>,
    /// Commands of Trackbed's own that follow the build.
    pub(crate) after: Option<String>,
    /// What the build leaves behind that is not part of the app, relative to it.
    pub(crate) drop: Vec<String>,
    /// Variables of the service that the install may see.
    pub(crate) secrets: Vec<String>,
    /// Environment of the steps, in which `{cache}` is the folder of caches.
    pub(crate) build_env: Vec<(String, String)>,
    /// Environment that the image brings.
    pub(crate) env: Vec<(String, String)>,
    /// Folders of programs in the app, for `PATH`.
    pub(crate) path: Vec<String>,
}

/// Gets the dependencies into a layer of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Install {
    /// The files that it reads, relative to the source.
    pub(crate) reads: Vec<String>,
    /// The command.
    pub(crate) command: String,
    /// The folder that it makes, relative to the source.
    pub(crate) makes: String,
}

/// The recipe's version.
pub(crate) const RECIPE_VERSION: u32 = 2;

/// Makes an environment of what is written down in a provider.
pub(crate) fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Builds.
pub(crate) async fn build(
    workshop: &Workshop,
    request: &BuildRequest,
    provider: &str,
    log: &dyn BuildLog,
) -> Result<Made, PortError> {
    let recipe: Recipe = serde_json::from_value(request.plan.recipe.clone())
        .ok()
        .filter(|recipe: &Recipe| recipe.version == RECIPE_VERSION)
        .ok_or_else(|| {
            PortError::new("the plan was made by another version of Trackbed").hint("plan and build again")
        })?;
    make(workshop, request, &recipe, provider, log).await
}

/// Builds by a recipe.
pub(crate) async fn make(
    workshop: &Workshop,
    request: &BuildRequest,
    recipe: &Recipe,
    provider: &str,
    log: &dyn BuildLog,
) -> Result<Made, PortError> {
    for program in &recipe.programs {
        let (title, path) = (program.tool.title(), program.path.display());
        if !program.path.exists() {
            return Err(PortError::new(format!("{title} {} is gone: {path}", program.version))
                .hint("deploy again, so that another one is looked for"));
        }
        fetch::renew(&workshop.data_dir, &program.path);
        log.line(LogStream::System, &format!("{title} {} from {path}", program.version));
    }
    let steps = Steps { workshop, request, recipe, log };
    let dependencies = match &recipe.install {
        Some(install) => Some(steps.install(install).await?),
        None => None,
    };
    let layers = match recipe.build.is_some() || recipe.after.is_some() {
        true => {
            let built = steps.run(dependencies.as_ref()).await?;
            std::iter::once(built).chain(dependencies).collect()
        }
        false => {
            log.line(LogStream::System, &format!("source: {}", request.source.digest.short()));
            std::iter::once(layers::source_layer(&workshop.data_dir, request)).chain(dependencies).collect()
        }
    };
    let mut env = recipe.env.clone();
    let folders = recipe.path.iter().map(|folder| format!("/app/{folder}"));
    let tools = recipe.programs.iter().filter(|_| recipe.at_run);
    env.insert(0, ("PATH".to_owned(), search_path(folders, tools)));
    let shown = recipe.programs.iter().filter(|_| recipe.at_run).flat_map(Program::shown);
    let mut host_paths: Vec<String> = shown.map(|path| path.display().to_string()).collect();
    host_paths.sort();
    host_paths.dedup();
    Ok(Made { provider: provider.to_owned(), layers, host_paths, env, site: None, container: None })
}

/// The usual places, after the app's own and those of the programs.
fn search_path<'a>(own: impl Iterator<Item = String>, programs: impl Iterator<Item = &'a Program>) -> String {
    let mut folders: Vec<String> =
        own.chain(programs.map(|program| program.folder().display().to_string())).collect();
    folders.extend(["/usr/local/bin", "/usr/bin", "/bin"].map(str::to_owned));
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders.join(":")
}

struct Steps<'a> {
    workshop: &'a Workshop,
    request: &'a BuildRequest,
    recipe: &'a Recipe,
    log: &'a dyn BuildLog,
}

impl Steps<'_> {
    fn say(&self, text: &str) {
        self.log.line(LogStream::System, text);
    }

    /// Returns the layer of the dependencies, made now or before.
    async fn install(&self, install: &Install) -> Result<Layer, PortError> {
        let texts = self.read(&install.reads).await?;
        let mut parts = self.key_parts("install", &install.command);
        for (path, text) in &texts {
            parts.push(("path", path.clone().into_bytes()));
            parts.push(("file", text.clone()));
        }
        let digest = key(&parts);
        let _turn = self.workshop.turn(&digest).await;
        if let Some((layer, record)) = self.workshop.layers.find(&digest) {
            self.say(&format!("dependencies: reused layer {} ({})", digest.short(), record.summary));
            return Ok(layer);
        }
        self.say(&format!("dependencies: {}; layer {}", install.command, digest.short()));
        let staging = self.workshop.layers.stage()?;
        let folder = staging.path().to_owned();
        blocking(move || lay_out(&folder, &texts)).await?;
        self.command(staging.path(), "dependencies", &install.command, "", false).await?;
        let (layers, makes) = (self.workshop.layers.clone(), install.makes.clone());
        let (layer, record) = blocking(move || {
            let layer = staging.path().join(".layer");
            let made = staging.path().join(&makes);
            let kept = std::fs::create_dir_all(&made).and_then(|()| {
                let target = layer.join(&makes);
                std::fs::create_dir_all(target.parent().unwrap_or(&layer))?;
                std::fs::rename(&made, &target)
            });
            kept.map_err(|error| disk("cannot take the dependencies out of the build", &error))?;
            layers.keep(&digest, &layer, &makes)
        })
        .await?;
        let megabytes = layer.size_bytes >> 20;
        self.say(&format!(
            "dependencies: layer {} has {}, {megabytes} MB",
            layer.digest.short(),
            record.summary
        ));
        Ok(layer)
    }

    /// Returns the layer of the built source.
    async fn run(&self, dependencies: Option<&Layer>) -> Result<Layer, PortError> {
        let command = self.recipe.build.as_deref().unwrap_or_default();
        let after = self.recipe.after.as_deref().unwrap_or_default();
        let source = self.request.source.digest.as_str().as_bytes().to_vec();
        let below = dependencies.map(|layer| layer.digest.as_str().as_bytes().to_vec()).unwrap_or_default();
        let mut parts = self.key_parts("build", command);
        let variables = layers::variables_key(&self.request.variables).as_str().as_bytes().to_vec();
        parts.extend([("after", after.as_bytes().to_vec()), ("source", source), ("dependencies", below)]);
        parts.push(("variables", variables));
        parts.extend(self.recipe.drop.iter().map(|path| ("drop", path.clone().into_bytes())));
        let digest = key(&parts);
        let _turn = self.workshop.turn(&digest).await;
        if let Some((layer, _)) = self.workshop.layers.find(&digest) {
            self.say(&format!("build command: reused layer {}", digest.short()));
            return Ok(layer);
        }
        if !command.is_empty() {
            self.say(&format!("build command: {command}"));
        }
        let staging = self.workshop.layers.stage()?;
        let (folder, source) = (staging.path().to_owned(), self.request.source.path.clone());
        let below = dependencies.map(|layer| self.workshop.data_dir.join(&layer.path));
        blocking(move || {
            let copied = layers::copy_writable(&source, &folder)
                .and_then(|()| below.map_or(Ok(()), |below| layers::copy_writable(&below, &folder)));
            copied.map_err(|error| disk("cannot copy source and dependencies", &error))
        })
        .await?;
        self.command(staging.path(), "build", command, after, true).await?;
        let (layers, drop) = (self.workshop.layers.clone(), self.recipe.drop.clone());
        let made = self.recipe.install.as_ref().map(|install| install.makes.clone());
        let below = dependencies.map(|layer| self.workshop.data_dir.join(&layer.path));
        let (layer, _) = blocking(move || {
            let remove = |path: &str| {
                let removed = files::remove_tree(&staging.path().join(path));
                removed.map_err(|error| disk("cannot tidy the build", &error))
            };
            drop.iter().try_for_each(|path| remove(path))?;
            // The layer below has it already, unless the build changed it, as generators of code do.
            if let (Some(made), Some(below)) = (made, below)
                && layers::same(&below.join(&made), &staging.path().join(&made))
            {
                remove(&made)?;
            }
            layers.keep(&digest, staging.path(), "build command")
        })
        .await?;
        self.say(&format!("build command: layer {} ({} MB)", layer.digest.short(), layer.size_bytes >> 20));
        Ok(layer)
    }

    /// What every layer of this recipe depends on. The service is part of it, because its variables and caches reach the
    /// commands: what one service's packages leave there never becomes part of another's image. Nothing
    /// that the platform injects is among it, nor any time; the owner's variables count for the build command alone, which
    /// sees them.
    fn key_parts(&self, step: &'static str, command: &str) -> Vec<(&'static str, Vec<u8>)> {
        let mut parts = vec![
            ("format", FORMAT.as_bytes().to_vec()),
            ("step", step.as_bytes().to_vec()),
            ("arch", std::env::consts::ARCH.as_bytes().to_vec()),
            ("command", command.as_bytes().to_vec()),
            ("service", self.request.service.as_str().as_bytes().to_vec()),
        ];
        for program in &self.recipe.programs {
            let text = format!("{} {} {}", program.tool.program(), program.version, program.path.display());
            parts.push(("program", text.into_bytes()));
        }
        for (name, value) in &self.recipe.build_env {
            parts.push(("env", format!("{name}={value}").into_bytes()));
        }
        parts
    }

    async fn read(&self, names: &[String]) -> Result<Vec<(String, Vec<u8>)>, PortError> {
        let (source, names) = (self.request.source.path.clone(), names.to_vec());
        blocking(move || {
            names
                .into_iter()
                .map(|name| {
                    let text = std::fs::read(source.join(&name))
                        .map_err(|error| PortError::new(format!("cannot read {name}: {error}")))?;
                    Ok((name, text))
                })
                .collect()
        })
        .await
    }

    /// Runs a command in the sandbox. The service's variables reach the build, as on Railway. The install sees those that
    /// its configuration names: a package's script has no business with the others.
    async fn command(
        &self,
        app: &Path,
        what: &str,
        command: &str,
        after: &str,
        with_variables: bool,
    ) -> Result<(), PortError> {
        let job = Job {
            title: format!("{what} {}", self.request.source.digest.short()),
            command: format!("set -e\numask 022\n{command}\n{after}\n"),
            app,
            binds: self.binds()?,
            env: self.environment(with_variables),
        };
        let ran = job::run(self.workshop, self.request, job, self.log).await;
        ran.map_err(|failure| match failure {
            Failure::Port(error) => error,
            Failure::Command { how, tail } => explain::command(command, &how, &tail),
        })
    }

    fn binds(&self) -> Result<Vec<BindMount>, PortError> {
        let cache = self.cache()?;
        let mut binds = vec![BindMount {
            host_path: cache.display().to_string(),
            inside: CACHE_INSIDE.to_owned(),
            writable: true,
        }];
        let shown = self.recipe.programs.iter().flat_map(Program::shown);
        binds.extend(shown.filter_map(|path| job::show(&path.display().to_string())));
        let passed = self.workshop.host.passed();
        let files = passed.iter().filter(|(_, value)| value.starts_with('/'));
        binds.extend(files.filter_map(|(_, value)| job::show(value)));
        binds.dedup();
        Ok(binds)
    }

    /// Caches are a service's own: what its packages' scripts write cannot reach another service's image.
    fn cache(&self) -> Result<PathBuf, PortError> {
        use std::os::unix::fs::PermissionsExt;
        let root = self.workshop.data_dir.join("cache");
        let cache = root.join(format!("{}/{}", self.request.plan.provider, self.request.service_number));
        let mode = std::fs::Permissions::from_mode;
        std::fs::create_dir_all(&cache)
            .and_then(|()| std::fs::set_permissions(&root, mode(0o700)))
            .and_then(|()| std::fs::set_permissions(&cache, mode(0o777)))
            .map_err(|error| disk(&format!("cannot make {}", cache.display()), &error))?;
        Ok(cache)
    }

    fn environment(&self, with_variables: bool) -> Vec<(String, Secret<String>)> {
        let own = self.recipe.path.iter().map(|folder| format!("/app/{folder}"));
        let mut env = vec![
            ("PATH".to_owned(), search_path(own, self.recipe.programs.iter())),
            ("HOME".to_owned(), "/tmp".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("CI".to_owned(), "true".to_owned()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ];
        env.extend(self.workshop.host.passed());
        let placed = |value: &String| value.replace("{cache}", CACHE_INSIDE);
        env.extend(self.recipe.build_env.iter().map(|(name, value)| (name.clone(), placed(value))));
        let mut env: Vec<_> = env.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let fixed: Vec<String> = env.iter().map(|(name, _)| name.clone()).collect();
        for (name, value) in &self.request.variables {
            let may_see = with_variables || self.recipe.secrets.contains(name);
            if may_see && !fixed.contains(name) {
                env.push((name.clone(), value.clone()));
            }
        }
        env
    }
}

fn key(parts: &[(&str, Vec<u8>)]) -> Digest {
    let parts: Vec<(&str, &[u8])> = parts.iter().map(|(label, part)| (*label, part.as_slice())).collect();
    layers::key(&parts)
}

/// Puts the files that the install reads where it reads them, in folders that belong to the job.
fn lay_out(folder: &Path, texts: &[(String, Vec<u8>)]) -> Result<(), PortError> {
    for (path, text) in texts {
        layers::write_for_job(folder, path, text)
            .map_err(|error| disk("cannot write the list of dependencies", &error))?;
    }
    Ok(())
}
