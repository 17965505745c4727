//! `trackbed cancel`: ends a deployment that is not live yet.

use anyhow::Result;
use serde_json::json;
use trackbed_api::Deployment;
use trackbed_client::Client;

use crate::deploy::{summary, tell_what_serves};
use crate::follow::{await_pause, until_ended};
use crate::names::parse_name;
use crate::output::{Ink, hint, sentence};
use crate::session::Session;
use crate::target::{Names, Target};

/// End a build or a start at once; the release before serves on
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed cancel\n  trackbed cancel api\n  \
                        trackbed cancel --deployment dep_0123456789abcdef\n\n\
                        What is live already cannot be cancelled: `trackbed rollback` goes back.")]
pub(crate) struct Args {
    /// The service, as with --service
    #[arg(value_name = "SERVICE", value_parser = parse_name, conflicts_with = "service")]
    named: Option<String>,
    /// Cancel this deployment only [default: whatever is under way of the service]
    #[arg(long, short, value_name = "ID", conflicts_with_all = ["named", "service", "project"])]
    deployment: Option<String>,
    /// Do not wait until it is undone: print its id and return
    #[arg(long)]
    detach: bool,
    /// Print one JSON object, which has `status`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let (client, output) = (session.client(), &session.output);
    let cancelled = match ask(session, &client, args).await {
        Ok(cancelled) => cancelled,
        Err(error) => {
            if args.json {
                let (reason, hint) = (sentence(&error), hint(&error));
                output.json(&json!({ "status": "refused", "deployment": args.deployment,
                                     "reason": reason, "hint": hint }))?;
            }
            return Err(error);
        }
    };
    if args.detach && !args.json {
        output.result(&cancelled.id)?;
        return Ok(0);
    }
    let ended = if args.detach { cancelled } else { until_ended(&client, &cancelled.id).await? };
    // What was accepted never becomes live; all the same, nobody is told so unseen.
    let code = u8::from(ended.status == "success");
    if args.json {
        output.json(&summary(&ended))?;
        return Ok(code);
    }
    let names = Names { project: ended.project.clone(), service: ended.service.clone() };
    let (id, step) = (&ended.id, &ended.step);
    let (ink, text) = match ended.status.as_str() {
        "cancelled" => ((Ink::Good, "✓"), format!("{id} of {names} is cancelled; it was at {step}")),
        other => ((Ink::Odd, "!"), format!("{id} of {names} had already ended as {other}, at {step}")),
    };
    output.talk(format!("{} {text}", output.ink_talk(ink.0, ink.1)));
    let known = await_pause(&client, ended.clone()).await;
    tell_what_serves(session, &client, &names, known.pause.as_ref()).await;
    Ok(code)
}

async fn ask(session: &Session, client: &Client, args: &Args) -> Result<Deployment> {
    if let Some(id) = &args.deployment {
        return Ok(client.cancel(id).await?);
    }
    let service = args.named.clone().or(args.target.service.clone());
    let target = Target { service, project: args.target.project.clone() };
    Ok(target.find(session, client).await?.of(client).cancel().await?)
}
