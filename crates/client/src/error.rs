//! What can go wrong between a client and a box.

use std::path::PathBuf;

use trackbed_api::ErrorDetail;

/// Why a call brought no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket, or there is none.
    #[error("no box is running at {}", socket.display())]
    NotRunning {
        /// The socket that was tried.
        socket: PathBuf,
    },
    /// The socket is there, but this user may not use it.
    #[error("not allowed to use the box at {}", socket.display())]
    PermissionDenied {
        /// The socket that was tried.
        socket: PathBuf,
    },
    /// Another user listens on the socket; nothing was sent.
    #[error("the socket {} belongs to user {uid}, who is neither you nor root", socket.display())]
    Stranger {
        /// The socket that was tried.
        socket: PathBuf,
        /// Who listens on it.
        uid: u32,
    },
    /// The box refused.
    #[error("{}", .0.message)]
    Api(ErrorDetail, u16),
    /// No answer came in time.
    #[error("the box did not answer {call} within {seconds} s")]
    Late {
        /// Method and path.
        call: String,
        /// The deadline.
        seconds: u64,
    },
    /// The connection broke, or the answer could not be read.
    #[error("talking to the box failed at {call}: {reason}")]
    Transport {
        /// Method and path.
        call: String,
        /// What happened.
        reason: String,
    },
}

impl ClientError {
    /// Returns whether the box said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(detail, _) if detail.code == trackbed_api::ErrorCode::NotFound)
    }

    /// Returns whether a later attempt at reading may succeed: the box restarts, or the connection broke.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NotRunning { .. } | Self::Late { .. } | Self::Transport { .. })
    }

    /// Returns what to do about it, when the box said so.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Api(detail, _) => detail.hint.as_deref(),
            Self::NotRunning { .. }
            | Self::PermissionDenied { .. }
            | Self::Stranger { .. }
            | Self::Late { .. }
            | Self::Transport { .. } => None,
        }
    }
}
