//! `trackbed volume list`: sizes, databases, restore points, and whether they are proven.

use anyhow::Result;
use trackbed_api::{Volume, VolumeHolder};
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, hours, plain, size, table};
use crate::output::Ink;
use crate::session::Session;
use crate::target::Target;

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// List the volumes that were removed and can be had back
    #[arg(long)]
    removed: bool,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn list(session: &Session, args: &List) -> Result<u8> {
    let client = session.client();
    let output = &session.output;
    let names = args.target.find(session, &client).await?;
    let calls = names.of(&client);
    let volumes = if args.removed { calls.removed_volumes().await? } else { calls.volumes().await? };
    if args.json {
        output.json_pretty(&volumes)?;
        return Ok(0);
    }
    if volumes.is_empty() && args.removed {
        output.talk(format!("{names} has no removed volume"));
        return Ok(0);
    }
    if volumes.is_empty() {
        output.talk(format!("{names} has no volume; add one: trackbed volume add data /data"));
        return Ok(0);
    }
    let now = now_ms();
    let rows = if args.removed { removed(&volumes, now) } else { kept(&volumes, now) };
    for line in table(&rows) {
        output.result(line)?;
    }
    let databases = databases(&volumes);
    if databases.len() > 1 {
        output.result("")?;
        for line in table(&databases) {
            output.result(line)?;
        }
    }
    for volume in &volumes {
        for warning in &volume.warnings {
            let mark = output.ink_talk(Ink::Bad, "warning:");
            output.talk(format!("{mark} volume {}: {}", volume.name, plain(warning)));
        }
    }
    Ok(0)
}

fn kept(volumes: &[Volume], now: i64) -> Vec<Vec<String>> {
    let head = [
        "NAME",
        "MOUNT",
        "USED",
        "LIMIT",
        "FREE",
        "SCHEDULE",
        "POINTS",
        "LAST POINT",
        "LAST PROVEN",
        "FENCE",
        "HELD BY",
    ];
    let rows = volumes.iter().map(|volume| {
        let holders: Vec<_> = volume.holders.iter().map(holder).collect();
        vec![
            volume.name.clone(),
            volume.mount.clone(),
            size(volume.used_bytes),
            volume.limit_bytes.map_or_else(|| "-".to_owned(), size),
            size(volume.free_bytes),
            some(volume.schedules.join(","), "none"),
            volume.restore_points.to_string(),
            when(volume.last_restore_point, now),
            when(volume.last_proven, now),
            volume.fence.to_string(),
            some(holders.join(", "), "-"),
        ]
    });
    std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
}

fn removed(volumes: &[Volume], now: i64) -> Vec<Vec<String>> {
    let head = ["NAME", "MOUNT", "USED", "REMOVED", "KEPT FOR"];
    let rows = volumes.iter().map(|volume| {
        let left = volume.kept_until.map(|until| hours(until - now));
        vec![
            volume.name.clone(),
            volume.mount.clone(),
            size(volume.used_bytes),
            when(volume.removed_at, now),
            left.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
}

fn databases(volumes: &[Volume]) -> Vec<[String; 4]> {
    let head = ["DATABASE", "JOURNAL", "SQLITE", "SIZE"].map(str::to_owned);
    let of_volume = |volume: &'_ Volume| {
        let name = volume.name.clone();
        let row = move |database: &trackbed_api::DatabaseSeen| {
            let version = database.sqlite_version.clone().unwrap_or_else(|| "-".to_owned());
            let path = format!("{name}:{}", plain(&database.path));
            [path, database.journal_mode.clone(), version, size(database.size_bytes)]
        };
        volume.databases.iter().map(row).collect::<Vec<_>>()
    };
    std::iter::once(head).chain(volumes.iter().flat_map(of_volume)).collect()
}

/// How long ago something was that may never have been.
fn when(at: Option<i64>, now: i64) -> String {
    at.map_or_else(|| "never".to_owned(), |at| ago(now, at))
}

fn some(text: String, none: &str) -> String {
    if text.is_empty() { none.to_owned() } else { text }
}

/// Who holds a volume: `v3 (ins_…, dep_…)`.
fn holder(holder: &VolumeHolder) -> String {
    let Some(instance) = &holder.instance else { return "another process".to_owned() };
    let release = holder.release.as_deref().unwrap_or("an instance");
    let deployment = holder.deployment.as_ref().map(|id| format!(", {id}")).unwrap_or_default();
    let shared = if holder.shared { ", shared" } else { "" };
    format!("{release} ({instance}{deployment}{shared})")
}
