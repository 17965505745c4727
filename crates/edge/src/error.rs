//! Why the edge could not start or go on, so that the control plane can tell a taken port from the rest.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why `trackbed edge` ended.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// Another process listens there.
    #[error("cannot listen on {address}: another process has this port (find it with `ss -ltnp`)")]
    PortTaken {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address cannot be used for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another edge works on the same state.
    #[error("another edge runs on {state_dir}")]
    AlreadyRunning {
        /// Its state directory.
        state_dir: PathBuf,
    },
    /// The edge that runs was asked for its place and keeps it.
    #[error("the edge that runs keeps its place: {reason}")]
    NotHandedOver {
        /// Its words, or what went wrong on the way.
        reason: String,
    },
    /// A file of the state directory or the control socket cannot be used.
    #[error("cannot use {path}")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread or runtime cannot be made.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

impl EdgeError {
    /// Returns the exit code of the process: 3 for a taken port, 4 for a second edge on the same state, 5 for
    /// one that keeps its place, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            EdgeError::PortTaken { .. } => 3,
            EdgeError::AlreadyRunning { .. } => 4,
            EdgeError::NotHandedOver { .. } => 5,
            EdgeError::Listen { .. } | EdgeError::State { .. } | EdgeError::Worker(_) => 1,
        }
    }

    pub(crate) fn state(path: impl Into<PathBuf>, source: io::Error) -> Self {
        EdgeError::State { path: path.into(), source }
    }
}
