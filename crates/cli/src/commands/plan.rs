//! `trackbed plan`: what `up` would do, and why.

use anyhow::Result;
use trackbed_api::{Plan, PlanRequest};

use crate::human::{plain, table};
use crate::output::{Ink, Output, ResultLost};
use crate::session::Session;
use crate::start::ensure_box;
use crate::upload::{self, Folder};

/// Show how a folder would be built and run, and where each setting comes from; deploys nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed plan ./api")]
pub(crate) struct Args {
    #[command(flatten)]
    folder: Folder,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let names = args.folder.named(session)?;
    let found = args.folder.find(session, false)?;
    let client = ensure_box(session).await?;
    let source = upload::upload(session, &client, found).await?;
    let (project, service) = (names.project, names.service);
    let plan = client.plan(&PlanRequest { project, service, source, overrides: Vec::new() }).await?;
    if args.json {
        session.output.json_pretty(&plan)?;
    } else {
        print(&session.output, &plan)?;
    }
    Ok(0)
}

fn print(output: &Output, plan: &Plan) -> Result<(), ResultLost> {
    output.result(format!("{}  {}", output.ink_result(Ink::Bold, &plan.provider), plan.summary))?;
    output.result("")?;
    let head = ["SETTING", "VALUE", "FROM"].map(str::to_owned);
    let row = |setting: &trackbed_api::PlannedSetting| {
        [setting.key.clone(), plain(&setting.value), setting.place.clone()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(plan.settings.iter().map(row)).collect();
    for line in table(&rows) {
        output.result(line)?;
    }
    for warning in &plan.warnings {
        let place = match (&warning.file, warning.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            (Some(file), None) => format!("{file}: "),
            (None, _) => String::new(),
        };
        output.result(format!("{} {place}{}", output.ink_result(Ink::Odd, "warning:"), warning.message))?;
    }
    Ok(())
}
