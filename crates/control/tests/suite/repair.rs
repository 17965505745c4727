//! What the control plane mends by itself: an edge that lost its table, strays, an app that crashed in a bad moment.

use std::time::Duration;

use trackbed_core::route::RouteTable;
use trackbed_testkit::{App, Call, Fault, Mode};

use crate::rig::Rig;

#[tokio::test(start_paused = true)]
async fn a_table_that_the_edge_refused_is_given_again() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    rig.faults.arm(Fault { call: Call { name: "edge.apply", number: 1 }, mode: Mode::FailOnce });
    rig.down().await;
    rig.settle().await;
    assert!(rig.faults.has_struck());
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_lost_its_table_gets_it_again() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    rig.world.set_table(RouteTable::default());
    rig.pass_time(Duration::from_secs(2)).await;
    assert!(rig.served().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_state_from_a_backup_catches_up_with_a_newer_edge() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    rig.world.set_table(RouteTable { sequence: 1_000_000, ..RouteTable::default() });
    rig.pass_time(Duration::from_secs(2)).await;
    assert!(rig.served().await.is_some());
}
