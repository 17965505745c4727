//! `trackbed volume files`, `get`, `put` and `usage`: what is in a volume, and copying it out and in.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trackbed_api::FileEntry;
use trackbed_client::{FileStream, VolumeClient, source_channel};
use trackbed_stdx::clock::now_ms;
use trackbed_stdx::files::{sync_folder, temporary_beside};

use crate::human::{ago, count, plain, size, table};
use crate::names::parse_name;
use crate::output::Ink;
use crate::session::{Refusal, Session};
use crate::target::Target;

/// How much of a file is sent at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How every SQLite database begins.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

#[derive(Debug, clap::Args)]
pub(super) struct Files {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// A folder in it
    #[arg(default_value = "/")]
    path: String,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed volume get data uploads/a.pdf\n  \
                        trackbed volume get data uploads - | tar x\n\n\
                        A folder comes as a tar.")]
pub(super) struct Get {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// A file or folder in it
    path: String,
    /// Where to write it; `-` is standard output [default: its own name, in the current folder]
    #[arg(value_name = "TO")]
    to: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed volume put data seed.json\n  \
                        trackbed volume put data seed.json imports/today.json\n  \
                        trackbed volume put data ./uploads\n\n\
                        A folder comes with all files below it; folders that are missing in the volume are made.")]
pub(super) struct Put {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// A file or folder on this machine
    file: PathBuf,
    /// Where it goes in the volume; a `/` at the end keeps its own name [default: /]
    #[arg(value_name = "PATH", default_value = "/")]
    path: String,
    /// Print a JSON object; of a folder a list of them
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
pub(super) struct Usage {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// A folder in it
    #[arg(default_value = "/")]
    path: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn files(session: &Session, args: &Files) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let files = names.of(&client).volume(&args.name).files(&args.path).await?;
    if args.json {
        session.output.json_pretty(&files)?;
        return Ok(0);
    }
    if files.is_empty() {
        session.output.talk(format!("{} of volume {} is empty", plain(&args.path), args.name));
        return Ok(0);
    }
    let now = now_ms();
    let rows: Vec<_> = files
        .iter()
        .map(|file| {
            let path = format!("{}{}", plain(&file.path), mark(&file.kind));
            [size(file.size_bytes), ago(now, file.modified_at), path]
        })
        .collect();
    for line in table(&rows) {
        session.output.result(line)?;
    }
    Ok(0)
}

/// What stands behind a name, so that one sees what it is.
fn mark(kind: &str) -> &'static str {
    match kind {
        "dir" => "/",
        "link" => "@",
        _ => "",
    }
}

pub(super) async fn get(session: &Session, args: &Get) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    if args.to.as_deref() == Some(Path::new("-")) {
        let mut file = names.of(&client).volume(&args.name).get_file(&args.path).await?;
        while let Some(bytes) = file.next().await? {
            session.output.result_bytes(&bytes)?;
        }
        return Ok(0);
    }
    let mut file = names.of(&client).volume(&args.name).get_file(&args.path).await?;
    let own_name = Path::new(&args.path).file_name().unwrap_or(args.name.as_ref());
    let mut own_name = own_name.to_owned();
    if file.is_folder {
        own_name.push(".tar");
    }
    let to = match &args.to {
        None => session.below(Path::new(&own_name)),
        Some(to) => {
            let to = session.below(to);
            if to.is_dir() { to.join(own_name) } else { to }
        }
    };
    if to.exists() && !args.force {
        let message = format!("{} is there already", to.display());
        return Err(Refusal::with_hint(message, "replace it by --force, or name another file"));
    }
    let part = temporary_beside(&to).with_context(|| format!("cannot write beside {}", to.display()))?;
    let written = write_down(&mut file, &part, &to).await;
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    let Written { bytes, is_database } = written?;
    session.output.talk(format!("{} from volume {}: {}", size(bytes), args.name, to.display()));
    if is_database {
        session.output.talk(format!(
            "{} it is a SQLite database: what its app wrote meanwhile, or has in its log, may be missing; \
             `trackbed db` reads it as it was at one instant",
            session.output.ink_talk(Ink::Odd, "!")
        ));
    }
    Ok(0)
}

/// What was written down.
struct Written {
    bytes: u64,
    is_database: bool,
}

/// Writes what comes to a file beside, and puts it in its place when it is whole.
async fn write_down(from: &mut FileStream, part: &Path, to: &Path) -> Result<Written> {
    let cannot = || format!("cannot write {}", to.display());
    // It may be a database of customers: nobody else's to read until its owner says so.
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(part).with_context(cannot)?;
    let mut written = Written { bytes: 0, is_database: false };
    while let Some(bytes) = from.next().await? {
        written.is_database |= written.bytes == 0 && bytes.starts_with(SQLITE_MAGIC);
        file.write_all(&bytes).with_context(cannot)?;
        written.bytes += bytes.len() as u64;
    }
    file.sync_all().with_context(cannot)?;
    fs::rename(part, to).with_context(cannot)?;
    if let Some(folder) = to.parent() {
        sync_folder(folder).with_context(cannot)?;
    }
    Ok(written)
}

pub(super) async fn put(session: &Session, args: &Put) -> Result<u8> {
    let shown = args.file.display();
    let path = session.below(&args.file);
    let metadata = fs::metadata(&path).with_context(|| format!("cannot read {shown}"))?;
    if !metadata.is_file() && !metadata.is_dir() {
        let hint = "only files and folders go into a volume";
        return Err(Refusal::with_hint(format!("{shown} is neither a file nor a folder"), hint));
    }
    let to = match args.path.strip_suffix('/') {
        Some(folder) => {
            // `.` has a name, too.
            let named = fs::canonicalize(&path).with_context(|| format!("cannot read {shown}"))?;
            let name = path.file_name().or_else(|| named.file_name());
            format!("{folder}/{}", name.map(|name| name.to_string_lossy()).unwrap_or_default())
        }
        None => args.path.clone(),
    };
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let service = names.of(&client);
    let volume = service.volume(&args.name);
    if metadata.is_file() {
        let entry = send_file(&volume, &path, &to).await?;
        if args.json {
            session.output.json_pretty(&entry)?;
        }
        let (bytes, to) = (size(entry.size_bytes), plain(&entry.path));
        session.output.talk(format!("{bytes} into volume {}: {to}", args.name));
        return Ok(0);
    }
    let sent = send_folder(session, &volume, &path, &to).await?;
    if args.json {
        session.output.json_pretty(&sent.entries)?;
    }
    let bytes = size(sent.entries.iter().map(|entry| entry.size_bytes).sum());
    let (files, to) = (count(sent.entries.len() as u64, "file"), plain(to.trim_matches('/')));
    session.output.talk(format!("{files}, {bytes}, into volume {}: {to}/", args.name));
    Ok(u8::from(sent.left > 0))
}

/// What became of a folder.
pub(crate) struct SentFolder {
    /// The files that are in the volume now.
    pub(crate) entries: Vec<FileEntry>,
    /// How many things below the folder are not: each was named.
    pub(crate) left: u64,
}

/// Copies all files below a folder of this machine into a volume. Links are not followed; what is no file, or has a name
/// that cannot be sent, is told and left.
///
/// # Errors
/// At the first file that the box refuses or that cannot be read. Those before it are there.
pub(crate) async fn send_folder(
    session: &Session,
    volume: &VolumeClient<'_>,
    folder: &Path,
    to: &str,
) -> Result<SentFolder> {
    let mut sent = SentFolder { entries: Vec::new(), left: 0 };
    let mut folders = vec![(folder.to_owned(), to.trim_end_matches('/').to_owned())];
    while let Some((folder, to)) = folders.pop() {
        let cannot = || format!("cannot read {}", folder.display());
        let mut entries = fs::read_dir(&folder)
            .with_context(cannot)?
            .collect::<io::Result<Vec<_>>>()
            .with_context(cannot)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type().with_context(cannot)?);
            let name = entry.file_name();
            match name.to_str() {
                Some(name) if kind.is_dir() => folders.push((path, format!("{to}/{name}"))),
                Some(name) if kind.is_file() => {
                    session.output.status(format!("copying {} …", plain(&path.to_string_lossy())));
                    sent.entries.push(send_file(volume, &path, &format!("{to}/{name}")).await?);
                    session.output.wipe_status();
                }
                _ => {
                    let what = if kind.is_symlink() { "a link" } else { "no file with a name in UTF-8" };
                    let shown = plain(&path.to_string_lossy());
                    session.output.talk(format!("NOT copied, because it is {what}: {shown}"));
                    sent.left += 1;
                }
            }
        }
    }
    Ok(sent)
}

/// Copies a file of this machine into a volume.
async fn send_file(volume: &VolumeClient<'_>, path: &Path, to: &str) -> Result<FileEntry> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.with_context(|| format!("cannot read {}", path.display()))?;
    let (chunks, taken) = source_channel();
    // What an app appends meanwhile is no longer part of what was announced.
    let file = file.take(metadata.len());
    let reading = tokio::task::spawn_blocking(move || read_all(file, &chunks));
    let entry = volume.put_file(to, metadata.len(), taken, |_| {}).await;
    // When the box refused, nobody takes what is left to read.
    if entry.is_ok() {
        reading.await.context("reading stopped")?;
    }
    Ok(entry?)
}

/// Reads a file to its end into a channel; an error of reading ends the upload.
fn read_all(mut file: impl Read, chunks: &trackbed_client::SourceChunks) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let piece = match file.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                chunk.truncate(count);
                Ok(chunk.into())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let broken = piece.is_err();
        if chunks.blocking_send(piece).is_err() || broken {
            return;
        }
    }
}

pub(super) async fn usage(session: &Session, args: &Usage) -> Result<u8> {
    let client = session.client();
    let output = &session.output;
    let names = args.target.find(session, &client).await?;
    let usage = names.of(&client).volume(&args.name).usage(&args.path).await?;
    if args.json {
        output.json_pretty(&usage)?;
        return Ok(0);
    }
    let rows: Vec<_> = usage
        .entries
        .iter()
        .map(|entry| {
            let files = if entry.kind == "dir" { count(entry.files, "file") } else { String::new() };
            [size(entry.used_bytes), files, format!("{}{}", plain(&entry.path), mark(&entry.kind))]
        })
        .collect();
    for line in table(&rows) {
        output.result(line)?;
    }
    let limit = usage.limit_bytes.map_or_else(String::new, |limit| format!(" of {}", size(limit)));
    let least = if usage.truncated { "at least " } else { "" };
    output.talk(format!(
        "{least}{}{limit} in {}; {} free on the disk",
        size(usage.used_bytes),
        count(usage.files, "file"),
        size(usage.free_bytes)
    ));
    Ok(0)
}
