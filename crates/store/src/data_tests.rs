//! Tests of volumes, restore points and links, on the database itself.

use rusqlite::Connection;
use trackbed_core::instance::AppLink;
use trackbed_core::restore_point::{
    Capture, Consistency, PointReason, Proof, ProofVerdict, RestorePoint, Schedule,
};
use trackbed_core::volume::Volume;
use trackbed_core::{RestorePointId, ServiceId, Timestamp, VolumeId};

use crate::{Key, Store};

const SERVICE: &str = "svc_0000000000000000";

/// A row of every kind that format 3 has.
const OF_FORMAT_3: &str = "
    INSERT INTO settings VALUES ('route_sequence', '7');
    INSERT INTO projects VALUES ('prj_0000000000000000', 'web', 1);
    INSERT INTO environments VALUES ('env_0000000000000000', 'prj_0000000000000000', 'production');
    INSERT INTO services (id, environment, name, host, number, wanted, live, created_at, stopped_at, stopped_after)
        VALUES ('svc_0000000000000000', 'env_0000000000000000', 'web', 'web.localhost', 1, 'running', NULL, 1, 0, 0);
    INSERT INTO variables VALUES ('svc_0000000000000000', 'A', x'00', 1);
    INSERT INTO volumes VALUES ('vol_0000000000000000', 'svc_0000000000000000', 'data', '/data', 5);
    INSERT INTO volumes VALUES ('vol_0000000000000001', 'svc_0000000000000000', 'deep', '/data/deep', 6);
    INSERT INTO sources VALUES ('source', 1);
    INSERT INTO releases VALUES ('rel_0000000000000000', 'svc_0000000000000000', 1, '{}', x'00', 1);
    INSERT INTO deployments (id, service, state, body, created_at, finished, number, cancelled)
        VALUES ('dep_0000000000000000', 'svc_0000000000000000', 'success', '{}', 1, 1, 1, 0);
    INSERT INTO events VALUES ('dep_0000000000000000', 1, '{}');
    PRAGMA user_version = 3;";

struct World {
    _folder: tempfile::TempDir,
    store: Store,
}

fn service() -> ServiceId {
    SERVICE.parse().unwrap()
}

fn volume_id(number: u8) -> VolumeId {
    format!("vol_000000000000000{number}").parse().unwrap()
}

/// A database of format 3, brought up.
fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let old = Connection::open(&path).unwrap();
    for migration in [
        include_str!("../migrations/1-first.sql"),
        include_str!("../migrations/2-stopped.sql"),
        include_str!("../migrations/3-order.sql"),
    ] {
        old.execute_batch(migration).unwrap();
    }
    old.execute_batch(OF_FORMAT_3).unwrap();
    drop(old);
    let store = Store::open(&path, Key::for_tests()).unwrap();
    World { _folder: folder, store }
}

impl World {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&crate::Db<'_>) -> Result<T, crate::StoreError> + Send + 'static,
    ) -> T {
        self.store.with(work).await.unwrap()
    }

    async fn refusal(
        &self,
        work: impl FnOnce(&crate::Db<'_>) -> Result<(), crate::StoreError> + Send + 'static,
    ) -> String {
        self.store.with(work).await.expect_err("must refuse").to_string()
    }
}

fn point(number: u8, taken_at: i64) -> RestorePoint {
    RestorePoint {
        id: RestorePointId::from_random([number; 10]),
        volume: volume_id(0),
        service: service(),
        taken_at: Timestamp(taken_at),
        reason: PointReason::Schedule { schedules: vec![Schedule::Daily] },
        release: None,
        capture: Capture {
            consistency: Consistency::Instant,
            pause_ms: 3,
            files: 1,
            bytes: 2,
            stored_bytes: 2,
            databases: vec!["app.db".into()],
            skipped: Vec::new(),
        },
        proof: None,
    }
}

#[tokio::test]
async fn a_row_of_every_kind_survives_the_migration_from_format_3() {
    let world = world();
    let counts = world
        .with(|db| {
            let tables = [
                "settings",
                "projects",
                "environments",
                "services",
                "variables",
                "volumes",
                "sources",
                "releases",
                "deployments",
                "events",
            ];
            let count = |table| {
                db.sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
            };
            Ok(tables.into_iter().map(count).collect::<Result<Vec<_>, _>>()?)
        })
        .await;
    assert_eq!(counts, [1, 1, 1, 1, 1, 2, 1, 1, 1, 1]);
    let volumes = world.with(|db| db.list_volumes(&service())).await;
    let (name, mount) = ("data".parse().unwrap(), "/data".parse().unwrap());
    assert_eq!(volumes[0], Volume::new(volume_id(0), service(), name, mount, Timestamp(5)));
    let broken = world
        .with(|db| {
            let mut query = db.sql.prepare("PRAGMA foreign_key_check")?;
            Ok(query.exists([])?)
        })
        .await;
    assert!(!broken, "every reference still leads somewhere");
}

#[tokio::test]
async fn a_removed_volume_frees_its_name_and_comes_back_when_nothing_took_it() {
    let world = world();
    world.with(|db| db.remove_volume(&volume_id(0), Timestamp(50))).await;
    let left = world.with(|db| db.list_volumes(&service())).await;
    assert_eq!(left.len(), 1);
    let removed = world.with(|db| db.list_removed_volumes(&service())).await;
    assert_eq!(removed[0].removed_at, Some(Timestamp(50)));

    let (name, mount) = ("data".parse().unwrap(), "/data".parse().unwrap());
    let successor = Volume::new(volume_id(2), service(), name, mount, Timestamp(60));
    world.with(move |db| db.add_volume(&successor)).await;
    let refusal = world.refusal(|db| db.undelete_volume(&volume_id(0))).await;
    assert!(refusal.contains("already has a volume `data`"), "{refusal}");

    world.with(|db| db.remove_volume(&volume_id(2), Timestamp(70))).await;
    world.with(|db| db.undelete_volume(&volume_id(0))).await;
    let volumes = world.with(|db| db.list_volumes(&service())).await;
    assert_eq!(volumes[0].id, volume_id(0));
    assert_eq!(volumes[0].removed_at, None);
}

#[tokio::test]
async fn only_a_removed_volume_is_erased_and_then_it_does_not_come_back() {
    let world = world();
    let refusal = world.refusal(|db| db.set_erased(&volume_id(0), Timestamp(9))).await;
    assert!(refusal.contains("is not removed"), "{refusal}");
    world.with(|db| db.remove_volume(&volume_id(0), Timestamp(10))).await;
    assert_eq!(world.with(|db| db.list_volumes_to_erase()).await.len(), 1);
    world.with(|db| db.set_erased(&volume_id(0), Timestamp(20))).await;
    let refusal = world.refusal(|db| db.undelete_volume(&volume_id(0))).await;
    assert!(refusal.contains("deleted for good"), "{refusal}");
    assert!(world.with(|db| db.list_removed_volumes(&service())).await.is_empty());
}

#[tokio::test]
async fn an_erased_volume_is_forgotten_with_its_last_point() {
    let world = world();
    world.with(|db| db.add_restore_point(&point(1, 10))).await;
    world.with(|db| db.set_tick(&volume_id(0), Schedule::Daily, Timestamp(10))).await;
    world.with(|db| db.remove_volume(&volume_id(0), Timestamp(10))).await;
    assert!(!world.with(|db| db.forget_volume(&volume_id(0))).await, "it is not erased");
    world.with(|db| db.set_erased(&volume_id(0), Timestamp(20))).await;
    assert!(!world.with(|db| db.forget_volume(&volume_id(0))).await, "it has a point");
    assert_eq!(world.with(|db| db.list_ticks(&volume_id(0))).await.len(), 1);
    world.with(|db| db.remove_restore_point(&point(1, 10).id)).await;
    assert!(world.with(|db| db.forget_volume(&volume_id(0))).await);
    assert!(world.with(|db| db.list_erased_volumes()).await.is_empty());
}

#[tokio::test]
async fn schedules_and_limit_of_a_volume_read_back_as_set() {
    let world = world();
    let schedules = [Schedule::Weekly, Schedule::Monthly];
    world.with(move |db| db.set_schedules(&volume_id(1), &schedules)).await;
    world.with(|db| db.set_volume_limit(&volume_id(1), Some(1 << 40))).await;
    let volume = world.with(|db| db.find_volume(&volume_id(1))).await.unwrap();
    assert_eq!(volume.schedules, schedules);
    assert_eq!(volume.limit_bytes, Some(1 << 40));
    world.with(|db| db.set_schedules(&volume_id(1), &[])).await;
    world.with(|db| db.set_volume_limit(&volume_id(1), None)).await;
    let volume = world.with(|db| db.find_volume(&volume_id(1))).await.unwrap();
    assert_eq!((volume.schedules, volume.limit_bytes), (Vec::new(), None));
}

#[tokio::test]
async fn a_time_finds_the_newest_point_before_it_that_is_not_broken() {
    let world = world();
    for (number, at) in [(1, 10), (2, 20), (3, 30)] {
        world.with(move |db| db.add_restore_point(&point(number, at))).await;
    }
    let find = |at| world.with(move |db| db.find_point_at(&volume_id(0), Timestamp(at)));
    assert_eq!(find(25).await, Some(point(2, 20)));
    assert_eq!(find(20).await, Some(point(2, 20)));
    assert_eq!(find(9).await, None);
    let verdict = ProofVerdict::Broken { reason: "chunk missing".into() };
    let proof = Proof { at: Timestamp(40), verdict, took_ms: 1 };
    world.with(move |db| db.set_proof(&point(2, 20).id, proof)).await;
    assert_eq!(find(25).await, Some(point(1, 10)), "the next older one is offered");
    let listed = world.with(|db| db.list_restore_points(&volume_id(0))).await;
    assert_eq!(listed.iter().map(|point| point.taken_at.0).collect::<Vec<_>>(), [30, 20, 10]);
    assert!(listed[1].is_broken());
}

#[tokio::test]
async fn a_point_that_is_added_again_keeps_what_is_known_of_it() {
    let world = world();
    world.with(|db| db.add_restore_point(&point(1, 10))).await;
    let verdict = ProofVerdict::Proven { databases: 1, rows: 5 };
    let proof = Proof { at: Timestamp(40), verdict, took_ms: 1 };
    world.with(move |db| db.set_proof(&point(1, 10).id, proof)).await;
    world.with(|db| db.add_restore_point(&point(1, 10))).await;
    assert!(world.with(|db| db.find_restore_point(&point(1, 10).id)).await.unwrap().is_proven());
    assert_eq!(world.with(|db| db.list_kept_data()).await.len(), 1);
}

#[tokio::test]
async fn a_proof_of_a_removed_point_does_not_bring_it_back() {
    let world = world();
    let verdict = ProofVerdict::Proven { databases: 1, rows: 5 };
    let proof = Proof { at: Timestamp(40), verdict, took_ms: 1 };
    world.with(move |db| db.set_proof(&point(1, 10).id, proof)).await;
    assert_eq!(world.with(|db| db.list_all_points()).await, []);
}

#[tokio::test]
async fn a_link_is_replaced_by_a_later_one_at_the_same_place() {
    let world = world();
    for to in ["/data/a.db", "/data/b.db"] {
        let link = AppLink { at: "/app/x.db".into(), to: to.into() };
        world.with(move |db| db.set_app_link(&service(), &link)).await;
    }
    let links = world.with(|db| db.list_app_links(&service())).await;
    assert_eq!(links, [AppLink { at: "/app/x.db".into(), to: "/data/b.db".into() }]);
    assert!(world.with(|db| db.remove_app_link(&service(), "/app/x.db")).await);
}

#[tokio::test]
async fn the_last_served_tick_of_each_schedule_is_kept() {
    let world = world();
    for (schedule, at) in [(Schedule::Hourly, 1), (Schedule::Daily, 2), (Schedule::Hourly, 3)] {
        world.with(move |db| db.set_tick(&volume_id(0), schedule, Timestamp(at))).await;
    }
    let mut ticks = world.with(|db| db.list_ticks(&volume_id(0))).await;
    ticks.sort();
    assert_eq!(ticks, [(Schedule::Hourly, Timestamp(3)), (Schedule::Daily, Timestamp(2))]);
}

#[tokio::test]
async fn deployments_of_an_earlier_format_have_no_stages() {
    let world = world();
    let with_stages = world
        .with(|db| {
            let sql = "SELECT count(*) FROM deployments WHERE stages = 1";
            Ok(db.sql.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        })
        .await;
    assert_eq!(with_stages, 0);
    assert!(world.with(|db| db.list_with_stages()).await.is_empty());
}
