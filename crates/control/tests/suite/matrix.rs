//! The fault matrix: every port call of a scenario is made to fail, to end the control plane before or after its
//! effect, and to happen twice, and it is ended after every change of its state; afterwards every invariant must hold, and only a failed call may change the outcome.

use std::time::Duration;

use trackbed_control::{DeploymentWish, PointAt};
use trackbed_core::deployment::{DeploymentState, Step};
use trackbed_core::instance::Exit;
use trackbed_core::ports::StrayFile;
use trackbed_core::service::Wanted;
use trackbed_testkit::faults::every_call;
use trackbed_testkit::{Answered, App, Fault, Mode};

use crate::rig::{Rig, on_paused_time};

/// A scenario: what stands before the faults begin, what is asked for then, and how that ends without a fault.
struct Scenario {
    before: Vec<App>,
    ask: Ask,
    outcome: Option<DeploymentState>,
}

enum Ask {
    Up(Box<App>),
    Wish(DeploymentWish),
    /// The data goes back to the pin of the so many-th deployment, from 0.
    Restore(usize),
    /// A deployment is cancelled at a step.
    Cancel(Box<App>, Step),
    /// A deployment is overtaken at a step.
    Overtake(Box<App>, Step, Box<App>),
    Down,
    /// The live instance is killed.
    Kill,
}

impl Scenario {
    async fn prepare(&self) -> Rig {
        let mut rig = Rig::new().await;
        for app in &self.before {
            // Every look at the edge while something drains is one more call that may fail.
            let mut app = app.clone();
            app.config.drain_timeout = Duration::from_millis(60);
            rig.deploy_well(&app).await;
        }
        if !self.before.is_empty() {
            rig.world.keep_calling(&"web.localhost".parse().unwrap(), Duration::from_millis(250));
            let (_, old) = rig.live().await;
            rig.world.set_traffic(&old, 2, 2);
        }
        rig
    }

    async fn play(&self, rig: &mut Rig) {
        match &self.ask {
            Ask::Up(app) => {
                let id = rig.up(app).await;
                rig.finish(&id).await;
            }
            Ask::Wish(wish) => {
                let id = rig.wish("web", wish.clone()).await.unwrap().id;
                rig.finish(&id).await;
            }
            Ask::Restore(number) => {
                let all = rig.control.deployments(&rig.service().await, 10).await.unwrap();
                let point = all[all.len() - 1 - number].pins[0].point.clone();
                let wish = DeploymentWish::Restore { volume: None, at: PointAt::Id(point) };
                let id = rig.wish("web", wish).await.unwrap().id;
                rig.finish(&id).await;
            }
            Ask::Cancel(app, step) => {
                let id = rig.up(app).await;
                rig.reach_or_end(&id, *step).await;
                // Refused when a fault has ended it before.
                let _ = rig.cancel().await;
                rig.finish(&id).await;
            }
            Ask::Overtake(first, step, second) => {
                let first = rig.up(first).await;
                rig.reach_or_end(&first, *step).await;
                let second = rig.up(second).await;
                rig.finish(&first).await;
                rig.finish(&second).await;
            }
            Ask::Down => rig.down().await,
            Ask::Kill => {
                let (_, instance) = rig.live().await;
                rig.world.kill(&instance, Exit::Code { code: 1 });
                rig.pass_time(Duration::from_secs(1)).await;
            }
        }
        rig.settle().await;
    }

    async fn check(&self, rig: &Rig, may_fail: bool) {
        let service = rig.service().await;
        let live = service.live.as_ref().map(|live| live.release.clone());
        if matches!(self.ask, Ask::Down) {
            assert_eq!(service.wanted, Wanted::Stopped);
        }
        let Some(outcome) = self.outcome else { return };
        for caller in rig.world.callers() {
            let is_answered = matches!(caller.end, None | Some((_, Answered::By(_))));
            assert!(is_answered, "{caller:?}\n{}", rig.story().await);
        }
        let newest = rig.control.deployments(&service, 1).await.unwrap().remove(0);
        if newest.state == DeploymentState::Success {
            assert_eq!(live, newest.release, "the new release is live");
        } else {
            assert_eq!(live, newest.previous.or(live.clone()), "the release before is live");
        }
        let fits = newest.state == outcome || may_fail && newest.state == DeploymentState::Failed;
        assert!(outcome != DeploymentState::Cancelled || may_fail || !rig.cancelled.is_empty());
        assert!(fits, "{outcome:?} was expected\n{}", rig.story().await);
    }

    /// Runs the whole matrix and returns its size.
    fn survive_everything(&self) {
        let mut changes = 0;
        let calls = || {
            on_paused_time(async {
                let mut rig = self.prepare().await;
                let before = *rig.control.news().borrow();
                rig.faults.record();
                self.play(&mut rig).await;
                let calls = rig.faults.recorded();
                changes = *rig.control.news().borrow() - before;
                self.check(&rig, false).await;
                calls
            })
        };
        let mut struck = 0;
        let mut broken = Vec::new();
        let runs = every_call(calls, |fault| match outcome_of(|| on_paused_time(self.run(fault.clone()))) {
            Ok(has_struck) => struck += usize::from(has_struck),
            Err(text) => broken.push(format!("{fault}: {text}")),
        });
        for change in 1..=changes {
            if let Err(text) = outcome_of(|| on_paused_time(self.crash_at(change))) {
                broken.push(format!("crash after change {change}: {text}"));
            }
        }
        println!("{runs} runs, {struck} with their fault, and {changes} crashes after a change of the state");
        assert!(broken.is_empty(), "{} of {runs} runs broke:\n{}", broken.len(), broken.join("\n"));
        assert!(struck * 10 >= runs * 9, "most faults must strike: {struck} of {runs}");
    }

    async fn crash_at(&self, change: u64) {
        let mut rig = self.prepare().await;
        rig.crash_after_changes = Some(*rig.control.news().borrow() + change);
        self.play(&mut rig).await;
        assert_eq!(rig.crashes, 1);
        self.check(&rig, false).await;
    }

    async fn run(&self, fault: Fault) -> bool {
        let mut rig = self.prepare().await;
        rig.faults.arm(fault.clone());
        self.play(&mut rig).await;
        self.check(&rig, fault.mode == Mode::FailOnce).await;
        rig.faults.has_struck()
    }
}

/// Returns what a run came to, or the beginning of its panic's text.
fn outcome_of<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        text.lines().take(4).collect::<Vec<_>>().join(" | ")
    })
}

#[test]
fn a_first_deployment_survives_every_fault() {
    Scenario {
        before: vec![],
        ask: Ask::Up(Box::new(App::new("one"))),
        outcome: Some(DeploymentState::Success),
    }
    .survive_everything();
}

#[test]
fn an_overlap_survives_every_fault() {
    let before = vec![App::new("one")];
    Scenario { before, ask: Ask::Up(Box::new(App::new("two"))), outcome: Some(DeploymentState::Success) }
        .survive_everything();
}

#[test]
fn an_overlap_that_fails_survives_every_fault() {
    let before = vec![App::new("one")];
    let bad = App::new("two").ends(Duration::from_millis(30), Exit::Code { code: 3 });
    Scenario { before, ask: Ask::Up(Box::new(bad)), outcome: Some(DeploymentState::Failed) }
        .survive_everything();
}

#[test]
fn a_held_handover_survives_every_fault() {
    let before = vec![App::new("one").with_volume()];
    Scenario {
        before,
        ask: Ask::Up(Box::new(App::new("two").with_volume())),
        outcome: Some(DeploymentState::Success),
    }
    .survive_everything();
}

#[test]
fn a_held_handover_that_fails_survives_every_fault() {
    let before = vec![App::new("one").with_volume()];
    let mut bad = App::new("two").with_volume().answers(500, "broken");
    bad.config.health.timeout = Duration::from_millis(200);
    Scenario { before, ask: Ask::Up(Box::new(bad)), outcome: Some(DeploymentState::Failed) }
        .survive_everything();
}

#[test]
fn a_rollback_survives_every_fault() {
    let before = vec![App::new("one").with_volume(), App::new("two").with_volume()];
    Scenario {
        before,
        ask: Ask::Wish(DeploymentWish::Rollback { version: None, with_data: false }),
        outcome: Some(DeploymentState::Success),
    }
    .survive_everything();
}

#[test]
fn a_rollback_with_data_survives_every_fault() {
    let before = vec![App::new("one").with_volume(), App::new("two").with_volume()];
    let ask = Ask::Wish(DeploymentWish::Rollback { version: None, with_data: true });
    Scenario { before, ask, outcome: Some(DeploymentState::Success) }.survive_everything();
}

#[test]
fn a_restore_survives_every_fault() {
    let before = vec![App::new("one").with_volume(), App::new("two").with_volume()];
    Scenario { before, ask: Ask::Restore(1), outcome: Some(DeploymentState::Success) }.survive_everything();
}

#[test]
fn a_restore_that_fails_survives_every_fault() {
    let mut needy = App::new("two").with_volume();
    needy.needs_writes = 1;
    let before = vec![App::new("one").with_volume(), needy];
    Scenario { before, ask: Ask::Restore(0), outcome: Some(DeploymentState::Failed) }.survive_everything();
}

#[test]
fn an_adoption_survives_every_fault() {
    let mut untidy = App::new("one").with_volume();
    untidy.strays = vec![StrayFile {
        path: "/app/ba.db".into(),
        host_path: "/top/app/ba.db".into(),
        size_bytes: 4096,
        is_database: true,
    }];
    let ask = Ask::Wish(DeploymentWish::Adopt { paths: vec!["/app/ba.db".into()], volume: None });
    Scenario { before: vec![untidy], ask, outcome: Some(DeploymentState::Success) }.survive_everything();
}

#[test]
fn a_rehearsal_survives_every_fault() {
    let mut careful = App::new("two").with_volume();
    careful.config.rehearse = true;
    let before = vec![App::new("one").with_volume()];
    Scenario { before, ask: Ask::Up(Box::new(careful)), outcome: Some(DeploymentState::Success) }
        .survive_everything();
}

#[test]
fn a_rehearsal_that_fails_survives_every_fault() {
    let mut bad = App::new("two").with_volume().ends(Duration::from_millis(30), Exit::Code { code: 3 });
    bad.config.rehearse = true;
    let before = vec![App::new("one").with_volume()];
    Scenario { before, ask: Ask::Up(Box::new(bad)), outcome: Some(DeploymentState::Failed) }
        .survive_everything();
}

#[test]
fn a_pre_deploy_command_survives_every_fault() {
    let before = vec![App::new("one").with_volume()];
    let good = Exit::Code { code: 0 };
    let app = App::new("two").with_volume().prepares(good.clone(), good);
    Scenario { before, ask: Ask::Up(Box::new(app)), outcome: Some(DeploymentState::Success) }
        .survive_everything();
}

#[test]
fn a_pre_deploy_command_that_fails_in_earnest_survives_every_fault() {
    let before = vec![App::new("one").with_volume()];
    let app = App::new("two").with_volume().prepares(Exit::Code { code: 0 }, Exit::Code { code: 3 });
    Scenario { before, ask: Ask::Up(Box::new(app)), outcome: Some(DeploymentState::Failed) }
        .survive_everything();
}

#[test]
fn a_restart_survives_every_fault() {
    let before = vec![App::new("one")];
    Scenario { before, ask: Ask::Wish(DeploymentWish::Restart), outcome: Some(DeploymentState::Success) }
        .survive_everything();
}

#[test]
fn a_stop_survives_every_fault() {
    let before = vec![App::new("one").with_volume()];
    Scenario { before, ask: Ask::Down, outcome: None }.survive_everything();
}

#[test]
fn a_crash_of_the_app_survives_every_fault() {
    let before = vec![App::new("one").with_volume()];
    Scenario { before, ask: Ask::Kill, outcome: None }.survive_everything();
}

/// A live release and another one, both slow enough to be caught at every step.
fn slow_pair(has_volume: bool) -> [App; 3] {
    ["one", "two", "three"].map(|name| {
        let mut app = App::new(name);
        app.listens_after = Some(Duration::from_millis(200));
        app.stop_takes = Duration::from_millis(120);
        if has_volume { app.with_volume() } else { app }
    })
}

fn cancelled_at(step: Step, has_volume: bool) {
    let [one, two, _] = slow_pair(has_volume);
    let (before, ask) = (vec![one], Ask::Cancel(Box::new(two), step));
    Scenario { before, ask, outcome: Some(DeploymentState::Cancelled) }.survive_everything();
}

fn overtaken_at(step: Step, has_volume: bool) {
    let [one, two, three] = slow_pair(has_volume);
    let (before, ask) = (vec![one], Ask::Overtake(Box::new(two), step, Box::new(three)));
    Scenario { before, ask, outcome: Some(DeploymentState::Success) }.survive_everything();
}

#[test]
fn a_cancelled_build_survives_every_fault() {
    cancelled_at(Step::Build, true);
}

#[test]
fn a_cancelled_stop_survives_every_fault() {
    cancelled_at(Step::Stop, true);
}

#[test]
fn a_cancelled_health_survives_every_fault() {
    cancelled_at(Step::Health, true);
    cancelled_at(Step::Health, false);
}

#[test]
fn an_overtaken_build_survives_every_fault() {
    overtaken_at(Step::Build, true);
}

#[test]
fn an_overtaken_stop_survives_every_fault() {
    overtaken_at(Step::Stop, true);
}

#[test]
fn an_overtaken_health_survives_every_fault() {
    overtaken_at(Step::Health, true);
    overtaken_at(Step::Health, false);
}
