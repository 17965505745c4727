//! An engine for what needs none: an instance of a static site is a record that says which folder is served. It runs from
//! its start to its stop without a process, its address is the folder, and the edge does the rest. Everything else goes
//! to the engine behind it.
//!
//! So the steps of a deployment, restarts, rollbacks and the table of routes are the same for a site as for an app.

mod engine;
mod records;

pub use engine::Sites;
