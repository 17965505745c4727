//! Brings a folder to the box as a source.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use trackbed_client::{Client, ClientError, source_channel};
use trackbed_stdx::files;

use crate::human;
use crate::index::{self, Index};
use crate::names::parse_name;
use crate::pack::{ChunkWriter, pack};
use crate::parcel::Parcel;
use crate::session::Session;
use crate::target::{Names, Target};
use crate::walk::{Tree, Walk};

/// How often the status line tells how far an upload is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The flags that name a folder and the service that it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Folder {
    /// The folder
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Name of the service [default: the folder's name]
    #[arg(long, short, value_name = "NAME", value_parser = parse_name)]
    service: Option<String>,
    /// Name of its project [default: the name of the service]
    #[arg(long, short, value_name = "NAME", value_parser = parse_name)]
    project: Option<String>,
    /// Take what .gitignore drops, too (.railwayignore still counts)
    #[arg(long)]
    no_gitignore: bool,
}

impl Folder {
    /// Returns the names of the service, whether there is such a service or not.
    pub(crate) fn named(&self, session: &Session) -> Result<Names> {
        let target = Target { service: self.service.clone(), project: self.project.clone() };
        target.named(&session.below(&self.path))
    }

    /// Lists the files of the source. Blocks for as long as the disk needs.
    pub(crate) fn walk(&self, session: &Session) -> Result<Tree> {
        walk(session, &session.below(&self.path), !self.no_gitignore)
    }

    /// Finds what is to be brought to the box; see [`find`].
    pub(crate) fn find(&self, session: &Session, afresh: bool) -> Result<Found> {
        find(session, &session.below(&self.path), !self.no_gitignore, afresh)
    }
}

/// A source that can be brought to the box.
pub(crate) struct Found {
    tree: Arc<Tree>,
    /// Where the index of the folder is kept.
    place: Option<PathBuf>,
    /// What was known of the folder, and what differs from that.
    difference: Option<(Index, Parcel)>,
}

impl Found {
    /// Returns how many files and links it has.
    pub(crate) fn files(&self) -> usize {
        self.tree.files
    }
}

fn walk(session: &Session, folder: &Path, heed_gitignore: bool) -> Result<Tree> {
    session.output.status(format!("reading {} …", folder.display()));
    let found = Walk { root: folder, data_dir: &session.data_dir, heed_gitignore }.run();
    session.output.wipe_status();
    found
}

/// Finds the files of a source, and reads those that may have changed since the folder was last brought to the box; afresh,
/// or for the first time, they are read while they are sent. Refuses what cannot be read. Blocks for as long as the disk
/// needs.
pub(crate) fn find(session: &Session, folder: &Path, heed_gitignore: bool, afresh: bool) -> Result<Found> {
    let tree = walk(session, folder, heed_gitignore)?;
    let cache = session.cache_dir.as_deref();
    let place = cache.map(|cache| index::place(cache, &session.data_dir, &tree.root));
    let old = place.as_deref().filter(|_| !afresh).and_then(Index::load);
    session.output.status("looking what has changed …");
    let looked: Result<_> = old.map_or(Ok(None), |old| {
        let parcel = Parcel::since(&old, &tree)?;
        Ok(parcel.map(|parcel| (old, parcel)))
    });
    session.output.wipe_status();
    let difference = looked?;
    if difference.is_none() {
        tree.check_readable()?;
    }
    Ok(Found { tree: Arc::new(tree), place, difference })
}

/// Brings a source to the box and returns its digest: nothing is sent when the box has it, and only what differs when it
/// has what was brought from this folder before.
pub(crate) async fn upload(session: &Session, client: &Client, found: Found) -> Result<String> {
    let Found { tree, place, difference } = found;
    if let Some((old, parcel)) = difference {
        let digest = parcel.index.digest();
        if client.has_source(&digest).await.context("cannot upload the source")? {
            keep(place, parcel.index, Some(&old)).await;
            return Ok(digest);
        }
        match send_parcel(session, client, &tree, parcel).await {
            Ok((digest, index)) if index.digest() == digest => {
                keep(place, index, None).await;
                return Ok(digest);
            }
            Err(error) if !is_answer(&error) => return Err(error),
            // The box has lost the earlier source, or something of it, or understood something else: it gets everything.
            _ => {}
        }
    }
    let parcel = Parcel::whole(&tree);
    let (digest, index) = send_parcel(session, client, &tree, parcel).await?;
    if index.digest() == digest {
        keep(place, index, None).await;
    }
    Ok(digest)
}

async fn send_parcel(
    session: &Session,
    client: &Client,
    tree: &Arc<Tree>,
    parcel: Parcel,
) -> Result<(String, Index)> {
    let (tree, earlier, bytes) = (Arc::clone(tree), parcel.earlier.clone(), parcel.bytes);
    send(session, client, earlier.as_deref(), Some(bytes), move |to| pack(&tree, parcel, to)).await
}

/// Keeps an index for the next time. It only makes that quicker, so a disk that refuses is no failure.
async fn keep(place: Option<PathBuf>, index: Index, old: Option<&Index>) {
    let Some(place) = place else { return };
    let is_kept = old == Some(&index);
    let keep = move || if is_kept { files::touch(&place) } else { index.save(&place) };
    let _ = tokio::task::spawn_blocking(keep).await;
}

/// Returns whether the box heard the request and refused it.
fn is_answer(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Api(..)))
}

/// Uploads the tar that `pack` writes on a thread where it may block, and returns the digest of the source and what `pack`
/// does. `earlier` is the source that the tar tells the difference from, and `bytes` is about how long it is, when
/// that is known.
pub(crate) async fn send<T: Send + 'static>(
    session: &Session,
    client: &Client,
    earlier: Option<&str>,
    bytes: Option<u64>,
    pack: impl FnOnce(ChunkWriter) -> Result<T> + Send + 'static,
) -> Result<(String, T)> {
    let (chunks, taken) = source_channel();
    let packing = tokio::task::spawn_blocking(move || {
        let packed = pack(ChunkWriter::new(chunks.clone()));
        if packed.is_err() {
            // Without this the box would take the torn tar for a whole one.
            let _ = chunks.blocking_send(Err(io::Error::other("the source could not be packed")));
        }
        packed
    });
    let sent = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&sent);
    let uploading =
        client.upload_source(taken, earlier, move |bytes| counting.store(bytes, Ordering::Relaxed));
    let telling = async {
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            session.output.status(progress(sent.load(Ordering::Relaxed), bytes));
        }
    };
    let uploaded = tokio::select! {
        uploaded = uploading => uploaded,
        () = telling => unreachable!("telling never ends"),
    };
    session.output.wipe_status();
    let packed = packing.await.context("packing the source failed")?;
    match (uploaded, packed) {
        (Ok(source), Ok(packed)) => Ok((source.digest, packed)),
        (Err(_), Err(error)) if !is_hang_up(&error) => Err(error),
        (Err(error), _) => Err(anyhow::Error::new(error).context("cannot upload the source")),
        (Ok(_), Err(error)) => Err(error),
    }
}

/// Draws how far an upload is: `uploading ██████░░░░░░░░░░░░░░ 3.0 MB of 10 MB`.
fn progress(sent: u64, all: Option<u64>) -> String {
    const CELLS: u64 = 20;
    let Some(all) = all.filter(|all| *all > 0) else { return format!("uploading {} …", human::size(sent)) };
    // The tar around the files counts as sent, too.
    let sent = sent.min(all);
    let bar: String = (0..CELLS).map(|cell| if sent * CELLS > cell * all { '█' } else { '░' }).collect();
    format!("uploading {bar} {} of {}", human::size(sent), human::size(all))
}

/// Returns whether packing ended only because the box would not take more.
fn is_hang_up(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.into_iter().any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_drawn_from_its_beginning_to_its_end() {
        assert_eq!(progress(3_000_000, Some(10_000_000)), "uploading ██████░░░░░░░░░░░░░░ 3.0 MB of 10 MB");
        assert_eq!(progress(0, Some(1)), format!("uploading {} 0 B of 1 B", "░".repeat(20)));
        assert_eq!(progress(12, Some(10)), format!("uploading {} 10 B of 10 B", "█".repeat(20)));
        assert_eq!(
            (progress(5, None), progress(5, Some(0))),
            ("uploading 5 B …".into(), "uploading 5 B …".into())
        );
    }
}
