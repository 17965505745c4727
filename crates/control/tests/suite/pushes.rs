//! Commits that a push brings: deployed, or skipped when nothing that the service watches has changed.

use trackbed_control::DeploymentWish;
use trackbed_core::deployment::{Deployment, DeploymentState, Step, Withdrawal};
use trackbed_core::git::{Commit, Via};
use trackbed_testkit::App;

use crate::rig::{Rig, name};

async fn push(rig: &mut Rig, app: &App) -> Deployment {
    let source = rig.world.push(app);
    rig.control.add_source(source.clone()).await.unwrap();
    let commit = Commit::new(Via::Push, &"a".repeat(40), "main", "words").unwrap();
    let id = rig.wish("web", DeploymentWish::Pushed { source, commit, delivery: None }).await.unwrap().id;
    rig.finish(&id).await
}

/// The fake builder knows one file in each source, which has the app's name.
fn watching(app: &str, patterns: &[&str]) -> App {
    let mut app = App::new(app);
    app.config.watch_patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    app
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_changes_nothing_watched_is_skipped_and_what_is_live_serves_on() {
    let mut rig = Rig::new().await;
    // The first one is deployed, whatever it changes.
    assert_eq!(push(&mut rig, &watching("one", &["src"])).await.state, DeploymentState::Success);
    let live = rig.live().await;
    let skipped = push(&mut rig, &watching("two", &["src"])).await;
    assert_eq!((skipped.state, skipped.step), (DeploymentState::Skipped, Step::Plan));
    let Some(Withdrawal::Skipped { reason }) = &skipped.withdrawal else { panic!("{skipped:?}") };
    assert!(reason.contains("no changed file matches `build.watchPatterns` (src); 2 changed"), "{reason}");
    assert_eq!((rig.live().await, skipped.release), (live, None));
    // What was skipped is deployed when its owner says so.
    let redeployed = rig.wish("web", DeploymentWish::Redeploy).await.unwrap();
    assert_eq!(rig.finish(&redeployed.id).await.state, DeploymentState::Success);
    assert_eq!(Some(rig.live_source().await), skipped.source);
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_watched_change_no_pattern_and_up_are_deployed() {
    let mut rig = Rig::new().await;
    push(&mut rig, &watching("one", &["src"])).await;
    for app in [watching("two", &["two"]), watching("three", &[]), watching("four", &["three"])] {
        assert_eq!(push(&mut rig, &app).await.state, DeploymentState::Success, "{}", app.name);
    }
    rig.deploy_well(&watching("five", &["src"])).await;
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_service_is_started_by_any_push() {
    let mut rig = Rig::new().await;
    push(&mut rig, &watching("one", &["src"])).await;
    rig.control.request_stop(&name("web"), &name("web")).await.unwrap();
    rig.until("it is stopped", async |rig| rig.served().await.is_none()).await;
    assert_eq!(push(&mut rig, &watching("two", &["src"])).await.state, DeploymentState::Success);
    assert!(rig.served().await.is_some());
    rig.settle().await;
}
