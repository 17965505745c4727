//! `trackbed source`: lets a service follow a repository at a forge.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trackbed_api::{Delivery, Remote, RemoteRequest};
use trackbed_client::Client;
use trackbed_stdx::clock::now_ms;

use crate::deploy::{self, Follow};
use crate::human::{ago, headline, plain, table};
use crate::session::{Refusal, Session};
use crate::start::ensure_box;
use crate::target::{Names, Target};

/// How often to look whether a commit was fetched.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Longest token in bytes.
const TOKEN_MAX_BYTES: u64 = 4096;
/// How many characters of a commit's name people need.
const SHORT: usize = 10;

/// Deploy what is pushed to GitHub, GitLab, Gitea or Forgejo
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed source connect git@github.com:me/shop.git --service shop\n  \
                        trackbed source connect https://codeberg.org/me/shop.git --branch trunk\n  \
                        printf %s \"$TOKEN\" | trackbed source connect git@github.com:me/shop.git --status-token -\n  \
                        trackbed source deploy     # now, without a push\n  trackbed source show\n\n\
                        The box fetches by git: for an ssh address with a deploy key of its own, which `connect` prints.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Follow a repository; prints what its forge needs to know
    Connect(Connect),
    /// Show what is followed, and what came of the last pushes
    Show(Show),
    /// Fetch and deploy what the branch is at
    Deploy(Deploy),
    /// Follow nothing; deploy key and secrets are forgotten
    Disconnect(Disconnect),
}

#[derive(Debug, clap::Args)]
struct Connect {
    /// https://HOST/OWNER/NAME.git, git@HOST:OWNER/NAME.git or ssh://…
    url: String,
    /// The branch that is deployed [default: the one before, else main]
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// What kind of forge it is [default: by the host's name]
    #[arg(long, value_name = "KIND", value_parser = ["github", "gitlab", "gitea", "forgejo"])]
    forge: Option<String>,
    /// A file with a token that may set the status of commits, `-` for standard input
    #[arg(long, value_name = "FILE")]
    status_token: Option<PathBuf>,
    /// A file with the secret that the forge made for the webhook, such as GitLab's signing token, `-` for standard input
    #[arg(long, value_name = "FILE")]
    webhook_secret: Option<PathBuf>,
    /// Where the forge's API is, when it is not in its usual place
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Deploy {
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Disconnect {
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    match args.verb {
        Verb::Connect(args) => connect(session, args).await,
        Verb::Show(args) => show(session, &args).await,
        Verb::Deploy(args) => deploy_now(session, &args).await,
        Verb::Disconnect(args) => disconnect(session, &args).await,
    }
}

async fn connect(session: &Session, args: Connect) -> Result<u8> {
    let files = [&args.status_token, &args.webhook_secret];
    let from_stdin = files.iter().filter(|file| file.as_ref().is_some_and(|path| path.as_os_str() == "-"));
    ensure!(from_stdin.count() < 2, "standard input holds one secret; put the other into a file");
    let [status_token, hook_secret] =
        files.map(|file| file.as_ref().map(|path| token(session, path)).transpose());
    let (status_token, hook_secret) = (status_token?, hook_secret?);
    let is_given = hook_secret.is_some();
    let client = ensure_box(session).await?;
    let names = args.target.find_or_new(session, &client).await?;
    let request = RemoteRequest {
        url: args.url,
        branch: args.branch,
        forge: args.forge,
        api: args.api,
        status_token,
        hook_secret,
    };
    let connected = names.of(&client).connect_remote(&request).await?;
    if args.json {
        session.output.json_pretty(&connected)?;
        return Ok(0);
    }
    let (output, remote) = (&session.output, &connected.remote);
    output.talk(format!("{names} follows `{}` of {}", remote.branch, remote.url));
    let secret = if is_given { "the secret that you gave" } else { "secret" };
    let webhook =
        format!("add a webhook for pushes, content type application/json, with this address and {secret}:");
    if let Some(key) = &remote.deploy_key {
        output.talk("1. add this deploy key to the repository; it needs to read only:");
        output.result(key)?;
        output.talk(format!("2. {webhook}"));
    } else {
        output.talk(webhook);
    }
    output.result(remote.hook_url.as_deref().unwrap_or("(the box does not listen)"))?;
    if !is_given {
        output.result(&connected.secret)?;
    }
    if remote.hook_url.as_ref().is_some_and(|url| url.contains("//127.") || url.contains("//[::1]")) {
        output.talk(
            "the box listens on loopback: put a TLS terminator in front of that address, and give the forge its name",
        );
    }
    output.talk(format!("deploy what is there now: trackbed source deploy --service {}", names.service));
    Ok(0)
}

/// Reads a token; it never stands on a command line.
fn token(session: &Session, path: &Path) -> Result<String> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        let read = std::io::stdin().take(TOKEN_MAX_BYTES).read_to_string(&mut text);
        read.context("cannot read the token from standard input")?;
    } else {
        let path = session.below(path);
        let read =
            std::fs::File::open(&path).and_then(|file| file.take(TOKEN_MAX_BYTES).read_to_string(&mut text));
        read.with_context(|| format!("cannot read the token from {}", path.display()))?;
    }
    let token = text.trim();
    let is_one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(is_one, "there is no token: it is one word of ASCII");
    Ok(token.to_owned())
}

async fn show(session: &Session, args: &Show) -> Result<u8> {
    let client = session.client();
    let remote = args.target.find(session, &client).await?.of(&client).remote().await?;
    if args.json {
        session.output.json_pretty(&remote)?;
        return Ok(0);
    }
    print(session, &remote)
}

fn print(session: &Session, remote: &Remote) -> Result<u8> {
    let output = &session.output;
    output.result(format!("repository  {}", remote.url))?;
    output.result(format!("branch      {}", remote.branch))?;
    output.result(format!("webhook     {}", remote.hook_url.as_deref().unwrap_or("-")))?;
    if let Some(key) = &remote.deploy_key {
        output.result(format!("deploy key  {key}"))?;
    }
    let forge = remote.forge.as_deref().unwrap_or("its forge");
    let status = if remote.has_status_token { "told to" } else { "not told to" };
    output.result(format!("status      {status} {forge}"))?;
    if remote.deliveries.is_empty() {
        output.talk("nothing was pushed yet; deploy what is there: trackbed source deploy");
        return Ok(0);
    }
    let now = now_ms();
    let head = ["WHEN", "COMMIT", "STATE", "DEPLOYMENT", ""].map(str::to_owned);
    let rows = remote.deliveries.iter().map(|delivery| {
        let commit =
            delivery.commit.as_ref().map_or("-", |commit| commit.id.get(..SHORT).unwrap_or(&commit.id));
        let deployment = delivery.deployment.clone().unwrap_or_else(|| "-".to_owned());
        let subject = delivery.commit.as_ref().map_or("", |commit| commit.subject.as_str());
        let words = if delivery.detail.is_empty() { subject } else { &delivery.detail };
        [ago(now, delivery.at), commit.to_owned(), delivery.state.clone(), deployment, headline(words)]
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) {
        output.result(line)?;
    }
    Ok(0)
}

async fn deploy_now(session: &Session, args: &Deploy) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let asked = names.of(&client).deploy_remote().await?;
    if args.follow.detach {
        match args.follow.json {
            true => session.output.json(&asked)?,
            false => session.output.talk("it is fetched and deployed; see how it goes: trackbed source show"),
        }
        return Ok(0);
    }
    session.output.status("fetching …");
    let fetched = fetched(&client, &names, asked.number).await;
    session.output.wipe_status();
    let fetched = fetched?;
    if let Some(id) = &fetched.deployment {
        let commit =
            fetched.commit.as_ref().and_then(|commit| commit.id.get(..SHORT)).unwrap_or("what is there");
        session.output.talk(format!("deploying {names} at {commit}"));
        let deployment = client.deployment(id).await;
        return deploy::see_through(session, &client, &names, args.follow, deployment).await;
    }
    if fetched.state == "already live" {
        match args.follow.json {
            true => session.output.json(&fetched)?,
            false => session.output.talk(format!("✓ already live: {}", fetched.detail)),
        }
        return Ok(0);
    }
    Err(Refusal::with_hint(
        format!("{}: {}", fetched.state, plain(&fetched.detail)),
        format!("what is set up: trackbed source show --service {}", names.service),
    ))
}

/// Waits until a delivery has a deployment or its end. The box bounds how long that may take.
async fn fetched(client: &Client, names: &Names, number: i64) -> Result<Delivery> {
    loop {
        let deliveries = names.of(client).remote().await?.deliveries;
        match deliveries.into_iter().find(|delivery| delivery.number == number) {
            Some(delivery) if delivery.deployment.is_some() || delivery.state != "fetching" => {
                return Ok(delivery);
            }
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            None => anyhow::bail!("the box has forgotten this wish; see trackbed source show"),
        }
    }
}

async fn disconnect(session: &Session, args: &Disconnect) -> Result<u8> {
    let client = session.client();
    let names = args.target.find_exact(session, &client).await?;
    let was = names.of(&client).disconnect_remote().await?;
    session.output.talk(format!("{names} follows {} no more; it serves on as it is", was.url));
    if was.deploy_key.is_some() {
        session.output.talk("remove its deploy key and its webhook at the forge");
    }
    Ok(0)
}
