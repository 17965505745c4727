//! `trackbed plan`: what `up` would do, and why.

use std::path::PathBuf;

use anyhow::Result;
use trackbed_api::{Plan, PlanRequest};

use crate::human::{plain, table};
use crate::names::parse_name;
use crate::output::{Ink, Output, ResultLost};
use crate::session::Session;
use crate::start::ensure_box;
use crate::target::Target;
use crate::upload;

/// Show how a folder would be built and run, and where each setting comes from; deploys nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed plan ./api")]
pub(crate) struct Args {
    /// The folder
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Name of the service [default: the folder's name]
    #[arg(long, short, value_name = "NAME", value_parser = parse_name)]
    service: Option<String>,
    /// Name of its project [default: the name of the service]
    #[arg(long, short, value_name = "NAME", value_parser = parse_name)]
    project: Option<String>,
    /// Take what .gitignore drops, too (.railwayignore still counts)
    #[arg(long)]
    no_gitignore: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let folder = session.below(&args.path);
    let names = Target { service: args.service.clone(), project: args.project.clone() }.named(&folder)?;
    let tree = upload::find(session, &folder, !args.no_gitignore)?;
    let client = ensure_box(session).await?;
    let source = upload::upload(session, &client, tree).await?;
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
