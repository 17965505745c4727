//! Images of a container engine on the box, for builders that have somebody else make them.

use std::path::PathBuf;

use async_trait::async_trait;

use super::{BuildLog, PortError};
use crate::image::ContainerImage;

/// What a Dockerfile is built from.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// The folder that the Dockerfile copies from.
    pub context: PathBuf,
    /// The Dockerfile, relative to that.
    pub path: String,
    /// The stage to build; empty means the last.
    pub target: String,
    /// Values of variables that the Dockerfile declares by `ARG`, as the owner has set them. They stay in the image's history.
    pub args: Vec<(String, String)>,
    /// The same from files of the source; they are no secret, and the owner's win.
    pub given: Vec<(String, String)>,
    /// Whether it uses what Docker's older builder does not know.
    pub wants_buildkit: bool,
}

/// A container engine of the box, as far as images go: Docker or Podman.
#[async_trait]
pub trait Images: Send + Sync {
    /// Returns the engine's name and version, for people. Looks again each time: it may be installed meanwhile.
    ///
    /// # Errors
    /// When there is none, or it does not answer; says where it was looked for.
    async fn engine(&self) -> Result<String, PortError>;

    /// Builds an image, or has it built from what was built before. When the future is dropped, the build is given up.
    ///
    /// # Errors
    /// When a step of the build fails; its output is in the log.
    async fn build(&self, order: Dockerfile, log: &dyn BuildLog) -> Result<ContainerImage, PortError>;

    /// Fetches an image by its name. What the box has is used, and said so, when the registry cannot be reached.
    ///
    /// # Errors
    /// When neither the registry nor the box has it.
    async fn pull(&self, reference: &str, log: &dyn BuildLog) -> Result<ContainerImage, PortError>;

    /// Lets go of every image of this box that is not among those with these ids. Returns how many.
    ///
    /// # Errors
    /// When the engine does not answer. One that is not there has nothing to let go of.
    async fn collect(&self, keep: &[String]) -> Result<u64, PortError>;
}

/// A box without a container engine.
#[derive(Debug, Clone, Copy)]
pub struct NoImages;

impl NoImages {
    fn refuse<T>() -> Result<T, PortError> {
        Err(PortError::new("no container engine is used here"))
    }
}

#[async_trait]
impl Images for NoImages {
    async fn engine(&self) -> Result<String, PortError> {
        Self::refuse()
    }

    async fn build(&self, _: Dockerfile, _: &dyn BuildLog) -> Result<ContainerImage, PortError> {
        Self::refuse()
    }

    async fn pull(&self, _: &str, _: &dyn BuildLog) -> Result<ContainerImage, PortError> {
        Self::refuse()
    }

    async fn collect(&self, _: &[String]) -> Result<u64, PortError> {
        Ok(0)
    }
}
