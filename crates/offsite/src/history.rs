//! Which copies a target holds: its heads, newest first, and what of each can be had. Whoever recovers takes an earlier
//! one when the newest is damaged.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use trackbed_core::Timestamp;
use trackbed_core::offsite::OffsiteTarget;

use crate::error::OffsiteError;
use crate::formats::{self, Catalogue, HEAD, HEADS, Head, Named, OBJECTS, OWNER, STATES};
use crate::limits::Limits;
use crate::mirror::{fetch_named, fetch_whole};
use crate::owner;
use crate::recover::Copies;
use crate::remote::Remote;
use crate::seal::Keys;
use crate::target::{self, Folder};

/// Objects that a list does not name and that are asked for one by one; what is beyond that is taken for missing.
const LOOKS_MAX: usize = 100;
/// How long the first request is tried again.
const FIRST_LIMIT: Duration = Duration::from_secs(20);
/// Faults of one head that are told in full.
const TOLD_MAX: usize = 5;

/// All copies that a prefix holds.
#[derive(Debug)]
pub struct History {
    remote: Remote,
    keys: Keys,
    url: String,
    /// Objects that hold heads: the newest, and those that are kept of all, newest first.
    heads: Vec<String>,
    /// Sizes of all objects and states, by name.
    sizes: HashMap<String, u64>,
}

/// What a head names, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The object that holds the head.
    pub head: String,
    /// Its number; none when neither it nor its name says so.
    pub number: Option<u64>,
    /// When the copied state was the box's, by the clock of the box.
    pub taken_at: Option<Timestamp>,
    /// Bytes before encryption.
    pub bytes: u64,
    /// Paths of what it brings, relative to the data directory.
    pub paths: Vec<String>,
    /// Why it is not whole; empty when all that it names is there.
    pub faults: Vec<String>,
}

impl History {
    /// Lists what is at a target. Writes nothing.
    ///
    /// # Errors
    /// When there are no copies, the key does not fit, or the target cannot be read.
    pub async fn open(
        target: &OffsiteTarget,
        data_dir: &Path,
        limits: Limits,
    ) -> Result<History, OffsiteError> {
        let keys = Keys::parse(&target.identity)?;
        let store = target::open(target, data_dir, Folder::MustExist)?;
        Self::of_store(Remote::new(store, limits, target.bandwidth_bytes), keys, &target.url).await
    }

    pub(crate) async fn of_store(remote: Remote, keys: Keys, url: &str) -> Result<History, OffsiteError> {
        // A wrong address is told soon: somebody waits for it. Later ones are repeated for as long as any.
        let is_owned = match owner::read(&remote.clone().impatient(FIRST_LIMIT)).await {
            Ok(Some((owner, _))) => owner::check_key(&owner, &keys).map(|()| true)?,
            Ok(None) => false,
            // The heads themselves say whether the key fits.
            Err(error) if error.is_about_the_object() => {
                tracing::warn!(%error, "nobody can say whose copies these are");
                true
            }
            Err(error) => return Err(error),
        };
        let mut heads = Vec::new();
        if remote.look(HEAD).await?.is_some() {
            heads.push(HEAD.to_owned());
        }
        let mut kept: Vec<String> =
            remote.list(HEADS).await?.into_iter().map(|meta| meta.location.to_string()).collect();
        kept.sort_by(|a, b| b.cmp(a));
        heads.extend(kept);
        match (heads.is_empty(), is_owned) {
            (true, false) => return Err(nothing(url, &format!("it has no {OWNER}"))),
            (true, true) => return Err(nothing(url, "the first copy was not finished")),
            (false, _) => {}
        }
        let mut sizes = HashMap::new();
        for folder in [OBJECTS, STATES] {
            let listed = remote.list(folder).await?;
            sizes.extend(listed.into_iter().map(|meta| (meta.location.to_string(), meta.size)));
        }
        Ok(History { remote, keys, url: url.to_owned(), heads, sizes })
    }

    /// Returns all copies, newest first. What is not whole is among them and says why.
    ///
    /// # Errors
    /// When the target cannot be read, or holds a format that this version does not know.
    pub async fn list(&self) -> Result<Vec<Found>, OffsiteError> {
        let mut all: Vec<Found> = Vec::new();
        for head in &self.heads {
            let (found, _) = self.read(head, &BTreeSet::new()).await?;
            // The newest is kept as one of all, too.
            if !all.iter().any(|known| is_same(known, &found)) {
                all.push(found);
            }
        }
        Ok(all)
    }

    /// Returns the newest copies of which everything is there, among those that were made no later than `not_after`, and
    /// what was passed over for it. `damaged` are objects of which more is known than that they are there.
    ///
    /// # Errors
    /// When there are none, or as [`History::list`].
    pub async fn newest_whole(
        &self,
        not_after: Option<Timestamp>,
        damaged: &BTreeSet<String>,
    ) -> Result<(Copies, Vec<Found>), OffsiteError> {
        let mut passed: Vec<Found> = Vec::new();
        for head in &self.heads {
            let (found, copies) = self.read(head, damaged).await?;
            if not_after.is_some_and(|limit| found.taken_at.is_some_and(|at| at > limit)) {
                continue;
            }
            match copies {
                Some(copies) if found.faults.is_empty() => return Ok((copies, passed)),
                _ if passed.iter().any(|known| is_same(known, &found)) => {}
                _ => passed.push(found),
            }
        }
        if passed.is_empty() {
            return Err(OffsiteError::refused(
                format!("no copies at {} were made by then", self.url),
                "`trackbed recover … --list` shows what there is",
            ));
        }
        let told: Vec<String> = passed.iter().take(TOLD_MAX).map(Found::told).collect();
        let more = passed.len().saturating_sub(TOLD_MAX);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        Err(OffsiteError::refused(
            format!("no copies at {} are whole: {}{more}", self.url, told.join("; ")),
            "`trackbed recover … --list` shows them all, and `--at NUMBER` brings back what is left of one",
        ))
    }

    /// Returns the copies of this number, whole or not, with what is known to be wrong with them.
    ///
    /// # Errors
    /// When there are none, head or catalogue cannot be used, or as [`History::list`].
    pub async fn numbered(&self, number: u64) -> Result<(Copies, Found), OffsiteError> {
        let mut unusable = None;
        for head in &self.heads {
            let (found, copies) = self.read(head, &BTreeSet::new()).await?;
            match copies {
                _ if found.number != Some(number) => {}
                Some(copies) => return Ok((copies, found)),
                None => unusable = Some(found),
            }
        }
        let hint = "`trackbed recover … --list` shows what there is";
        Err(match unusable {
            Some(found) => OffsiteError::refused(format!("cannot use {}", found.told()), hint),
            None => {
                OffsiteError::refused(format!("{} has no copies with the number {number}", self.url), hint)
            }
        })
    }

    /// Reads a head and what it names, without the objects themselves. No copies when head or catalogue cannot be used.
    async fn read(
        &self,
        head: &str,
        damaged: &BTreeSet<String>,
    ) -> Result<(Found, Option<Copies>), OffsiteError> {
        let mut found = Found {
            head: head.to_owned(),
            number: formats::stem_of(HEADS, head).and_then(formats::number_of),
            taken_at: None,
            bytes: 0,
            paths: Vec::new(),
            faults: Vec::new(),
        };
        let read: Result<Head, OffsiteError> = match fetch_whole(&self.remote, &self.keys, head).await {
            Ok((bytes, _)) => formats::decode(head, &bytes),
            Err(error) => Err(error),
        };
        let Some(head) = found.unless_faulty(head, read)? else { return Ok((found, None)) };
        (found.number, found.taken_at) = (Some(head.sequence), Some(head.at));
        let catalogue = fetch_named(&self.remote, &self.keys, &head.catalogue).await;
        let Some(catalogue) = found.unless_faulty(&head.catalogue.object, catalogue)? else {
            return Ok((found, None));
        };
        let catalogue: Catalogue = catalogue;
        found.paths = catalogue.entries.iter().map(|entry| entry.path.clone()).collect();
        let all = || std::iter::once(&head.state).chain(catalogue.entries.iter().map(|entry| &entry.named));
        found.bytes = all().map(|named| named.bytes).sum();
        let (mut faults, mut looks) = (Vec::new(), 0);
        for named in all() {
            if damaged.contains(&named.object) {
                faults.push(format!("{} is damaged", named.object));
            } else if let Some(fault) = self.fault_of(named, &mut looks).await? {
                faults.push(fault);
            }
        }
        if faults.len() > TOLD_MAX {
            let more = faults.len() - TOLD_MAX;
            faults.truncate(TOLD_MAX);
            faults.push(format!("and {more} more"));
        }
        found.faults = faults;
        let (remote, keys) = (self.remote.clone(), self.keys.clone());
        Ok((found, Some(Copies { remote, keys, head, catalogue })))
    }

    /// Says what can be seen to be wrong with an object from outside.
    async fn fault_of(&self, named: &Named, looks: &mut usize) -> Result<Option<String>, OffsiteError> {
        let mut size = self.sizes.get(&named.object).copied();
        // A list may lose an entry: the object itself has the last word.
        if size.is_none() && *looks < LOOKS_MAX {
            *looks += 1;
            size = self.remote.look(&named.object).await?.map(|meta| meta.size);
        }
        let (object, bytes) = (&named.object, named.bytes);
        Ok(match size {
            None => Some(format!("{object} is missing")),
            // Encryption adds to every object.
            Some(size) if size <= bytes => Some(format!("{object} has {size} bytes, and holds {bytes}")),
            Some(_) => None,
        })
    }
}

impl Found {
    /// Names it and its faults in one line.
    pub fn told(&self) -> String {
        let name = match self.number {
            Some(number) => format!("number {number}"),
            None => self.head.clone(),
        };
        if self.faults.is_empty() { name } else { format!("{name} ({})", self.faults.join(", ")) }
    }

    /// Notes why an object of it cannot be used; what is no fault of the object is an error.
    fn unless_faulty<T>(
        &mut self,
        object: &str,
        read: Result<T, OffsiteError>,
    ) -> Result<Option<T>, OffsiteError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.is_about_the_object() => {
                self.faults.push(error.fault_of_object(object));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns whether two heads are copies of one.
fn is_same(a: &Found, b: &Found) -> bool {
    a.taken_at.is_some() && (a.number, a.taken_at) == (b.number, b.taken_at)
}

pub(crate) fn nothing(url: &str, what: &str) -> OffsiteError {
    OffsiteError::refused(
        format!("there is nothing to recover at {url}: {what}"),
        "check bucket and prefix; `trackbed backup target show` says them on the box that made the copies",
    )
}
