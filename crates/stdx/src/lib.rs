//! What std lacks: files that are whole or absent, backoff, the clock and randomness at the border, tasks with an owner.
//! No domain word stands here.

pub mod backoff;
pub mod clock;
pub mod files;
pub mod listing;
pub mod notify;
pub mod paths;
pub mod program;
pub mod random;
pub mod tasks;
