//! `trackbed redeploy`: the live release's source again, with the variables as they are now.

use anyhow::Result;

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
    deploy::again(session, &args.target, "redeploy", args.follow).await
}
