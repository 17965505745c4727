//! Parsed names: once a value has one of these types, no later code checks it again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::ParseError;

/// The name of a project, environment, service, process or volume: a DNS label, so that it can stand in a host name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Longest name in bytes: a DNS label (RFC 1035 §2.3.4).
pub const NAME_MAX_BYTES: usize = 63;

impl Name {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes the nearest valid name from any text, such as a folder's name: `My App_2` becomes `my-app-2`.
    /// Returns none when nothing usable is left.
    pub fn nearest(text: &str) -> Option<Name> {
        let mut name = String::new();
        for c in text.chars().flat_map(char::to_lowercase) {
            match c {
                'a'..='z' | '0'..='9' => name.push(c),
                _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
                _ => {}
            }
        }
        name.truncate(NAME_MAX_BYTES);
        name.trim_end_matches('-').parse().ok()
    }
}

impl FromStr for Name {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let inner = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        let edges = !text.starts_with('-') && !text.ends_with('-');
        if inner && edges && !text.is_empty() && text.len() <= NAME_MAX_BYTES {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError {
            value: text.to_owned(),
            wanted: "a name (1 to 63 of a-z, 0-9 and `-`, not at either end)",
        })
    }
}

/// The name of an environment variable: what a POSIX shell accepts, so that `$NAME` works in a start command.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariableName(String);

impl VariableName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariableName {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let starts = text.bytes().next().is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic());
        let rest = text.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        if starts && rest && text.len() <= 255 {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError {
            value: text.to_owned(),
            wanted: "a variable name (letters, digits and `_`, not starting with a digit, at most 255)",
        })
    }
}

/// A host name as the edge compares it: lower case, no port, no trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

impl Host {
    /// Returns the host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte == b'-' || byte == b'_' || byte.is_ascii_alphanumeric())
        };
        if !lower.is_empty() && lower.len() <= 253 && lower.split('.').all(label) {
            return Ok(Self(lower));
        }
        Err(ParseError {
            value: text.to_owned(),
            wanted: "a host name (such as `app.example.com`, without a port)",
        })
    }
}

macro_rules! text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ParseError;
            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
text!(Name);
text!(VariableName);
text!(Host);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_becomes_the_nearest_name() {
        assert_eq!(Name::nearest("My App_2").unwrap().as_str(), "my-app-2");
        assert_eq!(Name::nearest("--x--").unwrap().as_str(), "x");
        assert_eq!(Name::nearest("日本"), None);
        assert_eq!(Name::nearest(&"a".repeat(200)).unwrap().as_str().len(), 63);
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for bad in ["", "..", "a/b", "-a", "a-", "A", "a b", "a\0"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn variable_names_are_what_a_shell_accepts() {
        assert!("DATABASE_URL".parse::<VariableName>().is_ok());
        for bad in ["", "1A", "A-B", "A=B", "A\n", "Ä"] {
            assert!(bad.parse::<VariableName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hosts_compare_without_case_and_trailing_dot() {
        assert_eq!("App.LocalHost.".parse::<Host>().unwrap().as_str(), "app.localhost");
        assert!("a..b".parse::<Host>().is_err());
        assert!("a:80".parse::<Host>().is_err());
    }
}
