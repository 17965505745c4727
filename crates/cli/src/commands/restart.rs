//! `trackbed restart`: the live release again, as it is.

use anyhow::Result;

use crate::deploy::{self, Follow};
use crate::session::Session;
use crate::target::Target;

/// Start the live release anew, also after `trackbed down`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed restart")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    follow: Follow,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    deploy::again(session, &args.target, "restart", args.follow).await
}
