//! What lies at a target.
//!
//! | object | what |
//! |---|---|
//! | `owner.json` | in the clear: the box that the prefix belongs to, and the recipient that everything is sealed for |
//! | `head.age` | names the newest state and catalogue; written after them, on condition that nobody else wrote it |
//! | `heads/<stem>.age` | the same head once more, written after it: earlier ones stay, for who cannot use the newest |
//! | `catalogues/<stem>.age` | every object that belongs to that state, with sizes and digests |
//! | `states/<stem>.age` | a tar of `state.db` and the key that seals variables |
//! | `objects/<path>.age` | a file of the data directory, or a folder as a tar |
//!
//! A stem is the number of a head and a random tail: two boxes that should not, and do, write at once spoil nothing of each
//! other's. Whoever reads a head finds all that its catalogue names: what the box removes stays for [`crate::Limits::kept`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trackbed_core::{Digest, Timestamp};
use trackbed_stdx::random;

use crate::error::OffsiteError;

/// The format of all of it; another one is refused.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const OWNER: &str = "owner.json";
pub(crate) const HEAD: &str = "head.age";
pub(crate) const OBJECTS: &str = "objects";
pub(crate) const CATALOGUES: &str = "catalogues";
pub(crate) const STATES: &str = "states";
pub(crate) const HEADS: &str = "heads";

/// Whose prefix it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) format: u32,
    /// A random id that only this box has.
    #[serde(rename = "box")]
    pub(crate) box_id: String,
    /// `age1…`
    pub(crate) recipient: String,
    /// Whether the store can replace an object on condition that it is unchanged.
    pub(crate) replaces_conditionally: bool,
    /// When it was taken.
    pub(crate) since: Timestamp,
}

/// The newest of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) format: u32,
    /// The box that wrote it.
    #[serde(rename = "box")]
    pub(crate) box_id: String,
    /// Grows by one with each head of a prefix.
    pub(crate) sequence: u64,
    /// By the clock of the box.
    pub(crate) at: Timestamp,
    /// Where the data directory was: programs of releases may be named by absolute paths.
    pub(crate) data_dir: String,
    pub(crate) state: Named,
    pub(crate) catalogue: Named,
}

/// An object with what it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) object: String,
    /// Plain bytes.
    pub(crate) bytes: u64,
    /// SHA-256 of them.
    pub(crate) digest: Digest,
}

/// Everything that belongs to a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    pub(crate) format: u32,
    pub(crate) entries: Vec<CatalogueEntry>,
}

/// What an object becomes in a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CatalogueEntry {
    /// Relative to the data directory.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    #[serde(flatten)]
    pub(crate) named: Named,
}

/// File or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The file as it is.
    File,
    /// A tar of the folder.
    Tree,
}

/// Returns what the objects of a new head are called.
pub(crate) fn new_stem(sequence: u64) -> String {
    let tail: String = random::bytes::<4>().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{sequence:012}-{tail}")
}

pub(crate) fn object_of(folder: &str, stem: &str) -> String {
    format!("{folder}/{stem}.age")
}

/// Returns the stem of an object of a folder; none when it is no object of ours.
pub(crate) fn stem_of<'a>(folder: &str, object: &'a str) -> Option<&'a str> {
    object.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".age")
}

/// Returns the number of the head that a stem belongs to.
pub(crate) fn number_of(stem: &str) -> Option<u64> {
    stem.split_once('-')?.0.parse().ok()
}

pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the shapes above have text keys only")
}

/// Reads one of the shapes above, after a look at its format.
pub(crate) fn decode<T: DeserializeOwned>(object: &str, bytes: &[u8]) -> Result<T, OffsiteError> {
    #[derive(Deserialize)]
    struct Formatted {
        format: u32,
    }
    let shape = |error: serde_json::Error| OffsiteError::damaged(object, error.to_string());
    let Formatted { format } = serde_json::from_slice(bytes).map_err(shape)?;
    if format != FORMAT {
        return Err(OffsiteError::refused(
            format!("{object} has format {format}, and this trackbed knows {FORMAT} only"),
            "use the version of trackbed that wrote it",
        ));
    }
    serde_json::from_slice(bytes).map_err(shape)
}
