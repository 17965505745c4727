//! Brings a folder to the box as a source.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use trackbed_client::{Client, source_channel};

use crate::human;
use crate::names::parse_name;
use crate::pack::{ChunkWriter, pack};
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

    /// Finds the files of the source. Blocks for as long as the disk needs.
    pub(crate) fn find(&self, session: &Session) -> Result<Tree> {
        find(session, &session.below(&self.path), !self.no_gitignore)
    }
}

/// Finds the files of a source. Blocks for as long as the disk needs.
pub(crate) fn find(session: &Session, folder: &Path, heed_gitignore: bool) -> Result<Tree> {
    session.output.status(format!("reading {} …", folder.display()));
    let found = Walk { root: folder, data_dir: &session.data_dir, heed_gitignore }.run();
    session.output.wipe_status();
    found
}

/// Uploads a source and returns its digest.
pub(crate) async fn upload(session: &Session, client: &Client, tree: Tree) -> Result<String> {
    let bytes = tree.bytes;
    send(session, client, Some(bytes), move |to| pack(&tree, to)).await
}

/// Uploads the tar that `pack` writes on a thread where it may block, and returns its digest. `bytes` is about how long
/// it is, when that is known.
pub(crate) async fn send(
    session: &Session,
    client: &Client,
    bytes: Option<u64>,
    pack: impl FnOnce(ChunkWriter) -> Result<()> + Send + 'static,
) -> Result<String> {
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
    let uploading = client.upload_source(taken, move |bytes| counting.store(bytes, Ordering::Relaxed));
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
        (Ok(source), Ok(())) => Ok(source.digest),
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
