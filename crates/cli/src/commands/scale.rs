//! `trackbed scale`: how many copies of each process of a service run.

use std::collections::BTreeMap;

use anyhow::Result;
use trackbed_api::{ScaleChange, ScaledProcess};

use crate::human::{plain, table};
use crate::session::{Refusal, Session};
use crate::target::Target;

/// Takes back what was set, so that the source decides again.
const DEFAULT: &str = "default";

/// Show or change how many copies of each process run
///
/// The processes come from the Procfile, from [processes] in trackbed.toml or from fly.toml. All of them run in one
/// instance and share its limits; the one that serves (`web`) runs once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trackbed scale\n  trackbed scale worker=2 beat=0\n  trackbed scale worker=default\n\n\
                  A change takes effect with the next deploy: `trackbed redeploy`."
)]
pub(crate) struct Args {
    /// PROCESS=COUNT, 0 to 16; PROCESS=default lets the source decide again
    #[arg(value_name = "PROCESS=COUNT")]
    counts: Vec<String>,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let set = parse(&args.counts)?;
    let client = session.client();
    let output = &session.output;
    if set.is_empty() {
        let names = args.target.find(session, &client).await?;
        let processes = names.of(&client).scale().await?;
        if args.json {
            output.json_pretty(&processes)?;
        } else if processes.is_empty() {
            output.talk(format!("{names} was never live, and nothing is set; deploy it: trackbed up"));
        } else {
            for line in table(&rows(&processes)) {
                output.result(line)?;
            }
        }
        return Ok(0);
    }
    let names = args.target.find_or_new(session, &client).await?;
    let done: Vec<String> = set
        .iter()
        .map(|(name, count)| {
            format!("{name}={}", count.map_or(DEFAULT.to_owned(), |count| count.to_string()))
        })
        .collect();
    let processes = names.of(&client).change_scale(&ScaleChange { set }).await?;
    let done = done.join(", ");
    output.talk(format!("set {done} of {names}; takes effect with the next deploy: trackbed redeploy"));
    if args.json {
        output.json_pretty(&processes)?;
    }
    Ok(0)
}

fn parse(typed: &[String]) -> Result<BTreeMap<String, Option<u32>>> {
    let pair = |typed: &String| {
        let count = |text: &str| match text {
            DEFAULT => Some(None),
            text => text.parse().ok().map(Some),
        };
        match typed.split_once('=').map(|(name, text)| (name, count(text))) {
            Some((name, Some(count))) if !name.is_empty() => Ok((name.to_owned(), count)),
            _ => Err(Refusal::usage(format!("`{}` is not PROCESS=COUNT, such as worker=2", plain(typed)))),
        }
    };
    typed.iter().map(pair).collect()
}

fn rows(processes: &[ScaledProcess]) -> Vec<[String; 4]> {
    let row = |process: &ScaledProcess| {
        let next = match process.wanted {
            Some(wanted) if wanted != process.count => wanted.to_string(),
            _ => String::new(),
        };
        let command = process.command.as_deref().unwrap_or("(not in the live release)");
        [process.name.clone(), process.count.to_string(), next, plain(command)]
    };
    let head = ["PROCESS", "RUNS", "NEXT DEPLOY", "COMMAND"].map(str::to_owned);
    std::iter::once(head).chain(processes.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &[&str]) -> Result<BTreeMap<String, Option<u32>>> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn counts_are_read_and_what_is_none_is_a_usage_error() {
        let set = typed(&["worker=2", "beat=0", "mail=default"]).unwrap();
        assert_eq!((set["worker"], set["beat"], set["mail"]), (Some(2), Some(0), None));
        for word in ["worker", "worker=", "=2", "worker=-1", "worker=two", "worker 2"] {
            let error = typed(&[word]).unwrap_err();
            assert!(error.downcast_ref::<Refusal>().unwrap().is_usage, "{word}");
        }
    }

    #[test]
    fn what_the_next_deploy_changes_is_told() {
        let process = |name: &str, count, wanted| ScaledProcess {
            name: name.into(),
            command: Some(format!("run {name}")),
            count,
            wanted,
        };
        let rows =
            rows(&[process("web", 1, None), process("worker", 1, Some(2)), process("beat", 0, Some(0))]);
        assert_eq!(rows[1], ["web", "1", "", "run web"]);
        assert_eq!(rows[2], ["worker", "1", "2", "run worker"]);
        assert_eq!(rows[3], ["beat", "0", "", "run beat"]);
    }
}
