//! `trackbed import`: what another platform's files say, as a `trackbed.toml`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use trackbed_api::{PlanRequest, says_something, settings_file};
use trackbed_stdx::files::write_atomic;

use crate::commands::import_railway;
use crate::human::count;
use crate::session::{Refusal, Session};
use crate::start::ensure_box;
use crate::target::Target;
use crate::upload;

const FILE: &str = "trackbed.toml";

/// Write the trackbed.toml that says what the files of another platform say, or fetch a service from Railway
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  trackbed import ./api\n  trackbed import ./api --stdout\n  \
                  trackbed import railway --project shop --service api\n\n\
                  It reads railway.json and railway.toml, Procfile, nixpacks.toml, railpack.json, fly.toml, render.yaml,\n\
                  .do/app.yaml, service.yaml, apprunner.yaml, captain-definition, app.json and docker-compose.yml."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    from: Option<From>,
    /// The folder
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Replace a trackbed.toml that is there; what it says is kept
    #[arg(long, short)]
    force: bool,
    /// Print the file and write nothing
    #[arg(long)]
    stdout: bool,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    Railway(import_railway::Args),
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    if let Some(From::Railway(args)) = args.from {
        return import_railway::run(session, &args).await;
    }
    let folder = session.below(&args.path);
    let file = folder.join(FILE);
    if file.symlink_metadata().is_ok() && !args.force && !args.stdout {
        return Err(Refusal::with_hint(
            format!("{} is there already", file.display()),
            "--force replaces it and keeps what it says; --stdout prints what would be written",
        ));
    }
    let names = Target::default().named(&folder)?;
    let found = upload::find(session, &folder, true, false)?;
    let client = ensure_box(session).await?;
    let source = upload::upload(session, &client, found).await?;
    let (project, service) = (names.project, names.service);
    let plan = client.plan(&PlanRequest { project, service, source, overrides: Vec::new() }).await?;
    if !says_something(&plan) {
        let message = format!("no file in {} says anything that could be imported", folder.display());
        return Err(Refusal::with_hint(
            message,
            "`trackbed plan` shows what is found; `trackbed up` deploys it",
        ));
    }
    let text = settings_file(&plan);
    if args.stdout {
        session.output.result(text.trim_end())?;
        return Ok(0);
    }
    write_atomic(&file, text.as_bytes(), 0o644)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let notes = match plan.warnings.len() {
        0 => String::new(),
        notes => format!("; {} about what is different stand at its top", count(notes as u64, "note")),
    };
    session.output.talk(format!("{} written{notes}", file.display()));
    Ok(0)
}
