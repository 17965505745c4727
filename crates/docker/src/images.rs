//! The [`Images`] port: images that the engine builds or fetches, each kept by a tag of this box's own.
//!
//! An image counts as this box's by its tag alone, `trackbed-<box>/image:<first letters of its id>`. Letting go of it takes
//! that tag away; the engine removes the image when nobody else has a name for it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{BuildInfo, ImageInspect};
use bollard::query_parameters::{
    BuildImageOptions, BuilderVersion, CreateImageOptions, ListImagesOptions, RemoveImageOptions,
    TagImageOptions,
};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use trackbed_core::image::ContainerImage;
use trackbed_core::instance::LogStream;
use trackbed_core::ports::{BuildLog, Dockerfile, Images, PortError};

use trackbed_stdx::random;

use crate::buildkit;
use crate::container::BOX_LABEL;
use crate::context::{self, Ignored};
use crate::daemon::{self, Daemon, words};
use crate::engine::Docker;

/// Weight of a build's processes against 1024 of everything else.
const BUILD_CPU_SHARES: i32 = 128;
/// Pieces of the source that wait for the engine.
const PIECES: usize = 16;
/// Letters of an id that are enough to tell images apart.
const TAG_LETTERS: usize = 24;
/// What helps when a build fails.
const FAILED_HINT: &str = "the output of the step is in the build log; `docker build .` shows the same";
/// The same where a Dockerfile asks for BuildKit and does not get it.
const BUILDKIT_HINT: &str = "the output of the step is in the build log; when it is about BuildKit: `apt install docker-buildx` \
     (Debian) or `docker-buildx-plugin` (Docker's packages)";
/// What Podman puts before names without a registry; which of them is a setting of its own (`compat_api_enforce_docker_hub`).
const PLACES: [&str; 2] = ["docker.io/", "localhost/"];
/// Longest silence of a registry.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

#[async_trait]
impl Images for Docker {
    async fn engine(&self) -> Result<String, PortError> {
        Ok(daemon::find(self.environment()).await?.title)
    }

    async fn build(&self, order: Dockerfile, log: &dyn BuildLog) -> Result<ContainerImage, PortError> {
        let daemon = daemon::find(self.environment()).await?;
        // Podman's builder is one for all.
        if order.wants_buildkit && !daemon.is_podman() {
            if let Some(program) = buildkit::find(&daemon).await {
                return self.build_by_command(&daemon, &program, &order, log).await;
            }
            log.line(LogStream::System, buildkit::MISSING);
        }
        log.line(LogStream::System, &format!("{} builds {}", daemon.title, order.path));
        let network = self.network_name();
        self.ensure_network(&daemon, &network).await?;
        let options = BuildImageOptions {
            dockerfile: order.path.clone(),
            target: order.target.clone(),
            rm: true,
            forcerm: true,
            cpushares: Some(BUILD_CPU_SHARES),
            buildargs: Some(order.given.iter().chain(&order.args).cloned().collect()),
            labels: Some(HashMap::from([(BOX_LABEL.to_owned(), self.tag().to_owned())])),
            networkmode: Some(network),
            version: BuilderVersion::BuilderV1,
            ..Default::default()
        };
        let id = built(&daemon, &order, options, log).await?;
        self.keep(&daemon, &id, None).await
    }

    async fn pull(&self, reference: &str, log: &dyn BuildLog) -> Result<ContainerImage, PortError> {
        let daemon = daemon::find(self.environment()).await?;
        let full = with_tag(reference);
        let before = daemon.api.inspect_image(&full).await.ok();
        log.line(LogStream::System, &format!("{} fetches {full}", daemon.title));
        let fetched = fetch(&daemon, &full, log).await;
        if let (Err(why), Some(_)) = (&fetched, &before) {
            log.line(
                LogStream::System,
                &format!("{full} was not fetched ({why}); the box has it, and that one is used"),
            );
        } else if let Err(why) = fetched {
            return Err(PortError::new(format!("{} cannot fetch the image {full}: {why}", daemon.title)).hint(
                "look at its name; for a private registry, log in with the engine and fetch it by hand: docker pull",
            ));
        }
        let found = daemon.api.inspect_image(&full).await;
        let found = found.map_err(|error| {
            PortError::new(format!("{} does not show {full}: {}", daemon.title, words(&error)))
        })?;
        let id = found.id.ok_or_else(|| PortError::new(format!("{} gives {full} no id", daemon.title)))?;
        log.line(
            LogStream::System,
            &format!("{full} is {id}: this release keeps it, wherever the tag moves"),
        );
        let kept = self.keep(&daemon, &id, Some(full.clone())).await?;
        if before.is_none() {
            // The name goes, the image stays under ours: else nothing would ever let go of it.
            let _ = daemon.api.remove_image(&full, Some(untag()), None).await;
        }
        Ok(kept)
    }

    async fn collect(&self, keep: &[String]) -> Result<u64, PortError> {
        // Without an engine there is nothing that could be let go of now.
        let Ok(daemon) = daemon::find(self.environment()).await else { return Ok(0) };
        let failed = |error: &bollard::errors::Error| {
            PortError::new(format!("{} does not let go of images: {}", daemon.title, words(error)))
        };
        let filters = HashMap::from([("reference".to_owned(), vec![format!("{}:*", self.repository())])]);
        let options = ListImagesOptions { all: true, filters: Some(filters), ..Default::default() };
        let found = daemon.api.list_images(Some(options)).await.map_err(|error| failed(&error))?;
        let mut gone = 0;
        let is_kept = |id: &str| keep.iter().any(|kept| digits(kept) == digits(id));
        for image in found.into_iter().filter(|image| !is_kept(&image.id)) {
            let ours = image.repo_tags.iter().filter(|tag| self.is_ours(tag));
            for tag in ours {
                match daemon.api.remove_image(tag, Some(untag()), None).await {
                    Ok(_) => gone += 1,
                    // A container that is about to go has it: the next time.
                    Err(bollard::errors::Error::DockerResponseServerError {
                        status_code: 404 | 409, ..
                    }) => {}
                    Err(error) => return Err(failed(&error)),
                }
            }
        }
        Ok(gone)
    }
}

impl Docker {
    fn repository(&self) -> String {
        format!("trackbed-{}/image", self.tag())
    }

    fn is_ours(&self, tag: &str) -> bool {
        let name = PLACES.iter().find_map(|place| tag.strip_prefix(place)).unwrap_or(tag);
        name.strip_prefix(&self.repository()).is_some_and(|rest| rest.starts_with(':'))
    }

    async fn build_by_command(
        &self,
        daemon: &Daemon,
        program: &Path,
        order: &Dockerfile,
        log: &dyn BuildLog,
    ) -> Result<ContainerImage, PortError> {
        log.line(LogStream::System, &format!("{} builds {} with BuildKit", daemon.title, order.path));
        // Not a name of digits: the collection of images takes away what a crash leaves.
        let drawn: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{}:building-{drawn}", self.repository());
        let command = buildkit::command(program, daemon);
        buildkit::build(command, order, (self.tag(), &name), pieces_of(order)?, log).await.map_err(
            |why| {
                PortError::new(format!("{} cannot build {}: {why}", daemon.title, order.path))
                    .hint(FAILED_HINT)
            },
        )?;
        let kept = self.keep(daemon, &name, None).await;
        let _ = daemon.api.remove_image(&name, Some(untag()), None).await;
        kept
    }

    /// Gives an image a name of this box's own and tells what is in it.
    async fn keep(
        &self,
        daemon: &Daemon,
        id: &str,
        reference: Option<String>,
    ) -> Result<ContainerImage, PortError> {
        let failed = |error: &bollard::errors::Error| {
            PortError::new(format!("{} does not keep image {id}: {}", daemon.title, words(error)))
        };
        let seen = daemon.api.inspect_image(id).await.map_err(|error| failed(&error))?;
        let ImageInspect { id: full, size, config, .. } = seen;
        let full = full.unwrap_or_else(|| id.to_owned());
        let full = if full.contains(':') { full } else { format!("sha256:{full}") };
        let letters: String = digits(&full).chars().take(TAG_LETTERS).collect();
        let options = TagImageOptions { repo: Some(self.repository()), tag: Some(letters) };
        daemon.api.tag_image(&full, Some(options)).await.map_err(|error| failed(&error))?;
        let config = config.unwrap_or_default();
        let env = config.env.unwrap_or_default();
        Ok(ContainerImage {
            id: full,
            reference,
            size_bytes: size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            user: config.user.unwrap_or_default(),
            stop_signal: config.stop_signal.unwrap_or_default(),
            env: env
                .iter()
                .filter_map(|entry| entry.split_once('='))
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .collect(),
        })
    }
}

/// Returns the source as a tar, in pieces. A thread reads it until all is read or nobody wants more.
fn pieces_of(order: &Dockerfile) -> Result<mpsc::Receiver<std::io::Result<Bytes>>, PortError> {
    let ignored = Ignored::read(&order.context, &order.path)
        .map_err(|error| PortError::new(format!("cannot read the source for {}: {error}", order.path)))?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let (context, dockerfile) = (order.context.clone(), order.path.clone());
    tokio::task::spawn_blocking(move || {
        let result = context::send(&context, &dockerfile, &ignored, sender.clone());
        if let Err(error) = result {
            // The engine must not take half a source for the whole.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(receiver)
}

/// Sends the source and reads what the build says. Returns the id of the image.
async fn built(
    daemon: &Daemon,
    order: &Dockerfile,
    options: BuildImageOptions,
    log: &dyn BuildLog,
) -> Result<String, PortError> {
    let pieces = pieces_of(order)?;
    let pieces = futures_util::stream::unfold(pieces, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut said = daemon.api.build_image(options, None, Some(bollard::body_try_stream(pieces)));
    let mut lines = Lines::default();
    let mut id = None;
    let mut failure = None;
    while let Some(info) = said.next().await {
        while log.is_full() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match info {
            Ok(BuildInfo { stream, status, error_detail, aux, .. }) => {
                lines.feed(stream.as_deref().unwrap_or_default(), log);
                if let Some(status) = status {
                    lines.feed(&format!("{status}\n"), log);
                }
                id = aux.and_then(|aux| aux.id).or(id);
                failure = error_detail.and_then(|detail| detail.message).or(failure);
            }
            Err(error) => failure = Some(words(&error)),
        }
    }
    lines.finish(log);
    match (failure, id.or(lines.built)) {
        (None, Some(id)) => Ok(id),
        (Some(why), _) => Err(PortError::new(format!("{} cannot build {}: {why}", daemon.title, order.path))
            .hint(if order.wants_buildkit && !daemon.is_podman() { BUILDKIT_HINT } else { FAILED_HINT })),
        (None, None) => {
            Err(PortError::new(format!("{} has built {} and does not say what", daemon.title, order.path)))
        }
    }
}

/// Cuts what a build says into lines, and finds what it made where the engine says it in words only.
#[derive(Default)]
struct Lines {
    rest: String,
    built: Option<String>,
}

impl Lines {
    fn feed(&mut self, text: &str, log: &dyn BuildLog) {
        self.rest.push_str(text);
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.take(&line, log);
            self.rest = rest;
        }
    }

    fn finish(&mut self, log: &dyn BuildLog) {
        let rest = std::mem::take(&mut self.rest);
        self.take(&rest, log);
    }

    fn take(&mut self, line: &str, log: &dyn BuildLog) {
        let line = line.trim_end();
        if let Some(id) = line.strip_prefix("Successfully built ") {
            self.built = Some(id.to_owned());
        }
        if !line.is_empty() {
            log.line(LogStream::Out, line);
        }
    }
}

/// Fetches an image; a layer's steps are told once each, not every byte.
async fn fetch(daemon: &Daemon, full: &str, log: &dyn BuildLog) -> Result<(), String> {
    let options = CreateImageOptions { from_image: Some(full.to_owned()), ..Default::default() };
    let mut said = daemon.api.create_image(Some(options), None, None);
    let mut last: HashMap<String, String> = HashMap::new();
    loop {
        let info = match tokio::time::timeout(SILENCE_LIMIT, said.next()).await {
            Err(_) => return Err(format!("nothing came for {} s", SILENCE_LIMIT.as_secs())),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(words(&error)),
            Ok(Some(Ok(info))) => info,
        };
        if let Some(why) = info.error_detail.and_then(|detail| detail.message) {
            return Err(why);
        }
        let (layer, status) = (info.id.unwrap_or_default(), info.status.unwrap_or_default());
        if !status.is_empty() && last.insert(layer.clone(), status.clone()).as_ref() != Some(&status) {
            let of = info.progress_detail.and_then(|detail| detail.total).filter(|total| *total > 0);
            let of = of.map(|total| format!(" ({} kB)", total / 1000)).unwrap_or_default();
            log.line(LogStream::Out, format!("{layer} {status}{of}").trim());
        }
    }
}

/// Some engines leave out by what an id was computed.
fn digits(id: &str) -> &str {
    id.trim_start_matches("sha256:")
}

/// Takes a name away and, with the last one, what nobody needs below it.
fn untag() -> RemoveImageOptions {
    RemoveImageOptions { force: false, noprune: false, ..Default::default() }
}

/// Adds the tag that engines take when none is named; else they would fetch all there are.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains(':') || name.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_the_latest() {
        assert_eq!(with_tag("redis"), "redis:latest");
        assert_eq!(with_tag("registry:5000/a/b"), "registry:5000/a/b:latest");
        assert_eq!(with_tag("a/b:1.2"), "a/b:1.2");
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }
}
