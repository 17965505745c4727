//! The [`Engine`] port: sites are kept here, everything else is passed on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use trackbed_core::image::SiteFallback;
use trackbed_core::instance::{
    AppTree, Exit, InstanceSpec, InstanceStats, InstanceStatus, Listener, LogCursor, LogLine, LogPage,
    LogStream,
};
use trackbed_core::isolation::Isolation;
use trackbed_core::ports::{BuildLog, Engine, Frozen, PortError, StrayFile, VolumeLease, VolumePlace};
use trackbed_core::route::Address;
use trackbed_core::{InstanceId, Secret, Timestamp};
use trackbed_stdx::clock;

use crate::records::{Record, Records};

/// What the log of a site says, all of it.
const LOG: &str = "a static site has no process that writes: the edge serves its files";

/// An engine that keeps the instances of static sites, in front of another one for all others.
pub struct Sites {
    behind: Arc<dyn Engine>,
    data_dir: PathBuf,
    records: Arc<Records>,
    /// Wakes those who wait for an end.
    ended: Notify,
}

impl Sites {
    /// Reads the records in `sites` below the data directory.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(data_dir: &Path, behind: Arc<dyn Engine>) -> io::Result<Self> {
        let records = Records::open(&data_dir.join("sites"))?;
        for record in records.list() {
            if record.end.is_none() && !data_dir.join(&record.layer).is_dir() {
                tracing::warn!(instance = %record.id, layer = record.layer, "the files of a site are gone");
                records.change(&record.id, |known| known.map(|known| known.ended(Exit::Lost, now())))?;
            }
        }
        Ok(Self { behind, data_dir: data_dir.to_owned(), records: Arc::new(records), ended: Notify::new() })
    }

    fn find(&self, id: &InstanceId) -> Option<Record> {
        self.records.find(id)
    }

    /// Returns an instance of ours that has not ended; none when it is not ours.
    fn living(&self, id: &InstanceId) -> Result<Option<Record>, PortError> {
        match self.find(id) {
            Some(Record { end: Some(end), .. }) => {
                Err(PortError::new(format!("instance {id} does not run: it {}", end.exit)))
            }
            found => Ok(found),
        }
    }

    /// Changes the records on a thread that may wait for the disk.
    async fn change(
        &self,
        attempt: String,
        work: impl FnOnce(&Records) -> io::Result<()> + Send + 'static,
    ) -> Result<(), PortError> {
        let records = Arc::clone(&self.records);
        let changed = tokio::task::spawn_blocking(move || work(&records)).await;
        let changed = changed.map_err(io::Error::other).and_then(|changed| changed);
        self.ended.notify_waiters();
        changed.map_err(|error| PortError::new(format!("{attempt}: {error}")))
    }

    /// Returns where the files of a layer are, as the edge reads it.
    fn address_of(&self, layer: &str, fallback: SiteFallback) -> Result<Address, PortError> {
        let folder = self.data_dir.join(layer);
        let Some(folder) = folder.to_str() else {
            return Err(PortError::new(format!(
                "the data directory `{}` is no text",
                self.data_dir.display()
            ))
            .hint("serve from a directory whose name is UTF-8"));
        };
        let fallback = match fallback {
            SiteFallback::NotFound => "404",
            SiteFallback::Index => "index",
        };
        Ok(Address(format!("files:{fallback}:{folder}")))
    }
}

fn now() -> Timestamp {
    Timestamp(clock::now_ms())
}

#[async_trait]
impl Engine for Sites {
    fn isolation(&self) -> Isolation {
        self.behind.isolation()
    }

    fn shares_ports(&self) -> bool {
        self.behind.shares_ports()
    }

    /// A site is what has an image of one, and no command: the command before a release's start runs behind.
    async fn start(&self, spec: &InstanceSpec) -> Result<(), PortError> {
        let (AppTree::Image { image }, true) = (&spec.app, spec.command.is_empty()) else {
            return self.behind.start(spec).await;
        };
        let Some(site) = image.site else { return self.behind.start(spec).await };
        if self.find(&spec.id).is_some() {
            return Ok(());
        }
        // Those below it are what its build needs again.
        let layer = image.layers.first().map(|layer| layer.path.clone()).unwrap_or_default();
        self.address_of(&layer, site.fallback)?;
        let folder = self.data_dir.join(&layer);
        if layer.is_empty() || !folder.is_dir() {
            return Err(PortError::new(format!("the files of the site are gone: {}", folder.display()))
                .hint("deploy it again: trackbed up"));
        }
        let identity = (spec.id.clone(), spec.kind, spec.service.clone());
        let record = Record::new(identity, now(), spec.port, (layer, site.fallback));
        let attempt = format!("cannot start {} ({})", spec.title, spec.id);
        self.change(attempt, move |records| {
            let id = record.id.clone();
            records.change(&id, |known| known.is_none().then_some(record))
        })
        .await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        if self.find(id).is_none() {
            return self.behind.stop(id, grace).await;
        }
        let stopped = id.clone();
        self.change(format!("cannot stop instance {id}"), move |records| {
            records.change(&stopped, |known| {
                let running = known.filter(|record| record.end.is_none())?;
                Some(running.ended(Exit::Code { code: 0 }, now()))
            })
        })
        .await
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), PortError> {
        match self.find(id) {
            None => self.behind.remove(id).await,
            Some(Record { end: None, .. }) => {
                Err(PortError::new(format!("cannot remove instance {id}: it still runs"))
                    .hint("stop it first"))
            }
            Some(_) => {
                let removed = id.clone();
                let attempt = format!("cannot remove the files of instance {id}");
                self.change(attempt, move |records| records.remove(&removed)).await
            }
        }
    }

    async fn list(&self) -> Result<Vec<InstanceStatus>, PortError> {
        let mut all = self.behind.list().await?;
        all.extend(self.records.list().iter().map(Record::status));
        Ok(all)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Option<InstanceStatus>, PortError> {
        match self.find(id) {
            Some(record) => Ok(Some(record.status())),
            None => self.behind.inspect(id).await,
        }
    }

    async fn wait(&self, id: &InstanceId) {
        loop {
            let changed = self.ended.notified();
            match self.find(id) {
                None => return self.behind.wait(id).await,
                Some(Record { end: Some(_), .. }) => return,
                Some(_) => changed.await,
            }
        }
    }

    async fn logs(&self, id: &InstanceId, from: LogCursor, limit: usize) -> Result<LogPage, PortError> {
        let Some(record) = self.find(id) else { return self.behind.logs(id, from, limit).await };
        let line =
            LogLine { at: record.started_at, stream: LogStream::System, text: LOG.to_owned(), process: None };
        let lines = if from == LogCursor::START && limit > 0 { vec![line] } else { Vec::new() };
        Ok(LogPage { next: LogCursor(from.0.max(lines.len() as u64)), lines })
    }

    async fn stats(&self, id: &InstanceId) -> Result<InstanceStats, PortError> {
        match self.living(id)? {
            Some(_) => Ok(InstanceStats::default()),
            None => self.behind.stats(id).await,
        }
    }

    /// A site is where it was told to be.
    async fn listeners(&self, id: &InstanceId) -> Result<Vec<Listener>, PortError> {
        match self.living(id)? {
            Some(record) => {
                let listener = |port| Listener { port, loopback_only: true };
                Ok(record.port.into_iter().map(listener).collect())
            }
            None => self.behind.listeners(id).await,
        }
    }

    async fn address(&self, id: &InstanceId, port: u16) -> Result<Address, PortError> {
        match self.living(id)? {
            Some(record) => self.address_of(&record.layer, record.fallback),
            None => self.behind.address(id, port).await,
        }
    }

    async fn free_port(&self) -> Result<u16, PortError> {
        self.behind.free_port().await
    }

    async fn lease(&self, place: &VolumePlace) -> Result<VolumeLease, PortError> {
        self.behind.lease(place).await
    }

    async fn freeze(&self, id: &InstanceId, limit: Duration) -> Result<Box<dyn Frozen>, PortError> {
        match self.living(id)? {
            Some(_) => Ok(Box::new(Still)),
            None => self.behind.freeze(id, limit).await,
        }
    }

    async fn stray_files(&self, id: &InstanceId, limit: usize) -> Result<Vec<StrayFile>, PortError> {
        match self.find(id) {
            Some(_) => Ok(Vec::new()),
            None => self.behind.stray_files(id, limit).await,
        }
    }

    async fn exec(
        &self,
        id: &InstanceId,
        command: &[String],
        env: &[(String, Secret<String>)],
        log: &dyn BuildLog,
    ) -> Result<Exit, PortError> {
        match self.living(id)? {
            Some(_) => Err(PortError::new("cannot run a command in a static site: it has no process")
                .hint("what its build should do stands in its `build` script or `build.buildCommand`")),
            None => self.behind.exec(id, command, env, log).await,
        }
    }
}

/// What has no process stands still by nature, and for no time at all.
struct Still;

#[async_trait]
impl Frozen for Still {
    async fn thaw(self: Box<Self>) -> Result<Duration, PortError> {
        Ok(Duration::ZERO)
    }
}
