//! What deploys a service from a forge: the repository that it follows, and the deliveries that its webhook brings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::git::Commit;
use crate::ids::ParseError;
use crate::{Branch, DeploymentId, Secret, ServiceId, Timestamp};

/// The address of a repository: `https://…`, `http://…`, `ssh://…` or `user@host:path`. It becomes an argument of git, so
/// it holds nothing that git, ssh or a shell could take for something else, and no password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryUrl(String);

/// Longest address of a repository in bytes.
pub const URL_MAX_BYTES: usize = 1000;

const WANTED: &str = "the address of a repository that can be followed: https://host/owner/name.git or \
                      git@host:owner/name.git, without a password in it";

/// The parts of an address.
struct Parts<'a> {
    /// `https`, `http` or `ssh`.
    scheme: &'a str,
    /// Host and port, without a user.
    authority: &'a str,
    path: &'a str,
}

impl RepositoryUrl {
    /// Returns the whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether git reaches it by ssh, with a deploy key.
    pub fn is_ssh(&self) -> bool {
        self.parts().scheme == "ssh"
    }

    /// Returns the host without its port.
    pub fn host(&self) -> &str {
        without_port(self.parts().authority)
    }

    /// Returns the name of the project at its forge: `owner/name`.
    pub fn project(&self) -> &str {
        let path = self.parts().path.trim_matches('/');
        path.strip_suffix(".git").unwrap_or(path)
    }

    /// Returns where the forge answers people, without a slash at the end: `https://github.com`.
    pub fn website(&self) -> String {
        let Parts { scheme, authority, .. } = self.parts();
        match scheme {
            // The port is that of ssh.
            "ssh" => format!("https://{}", without_port(authority)),
            scheme => format!("{scheme}://{authority}"),
        }
    }

    fn parts(&self) -> Parts<'_> {
        parse(&self.0).expect("checked when it was made")
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn parse(text: &str) -> Option<Parts<'_>> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/+@%:[]".contains(&byte);
    if text.len() > URL_MAX_BYTES || !text.bytes().all(known) || text.starts_with('-') {
        return None;
    }
    let (scheme, user, authority, path) = match text.split_once("://") {
        Some((scheme @ ("https" | "http" | "ssh"), rest)) => {
            let (authority, path) = rest.split_at(rest.find('/')?);
            let (user, authority) = match authority.rsplit_once('@') {
                Some((user, authority)) => (Some(user), authority),
                None => (None, authority),
            };
            (scheme, user, authority, path)
        }
        Some(_) => return None,
        None => {
            let (user, rest) = text.split_once('@')?;
            let (host, path) = rest.split_once(':')?;
            ("ssh", Some(user), host, path)
        }
    };
    let is_word = |word: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !word.is_empty() && !word.starts_with('-') && word.bytes().all(known)
    };
    let is_user = match (scheme, user) {
        (_, None) => true,
        ("ssh", Some(user)) => is_word(user),
        (_, Some(_)) => false,
    };
    let host = without_port(authority);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_word(host),
    };
    let port = authority.get(host.len() + 1..);
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_path = !path.trim_matches('/').is_empty() && !path.starts_with(['-', ':']);
    (is_user && is_host && is_port && is_path).then_some(Parts { scheme, authority, path })
}

impl FromStr for RepositoryUrl {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match parse(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(ParseError { value: text.chars().take(URL_MAX_BYTES).collect(), wanted: WANTED }),
        }
    }
}

impl TryFrom<String> for RepositoryUrl {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<RepositoryUrl> for String {
    fn from(url: RepositoryUrl) -> String {
        url.0
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kind of forge: how it tells of pushes, and where it hears how a commit fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forge {
    /// GitHub, also on premises.
    Github,
    /// GitLab, also on premises.
    Gitlab,
    /// Gitea and Forgejo, Codeberg among them.
    Gitea,
}

impl Forge {
    /// Returns the word that is typed and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Forge::Github => "github",
            Forge::Gitlab => "gitlab",
            Forge::Gitea => "gitea",
        }
    }

    /// Guesses by the host's name; none when it says nothing.
    pub fn of_host(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| host.contains(word));
        match () {
            () if says(&["github"]) => Some(Forge::Github),
            () if says(&["gitlab"]) => Some(Forge::Gitlab),
            () if says(&["gitea", "forgejo", "codeberg"]) => Some(Forge::Gitea),
            () => None,
        }
    }

    /// Returns where its API is, for a repository at this address.
    pub fn api(self, url: &RepositoryUrl) -> String {
        match (self, url.host()) {
            (Forge::Github, "github.com") => "https://api.github.com".to_owned(),
            (Forge::Github, _) => format!("{}/api/v3", url.website()),
            (Forge::Gitlab, _) => format!("{}/api/v4", url.website()),
            (Forge::Gitea, _) => format!("{}/api/v1", url.website()),
        }
    }
}

impl FromStr for Forge {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "github" => Ok(Forge::Github),
            "gitlab" => Ok(Forge::Gitlab),
            "gitea" | "forgejo" => Ok(Forge::Gitea),
            _ => Err(ParseError { value: text.to_owned(), wanted: "a forge (github, gitlab or gitea)" }),
        }
    }
}

/// The repository that a service follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Where it is.
    pub url: RepositoryUrl,
    /// The branch that is deployed.
    pub branch: Branch,
    /// What kind of forge keeps it; none when nobody said so and the address does not.
    pub forge: Option<Forge>,
    /// Where the forge's API is, when it is not where its kind has it.
    pub api: Option<String>,
    /// The public half of the deploy key; none for a repository that is not reached by ssh.
    pub public_key: Option<String>,
    /// When it was connected first.
    pub created_at: Timestamp,
}

/// What of an remote is sealed.
#[derive(Debug, Clone, Default)]
pub struct RemoteSecrets {
    /// What deliveries are signed with.
    pub hook: Secret<String>,
    /// The private half of the deploy key.
    pub deploy_key: Option<Secret<String>>,
    /// Opens the forge's API to the status of commits.
    pub status_token: Option<Secret<String>>,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryEnd {
    /// Its release is live, or was.
    Live,
    /// What was live had the same files and variables.
    Already,
    /// It changed nothing that the service watches.
    Skipped,
    /// Its deployment failed.
    Failed,
    /// The commit could not be had. The same delivery may come again.
    Unfetched,
    /// A newer one took its place.
    Superseded,
    /// Its owner cancelled the deployment.
    Cancelled,
}

impl DeliveryEnd {
    /// Returns the word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryEnd::Live => "live",
            DeliveryEnd::Already => "already live",
            DeliveryEnd::Skipped => "skipped",
            DeliveryEnd::Failed => "failed",
            DeliveryEnd::Unfetched => "not fetched",
            DeliveryEnd::Superseded => "superseded",
            DeliveryEnd::Cancelled => "cancelled",
        }
    }
}

/// A push that a forge told of, or that its owner had the box look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Grows with each delivery to the box.
    pub number: i64,
    /// Which service.
    pub service: ServiceId,
    /// Which commit; none until it is known what the branch is at.
    pub commit: Option<Commit>,
    /// When it came.
    pub at: Timestamp,
    /// What came of it, once the commit was fetched.
    pub deployment: Option<DeploymentId>,
    /// How it ended, and more in words; none while it is under way.
    pub end: Option<(DeliveryEnd, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_git_reaches_over_a_network() {
        for (good, ssh, host, project, website) in [
            ("https://github.com/me/shop.git", false, "github.com", "me/shop", "https://github.com"),
            ("http://127.0.0.1:3000/me/shop", false, "127.0.0.1", "me/shop", "http://127.0.0.1:3000"),
            ("git@github.com:me/shop.git", true, "github.com", "me/shop", "https://github.com"),
            (
                "ssh://git@forge.example:2222/a/b/c.git/",
                true,
                "forge.example",
                "a/b/c",
                "https://forge.example",
            ),
            ("https://[::1]:3000/me/shop", false, "[::1]", "me/shop", "https://[::1]:3000"),
        ] {
            let url: RepositoryUrl = good.parse().unwrap();
            let found = (url.is_ssh(), url.host(), url.project(), url.website());
            assert_eq!(found, (ssh, host, project, website.to_owned()), "{good}");
        }
    }

    #[test]
    fn what_git_could_take_for_something_else_is_refused() {
        let long = format!("https://a/{}", "x".repeat(URL_MAX_BYTES));
        for bad in [
            "",
            "file:///srv/repo.git",
            "/srv/repo.git",
            "../repo",
            "repo.git",
            "ext::sh",
            "ext::sh -c id",
            "me@ext::x",
            "git://host/a/b",
            "--upload-pack=id",
            "-oProxyCommand=id@host:x",
            "git@-oProxyCommand=id:x",
            "ssh://-oProxyCommand=id/x",
            "ssh://-x@host/x",
            "git@host:-x",
            "git@host:",
            "https://host",
            "https://host/",
            "https:///x",
            "https://host:0/x",
            "https://host:99999/x",
            "https://user:password@host/x",
            "https://token@host/x",
            "ssh://git:password@host/x",
            "https://host/a b",
            "https://host/a\nb",
            "https://host/$(id)",
            "https://host/'x",
            "fd::17/x",
            &long,
        ] {
            assert!(bad.parse::<RepositoryUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_forge_is_guessed_by_its_host_and_knows_its_api() {
        let api = |url: &str| {
            let url: RepositoryUrl = url.parse().unwrap();
            Forge::of_host(url.host()).map(|forge| forge.api(&url))
        };
        assert_eq!(api("git@github.com:a/b").as_deref(), Some("https://api.github.com"));
        assert_eq!(api("git@github.corp:a/b").as_deref(), Some("https://github.corp/api/v3"));
        assert_eq!(api("https://gitlab.com/a/b").as_deref(), Some("https://gitlab.com/api/v4"));
        assert_eq!(api("https://codeberg.org/a/b").as_deref(), Some("https://codeberg.org/api/v1"));
        assert_eq!(api("https://code.example/a/b"), None);
    }
}
