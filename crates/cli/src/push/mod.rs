//! The hook of a push: `git receive-pack` on the box runs this program as `pre-receive` when it has all objects and has
//! moved no branch yet. Everything printed here reaches the pusher as `remote:` lines; an exit code other than 0 refuses
//! the push as a whole. So a branch of the repository is always what was live last.
//!
//! The objects lie in quarantine meanwhile; git hands the way to them down through the environment (githooks(5)).

mod commit;
mod fetched;
pub(crate) mod refs;

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, Result};
use trackbed_api::DeploymentRequest;
use trackbed_client::Client;
use trackbed_stdx::program::FETCHED_ROLE;

use self::commit::Commit;
use self::refs::{Change, Plan};
use crate::deploy::{self, Follow};
use crate::output::Output;
use crate::session::{Refusal, Session};
use crate::target::Names;
use crate::upload;

/// The name under which git looks for the hook.
const HOOK: &str = "pre-receive";
/// Longest list of refs of one push.
const REFS_MAX_BYTES: u64 = 1 << 20;
/// The push option with which what is missing is deployed as it is.
const INCOMPLETE: &str = "incomplete";

/// Returns whether this process was started by git as the hook of a push to this box, or by the box for a commit that it
/// has fetched.
pub fn is_hook(program: &std::ffi::OsStr) -> bool {
    std::path::Path::new(program).file_name().is_some_and(|name| name == HOOK || name == FETCHED_ROLE)
        && std::env::var_os("TRACKBED_PUSH_SERVICE").is_some()
}

/// Decides a push and deploys it, or hands a fetched commit over. The exit code is git's answer.
pub fn run_hook() -> ExitCode {
    let output = Output::of_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (session, runtime) = match (Session::of_process(None, output), runtime) {
        (Ok(session), Ok(runtime)) => (session, runtime),
        (Err((error, output)), _) => {
            output.error(&error);
            return ExitCode::FAILURE;
        }
        (Ok(session), Err(error)) => {
            session.output.error(&anyhow::Error::new(error).context("cannot start the runtime"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let work = async {
            match std::env::var_os("TRACKBED_FETCHED_COMMIT") {
                None => Box::pin(push(&session)).await,
                Some(_) => Box::pin(fetched::hand_over(&session)).await,
            }
        };
        match work.await {
            Ok(code) => code,
            Err(error) => {
                session.output.error(&error);
                1
            }
        }
    });
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn push(session: &Session) -> Result<u8> {
    let names =
        Names { project: variable("TRACKBED_PUSH_PROJECT")?, service: variable("TRACKBED_PUSH_SERVICE")? };
    if !variable("TRACKBED_PUSH_IS_SECOND")?.is_empty() {
        let hint = format!("push again when it has ended, or end it: trackbed cancel {}", names.service);
        return Err(Refusal::with_hint(format!("another push to {names} is under way"), hint));
    }
    let accepts_incomplete = options()?;
    let mut told = String::new();
    std::io::stdin().take(REFS_MAX_BYTES).read_to_string(&mut told).context("cannot read what is pushed")?;
    if told.len() as u64 == REFS_MAX_BYTES {
        return Err(Refusal::with_hint(
            "so many branches and tags at once are too many",
            "push fewer of them",
        ));
    }
    let changes = refs::parse(&told).context("git said of the push what this program does not understand")?;

    let client = session.client();
    let branch = names.of(&client).git().await?.branch;
    let Plan { deploys, notes } = refs::decide(&changes, branch.as_deref(), &names.service)?;
    for note in notes {
        session.output.talk(note);
    }
    let Some(change) = deploys else { return Ok(0) };
    let code = deploy(session, &client, &names, change, accepts_incomplete).await;
    if !matches!(code, Ok(0)) {
        if let Err(error) = code {
            session.output.error(&error);
        }
        session.output.talk(format!("the push is refused: `{}` stays as it was", change.short()));
        return Ok(1);
    }
    if branch.is_none() {
        names.of(&client).set_git_branch(change.short()).await?;
        session.output.talk(format!("from now on `{}` is the branch that is deployed", change.short()));
    }
    Ok(0)
}

/// Reads what the box says through the environment.
fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("the box did not set {name}"))
}

async fn deploy(
    session: &Session,
    client: &Client,
    names: &Names,
    change: &Change,
    accepts_incomplete: bool,
) -> Result<u8> {
    let output = &session.output;
    let (branch, commit) = (change.short(), Commit(change.new.clone()));
    let seen = commit.clone();
    let (before, name) = (change.old.clone(), change.name.clone());
    let look = move || {
        Ok::<_, anyhow::Error>((commit::is_at(&name, &before)?, seen.follows(&before)?, seen.look()?))
    };
    let (is_still_there, follows, tree) =
        tokio::task::spawn_blocking(look).await.context("looking at the commit failed")??;
    if !is_still_there {
        let message = format!("`{branch}` has moved since this push began");
        return Err(Refusal::with_hint(message, "push again; with --force when yours shall win"));
    }
    if !follows {
        output.talk(format!("`{branch}` is rewritten: what was deployed before is no part of its history"));
    }
    for (complaint, mend) in tree.complaints() {
        if !accepts_incomplete {
            let hint = format!("{mend}; or deploy it as it is: git push -o {INCOMPLETE} …");
            return Err(Refusal::with_hint(complaint, hint));
        }
        output.talk(format!("! {complaint}"));
    }
    let archived = commit.clone();
    let (source, ()) = upload::send(session, client, None, None, move |to| archived.archive(to)).await?;
    if let Some(release) = names.of(client).live_source(&source).await?.release {
        output.talk(format!(
            "✓ already live: {release} of {names} has just these files and variables; `trackbed redeploy` starts it anew"
        ));
        return Ok(0);
    }
    let pushed = trackbed_api::Commit {
        via: "push".into(),
        id: commit.0.clone(),
        branch: branch.to_owned(),
        subject: commit.subject()?,
    };
    output.talk(format!("deploying {names} from {branch} at {}", commit.short()));
    output.talk(format!("it goes on when you leave; to end it: trackbed cancel {}", names.service));
    let request = DeploymentRequest { source: Some(source), commit: Some(pushed), ..names.deployment("up") };
    deploy::deploy(session, client, &request, Follow::default()).await
}

/// Reads the options of the push (`git push -o …`); returns whether it may be incomplete.
fn options() -> Result<bool> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let count = variable("GIT_PUSH_OPTION_COUNT").parse::<usize>().unwrap_or(0);
    for number in 0..count {
        let option = variable(&format!("GIT_PUSH_OPTION_{number}"));
        if option != INCOMPLETE {
            let option = crate::human::plain(&option);
            let hint = format!("the only one is `git push -o {INCOMPLETE}`");
            return Err(Refusal::with_hint(format!("there is no push option `{option}`"), hint));
        }
    }
    Ok(count > 0)
}
