//! `trackbed logs`: what a service or a build wrote.

use std::time::Duration;

use anyhow::Result;
use trackbed_api::{Deployment, LogLine, LogPage};
use trackbed_client::{Client, ClientError};

use crate::follow::Patience;
use crate::human;
use crate::human::moment;
use crate::output::{Ink, Output, ResultLost};
use crate::session::{Refusal, Session};
use crate::target::{Names, Target};

/// How long to wait before asking again for a build log.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Print what a service wrote, oldest line first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trackbed logs -f\n  trackbed logs --build\n  trackbed logs -n 1000 | grep ERROR\n  \
                  trackbed logs -f --process worker"
)]
pub(crate) struct Args {
    /// Go on printing until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Print what the newest build said instead
    #[arg(long, short)]
    build: bool,
    /// Print what the build of this deployment said
    #[arg(long, short, value_name = "ID")]
    deployment: Option<String>,
    /// How many lines to begin with [default: 200, or the whole build]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
    /// Print what this process wrote only: `worker`, or one copy of it, `worker.1`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["build", "deployment"])]
    process: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let client = session.client();
    if let Some(id) = &args.deployment {
        return build(session, &client, id, args).await;
    }
    let names = args.target.find(session, &client).await?;
    if args.build {
        let newest = names.of(&client).deployments(50).await?;
        let built = newest.iter().find(|deployment| is_built(deployment));
        let Some(built) = built else {
            return Err(Refusal::with_hint(format!("{names} was never built"), "deploy it: `trackbed up`"));
        };
        return build(session, &client, &built.id, args).await;
    }
    service(session, &client, &names, args).await
}

async fn service(session: &Session, client: &Client, names: &Names, args: &Args) -> Result<u8> {
    let (calls, process) = (names.of(client), args.process.as_deref());
    let mut page = calls.logs(args.lines.unwrap_or(200), process).await?;
    let mut patience = Patience::default();
    print(&session.output, &page.lines, args.json)?;
    if page.lines.is_empty() {
        let who = process.map(|process| format!("{} of ", human::plain(process))).unwrap_or_default();
        session.output.talk(format!("{who}{names} has written nothing yet"));
    }
    if !args.follow {
        return Ok(0);
    }
    loop {
        match calls.logs_from(&page.next, process).await {
            Ok(next) => {
                print(&session.output, &next.lines, args.json)?;
                page = next;
                patience = Patience::default();
            }
            Err(error) => bear(session, &mut patience, error).await?,
        }
    }
}

async fn build(session: &Session, client: &Client, id: &str, args: &Args) -> Result<u8> {
    let mut page = client.build_log(id, None).await?;
    let mut lines = std::mem::take(&mut page.lines);
    // The beginning comes in several pages.
    loop {
        let next = client.build_log(id, Some(&page.next)).await?;
        let over = next.lines.is_empty();
        let LogPage { lines: more, next, ended } = next;
        lines.extend(more);
        page = LogPage { lines: Vec::new(), next, ended };
        if over {
            break;
        }
    }
    let skipped = args.lines.map_or(0, |most| lines.len().saturating_sub(most as usize));
    print(&session.output, &lines[skipped..], args.json)?;
    let mut patience = Patience::default();
    let mut is_silent = lines.is_empty();
    while args.follow && !page.ended {
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
        match client.build_log(id, Some(&page.next)).await {
            Ok(next) => {
                print(&session.output, &next.lines, args.json)?;
                is_silent &= next.lines.is_empty();
                page = next;
                patience = Patience::default();
            }
            Err(error) => bear(session, &mut patience, error).await?,
        }
    }
    if is_silent { explain_silence(session, client, id).await } else { Ok(0) }
}

/// Says why a build wrote nothing: it did not begin, or not yet.
async fn explain_silence(session: &Session, client: &Client, id: &str) -> Result<u8> {
    let silent = client.deployment(id).await?;
    if !is_built(&silent) {
        session.output.talk(format!("{id} is a {}, which builds nothing", silent.kind));
        return Ok(0);
    }
    let Some(failure) = silent.failure.as_ref().filter(|failure| failure.stage != "build") else {
        session.output.talk(format!("the build of {id} has written nothing; status: {}", silent.status));
        return Ok(0);
    };
    let reason = human::headline(&failure.reason);
    let message = format!("{id} was not built: failed at {}: {reason}", failure.stage);
    let names = Names { project: silent.project.clone(), service: silent.service.clone() };
    let others = names.of(client).deployments(50).await?;
    let before = others.iter().find(|other| other.created_at < silent.created_at && was_built(other));
    Err(match before {
        Some(built) => {
            let hint = format!("the build before: trackbed logs --build --deployment {}", built.id);
            Refusal::with_hint(message, hint)
        }
        None => Refusal::with_hint(message, "there is no build before it"),
    })
}

/// Whether a deployment is one that builds: a restart or a rollback never does.
fn is_built(deployment: &Deployment) -> bool {
    matches!(deployment.kind.as_str(), "up" | "redeploy")
}

/// Whether a deployment came as far as its build.
fn was_built(deployment: &Deployment) -> bool {
    is_built(deployment)
        && (deployment.release.is_some()
            || deployment.failure.as_ref().is_some_and(|failure| failure.stage == "build"))
}

async fn bear(session: &Session, patience: &mut Patience, error: ClientError) -> Result<()> {
    match patience.lose(&error, || session.output.talk("lost the box; waiting for it …")) {
        Ok(()) => tokio::time::sleep(ASK_AGAIN_AFTER).await,
        Err(()) => return Err(error.into()),
    }
    Ok(())
}

fn print(output: &Output, lines: &[LogLine], json: bool) -> Result<(), ResultLost> {
    for line in lines {
        if json {
            output.json(line)?;
            continue;
        }
        let mut time = output.ink_result(Ink::Dim, &moment(line.at));
        if let Some(process) = &line.process {
            time = format!("{time} {}", output.ink_result(Ink::Bold, &human::plain(process)));
        }
        match line.stream.as_str() {
            "system" => output.result(format!(
                "{time} {}",
                output.ink_result(Ink::Odd, &format!("[trackbed] {}", line.text))
            ))?,
            // A pipe gets what the app wrote; a terminal would obey it.
            _ if output.result_is_seen => output.result(format!("{time} {}", human::coloured(&line.text)))?,
            _ => output.result(format!("{time} {}", line.text))?,
        }
    }
    Ok(())
}
