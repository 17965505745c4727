//! A store that misbehaves as ordered.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// A misbehaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request fails as status 500 does.
    Broken,
    /// The request gives no answer.
    Hangs,
    /// It is done, and then fails: the answer is lost.
    AnswerLost,
    /// The body ends too early, as if that were all.
    CutOff,
    /// A byte of the body is another one.
    Flipped,
    /// The list leaves out every second entry.
    ListLoses,
}

/// Which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Put,
    Part,
    Get,
    List,
}

pub(super) struct Rule {
    on: On,
    name: &'static str,
    fault: Fault,
    times: u32,
}

/// Wraps a store in memory.
#[derive(Clone, Default)]
pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<InMemory>,
    pub(super) rules: Arc<Mutex<Vec<Rule>>>,
    /// The names of all objects that were written, in order.
    pub(crate) written: Arc<Mutex<Vec<String>>>,
    /// Requests that were refused or delayed.
    pub(crate) hits: Arc<Mutex<VecDeque<Fault>>>,
    pub(crate) ignores_conditions: bool,
    pub(crate) knows_no_conditions: bool,
}

impl FaultyStore {
    /// Misbehaves for requests about objects whose name contains `name`, so many times.
    pub(crate) fn order(&self, on: On, name: &'static str, fault: Fault, times: u32) {
        self.rules.lock().unwrap().push(Rule { on, name, fault, times });
    }

    fn fault(&self, on: On, name: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule =
            rules.iter_mut().find(|rule| rule.on == on && rule.times > 0 && name.contains(rule.name))?;
        rule.times -= 1;
        self.hits.lock().unwrap().push_back(rule.fault.clone());
        Some(rule.fault.clone())
    }

    /// Returns the same objects behind a store that behaves.
    pub(crate) fn healed(&self) -> FaultyStore {
        FaultyStore { rules: Arc::default(), ..self.clone() }
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits.lock().unwrap().len()
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "status 500".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let fault = self.fault(On::Put, at.as_ref());
        match fault {
            Some(Fault::Broken) => return Err(broken()),
            Some(Fault::Hangs) => std::future::pending().await,
            _ => {}
        }
        let is_conditional = !matches!(options.mode, PutMode::Overwrite);
        if is_conditional && self.knows_no_conditions {
            return Err(Error::NotImplemented { operation: "put".into(), implementer: "faulty".into() });
        }
        if is_conditional && self.ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        let put = self.inner.put_opts(at, payload, options).await?;
        self.written.lock().unwrap().push(at.to_string());
        if fault == Some(Fault::AnswerLost) { Err(broken()) } else { Ok(put) }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(at, options).await?;
        Ok(Box::new(FaultyUpload { upload, store: self.clone(), at: at.clone() }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let got = self.inner.get_opts(at, options).await?;
        if is_head {
            return Ok(got);
        }
        let (meta, range, attributes, extensions) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
        let mut bytes = match self.fault(On::Get, at.as_ref()) {
            None => return Ok(got),
            Some(Fault::Broken) => return Err(broken()),
            Some(Fault::Hangs) => return std::future::pending().await,
            Some(Fault::CutOff) => got.bytes().await?.slice(..meta.size as usize / 2),
            _ => {
                let mut bytes = got.bytes().await?.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                Bytes::from(bytes)
            }
        };
        let pieces: Vec<_> =
            std::iter::from_fn(|| (!bytes.is_empty()).then(|| Ok(bytes.split_to(bytes.len().min(1000)))))
                .collect();
        let payload = GetResultPayload::Stream(stream::iter(pieces).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, places: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(places)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let name = prefix.map(Path::to_string).unwrap_or_default();
        let listing = self.inner.list(prefix);
        match self.fault(On::List, &name) {
            None => listing,
            Some(Fault::ListLoses) => {
                let kept = listing.enumerate().filter(|(index, _)| std::future::ready(index % 2 == 0));
                kept.map(|(_, meta)| meta).boxed()
            }
            Some(_) => stream::once(async { Err(broken()) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    store: FaultyStore,
    at: Path,
}

impl fmt::Debug for FaultyUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyUpload")
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.store.fault(On::Part, self.at.as_ref()) {
            None => self.upload.put_part(data),
            Some(Fault::Hangs) => Box::pin(std::future::pending()),
            // Later parts arrive before earlier ones.
            Some(Fault::AnswerLost) => {
                let part = self.upload.put_part(data);
                Box::pin(async move {
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                    }
                    part.await
                })
            }
            Some(_) => Box::pin(async { Err(broken()) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.upload.complete().await?;
        self.store.written.lock().unwrap().push(self.at.to_string());
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
