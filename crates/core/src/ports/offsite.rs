//! Copies of the box at an object store elsewhere.

use std::path::Path;

use async_trait::async_trait;

use super::PortError;
use crate::offsite::{MirrorReport, Missing, OffsiteTarget};
use crate::{Secret, Timestamp};

/// Writes copies of the state, each from one instant.
#[async_trait]
pub trait StateCopy: Send + Sync {
    /// Writes a copy of the state to a file that does not exist yet.
    ///
    /// # Errors
    /// When the state cannot be read or the disk refuses.
    async fn copy_to(&self, path: &Path) -> Result<(), PortError>;
}

/// What to do when a prefix belongs to another box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Leave it to the other box.
    Respect,
    /// Take it: the other box, should it live, refuses to go on.
    TakeOver,
}

/// What to do when a store cannot tell that an object is there already (no conditional writes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// Refuse: two boxes might write under the same prefix.
    Required,
    /// The owner says that no other box writes there.
    Waived,
}

/// Keeps copies of the box at a target. Every method may be dropped and repeated.
#[async_trait]
pub trait Offsite: Send + Sync {
    /// Makes a new age identity.
    fn new_identity(&self) -> Secret<String>;

    /// Returns the age recipient (`age1…`) of an identity.
    ///
    /// # Errors
    /// When it is none.
    fn recipient(&self, identity: &Secret<String>) -> Result<String, PortError>;

    /// Opens a target, finds out whether it does what is needed, and makes its prefix this box's.
    ///
    /// # Errors
    /// When it cannot be reached or written to, belongs to another box or another key, or cannot write conditionally.
    async fn claim(
        &self,
        target: &OffsiteTarget,
        ownership: Ownership,
        conditional: Conditional,
        now: Timestamp,
    ) -> Result<(), PortError>;

    /// Returns what the box has that was not sent yet. Looks at the box only.
    ///
    /// # Errors
    /// When the disk cannot be read.
    async fn missing(&self, target: &OffsiteTarget) -> Result<Missing, PortError>;

    /// Sends what is missing, then the state, then the head that names it all; reads back; removes what has been gone
    /// from the box for long enough. Goes on where an interrupted pass left off.
    ///
    /// # Errors
    /// When the target refuses for too long, or belongs to another box by now. What was sent stays.
    async fn mirror(
        &self,
        target: &OffsiteTarget,
        state: &dyn StateCopy,
        now: Timestamp,
    ) -> Result<MirrorReport, PortError>;

    /// Forgets what is known of the target that this box mirrors to. The copies stay.
    ///
    /// # Errors
    /// When the disk refuses.
    async fn forget(&self) -> Result<(), PortError>;
}
