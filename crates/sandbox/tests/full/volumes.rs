//! Volumes: who may write, and when the next one may.

use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::ports::Engine;

use crate::world::{self, World, refused, wait_for};

#[tokio::test]
async fn a_volume_is_written_kept_and_never_shared() {
    let Some(world) = World::full() else { return };
    let volume = world.volume("/data");
    let with_volume = |command: &str| InstanceSpec { volumes: vec![volume.clone()], ..world.spec(command) };
    // A grandchild that ignores SIGTERM keeps the volume: the lock follows the last process, not the first.
    let first = with_volume("echo kept > /data/file; sh -c 'trap \"\" TERM; sleep 1000' & echo up; wait");
    world.sandbox.start(&first).await.unwrap();
    world.until_logged(&first.id, "up").await;
    let second = with_volume("cat /data/file; ls -ln /data");
    let message = refused(world.sandbox.start(&second).await);
    assert!(message.contains("is in use by assistant v1"), "{message}");
    assert!(matches!(world.ended(&second.id).await, Exit::Setup { .. }));
    world.sandbox.stop(&first.id, Duration::from_millis(300)).await.unwrap();
    assert!(
        trackbed_stdx::files::try_lock(volume.lock_path.as_ref()).unwrap().is_some(),
        "the lock is not free"
    );
    let third = with_volume("cat /data/file");
    let (exit, log) = world.run(&third).await;
    assert!(exit.is_success() && log == "kept\n", "{exit} {log}");
    let lock = std::fs::read_to_string(&volume.lock_path).unwrap();
    assert!(lock.contains("\"fence\":2"), "{lock}");
    world.close().await;
}

#[tokio::test]
async fn a_volume_is_shared_by_those_who_say_so_and_by_nobody_else() {
    let Some(world) = World::full() else { return };
    let alone = world.volume("/data");
    let shared = trackbed_core::instance::VolumeMount { shared: true, ..alone.clone() };
    let holds = |volume: &trackbed_core::instance::VolumeMount, command: &str| InstanceSpec {
        volumes: vec![volume.clone()],
        ..world.spec(command)
    };
    let place = trackbed_core::ports::VolumePlace {
        directory: alone.host_path.clone().into(),
        lock: alone.lock_path.clone().into(),
    };
    let told = async || {
        let lease = world.sandbox.lease(&place).await.unwrap();
        (lease.fence, lease.holders.into_iter().map(|holder| holder.instance).collect::<Vec<_>>())
    };
    assert_eq!(told().await, (0, vec![]));
    let one = holds(&shared, "echo one > /data/one; echo up; exec sleep 1000");
    let two = holds(&shared, "cat /data/one; echo up; exec sleep 1000");
    for spec in [&one, &two] {
        world.sandbox.start(spec).await.unwrap();
        world.until_logged(&spec.id, "up").await;
    }
    assert_eq!(told().await, (2, vec![two.id.clone(), one.id.clone()]));
    let message = refused(world.sandbox.start(&holds(&alone, "true")).await);
    assert!(message.contains("is in use by assistant v1"), "{message}");
    world.sandbox.stop(&two.id, Duration::from_secs(2)).await.unwrap();
    assert_eq!(told().await, (2, vec![one.id.clone()]));
    // The one that took it last is gone, and the other keeps it still.
    refused(world.sandbox.start(&holds(&alone, "true")).await);
    world.sandbox.stop(&one.id, Duration::from_secs(2)).await.unwrap();
    assert_eq!(told().await, (2, vec![]));
    let three = holds(&alone, "echo up; exec sleep 1000");
    world.sandbox.start(&three).await.unwrap();
    refused(world.sandbox.start(&holds(&shared, "true")).await);
    assert_eq!(told().await, (3, vec![three.id.clone()]));
    world.close().await;
}

#[tokio::test]
async fn when_the_shim_is_killed_the_app_is_gone_and_the_lock_free() {
    let Some(world) = World::full() else { return };
    let volume = world.volume("/data");
    let app = InstanceSpec {
        volumes: vec![volume.clone()],
        ..world.spec("setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & echo up; wait")
    };
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    let pids = world.pids(&app.id).await;
    assert!(pids.len() >= 3, "{pids:?}");
    world::kill(pids[0]);
    assert_eq!(world.ended(&app.id).await, Exit::Lost);
    for pid in pids {
        wait_for("the processes to go", async || (!world::exists(&format!("/proc/{pid}"))).then_some(()))
            .await;
    }
    assert!(trackbed_stdx::files::try_lock(volume.lock_path.as_ref()).unwrap().is_some());
    world.sandbox.reconcile(&|_| true).unwrap();
    world.close().await;
}

/// A freezer group, thawed and removed at the end, however the test ends.
struct Freezer(std::path::PathBuf);

impl Freezer {
    fn freeze(pids: &[u32]) -> Option<Freezer> {
        let path = std::path::PathBuf::from(format!("/sys/fs/cgroup/freezer/frozen-{}", world::hex()));
        std::fs::create_dir(&path).ok()?;
        let freezer = Freezer(path);
        for pid in pids {
            freezer.put("cgroup.procs", &pid.to_string());
        }
        freezer.put("freezer.state", "FROZEN");
        Some(freezer)
    }

    fn put(&self, file: &str, text: &str) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().write(true).open(self.0.join(file)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.put("freezer.state", "THAWED");
        for _ in 0..500 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_not_free_while_a_frozen_process_may_write_to_it() {
    let Some(world) = World::full() else { return };
    let volume = world.volume("/data");
    let app = InstanceSpec { volumes: vec![volume.clone()], ..world.spec("sleep 1000 & echo up; wait") };
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    let pids = world.pids(&app.id).await;
    // All but the shim; init is not among them.
    let Some(frozen) = Freezer::freeze(&pids[1..]) else {
        println!("no freezer group here: nothing tested");
        return world.close().await;
    };
    world::kill(pids[0]);
    wait_for("the lock", async || {
        trackbed_stdx::files::try_lock(volume.lock_path.as_ref()).unwrap().map(drop)
    })
    .await;
    let second = || InstanceSpec { volumes: vec![volume.clone()], ..world.spec("true") };
    let message = refused(world.sandbox.start(&second()).await);
    assert!(message.contains("is in use by assistant v1") && message.contains("has not ended"), "{message}");
    let status = world.sandbox.inspect(&app.id).await.unwrap().unwrap();
    assert_eq!(status.state, InstanceState::Running, "not lost while it may come back");
    assert!(refused(world.sandbox.stop(&app.id, Duration::ZERO).await).contains("not go away"));
    assert!(refused(world.sandbox.remove(&app.id).await).contains("still runs"));
    drop(frozen);
    assert_eq!(world.ended(&app.id).await, Exit::Lost);
    let (exit, _) = world.run(&second()).await;
    assert!(exit.is_success(), "{exit}");
    world.close().await;
}

#[tokio::test]
async fn a_volume_of_another_user_is_handed_over_once() {
    use std::os::unix::fs::{MetadataExt, chown};
    let Some(world) = World::full() else { return };
    let volume = world.volume("/data");
    let folder = std::path::PathBuf::from(&volume.host_path);
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    for name in ["a", "sub/b"] {
        std::fs::File::create(folder.join(name)).unwrap();
    }
    let app = || InstanceSpec { volumes: vec![volume.clone()], ..world.spec("true") };
    assert!(world.run(&app()).await.0.is_success());
    let owner = |name: &str| std::fs::metadata(folder.join(name)).unwrap().uid();
    assert_eq!(["", "a", "sub", "sub/b"].map(owner), [10001; 4]);
    // Once its top is right, nobody walks it again.
    chown(folder.join("sub/b"), Some(12), None).unwrap();
    assert!(world.run(&app()).await.0.is_success());
    assert_eq!(owner("sub/b"), 12);
    world.close().await;
}
