//! A builder that does what a source's script says.

use std::time::Duration;

use async_trait::async_trait;
use trackbed_core::finding::Findings;
use trackbed_core::image::Image;
use trackbed_core::instance::LogStream;
use trackbed_core::plan::Plan;
use trackbed_core::ports::{
    BuildLog, BuildRequest, Builder, CheckRequest, LetGo, PlanRequest, PortError, Preflight,
    PreflightRequest, Source, SourceChanges, Suspect,
};
use trackbed_core::route::StreamFault;
use trackbed_core::{Digest, Timestamp};

use crate::app::App;
use crate::faults::Faults;
use crate::world::{Happening, World};

/// How long a look at an image takes.
const PREFLIGHT_TAKES: Duration = Duration::from_millis(50);

/// Plans and builds the sources of a world.
pub struct FakeBuilder {
    world: World,
    faults: Faults,
}

impl FakeBuilder {
    /// Makes the builder of a world.
    pub fn new(world: World, faults: Faults) -> Self {
        Self { world, faults }
    }

    fn app(&self, source: &Source) -> Result<App, PortError> {
        let found = self.world.lock().apps.get(&source.digest).cloned();
        found.ok_or_else(|| PortError::new(format!("there is no source {}", source.digest.short())))
    }

    async fn make_plan(&self, request: &PlanRequest) -> Result<Plan, PortError> {
        let app = self.app(&request.source)?;
        let mut config = app.config.clone();
        for (key, value) in &request.overrides {
            if key == "deploy.startCommand" {
                config.start_command.clone_from(value);
            }
        }
        match app.plan_error {
            Some(error) => Err(error),
            None => Ok(Plan {
                provider: "fake".into(),
                summary: format!("fake app {}", app.name),
                settings: Vec::new(),
                config,
                recipe: serde_json::Value::Null,
                warnings: app.warnings,
            }),
        }
    }

    async fn make_image(&self, request: &BuildRequest, log: &dyn BuildLog) -> Result<Image, PortError> {
        let app = self.app(&request.source)?;
        log.line(LogStream::Out, &format!("building {}", app.name));
        tokio::time::sleep(app.build_takes).await;
        if let Some(error) = app.build_error {
            log.line(LogStream::Err, &error.message);
            return Err(error);
        }
        self.world.lock().note(Happening::Built(request.source.digest.clone()));
        Ok(Image {
            digest: request.source.digest.clone(),
            provider: "fake".into(),
            layers: Vec::new(),
            host_paths: Vec::new(),
            env: Vec::new(),
            site: None,
            built_at: Timestamp(0),
            container: None,
        })
    }
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn plan(&self, request: PlanRequest) -> Result<Plan, PortError> {
        self.faults.pass("builder.plan", Err, || self.make_plan(&request)).await
    }

    async fn check(&self, request: CheckRequest) -> Result<Findings, PortError> {
        let look = || async {
            let list = self.app(&request.source)?.findings;
            Ok(Findings { files_read: list.len(), list })
        };
        self.faults.pass("builder.check", Err, look).await
    }

    async fn preflight(&self, request: PreflightRequest) -> Preflight {
        let look = || async {
            tokio::time::sleep(PREFLIGHT_TAKES).await;
            let state = self.world.lock();
            match state.apps.get(&request.image.digest) {
                Some(app) => app.preflight.clone(),
                None => Preflight::NotRun("the image's layers are missing".into()),
            }
        };
        self.faults.pass("builder.preflight", |error| Preflight::NotRun(error.message), look).await
    }

    async fn suspects(&self, source: &Source, _fault: StreamFault) -> Result<Vec<Suspect>, PortError> {
        let look = || async {
            self.app(source)?;
            Ok(self.world.lock().suspects.clone())
        };
        self.faults.pass("builder.suspects", Err, look).await
    }

    /// Each source is one file of its app's name; a pattern matches that name or, as `**`, every one.
    async fn changes(
        &self,
        from: &Source,
        to: &Source,
        patterns: &[String],
    ) -> Result<SourceChanges, PortError> {
        let look = || async {
            let (from, to) = (self.app(from)?.name, self.app(to)?.name);
            let files = if from == to { vec![] } else { vec![from, to] };
            let is_watched =
                |file: &&String| patterns.iter().any(|pattern| pattern == "**" || pattern == *file);
            let watched = files.iter().filter(is_watched).count() as u64;
            Ok(SourceChanges { files: files.len() as u64, watched })
        };
        self.faults.pass("builder.changes", Err, look).await
    }

    async fn build(&self, request: BuildRequest, log: &dyn BuildLog) -> Result<Image, PortError> {
        self.faults.pass("builder.build", Err, || self.make_image(&request, log)).await
    }

    async fn collect(&self, keep: &[Image], sources: &[Digest]) -> Result<LetGo, PortError> {
        let collect = || async {
            let images = keep.iter().map(|image| image.digest.clone()).collect();
            self.world.lock().note(Happening::Collected { images, sources: sources.to_vec() });
            Ok(LetGo::default())
        };
        self.faults.pass("builder.collect", Err, collect).await
    }

    async fn drop_caches(&self) -> Result<(), PortError> {
        let drop_them = || async {
            self.world.lock().note(Happening::CachesDropped);
            Ok(())
        };
        self.faults.pass("builder.drop_caches", Err, drop_them).await
    }
}
