//! How fast data comes back, beside `cp` and `sync` of the same files. Run by hand:
//! `cargo test --release -p trackbed-volume --test restore_speed -- --ignored --nocapture`.
#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "it prints figures")]

mod world;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use trackbed_core::ports::{Depth, PointData, Volumes};
use world::{World, deployment};

const ROUNDS: u8 = 3;

fn copy_and_sync(world: &World) -> Duration {
    let target = world.folder.path().join("copied");
    let began = Instant::now();
    assert!(Command::new("cp").arg("-a").arg(world.data()).arg(&target).status().unwrap().success());
    assert!(Command::new("sync").arg("-f").arg(&target).status().unwrap().success());
    let took = began.elapsed();
    fs::remove_dir_all(target).unwrap();
    took
}

async fn staged(world: &World, point: &PointData, depth: Depth) -> Duration {
    let began = Instant::now();
    world.volumes.stage(&world.volume, point, &deployment(1), depth).await.unwrap();
    let took = began.elapsed();
    world.volumes.discard(&world.volume.id, &deployment(1)).await.unwrap();
    took
}

async fn measure(world: &World, what: &str) {
    let began = Instant::now();
    let point = world.capture().await;
    eprintln!("{what}: captured in {:.2?}", began.elapsed());
    for round in 0..ROUNDS {
        let mut times = [Duration::ZERO; 3];
        // Nobody always goes first.
        for turn in 0..3 {
            let which = usize::from((turn + round) % 3);
            times[which] = match which {
                0 => copy_and_sync(world),
                1 => staged(world, &point, Depth::Digests).await,
                _ => staged(world, &point, Depth::Content).await,
            };
        }
        let [copied, digests, content] = times;
        eprintln!(
            "{what}: cp + sync {copied:.2?}; digests {digests:.2?} ({:.2}x); content {content:.2?} ({:.2}x)",
            copied.as_secs_f64() / digests.as_secs_f64(),
            copied.as_secs_f64() / content.as_secs_f64(),
        );
    }
    let proof = world.volumes.prove(&point).await.unwrap();
    eprintln!("{what}: proof {} ms, {:?}", proof.took_ms, proof.verdict);
}

#[tokio::test]
#[ignore = "takes minutes and says nothing about right and wrong"]
async fn a_gigabyte() {
    let world = World::new().await;
    let connection = Connection::open(world.data().join("app.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<560000)
             INSERT INTO t SELECT i, hex(randomblob(200)), randomblob(500) FROM n;",
        )
        .unwrap();
    drop(connection);
    for file in 0..7 {
        fs::write(world.data().join(format!("uploads-{file}.bin")), world::noise(50 << 20)).unwrap();
    }
    for file in 0..500 {
        fs::write(world.data().join(format!("small-{file}")), world::noise(4000)).unwrap();
    }
    measure(&world, "1 GB").await;
}

#[tokio::test]
#[ignore = "takes minutes and says nothing about right and wrong"]
async fn a_hundred_thousand_files() {
    let world = World::new().await;
    for folder in 0..100 {
        let folder = world.data().join(format!("folder-{folder}"));
        fs::create_dir(&folder).unwrap();
        for file in 0..1000 {
            fs::write(folder.join(format!("file-{file}")), format!("{file} in {}", folder.display()))
                .unwrap();
        }
    }
    measure(&world, "100,000 files").await;
}
