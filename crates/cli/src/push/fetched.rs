//! A commit that the box has fetched: looked at and handed to the box as a pushed one is. Nobody watches; what came of it is
//! one JSON object on standard output, and a refusal is an error as everywhere.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use trackbed_api::DeploymentRequest;

use super::commit::Commit;
use super::variable;
use crate::session::{Refusal, Session};
use crate::target::Names;
use crate::upload;

/// Hands the commit over and does not wait for its deployment.
pub(super) async fn hand_over(session: &Session) -> Result<u8> {
    let names =
        Names { project: variable("TRACKBED_PUSH_PROJECT")?, service: variable("TRACKBED_PUSH_SERVICE")? };
    let commit = Commit(variable("TRACKBED_FETCHED_COMMIT")?);
    let is_name = matches!(commit.0.len(), 40 | 64) && commit.0.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(is_name, "the box named no commit");
    let branch = variable("TRACKBED_FETCHED_BRANCH")?;
    let delivery = variable("TRACKBED_FETCHED_DELIVERY")?.parse().context("the box numbered no delivery")?;
    let seen = commit.clone();
    let look = move || Ok::<_, anyhow::Error>((seen.look()?, seen.subject()?));
    let (missing, subject) =
        tokio::task::spawn_blocking(look).await.context("looking at the commit failed")??;
    if let Some((complaint, mend)) = missing.complaints().into_iter().next() {
        return Err(Refusal::with_hint(complaint, mend));
    }
    let client = session.client();
    let archived = commit.clone();
    let (source, ()) = upload::send(session, &client, None, None, move |to| archived.archive(to)).await?;
    if let Some(release) = names.of(&client).live_source(&source).await?.release {
        session.output.json(&json!({ "live": release }))?;
        return Ok(0);
    }
    let fetched = trackbed_api::Commit { via: "remote".into(), id: commit.0, branch, subject };
    let request = DeploymentRequest {
        source: Some(source),
        commit: Some(fetched),
        delivery: Some(delivery),
        ..names.deployment("up")
    };
    let deployment = client.deploy(&request).await?;
    session.output.json(&json!({ "deployment": deployment.id }))?;
    Ok(0)
}
