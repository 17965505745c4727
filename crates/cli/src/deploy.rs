//! What `up`, `redeploy`, `restart`, `rollback` and restores have in common: ask for a deployment, follow it, tell how it ended.

use anyhow::Result;
use serde_json::{Value, json};
use trackbed_api::{Deployment, DeploymentRequest, Pause};
use trackbed_client::{Client, ClientError};

use crate::changes;
use crate::follow::{await_pause, follow};
use crate::human;
use crate::output::{Ink, ResultLost, hint, sentence};
use crate::progress::{Progress, Style};
use crate::session::Session;
use crate::target::{Names, Target};

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
    let names = Names { project: request.project.clone(), service: request.service.clone() };
    see_through(session, client, &names, how, client.deploy(request).await).await
}

/// Sees a deployment through that was asked for. Returns the exit code.
pub(crate) async fn see_through(
    session: &Session,
    client: &Client,
    names: &Names,
    how: Follow,
    asked: Result<Deployment, ClientError>,
) -> Result<u8> {
    let output = &session.output;
    let deployment = match asked {
        Ok(deployment) => deployment,
        Err(error) => return refuse(session, names, how, "request", None, error.into()),
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
        Err(error) => return refuse(session, names, how, "follow", Some(&deployment.id), error),
    };
    if how.json {
        output.json(&summary(&await_pause(client, ended.clone()).await))?;
    } else {
        tell(session, client, &ended).await?;
    }
    // Skipped is what the service's own settings ask for.
    Ok(u8::from(!matches!(ended.status.as_str(), "success" | "skipped")))
}

/// Deploys once more what the box has already: `redeploy` or `restart`.
pub(crate) async fn again(session: &Session, target: &Target, kind: &str, how: Follow) -> Result<u8> {
    let client = session.client();
    let names = target.find(session, &client).await?;
    deploy(session, &client, &names.deployment(kind), how).await
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
pub(crate) fn summary(deployment: &Deployment) -> Value {
    let mut summary = json!({
        "status": deployment.status, "service": deployment.service, "project": deployment.project,
        "deployment": deployment.id, "release": deployment.release, "image_bytes": deployment.image_bytes,
        "url": deployment.url,
    });
    if let Some(pause) = &deployment.pause {
        summary["pause"] = json!(pause);
    }
    for (key, list) in [
        ("pins", json!(deployment.pins)),
        ("restores", json!(deployment.restores)),
        ("replaced", json!(deployment.replaced)),
    ] {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            summary[key] = list;
        }
    }
    if let Some(adopts) = &deployment.adopts {
        summary["adopts"] = json!(adopts);
    }
    if let Some(undone) = &deployment.data_undone {
        summary["data_undone"] = json!(undone);
    }
    if let Some(took_ms) = deployment.rehearsal_took_ms {
        summary["rehearsal_took_ms"] = json!(took_ms);
    }
    if let Some(newer) = &deployment.superseded_by {
        summary["superseded_by"] = json!(newer);
    }
    if let Some(reason) = &deployment.skipped {
        summary["skipped"] = json!(reason);
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
        for line in about_data(ended) {
            output.talk(line);
        }
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
            let newer = ended.superseded_by.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
            output.talk(format!("{cross} superseded: a newer deployment{newer} of {names} took its place"));
        }
        None if ended.status == "skipped" => {
            let reason = ended.skipped.as_deref().unwrap_or("nothing that it watches has changed");
            output.talk(format!("- SKIPPED: {}", human::plain(reason)));
            output.talk(format!(
                "{names} serves on as it is; to deploy it all the same: trackbed redeploy --service {}",
                ended.service
            ));
        }
        None => output.talk(format!("{cross} {} at {}", ended.status, ended.step)),
    }
    let known = await_pause(client, ended.clone()).await;
    if let Some(undone) = &known.data_undone {
        output.talk(format!("data: {}", human::plain(undone)));
    }
    if matches!(ended.status.as_str(), "failed" | "cancelled") && !was_stopped(ended) {
        tell_what_serves(session, client, &names, known.pause.as_ref()).await;
    }
    Ok(())
}

/// Says what a deployment did with the data: what it set aside, and the pins that lead back to before it.
fn about_data(ended: &Deployment) -> Vec<String> {
    let mut lines = changes::of_deployment(ended);
    let kept = |volume: &str| ended.replaced.iter().any(|replaced| replaced.volume == volume);
    let pins = ended.pins.iter().filter(|pin| pin.taken && pin.bytes > 0 && !kept(&pin.volume));
    let pins: Vec<_> = pins.map(|pin| format!("{} {}", pin.volume, pin.point)).collect();
    if !pins.is_empty() {
        lines.push(format!("data from before: {}", pins.join(", ")));
    }
    lines
}

/// Says what serves instead of a deployment that did not become live. It is worth a call, but its failure is not worth
/// another error.
pub(crate) async fn tell_what_serves(
    session: &Session,
    client: &Client,
    names: &Names,
    seen: Option<&Pause>,
) {
    let Ok(service) = names.of(client).show().await else { return };
    let Some(release) = &service.release else { return };
    let release = format!("the previous release v{}", release.version);
    match service.state.as_str() {
        "running" => session.output.talk(match seen {
            Some(seen) => format!("{release} serves again at {}: {}", service.url, human::pause(seen)),
            None => format!("{release} keeps serving at {}", service.url),
        }),
        // It was held for the new one, which shared its volume or port.
        "starting" | "restarting" => session.output.talk(format!("{release} is started again")),
        _ => {}
    }
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
