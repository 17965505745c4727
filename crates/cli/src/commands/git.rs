//! `trackbed git`: lets a repository push to a service.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::json;
use trackbed_api::GitAccess;
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, table};
use crate::names::parse_name;
use crate::session::{Refusal, Session};
use crate::start::ensure_box;
use crate::target::Target;

/// The user in an address with a token; the box looks at the token alone.
const USER: &str = "trackbed";

/// Deploy by `git push`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trackbed git connect            # once, in the repository\n  git push trackbed main\n\n  \
                        trackbed git token --for laptop # for a repository elsewhere\n  trackbed git show\n  \
                        trackbed git revoke gtk_0123456789abcdef\n\n\
                        A push is refused when its release does not become healthy: the branch stays what is live."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Give the repository here a remote with a token of its own
    Connect(Connect),
    /// Make a token for a repository elsewhere; it is shown once
    Token(Token),
    /// Show the address, the branch that is deployed, and who may push
    Show(Show),
    /// Choose the branch that is deployed [default: main or master, whichever is pushed first]
    Branch(Branch),
    /// Take a token back; it opens nothing from then on
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Connect {
    /// Name of the remote
    #[arg(long, value_name = "NAME", default_value = "trackbed", value_parser = parse_name)]
    remote: String,
    /// Whom or what the token is for
    #[arg(long = "for", value_name = "NAME", default_value = "git", value_parser = parse_name)]
    name: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Token {
    /// Whom or what it is for
    #[arg(long = "for", value_name = "NAME", default_value = "git", value_parser = parse_name)]
    name: String,
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
struct Branch {
    /// The branch, such as main
    name: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// Id of the token, as `trackbed git show` prints it
    token: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    match args.verb {
        Verb::Connect(args) => connect(session, &args).await,
        Verb::Token(args) => token(session, &args).await,
        Verb::Show(args) => show(session, &args).await,
        Verb::Branch(args) => branch(session, &args).await,
        Verb::Revoke(args) => revoke(session, &args).await,
    }
}

async fn connect(session: &Session, args: &Connect) -> Result<u8> {
    let folder = &session.folder;
    // Before anything is made on the box.
    let Some(config) = ask(folder, &["rev-parse", "--git-path", "config"])? else {
        let hint = "make one: git init && git add . && git commit";
        return Err(Refusal::with_hint(format!("{} is in no git repository", folder.display()), hint));
    };
    let key = format!("remote.{}.url", args.remote);
    let known = ask(folder, &["config", "--get", &key])?;
    let client = ensure_box(session).await?;
    let names = args.target.find_or_new(session, &client).await?;
    if let Some(known) = &known {
        let own = names.of(&client).git().await.ok().and_then(|access| access.url);
        if own.is_none_or(|own| without_token(known) != own) {
            let message =
                format!("this repository has a remote `{}` already: {}", args.remote, without_token(known));
            return Err(Refusal::with_hint(
                message,
                "choose another name: trackbed git connect --remote NAME",
            ));
        }
    }
    let made = names.of(&client).add_git_token(&args.name).await?;
    let verb = if known.is_some() { "set-url" } else { "add" };
    let url = with_token(&made.url, &made.token);
    if ask(folder, &["remote", verb, &args.remote, &url])?.is_none() {
        names.of(&client).remove_git_token(&made.id).await?;
        anyhow::bail!("git cannot write the remote `{}` into {config}; nothing was changed", args.remote);
    }
    keep_to_owner(&folder.join(&config))?;
    let branch = ask(folder, &["symbolic-ref", "--quiet", "--short", "HEAD"])?;
    let push = format!("git push {} {}", args.remote, branch.as_deref().unwrap_or("main"));
    if args.json {
        let object = json!({ "service": names.service, "project": names.project, "remote": args.remote,
                             "url": made.url, "token": made.id, "push": push });
        session.output.json_pretty(&object)?;
        return Ok(0);
    }
    session.output.talk(format!("remote `{}` pushes to {}; its token is in {config}", args.remote, made.url));
    session.output.result(push)?;
    Ok(0)
}

async fn token(session: &Session, args: &Token) -> Result<u8> {
    let client = ensure_box(session).await?;
    let names = args.target.find_or_new(session, &client).await?;
    let made = names.of(&client).add_git_token(&args.name).await?;
    if args.json {
        session.output.json_pretty(&made)?;
        return Ok(0);
    }
    session
        .output
        .talk(format!("git remote add trackbed {}", made.url.replacen("://", &format!("://{USER}@"), 1)));
    session.output.talk("git push trackbed main    # the password is this token, which is not shown again:");
    session.output.result(&made.token)?;
    Ok(0)
}

async fn show(session: &Session, args: &Show) -> Result<u8> {
    let client = session.client();
    let access = args.target.find(session, &client).await?.of(&client).git().await?;
    if args.json {
        session.output.json_pretty(&access)?;
        return Ok(0);
    }
    print(session, &access)
}

fn print(session: &Session, access: &GitAccess) -> Result<u8> {
    let output = &session.output;
    match &access.url {
        Some(url) => output.result(format!("address  {url}"))?,
        None => output.talk("pushes are not taken; begin: trackbed git connect"),
    }
    let branch = access.branch.as_deref().unwrap_or("main or master, whichever is pushed first");
    output.result(format!("branch   {branch}"))?;
    if access.tokens.is_empty() {
        return Ok(0);
    }
    let now = now_ms();
    let head = ["TOKEN", "FOR", "MADE", "USED"].map(str::to_owned);
    let rows = access.tokens.iter().map(|token| {
        let used = token.used_at.map_or_else(|| "never".to_owned(), |at| ago(now, at));
        [token.id.clone(), token.name.clone(), ago(now, token.created_at), used]
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) {
        output.result(line)?;
    }
    Ok(0)
}

async fn branch(session: &Session, args: &Branch) -> Result<u8> {
    let client = session.client();
    let names = args.target.find_exact(session, &client).await?;
    names.of(&client).set_git_branch(&args.name).await?;
    session.output.talk(format!("pushes to `{}` deploy {names} from now on", args.name));
    Ok(0)
}

async fn revoke(session: &Session, args: &Revoke) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    names.of(&client).remove_git_token(&args.token).await?;
    session.output.talk(format!("{} opens nothing any more", args.token));
    Ok(0)
}

/// Asks the user's own git about the repository here; none when it refuses.
fn ask(folder: &Path, arguments: &[&str]) -> Result<Option<String>> {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(arguments).stdin(Stdio::null());
    let answer = git.output().context("cannot start git; is it installed?")?;
    let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    Ok(answer.status.success().then_some(text))
}

/// A file with a token is its owner's alone.
fn keep_to_owner(config: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let change = std::fs::metadata(config).and_then(|found| {
        let mode = found.permissions().mode() & 0o700;
        std::fs::set_permissions(config, std::fs::Permissions::from_mode(mode))
    });
    change.with_context(|| format!("cannot make {} private", config.display()))
}

fn with_token(url: &str, token: &str) -> String {
    url.replacen("://", &format!("://{USER}:{token}@"), 1)
}

fn without_token(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_into_an_address_and_out_of_it() {
        let url = "http://127.0.0.1:8079/shop.git";
        assert_eq!(with_token(url, "tbg_1"), "http://trackbed:tbg_1@127.0.0.1:8079/shop.git");
        assert_eq!(without_token(&with_token(url, "tbg_1")), url);
        for other in ["git@example.com:me/x.git", "/srv/x@y.git", "https://example.com/a@b.git"] {
            assert_eq!(without_token(other), other);
        }
    }
}
