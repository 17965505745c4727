//! `trackbed backup`: copies of the whole box elsewhere.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use trackbed_api::{BackupTarget, BackupTargetRequest};
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, count, size};
use crate::output::Ink;
use crate::session::{Refusal, Session};
use crate::store_options::{self, parse_bandwidth, parse_option};

/// How often to look whether a pass has ended.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Keep encrypted copies of the whole box elsewhere, from which `trackbed recover` brings it back
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed backup target set 's3://bucket/box?region=eu-central-1'\n  \
                        trackbed backup target set file:///mnt/disk/box --bandwidth 10MB/s\n  \
                        trackbed backup target show\n  trackbed backup now\n  trackbed backup key\n\n\
                        Credentials come from --option or the environment (AWS_ACCESS_KEY_ID, …) and are kept sealed.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Where the copies go
    Target(Target),
    /// Copy what is new, now
    Now(Now),
    /// Show the key that opens the copies
    Key(Key),
}

#[derive(Debug, clap::Args)]
struct Target {
    #[command(subcommand)]
    verb: TargetVerb,
}

#[derive(Debug, clap::Subcommand)]
enum TargetVerb {
    /// Set the target and begin to copy
    Set(Set),
    /// Show the target and how its copies do
    Show(Show),
    /// Forget the target; the copies there stay
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
struct Set {
    /// s3://BUCKET/PREFIX?region=R&endpoint=URL, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///PATH
    url: String,
    /// A setting of the store, such as access_key_id=… (may be given several times)
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_option)]
    options: Vec<(String, String)>,
    /// Use at most so much of the line, such as 10MB/s
    #[arg(long, value_name = "RATE", value_parser = parse_bandwidth)]
    bandwidth: Option<u64>,
    /// Go on with this key instead of a new one
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Take the prefix from another box, which then refuses to go on
    #[arg(long)]
    take_over: bool,
    /// No other box writes there, although the store cannot make sure of it
    #[arg(long)]
    assume_exclusive: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Remove {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Now {
    /// Do not wait until it is done
    #[arg(long)]
    detach: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Key {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    match args.verb {
        Verb::Target(Target { verb: TargetVerb::Set(args) }) => set(session, args).await,
        Verb::Target(Target { verb: TargetVerb::Show(args) }) => show(session, &args).await,
        Verb::Target(Target { verb: TargetVerb::Remove(args) }) => remove(session, &args).await,
        Verb::Now(args) => now(session, &args).await,
        Verb::Key(args) => key(session, &args).await,
    }
}

async fn set(session: &Session, args: Set) -> Result<u8> {
    let identity = args
        .key
        .map(|path| {
            std::fs::read_to_string(session.below(&path))
                .with_context(|| format!("cannot read {}", path.display()))
        })
        .transpose()?;
    let options = store_options::all(&args.url, &args.options, |name| std::env::var(name).ok());
    let request = BackupTargetRequest {
        url: args.url.clone(),
        options,
        identity,
        bandwidth_bytes: args.bandwidth,
        take_over: args.take_over,
        assume_exclusive: args.assume_exclusive,
    };
    let key = session.client().set_backup_target(&request).await?;
    if args.json {
        session.output.json_pretty(&key)?;
        return Ok(0);
    }
    session.output.talk(format!("copies of this box go to {}", args.url));
    if let Some(identity) = key.identity {
        session
            .output
            .talk("Write this key down, away from this box: without it the copies cannot be opened.");
        session.output.result(identity)?;
    }
    Ok(0)
}

async fn show(session: &Session, args: &Show) -> Result<u8> {
    let backup = session.client().backup().await?;
    if args.json {
        session.output.json_pretty(&backup)?;
        return Ok(0);
    }
    let Some(target) = backup.target else {
        session.output.talk("no copies are kept elsewhere; begin: trackbed backup target set s3://BUCKET/PREFIX?region=REGION");
        return Ok(0);
    };
    for line in lines(&target) {
        session.output.result(line)?;
    }
    if let Some(warning) = &target.warning {
        session.output.talk(session.output.ink_talk(Ink::Bad, &format!("warning: {warning}")));
    }
    Ok(0)
}

fn lines(target: &BackupTarget) -> Vec<String> {
    let now = now_ms();
    let mut lines = vec![
        format!("target      {}", target.url),
        format!("sealed for  {}", target.recipient),
        match target.succeeded_at {
            Some(at) => format!("last copy   {}", ago(now, at)),
            None => "last copy   none yet".to_owned(),
        },
        format!("holds       {}, {}", count(target.objects, "object"), size(target.bytes)),
    ];
    if target.missing_objects > 0 {
        lines.push(format!(
            "missing     {}, {} or more",
            count(target.missing_objects, "object"),
            size(target.missing_bytes)
        ));
    }
    if let Some(at) = target.drilled_at {
        let verdict = if target.drill_broken.is_some() { "broken" } else { "restored from there alone" };
        lines.push(format!("last drill  {verdict}, {}", ago(now, at)));
    }
    if let (Some(since), Some(failure)) = (target.failing_since, &target.failure) {
        lines.push(format!("failing     since {}: {failure}", ago(now, since)));
    }
    lines.extend(target.damaged.iter().map(|object| format!("damaged     {object}")));
    lines
}

async fn remove(session: &Session, args: &Remove) -> Result<u8> {
    if !session.agrees(args.yes, "stop copying this box elsewhere?")? {
        return Ok(1);
    }
    session.client().remove_backup_target().await?;
    session.output.talk("no more copies are made; those that are there stay");
    Ok(0)
}

async fn now(session: &Session, args: &Now) -> Result<u8> {
    let client = session.client();
    let before = client.backup_now().await?.target.unwrap_or_default();
    if args.detach {
        session.output.talk("asked for; `trackbed backup target show` says how it goes");
        return Ok(0);
    }
    // One that is under way began before: what is new now is sent by the next.
    let wanted = before.passes + if before.is_running { 2 } else { 1 };
    let begun = Instant::now();
    let target = loop {
        let target = client.backup().await?.target.unwrap_or_default();
        if target.passes >= wanted || target.url != before.url {
            break target;
        }
        let missing = count(target.missing_objects, "object");
        session.output.status(format!("copying for {} s, {missing} to go", begun.elapsed().as_secs()));
        tokio::time::sleep(LOOK_EVERY).await;
    };
    session.output.wipe_status();
    if args.json {
        session.output.json_pretty(&target)?;
    }
    if let Some(failure) = target.failure {
        return Err(Refusal::with_hint(
            format!("the copies are behind: {failure}"),
            "it is tried again by itself",
        ));
    }
    if !args.json {
        session.output.talk(format!(
            "all is at {}: {}, {}",
            target.url,
            count(target.objects, "object"),
            size(target.bytes)
        ));
    }
    Ok(0)
}

async fn key(session: &Session, args: &Key) -> Result<u8> {
    let key = session.client().backup_key().await?;
    if args.json {
        session.output.json_pretty(&key)?;
    } else {
        session.output.result(key.identity.unwrap_or_default())?;
    }
    Ok(0)
}
