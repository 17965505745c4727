//! `trackbed volume restore` and `adopt`: what changes the data of a service, as deployments to follow.

use anyhow::Result;
use trackbed_api::{AdoptionRequest, CloneRequest, RestoreRequest};

use super::life;
use crate::changes;
use crate::deploy::{self, Follow};
use crate::names::parse_name;
use crate::quantities::parse_at;
use crate::session::Session;
use crate::target::Target;

/// Restores into the volume itself are deployments: the live release is started on the data of the point, and comes back
/// on today's when it does not get healthy.
#[derive(Debug, clap::Args)]
#[command(
    about = "Go back to a restore point; the data of now becomes one",
    long_about = None,
    after_help = "Examples:\n  trackbed volume restore data --at rp_… --dry-run\n  \
                  trackbed volume restore data --at '2h ago'\n  \
                  trackbed volume restore data --at 2026-11-22T08:00:00Z --to data-of-sunday\n\n\
                  The data is put in a new place and verified before anything stops; what it replaces becomes a \
                  restore point."
)]
pub(super) struct Restore {
    /// Name of the volume
    #[arg(value_parser = parse_name)]
    name: String,
    /// A restore point, `proven` for the newest that is proven, or a time: the newest point that is not younger
    #[arg(long, value_name = "POINT|TIME", value_parser = parse_at)]
    at: String,
    /// Make a new volume of it instead, and leave this one alone
    #[arg(long, value_name = "NEW", value_parser = parse_name, conflicts_with_all = ["dry_run", "detach"])]
    to: Option<String>,
    /// Where the new volume is mounted [default: beside the other, by its own name]
    #[arg(long, value_name = "PATH", requires = "to")]
    mount: Option<String>,
    /// Only show which files and tables differ
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    follow: Follow,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed volume adopt /app/app.db --volume data\n  \
                        trackbed volume adopt /app/app.db /app/jobs.db\n  trackbed volume adopt --all\n\n\
                        All of it moves into the volume in one restart, and the app finds it by links where it was.")]
pub(super) struct Adopt {
    /// Files or folders, as the app sees them, such as /app/app.db
    #[arg(required_unless_present = "all", value_name = "PATH")]
    paths: Vec<String>,
    /// Every database that the app keeps outside its volumes
    #[arg(long, conflicts_with = "paths")]
    all: bool,
    /// The volume that takes them [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    volume: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    follow: Follow,
}

pub(super) async fn restore(session: &Session, args: Restore) -> Result<u8> {
    let client = session.client();
    let output = &session.output;
    let names = args.target.find(session, &client).await?;
    let volume = names.of(&client).volume(&args.name);
    if let Some(name) = args.to {
        let request = CloneRequest { name, mount: args.mount, at: Some(args.at) };
        let made = volume.clone_to(&request).await?;
        return life::tell_clone(session, &args.name, &made, args.follow.json);
    }
    let asks = !args.yes && !args.follow.json && session.input.can_ask(output);
    if args.dry_run || asks {
        if !args.follow.json {
            output.talk("comparing, which takes a while with much data …");
        }
        let difference = volume.difference(&args.at).await?;
        if args.dry_run && args.follow.json {
            output.json_pretty(&difference)?;
            return Ok(0);
        }
        for line in changes::lines(&difference) {
            if args.dry_run { output.result(line)? } else { output.talk(line) }
        }
        if args.dry_run {
            return Ok(0);
        }
        let question = format!("put the data of {} in place of volume {}?", difference.point.id, args.name);
        if !session.agrees(false, &question)? {
            return Ok(1);
        }
    }
    let asked = volume.restore(&RestoreRequest { at: args.at }).await;
    deploy::see_through(session, &client, &names, args.follow, asked).await
}

pub(super) async fn adopt(session: &Session, args: Adopt) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    // No path at all means every database.
    let request = AdoptionRequest { paths: args.paths, volume: args.volume };
    let asked = names.of(&client).adopt(&request).await;
    deploy::see_through(session, &client, &names, args.follow, asked).await
}
