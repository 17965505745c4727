//! Typed, prefixed identifiers: `dep_…`, `ins_…`. An id of one kind can never stand where another is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Says why a text is not an id, a name or a digest of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {wanted}")]
pub struct ParseError {
    /// What was given.
    pub value: String,
    /// What would have been right, in words a user can act on.
    pub wanted: &'static str,
}

/// Crockford's base 32 in lower case: no `i`, `l`, `o`, `u`, so an id survives being read aloud.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Random bytes in an id: 80 bits, sixteen characters.
pub const ID_BYTES: usize = 10;

fn encode(bytes: [u8; ID_BYTES]) -> String {
    let mut text = String::with_capacity(16);
    for chunk in bytes.chunks(5) {
        let bits = chunk.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
        for shift in (0..8).rev() {
            text.push(char::from(ALPHABET[((bits >> (shift * 5)) & 31) as usize]));
        }
    }
    text
}

macro_rules! id {
    ($name:ident, $prefix:literal, $what:literal) => {
        #[doc = concat!("Names ", $what, ": `", $prefix, "` and sixteen characters.")]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes an id from random bytes, which the caller draws.
            pub fn from_random(bytes: [u8; ID_BYTES]) -> Self {
                Self(format!("{}{}", $prefix, encode(bytes)))
            }

            /// Returns the whole text, prefix included.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                let tail = text.strip_prefix($prefix).unwrap_or_default();
                if tail.len() == 16 && tail.bytes().all(|byte| ALPHABET.contains(&byte)) {
                    return Ok(Self(text.to_owned()));
                }
                Err(ParseError {
                    value: text.to_owned(),
                    wanted: concat!("the id of ", $what, " (`", $prefix, "…`)"),
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseError;
            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
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

id!(ProjectId, "prj_", "a project");
id!(EnvironmentId, "env_", "an environment");
id!(ServiceId, "svc_", "a service");
id!(VolumeId, "vol_", "a volume");
id!(ReleaseId, "rel_", "a release");
id!(DeploymentId, "dep_", "a deployment");
id!(InstanceId, "ins_", "an instance");
id!(RestorePointId, "rp_", "a restore point");
id!(GitTokenId, "gtk_", "a token for pushes");

/// A SHA-256 in lower-case hex: names sources, layers and images by what they hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Makes a digest from the 32 bytes of a SHA-256.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns all 64 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first twelve characters: enough for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for Digest {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError { value: text.to_owned(), wanted: "a digest (64 lower-case hex digits)" })
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself_and_as_no_other_kind() {
        let id = DeploymentId::from_random([0, 1, 2, 3, 4, 250, 251, 252, 253, 254]);
        assert_eq!(id.as_str().parse::<DeploymentId>().unwrap(), id);
        assert!(id.as_str().parse::<InstanceId>().is_err());
        assert!("dep_short".parse::<DeploymentId>().is_err());
        assert!("dep_../../../etc/pa".parse::<DeploymentId>().is_err());
    }

    #[test]
    fn a_digest_has_64_lower_case_hex_digits() {
        let digest = Digest::from_bytes([0xab; 32]);
        assert_eq!(digest.as_str().parse::<Digest>().unwrap(), digest);
        assert!("AB".repeat(32).parse::<Digest>().is_err());
    }
}
