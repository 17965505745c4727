//! `trackbed volume snapshot`, `points` and `verify`: taking restore points, listing and proving them.

use anyhow::Result;
use trackbed_api::{DrillRequest, Proof, RestorePoint, SnapshotRequest};
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, count, duration, plain, size, table};
use crate::names::parse_name;
use crate::output::Ink;
use crate::session::{Refusal, Session};
use crate::target::Target;

#[derive(Debug, clap::Args)]
pub(super) struct Snapshot {
    /// Name of the volume [default: all of the service, at the same instant]
    #[arg(value_parser = parse_name)]
    name: Option<String>,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
pub(super) struct Points {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// The restore point [default: the newest]
    #[arg(value_parser = parse_point)]
    point: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed volume forget data rp_…\n\n\
                        The last good restore point of a volume stays, and so does one that something needs.")]
pub(super) struct Forget {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// The restore point
    #[arg(value_parser = parse_point)]
    point: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn parse_point(text: &str) -> Result<String, String> {
    match text.starts_with("rp_") {
        true => Ok(text.to_owned()),
        false => {
            Err("a restore point is named by its id, rp_…; `trackbed volume points` lists them".to_owned())
        }
    }
}

pub(super) async fn snapshot(session: &Session, args: Snapshot) -> Result<u8> {
    let client = session.client();
    let output = &session.output;
    let names = args.target.find(session, &client).await?;
    let points = names.of(&client).snapshot(&SnapshotRequest { volume: args.name }).await?;
    if args.json {
        output.json_pretty(&points)?;
        return Ok(0);
    }
    if points.is_empty() {
        output.talk(format!("{names} has no volume; add one: trackbed volume add data /data"));
        return Ok(1);
    }
    for point in &points {
        output.result(&point.id)?;
        output.talk(taken(point));
        for skipped in &point.skipped {
            output.talk(format!("{} left out: {}", output.ink_talk(Ink::Odd, "!"), plain(skipped)));
        }
    }
    Ok(0)
}

/// What taking a point came to.
fn taken(point: &RestorePoint) -> String {
    let stood = match point.pause_ms {
        0 => "the app did not stand still".to_owned(),
        ms => format!("the app stood still for {ms} ms"),
    };
    let files = count(point.files, "file");
    let loose = match point.consistency.as_str() {
        "per-database" => {
            "; each database is from an instant of its own, the volume changes too much for one"
        }
        _ => "",
    };
    format!(
        "volume {}: {} in {files}, {} added on disk; {stood}{loose}",
        point.volume,
        size(point.bytes),
        size(point.stored_bytes)
    )
}

pub(super) async fn points(session: &Session, args: &Points) -> Result<u8> {
    let client = session.client();
    let output = &session.output;
    let names = args.target.find(session, &client).await?;
    let points = names.of(&client).volume(&args.name).points().await?;
    if args.json {
        output.json_pretty(&points)?;
        return Ok(0);
    }
    if points.is_empty() {
        let name = &args.name;
        output.talk(format!(
            "volume {name} has no restore point yet; take one: trackbed volume snapshot {name}"
        ));
        return Ok(0);
    }
    let now = now_ms();
    let head =
        ["POINT", "WHEN", "WHY", "RELEASE", "FILES", "SIZE", "ADDED", "PAUSE", "PROVEN"].map(str::to_owned);
    let rows = points.iter().map(|point| {
        [
            point.id.clone(),
            ago(now, point.taken_at),
            why(point),
            point.release.clone().unwrap_or_else(|| "-".to_owned()),
            point.files.to_string(),
            size(point.bytes),
            size(point.stored_bytes),
            format!("{} ms", point.pause_ms),
            point.proof.as_ref().map_or_else(|| "not yet".to_owned(), |proof| proven(proof, now)),
        ]
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) {
        output.result(line)?;
    }
    Ok(0)
}

fn why(point: &RestorePoint) -> String {
    let deployment = point.deployment.as_deref().unwrap_or_default();
    match point.why.as_str() {
        "deployment" => format!("before {deployment}"),
        "before-restore" => format!("replaced by {deployment}"),
        "schedule" if !point.schedules.is_empty() => point.schedules.join(","),
        "command" => "asked for".to_owned(),
        "look" => "for trackbed db".to_owned(),
        other => other.to_owned(),
    }
}

fn proven(proof: &Proof, now: i64) -> String {
    match (proof.proven, &proof.reason) {
        (true, _) => ago(now, proof.at),
        (false, Some(reason)) if proof.undecided => format!("could not be proven: {}", plain(reason)),
        (false, Some(reason)) => format!("BROKEN: {}", plain(reason)),
        (false, None) => "BROKEN".to_owned(),
    }
}

pub(super) async fn forget(session: &Session, args: &Forget) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let question =
        format!("remove restore point {} of volume {} of {names} for good?", args.point, args.name);
    if !session.agrees(args.yes, &question)? {
        return Ok(1);
    }
    let gone = names.of(&client).volume(&args.name).forget(&args.point).await?;
    if args.json {
        session.output.json_pretty(&gone)?;
    }
    session.output.talk(format!("restore point {} of volume {} is removed", gone.id, args.name));
    Ok(0)
}

pub(super) async fn verify(session: &Session, args: Verify) -> Result<u8> {
    let client = session.client();
    let output = &session.output;
    let names = args.target.find(session, &client).await?;
    if !args.json {
        output.talk("restoring to a scratch place and comparing; this takes a while with much data …");
    }
    let volume = names.of(&client).volume(&args.name);
    let point = volume.drill(&DrillRequest { point: args.point }).await?;
    let broken = point.proof.as_ref().is_none_or(|proof| !proof.proven);
    if args.json {
        output.json_pretty(&point)?;
        return Ok(u8::from(broken));
    }
    let Some(proof) = point.proof.as_ref().filter(|proof| proof.proven) else {
        let undecided = point.proof.as_ref().is_some_and(|proof| proof.undecided);
        let reason =
            point.proof.and_then(|proof| proof.reason).unwrap_or_else(|| "it was not looked at".to_owned());
        let verdict = if undecided { "could not be proven" } else { "cannot be restored as it was" };
        let message = format!("restore point {} {verdict}: {}", point.id, plain(&reason));
        let hint = format!("`trackbed volume points {}` lists the others", args.name);
        return Err(Refusal::with_hint(message, hint));
    };
    let took = duration(i64::try_from(proof.took_ms).unwrap_or(i64::MAX));
    let held = format!("{} with {}", count(proof.databases, "database"), count(proof.rows, "row"));
    let files = count(point.files, "file");
    output.talk(format!("{} every byte of {files}, {held}, in {took}", output.ink_talk(Ink::Good, "✓")));
    output.result(format!("{} is proven restorable", point.id))?;
    Ok(0)
}
