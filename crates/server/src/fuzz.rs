//! Ways into the readers of this crate for inputs that a machine makes up. Nothing that runs calls them.

use crate::git::read_request;

/// Reads what of a request of git decides where it goes: its path and query, and who says that he may.
pub fn git_request(path: &str, query: Option<&str>, authorization: &[u8]) {
    read_request(path, query, authorization);
}
