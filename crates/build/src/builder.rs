//! The builder of this box: plans and builds below one data directory, with jobs run by whoever has the sandbox.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use trackbed_core::finding::Findings;
use trackbed_core::image::{ContainerImage, Image, Layer, Site};
use trackbed_core::instance::LogStream;
use trackbed_core::plan::Plan;
use trackbed_core::ports::{
    BuildLog, BuildRequest, Builder, CheckRequest, Images, JobRunner, LetGo, PlanRequest, PortError,
    Preflight, PreflightRequest, Source, SourceChanges, Suspect,
};
use trackbed_core::route::StreamFault;
use trackbed_core::{Digest, Timestamp};
use trackbed_stdx::clock;

use crate::changes;
use crate::check::{self, Known};
use crate::collect;
use crate::dockerfile;
use crate::host::Host;
use crate::job;
use crate::layers::{self, Layers};
use crate::planner::{self, Outcome};
use crate::preflight;
use crate::python::build as python;
use crate::python::interpreters::{Interpreter, Interpreters};
use crate::python::suspects;
use crate::python::wanted::Wanted;
use crate::site;
use crate::steps;
use crate::toolchain::HostPrograms;
use crate::tools::{self, Uv};

/// What a builder needs.
pub struct Config {
    /// Where sources, layers and caches live: `sources`, `layers`, `build`, `tmp`, `cache`, `tools` below it.
    pub data_dir: PathBuf,
    /// Runs commands in the sandbox.
    pub jobs: Arc<dyn JobRunner>,
    /// Makes images where a source brings a Dockerfile or names an image.
    pub images: Arc<dyn Images>,
    /// The environment of the process. `HOME`, `PATH` and `PYENV_ROOT` say where to look for tools; certificates,
    /// proxies and package indexes reach installs, by a fixed list of names. Nothing else is used.
    pub environment: Vec<(String, String)>,
    /// How many builds may run at once.
    pub builds: usize,
    /// Most memory of one build, in bytes; none is the builds' share of the box.
    pub memory_bytes: Option<u64>,
}

/// Builds on this box.
pub struct LocalBuilder {
    workshop: Workshop,
    images: Arc<dyn Images>,
    shared: Arc<Shared>,
}

/// What providers work with.
pub(crate) struct Workshop {
    pub(crate) data_dir: PathBuf,
    pub(crate) jobs: Arc<dyn JobRunner>,
    pub(crate) host: Host,
    pub(crate) layers: Layers,
    /// Most memory of one command; none where nobody knows how much there is.
    pub(crate) memory_bytes: Option<u64>,
    turns: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

/// What blocking work takes along.
struct Shared {
    data_dir: PathBuf,
    host: Host,
    interpreters: Interpreters,
    programs: HostPrograms,
    uv: Mutex<Option<Uv>>,
}

/// What a provider made.
pub(crate) struct Made {
    pub(crate) provider: String,
    pub(crate) layers: Vec<Layer>,
    pub(crate) host_paths: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// How it is served without a process; the topmost layer has the files then.
    pub(crate) site: Option<Site>,
    /// The image of a container engine, which then is all there is.
    pub(crate) container: Option<ContainerImage>,
}

impl LocalBuilder {
    /// Makes a builder. Touches nothing yet.
    pub fn new(config: Config) -> Self {
        let host = Host::new(config.environment);
        let shared = Shared {
            data_dir: config.data_dir.clone(),
            host: host.clone(),
            interpreters: Interpreters::default(),
            programs: HostPrograms::new(host.clone(), config.data_dir.clone()),
            uv: Mutex::default(),
        };
        let workshop = Workshop {
            layers: Layers::new(config.data_dir.clone()),
            memory_bytes: config.memory_bytes.or_else(|| job::share_of_memory(config.builds)),
            data_dir: config.data_dir,
            jobs: config.jobs,
            host,
            turns: Mutex::default(),
        };
        Self { workshop, images: config.images, shared: Arc::new(shared) }
    }

    /// Plans; none means that it must be known first whether there is a container engine.
    async fn try_plan(
        &self,
        request: PlanRequest,
        engine: Option<Result<String, PortError>>,
    ) -> Result<Option<Plan>, PortError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let plan = || planner::plan(&request, &shared.pythons(), &shared.programs, engine.as_ref());
            let (wanted, error) = match plan()? {
                Outcome::Ready(plan) => return Ok(Some(*plan)),
                Outcome::AsksEngine => return Ok(None),
                Outcome::NoPython { wanted, error } => (wanted, error),
            };
            let Some(version) = fetchable(&wanted) else { return Err(error) };
            let fetched = shared
                .uv()
                .map_err(|error| error.message)
                .and_then(|uv| tools::fetch_python(&shared.host, &shared.data_dir, &uv, &version));
            if let Err(cause) = fetched {
                let message = format!("{}; fetching it failed: {cause}", error.message);
                return Err(PortError { message, hint: error.hint });
            }
            match plan()? {
                Outcome::Ready(plan) => Ok(Some(*plan)),
                Outcome::AsksEngine => Ok(None),
                Outcome::NoPython { error, .. } => Err(error),
            }
        })
        .await
    }

    /// Removes what an earlier process left half made: call it once at start, before anything is received or built.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn sweep(&self) -> Result<(), PortError> {
        let layers = self.workshop.layers.clone();
        blocking(move || {
            layers.sweep().map_err(|error| layers::disk("cannot tidy the data directory", &error))
        })
        .await
        .map_err(|error| layers::name_disk(error, &self.workshop.data_dir))
    }
}

#[async_trait]
impl Builder for LocalBuilder {
    async fn plan(&self, request: PlanRequest) -> Result<Plan, PortError> {
        if let Some(plan) = self.try_plan(request.clone(), None).await? {
            return Ok(plan);
        }
        let engine = self.images.engine().await;
        let plan = self.try_plan(request, Some(engine)).await?;
        plan.ok_or_else(|| PortError::new("the plan asks for a container engine again and again"))
    }

    async fn check(&self, request: CheckRequest) -> Result<Findings, PortError> {
        blocking(move || {
            let variables = request.variables.into_iter().map(|(name, value)| (name, value.into_exposed()));
            let known = Known {
                is_service: true,
                variables: variables.collect(),
                mounts: request.mounts.iter().map(ToString::to_string).collect(),
            };
            let folder = &request.source.path;
            let has = |name: &str| folder.join(name).is_file();
            let (facts, _) = check::facts(folder, Ok(&request.plan), &known, &has);
            Ok(check::look(folder, None, &facts, None))
        })
        .await
    }

    async fn preflight(&self, request: PreflightRequest) -> Preflight {
        preflight::run(self.workshop.jobs.as_ref(), request).await
    }

    async fn suspects(&self, source: &Source, fault: StreamFault) -> Result<Vec<Suspect>, PortError> {
        let folder = source.path.clone();
        blocking(move || Ok(suspects::find(&folder, fault))).await
    }

    async fn changes(
        &self,
        from: &Source,
        to: &Source,
        patterns: &[String],
    ) -> Result<SourceChanges, PortError> {
        let (from, to, patterns) = (from.path.clone(), to.path.clone(), patterns.to_vec());
        blocking(move || changes::between(&from, &to, &patterns)).await
    }

    async fn build(&self, request: BuildRequest, log: &dyn BuildLog) -> Result<Image, PortError> {
        let made = match request.plan.provider.as_str() {
            "python" => {
                let shared = Arc::clone(&self.shared);
                let uv = blocking(move || shared.uv()).await?;
                python::build(&self.workshop, &request, &uv, log).await
            }
            site::PROVIDER => site::build(&self.workshop, &request, log).await,
            dockerfile::PROVIDER => dockerfile::build(self.images.as_ref(), &request, log).await,
            provider => steps::build(&self.workshop, &request, provider, log).await,
        };
        let made = made.map_err(|error| layers::name_disk(error, &self.workshop.data_dir))?;
        let mut text = format!("{}\n", made.provider);
        for layer in &made.layers {
            text.push_str(&format!("layer {}\n", layer.digest));
        }
        for path in &made.host_paths {
            text.push_str(&format!("host {path}\n"));
        }
        for (name, value) in &made.env {
            text.push_str(&format!("env {name}={value}\n"));
        }
        if let Some(site) = &made.site {
            text.push_str(&format!("site {site:?}\n"));
        }
        if let Some(container) = &made.container {
            text.push_str(&format!("container {}\n", container.id));
        }
        let digest = layers::key(&[("image 1", text.as_bytes())]);
        log.line(LogStream::System, &format!("image {}", digest.short()));
        Ok(Image {
            digest,
            provider: made.provider,
            layers: made.layers,
            host_paths: made.host_paths,
            env: made.env,
            site: made.site,
            built_at: Timestamp(clock::now_ms()),
            container: made.container,
        })
    }

    async fn collect(&self, keep: &[Image], sources: &[Digest]) -> Result<LetGo, PortError> {
        let containers = keep.iter().filter_map(|image| image.container.as_ref());
        let containers: Vec<String> = containers.map(|container| container.id.clone()).collect();
        // An engine that does not answer keeps its images until the next time, and nobody else from letting go.
        match self.images.collect(&containers).await {
            Ok(0) => {}
            Ok(images) => tracing::info!(images, "container images that nobody needs were let go of"),
            Err(error) => tracing::warn!(%error, "container images that nobody needs are still there"),
        }
        let (data_dir, keep, sources) = (self.workshop.data_dir.clone(), keep.to_vec(), sources.to_vec());
        blocking(move || {
            collect::collect(&data_dir, &keep, &sources)
                .map_err(|error| layers::disk("cannot remove layers and sources that nobody needs", &error))
        })
        .await
    }

    async fn drop_caches(&self) -> Result<(), PortError> {
        let data_dir = self.workshop.data_dir.clone();
        blocking(move || {
            collect::drop_caches(&data_dir)
                .map_err(|error| layers::disk("cannot remove the caches of builds", &error))
        })
        .await
    }
}

impl Workshop {
    /// Waits until nobody else makes the layer of this key. Cancel-safe.
    pub(crate) async fn turn(&self, digest: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut turns = self.turns.lock().expect("no holder of this lock panics");
            turns.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(turns.entry(digest.clone()).or_default())
        };
        lock.lock_owned().await
    }
}

impl Shared {
    fn pythons(&self) -> Vec<Interpreter> {
        self.interpreters.list(&self.host, &self.data_dir)
    }

    fn uv(&self) -> Result<Uv, PortError> {
        let mut known = self.uv.lock().expect("no holder of this lock panics");
        if let Some(uv) = known.as_ref().filter(|uv| uv.program.exists()) {
            return Ok(uv.clone());
        }
        let found = tools::ensure_uv(&self.host, &self.data_dir, &self.pythons())?;
        *known = Some(found.clone());
        Ok(found)
    }
}

/// The version to ask uv for: a pin, or the specifiers as they stand.
fn fetchable(wanted: &Wanted) -> Option<String> {
    let text = wanted.text.trim_start_matches("cpython-").trim_start_matches("python-").trim();
    let plain = text
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | '>' | '<' | '=' | ',' | '!' | '~' | '*' | ' '));
    (plain && !text.is_empty()).then(|| text.to_owned())
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(PortError::new(format!("the builder failed inside: {error}"))),
    }
}
