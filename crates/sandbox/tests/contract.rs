//! The real sandbox keeps the contract that the control plane's fake engine keeps.
#![allow(clippy::unwrap_used, reason = "a test panics when it must")]

mod world;

use std::sync::Arc;

use trackbed_core::instance::{InstanceSpec, VolumeMount};
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::Engine;
use trackbed_testkit::contract::{Fixture, Script, engine_contract};
use world::World;

struct Real {
    world: World,
    volume: VolumeMount,
}

impl Fixture for Real {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(self.world.sandbox.clone())
    }

    fn spec(&self, script: Script, with_volume: bool) -> InstanceSpec {
        let volumes = if with_volume { vec![self.volume.clone()] } else { Vec::new() };
        InstanceSpec { volumes, ..self.world.spec(&script.command()) }
    }

    fn shares_ports(&self) -> bool {
        self.world.level != IsolationLevel::Full
    }
}

async fn keeps_the_contract(level: IsolationLevel, mount: &str) {
    let world = match level {
        IsolationLevel::Full => World::full(),
        _ => Some(World::new(level)),
    };
    let Some(world) = world else { return };
    let volume = world.volume(mount);
    let real = Real { world, volume };
    engine_contract(&real).await;
    real.world.close().await;
}

#[tokio::test]
async fn full_keeps_the_contract() {
    keeps_the_contract(IsolationLevel::Full, "/data").await;
}

#[tokio::test]
async fn userns_keeps_the_contract() {
    keeps_the_contract(IsolationLevel::Userns, "/data").await;
}

#[tokio::test]
async fn landlock_keeps_the_contract() {
    keeps_the_contract(IsolationLevel::Landlock, "/app/data").await;
}

#[tokio::test]
async fn plain_keeps_the_contract() {
    keeps_the_contract(IsolationLevel::Plain, "/app/data").await;
}
