//! `trackbed import railway`: variables, settings and volumes of a service, through the owner's own `railway` program,
//! which knows who he is. This program never sees his token.

mod program;
mod settings;
mod volumes;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trackbed_api::VariableChange;
use trackbed_client::Client;
use trackbed_stdx::files::remove_tree;
use trackbed_stdx::random;

use crate::dotenv;
use crate::human::{count, plain};
use crate::names::parse_name;
use crate::session::Session;
use crate::start::ensure_box;
use crate::target::{Names, Target};
use program::Railway;

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
/// Variables that tell which service they are of.
const ITS_ID: &str = "RAILWAY_SERVICE_ID";
const ITS_NAME: &str = "RAILWAY_SERVICE_NAME";
/// What stands in the address of something that stays on Railway.
const THEIRS: [&str; 3] = [".railway.internal", ".rlwy.net", ".up.railway.app"];

/// Fetch variables, settings and volumes of a service from Railway, through your own `railway` CLI
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed import railway --project shop --service api\n\n\
                        Railway copies the files of a running service only. A database that is written to meanwhile may arrive half\n\
                        old, half new: let the service run without writing (start command `sleep infinity`, no health check). What\n\
                        arrived is checked, and you are told.")]
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
    /// Leave the files of its volumes where they are
    #[arg(long)]
    no_data: bool,
    /// Write no railway.json with what is set in its dashboard
    #[arg(long)]
    no_settings: bool,
    /// The railway program
    #[arg(long, value_name = "PROGRAM", default_value = "railway")]
    cli: PathBuf,
}

/// A variable's value; none when it is sealed: then nobody can read it back.
type Value = Option<String>;

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
    railway.ask(&["--version"]).await?;
    if let Some(project) = &args.project {
        let mut link = vec!["link", "--project", project, "--environment", &args.environment];
        if let Some(service) = &args.service {
            link.extend(["--service", service]);
        }
        railway.ask(&link).await?;
    }
    let fetched = fetch(session, args, &railway, &scratch.0).await;
    if args.project.is_some() {
        // The link of a folder that goes is of no use to anybody.
        let _ = railway.ask(&["unlink", "--yes"]).await;
    }
    fetched
}

async fn fetch(session: &Session, args: &Args, railway: &Railway<'_>, scratch: &Path) -> Result<u8> {
    let mut about = vec!["--environment", args.environment.as_str()];
    if let Some(service) = &args.service {
        about.extend(["--service", service]);
    }
    let answer = railway.ask(&[&["variables", "--json"], &about[..]].concat()).await?;
    let theirs: BTreeMap<String, Value> =
        serde_json::from_str(&answer).context("`railway variables --json` gave no table of variables")?;
    let told = |name: &str| theirs.get(name).and_then(Option::as_deref);
    let volumes = match args.no_data {
        true => Vec::new(),
        false => {
            let list = ["volume", "--environment", args.environment.as_str(), "list", "--json"];
            let answer = railway.ask(&list).await?;
            volumes::chosen(session, told(ITS_NAME).or(args.service.as_deref()), &answer)?
        }
    };
    let settings = match told(ITS_ID).filter(|_| !args.no_settings) {
        Some(id) => settings::fetch(session, railway, &args.environment, id).await,
        None => None,
    };
    let client = ensure_box(session).await?;
    let target = Target { service: args.to.clone(), project: None };
    let names = target.find_or_new(session, &client).await?;
    set_variables(session, &client, &names, theirs).await?;
    if let Some(settings) = settings {
        settings.write(session, &session.folder)?;
    }
    let mut is_whole = true;
    for (place, volume) in volumes.iter().enumerate() {
        let download = scratch.join(format!("volume-{place}"));
        is_whole &=
            volumes::fetch(session, &client, &names, railway, &args.environment, volume, &download).await?;
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

async fn set_variables(
    session: &Session,
    client: &Client,
    names: &Names,
    theirs: BTreeMap<String, Value>,
) -> Result<()> {
    let output = &session.output;
    let is_ours = |name: &str| !name.starts_with(INJECTED) || KNOBS.contains(&name);
    let (mut set, mut sealed, mut injected) = (BTreeMap::new(), Vec::new(), 0);
    for (name, value) in theirs {
        match value {
            _ if !is_ours(&name) => injected += 1,
            _ if !dotenv::is_name(&name) => {
                output.talk(format!("variable {} is left out: that is no name here", plain(&name)));
            }
            None => sealed.push(name),
            Some(value) => {
                if THEIRS.iter().any(|address| value.contains(address)) {
                    output.talk(format!("variable {name} names an address on Railway: does it still hold?"));
                }
                set.insert(name, value);
            }
        }
    }
    let done = count(set.len() as u64, "variable");
    let request = VariableChange { set, unset: Vec::new(), shared: false };
    names.of(client).change_variables(&request).await?;
    output.talk(format!("set {done} of {names}; {injected} that Railway injects left out"));
    if !sealed.is_empty() {
        let missing: Vec<_> = sealed.iter().map(|name| format!("{name}=…")).collect();
        output.talk(format!(
            "{} sealed, so Railway tells nobody what they hold; set them yourself: trackbed variables set {}",
            count(sealed.len() as u64, "variable"),
            missing.join(" ")
        ));
    }
    Ok(())
}
