//! `trackbed up`: from a folder to a live service.

use std::path::PathBuf;

use anyhow::Result;
use trackbed_api::DeploymentRequest;

use crate::deploy::{self, Follow};
use crate::names::parse_name;
use crate::output::ResultLost;
use crate::session::Session;
use crate::start::ensure_box;
use crate::target::{Names, Target};
use crate::upload;

/// Deploy a folder: upload it, build it, check its health, move traffic to it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed up\n  trackbed up ./api --service api --project shop\n  \
                        trackbed up --start 'uvicorn app:api --host 0.0.0.0 --port $PORT' --health-path /health\n\n\
                        Starts a box on this machine when none runs. The URL goes to standard output.")]
pub(crate) struct Args {
    /// The folder to deploy
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Name of the service [default: the folder's name]
    #[arg(long, short, value_name = "NAME", value_parser = parse_name)]
    service: Option<String>,
    /// Name of its project [default: the name of the service]
    #[arg(long, short, value_name = "NAME", value_parser = parse_name)]
    project: Option<String>,
    /// Start the app by this command instead of what was found
    #[arg(long, value_name = "CMD")]
    start: Option<String>,
    /// The new release must answer 200 here before it gets traffic
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// How long it may take until then
    #[arg(long, value_name = "SECONDS")]
    health_timeout: Option<u32>,
    /// Upload what .gitignore drops, too (.railwayignore still counts)
    #[arg(long)]
    no_gitignore: bool,
    #[command(flatten)]
    follow: Follow,
}

impl Args {
    /// Settings that flags give, by their dotted keys.
    fn overrides(&self) -> Vec<(String, String)> {
        let timeout = self.health_timeout.map(|seconds| seconds.to_string());
        [
            ("deploy.startCommand", self.start.clone()),
            ("deploy.healthcheckPath", self.health_path.clone()),
            ("deploy.healthcheckTimeout", timeout),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }
}

/// What had gone well when something did not.
struct Stage(&'static str);

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    let folder = session.folder.join(&args.path);
    let target = Target { service: args.service.clone(), project: args.project.clone() };
    let names = target.named(&folder)?;
    let mut stage = Stage("source");
    let done = attempt(session, &args, &names, &mut stage).await;
    if let Err(error) = &done
        && args.follow.json
        && error.downcast_ref::<ResultLost>().is_none()
    {
        deploy::json_refusal(session, &names, stage.0, error)?;
    }
    done
}

async fn attempt(session: &Session, args: &Args, names: &Names, stage: &mut Stage) -> Result<u8> {
    let tree = upload::find(session, &session.folder.join(&args.path), !args.no_gitignore)?;
    *stage = Stage("box");
    let client = ensure_box(session).await?;
    *stage = Stage("upload");
    let files = tree.files;
    let source = upload::upload(session, &client, tree).await?;
    if !args.follow.json {
        session.output.talk(format!("deploying {names} ({files} files)"));
    }
    *stage = Stage("request");
    let request = DeploymentRequest {
        project: names.project.clone(),
        service: names.service.clone(),
        kind: "up".to_owned(),
        source: Some(source),
        version: None,
        overrides: args.overrides(),
    };
    deploy::deploy(session, &client, &request, args.follow).await
}
