//! Seeded random schedules: people, crashes and bad apps in any order, and every invariant at the end.

use std::time::Duration;

use trackbed_control::DeploymentWish;
use trackbed_core::DeploymentId;
use trackbed_core::instance::Exit;
use trackbed_testkit::faults::{Call, Fault, Mode};
use trackbed_testkit::{App, Ending};

use crate::rig::{Rig, on_paused_time};

/// How many schedules are played, without a volume and with one.
const SCHEDULES: u64 = 100;

/// xorshift64*: small, seeded, and the same everywhere.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

fn app(dice: &mut Dice, has_volume: bool) -> App {
    let mut app = App::new(&format!("app {}", dice.below(1 << 40)));
    if has_volume {
        app = app.with_volume();
    }
    app.build_takes = Duration::from_millis(dice.below(3000));
    app.stop_takes = Duration::from_millis(dice.below(1000));
    app.ignores_term = dice.below(8) == 0;
    app.listens_after = (dice.below(8) != 0).then(|| Duration::from_millis(dice.below(4000)));
    app.config.health.timeout = Duration::from_secs(6);
    match dice.below(10) {
        0 => app = app.ends(Duration::from_millis(dice.below(2000)), Exit::Code { code: 1 }),
        1 => {
            let after = Duration::from_millis(dice.below(9000));
            app.ending = Some(Ending { after, exit: Exit::Code { code: 2 }, starts: Some(2) });
        }
        2 => app = app.answers(500, "broken"),
        _ => {}
    }
    app
}

async fn ask(rig: &Rig, dice: &mut Dice, asked: &mut Vec<DeploymentId>, has_volume: bool) {
    let wish = match dice.below(5) {
        0 => DeploymentWish::Rollback { version: None, with_data: false },
        1 => DeploymentWish::Restart,
        2 => DeploymentWish::Redeploy,
        _ => return asked.push(rig.up(&app(dice, has_volume)).await),
    };
    // Refused when there is nothing to go back to.
    asked.extend(rig.wish("web", wish).await.ok().map(|deployment| deployment.id));
}

fn kill_one(rig: &Rig, dice: &mut Dice) {
    let living = rig.world.living();
    if living.is_empty() {
        return;
    }
    let index = usize::try_from(dice.below(living.len() as u64)).unwrap();
    let exit = if dice.below(3) == 0 { Exit::Lost } else { Exit::Signal { signal: 11 } };
    rig.world.kill(&living[index].spec.id, exit);
}

fn arm(rig: &Rig, dice: &mut Dice) {
    const NAMES: [&str; 8] = [
        "engine.start",
        "engine.stop",
        "engine.inspect",
        "engine.address",
        "edge.apply",
        "edge.stats",
        "edge.probe",
        "volumes.ensure",
    ];
    let name = NAMES[usize::try_from(dice.below(8)).unwrap()];
    let call = Call { name, number: 1 + u32::try_from(dice.below(4)).unwrap() };
    let mode = Mode::ALL[usize::try_from(dice.below(4)).unwrap()];
    rig.faults.arm(Fault { call, mode });
}

async fn play(seed: u64, has_volume: bool) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut rig = Rig::new().await;
    let mut asked = vec![rig.up(&app(&mut dice, has_volume)).await];
    for _ in 0..4 + dice.below(12) {
        match dice.below(9) {
            // Refused when nothing is under way.
            8 => drop(rig.cancel().await),
            0..3 => ask(&rig, &mut dice, &mut asked, has_volume).await,
            3 => rig.down().await,
            4 => rig.crash().await,
            5 => kill_one(&rig, &mut dice),
            6 => arm(&rig, &mut dice),
            _ => rig.world.lose_power(),
        }
        rig.pass_time(Duration::from_millis(dice.below(6000))).await;
    }
    for id in &asked {
        rig.finish(id).await;
    }
    rig.settle().await;
}

#[test]
fn any_schedule_ends_with_one_release_serving_or_none_wanted() {
    play_all(false);
}

#[test]
fn any_schedule_with_a_volume_ends_with_one_release_serving_or_none_wanted() {
    play_all(true);
}

fn play_all(has_volume: bool) {
    let only = std::env::var("TRACKBED_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = only.map_or(0..SCHEDULES, |seed| seed..seed + 1);
    let mut broken = Vec::new();
    for seed in seeds {
        let run = || on_paused_time(play(seed, has_volume));
        if let Err(panic) = std::panic::catch_unwind(run) {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            let lines: Vec<_> = text.lines().take(if only.is_some() { 1000 } else { 2 }).collect();
            broken.push(format!("TRACKBED_SEED={seed} (volume: {has_volume}): {}", lines.join("\n")));
        }
    }
    assert!(broken.is_empty(), "{} schedules broke:\n{}", broken.len(), broken.join("\n"));
}
