//! Good days: how traffic moves from one release to the next, without a volume and with one.

use std::time::Duration;

use trackbed_core::InstanceId;
use trackbed_core::deployment::{DeploymentState, Step};
use trackbed_core::route::{RouteTable, UpstreamState};
use trackbed_core::settings::Handover;
use trackbed_testkit::{App, Happening};

use crate::rig::Rig;

/// The place of the first such happening in the journal.
fn place(rig: &Rig, what: &str, wanted: impl Fn(&Happening) -> bool) -> usize {
    place_from(rig, 0, what, wanted)
}

fn place_from(rig: &Rig, from: usize, what: &str, wanted: impl Fn(&Happening) -> bool) -> usize {
    let journal = rig.world.journal();
    let found = journal[from..].iter().position(|(_, happening)| wanted(happening));
    from + found.unwrap_or_else(|| panic!("no `{what}` in {journal:#?}"))
}

fn serves(table: &RouteTable, instance: &InstanceId) -> bool {
    table.routes.values().any(
        |route| matches!(&route.upstream, UpstreamState::Serving { target } if target.instance == *instance),
    )
}

fn parks(table: &RouteTable) -> bool {
    table.routes.values().any(|route| matches!(route.upstream, UpstreamState::Parked { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_first_deployment_becomes_live() {
    let mut rig = Rig::new().await;
    let deployment = rig.deploy_well(&App::new("one")).await;
    let (release, instance) = rig.live().await;
    assert_eq!((release.version, deployment.handover), (1, Some(Handover::Overlap)));
    assert_eq!(rig.served().await, Some(instance));
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_overlap_never_leaves_callers_without_a_release() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    let tables_before = rig.world.journal().len();
    rig.deploy_well(&App::new("two")).await;
    let (release, new) = rig.live().await;
    assert_eq!(release.version, 2);

    let switched = place(&rig, "switch", |it| matches!(it, Happening::Applied(table) if serves(table, &new)));
    assert!(place(&rig, "start", |it| *it == Happening::Started(new.clone())) < switched);
    assert!(switched < place(&rig, "stop", |it| *it == Happening::Stopping(old.clone())));
    for (_, happening) in &rig.world.journal()[tables_before..] {
        let Happening::Applied(table) = happening else { continue };
        assert!(serves(table, &old) || serves(table, &new), "{table:?}");
    }
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_overlap_switches_only_after_health() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    let mut slow = App::new("slow");
    slow.listens_after = Some(Duration::from_secs(15));
    let id = rig.up(&slow).await;
    rig.reach(&id, Step::Health).await;
    rig.pass_time(Duration::from_secs(14)).await;
    assert_eq!(rig.served().await, Some(old));
    assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
    assert_eq!(rig.served().await, Some(rig.live().await.1));
}

#[tokio::test(start_paused = true)]
async fn an_old_release_finishes_its_requests_before_it_is_stopped() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 3, 0);
    let id = rig.up(&App::new("two")).await;
    rig.reach(&id, Step::Retire).await;
    rig.pass_time(Duration::from_secs(20)).await;
    assert_eq!(rig.world.living().len(), 2, "the old one still answers");
    rig.world.set_traffic(&old, 0, 0);
    rig.finish(&id).await;
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_is_cut_at_the_drain_limit() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 1, 0);
    let deployment = rig.deploy_well(&App::new("two")).await;
    place(&rig, "cut", |it| *it == Happening::Cut(old.clone()));
    let events = rig.events(&deployment.id).await;
    assert!(events.iter().any(|event| event.message.contains("drain limit of 30 s")), "{events:#?}");
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_held_handover_parks_then_stops_then_starts() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let (_, old) = rig.live().await;
    let before = rig.world.journal().len();
    let deployment = rig.deploy_well(&App::new("two").with_volume()).await;
    assert_eq!(deployment.handover, Some(Handover::Held));
    let (_, new) = rig.live().await;

    let is_park = |it: &Happening| matches!(it, Happening::Applied(table) if parks(table));
    let park = place_from(&rig, before, "park", is_park);
    let stop = place(&rig, "stop", |it| *it == Happening::Stopping(old.clone()));
    let stopped = place(&rig, "stopped", |it| *it == Happening::Stopped(old.clone()));
    let start = place(&rig, "start", |it| *it == Happening::Started(new.clone()));
    let release = place(&rig, "release", |it| matches!(it, Happening::Applied(table) if serves(table, &new)));
    assert!(park < stop && stop < stopped && stopped < start && start < release);
    let journal = rig.world.journal();
    for (_, happening) in &journal[park..release] {
        if let Happening::Applied(table) = happening {
            assert!(parks(table), "requests wait for the whole handover: {table:?}");
        }
    }
    let healthy = rig.world.instance(&new).unwrap().started_at.0 + 60;
    assert!(journal[release].0.0 >= healthy);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn open_streams_are_waited_for_while_the_old_release_serves() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one").with_volume()).await;
    let (_, old) = rig.live().await;
    rig.world.set_traffic(&old, 1, 1);
    let id = rig.up(&App::new("two").with_volume()).await;
    rig.reach(&id, Step::Drain).await;
    rig.pass_time(Duration::from_secs(25)).await;
    assert_eq!(rig.served().await, Some(old.clone()), "nobody is parked for somebody else's stream");
    rig.world.set_traffic(&old, 0, 0);
    assert_eq!(rig.finish(&id).await.state, DeploymentState::Success);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_release_that_ignores_sigterm_is_gone_before_the_new_one_starts() {
    let mut rig = Rig::new().await;
    let mut stubborn = App::new("one").with_volume();
    stubborn.ignores_term = true;
    rig.deploy_well(&stubborn).await;
    let (_, old) = rig.live().await;
    rig.deploy_well(&App::new("two").with_volume()).await;
    let (_, new) = rig.live().await;
    let stopped = place(&rig, "stopped", |it| *it == Happening::Stopped(old.clone()));
    assert!(stopped < place(&rig, "start", |it| *it == Happening::Started(new.clone())));
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_gets_its_first_volume_is_handed_over_held() {
    let mut rig = Rig::new().await;
    rig.deploy_well(&App::new("one")).await;
    let deployment = rig.deploy_well(&App::new("two").with_volume()).await;
    assert_eq!(deployment.handover, Some(Handover::Held));
    rig.settle().await;
}
