//! The command line: what may be typed, and what it means. Help texts come from the doc comments.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::box_flags::BoxFlags;
use crate::check::{self, CheckCommand};
use crate::commands::{
    backup, cancel, completions, db, deployments, down, git, import, install, logs, open, plan, redeploy,
    restart, rollback, run, scale, source, status, up, variables, volume,
};
use crate::home;
use crate::quantities::{parse_recover_at, parse_size};
use crate::store_options::{self, parse_bandwidth, parse_option};

/// What the command line asks for.
pub enum Invocation {
    /// A command that talks to a box: give it to [`crate::execute`].
    Command(Command),
    /// Look at a folder: give it to [`crate::execute_check`].
    Check(CheckCommand),
    /// Be the box.
    Serve(ServeArgs),
    /// Become the box that its copies were made of.
    Recover(RecoverArgs),
}

/// What a box is recovered from.
pub struct RecoverArgs {
    /// Where it will be; absolute.
    pub data_dir: PathBuf,
    /// The address of the copies.
    pub url: String,
    /// Settings and credentials of their store.
    pub options: Vec<(String, String)>,
    /// The file that holds the key; none reads standard input.
    pub key: Option<PathBuf>,
    /// A cap in bytes a second.
    pub bandwidth_bytes: Option<u64>,
    /// Make the copies this box's.
    pub take_over: bool,
    /// Which copies are wanted; none takes the newest that are whole.
    pub at: Option<RecoverAt>,
    /// Only list the copies; [`crate::show_copies`] prints them.
    pub listing: Option<Listing>,
}

/// Which copies of a box are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverAt {
    /// Those with this number.
    Number(u64),
    /// The newest that are whole and no younger, in milliseconds since 1970 UTC.
    Time(i64),
}

/// How copies are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// As a table.
    Table,
    /// As JSON.
    Json,
}

/// How a box should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeArgs {
    /// Where it keeps its data; absolute.
    pub data_dir: PathBuf,
    /// The address that the edge listens on.
    pub listen: String,
    /// Root domain: services answer at `<service>.<domain>`.
    pub domain: String,
    /// Proxies in front of the box whose word about their clients is taken.
    pub trusted_proxies: Vec<String>,
    /// The isolation level to use; none takes the best there is.
    pub isolation: Option<String>,
    /// The systemd unit that runs the edge; none means that the box starts it.
    pub edge_unit: Option<String>,
    /// Where pushes of git are taken; none means on loopback, as soon as somebody may push.
    pub git_listen: Option<String>,
    /// How many builds may run at once.
    pub builds: usize,
    /// Most memory of one build, in bytes; none is the builds' share of the box.
    pub build_memory: Option<u64>,
}

/// A command and the box it is for.
pub struct Command {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) verb: Verb,
}

/// Reads the command line of this process. Help, the version and mistakes are printed here and end the process.
pub fn parse() -> Invocation {
    match parse_from(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => error.exit(),
    }
}

/// Reads a command line.
pub(crate) fn parse_from(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Invocation, clap::Error> {
    let line = CommandLine::try_parse_from(arguments)?;
    match line.verb {
        Typed::Serve(serve) => {
            let data_dir = home::data_dir(line.data_dir).map_err(|error| {
                clap::Error::raw(ErrorKind::MissingRequiredArgument, format!("{error}\n"))
            })?;
            let Serve { listen, flags, isolation, edge_unit } = serve;
            let BoxFlags { domain, trusted_proxies, git_listen, builds, build_memory } = flags;
            Ok(Invocation::Serve(ServeArgs {
                data_dir,
                listen,
                domain,
                trusted_proxies,
                isolation,
                edge_unit,
                git_listen,
                builds: usize::from(builds),
                build_memory,
            }))
        }
        Typed::Check(args) => Ok(Invocation::Check(CheckCommand { data_dir: line.data_dir, args })),
        Typed::Recover(recover) => {
            let data_dir = home::data_dir(line.data_dir).map_err(|error| {
                clap::Error::raw(ErrorKind::MissingRequiredArgument, format!("{error}\n"))
            })?;
            let Recover { url, options, key, bandwidth, take_over, at, list, json } = recover;
            let options = store_options::all(&url, &options, |name| std::env::var(name).ok());
            let key = (key.as_os_str() != "-").then_some(key);
            let listing = list.then_some(if json { Listing::Json } else { Listing::Table });
            let args = RecoverArgs {
                data_dir,
                url,
                options,
                key,
                bandwidth_bytes: bandwidth,
                take_over,
                at,
                listing,
            };
            Ok(Invocation::Recover(args))
        }
        Typed::Other(verb) => Ok(Invocation::Command(Command { data_dir: line.data_dir, verb })),
    }
}

/// Deploy backends to a box of your own: push a folder, get a URL.
#[derive(Debug, Parser)]
#[command(
    name = "trackbed",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start here:\n  cd my-app && trackbed up\n\nExit codes: 0 done, 1 refused or failed, 2 wrong usage."
)]
pub(crate) struct CommandLine {
    /// The box to use, by its data folder [env: TRACKBED_DATA_DIR] [default: /var/lib/trackbed for root,
    /// else ~/.local/share/trackbed]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Typed,
}

#[derive(Debug, Subcommand)]
enum Typed {
    Check(check::Args),
    Serve(Serve),
    Recover(Recover),
    #[command(flatten)]
    Other(Verb),
}

/// Run the box in the foreground: builds, runs and serves what is deployed to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed serve --listen 0.0.0.0:80 --domain apps.example.com")]
struct Serve {
    /// Address that services are reached at; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    listen: String,
    #[command(flatten)]
    flags: BoxFlags,
    /// How well services are kept apart (full, userns, landlock, plain) [default: the best this machine can do]
    #[arg(long, value_name = "LEVEL", value_parser = ["full", "userns", "landlock", "plain"], hide_possible_values = true)]
    isolation: Option<String>,
    /// The systemd unit that runs the edge, where one does (`trackbed install`)
    #[arg(long, value_name = "UNIT", hide = true)]
    edge_unit: Option<String>,
}

/// Bring a whole box back on an empty machine, from the copies that `trackbed backup` made
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  trackbed recover 's3://bucket/box?region=eu-central-1' --key key.txt --take-over\n  \
                  trackbed serve\n\nInterrupted? The same command goes on.\nWithout --at it takes the newest copies \
                  that are whole, and says what it passes over."
)]
struct Recover {
    /// Where the copies are, as in `trackbed backup target set`
    url: String,
    /// A setting of the store, such as access_key_id=… (may be given several times)
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = parse_option)]
    options: Vec<(String, String)>,
    /// The file that holds the key, `-` for standard input
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Use at most so much of the line, such as 10MB/s
    #[arg(long, value_name = "RATE", value_parser = parse_bandwidth)]
    bandwidth: Option<u64>,
    /// Make the copies this box's: the box that made them refuses to go on, should it still live
    #[arg(long)]
    take_over: bool,
    /// Take earlier copies: a number that --list shows (what is left of them), or a time (the newest whole ones before it)
    #[arg(long, value_name = "NUMBER|TIME", value_parser = parse_recover_at)]
    at: Option<RecoverAt>,
    /// Only show which copies there are, and whether they are whole
    #[arg(long, conflicts_with_all = ["take_over", "at"])]
    list: bool,
    /// With --list: print JSON
    #[arg(long, requires = "list")]
    json: bool,
}

/// An address or a range of them. The box reads it in earnest; here only what could never be one is refused.
pub(crate) fn parse_network(text: &str) -> Result<String, String> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "0"));
    match (address.parse::<std::net::IpAddr>(), prefix.parse::<u8>()) {
        (Ok(address), Ok(prefix)) if prefix <= if address.is_ipv4() { 32 } else { 128 } => {
            Ok(text.to_owned())
        }
        _ => Err("an address or a range is wanted, such as 127.0.0.1 or 10.0.0.0/8".to_owned()),
    }
}

/// Least memory that a build can be given: below this no installer runs.
const BUILD_MEMORY_MIN_BYTES: u64 = 128 << 20;

pub(crate) fn parse_build_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes < BUILD_MEMORY_MIN_BYTES {
        return Err("no build comes to its end with so little; give it 128MiB or more".to_owned());
    }
    Ok(bytes)
}

pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    match text.parse::<SocketAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("an address and a port are wanted, such as 127.0.0.1:8080 or [::]:80".to_owned()),
    }
}

/// Checks a host name as this program offers it. The box has the last word.
pub(crate) fn parse_domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte == b'-' || byte == b'_' || byte.is_ascii_alphanumeric())
    };
    if text.len() <= 253 && text.trim_end_matches('.').split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err("a host name without a port is wanted, such as apps.example.com".to_owned())
}

/// The commands that talk to a box.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Up(up::Args),
    Status(status::Args),
    Logs(logs::Args),
    #[command(visible_alias = "variable", alias = "vars")]
    Variables(variables::Args),
    Scale(scale::Args),
    #[command(alias = "volumes")]
    Volume(volume::Args),
    Backup(backup::Args),
    Git(git::Args),
    Source(source::Args),
    #[command(visible_alias = "database", alias = "databases")]
    Db(db::Args),
    #[command(alias = "deployment")]
    Deployments(deployments::Args),
    Rollback(rollback::Args),
    Redeploy(redeploy::Args),
    Restart(restart::Args),
    Cancel(cancel::Args),
    Down(down::Args),
    Run(run::Args),
    Plan(plan::Args),
    Import(import::Args),
    Open(open::Args),
    Install(install::Args),
    #[command(alias = "completion")]
    Completions(completions::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Invocation, clap::Error> {
        parse_from(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serve_has_its_defaults() {
        let Ok(Invocation::Serve(serve)) = parsed("trackbed serve --data-dir /data/box") else {
            panic!("not serve")
        };
        let listen = "127.0.0.1:8080".to_owned();
        let (data_dir, domain) = (PathBuf::from("/data/box"), "localhost".to_owned());
        assert_eq!(
            serve,
            ServeArgs {
                data_dir,
                listen,
                domain,
                trusted_proxies: Vec::new(),
                isolation: None,
                edge_unit: None,
                git_listen: None,
                builds: 1,
                build_memory: None
            }
        );
    }

    #[test]
    fn the_data_folder_may_stand_before_or_after_the_verb() {
        for line in ["trackbed --data-dir /d status", "trackbed status --data-dir /d"] {
            let Ok(Invocation::Command(command)) = parsed(line) else { panic!("not a command") };
            assert_eq!(command.data_dir.as_deref(), Some(std::path::Path::new("/d")));
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in [
            "trackbed nonsense",
            "trackbed rollback x",
            "trackbed cancel api --service web",
            "trackbed cancel api --deployment dep_1",
            "trackbed up --service Bad_Name",
            "trackbed run",
            "trackbed rollback --dry-run",
            "trackbed volume restore data",
            "trackbed volume restore data --at yesterday",
            "trackbed volume restore data --at 2999-01-01T00:00:00Z",
            "trackbed volume restore data --at proven --mount /x",
            "trackbed volume limit data 5apples",
            "trackbed volume schedule data fortnightly",
            "trackbed volume verify data vol_1",
            "trackbed volume get data",
            "trackbed db --write",
            "trackbed db -c",
            "trackbed up --health-timeout abc",
            "trackbed up --health-timeout 0",
            "trackbed serve --listen 8080",
            "trackbed serve --domain a.b:80",
            "trackbed serve --domain a..b",
            "trackbed serve --isolation best",
            "trackbed serve --builds 0",
            "trackbed serve --build-memory 10MB",
        ] {
            assert_eq!(parsed(line).err().map(|error| error.exit_code()), Some(2), "{line}");
        }
    }
}
