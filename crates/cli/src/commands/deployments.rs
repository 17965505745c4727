//! `trackbed deployments`: what was tried, and how it ended.

use anyhow::Result;
use trackbed_api::Deployment;
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, duration, headline, pause_cell, size, table};
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
    let head =
        ["DEPLOYMENT", "KIND", "STATUS", "RELEASE", "IMAGE", "WHEN", "CALLERS WAITED", "DATA BEFORE", ""]
            .map(str::to_owned);
    let rows = deployments.into_iter().map(|deployment| {
        let note = note(&deployment);
        let when = ago(now, deployment.created_at);
        let image = deployment.image_bytes.map_or_else(|| "-".to_owned(), size);
        let release = deployment.release.unwrap_or_else(|| "-".to_owned());
        let waited = deployment.pause.as_ref().map_or_else(|| "-".to_owned(), pause_cell);
        let pins: Vec<_> = deployment.pins.into_iter().filter(|pin| pin.taken).map(|pin| pin.point).collect();
        let pins = if pins.is_empty() { "-".to_owned() } else { pins.join(" ") };
        [deployment.id, deployment.kind, deployment.status, release, image, when, waited, pins, note]
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) {
        session.output.result(line)?;
    }
    Ok(0)
}

/// What is worth a word: whether it is live, why it failed, what happened to the data, how its rehearsal went.
fn note(deployment: &Deployment) -> String {
    let mut notes = Vec::new();
    match &deployment.failure {
        _ if deployment.live => notes.push("live".to_owned()),
        Some(failure) => notes.push(format!("{}: {}", failure.stage, headline(&failure.reason))),
        None => notes.extend(deployment.superseded_by.as_ref().map(|by| format!("by {by}"))),
    }
    notes.extend(deployment.commit.as_ref().map(|commit| {
        format!("{} `{}`", commit.id.get(..10).unwrap_or(&commit.id), headline(&commit.subject))
    }));
    notes.extend(deployment.skipped.as_ref().map(|reason| headline(reason)));
    if let Some(took_ms) = deployment.rehearsal_took_ms {
        notes.push(format!("rehearsed in {}", duration(i64::try_from(took_ms).unwrap_or(i64::MAX))));
    }
    notes.extend(
        deployment.restores.iter().map(|restored| format!("{} back to {}", restored.volume, restored.point)),
    );
    notes.extend(
        deployment
            .adopts
            .as_ref()
            .map(|adopts| format!("{} into {}", adopts.paths.join(", "), adopts.volume)),
    );
    // Where it is kept is told by the deployment itself.
    let undone = deployment.data_undone.as_ref().map(|undone| headline(undone));
    notes.extend(undone.map(|undone| undone.split(": ").next().unwrap_or_default().to_owned()));
    notes.join("; ")
}
