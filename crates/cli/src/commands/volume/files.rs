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
                        trackbed volume put data seed.json imports/today.json")]
pub(super) struct Put {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// A file on this machine
    file: PathBuf,
    /// Where it goes in the volume; a `/` at the end keeps its own name [default: /]
    #[arg(value_name = "PATH", default_value = "/")]
    path: String,
    /// Print a JSON object
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
    let opened = File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.with_context(|| format!("cannot read {shown}"))?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a folder" } else { "no ordinary file" };
        let hint =
            "put takes one file at a time; pack a folder into an archive and unpack it by `trackbed run`";
        return Err(Refusal::with_hint(format!("{shown} is {what}"), hint));
    }
    let to = match args.path.strip_suffix('/') {
        Some(folder) => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            format!("{folder}/{name}")
        }
        None => args.path.clone(),
    };
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let volume = names.of(&client).volume(&args.name);
    let entry = send(&volume, file, metadata.len(), &to).await?;
    if args.json {
        session.output.json_pretty(&entry)?;
    }
    session.output.talk(format!(
        "{} into volume {}: {}",
        size(entry.size_bytes),
        args.name,
        plain(&entry.path)
    ));
    Ok(0)
}

/// Copies a file of this machine into a volume.
pub(crate) async fn send_file(volume: &VolumeClient<'_>, file: &Path, to: &str) -> Result<FileEntry> {
    let opened = File::open(file).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.with_context(|| format!("cannot read {}", file.display()))?;
    send(volume, file, metadata.len(), to).await
}

async fn send(volume: &VolumeClient<'_>, file: File, size_bytes: u64, to: &str) -> Result<FileEntry> {
    let (chunks, taken) = source_channel();
    // What an app appends meanwhile is no longer part of what was announced.
    let file = file.take(size_bytes);
    let reading = tokio::task::spawn_blocking(move || read_all(file, &chunks));
    let entry = volume.put_file(to, size_bytes, taken, |_| {}).await;
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
