//! The control plane against a world of fakes, on paused time: good days, bad days, a fault at every call, and seeded
//! random schedules. One binary, because linking costs more than running.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]
#![allow(clippy::print_stdout, reason = "the matrix says how much it covered")]

mod backups;
mod budget;
mod data;
mod data_rig;
mod deadlines;
mod drills;
mod endings;
mod failures;
mod handover;
mod hold;
mod invariants;
mod jobs;
mod matrix;
mod offsite;
mod pre_deploy;
mod pushes;
mod refusals;
mod removal;
mod repair;
mod restarts;
mod retention;
mod rig;
mod schedules;
mod stray;
mod streams;
mod ways_back;
mod wishes;
