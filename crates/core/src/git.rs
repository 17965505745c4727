//! What `git push` needs: the branch that is deployed, and the tokens that open a service's repository.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::ParseError;
use crate::{GitTokenId, Name, ServiceId, Timestamp};

/// The name of a branch, without `refs/heads/`. Narrower than what git allows (git-check-ref-format(1)): it stands in
/// messages and commands that people copy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Branch(String);

/// Longest name of a branch in bytes.
pub const BRANCH_MAX_BYTES: usize = 200;

impl Branch {
    /// Branches that are deployed without being named: what git and its hosts call the first one.
    pub const USUAL: [&str; 2] = ["main", "master"];

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Branch {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let part = |part: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+#".contains(&byte);
            !part.is_empty()
                && part.bytes().all(known)
                && !part.starts_with(['.', '-'])
                && !part.ends_with('.')
                && !part.ends_with(".lock")
                && !part.contains("..")
        };
        if text.len() <= BRANCH_MAX_BYTES && text.split('/').all(part) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError { value: text.to_owned(), wanted: "the name of a branch (such as `main`)" })
    }
}

impl TryFrom<String> for Branch {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Branch> for String {
    fn from(branch: Branch) -> String {
        branch.0
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a commit came to the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// By `git push` to the box.
    Push,
    /// By a delivery of a forge, or because its owner had the box look there.
    Remote,
}

/// A commit that is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// How it came.
    pub via: Via,
    /// Its name: 40 or 64 lower-case hex digits.
    pub id: String,
    /// The branch that it came on.
    pub branch: String,
    /// The first line of its message, at most [`SUBJECT_MAX_CHARS`] long.
    pub subject: String,
}

/// Longest first line of a message that is kept.
pub const SUBJECT_MAX_CHARS: usize = 200;

impl Commit {
    /// Makes a commit of what somebody tells about it.
    ///
    /// # Errors
    /// When the name is none.
    pub fn new(via: Via, id: &str, branch: &str, message: &str) -> Result<Self, ParseError> {
        let is_name =
            matches!(id.len(), 40 | 64) && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_name || id.bytes().all(|byte| byte == b'0') {
            return Err(ParseError {
                value: id.to_owned(),
                wanted: "the name of a commit (40 or 64 hex digits)",
            });
        }
        let line = message.trim_start().lines().next().unwrap_or_default();
        let subject = line.chars().filter(|letter| !letter.is_control()).take(SUBJECT_MAX_CHARS).collect();
        Ok(Self { via, id: id.to_owned(), branch: branch.to_owned(), subject })
    }

    /// Returns as much of the name as people need.
    pub fn short(&self) -> &str {
        &self.id[..10]
    }
}

/// A token that may push to one service. Only a hash of it is kept, and never leaves the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitToken {
    /// Its id, by which it is revoked.
    pub id: GitTokenId,
    /// The service that it may push to.
    pub service: ServiceId,
    /// Whom or what it is for.
    pub name: Name,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used for a push.
    pub used_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_what_git_takes_and_a_command_line_bears() {
        for good in ["main", "feature/a-1", "v1.2", "a_b+c", "fix/#12"] {
            assert_eq!(good.parse::<Branch>().unwrap().as_str(), good);
        }
        let long = "x".repeat(BRANCH_MAX_BYTES + 1);
        for bad in
            ["", "-f", "a..b", "/a", "a/", "a//b", "a.lock", ".a", "a.", "a b", "a\nb", "é", "a~1", &long]
        {
            assert!(bad.parse::<Branch>().is_err(), "{bad:?}");
        }
    }
}
