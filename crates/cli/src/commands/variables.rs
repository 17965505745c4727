//! `trackbed variables`: what the app finds in its environment. Values are printed only when asked for.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use trackbed_api::VariableChange;
use trackbed_client::Client;
use trackbed_stdx::clock::now_ms;

use crate::dotenv;
use crate::human::{ago, plain, table};
use crate::session::{Refusal, Session};
use crate::target::{Names, Target};

/// Longest input in bytes: more than any environment may hold (execve(2) takes 128 KiB a variable).
const INPUT_MAX_BYTES: u64 = 16 << 20;

/// List and change the variables of a service
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  trackbed variables\n  trackbed variables set LOG_LEVEL=debug 'GREETING=hello world'\n  \
                  trackbed variables import .env\n  printf %s \"$KEY\" | trackbed variables set API_KEY --stdin\n\n\
                  A change takes effect with the next deploy: `trackbed redeploy`."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the variables, values hidden
    List(List),
    /// Set variables: KEY=VALUE …, or KEY --stdin
    Set(Set),
    /// Remove variables
    #[command(alias = "delete")]
    Unset(Unset),
    /// Set all variables of a .env file; `-` reads standard input
    Import(Import),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Print the values, too
    #[arg(long)]
    show: bool,
    /// Print a JSON list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Set {
    /// KEY=VALUE, taken byte for byte
    #[arg(required = true, value_name = "KEY=VALUE")]
    pairs: Vec<String>,
    /// Read the value of the one KEY from standard input, to its last byte
    #[arg(long)]
    stdin: bool,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
struct Unset {
    /// Names of variables
    #[arg(required = true, value_name = "KEY")]
    names: Vec<String>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
struct Import {
    /// A .env file, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Change variables that the whole project shares: `${{shared.KEY}}`
    #[arg(long)]
    shared: bool,
    /// Print the variables afterwards as a JSON list, without values
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    let (change, set, unset) = match args.verb {
        None => return list(session, &args.list).await,
        Some(Verb::List(args)) => return list(session, &args).await,
        Some(Verb::Set(args)) => (args.change, pairs(&args.pairs, args.stdin)?, Vec::new()),
        Some(Verb::Unset(args)) => (args.change, BTreeMap::new(), args.names),
        Some(Verb::Import(args)) => (args.change, import(session, &args.file)?, Vec::new()),
    };
    apply(session, &change, set, unset).await
}

fn pairs(typed: &[String], stdin: bool) -> Result<BTreeMap<String, String>> {
    if stdin {
        let [name] = typed else {
            return Err(Refusal::usage("--stdin sets one variable: trackbed variables set KEY --stdin"));
        };
        checked_name(name)?;
        return Ok(BTreeMap::from([(name.clone(), read(std::io::stdin(), "standard input")?)]));
    }
    let pair = |typed: &String| {
        let Some((name, value)) = typed.split_once('=') else {
            return Err(Refusal::usage(format!("`{}` is not KEY=VALUE", plain(typed))));
        };
        checked_name(name)?;
        Ok((name.to_owned(), value.to_owned()))
    };
    typed.iter().map(pair).collect()
}

fn checked_name(name: &str) -> Result<()> {
    if dotenv::is_name(name) {
        return Ok(());
    }
    let wanted = "letters, digits and `_`, not starting with a digit";
    Err(Refusal::usage(format!("`{}` is no name of a variable ({wanted})", plain(name))))
}

fn import(session: &Session, file: &std::path::Path) -> Result<BTreeMap<String, String>> {
    let (text, shown) = if file == std::path::Path::new("-") {
        (read(std::io::stdin(), "standard input")?, "standard input".to_owned())
    } else {
        let shown = file.display().to_string();
        let opened =
            std::fs::File::open(session.folder.join(file)).with_context(|| format!("cannot read {shown}"))?;
        (read(opened, &shown)?, shown)
    };
    let pairs = dotenv::parse(&text).map_err(|malformed| {
        Refusal::with_hint(
            format!("cannot read {shown}: {malformed}; nothing was set"),
            "one `KEY=value` a line",
        )
    })?;
    if pairs.is_empty() {
        return Err(Refusal::with_hint(format!("{shown} sets no variable"), "one `KEY=value` a line"));
    }
    Ok(pairs.into_iter().collect())
}

/// Reads text to its last byte.
fn read(from: impl Read, shown: &str) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(INPUT_MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
    if bytes.len() as u64 > INPUT_MAX_BYTES {
        anyhow::bail!("{shown} holds more than 16 MiB");
    }
    // The error of `from_utf8` would hold the bytes.
    String::from_utf8(bytes)
        .map_err(|error| anyhow::anyhow!("{shown} is no UTF-8 text: {}", error.utf8_error()))
}

async fn apply(
    session: &Session,
    how: &Change,
    set: BTreeMap<String, String>,
    unset: Vec<String>,
) -> Result<u8> {
    let client = session.client();
    let names = if unset.is_empty() {
        how.target.find_or_new(session, &client).await?
    } else {
        let names = how.target.find_exact(session, &client).await?;
        refuse_unknown(&client, &names, how.shared, &unset).await?;
        names
    };
    let done = match (set.keys().cloned().collect::<Vec<_>>(), unset.as_slice()) {
        (set, []) => format!("set {}", set.join(", ")),
        (_, unset) => format!("removed {}", unset.join(", ")),
    };
    let request = VariableChange { set, unset, shared: how.shared };
    let mut variables = names.of(&client).change_variables(&request).await?;
    let whose = whose(&names, how.shared);
    session.output.talk(format!("{done} {whose}; takes effect with the next deploy: trackbed redeploy"));
    if how.json {
        variables.iter_mut().for_each(|variable| variable.value = None);
        session.output.json_pretty(&variables)?;
    }
    Ok(0)
}

fn whose(names: &Names, shared: bool) -> String {
    if shared { format!("for all of project {}", names.project) } else { format!("of {names}") }
}

/// Refuses to remove what is not there: it is a typo, and what was meant stays.
async fn refuse_unknown(client: &Client, names: &Names, shared: bool, unset: &[String]) -> Result<()> {
    let variables = names.of(client).variables(false).await?;
    let has = |name: &String, shared: bool| {
        variables.iter().any(|variable| variable.name == *name && variable.shared == shared)
    };
    let unknown: Vec<_> = unset.iter().filter(|name| !has(name, shared)).collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    let listed: Vec<_> = unknown.iter().map(|name| plain(name)).collect();
    let message =
        format!("there is no variable {} {}; nothing was removed", listed.join(", "), whose(names, shared));
    let hint = match (has(first, !shared), shared) {
        (true, false) => format!("{} is shared by project {}: add --shared", plain(first), names.project),
        (true, true) => format!("{} is one of {names} alone: leave out --shared", plain(first)),
        (false, _) => "`trackbed variables` lists what there is".to_owned(),
    };
    Err(Refusal::with_hint(message, hint))
}

async fn list(session: &Session, args: &List) -> Result<u8> {
    let client = session.client();
    let names: Names = args.target.find(session, &client).await?;
    let mut variables = names.of(&client).variables(args.show).await?;
    if !args.show {
        variables.iter_mut().for_each(|variable| variable.value = None);
    }
    if args.json {
        session.output.json_pretty(&variables)?;
        return Ok(0);
    }
    if variables.is_empty() {
        session.output.talk(format!("{names} has no variables; set one: trackbed variables set KEY=VALUE"));
        return Ok(0);
    }
    let now = now_ms();
    let head = ["NAME", "VALUE", "SHARED", "CHANGED"].map(str::to_owned);
    let row = |variable: &trackbed_api::Variable| {
        let value = variable.value.as_deref().map_or_else(|| "••••".to_owned(), plain);
        let shared = if variable.shared { "project" } else { "" };
        [variable.name.clone(), value, shared.to_owned(), ago(now, variable.updated_at)]
    };
    let rows: Vec<_> = std::iter::once(head).chain(variables.iter().map(row)).collect();
    for line in table(&rows) {
        session.output.result(line)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_taken_byte_for_byte() {
        let typed = ["A= b=c ".to_owned(), "B=".to_owned(), "C=\"x\"\n".to_owned()];
        let pairs = pairs(&typed, false).unwrap();
        assert_eq!((pairs["A"].as_str(), pairs["B"].as_str(), pairs["C"].as_str()), (" b=c ", "", "\"x\"\n"));
    }

    #[test]
    fn what_is_no_pair_is_a_usage_error() {
        for typed in ["A", "1A=b", "=b", "A B=c"] {
            let error = pairs(&[typed.to_owned()], false).unwrap_err();
            assert!(error.downcast_ref::<Refusal>().unwrap().is_usage, "{typed}");
        }
        assert!(pairs(&["A".to_owned(), "B".to_owned()], true).is_err());
    }

    #[test]
    fn input_is_kept_to_its_last_byte_and_must_be_text() {
        assert_eq!(read("a\r\nb\n".as_bytes(), "x").unwrap(), "a\r\nb\n");
        let error = read([b'o', b'k', 0xff].as_slice(), "x").unwrap_err().to_string();
        assert!(error.contains("no UTF-8") && !error.contains("ok"), "{error}");
    }
}
