//! Copies off the box: the target, and the passes of the mirror, after each new restore point and every few minutes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use trackbed_core::Secret;
use trackbed_core::offsite::{MirrorFailure, MirrorRecord, Missing, OffsiteDrill, OffsiteTarget};
use trackbed_core::ports::{Conditional, Offsite, Ownership, PortError, StateCopy};
use trackbed_stdx::files;
use trackbed_store::Store;

use crate::control::{Control, ControlError};

/// How often the box is looked at for something that was not sent.
const LOOK: Duration = Duration::from_secs(15);
/// Longest time between passes: what changes without a file, such as a variable, waits at most this long.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Passes that fail for longer are a loud warning.
pub const LOUD_AFTER: Duration = Duration::from_secs(60 * 60);
/// How often a point is restored from the target alone.
const DRILL_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Restores a point from the target alone.
#[async_trait]
pub trait RemoteDrill: Send + Sync {
    /// Restores one point, another one every time, from nothing but the target and the key, and looks at its content.
    /// None when the target has no point.
    ///
    /// # Errors
    /// When it could not be looked. A point that is broken is a verdict.
    async fn drill(
        &self,
        target: &OffsiteTarget,
        now: trackbed_core::Timestamp,
    ) -> Result<Option<OffsiteDrill>, PortError>;
}

/// What a target is set to.
#[derive(Debug, Clone)]
pub struct TargetWish {
    /// Its address.
    pub url: String,
    /// Settings and credentials of its store.
    pub options: Vec<(String, Secret<String>)>,
    /// An identity to go on with; none keeps that of the earlier target, or makes one.
    pub identity: Option<Secret<String>>,
    /// A cap in bytes a second.
    pub bandwidth_bytes: Option<u64>,
    /// What to do when it belongs to another box.
    pub ownership: Ownership,
    /// What to do when its store cannot write conditionally.
    pub conditional: Conditional,
}

/// A target and how its copies do.
#[derive(Debug, Clone)]
pub struct OffsiteStatus {
    /// Its address.
    pub url: String,
    /// Who can open the copies: `age1…`.
    pub recipient: String,
    /// Names of the settings that were given.
    pub options: Vec<String>,
    /// The cap in bytes a second.
    pub bandwidth_bytes: Option<u64>,
    /// What is remembered of the passes.
    pub record: MirrorRecord,
    /// What was not sent yet.
    pub missing: Missing,
    /// Whether a pass is under way.
    pub is_running: bool,
    /// Passes that ended since the control plane started.
    pub passes: u64,
    /// A loud warning, when there is one.
    pub warning: Option<String>,
}

/// What the control plane keeps of it.
#[derive(Default)]
pub(crate) struct OffsiteKeeping {
    parts: OnceLock<(Arc<dyn Offsite>, Arc<dyn RemoteDrill>)>,
    wake: Notify,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    is_running: bool,
    passes: u64,
}

struct StateOf(Store);

#[async_trait]
impl StateCopy for StateOf {
    async fn copy_to(&self, path: &std::path::Path) -> Result<(), PortError> {
        self.0.copy_to(path).await.map_err(|error| PortError::new(format!("cannot copy the state: {error}")))
    }
}

impl Control {
    /// Keeps copies of the box at the target that is set, from now on.
    pub fn keep_offsite(&self, offsite: Arc<dyn Offsite>, drill: Arc<dyn RemoteDrill>) {
        if self.inner.offsite.parts.set((offsite, drill)).is_err() {
            return;
        }
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn("mirror", async move {
            tokio::select! {
                () = shutdown.wait() => {}
                () = control.mirror_again_and_again() => {}
            }
        });
    }

    fn offsite_port(&self) -> Result<&dyn Offsite, ControlError> {
        self.inner.offsite.parts.get().map(|(port, _)| port.as_ref()).ok_or_else(|| ControlError::Conflict {
            message: "this box keeps no copies elsewhere".into(),
            hint: None,
        })
    }

    /// Sets the target and begins to copy. Returns the identity when it is new: it is shown once.
    ///
    /// # Errors
    /// When the target refuses, belongs to another box or was begun with another key.
    pub async fn set_offsite_target(&self, wish: TargetWish) -> Result<Option<Secret<String>>, ControlError> {
        let port = self.offsite_port()?;
        let earlier = self.inner.store.with(|db| db.find_offsite_target()).await?;
        let known = wish.identity.or_else(|| earlier.as_ref().map(|target| target.identity.clone()));
        let fresh = known.is_none().then(|| port.new_identity());
        let Some(identity) = known.or_else(|| fresh.clone()) else { return Ok(None) };
        let target = OffsiteTarget {
            url: wish.url,
            options: wish.options,
            identity,
            bandwidth_bytes: wish.bandwidth_bytes,
        };
        port.claim(&target, wish.ownership, wish.conditional, self.now()).await?;
        if earlier.is_none_or(|earlier| earlier.url != target.url) {
            self.store_record(&MirrorRecord::default())?;
        }
        self.inner.store.with(move |db| db.set_offsite_target(&target)).await?;
        self.inner.offsite.wake.notify_one();
        self.announce();
        Ok(fresh)
    }

    /// Forgets the target; the copies there stay.
    ///
    /// # Errors
    /// When none is set.
    pub async fn remove_offsite_target(&self) -> Result<(), ControlError> {
        let port = self.offsite_port()?;
        if !self.inner.store.with(|db| db.remove_offsite_target()).await? {
            return Err(no_target());
        }
        port.forget().await?;
        self.store_record(&MirrorRecord::default())?;
        self.announce();
        Ok(())
    }

    /// Returns the target and how its copies do; none when none is set.
    ///
    /// # Errors
    /// When state or disk cannot be read.
    pub async fn offsite_status(&self) -> Result<Option<OffsiteStatus>, ControlError> {
        let Some((port, _)) = self.inner.offsite.parts.get() else { return Ok(None) };
        let Some(target) = self.inner.store.with(|db| db.find_offsite_target()).await? else {
            return Ok(None);
        };
        let (is_running, passes) = {
            let seen = self.inner.offsite.seen.lock().expect("no holder of this lock panics");
            (seen.is_running, seen.passes)
        };
        let record = self.load_record()?;
        Ok(Some(OffsiteStatus {
            recipient: port.recipient(&target.identity)?,
            missing: port.missing(&target).await?,
            warning: self.offsite_warning(&record),
            options: target.options.into_iter().map(|(name, _)| name).collect(),
            url: target.url,
            bandwidth_bytes: target.bandwidth_bytes,
            record,
            is_running,
            passes,
        }))
    }

    fn offsite_warning(&self, record: &MirrorRecord) -> Option<String> {
        if let Some(failing) = &record.failing
            && self.now().since(failing.since) >= LOUD_AFTER
        {
            let minutes = self.now().since(failing.since).as_secs() / 60;
            return Some(format!("copies off the box have failed for {minutes} minutes: {}", failing.reason));
        }
        let drill = record.drill.as_ref()?;
        let broken = drill.broken.as_ref()?;
        Some(format!("{} cannot be restored from the copies off the box: {broken}", drill.point))
    }

    /// Returns the identity that opens the copies.
    ///
    /// # Errors
    /// When no target is set.
    pub async fn offsite_identity(&self) -> Result<Secret<String>, ControlError> {
        let target = self.inner.store.with(|db| db.find_offsite_target()).await?;
        target.map(|target| target.identity).ok_or_else(no_target)
    }

    /// Asks for a pass now; [`OffsiteStatus::passes`] says when it has ended.
    ///
    /// # Errors
    /// When no target is set.
    pub async fn request_mirror(&self) -> Result<(), ControlError> {
        self.offsite_port()?;
        if self.inner.store.with(|db| db.find_offsite_target()).await?.is_none() {
            return Err(no_target());
        }
        self.inner.offsite.wake.notify_one();
        Ok(())
    }

    async fn mirror_again_and_again(&self) {
        let Some((port, drill)) = self.inner.offsite.parts.get() else { return };
        let mut last: Option<Instant> = None;
        loop {
            let is_asked = tokio::select! {
                () = self.inner.offsite.wake.notified() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let target = match self.inner.store.with(|db| db.find_offsite_target()).await {
                Ok(Some(target)) => target,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "the target of the copies cannot be read");
                    continue;
                }
            };
            let is_failing = self.load_record().is_ok_and(|record| record.failing.is_some());
            let is_due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
            // One that fails is not tried at every look: it would only fail again.
            let has_news =
                !is_failing && port.missing(&target).await.is_ok_and(|missing| missing != Missing::default());
            if is_asked || is_due || has_news {
                self.mirror_once(port.as_ref(), &target).await;
                self.drill_when_due(drill.as_ref(), &target).await;
                last = Some(Instant::now());
            }
        }
    }

    async fn mirror_once(&self, port: &dyn Offsite, target: &OffsiteTarget) {
        let seen = || self.inner.offsite.seen.lock().expect("no holder of this lock panics");
        seen().is_running = true;
        let state = StateOf(self.inner.store.clone());
        let begun_at = self.now();
        let done = port.mirror(target, &state, begun_at).await;
        let mut record = self.load_record().unwrap_or_default();
        match done {
            Ok(report) => {
                if !report.damaged.is_empty() {
                    tracing::error!(
                        objects = report.damaged.join("; "),
                        "copies off the box were damaged; they are sent again"
                    );
                }
                if report.is_new {
                    tracing::info!(
                        sequence = report.sequence,
                        sent = report.sent_objects,
                        bytes = report.sent_bytes,
                        "copied off the box"
                    );
                }
                record.succeeded_at = Some(begun_at);
                record.failing = None;
                // The last one that did something says more than one that found nothing to do.
                if report.is_new
                    || report.removed > 0
                    || !report.damaged.is_empty()
                    || record.report.is_none()
                {
                    record.report = Some(report);
                }
            }
            Err(error) => {
                let since = record.failing.as_ref().map_or(begun_at, |failing| failing.since);
                let reason = match &error.hint {
                    Some(hint) => format!("{}; {hint}", error.message),
                    None => error.message.clone(),
                };
                record.failing = Some(MirrorFailure { since, reason });
                match self.offsite_warning(&record) {
                    Some(warning) => tracing::error!("{warning}"),
                    None => tracing::warn!(%error, "the copies off the box are behind"),
                }
            }
        }
        if let Err(error) = self.store_record(&record) {
            tracing::error!(%error, "what became of the copies off the box cannot be written down");
        }
        let mut seen = seen();
        seen.is_running = false;
        seen.passes += 1;
        drop(seen);
        self.announce();
    }

    async fn drill_when_due(&self, drill: &dyn RemoteDrill, target: &OffsiteTarget) {
        let Ok(mut record) = self.load_record() else { return };
        let is_due = record.drill.as_ref().is_none_or(|last| self.now().since(last.at) >= DRILL_INTERVAL);
        if !is_due || record.failing.is_some() {
            return;
        }
        match drill.drill(target, self.now()).await {
            Ok(Some(done)) => {
                if let Some(broken) = &done.broken {
                    tracing::error!(
                        point = done.point,
                        broken,
                        "a point cannot be restored from the copies off the box"
                    );
                }
                record.drill = Some(done);
                if let Err(error) = self.store_record(&record) {
                    tracing::error!(%error, "a drill cannot be written down");
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "no point could be restored from the copies off the box; it is tried again")
            }
        }
    }

    /// The record lies beside the state and not in it: a pass that finds nothing new must not make something new.
    fn record_path(&self) -> PathBuf {
        self.inner.config.data_dir.join("offsite/record.json")
    }

    fn load_record(&self) -> Result<MirrorRecord, ControlError> {
        let path = self.record_path();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(MirrorRecord::default()),
            Err(source) => Err(ControlError::File { path, source }),
        }
    }

    fn store_record(&self, record: &MirrorRecord) -> Result<(), ControlError> {
        let path = self.record_path();
        let written = (|| {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let text = serde_json::to_vec(record).map_err(std::io::Error::other)?;
            files::write_atomic(&path, &text, 0o600)
        })();
        written.map_err(|source| ControlError::File { path, source })
    }
}

fn no_target() -> ControlError {
    ControlError::Conflict {
        message: "no target for copies off the box is set".into(),
        hint: Some("set one: trackbed backup target set s3://BUCKET/PREFIX?region=REGION".into()),
    }
}
