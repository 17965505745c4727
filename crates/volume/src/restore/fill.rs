//! Fills an empty folder with what a manifest names. Every byte is checked on the way; holes stay holes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fchown,
    futimens, linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
};

use crate::beneath;
use crate::chunk_store::{ChunkReader, Extent, StoreError};
use crate::inspect::Priority;
use crate::manifest::{Entry, FileContent, Kind};

/// Threads that check and write, when somebody waits.
const WORKERS: usize = 2;
/// A file above this is shared out among the workers, in parts of this size.
const PART_BYTES: u64 = 4 << 20;
/// Bytes that one write takes at most.
const WRITE_BYTES: usize = 1 << 20;
/// How much less than others the workers get of the processor when nobody waits.
const NICENESS: i32 = 19;

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// How to fill.
pub(super) struct Filling<'a> {
    pub(super) reader: &'a ChunkReader,
    /// What to make: a folder before what is in it, the first one being the place itself.
    pub(super) entries: &'a [Entry],
    /// None leaves everything to whoever fills.
    pub(super) owner: Option<Owner>,
    pub(super) priority: Priority,
    /// Whether all of it has to be on the disk before it counts.
    pub(super) is_durable: bool,
    /// Ends it early.
    pub(super) is_given_up: &'a AtomicBool,
}

/// Why a place could not be filled.
#[derive(Debug, thiserror::Error)]
pub(super) enum FillError {
    /// The data is broken.
    #[error("`{path}` cannot be restored: {why}")]
    Broken { path: String, why: StoreError },
    /// The store cannot be read at the moment.
    #[error("`{path}` cannot be read: {why}")]
    Store { path: String, why: StoreError },
    /// The disk refuses what is to be written.
    #[error("`{path}` cannot be written: {why}")]
    Disk { path: String, why: io::Error },
    /// Nobody wants it any more.
    #[error("it was given up")]
    GivenUp,
}

impl FillError {
    pub(super) fn is_full(&self) -> bool {
        let is_full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        matches!(self, Self::Disk { why, .. } if is_full(why))
    }
}

fn told(path: &[u8]) -> String {
    if path.is_empty() { ".".into() } else { String::from_utf8_lossy(path).into_owned() }
}

fn disk(entry: &Entry) -> impl Fn(rustix::io::Errno) -> FillError {
    let path = told(&entry.path);
    move |errno| FillError::Disk { path: path.clone(), why: errno.into() }
}

fn store(entry: &Entry, why: StoreError) -> FillError {
    let path = told(&entry.path);
    if why.is_damage() { FillError::Broken { path, why } } else { FillError::Store { path, why } }
}

fn os(path: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(path)
}

/// Fills a folder that is there and empty. Links come last, so that nothing can be written through one.
pub(super) fn fill(root: &Path, filling: &Filling<'_>) -> Result<(), FillError> {
    let at_root = |why: io::Error| FillError::Disk { path: root.display().to_string(), why };
    let folder = beneath::folder(root).map_err(at_root)?;
    let entries = filling.entries.get(1..).unwrap_or_default();
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Folder) {
        mkdirat(&folder, os(&entry.path), Mode::RWXU).map_err(disk(entry))?;
    }
    write_files(&folder, entries, filling)?;
    for entry in entries {
        filling.check()?;
        let path = os(&entry.path);
        match &entry.kind {
            Kind::HardLink(to) => {
                linkat(&folder, os(to), &folder, path, AtFlags::empty()).map_err(disk(entry))?;
            }
            Kind::Fifo => {
                mknodat(&folder, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(disk(entry))?;
                filling.own(&folder, entry).map_err(disk(entry))?;
                let mode = Mode::from_raw_mode(u32::from(entry.mode));
                chmodat(&folder, path, mode, AtFlags::empty()).map_err(disk(entry))?;
                stamp(&folder, entry).map_err(disk(entry))?;
            }
            Kind::Folder | Kind::File(_) | Kind::Symlink(_) => {}
        }
    }
    for entry in entries {
        if let Kind::Symlink(target) = &entry.kind {
            symlinkat(os(target), &folder, os(&entry.path)).map_err(disk(entry))?;
            filling.own(&folder, entry).map_err(disk(entry))?;
            stamp(&folder, entry).map_err(disk(entry))?;
        }
    }
    // From the innermost out: what is made in a folder changes its time, and its mode may forbid making anything.
    for entry in entries.iter().rev().filter(|entry| entry.kind == Kind::Folder) {
        filling.own(&folder, entry).map_err(disk(entry))?;
        let mode = Mode::from_raw_mode(u32::from(entry.mode));
        chmodat(&folder, os(&entry.path), mode, AtFlags::empty()).map_err(disk(entry))?;
        stamp(&folder, entry).map_err(disk(entry))?;
    }
    if let Some(top) = filling.entries.first() {
        if let Some(owner) = filling.owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            fchown(&folder, Some(uid), Some(gid)).map_err(disk(top))?;
        }
        fchmod(&folder, Mode::from_raw_mode(u32::from(top.mode))).map_err(disk(top))?;
        futimens(&folder, &times(top)).map_err(disk(top))?;
    }
    Ok(())
}

/// Makes everything on the disk of a folder durable, whoever wrote it.
pub(super) fn sync_disk_of(folder: &Path) -> io::Result<()> {
    let file = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::syncfs(&file)?)
}

impl Filling<'_> {
    fn check(&self) -> Result<(), FillError> {
        if self.is_given_up.load(Ordering::Relaxed) { Err(FillError::GivenUp) } else { Ok(()) }
    }

    fn own(&self, folder: &OwnedFd, entry: &Entry) -> rustix::io::Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        chownat(folder, os(&entry.path), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.modified.0, tv_nsec: i64::from(entry.modified.1.min(999_999_999)) };
    Timestamps { last_access: time, last_modification: time }
}

fn stamp(folder: &OwnedFd, entry: &Entry) -> rustix::io::Result<()> {
    utimensat(folder, os(&entry.path), &times(entry), AtFlags::SYMLINK_NOFOLLOW)
}

/// A file that is being written, by several workers when it is large.
struct Target<'a> {
    entry: &'a Entry,
    file: File,
    /// Parts that are being written, and one for as long as there are more to hand out.
    parts: AtomicUsize,
}

type Extents<'a> = Box<dyn Iterator<Item = Result<Extent, StoreError>> + Send + 'a>;

/// What is still to be written.
struct Queue<'a> {
    files: std::slice::Iter<'a, Entry>,
    large: Option<(Arc<Target<'a>>, Extents<'a>)>,
}

enum Job<'a> {
    Whole(&'a Entry, FileContent),
    Part(Arc<Target<'a>>, Vec<Extent>),
}

fn write_files<'a>(folder: &OwnedFd, entries: &'a [Entry], filling: &Filling<'a>) -> Result<(), FillError> {
    let queue = Mutex::new(Queue { files: entries.iter(), large: None });
    let failed = AtomicBool::new(false);
    let workers = if filling.priority == Priority::Low { 1 } else { WORKERS };
    let (flush, to_flush) = sync_channel::<File>(1);
    std::thread::scope(|scope| {
        let flusher = filling.is_durable.then(|| scope.spawn(|| flush_early(to_flush)));
        let writers: Vec<_> = (0..workers)
            .map(|_| {
                let (queue, failed, flush) = (&queue, &failed, flush.clone());
                scope.spawn(move || {
                    if filling.priority == Priority::Low {
                        // Of this thread alone, on Linux.
                        let _ = rustix::process::nice(NICENESS);
                    }
                    let done = work(folder, queue, failed, &flush, filling);
                    if done.is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    done
                })
            })
            .collect();
        drop(flush);
        let mut outcome = Ok(());
        for writer in writers {
            let done = writer.join().unwrap_or(Err(FillError::GivenUp));
            outcome = outcome.and(done);
        }
        let flushed = flusher.map_or(Ok(()), |flusher| flusher.join().unwrap_or(Ok(())));
        outcome.and(flushed.map_err(|why| FillError::Disk { path: ".".into(), why }))
    })
}

/// Lets the disk begin while the workers go on; what is left of it is made durable in the end.
fn flush_early(files: Receiver<File>) -> io::Result<()> {
    files.into_iter().try_for_each(|file| file.sync_data())
}

fn work<'a>(
    folder: &OwnedFd,
    queue: &Mutex<Queue<'a>>,
    failed: &AtomicBool,
    flush: &SyncSender<File>,
    filling: &Filling<'a>,
) -> Result<(), FillError> {
    let mut writer = Writer { chunk: Vec::new(), pending: Vec::with_capacity(WRITE_BYTES), at: 0 };
    while !failed.load(Ordering::Relaxed) {
        filling.check()?;
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).take(folder, filling)?;
        match job {
            None => break,
            Some(Job::Whole(entry, content)) => {
                let target =
                    Target { entry, file: create(folder, entry, content)?, parts: AtomicUsize::new(1) };
                let extents = filling.reader.extents(content.size, content.content.as_ref());
                writer.write(&target, extents, filling)?;
                target.finish(filling)?;
            }
            Some(Job::Part(target, extents)) => {
                writer.write(&target, extents.into_iter().map(Ok), filling)?;
                if let (true, Ok(file)) = (filling.is_durable, target.file.try_clone()) {
                    // When the disk is busy already, there is nothing to gain.
                    let _ = flush.try_send(file);
                }
                target.finish(filling)?;
            }
        }
    }
    Ok(())
}

impl<'a> Queue<'a> {
    fn take(&mut self, folder: &OwnedFd, filling: &Filling<'a>) -> Result<Option<Job<'a>>, FillError> {
        loop {
            if let Some((target, extents)) = &mut self.large {
                let (mut part, mut bytes) = (Vec::new(), 0);
                while bytes < PART_BYTES
                    && let Some(extent) = extents.next()
                {
                    let extent = extent.map_err(|why| store(target.entry, why))?;
                    if extent.chunk.is_some() {
                        bytes += extent.length;
                        part.push(extent);
                    }
                }
                let target = target.clone();
                if bytes < PART_BYTES {
                    // The last part takes over what the queue counted for.
                    self.large = None;
                } else {
                    target.parts.fetch_add(1, Ordering::AcqRel);
                }
                return Ok(Some(Job::Part(target, part)));
            }
            let Some(entry) = self.files.next() else { return Ok(None) };
            let Kind::File(content) = entry.kind else { continue };
            if content.size <= PART_BYTES {
                return Ok(Some(Job::Whole(entry, content)));
            }
            let file = create(folder, entry, content)?;
            let extents: Extents<'a> = {
                let reader = filling.reader;
                // The name of the content lives as long as its entry.
                let name = match &entry.kind {
                    Kind::File(content) => content.content.as_ref(),
                    Kind::Folder | Kind::Symlink(_) | Kind::Fifo | Kind::HardLink(_) => None,
                };
                Box::new(reader.extents(content.size, name))
            };
            self.large = Some((Arc::new(Target { entry, file, parts: AtomicUsize::new(1) }), extents));
        }
    }
}

fn create(folder: &OwnedFd, entry: &Entry, content: FileContent) -> Result<File, FillError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(
        openat(folder.as_fd(), os(&entry.path), flags, Mode::RUSR | Mode::WUSR).map_err(disk(entry))?,
    );
    if content.size > 0 {
        let why = |why| FillError::Disk { path: told(&entry.path), why };
        file.set_len(content.size).map_err(why)?;
    }
    Ok(file)
}

impl Target<'_> {
    /// Ends a part; the last one to end gives the file its mode, owner and time.
    fn finish(&self, filling: &Filling<'_>) -> Result<(), FillError> {
        if self.parts.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let finish = || {
            if let Some(owner) = filling.owner {
                fchown(&self.file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
            }
            fchmod(&self.file, Mode::from_raw_mode(u32::from(self.entry.mode)))?;
            futimens(&self.file, &times(self.entry))
        };
        finish().map_err(disk(self.entry))
    }
}

/// Puts chunks that follow each other together into large writes.
struct Writer {
    chunk: Vec<u8>,
    pending: Vec<u8>,
    at: u64,
}

impl Writer {
    fn write(
        &mut self,
        target: &Target<'_>,
        extents: impl Iterator<Item = Result<Extent, StoreError>>,
        filling: &Filling<'_>,
    ) -> Result<(), FillError> {
        let broken = |why| store(target.entry, why);
        self.pending.clear();
        for extent in extents {
            let extent = extent.map_err(broken)?;
            let Some(id) = extent.chunk else { continue };
            filling.reader.chunk(&id, &mut self.chunk).map_err(broken)?;
            if self.chunk.len() as u64 != extent.length {
                let why =
                    format!("chunk {id} has {} bytes and stands for {}", self.chunk.len(), extent.length);
                return Err(broken(StoreError::Damaged { path: Path::new("manifest").to_owned(), why }));
            }
            let follows = self.at + self.pending.len() as u64 == extent.offset;
            if !follows || self.pending.len() + self.chunk.len() > WRITE_BYTES {
                self.flush(target)?;
                self.at = extent.offset;
            }
            self.pending.extend_from_slice(&self.chunk);
        }
        self.flush(target)
    }

    fn flush(&mut self, target: &Target<'_>) -> Result<(), FillError> {
        let written = target.file.write_all_at(&self.pending, self.at);
        self.at += self.pending.len() as u64;
        self.pending.clear();
        written.map_err(|why| FillError::Disk { path: told(&target.entry.path), why })
    }
}
