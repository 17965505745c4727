//! From a point back to files: into a stage beside a volume and from there into its place, into a scratch place to be
//! looked at, into a new volume.

mod check;
mod compare;
mod databases;
mod fill;
pub(crate) mod lock;
mod prove;
mod scratch;
mod space;
mod stage;
mod swap;

pub(crate) use swap::finish as finish_swap;
