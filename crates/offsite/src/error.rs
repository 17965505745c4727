//! Why a target or a copy cannot be used.

use std::io;

use trackbed_core::ports::PortError;

/// What kind of refusal a store gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteFault {
    /// There is no such object.
    Missing,
    /// Somebody else was there first: the object exists, or has changed since.
    Taken,
    /// The store cannot do this.
    Unsupported,
    /// The credentials do not suffice, or the address is wrong: trying again does not help.
    Denied,
    /// It may work later.
    Passing,
    /// What is there is not what was sent.
    Damaged,
}

/// Why a target or a copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OffsiteError {
    /// The object store refused.
    #[error("cannot {attempt}: {reason}")]
    Remote {
        /// What was tried.
        attempt: String,
        /// What the store said.
        reason: String,
        /// Its kind.
        fault: RemoteFault,
        /// The way out, when it is known better than from the kind.
        advice: Option<&'static str>,
    },
    /// The disk of this box refused.
    #[error("cannot {attempt}: {source}")]
    Disk {
        /// What was tried, with the path.
        attempt: String,
        /// Why.
        source: io::Error,
    },
    /// It must not be done.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// The way out.
        hint: String,
    },
}

impl OffsiteError {
    /// Returns the kind of refusal, when a store gave it.
    pub fn fault(&self) -> Option<RemoteFault> {
        match self {
            OffsiteError::Remote { fault, .. } => Some(*fault),
            OffsiteError::Disk { .. } | OffsiteError::Refused { .. } => None,
        }
    }

    /// Returns whether it is the object that cannot be used, whatever is tried: it is gone, or not what was sent.
    pub(crate) fn is_about_the_object(&self) -> bool {
        matches!(self.fault(), Some(RemoteFault::Missing | RemoteFault::Damaged))
    }

    /// Says in few words what is wrong with an object.
    pub(crate) fn fault_of_object(&self, object: &str) -> String {
        match self {
            OffsiteError::Remote { fault: RemoteFault::Missing, .. } => format!("{object} is missing"),
            OffsiteError::Remote { fault: RemoteFault::Damaged, reason, .. } => {
                format!("{object} is damaged: {reason}")
            }
            other => other.to_string(),
        }
    }

    /// Returns what to do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            OffsiteError::Refused { hint, .. } => Some(hint.clone()),
            OffsiteError::Remote { advice: Some(advice), .. } => Some((*advice).to_owned()),
            OffsiteError::Remote { fault: RemoteFault::Denied, .. } => {
                Some("check the address and the credentials, and set the target again: `trackbed backup target set`".into())
            }
            OffsiteError::Remote { .. } => None,
            OffsiteError::Disk { source, .. } => (source.kind() == io::ErrorKind::StorageFull)
                .then(|| "free space on the disk of the data directory".into()),
        }
    }

    /// Returns that it may work later.
    pub(crate) fn passing(attempt: impl Into<String>, reason: impl Into<String>) -> Self {
        let (attempt, reason) = (attempt.into(), reason.into());
        OffsiteError::Remote { attempt, reason, fault: RemoteFault::Passing, advice: None }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        OffsiteError::Refused { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn disk(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| OffsiteError::Disk { attempt, source }
    }

    pub(crate) fn damaged(object: &str, reason: impl Into<String>) -> Self {
        OffsiteError::Remote {
            attempt: format!("use {object}"),
            reason: reason.into(),
            fault: RemoteFault::Damaged,
            advice: None,
        }
    }
}

impl From<OffsiteError> for PortError {
    fn from(error: OffsiteError) -> PortError {
        PortError { message: error.to_string(), hint: error.hint() }
    }
}
