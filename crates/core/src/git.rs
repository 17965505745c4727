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
