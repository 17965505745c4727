//! `trackbed up`: from a folder to a live service.

use anyhow::Result;
use serde_json::json;
use trackbed_api::DeploymentRequest;
use trackbed_client::Client;

use crate::deploy::{self, Follow};
use crate::session::Session;
use crate::start::ensure_box;
use crate::target::Names;
use crate::upload::{self, Folder};

/// As long as the box waits at most.
const WEEK_SECONDS: u32 = 7 * 86_400;

/// Deploy a folder: upload it, build it, check its health, move traffic to it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed up\n  trackbed up ./api --service api --project shop\n  \
                        trackbed up --start 'uvicorn app:api --host 0.0.0.0 --port $PORT' --health-path /health\n\n\
                        Starts a box on this machine when none runs. The URL goes to standard output.")]
pub(crate) struct Args {
    #[command(flatten)]
    folder: Folder,
    /// Start the app by this command instead of what was found
    #[arg(long, value_name = "CMD")]
    start: Option<String>,
    /// The new release must answer 200 here before it gets traffic
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// How long it may take until then
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    health_timeout: Option<u32>,
    /// Deploy even though the app keeps data outside its volumes, which is lost with the next release
    #[arg(long)]
    allow_data_outside: bool,
    /// Read and send every file, and deploy also when nothing has changed since the live release
    #[arg(long)]
    anew: bool,
    #[command(flatten)]
    follow: Follow,
}

fn parse_seconds(text: &str) -> Result<u32, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse().ok();
    seconds
        .filter(|seconds| (1..=WEEK_SECONDS).contains(seconds))
        .ok_or_else(|| format!("a number of seconds is wanted, such as 30; at most {WEEK_SECONDS}"))
}

impl Args {
    /// Settings that flags give, by their dotted keys.
    fn overrides(&self) -> Vec<(String, String)> {
        let timeout = self.health_timeout.map(|seconds| seconds.to_string());
        [
            ("deploy.startCommand", self.start.clone()),
            ("deploy.healthcheckPath", self.health_path.clone()),
            ("deploy.healthcheckTimeout", timeout),
            ("deploy.allowDataOutside", self.allow_data_outside.then(|| "true".to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let names = args.folder.named(session)?;
    let refuse = |stage, error| deploy::refuse(session, &names, args.follow, stage, None, error);
    let found = match args.folder.find(session, args.anew) {
        Ok(found) => found,
        Err(error) => return refuse("source", error),
    };
    let client = match ensure_box(session).await {
        Ok(client) => client,
        Err(error) => return refuse("box", error),
    };
    let files = found.files();
    let source = match upload::upload(session, &client, found).await {
        Ok(source) => source,
        Err(error) => return refuse("upload", error),
    };
    let overrides = args.overrides();
    // With flags it may become something else, and who does not wait wants the id of a deployment.
    let may_be_live = !args.anew && !args.follow.detach && overrides.is_empty();
    if may_be_live && let Some((release, url)) = live(&client, &names, &source).await {
        return tell_live(session, args, &names, &release, &url);
    }
    if !args.follow.json {
        let plural = if files == 1 { "" } else { "s" };
        session.output.talk(format!("deploying {names} ({files} file{plural})"));
    }
    let request = DeploymentRequest { source: Some(source), overrides, ..names.deployment("up") };
    deploy::deploy(session, &client, &request, args.follow).await
}

/// Returns the live release and its URL when it has just this source, today's variables and no flags. A box that does not
/// say is one where it is deployed.
async fn live(client: &Client, names: &Names, source: &str) -> Option<(String, String)> {
    let client = names.of(client);
    let release = client.live_source(source).await.ok()?.release?;
    let url = client.show().await.ok()?.url;
    Some((release, url))
}

fn tell_live(session: &Session, args: &Args, names: &Names, release: &str, url: &str) -> Result<u8> {
    if args.follow.json {
        session.output.json(&json!({
            "status": "success", "service": names.service, "project": names.project, "deployment": null,
            "release": release, "url": url, "unchanged": true,
        }))?;
        return Ok(0);
    }
    session.output.talk(format!(
        "✓ already live: {release} of {names} has just these files and variables; `trackbed redeploy` starts it anew"
    ));
    session.output.result(url)?;
    Ok(0)
}
