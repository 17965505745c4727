//! `trackbed volume`: folders that outlive releases, what is in them, and going back to what was.

mod files;
mod life;
mod list;
mod points;
mod restore;

pub(crate) use files::send_folder;

use anyhow::Result;

use crate::session::Session;

/// Volumes: folders that outlive releases, their files, and their restore points
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed volume list\n  trackbed volume snapshot\n  \
                        trackbed volume points data\n  trackbed volume restore data --at '2h ago' --dry-run\n  \
                        trackbed volume restore data --at rp_…\n  trackbed volume get data app.db\n\n\
                        `trackbed db` looks into the databases.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the volumes of a service: size, databases, restore points, proofs
    List(list::List),
    /// Add a volume; mounted with the next deploy
    Add(life::Add),
    /// List the files in a folder of a volume
    Files(files::Files),
    /// Copy a file out of a volume
    Get(files::Get),
    /// Copy a file into a volume
    Put(files::Put),
    /// Show what uses the space in a volume
    Usage(files::Usage),
    /// Take a restore point now
    Snapshot(points::Snapshot),
    /// List the restore points of a volume, newest first
    #[command(alias = "snapshots", alias = "backups")]
    Points(points::Points),
    /// Go back to a restore point; the data of now becomes one
    Restore(restore::Restore),
    /// Prove now that a restore point can be restored
    Verify(points::Verify),
    /// Remove a restore point for good
    Forget(points::Forget),
    /// Say when restore points are taken by themselves
    Schedule(life::Schedule),
    /// Say how much a volume may hold
    Limit(life::Limit),
    /// Move a file that the app keeps outside its volumes into one
    Adopt(restore::Adopt),
    /// Make a new volume with the data of another
    Clone(life::Clone),
    /// Remove a volume; its data can be had back for 48 hours
    #[command(alias = "delete")]
    Remove(life::Remove),
    /// Have a removed volume back
    Undelete(life::Undelete),
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    match args.verb {
        Verb::List(args) => list::list(session, &args).await,
        Verb::Add(args) => life::add(session, args).await,
        Verb::Files(args) => files::files(session, &args).await,
        Verb::Get(args) => files::get(session, &args).await,
        Verb::Put(args) => files::put(session, &args).await,
        Verb::Usage(args) => files::usage(session, &args).await,
        Verb::Snapshot(args) => points::snapshot(session, args).await,
        Verb::Points(args) => points::points(session, &args).await,
        Verb::Restore(args) => restore::restore(session, args).await,
        Verb::Verify(args) => points::verify(session, args).await,
        Verb::Forget(args) => points::forget(session, &args).await,
        Verb::Schedule(args) => life::schedule(session, args).await,
        Verb::Limit(args) => life::limit(session, &args).await,
        Verb::Adopt(args) => restore::adopt(session, args).await,
        Verb::Clone(args) => life::clone(session, args).await,
        Verb::Remove(args) => life::remove(session, &args).await,
        Verb::Undelete(args) => life::undelete(session, &args).await,
    }
}
