//! `trackbed check`: says what would ruin a deployment. What is looked for is decided elsewhere.

use std::path::PathBuf;

use anyhow::{Context, Result};
use trackbed_api::{CheckReport, Finding};

use crate::human::plain;
use crate::output::{Ink, Output, ResultLost};
use crate::sarif;
use crate::session::{Refusal, Session};
use crate::upload::Folder;
use crate::walk::EntryKind;

/// Look at a folder for what would ruin its deployment; needs no box and changes nothing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trackbed check\n  trackbed check ./api --strict\n  trackbed check --sarif > check.sarif\n\n\
                  Exits with 1 when there are errors; with --strict also when there are warnings. A box that runs and\n\
                  knows the service lends its variables and volumes."
)]
pub(crate) struct Args {
    #[command(flatten)]
    folder: Folder,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print SARIF 2.1.0, as code hosts read it
    #[arg(long, conflicts_with = "json")]
    sarif: bool,
}

/// Variables with their values, and mounts of volumes.
pub type Lent = (Vec<(String, String)>, Vec<String>);

/// A look that somebody wants.
pub struct CheckCommand {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) args: Args,
}

/// What is looked at.
pub struct CheckWish {
    /// The folder; absolute.
    pub folder: PathBuf,
    /// Its files that would be deployed, relative to it.
    pub files: Vec<PathBuf>,
    /// Variables with their values, and mounts of volumes, when a box that runs knows the service.
    pub service: Option<Lent>,
    /// Where the box of this user keeps its data.
    pub data_dir: PathBuf,
}

/// Looks, prints, and returns the exit code.
pub(crate) async fn execute(
    command: CheckCommand,
    output: Output,
    look: impl FnOnce(CheckWish) -> CheckReport + Send + 'static,
) -> u8 {
    let session = match Session::of_process(command.data_dir, output) {
        Ok(session) => session,
        Err((error, output)) => {
            output.error(&error);
            return 1;
        }
    };
    match check(&session, &command.args, look).await {
        Ok(code) => code,
        Err(error) if error.downcast_ref::<ResultLost>().is_some_and(ResultLost::is_reader_gone) => 0,
        Err(error) => {
            session.output.error(&error);
            if error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.is_usage) { 2 } else { 1 }
        }
    }
}

async fn check(
    session: &Session,
    args: &Args,
    look: impl FnOnce(CheckWish) -> CheckReport + Send + 'static,
) -> Result<u8> {
    let tree = args.folder.walk(session)?;
    tree.check_readable()?;
    let files = tree.entries.into_iter().filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
    let wish = CheckWish {
        folder: tree.root,
        files: files.map(|entry| entry.path).collect(),
        service: known(session, &args.folder).await,
        data_dir: session.data_dir.clone(),
    };
    let report = tokio::task::spawn_blocking(move || look(wish)).await.context("the look ended early")?;
    if args.sarif {
        session.output.json_pretty(&sarif::log(&report))?;
    } else if args.json {
        session.output.json_pretty(&report)?;
    } else {
        print(&session.output, &report)?;
    }
    let is_bad = |finding: &Finding| finding.level == "error" || (args.strict && finding.level == "warning");
    Ok(u8::from(report.findings.iter().any(is_bad)))
}

/// What a box knows of the service. That none runs, or does not know it, is no failure.
async fn known(session: &Session, folder: &Folder) -> Option<Lent> {
    let names = folder.named(session).ok()?;
    let client = session.client();
    let service = names.of(&client).show().await.ok()?;
    let variables = names.of(&client).variables(true).await.ok()?;
    let variables = variables.into_iter().map(|variable| (variable.name, variable.value.unwrap_or_default()));
    Some((variables.collect(), service.volumes.into_iter().map(|volume| volume.mount).collect()))
}

fn print(output: &Output, report: &CheckReport) -> Result<(), ResultLost> {
    for finding in &report.findings {
        let ink = match finding.level.as_str() {
            "error" => Ink::Bad,
            "warning" => Ink::Odd,
            _ => Ink::Dim,
        };
        let level = output.ink_result(ink, &finding.level);
        let place = match (&finding.file, finding.line) {
            (Some(file), Some(line)) => format!("{}:{line}: ", plain(file)),
            (Some(file), None) => format!("{}: ", plain(file)),
            (None, _) => String::new(),
        };
        output.result(format!("{place}{level}: {} [{}]", plain(&finding.what), finding.rule))?;
        output.result(format!("  {}", plain(&finding.why)))?;
        output.result(format!("  mend: {}", plain(&finding.mend)))?;
    }
    let count = |level: &str, word: &str| {
        let count = report.findings.iter().filter(|finding| finding.level == level).count();
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {word}{plural}")
    };
    let (errors, warnings, notes) =
        (count("error", "error"), count("warning", "warning"), count("note", "note"));
    let files =
        if report.files_read == 1 { "1 file".to_owned() } else { format!("{} files", report.files_read) };
    output.talk(format!("{errors}, {warnings}, {notes} in {files} of code"));
    if !report.is_service_known {
        output.talk("no box knows this service: which variables and volumes it has is not known");
    }
    Ok(())
}
