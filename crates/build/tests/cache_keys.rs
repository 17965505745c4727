//! Nothing that is injected is in a cache key: every source among the golden plans is built twice, the second time with
//! everything changed that the platform and the box put into environments, and nothing is run again. A variable of the
//! owner counts for the build command, which sees it, and for nothing else.
//!
//! Tools and sandbox are stand-ins: what counts is what the builder decides to run.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test, whose fixtures need no crash safety"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use trackbed_build::source::{SourceLimits, receive};
use trackbed_build::{Config, LocalBuilder};
use trackbed_core::image::Image;
use trackbed_core::instance::{AppTree, Exit, InstanceSpec, LogStream};
use trackbed_core::ports::{
    BuildLog, BuildRequest, Builder, JobEnd, JobRunner, PlanRequest, PortError, Source,
};
use trackbed_core::{Secret, ServiceId};

/// Counts commands, and leaves behind what the installers would.
#[derive(Default)]
struct Runner {
    runs: AtomicUsize,
    seen: Mutex<Vec<String>>,
    /// Where the files of a site are to be.
    site: Mutex<Option<String>>,
}

#[async_trait]
impl JobRunner for Runner {
    async fn run_job(&self, spec: InstanceSpec, _: Duration, _: &dyn BuildLog) -> Result<JobEnd, PortError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().extend(spec.env.iter().map(|(name, _)| name.clone()));
        let AppTree::Directory { path } = &spec.app else { return Err(PortError::new("no directory")) };
        fs::create_dir_all(Path::new(path).join(".venv/lib")).unwrap();
        if let Some(root) = &*self.site.lock().unwrap() {
            fs::create_dir_all(Path::new(path).join(root)).unwrap();
            fs::write(Path::new(path).join(root).join("index.html"), "made").unwrap();
        }
        Ok(JobEnd::Exit(Exit::Code { code: 0 }))
    }
}

struct Silent;

impl BuildLog for Silent {
    fn line(&self, _: LogStream, _: &str) {}
}

/// What owners set.
const OF_OWNER: [&str; 5] = ["DATABASE_URL", "SECRET_KEY", "NODE_ENV", "NPM_TOKEN", "PIP_INDEX_URL"];
/// What the platform puts into environments.
const INJECTED: [&str; 19] = [
    "RAILWAY_DEPLOYMENT_ID",
    "RAILWAY_SNAPSHOT_ID",
    "RAILWAY_REPLICA_ID",
    "RAILWAY_REPLICA_REGION",
    "RAILWAY_PUBLIC_DOMAIN",
    "RAILWAY_PRIVATE_DOMAIN",
    "RAILWAY_PROJECT_ID",
    "RAILWAY_PROJECT_NAME",
    "RAILWAY_ENVIRONMENT",
    "RAILWAY_ENVIRONMENT_ID",
    "RAILWAY_ENVIRONMENT_NAME",
    "RAILWAY_SERVICE_ID",
    "RAILWAY_SERVICE_NAME",
    "RAILWAY_GIT_COMMIT_SHA",
    "TRACKBED_RELEASE",
    "TRACKBED_DEPLOYMENT",
    "TRACKBED_INSTANCE",
    "TRACKBED_PUBLIC_URL",
    "TRACKBED_SERVICE",
];
/// What the box's own environment may say about proxies and registries.
const OF_THE_BOX: [&str; 6] =
    ["HTTPS_PROXY", "NO_PROXY", "UV_INDEX_URL", "NPM_CONFIG_REGISTRY", "GOPROXY", "CARGO_HTTP_CAINFO"];

/// A folder of programs that only say which version they are.
fn tools(folder: &Path) -> PathBuf {
    let bin = folder.join("box/bin");
    fs::create_dir_all(&bin).unwrap();
    let words = [
        ("node", "v22.9.0"),
        ("npm", "11.0.0"),
        ("pnpm", "9.1.0"),
        ("yarn", "1.22.22"),
        ("deno", "deno 2.1.4"),
        ("go", "go version go1.24.9 linux/amd64"),
        ("cargo", "cargo 1.99.0"),
        ("ruby", "ruby 3.3.9"),
        ("bundle", "Bundler version 2.5.0"),
        ("php", "PHP 8.3.0"),
        ("composer", "Composer version 2.7.0"),
        ("javac", "javac 21.0.8"),
        ("mvn", "Apache Maven 3.9.9"),
        ("elixir", "Elixir 1.18.0"),
    ];
    for (name, answer) in words {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // What is not here is not fetched either.
    let mise = bin.join("mise");
    fs::write(&mise, "#!/bin/sh\n[ \"$1\" = --version ]\n").unwrap();
    fs::set_permissions(&mise, fs::Permissions::from_mode(0o755)).unwrap();
    // The installer of Python must be a real program; any that answers will do.
    fs::copy(fs::canonicalize("/usr/bin/env").unwrap(), bin.join("uv")).unwrap();
    bin
}

struct World {
    folder: tempfile::TempDir,
    runner: Arc<Runner>,
    bin: PathBuf,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = tools(folder.path());
        Self { folder, runner: Arc::default(), bin }
    }

    fn builder(&self, value: &str) -> LocalBuilder {
        let mut environment = vec![("PATH".to_owned(), self.bin.display().to_string())];
        environment.extend(OF_THE_BOX.map(|name| (name.to_owned(), format!("http://{value}.example"))));
        let jobs = Arc::clone(&self.runner) as Arc<dyn JobRunner>;
        LocalBuilder::new(Config {
            data_dir: self.folder.path().join("data"),
            jobs,
            images: Arc::new(trackbed_core::ports::NoImages),
            environment,
            builds: 1,
            memory_bytes: None,
        })
    }

    fn receive(&self, folder: &Path) -> Source {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir_all("", folder).unwrap();
        let data_dir = self.folder.path().join("data");
        receive(&tar.into_inner().unwrap()[..], &data_dir, SourceLimits::default(), None).unwrap()
    }

    /// Plans and builds; none when this source cannot be planned here.
    async fn build(&self, source: &Source, injected: &str, owners: &str) -> Option<Image> {
        self.build_for(7, source, injected, owners).await
    }

    async fn build_for(&self, service: u8, source: &Source, injected: &str, owners: &str) -> Option<Image> {
        let builder = self.builder(injected);
        let secret = |name: &str, value: &str| (name.to_owned(), Secret::new(format!("{name}-{value}")));
        let variables = INJECTED.map(|name| secret(name, injected)).into_iter();
        let variables: Vec<_> = variables.chain(OF_OWNER.map(|name| secret(name, owners))).collect();
        let request = PlanRequest {
            source: source.clone(),
            overrides: Vec::new(),
            stored: Vec::new(),
            variables: variables.clone(),
        };
        let plan = builder.plan(request).await.ok()?;
        let root = plan.settings.iter().find(|setting| setting.key == "static.root");
        *self.runner.site.lock().unwrap() = root.map(|setting| setting.value.clone());
        let request = BuildRequest {
            source: source.clone(),
            plan,
            service: ServiceId::from_random([service; 10]),
            service_number: service.into(),
            variables,
        };
        Some(builder.build(request, &Silent).await.unwrap())
    }
}

#[tokio::test]
async fn changing_all_that_is_injected_changes_no_layer_and_runs_nothing_again() {
    let world = World::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut built: BTreeMap<String, usize> = BTreeMap::new();
    for entry in fs::read_dir(golden).unwrap() {
        let folder = entry.unwrap().path();
        let source = world.receive(&folder);
        let Some(first) = world.build(&source, "one", "same").await else { continue };
        let runs = world.runner.runs.load(Ordering::SeqCst);
        let second = world.build(&source, "two", "same").await.unwrap();
        let again = world.runner.runs.load(Ordering::SeqCst) - runs;
        assert_eq!(again, 0, "{}: something was run again", folder.display());
        assert_eq!((first.digest, first.layers), (second.digest, second.layers), "{}", folder.display());
        *built.entry(first.provider).or_default() += 1;
    }
    for provider in
        ["deno", "elixir", "go", "java", "node", "php", "python", "ruby", "rust", "shell", "static"]
    {
        assert!(built.contains_key(provider), "no source of {provider} was built: {built:?}");
    }
    // It is no accident of variables that reach nobody.
    let seen = world.runner.seen.lock().unwrap();
    for name in ["DATABASE_URL", "RAILWAY_DEPLOYMENT_ID", "HTTPS_PROXY"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} reached no command");
    }
}

#[tokio::test]
async fn a_variable_of_the_owner_that_changed_runs_the_build_command_again_and_no_install() {
    let world = World::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (app, runs_again) in [("django", 0), ("node-express", 0), ("node-vite-spa", 1), ("rust-package", 1)] {
        let source = world.receive(&golden.join(app));
        world.build(&source, "one", "before").await.unwrap();
        let runs = world.runner.runs.load(Ordering::SeqCst);
        world.build(&source, "one", "after").await.unwrap();
        assert_eq!(world.runner.runs.load(Ordering::SeqCst) - runs, runs_again, "{app}");
    }
}

#[tokio::test]
async fn no_layer_that_a_command_made_is_shared_with_another_service() {
    let world = World::new();
    for app in ["django", "node-express", "rust-package"] {
        let source = world.receive(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(app));
        let one = world.build_for(7, &source, "one", "same").await.unwrap();
        let runs = world.runner.runs.load(Ordering::SeqCst);
        let other = world.build_for(8, &source, "one", "same").await.unwrap();
        assert!(world.runner.runs.load(Ordering::SeqCst) > runs, "{app}: another's packages are taken");
        for layer in one.layers.iter().filter(|layer| layer.digest != source.digest) {
            assert!(!other.layers.contains(layer), "{app}: a layer is shared");
        }
    }
}
