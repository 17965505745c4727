//! Retention: what goes, and what never does, over seeded random histories and on the box of fakes.

use std::collections::HashSet;

use trackbed_control::retention::{Room, expired, kept_at_least};
use trackbed_core::restore_point::{
    Capture, Consistency, PointReason, Proof, ProofVerdict, RestorePoint, Schedule,
};
use trackbed_core::{DeploymentId, RestorePointId, Timestamp};
use trackbed_testkit::App;

use crate::data_rig::{DAY_MS, HOUR_MS, MINUTE};
use crate::rig::{Rig, on_paused_time};
use crate::schedules::Dice;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn id(number: u64) -> RestorePointId {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RestorePointId::from_random(bytes)
}

fn point(number: u64, taken_at: i64, reason: PointReason) -> RestorePoint {
    RestorePoint {
        id: id(number),
        volume: "vol_0000000000000000".parse().unwrap(),
        service: "svc_0000000000000000".parse().unwrap(),
        taken_at: Timestamp(taken_at),
        reason,
        release: None,
        capture: Capture {
            consistency: Consistency::Instant,
            pause_ms: 0,
            files: 0,
            bytes: 0,
            stored_bytes: 0,
            databases: Vec::new(),
            skipped: Vec::new(),
        },
        proof: None,
    }
}

fn proof(verdict: ProofVerdict) -> Option<Proof> {
    Some(Proof { at: NOW, verdict, took_ms: 1 })
}

fn scheduled(schedules: &[Schedule]) -> PointReason {
    PointReason::Schedule { schedules: schedules.to_vec() }
}

/// Every hour for so many days, as the ticks fall.
fn history(days: i64) -> Vec<RestorePoint> {
    (0..days * 24)
        .map(|hour| {
            let mut schedules = vec![Schedule::Hourly];
            schedules.extend((hour % 24 == 0).then_some(Schedule::Daily));
            schedules.extend((hour % (7 * 24) == 0).then_some(Schedule::Weekly));
            schedules.extend((hour % (30 * 24) == 0).then_some(Schedule::Monthly));
            point(u64::try_from(hour).unwrap(), NOW.0 - hour * HOUR_MS, scheduled(&schedules))
        })
        .collect()
}

fn kept(points: &[RestorePoint], schedules: &[Schedule], now: Timestamp) -> Vec<RestorePoint> {
    let gone = expired(points, schedules, &HashSet::new(), Room::Enough, now);
    points.iter().filter(|point| !gone.contains(&point.id)).cloned().collect()
}

fn of(points: &[RestorePoint], schedule: Schedule) -> usize {
    let serves = |point: &&RestorePoint| match &point.reason {
        PointReason::Schedule { schedules } => schedules.contains(&schedule),
        _ => false,
    };
    points.iter().filter(serves).count()
}

#[test]
fn a_day_of_hours_six_days_a_month_of_weeks_and_three_months_are_kept() {
    let kept = kept(&history(365), &Schedule::ALL, NOW);
    assert_eq!(of(&kept, Schedule::Weekly), 5, "the weeks that began within a month");
    assert_eq!(of(&kept, Schedule::Monthly), 3);
    let youngest: Vec<_> = kept.iter().filter(|point| point.taken_at.0 > NOW.0 - DAY_MS).collect();
    assert_eq!(youngest.len(), 24);
    let days = kept.iter().filter(|point| point.taken_at.0 > NOW.0 - 6 * DAY_MS).count();
    assert_eq!(days, 24 + 5);
}

#[test]
fn a_clock_that_is_ten_years_ahead_keeps_the_newest_of_each_schedule() {
    let ahead = Timestamp(NOW.0 + 3650 * DAY_MS);
    let kept = kept(&history(90), &Schedule::ALL, ahead);
    for schedule in Schedule::ALL {
        let count = of(&kept, schedule);
        assert!(count >= kept_at_least(schedule).min(3), "{schedule:?}: {count}");
    }
    assert!(of(&kept, Schedule::Hourly) >= 24);
}

#[test]
fn a_clock_set_back_removes_nothing_that_was_kept() {
    let points = kept(&history(365), &Schedule::ALL, NOW);
    for back in [HOUR_MS, DAY_MS, 400 * DAY_MS] {
        assert_eq!(kept(&points, &Schedule::ALL, Timestamp(NOW.0 - back)).len(), points.len(), "{back}");
    }
}

#[test]
fn points_of_a_schedule_that_is_no_longer_set_go_by_their_age_alone() {
    let kept = kept(&history(30), &[Schedule::Daily], Timestamp(NOW.0 + 2 * DAY_MS));
    assert_eq!(of(&kept, Schedule::Hourly), of(&kept, Schedule::Daily), "{}", kept.len());
}

#[test]
fn what_somebody_asked_for_is_kept_for_a_month_and_the_last_three_for_ever() {
    let points: Vec<_> = (0..10)
        .map(|n| point(n, NOW.0 - i64::try_from(n).unwrap() * 10 * DAY_MS, PointReason::Command))
        .collect();
    assert_eq!(kept(&points, &[], NOW).len(), 3);
    assert_eq!(kept(&points, &[], Timestamp(NOW.0 + 9 * DAY_MS)).len(), 3);
    assert_eq!(kept(&points, &[], Timestamp(NOW.0 + 1000 * DAY_MS)).len(), 3);
}

#[test]
fn a_pin_is_kept_for_a_week_and_as_long_as_it_is_wanted() {
    let deployment: DeploymentId = "dep_0000000000000000".parse().unwrap();
    let pin = |number, age| {
        let reason = PointReason::Deployment { deployment: deployment.clone() };
        point(number, NOW.0 - age, reason)
    };
    let points = [pin(1, 0), pin(2, 6 * DAY_MS), pin(3, 8 * DAY_MS), pin(4, 9 * DAY_MS)];
    let wanted = HashSet::from([id(4)]);
    assert_eq!(expired(&points, &[], &wanted, Room::Enough, NOW), [id(3)]);
}

/// A random history: any reasons, ages, proofs and clocks.
fn random(dice: &mut Dice) -> Vec<RestorePoint> {
    let deployment: DeploymentId = "dep_0000000000000000".parse().unwrap();
    let count = 1 + dice.below(80);
    (0..count)
        .map(|number| {
            let reason = match dice.below(6) {
                0 => PointReason::Command,
                1 => PointReason::BeforeRestore { deployment: deployment.clone() },
                2 => PointReason::Deployment { deployment: deployment.clone() },
                _ => {
                    let chosen = Schedule::ALL.into_iter().filter(|_| dice.below(2) == 0);
                    scheduled(&chosen.collect::<Vec<_>>())
                }
            };
            let spread = u64::try_from([HOUR_MS, 10 * DAY_MS, 400 * DAY_MS][(number % 3) as usize]).unwrap();
            // Some were taken while the clock was wrong.
            let age =
                i64::try_from(dice.below(spread)).unwrap() - [0, 0, 0, 50 * DAY_MS][(number % 4) as usize];
            let mut point = point(number, NOW.0 - age, reason);
            point.proof = match dice.below(4) {
                0 => None,
                1 => proof(ProofVerdict::Broken { reason: "rotten".into() }),
                _ => proof(ProofVerdict::Proven { databases: 1, rows: 1 }),
            };
            point
        })
        .collect()
}

#[test]
fn whatever_the_history_what_must_stay_stays() {
    for seed in 1..3000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let points = random(&mut dice);
        let wanted: HashSet<_> =
            points.iter().filter(|_| dice.below(5) == 0).map(|point| point.id.clone()).collect();
        let schedules: Vec<_> = Schedule::ALL.into_iter().filter(|_| dice.below(2) == 0).collect();
        let now = Timestamp(NOW.0 + i64::try_from(dice.below(5_000)).unwrap() * DAY_MS - 1000 * DAY_MS);
        for room in [Room::Enough, Room::Scarce] {
            let gone: HashSet<_> = expired(&points, &schedules, &wanted, room, now).into_iter().collect();
            assert!(gone.is_disjoint(&wanted), "seed {seed}: something refers to it");
            assert!(gone.len() < points.len(), "seed {seed}: never the only one");
            let newest = |what: fn(&RestorePoint) -> bool| {
                let matching = points.iter().filter(|point| what(point));
                matching.max_by_key(|point| (point.taken_at, point.id.clone())).map(|point| &point.id)
            };
            let proven = newest(RestorePoint::is_proven);
            let sound = newest(|point| !point.is_broken());
            assert!(proven.is_none_or(|id| !gone.contains(id)), "seed {seed}: the last proven one");
            assert!(sound.is_none_or(|id| !gone.contains(id)), "seed {seed}: the newest good one");
            for schedule in &schedules {
                let mut sound: Vec<_> = points
                    .iter()
                    .filter(|point| !point.is_broken())
                    .filter(|point| matches!(&point.reason, PointReason::Schedule { schedules } if schedules.contains(schedule)))
                    .collect();
                sound.sort_by_key(|point| std::cmp::Reverse((point.taken_at, point.id.clone())));
                let mut places = sound.iter().take(kept_at_least(*schedule));
                let is_kept = places.all(|point| !gone.contains(&point.id));
                assert!(is_kept || room == Room::Scarce, "seed {seed}: the newest of {schedule:?}");
            }
            // What is left is left: a second look at the same moment takes nothing more.
            let left: Vec<_> = points.iter().filter(|point| !gone.contains(&point.id)).cloned().collect();
            let again = expired(&left, &schedules, &wanted, room, now);
            assert!(again.is_empty(), "seed {seed}: {room:?} takes more the second time");
        }
    }
}

#[test]
fn old_points_and_their_data_go_and_what_a_rollback_may_want_stays() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let mut asked = Vec::new();
        for _ in 0..5 {
            asked.push(rig.snapshot().await);
        }
        let pinned = rig.deploy_well(&App::new("two").with_volume()).await.pins[0].point.clone();
        for (index, point) in asked.iter().enumerate() {
            rig.age_point(&point.id, (100 - i64::try_from(index).unwrap()) * DAY_MS).await;
        }
        rig.age_point(&pinned, 50 * DAY_MS).await;
        rig.pass_time(85 * MINUTE).await;
        let left: Vec<_> = rig.all_points().await.into_iter().map(|point| point.id).collect();
        assert!(left.contains(&pinned), "one of the last deployments took it");
        let is_left: Vec<_> = asked.iter().map(|point| left.contains(&point.id)).collect();
        assert_eq!(is_left, [false, false, true, true, true]);
        for point in &asked {
            let has_data = rig.world.point(&point.volume, &point.id).is_some();
            assert_eq!(has_data, left.contains(&point.id), "the data goes with the point");
        }
    });
}

#[test]
fn nothing_goes_for_its_age_before_the_clock_has_gone_steadily_for_an_hour() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        for _ in 0..5 {
            rig.snapshot().await;
        }
        let before = rig.all_points().await.len();
        rig.pass_time(2 * MINUTE).await;
        trackbed_testkit::clock::jump(1000 * DAY_MS);
        rig.pass_time(40 * MINUTE).await;
        trackbed_testkit::clock::jump(-1000 * DAY_MS);
        rig.pass_time(40 * MINUTE).await;
        let left = rig.all_points().await;
        assert!(left.len() >= before, "{} of {before} are left", left.len());
    });
}

#[test]
fn what_was_set_aside_goes_two_days_after_its_deployment() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let point = rig.snapshot().await;
        let wish = trackbed_control::DeploymentWish::Restore {
            volume: None,
            at: trackbed_control::PointAt::Id(point.id),
        };
        let restore = rig.wish("web", wish).await.unwrap().id;
        rig.finish(&restore).await;
        assert!(!rig.world.stages().is_empty(), "what was replaced lies beside the volume");
        rig.sleep_through(47 * HOUR_MS).await;
        rig.pass_time(50 * MINUTE).await;
        assert!(!rig.world.stages().is_empty());
        rig.sleep_through(2 * HOUR_MS).await;
        rig.pass_time(85 * MINUTE).await;
        assert!(rig.world.stages().is_empty(), "{:?}", rig.world.stages());
    });
}

#[test]
fn a_point_that_keeps_space_from_being_freed_is_told_once_and_stays_a_warning_until_it_goes() {
    on_paused_time(async {
        let mut rig = Rig::with_data().await;
        let bad = rig.snapshot().await;
        rig.snapshot().await;
        rig.world.damage_manifest(&bad.id);
        let said = format!("restore point {} cannot be read, so no space", bad.id);
        let told = async |rig: &Rig| {
            let newest = rig.control.deployments(&rig.service().await, 1).await.unwrap().remove(0);
            rig.events(&newest.id).await.iter().filter(|event| event.message.contains(&said)).count()
        };
        rig.pass_time(13 * 60 * MINUTE).await;
        assert_eq!(told(&rig).await, 1);
        rig.crash().await;
        rig.pass_time(13 * 60 * MINUTE).await;
        assert_eq!(told(&rig).await, 1, "not again by another control plane");
        let warnings = rig.warnings().await;
        let way_out = format!("trackbed volume forget data {}", bad.id);
        assert!(warnings.iter().any(|text| text.contains(&said) && text.contains(&way_out)), "{warnings:?}");
        rig.control.remove_restore_point(&rig.service().await, &bad.id).await.unwrap();
        rig.pass_time(13 * 60 * MINUTE).await;
        assert!(!rig.warnings().await.iter().any(|text| text.contains(&said)));
    });
}
