//! An image: the layers that an instance sees at `/app`, by digest, and what else it needs from the box; or an image of a
//! container engine, by its id there.

use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp};

/// One read-only directory of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of exactly what the layer depends on (not of its bytes: an install is not reproducible to the bit).
    pub digest: Digest,
    /// Where it lies, relative to the data directory.
    pub path: String,
    /// Size on disk in bytes.
    pub size_bytes: u64,
}

/// How an image without a process is served: the edge answers with the files of its topmost layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// What is answered where no file is.
    pub fallback: SiteFallback,
}

/// What a static site answers where no file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteFallback {
    /// Its `404.html` or a page of the edge's, with status 404.
    NotFound,
    /// Its `index.html`, because the app in it knows paths of its own.
    Index,
}

/// What a build leaves behind. Immutable; a release points to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest over the layers and everything below.
    pub digest: Digest,
    /// The provider that made it, such as `python`.
    pub provider: String,
    /// Layers stacked at `/app`, the topmost first.
    pub layers: Vec<Layer>,
    /// Absolute host paths that must be visible read-only at the same place, such as an interpreter in a home directory.
    pub host_paths: Vec<String>,
    /// Environment that the image brings (`PATH`, `VIRTUAL_ENV`, `PYTHONUNBUFFERED`); the service's variables win.
    pub env: Vec<(String, String)>,
    /// How it is served, when it is files and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// When it was built.
    pub built_at: Timestamp,
    /// The image of a container engine that it stands for; then there are no layers, and the engine runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerImage>,
}

/// An image that a container engine of the box has. Pinned: a tag may move on, this does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerImage {
    /// Its id there: `sha256:…`, the digest of its configuration.
    pub id: String,
    /// The tag that was pulled, when it was not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Size in bytes, layers that it shares with others included.
    pub size_bytes: u64,
    /// The user of its `USER`: a name or a number, with or without a group; empty means root.
    #[serde(default)]
    pub user: String,
    /// The signal of its `STOPSIGNAL`; empty means SIGTERM.
    #[serde(default)]
    pub stop_signal: String,
    /// The variables of its `ENV`.
    #[serde(default)]
    pub env: Vec<(String, String)>,
}

impl Image {
    /// Returns the size of all layers on disk, in bytes. Other images may share some of them.
    pub fn size_bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.size_bytes);
        layers.chain(self.container.iter().map(|container| container.size_bytes)).fold(0, u64::saturating_add)
    }
}
