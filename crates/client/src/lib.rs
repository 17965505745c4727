//! Typed HTTP client of the API, over the local socket. It knows no terminal and no files but the socket.

mod backup;
mod calls;
mod connection;
mod error;
mod git;
mod remotes;
mod run;
mod stream;
mod upload;
mod user;
mod volumes;
mod wire;

pub use calls::{Client, ServiceClient};
pub use error::ClientError;
pub use run::RunStream;
pub use upload::{SourceChunks, source_channel};
pub use user::user_id;
pub use volumes::{FileStream, VolumeClient};
