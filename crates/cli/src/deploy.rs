//! What `up`, `redeploy`, `restart` and `rollback` have in common: ask for a deployment, follow it, tell how it ended.

use anyhow::Result;
use serde_json::{Value, json};
use trackbed_api::{Deployment, DeploymentRequest};
use trackbed_client::Client;

use crate::follow::{await_pause, follow};
use crate::human;
use crate::output::{Ink, ResultLost, hint, sentence};
use crate::progress::{Progress, Style};
use crate::session::Session;
use crate::target::Names;

/// How a deployment is followed.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Follow {
    /// Do not wait until it has ended: print its id and return
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Print one JSON object per event; the last one has `status`
    #[arg(long)]
    pub(crate) json: bool,
}

/// Asks for a deployment and sees it through. Returns the exit code.
pub(crate) async fn deploy(
    session: &Session,
    client: &Client,
    request: &DeploymentRequest,
    how: Follow,
) -> Result<u8> {
    let output = &session.output;
    let names = Names { project: request.project.clone(), service: request.service.clone() };
    let deployment = match client.deploy(request).await {
        Ok(deployment) => deployment,
        Err(error) => return refuse(session, &names, how, "request", None, error.into()),
    };
    if how.detach {
        if how.json {
            output.json(&summary(&deployment))?;
        } else {
            output.result(&deployment.id)?;
            output.talk(format!("deploying {}; follow it by `trackbed status`", deployment.service));
        }
        return Ok(0);
    }
    let progress = Progress::new(output, if how.json { Style::Json } else { Style::Lines });
    let ended = follow(client, &deployment.id, &progress).await;
    output.wipe_status();
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return refuse(session, &names, how, "follow", Some(&deployment.id), error),
    };
    if how.json {
        output.json(&summary(&await_pause(client, ended.clone()).await))?;
    } else {
        tell(session, client, &ended).await?;
    }
    Ok(u8::from(ended.status != "success"))
}

/// Ends with an error that is not the deployment's own; `--json` hears of it in its last object, too.
pub(crate) fn refuse(
    session: &Session,
    names: &Names,
    how: Follow,
    stage: &str,
    deployment: Option<&str>,
    error: anyhow::Error,
) -> Result<u8> {
    if how.json && error.downcast_ref::<ResultLost>().is_none() {
        session.output.json(&json!({
            "status": "failed", "service": names.service, "project": names.project,
            "deployment": deployment, "release": null, "url": null,
            "stage": stage, "reason": sentence(&error), "hint": hint(&error),
        }))?;
    }
    Err(error)
}

/// The last JSON object of a deployment.
fn summary(deployment: &Deployment) -> Value {
    let mut summary = json!({
        "status": deployment.status, "service": deployment.service, "project": deployment.project,
        "deployment": deployment.id, "release": deployment.release, "url": deployment.url,
    });
    if let Some(pause) = &deployment.pause {
        summary["pause"] = json!(pause);
    }
    if let Some(failure) = &deployment.failure {
        summary["stage"] = json!(failure.stage);
        summary["reason"] = json!(failure.reason);
        summary["hint"] = json!(failure.hint);
        summary["log_tail"] = json!(failure.log_tail);
    }
    summary
}

async fn tell(session: &Session, client: &Client, ended: &Deployment) -> Result<()> {
    let output = &session.output;
    let names = Names { project: ended.project.clone(), service: ended.service.clone() };
    if ended.status == "success" {
        let release = ended.release.as_deref().unwrap_or("the release");
        let took = ended.finished_at.map(|at| format!(" after {}", human::duration(at - ended.created_at)));
        let done = output.ink_talk(Ink::Good, "✓");
        output.talk(format!("{done} {release} of {names} is live{}", took.unwrap_or_default()));
        return Ok(output.result(&ended.url)?);
    }
    let cross = output.ink_talk(Ink::Bad, "✗");
    match &ended.failure {
        Some(failure) => {
            let reason: Vec<_> = failure.reason.trim_end().lines().collect();
            let (first, rest) = reason.split_first().unwrap_or((&"", &[]));
            output.talk(format!("{cross} failed at {}: {}", failure.stage, human::plain(first)));
            for line in rest {
                output.talk(format!("  {}", human::plain(line)));
            }
            for line in not_quoted(&failure.log_tail, rest) {
                output.talk(output.ink_talk(Ink::Dim, &format!("  | {}", human::plain(line))));
            }
            if let Some(hint) = &failure.hint {
                output.talk(format!("hint: {hint}"));
            }
        }
        None if ended.status == "superseded" => {
            output.talk(format!("{cross} superseded: a newer deployment of {names} took its place"));
        }
        None => output.talk(format!("{cross} {} at {}", ended.status, ended.step)),
    }
    let known = await_pause(client, ended.clone()).await;
    // What serves now is worth a call, but its failure is not worth another error.
    if ended.status == "failed"
        && !was_stopped(ended)
        && let Ok(service) = names.of(client).show().await
        && let Some(release) = &service.release
    {
        let release = format!("the previous release v{}", release.version);
        match service.state.as_str() {
            "running" => match &known.pause {
                Some(seen) => {
                    output.talk(format!("{release} serves again at {}: {}", service.url, human::pause(seen)))
                }
                None => output.talk(format!("{release} keeps serving at {}", service.url)),
            },
            // It was held for the new one, which shared its volume or port.
            "starting" | "restarting" => output.talk(format!("{release} is started again")),
            _ => {}
        }
    }
    Ok(())
}

/// Whether `trackbed down` ended it: then what still runs is about to stop, which the API does not tell.
fn was_stopped(ended: &Deployment) -> bool {
    let reason = ended.failure.as_ref().map(|failure| failure.reason.as_str());
    reason.is_some_and(|reason| reason.starts_with("the service was stopped before"))
}

/// Returns the lines of a log that the lines of a reason have not said yet.
fn not_quoted<'a>(log: &'a [String], reason: &'a [&str]) -> impl Iterator<Item = &'a String> {
    log.iter().filter(move |line| {
        let line = line.trim();
        line.is_empty() || !reason.iter().any(|said| said.trim() == line)
    })
}
