//! A box made of memory for the tests of the control plane: fakes of every port, faults at every call, and the
//! contract that the fakes share with the real engine. For tests only; nothing here is shipped.
//!
//! Read in this order: [`app`] (what a pushed source does), [`world`] (what runs, what the edge knows, what went
//! wrong), [`faults`] (how a call is made to fail, crash or repeat), the four fakes, [`contract`], [`dockerd`].

pub mod app;
pub mod builder;
pub mod callers;
pub mod clock;
pub mod contract;
pub mod disk;
pub mod dockerd;
pub mod edge;
pub mod engine;
pub mod faults;
pub mod volumes;
pub mod world;

pub use app::{Answer, App, Ending, PreDeploy};
pub use builder::FakeBuilder;
pub use callers::{Answered, Caller};
pub use disk::{Content, Stage};
pub use edge::FakeEdge;
pub use engine::FakeEngine;
pub use faults::{Call, Fault, Faults, Mode};
pub use volumes::FakeVolumes;
pub use world::{Happening, World};
