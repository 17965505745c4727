//! One file per command: its flags, what it asks the box, and how it prints the answer.

pub(crate) mod backup;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod db;
pub(crate) mod deployments;
pub(crate) mod down;
pub(crate) mod git;
pub(crate) mod import;
mod import_railway;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod open;
pub(crate) mod plan;
pub(crate) mod redeploy;
pub(crate) mod restart;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod source;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod variables;
pub(crate) mod volume;

use crate::args::Verb;
use crate::output::ResultLost;
use crate::session::{Refusal, Session};

/// Runs a command and returns the exit code; what went wrong has been said by then.
pub(crate) async fn run(session: &Session, verb: Verb) -> u8 {
    let done = match verb {
        Verb::Up(args) => Box::pin(up::run(session, &args)).await,
        Verb::Status(args) => status::run(session, &args).await,
        Verb::Logs(args) => logs::run(session, &args).await,
        Verb::Variables(args) => variables::run(session, args).await,
        Verb::Scale(args) => scale::run(session, &args).await,
        Verb::Volume(args) => Box::pin(volume::run(session, args)).await,
        Verb::Db(args) => db::run(session, args).await,
        Verb::Source(args) => Box::pin(source::run(session, args)).await,
        Verb::Git(args) => Box::pin(git::run(session, args)).await,
        Verb::Backup(args) => Box::pin(backup::run(session, args)).await,
        Verb::Deployments(args) => deployments::run(session, &args).await,
        Verb::Rollback(args) => Box::pin(rollback::run(session, &args)).await,
        Verb::Redeploy(args) => Box::pin(redeploy::run(session, &args)).await,
        Verb::Restart(args) => Box::pin(restart::run(session, &args)).await,
        Verb::Cancel(args) => cancel::run(session, &args).await,
        Verb::Down(args) => down::run(session, &args).await,
        Verb::Run(args) => run::run(session, args).await,
        Verb::Import(args) => Box::pin(import::run(session, args)).await,
        Verb::Plan(args) => Box::pin(plan::run(session, &args)).await,
        Verb::Open(args) => open::run(session, &args).await,
        Verb::Install(args) => install::run(session, &args).await,
        Verb::Completions(args) => completions::run(session, &args),
    };
    match done {
        Ok(code) => code,
        // `trackbed logs | head` is no failure.
        Err(error) if error.downcast_ref::<ResultLost>().is_some_and(ResultLost::is_reader_gone) => 0,
        Err(error) => {
            session.output.error(&error);
            if error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.is_usage) { 2 } else { 1 }
        }
    }
}
