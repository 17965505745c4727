//! `trackbed import railway`: variables and volumes of a service, through the owner's own `railway` program, which knows
//! who he is. This program never sees his token.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::process::Command;
use trackbed_api::{VariableChange, VolumeRequest};
use trackbed_client::Client;
use trackbed_stdx::files::remove_tree;
use trackbed_stdx::random;

use crate::commands::volume::send_folder;
use crate::dotenv;
use crate::human::{count, plain};
use crate::names::{nearest, parse_name};
use crate::session::{Refusal, Session};
use crate::start::ensure_box;
use crate::target::{Names, Target};

/// How long a question to Railway may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// How long the files of a volume may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Bytes of an answer at most.
const ANSWER_MAX_BYTES: usize = 16 << 20;
/// Variables that Railway injects begin so; the box injects its own.
const INJECTED: &str = "RAILWAY_";
/// Those among them that an owner sets.
const KNOBS: [&str; 6] = [
    "RAILWAY_HEALTHCHECK_TIMEOUT_SEC",
    "RAILWAY_DEPLOYMENT_DRAINING_SECONDS",
    "RAILWAY_DEPLOYMENT_OVERLAP_SECONDS",
    "RAILWAY_DOCKERFILE_PATH",
    "RAILWAY_RUN_UID",
    "RAILWAY_SHM_SIZE_BYTES",
];
/// What stands in the address of something that stays on Railway.
const THEIRS: [&str; 3] = [".railway.internal", ".rlwy.net", ".up.railway.app"];

/// Fetch variables and volumes of a service from Railway, through your own `railway` CLI
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed import railway --project shop --service api\n\n\
                        Stop the service on Railway first, or its databases may be copied half old, half new.")]
pub(crate) struct Args {
    /// The project on Railway, by name or id [default: the one that the folder is linked to]
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    /// Its environment
    #[arg(long, short, value_name = "NAME", default_value = "production")]
    environment: String,
    /// The service on Railway [default: the one that the folder is linked to]
    #[arg(long, short, value_name = "NAME")]
    service: Option<String>,
    /// Name of the service here [default: the folder's name]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    to: Option<String>,
    /// Fetch the variables only
    #[arg(long)]
    no_data: bool,
    /// The railway program
    #[arg(long, value_name = "PROGRAM", default_value = "railway")]
    cli: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Volumes {
    volumes: Vec<TheirVolume>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TheirVolume {
    name: String,
    mount_path: String,
    service_name: Option<String>,
}

/// The program, and the folder that it is linked in.
struct Railway<'a> {
    program: &'a Path,
    folder: &'a Path,
}

/// A folder that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies where the system removes it.
        let _ = remove_tree(&self.0);
    }
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let tail: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
    let scratch = Scratch(std::env::temp_dir().join(format!("trackbed-import-{tail}")));
    make_private_folder(&scratch.0).context("cannot make a folder for what is fetched")?;
    let linked = scratch.0.join("linked");
    make_private_folder(&linked).context("cannot make a folder for what is fetched")?;
    let folder = if args.project.is_some() { &linked } else { &session.folder };
    let railway = Railway { program: &args.cli, folder };
    railway.ask(&["--version"], ANSWER_LIMIT).await?;
    if let Some(project) = &args.project {
        let mut link = vec!["link", "--project", project, "--environment", &args.environment];
        if let Some(service) = &args.service {
            link.extend(["--service", service]);
        }
        railway.ask(&link, ANSWER_LIMIT).await?;
    }
    let fetched = fetch(session, args, &railway, &scratch.0).await;
    if args.project.is_some() {
        // The link of a folder that goes is of no use to anybody.
        let _ = railway.ask(&["unlink", "--yes"], ANSWER_LIMIT).await;
    }
    fetched
}

async fn fetch(session: &Session, args: &Args, railway: &Railway<'_>, scratch: &Path) -> Result<u8> {
    let mut about = vec!["--environment", args.environment.as_str()];
    if let Some(service) = &args.service {
        about.extend(["--service", service]);
    }
    let answer = railway.ask(&[&["variables", "--json"], &about[..]].concat(), ANSWER_LIMIT).await?;
    let theirs: BTreeMap<String, String> =
        serde_json::from_str(&answer).context("`railway variables --json` gave no table of variables")?;
    let volumes = match args.no_data {
        true => Vec::new(),
        false => {
            let list = ["volume", "--environment", args.environment.as_str(), "list", "--json"];
            let answer = railway.ask(&list, ANSWER_LIMIT).await?;
            let all: Volumes = serde_json::from_str(&answer)
                .context("`railway volume list --json` gave no list of volumes")?;
            chosen(args, all.volumes)?
        }
    };
    let client = ensure_box(session).await?;
    let target = Target { service: args.to.clone(), project: None };
    let names = target.find_or_new(session, &client).await?;
    set_variables(session, &client, &names, theirs).await?;
    let mut is_whole = true;
    for (place, volume) in volumes.iter().enumerate() {
        let download = scratch.join(format!("volume-{place}"));
        is_whole &= fetch_volume(session, &client, &names, railway, volume, &download).await?;
    }
    if !is_whole {
        return Ok(1);
    }
    session.output.talk(format!("{names} is ready to be deployed: trackbed up"));
    Ok(0)
}

fn make_private_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// Volumes of the service; without its name only one that is alone.
fn chosen(args: &Args, all: Vec<TheirVolume>) -> Result<Vec<TheirVolume>> {
    match &args.service {
        Some(service) => Ok(all.into_iter().filter(|it| it.service_name.as_ref() == Some(service)).collect()),
        None if all.len() > 1 => Err(Refusal::with_hint(
            "the environment has several volumes, and it is not known whose are wanted",
            "name the service: --service NAME",
        )),
        None => Ok(all),
    }
}

async fn set_variables(
    session: &Session,
    client: &Client,
    names: &Names,
    theirs: BTreeMap<String, String>,
) -> Result<()> {
    let output = &session.output;
    let is_ours = |name: &str| !name.starts_with(INJECTED) || KNOBS.contains(&name);
    let (set, other): (BTreeMap<_, _>, BTreeMap<_, _>) =
        theirs.into_iter().partition(|(name, _)| is_ours(name) && dotenv::is_name(name));
    for name in other.keys().filter(|name| is_ours(name)) {
        output.talk(format!("variable {} is left out: that is no name here", plain(name)));
    }
    for (name, value) in &set {
        if THEIRS.iter().any(|address| value.contains(address)) {
            output.talk(format!("variable {name} names an address on Railway: does it still hold?"));
        }
    }
    let (done, injected) = (set.len() as u64, (other.len()) as u64);
    let request = VariableChange { set, unset: Vec::new(), shared: false };
    names.of(client).change_variables(&request).await?;
    output.talk(format!(
        "set {} of {names}; {} that Railway injects left out; sealed ones cannot be fetched: set them yourself",
        count(done, "variable"),
        injected
    ));
    Ok(())
}

/// Returns whether all files came over.
async fn fetch_volume(
    session: &Session,
    client: &Client,
    names: &Names,
    railway: &Railway<'_>,
    theirs: &TheirVolume,
    download: &Path,
) -> Result<bool> {
    let name = nearest(&theirs.name).unwrap_or_else(|| "data".to_owned());
    let service = names.of(client);
    let known = service.volumes().await?.into_iter().find(|volume| volume.mount == theirs.mount_path);
    let name = match known {
        Some(volume) => volume.name,
        None => {
            let request = VolumeRequest { name, mount: theirs.mount_path.clone() };
            service.add_volume(&request).await?.name
        }
    };
    let volume = service.volume(&name);
    if !volume.files("/").await?.is_empty() {
        let message = format!("volume {name} holds files already; nothing was copied into it");
        return Err(Refusal::with_hint(message, "remove them, or import with --no-data"));
    }
    let to = download.to_string_lossy();
    let get = ["volume", "files", "download", "--volume", &theirs.name, "/", &to, "--json"];
    railway.ask(&get, DOWNLOAD_LIMIT).await?;
    let sent = send_folder(session, &volume, download, "").await?;
    let copied = count(sent.entries.len() as u64, "file");
    session.output.talk(format!("volume {name} at {}: {copied} copied", theirs.mount_path));
    Ok(sent.left == 0)
}

impl Railway<'_> {
    /// Runs the program and returns what it printed.
    async fn ask(&self, arguments: &[&str], limit: Duration) -> Result<String> {
        let shown = format!("railway {}", arguments.iter().take(2).copied().collect::<Vec<_>>().join(" "));
        let mut command = Command::new(self.program);
        command.args(arguments).current_dir(self.folder).stdin(Stdio::null()).kill_on_drop(true);
        let ended = match tokio::time::timeout(limit, command.output()).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Refusal::with_hint(
                    format!("the railway program `{}` is not installed", self.program.display()),
                    "install it (docs.railway.com/cli), log in by `railway login`, and import again",
                ));
            }
            Ok(Err(error)) => return Err(error).with_context(|| format!("cannot run `{shown}`")),
            Err(_) => anyhow::bail!("`{shown}` gave no answer within {} s", limit.as_secs()),
        };
        if !ended.status.success() {
            // It may quote nothing but its own complaint; values are only in what it prints when it does well.
            let said = String::from_utf8_lossy(&ended.stderr);
            let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word about why");
            let hint = "are you logged in (`railway login`), and are project, environment and service right?";
            return Err(Refusal::with_hint(format!("`{shown}` failed: {}", plain(said.trim())), hint));
        }
        anyhow::ensure!(ended.stdout.len() <= ANSWER_MAX_BYTES, "`{shown}` printed more than 16 MiB");
        String::from_utf8(ended.stdout).map_err(|_| anyhow::anyhow!("`{shown}` printed no UTF-8 text"))
    }
}
