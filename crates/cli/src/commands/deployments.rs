//! `trackbed deployments`: what was tried, and how it ended.

use anyhow::Result;
use trackbed_api::Deployment;
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, headline, pause_cell, table};
use crate::session::Session;
use crate::target::Target;

/// List the deployments of a service, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed deployments -n 5")]
pub(crate) struct Args {
    /// How many
    #[arg(long = "limit", short = 'n', value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let mut deployments = names.of(&client).deployments(args.limit).await?;
    // The box tells of every deployment of the live release; only the newest made it so.
    deployments.iter_mut().filter(|deployment| deployment.live).skip(1).for_each(|older| older.live = false);
    if args.json {
        session.output.json_pretty(&deployments)?;
        return Ok(0);
    }
    if deployments.is_empty() {
        session.output.talk(format!("{names} was never deployed; deploy it: trackbed up"));
        return Ok(0);
    }
    let now = now_ms();
    let head = ["DEPLOYMENT", "KIND", "STATUS", "RELEASE", "WHEN", "CALLERS WAITED", ""].map(str::to_owned);
    let rows = deployments.into_iter().map(|deployment| {
        let note = note(&deployment);
        let when = ago(now, deployment.created_at);
        let release = deployment.release.unwrap_or_else(|| "-".to_owned());
        let waited = deployment.pause.as_ref().map_or_else(|| "-".to_owned(), pause_cell);
        [deployment.id, deployment.kind, deployment.status, release, when, waited, note]
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) {
        session.output.result(line)?;
    }
    Ok(0)
}

fn note(deployment: &Deployment) -> String {
    match &deployment.failure {
        _ if deployment.live => "live".to_owned(),
        Some(failure) => format!("{}: {}", failure.stage, headline(&failure.reason)),
        None => deployment.superseded_by.as_ref().map(|by| format!("by {by}")).unwrap_or_default(),
    }
}
