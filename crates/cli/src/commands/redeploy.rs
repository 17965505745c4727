//! `trackbed redeploy`: the live release's source again, with the variables as they are now.

use anyhow::Result;
use trackbed_api::DeploymentRequest;

use crate::deploy::{self, Follow};
use crate::session::Session;
use crate::target::Target;

/// Deploy the same source again, with the variables as they are now
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed variables set LOG_LEVEL=debug && trackbed redeploy")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    follow: Follow,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let request = DeploymentRequest {
        project: names.project,
        service: names.service,
        kind: "redeploy".to_owned(),
        source: None,
        version: None,
        overrides: Vec::new(),
    };
    deploy::deploy(session, &client, &request, args.follow).await
}
