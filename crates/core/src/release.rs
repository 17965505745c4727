//! A release: an image and a resolved configuration, immutable, numbered v1, v2, … per service.

use serde::{Deserialize, Serialize};

use crate::image::Image;
use crate::settings::ServiceConfig;
use crate::{Digest, ReleaseId, ServiceId, Timestamp};

/// A release. Its variables are kept beside it, sealed, by the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// The service it belongs to.
    pub service: ServiceId,
    /// 1 for v1, and so on; never reused.
    pub version: u32,
    /// The source it was built from.
    pub source: Digest,
    /// What runs.
    pub image: Image,
    /// How it runs.
    pub config: ServiceConfig,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Release {
    /// Returns `v3`, as people write it.
    pub fn label(&self) -> String {
        format!("v{}", self.version)
    }
}
