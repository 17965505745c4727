//! A pass of the mirror: what the box has and the target does not, in the order of its ranks; then the state; then the
//! catalogue and the head that name it all.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream;
use futures_util::{FutureExt, StreamExt};
use object_store::{PutMode, UpdateVersion};
use trackbed_core::offsite::MirrorReport;
use trackbed_core::ports::StateCopy;
use trackbed_core::{Digest, Timestamp};
use trackbed_stdx::{files, random};

use crate::error::{OffsiteError, RemoteFault};
use crate::formats::{
    self, CATALOGUES, Catalogue, FORMAT, HEAD, HEADS, Head, Kind, Named, OBJECTS, Owner, STATES,
};
use crate::items::{self, Item};
use crate::ledger::{Held, Ledger, Published};
use crate::remote::{Fill, Remote, Sent};
use crate::seal::{self, Keys, Measure, Measured};
use crate::target::FOLDER;
use crate::{owner, tree};

/// How often a pass begins anew because files vanished while they were sent: a collection was under way.
const ROUNDS: u32 = 5;

/// What a pass works with.
pub(crate) struct Pass<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) remote: &'a Remote,
    pub(crate) keys: &'a Keys,
    pub(crate) box_id: &'a str,
    pub(crate) state: &'a dyn StateCopy,
    pub(crate) now: Timestamp,
}

/// Returns where the ledger of the target lies.
pub(crate) fn ledger_path(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER).join("ledger")
}

/// A copy of the state, removed when dropped.
struct CopiedState {
    folder: PathBuf,
    digest: Digest,
}

impl Drop for CopiedState {
    fn drop(&mut self) {
        let _ = files::remove_tree(&self.folder);
    }
}

impl Pass<'_> {
    /// Runs the pass.
    pub(crate) async fn run(&self, ledger: &mut Ledger) -> Result<MirrorReport, OffsiteError> {
        let owner = owner::check(self.remote, self.keys, self.box_id).await?;
        let mut report = MirrorReport::default();
        let (mut head, mut version) = (None, None);
        match owner::find_head(self.remote, self.keys).await? {
            None => {}
            Some((Err(error), _)) if error.fault() != Some(RemoteFault::Damaged) => return Err(error),
            // The box itself is whole: it writes another one in its place.
            Some((Err(error), found)) => {
                report.damaged.push(format!("{HEAD}: {error}"));
                version = Some(found);
            }
            Some((Ok(read), found)) => (head, version) = (Some(read), Some(found)),
        }
        self.check_head(ledger, head.as_ref())?;
        if let Some(head) = &head
            && ledger.held.is_empty()
        {
            self.learn(ledger, head, &mut report).await?;
        }
        let strays = self.compare_with_list(ledger, &mut report).await?;
        for round in 0.. {
            let state = self.copy_state().await?;
            let items = self.items().await?;
            let vanished = self.send_missing(ledger, &items, &mut report).await?;
            if vanished && round < ROUNDS {
                continue;
            }
            if vanished {
                return Err(OffsiteError::passing("finish a pass", "files vanish while they are sent"));
            }
            report.objects = items.len() as u64;
            report.bytes =
                items.iter().filter_map(|item| ledger.held.get(&item.path)).map(|held| held.bytes).sum();
            let entries = items
                .iter()
                .filter_map(|item| ledger.held.get(&item.path).map(|held| held.entry(&item.path)));
            let catalogue = formats::encode(&Catalogue { format: FORMAT, entries: entries.collect() });
            if self.is_new(ledger, &catalogue, &state, head.as_ref()) {
                let last = match &head {
                    Some(head) => head.sequence,
                    None => self.highest_number().await?,
                };
                let last = last.max(ledger.published.as_ref().map_or(0, |published| published.sequence));
                let publish = self.publish(ledger, &owner, last + 1, version, catalogue, &state);
                head = Some(publish.await?);
                report.read_back += 4;
                report.is_new = true;
            }
            report.sequence = head.as_ref().map_or(0, |head| head.sequence);
            let now = self.target_now().await?;
            self.part_with(ledger, &items, &strays, now)?;
            break;
        }
        let now = self.target_now().await?;
        self.read_back_sample(ledger, now, &mut report).await?;
        self.prune(ledger, head.as_ref(), now, &mut report).await?;
        self.note(ledger.rewrite())?;
        Ok(report)
    }

    fn note(&self, noted: io::Result<()>) -> Result<(), OffsiteError> {
        noted.map_err(OffsiteError::disk("write down what was sent"))
    }

    /// Refuses when somebody else who has this box's id wrote the head: the disk of the box was copied.
    fn check_head(&self, ledger: &Ledger, head: Option<&Head>) -> Result<(), OffsiteError> {
        let (Some(published), Some(head)) = (&ledger.published, head) else { return Ok(()) };
        let is_last = digest_of(&formats::encode(head)) == published.head;
        // It was noted, and then not written.
        let is_one_before = head.sequence + 1 == published.sequence;
        if is_last || is_one_before {
            return Ok(());
        }
        Err(OffsiteError::refused(
            format!(
                "somebody else writes to the target in this box's name: its head is number {}, and this box wrote {}",
                head.sequence, published.sequence
            ),
            "was the data directory copied? Stop the other one, then `trackbed backup target set … --take-over`",
        ))
    }

    /// Returns the highest number that a head at the target ever had, as far as earlier ones are still there.
    async fn highest_number(&self) -> Result<u64, OffsiteError> {
        let listed = self.remote.list(HEADS).await?;
        let stems = listed.iter().filter_map(|meta| formats::stem_of(HEADS, meta.location.as_ref()));
        Ok(stems.filter_map(formats::number_of).max().unwrap_or_default())
    }

    /// Learns from the catalogue at the target what is there, when this box does not know.
    async fn learn(
        &self,
        ledger: &mut Ledger,
        head: &Head,
        report: &mut MirrorReport,
    ) -> Result<(), OffsiteError> {
        let catalogue: Catalogue = match fetch_named(self.remote, self.keys, &head.catalogue).await {
            Err(error) if error.is_about_the_object() => {
                // Then all of it is sent again.
                report.damaged.push(format!("{}: {error}", head.catalogue.object));
                return Ok(());
            }
            other => other?,
        };
        for entry in catalogue.entries {
            let held = Held {
                object: entry.named.object,
                kind: entry.kind,
                bytes: entry.named.bytes,
                digest: entry.named.digest,
                stored_bytes: None,
                changed_ms: 0,
                read_at: 0,
            };
            self.note(ledger.note_held(&entry.path, held))?;
        }
        Ok(())
    }

    /// Lists once, and compares with what should be there. Returns objects that nobody knows.
    async fn compare_with_list(
        &self,
        ledger: &mut Ledger,
        report: &mut MirrorReport,
    ) -> Result<Vec<String>, OffsiteError> {
        let listed = self.remote.list(OBJECTS).await?;
        let listed: BTreeMap<String, u64> =
            listed.into_iter().map(|meta| (meta.location.to_string(), meta.size)).collect();
        for (path, held) in ledger.held.clone() {
            let size = match listed.get(&held.object) {
                Some(size) => Some(*size),
                // A list may be behind, or lose an entry: the object itself has the last word.
                None => self.remote.look(&held.object).await?.map(|meta| meta.size),
            };
            match (size, held.stored_bytes) {
                (Some(size), None) => {
                    self.note(ledger.note_held(&path, Held { stored_bytes: Some(size), ..held }))?;
                }
                (Some(size), Some(stored)) if size == stored => {}
                (Some(size), Some(stored)) => {
                    report.damaged.push(format!("{}: has {size} bytes instead of {stored}", held.object));
                    self.note(ledger.note_lost(&path))?;
                }
                (None, _) => {
                    report.damaged.push(format!("{}: is missing", held.object));
                    self.note(ledger.note_lost(&path))?;
                }
            }
        }
        let known: HashSet<&str> = ledger.held.values().map(|held| held.object.as_str()).collect();
        let is_stray =
            |object: &String| !known.contains(object.as_str()) && !ledger.gone.contains_key(object);
        Ok(listed.into_keys().filter(is_stray).collect())
    }

    async fn copy_state(&self) -> Result<CopiedState, OffsiteError> {
        let tail: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = self.data_dir.join(FOLDER).join(format!("state-{tail}"));
        let disk = || OffsiteError::disk("copy the state");
        std::fs::create_dir_all(&folder).map_err(disk())?;
        let mut copied = CopiedState { folder: folder.clone(), digest: Digest::from_bytes([0; 32]) };
        let database = folder.join("state.db");
        self.state.copy_to(&database).await.map_err(|error| OffsiteError::Disk {
            attempt: "copy the state".into(),
            source: io::Error::other(error),
        })?;
        let key = self.data_dir.join("key");
        let measured = blocking(move || {
            std::fs::copy(key, folder.join("key"))?;
            // Of what is in the files: a copy has another time every time.
            let mut measure = Measure::new(io::sink());
            for name in ["state.db", "key"] {
                io::copy(&mut std::fs::File::open(folder.join(name))?, &mut measure)?;
            }
            Ok(measure.finish().1.digest)
        });
        copied.digest = measured.await.map_err(disk())?;
        Ok(copied)
    }

    async fn items(&self) -> Result<Vec<Item>, OffsiteError> {
        let data_dir = self.data_dir.to_owned();
        blocking(move || items::list(&data_dir)).await.map_err(OffsiteError::disk("list the data directory"))
    }

    /// Sends what is missing, rank by rank. Returns whether something vanished meanwhile.
    async fn send_missing(
        &self,
        ledger: &mut Ledger,
        items: &[Item],
        report: &mut MirrorReport,
    ) -> Result<bool, OffsiteError> {
        let missing: Vec<&Item> = items
            .iter()
            .filter(|item| !ledger.held.get(&item.path).is_some_and(|held| held.is(item)))
            .collect();
        let mut vanished = false;
        for rank in missing.chunk_by(|a, b| a.rank == b.rank) {
            let sends: Vec<_> = rank
                .iter()
                .map(|item| self.send_item((*item).clone(), object_name(ledger, item)).boxed())
                .collect();
            let mut sends = stream::iter(sends).buffer_unordered(self.remote.limits().objects_at_once);
            while let Some((item, sent, object)) = sends.next().await {
                let (sent, is_read_back) = match sent {
                    Ok(sent) => sent,
                    Err(_) if !self.data_dir.join(&item.path).exists() => {
                        vanished = true;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let Sent { measured, stored_bytes } = sent;
                report.sent_objects += 1;
                report.sent_bytes += measured.bytes;
                report.read_back += u64::from(is_read_back);
                let held = Held {
                    object: object.clone(),
                    kind: item.kind,
                    bytes: measured.bytes,
                    digest: measured.digest,
                    stored_bytes: Some(stored_bytes),
                    changed_ms: item.changed_ms,
                    read_at: 0,
                };
                self.note(ledger.note_held(&item.path, held))?;
            }
        }
        Ok(vanished)
    }

    async fn send_item(
        &self,
        item: Item,
        object: String,
    ) -> (Item, Result<(Sent, bool), OffsiteError>, String) {
        let path = self.data_dir.join(&item.path);
        let fill: Fill = match item.kind {
            Kind::Tree => Arc::new(move |to| tree::pack(&path, to)),
            Kind::File => Arc::new(move |to| io::copy(&mut std::fs::File::open(&path)?, to).map(drop)),
        };
        let is_read_back = item.rank.is_read_back();
        let sent = match self.remote.send(&object, self.keys, fill).await {
            Ok(sent) if is_read_back => self.read_back(&object, &sent.measured).await.map(|()| (sent, true)),
            other => other.map(|sent| (sent, false)),
        };
        (item, sent, object)
    }

    /// Reads an object back whole and compares.
    async fn read_back(&self, object: &str, sent: &Measured) -> Result<(), OffsiteError> {
        let there = measure(self.remote, self.keys, object).await?;
        if there == *sent {
            return Ok(());
        }
        Err(OffsiteError::damaged(object, "what came back is not what was sent"))
    }

    fn is_new(&self, ledger: &Ledger, catalogue: &[u8], state: &CopiedState, head: Option<&Head>) -> bool {
        let Some((head, published)) = head.zip(ledger.published.as_ref()) else { return true };
        let is_stale = self.now.since(head.at) >= self.remote.limits().heartbeat;
        let is_there = published.head == digest_of(&formats::encode(head)) && published.at != 0;
        let is_same = published.state == state.digest && published.catalogue == digest_of(catalogue);
        is_stale || !is_there || !is_same
    }

    /// Writes state, catalogue and head, and reads each back. `version` is that of the head it replaces. Returns the head.
    async fn publish(
        &self,
        ledger: &mut Ledger,
        owner: &Owner,
        sequence: u64,
        version: Option<UpdateVersion>,
        catalogue: Vec<u8>,
        state: &CopiedState,
    ) -> Result<Head, OffsiteError> {
        let catalogue_digest = digest_of(&catalogue);
        let (folder, stem) = (state.folder.clone(), formats::new_stem(sequence));
        let state_named = self
            .send_named(formats::object_of(STATES, &stem), Arc::new(move |to| tree::pack(&folder, to)))
            .await?;
        let catalogue_named = self
            .send_named(formats::object_of(CATALOGUES, &stem), Arc::new(move |to| to.write_all(&catalogue)))
            .await?;
        let new = Head {
            format: FORMAT,
            box_id: self.box_id.to_owned(),
            sequence,
            at: self.now,
            data_dir: self.data_dir.display().to_string(),
            state: state_named,
            catalogue: catalogue_named,
        };
        // Once more: somebody may have taken over during a long pass.
        owner::check(self.remote, self.keys, self.box_id).await?;
        let plain = formats::encode(&new);
        let published = Published {
            sequence,
            head: digest_of(&plain),
            state: state.digest.clone(),
            catalogue: catalogue_digest,
            at: 0,
        };
        // Before it is written, so that this box knows its own head again after a crash.
        self.note(ledger.note_published(published.clone()))?;
        let mode = match version {
            _ if !owner.replaces_conditionally => PutMode::Overwrite,
            Some(version) => PutMode::Update(version),
            None => PutMode::Create,
        };
        let sealed = seal::seal_small(self.keys, &plain)?;
        match self.remote.put(HEAD, sealed, mode).await {
            Err(error) if error.fault() != Some(RemoteFault::Taken) => return Err(error),
            _ => {}
        }
        // What is there now decides, also when the answer to the write was lost.
        let there = match owner::find_head(self.remote, self.keys).await? {
            Some((head, _)) => Some(head?),
            None => None,
        };
        if there.is_none_or(|there| there != new) {
            return Err(OffsiteError::refused(
                "somebody else wrote a head to the target at the same time",
                "was the data directory copied, or taken over elsewhere? `trackbed backup target show` says who owns it",
            ));
        }
        // Only now: what lies there was the newest once. A pass that ends before writes another head.
        self.send_named(formats::object_of(HEADS, &stem), Arc::new(move |to| to.write_all(&plain))).await?;
        let at = self.target_now().await?;
        self.note(ledger.note_published(Published { at, ..published }))?;
        Ok(new)
    }

    async fn send_named(&self, object: String, fill: Fill) -> Result<Named, OffsiteError> {
        let sent = self.remote.send(&object, self.keys, fill).await?;
        self.read_back(&object, &sent.measured).await?;
        let Measured { bytes, digest } = sent.measured;
        Ok(Named { object, bytes, digest })
    }

    /// Returns the time by the clock of the target, from its newest head: what is removed is removed by that clock, so
    /// that one of the box which jumps removes nothing.
    async fn target_now(&self) -> Result<i64, OffsiteError> {
        let head = self.remote.look(HEAD).await?;
        Ok(head.map_or(0, |meta| meta.last_modified.timestamp_millis()))
    }

    /// Notes what the box does not have any more.
    fn part_with(
        &self,
        ledger: &mut Ledger,
        items: &[Item],
        strays: &[String],
        now: i64,
    ) -> Result<(), OffsiteError> {
        let here: HashSet<&str> = items.iter().map(|item| item.path.as_str()).collect();
        let gone: Vec<(String, String)> = ledger
            .held
            .iter()
            .filter(|(path, _)| !here.contains(path.as_str()))
            .map(|(path, held)| (path.clone(), held.object.clone()))
            .collect();
        for (path, object) in gone {
            self.note(ledger.note_lost(&path))?;
            self.note(ledger.note_gone(&object, now))?;
        }
        let held: HashSet<String> = ledger.held.values().map(|held| held.object.clone()).collect();
        for stray in strays.iter().filter(|stray| !held.contains(*stray)) {
            self.note(ledger.note_gone(stray, now))?;
        }
        Ok(())
    }
}

/// Returns the name for an item: its path, unless that name holds something else already.
fn object_name(ledger: &Ledger, item: &Item) -> String {
    let plain = format!("{OBJECTS}/{}.age", item.path);
    let is_taken = ledger.held.contains_key(&item.path) || ledger.gone.contains_key(&plain);
    match item.kind {
        Kind::File if is_taken => format!("{OBJECTS}/{}~{:x}.age", item.path, item.changed_ms),
        Kind::File | Kind::Tree => plain,
    }
}

/// Reads an object whole and measures it.
pub(crate) async fn measure(remote: &Remote, keys: &Keys, object: &str) -> Result<Measured, OffsiteError> {
    let sink = || {
        |from: &mut dyn io::Read| {
            let mut measure = Measure::new(io::sink());
            io::copy(from, &mut measure)?;
            Ok(measure.finish().1)
        }
    };
    remote.fetch(object, keys, sink).await
}

/// Reads a document of ours and checks it against its name.
pub(crate) async fn fetch_named<T: serde::de::DeserializeOwned>(
    remote: &Remote,
    keys: &Keys,
    named: &Named,
) -> Result<T, OffsiteError> {
    let (bytes, measured) = fetch_whole(remote, keys, &named.object).await?;
    if measured.digest != named.digest {
        return Err(OffsiteError::damaged(&named.object, "it is not what the head names"));
    }
    formats::decode(&named.object, &bytes)
}

/// Reads a document of ours into memory.
pub(crate) async fn fetch_whole(
    remote: &Remote,
    keys: &Keys,
    object: &str,
) -> Result<(Vec<u8>, Measured), OffsiteError> {
    let sink = || {
        |from: &mut dyn io::Read| {
            let mut measure = Measure::new(Vec::new());
            io::copy(from, &mut measure)?;
            Ok(measure.finish())
        }
    };
    remote.fetch(object, keys, sink).await
}

/// Runs blocking work on a thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn digest_of(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}
