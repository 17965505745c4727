//! A target's objects: every request has a deadline, is repeated with growing waits while that may help, and shares the
//! bandwidth cap.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::path::Path as ObjectPath;
use object_store::{
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use trackbed_stdx::backoff;

use crate::error::{OffsiteError, RemoteFault};
use crate::limits::Limits;
use crate::pace::Pace;
use crate::said::said;
use crate::seal::{self, Arriving, Keys, Measured, OpenError};

/// Most bytes of an object that is read into memory: owner and head are below one KiB.
const SMALL_MAX_BYTES: u64 = 1024 * 1024;
/// Arriving pieces that may wait for the disk.
const ARRIVING_MAX: usize = 4;

/// Writes the plain bytes of an object; called again when the object must be sent again. Blocking.
pub(crate) type Fill = Arc<dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync>;

/// What was sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) measured: Measured,
    /// Bytes at the target.
    pub(crate) stored_bytes: u64,
}

/// A target's objects. Clones share it.
#[derive(Clone)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    limits: Limits,
    pace: Arc<Pace>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.store)
    }
}

impl Remote {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, limits: Limits, bandwidth: Option<u64>) -> Self {
        Self { store, limits, pace: Arc::new(Pace::new(bandwidth)) }
    }

    /// Gives up earlier.
    pub(crate) fn impatient(self, retry_total: Duration) -> Self {
        let limits = Limits { retry_total: self.limits.retry_total.min(retry_total), ..self.limits };
        Self { limits, ..self }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Repeats an attempt until it succeeds, fails for good, or has taken too long.
    async fn again<T, F: Future<Output = Result<T, OffsiteError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, OffsiteError> {
        let give_up = Instant::now() + self.limits.retry_total;
        let mut tries = 0;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let wait = backoff::exponential(self.limits.retry_first, self.limits.retry_ceiling, tries);
            if error.fault() != Some(RemoteFault::Passing) || Instant::now() + wait >= give_up {
                return Err(error);
            }
            tracing::info!(%error, "trying again");
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    /// Waits for one request.
    async fn request<T>(
        &self,
        attempt: &str,
        limit: Duration,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, OffsiteError> {
        match timeout(limit, work).await {
            Ok(done) => done.map_err(|error| said(attempt, &error)),
            Err(_) => Err(late(attempt, limit)),
        }
    }

    /// Reads a small object whole; none when it is not there.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<(Bytes, UpdateVersion)>, OffsiteError> {
        let attempt = format!("read {name}");
        let found = self.again(|| async {
            let read = async {
                let got = self.store.get(&path(name)?).await?;
                let version =
                    UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
                if got.meta.size > SMALL_MAX_BYTES {
                    return Err(object_store::Error::Generic {
                        store: "target",
                        source: "it is too large".into(),
                    });
                }
                Ok((got.bytes().await?, version))
            };
            self.request(&attempt, self.limits.request, read).await
        });
        match found.await {
            Err(error) if error.fault() == Some(RemoteFault::Missing) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Writes a small object. With [`PutMode::Create`] and [`PutMode::Update`] an earlier attempt whose answer was lost
    /// may be taken for somebody else's write: the caller compares.
    pub(crate) async fn put(
        &self,
        name: &str,
        body: Vec<u8>,
        mode: PutMode,
    ) -> Result<UpdateVersion, OffsiteError> {
        let attempt = format!("write {name}");
        let body = Bytes::from(body);
        let options = PutOptions { mode, ..PutOptions::default() };
        self.again(|| async {
            let place = path(name).map_err(|error| said(&attempt, &error))?;
            let put = self.store.put_opts(&place, PutPayload::from_bytes(body.clone()), options.clone());
            let put = self.request(&attempt, self.limits.deadline(body.len()), put).await?;
            Ok(UpdateVersion { e_tag: put.e_tag, version: put.version })
        })
        .await
    }

    /// Looks at an object; none when it is not there.
    pub(crate) async fn look(&self, name: &str) -> Result<Option<ObjectMeta>, OffsiteError> {
        let attempt = format!("look at {name}");
        let looked = self.again(|| async {
            let look = async { self.store.head(&path(name)?).await };
            self.request(&attempt, self.limits.request, look).await
        });
        match looked.await {
            Err(error) if error.fault() == Some(RemoteFault::Missing) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Removes an object; one that is gone is fine.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), OffsiteError> {
        let attempt = format!("remove {name}");
        let removed = self.again(|| async {
            let remove = async { self.store.delete(&path(name)?).await };
            self.request(&attempt, self.limits.request, remove).await
        });
        match removed.await {
            Err(error) if error.fault() == Some(RemoteFault::Missing) => Ok(()),
            other => other,
        }
    }

    /// Lists the objects below a folder.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, OffsiteError> {
        let attempt = format!("list {folder}");
        let place = path(folder).map_err(|error| said(&attempt, &error))?;
        self.again(|| async {
            let mut listing = self.store.list(Some(&place));
            let mut found = Vec::new();
            while let Some(meta) = self.request(&attempt, self.limits.request, listing.try_next()).await? {
                found.push(meta);
            }
            Ok(found)
        })
        .await
    }

    /// Sends an object, encrypted as it is read; large ones in parts. Looks at it then: what the store has is as long
    /// as what was sent.
    pub(crate) async fn send(&self, name: &str, keys: &Keys, fill: Fill) -> Result<Sent, OffsiteError> {
        self.again(|| self.send_once(name, keys, fill.clone())).await
    }

    async fn send_once(&self, name: &str, keys: &Keys, fill: Fill) -> Result<Sent, OffsiteError> {
        let attempt = format!("send {name}");
        let place = path(name).map_err(|error| said(&attempt, &error))?;
        let (parts, mut sealed) = mpsc::channel(1);
        let (owned, part_bytes) = (keys.clone(), self.limits.part_bytes);
        let sealing =
            tokio::task::spawn_blocking(move || seal::seal(&owned, parts, part_bytes, fill.as_ref()));
        let first = sealed.recv().await.unwrap_or_default();
        let (measured, stored_bytes) = match sealed.recv().await {
            None => {
                let measured = ended(&attempt, sealing.await)?;
                let stored = first.len() as u64;
                self.pace.take(first.len()).await;
                let limit = self.limits.deadline(first.len());
                let put = self.store.put(&place, PutPayload::from(first));
                self.request(&attempt, limit, put).await?;
                (measured, stored)
            }
            Some(second) => {
                let begin = self.store.put_multipart(&place);
                let mut upload = self.request(&attempt, self.limits.request, begin).await?;
                let whole = async {
                    let stored =
                        self.send_parts(&attempt, upload.as_mut(), [first, second], &mut sealed).await?;
                    // Before it is completed: a file that could not be read to its end is not there at all.
                    let measured = ended(&attempt, sealing.await)?;
                    self.request(&attempt, self.limits.request, upload.complete()).await?;
                    Ok((measured, stored))
                };
                match whole.await {
                    Ok(done) => done,
                    Err(error) => {
                        drop(sealed);
                        let abort = self.request(&attempt, self.limits.request, upload.abort());
                        if let Err(error) = abort.await {
                            tracing::debug!(%error, "parts may be left at the target");
                        }
                        return Err(error);
                    }
                }
            }
        };
        let there = self.request(&attempt, self.limits.request, self.store.head(&place)).await?;
        if there.size != stored_bytes {
            let reason = format!("{stored_bytes} bytes were sent, and {} are there", there.size);
            return Err(OffsiteError::passing(attempt, reason));
        }
        Ok(Sent { measured, stored_bytes })
    }

    async fn send_parts(
        &self,
        attempt: &str,
        upload: &mut dyn MultipartUpload,
        first: [Vec<u8>; 2],
        sealed: &mut mpsc::Receiver<Vec<u8>>,
    ) -> Result<u64, OffsiteError> {
        let (mut under_way, mut stored) = (FuturesUnordered::new(), 0);
        let mut waiting = first.into_iter();
        while let Some(part) = match waiting.next() {
            Some(part) => Some(part),
            None => sealed.recv().await,
        } {
            stored += part.len() as u64;
            self.pace.take(part.len()).await;
            let limit = self.limits.deadline(part.len());
            under_way.push(self.request(attempt, limit, upload.put_part(PutPayload::from(part))));
            if under_way.len() >= self.limits.parts_at_once {
                under_way.try_next().await?;
            }
        }
        while under_way.try_next().await?.is_some() {}
        Ok(stored)
    }

    /// Fetches an object, decrypts it and gives its plain bytes to `sink`, which runs on a thread of its own. The sink
    /// is made anew for every attempt.
    pub(crate) async fn fetch<T, S>(
        &self,
        name: &str,
        keys: &Keys,
        sink: impl Fn() -> S,
    ) -> Result<T, OffsiteError>
    where
        T: Send + 'static,
        S: FnOnce(&mut dyn Read) -> io::Result<T> + Send + 'static,
    {
        self.again(|| self.fetch_once(name, keys, sink())).await
    }

    async fn fetch_once<T, S>(&self, name: &str, keys: &Keys, sink: S) -> Result<T, OffsiteError>
    where
        T: Send + 'static,
        S: FnOnce(&mut dyn Read) -> io::Result<T> + Send + 'static,
    {
        let attempt = format!("fetch {name}");
        let place = path(name).map_err(|error| said(&attempt, &error))?;
        let got = self.request(&attempt, self.limits.request, self.store.get(&place)).await?;
        let whole = got.meta.size;
        let (chunks, arriving) = mpsc::channel(ARRIVING_MAX);
        let keys = keys.clone();
        let opening = tokio::task::spawn_blocking(move || {
            seal::open(&keys, Arriving { chunks: arriving, current: Bytes::new() }, sink)
        });
        let mut stream = got.into_stream();
        let mut came = 0;
        loop {
            match self.request(&attempt, self.limits.request, stream.try_next()).await? {
                None => break,
                Some(chunk) => {
                    came += chunk.len() as u64;
                    self.pace.take(chunk.len()).await;
                    // Nobody listens any more: why says the thread.
                    if chunks.send(chunk).await.is_err() {
                        came = whole;
                        break;
                    }
                }
            }
        }
        drop(chunks);
        if came != whole {
            let reason = format!("{came} of {whole} bytes came");
            return Err(OffsiteError::passing(attempt, reason));
        }
        match opening.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(OpenError::Damaged(reason))) => Err(OffsiteError::damaged(name, reason)),
            Ok(Err(OpenError::Sink(source))) => Err(OffsiteError::Disk { attempt, source }),
            Err(error) => Err(OffsiteError::Disk { attempt, source: io::Error::other(error) }),
        }
    }
}

type Joined<T> = Result<io::Result<T>, tokio::task::JoinError>;

fn ended<T>(attempt: &str, joined: Joined<T>) -> Result<T, OffsiteError> {
    joined.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(OffsiteError::disk(attempt))
}

fn path(name: &str) -> object_store::Result<ObjectPath> {
    Ok(ObjectPath::parse(name)?)
}

fn late(attempt: &str, limit: Duration) -> OffsiteError {
    OffsiteError::passing(attempt, format!("the target gave no answer within {} s", limit.as_secs()))
}
