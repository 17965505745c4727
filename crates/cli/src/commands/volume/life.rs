//! The life of a volume: `trackbed volume add`, `schedule`, `limit`, `clone`, `remove`, `undelete`.

use anyhow::Result;
use trackbed_api::{CloneRequest, Volume, VolumeChange, VolumeRequest};
use trackbed_stdx::clock::now_ms;

use crate::human::{hours, size};
use crate::names::parse_name;
use crate::quantities::{parse_at, parse_size};
use crate::session::Session;
use crate::target::Target;

/// The schedules that there are, the most frequent first.
const SCHEDULES: [&str; 4] = ["hourly", "daily", "weekly", "monthly"];

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Its name
    #[arg(value_parser = parse_name)]
    name: String,
    /// Where the app finds it, such as /data
    mount: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed volume schedule data hourly,daily,weekly\n  \
                        trackbed volume schedule data none\n\n\
                        Hourly points are kept for a day, daily ones for 6 days, weekly ones for a month, monthly ones \
                        for 3 months; the last proven one is always kept.")]
pub(super) struct Schedule {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// hourly, daily, weekly, monthly, several with commas between, or none
    #[arg(value_parser = parse_schedules)]
    when: Schedules,
    #[command(flatten)]
    how: How,
}

/// Schedules as they are typed.
#[derive(Debug, Clone)]
struct Schedules(Vec<String>);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed volume limit data 5GB\n  trackbed volume limit data none\n\n\
                        Above its limit a volume is not cut off: a warning is shown, and `trackbed volume put` is refused.")]
pub(super) struct Limit {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// A size such as 5GB, or none
    #[arg(value_parser = parse_limit)]
    size: u64,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed volume clone data data-preview --mount /preview")]
pub(super) struct Clone {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// Name of the new one
    #[arg(value_parser = parse_name)]
    new: String,
    /// Where the new one is mounted [default: beside the other, by its own name]
    #[arg(long, value_name = "PATH")]
    mount: Option<String>,
    /// A restore point or a time, as for `trackbed volume restore` [default: now]
    #[arg(long, value_name = "POINT|TIME", value_parser = parse_at)]
    at: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
pub(super) struct Undelete {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Print the volume as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn parse_schedules(text: &str) -> Result<Schedules, String> {
    if text == "none" {
        return Ok(Schedules(Vec::new()));
    }
    let words: Vec<_> = text.split(',').map(str::trim).collect();
    match words.iter().find(|word| !SCHEDULES.contains(word)) {
        None => Ok(Schedules(words.into_iter().map(str::to_owned).collect())),
        Some(odd) => Err(format!("`{odd}` is no schedule; there are {}, and none", SCHEDULES.join(", "))),
    }
}

/// Reads a limit; none is 0, as the API has it.
fn parse_limit(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { parse_size(text).map_err(|error| format!("{error}, or none")) }
}

pub(super) async fn add(session: &Session, args: Add) -> Result<u8> {
    let client = session.client();
    let names = args.target.find_or_new(session, &client).await?;
    let request = VolumeRequest { name: args.name, mount: args.mount };
    let volume = names.of(&client).add_volume(&request).await?;
    if args.json {
        session.output.json_pretty(&volume)?;
    }
    let (name, mount) = (&volume.name, &volume.mount);
    session
        .output
        .talk(format!("{names} has volume {name}; the next deploy mounts it at {mount}: trackbed redeploy"));
    Ok(0)
}

pub(super) async fn schedule(session: &Session, args: Schedule) -> Result<u8> {
    let change = VolumeChange { schedules: Some(args.when.0), limit_bytes: None };
    let volume = change_volume(session, &args.name, &args.how, &change).await?;
    let when = if volume.schedules.is_empty() {
        format!("only before deployments, and when asked: trackbed volume snapshot {}", volume.name)
    } else {
        format!("{}, and before every deployment", volume.schedules.join(", "))
    };
    session.output.talk(format!("volume {}: restore points are taken {when}", volume.name));
    Ok(0)
}

pub(super) async fn limit(session: &Session, args: &Limit) -> Result<u8> {
    let change = VolumeChange { schedules: None, limit_bytes: Some(args.size) };
    let volume = change_volume(session, &args.name, &args.how, &change).await?;
    let limit = volume.limit_bytes.map_or_else(|| "no limit of its own".to_owned(), size);
    session.output.talk(format!("volume {}: {limit}, {} used", volume.name, size(volume.used_bytes)));
    Ok(0)
}

async fn change_volume(session: &Session, name: &str, how: &How, change: &VolumeChange) -> Result<Volume> {
    let client = session.client();
    let names = how.target.find(session, &client).await?;
    let volume = names.of(&client).volume(name).change(change).await?;
    if how.json {
        session.output.json_pretty(&volume)?;
    }
    Ok(volume)
}

pub(super) async fn clone(session: &Session, args: Clone) -> Result<u8> {
    let client = session.client();
    let names = args.how.target.find(session, &client).await?;
    let request = CloneRequest { name: args.new, mount: args.mount, at: args.at };
    let made = names.of(&client).volume(&args.name).clone_to(&request).await?;
    tell_clone(session, &args.name, &made, args.how.json)
}

/// Says what a new volume with the data of another came to.
pub(super) fn tell_clone(session: &Session, from: &str, made: &Volume, json: bool) -> Result<u8> {
    if json {
        session.output.json_pretty(made)?;
    } else {
        session.output.result(&made.name)?;
    }
    session.output.talk(format!(
        "volume {} has the data of {from}, {}; the next deploy mounts it at {}: trackbed redeploy",
        made.name,
        size(made.used_bytes),
        made.mount
    ));
    Ok(0)
}

pub(super) async fn remove(session: &Session, args: &Remove) -> Result<u8> {
    let client = session.client();
    let names = args.how.target.find(session, &client).await?;
    let question = format!("remove volume {} of {names}?", args.name);
    if !session.agrees(args.yes, &question)? {
        return Ok(1);
    }
    let volume = names.of(&client).volume(&args.name).remove().await?;
    if args.how.json {
        session.output.json_pretty(&volume)?;
    }
    let kept = volume.kept_until.map(|until| format!(" for {}", hours(until - now_ms())));
    let kept = kept.unwrap_or_default();
    let name = &volume.name;
    session.output.talk(format!(
        "volume {name} of {names} is removed; its data is kept{kept}: trackbed volume undelete {name}"
    ));
    Ok(0)
}

pub(super) async fn undelete(session: &Session, args: &Undelete) -> Result<u8> {
    let client = session.client();
    let names = args.how.target.find(session, &client).await?;
    let volume = names.of(&client).volume(&args.name).undelete().await?;
    if args.how.json {
        session.output.json_pretty(&volume)?;
    }
    let (name, mount) = (&volume.name, &volume.mount);
    session.output.talk(format!(
        "{names} has volume {name} again; the next deploy mounts it at {mount}: trackbed redeploy"
    ));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_words_with_commas_between() {
        assert_eq!(parse_schedules("hourly, daily").unwrap().0, ["hourly", "daily"]);
        assert!(parse_schedules("none").unwrap().0.is_empty());
        for bad in ["", "hourly,", "Hourly", "none,daily"] {
            assert!(parse_schedules(bad).unwrap_err().contains("hourly, daily, weekly, monthly"), "{bad}");
        }
    }
}
