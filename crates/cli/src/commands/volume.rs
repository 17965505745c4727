//! `trackbed volume`: folders that outlive releases.

use anyhow::Result;
use trackbed_api::{VolumeHolder, VolumeRequest};
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, plain, size, table};
use crate::names::parse_name;
use crate::session::Session;
use crate::target::Target;

/// List, add and look into volumes: folders that outlive releases
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trackbed volume add data /data\n  trackbed volume list\n  trackbed volume files data /uploads"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the volumes of a service
    List(List),
    /// Add a volume; mounted with the next deploy
    Add(Add),
    /// List the files in a folder of a volume
    Files(Files),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Its name
    #[arg(value_parser = parse_name)]
    name: String,
    /// Where the app finds it, such as /data
    mount: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Files {
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

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    match args.verb {
        Verb::List(args) => list(session, &args).await,
        Verb::Add(args) => add(session, args).await,
        Verb::Files(args) => files(session, &args).await,
    }
}

async fn list(session: &Session, args: &List) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let volumes = names.of(&client).volumes().await?;
    if args.json {
        session.output.json_pretty(&volumes)?;
        return Ok(0);
    }
    if volumes.is_empty() {
        session.output.talk(format!("{names} has no volume; add one: trackbed volume add data /data"));
        return Ok(0);
    }
    let head = ["NAME", "MOUNT", "USED", "FREE", "FENCE", "HELD BY"].map(str::to_owned);
    let rows = volumes.into_iter().map(|volume| {
        let (used, free) = (size(volume.used_bytes), size(volume.free_bytes));
        let holders: Vec<_> = volume.holders.iter().map(holder).collect();
        let held_by = if holders.is_empty() { "-".to_owned() } else { holders.join(", ") };
        [volume.name, volume.mount, used, free, volume.fence.to_string(), held_by]
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) {
        session.output.result(line)?;
    }
    Ok(0)
}

/// Who holds a volume: `v3 (ins_…, dep_…)`.
fn holder(holder: &VolumeHolder) -> String {
    let Some(instance) = &holder.instance else { return "another process".to_owned() };
    let release = holder.release.as_deref().unwrap_or("an instance");
    let deployment = holder.deployment.as_ref().map(|id| format!(", {id}")).unwrap_or_default();
    let shared = if holder.shared { ", shared" } else { "" };
    format!("{release} ({instance}{deployment}{shared})")
}

async fn add(session: &Session, args: Add) -> Result<u8> {
    let client = session.client();
    let names = args.target.find_or_new(session, &client).await?;
    let request = VolumeRequest { name: args.name, mount: args.mount };
    let volume = names.of(&client).add_volume(&request).await?;
    if args.json {
        session.output.json_pretty(&volume)?;
    }
    let (name, mount) = (&volume.name, &volume.mount);
    session
        .output
        .talk(format!("{names} has volume {name}; the next deploy mounts it at {mount}: trackbed redeploy"));
    Ok(0)
}

async fn files(session: &Session, args: &Files) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let files = names.of(&client).volume_files(&args.name, &args.path).await?;
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
            let mark = match file.kind.as_str() {
                "dir" => "/",
                "link" => "@",
                _ => "",
            };
            [size(file.size_bytes), ago(now, file.modified_at), format!("{}{mark}", plain(&file.path))]
        })
        .collect();
    for line in table(&rows) {
        session.output.result(line)?;
    }
    Ok(0)
}
