//! What containers are beyond the contract: bounded, apart, never two writers, and known again after every kind of crash.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test panics when it must, and says what it does not test"
)]

mod world;

use std::process::Command;
use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::ports::{Dockerfile, Engine, Images, VolumePlace};
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, Secret};
use world::{Daemon, World, as_image, said, wait_for};

const GRACE: Duration = Duration::from_secs(5);

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

async fn keeper(world: &World, id: &InstanceId) -> u32 {
    world.docker.inspect(id).await.unwrap().unwrap().pids[0]
}

fn place(volume: &VolumeMount) -> VolumePlace {
    VolumePlace { directory: volume.host_path.clone().into(), lock: volume.lock_path.clone().into() }
}

/// One daemon for all: starting it takes longer than most of these.
async fn lives(daemon: Option<Daemon>) {
    let Some(daemon) = daemon else { return };
    let world = World::new(&daemon).await;
    an_app_sees_its_variables_its_volume_and_its_limits(&world, &daemon).await;
    adopted_files_are_found_through_links(&world).await;
    commands_run_inside_and_are_killed_when_nobody_listens(&world).await;
    what_goes_over_its_memory_is_told(&world).await;
    the_shell_of_a_start_command_does_not_cut_its_app_short(&world).await;
    a_dockerfile_is_built_and_let_go_of(&world, &daemon).await;
    a_dockerfile_that_asks_for_buildkit_is_built_by_it(&world, &daemon).await;
    the_user_of_an_image_can_write_to_the_volume(&world).await;
    world.close(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_live_as_instances_do() {
    lives(Daemon::start("lives of containers")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_podman_live_as_instances_do() {
    lives(Daemon::start_podman("lives of containers of Podman")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_known_again_after_a_crash() {
    crashes(Daemon::start("crashes around containers")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_podman_are_known_again_after_a_crash() {
    crashes(Daemon::start_podman("crashes around containers of Podman")).await;
}

async fn crashes(daemon: Option<Daemon>) {
    let Some(mut daemon) = daemon else { return };
    let world = World::new(&daemon).await;
    a_keeper_that_is_killed_leaves_no_second_writer(&world).await;
    a_keeper_that_is_killed_while_it_freezes_leaves_nothing_frozen(&world).await;
    strays_are_removed_and_what_is_not_ours_stays(&world, &daemon).await;
    what_a_hanging_engine_does_not_remove_goes_when_it_answers(&world, &daemon).await;
    an_engine_that_is_killed_leaves_no_second_writer_and_the_next_one_starts(&world, &mut daemon).await;
    world.close(&daemon).await;
}

async fn an_app_sees_its_variables_its_volume_and_its_limits(world: &World, daemon: &Daemon) {
    let volume = world.volume("/data");
    let command = "echo $GREETING $PORT; echo kept > /data/file; cat /proc/self/status | while read a b; do \
                   case $a in CapEff:|NoNewPrivs:) echo $a $b;; esac; done; echo lost > /lost.db; exec sleep 1000";
    let mut spec = InstanceSpec { volumes: vec![volume.clone()], ..world.spec(command) };
    spec.env.extend([
        ("GREETING".into(), Secret::new("salute-4711".into())),
        ("PORT".into(), Secret::new("8080".into())),
    ]);
    spec.limits = Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(500), pids: Some(50) };
    world.docker.start(&spec).await.unwrap();
    world.until_logged(&spec.id, "NoNewPrivs: 1").await;
    let lines = world.log(&spec.id).await;
    assert_eq!(lines[0], (LogStream::Out, "salute-4711 8080".into()));
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service.
    assert!(lines.iter().any(|(_, line)| line == "CapEff: 00000000000004fb"), "{lines:?}");
    assert_eq!(std::fs::read_to_string(format!("{}/file", volume.host_path)).unwrap(), "kept\n");
    let name = daemon.docker(&["ps", "--format", "{{.Names}}"]);
    let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.Privileged}} \
                  {{.HostConfig.RestartPolicy.Name}} {{len .NetworkSettings.Ports}}";
    assert_eq!(daemon.docker(&["inspect", "--format", format, &name]), "67108864 500000000 50 false no 0");
    let order =
        std::fs::read_to_string(world.data.join("containers").join(spec.id.as_str()).join("spec.json"));
    assert!(!order.unwrap().contains("salute-4711"), "no variable stays on disk");
    let strays = world.docker.stray_files(&spec.id, 10).await.unwrap();
    assert_eq!(strays.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["/lost.db"]);
    let lease = world.docker.lease(&place(&volume)).await.unwrap();
    assert!(lease.is_held && lease.holders[0].instance == spec.id, "{lease:?}");
    let stats = world.docker.stats(&spec.id).await.unwrap();
    assert!(stats.memory_bytes > 0 && stats.pids >= 2, "{stats:?}");
    world.docker.stop(&spec.id, GRACE).await.unwrap();
    assert!(!world.docker.lease(&place(&volume)).await.unwrap().is_held);
    // What it left is there until it is forgotten, and nobody starts it meanwhile.
    let strays = world.docker.stray_files(&spec.id, 10).await.unwrap();
    assert_eq!(std::fs::read_to_string(&strays[0].host_path).unwrap(), "lost\n");
    assert!(!daemon.try_docker(&["start", &name]), "a container that has ended has no volume any more");
    world.docker.remove(&spec.id).await.unwrap();
    assert!(!strays[0].host_path.exists());
    let mut offline = world.spec("ls /sys/class/net");
    offline.offline = true;
    world.docker.start(&offline).await.unwrap();
    assert_eq!(world.ended(&offline.id).await, Exit::Code { code: 0 });
    assert_eq!(world.log(&offline.id).await[0].1, "lo");
}

/// As after `volume adopt`: the app finds its file where it always was.
async fn adopted_files_are_found_through_links(world: &World) {
    let volume = world.volume("/data");
    std::fs::copy("/etc/hostname", format!("{}/shop.db", volume.host_path)).unwrap();
    let mut spec = world.spec("cat /app/db/shop.db && echo more >> /app/db/shop.db");
    spec.links = vec![AppLink { at: "/app/db/shop.db".into(), to: "/data/shop.db".into() }];
    spec.volumes = vec![volume.clone()];
    world.docker.start(&spec).await.unwrap();
    assert_eq!(world.ended(&spec.id).await, Exit::Code { code: 0 }, "{:?}", world.log(&spec.id).await);
    assert!(std::fs::read_to_string(format!("{}/shop.db", volume.host_path)).unwrap().ends_with("more\n"));
}

async fn commands_run_inside_and_are_killed_when_nobody_listens(world: &World) {
    let spec = world.spec("exec sleep 1000");
    world.docker.start(&spec).await.unwrap();
    let words = |command: &str| ["/bin/sh", "-c", command].map(str::to_owned);
    let log = said();
    let env = [("WHO".to_owned(), Secret::new("me".to_owned()))];
    let exit = world.docker.exec(&spec.id, &words("echo $WHO; echo wrong >&2; exit 7"), &env, &log).await;
    assert_eq!(exit, Ok(Exit::Code { code: 7 }));
    let mut lines = log.0.into_inner().unwrap();
    lines.sort();
    assert_eq!(lines, ["me", "wrong"]);
    let log = said();
    {
        let command = words("echo begun; sleep 999");
        let mut running = std::pin::pin!(world.docker.exec(&spec.id, &command, &[], &log));
        let begun = wait_for("the command to begin", async || {
            log.0.lock().unwrap().contains(&"begun".to_owned()).then_some(())
        });
        tokio::select! {
            ended = &mut running => panic!("{ended:?}"),
            () = begun => {}
        }
    }
    wait_for("the command to be killed", async || {
        let pids = world.docker.inspect(&spec.id).await.unwrap().unwrap().pids;
        (pids.len() == 2).then_some(())
    })
    .await;
    world.docker.stop(&spec.id, GRACE).await.unwrap();
}

async fn what_goes_over_its_memory_is_told(world: &World) {
    let mut spec = world.spec("exec head -c 200m /dev/zero | { read -r x; sleep 1000; }");
    spec.command = "x=$(head -c 200m /dev/zero | cat -v); echo survived".into();
    spec.limits.memory_bytes = Some(24 << 20);
    world.docker.start(&spec).await.unwrap();
    let exit = world.ended(&spec.id).await;
    let lines = world.log(&spec.id).await;
    assert!(exit == Exit::Oom || lines.iter().any(|(_, line)| line == "survived"), "{exit:?} {lines:?}");
    if exit == Exit::Oom {
        assert!(
            lines.contains(&(
                LogStream::System,
                "killed for using more memory than its limit of 24 MiB".into()
            ))
        );
    }
}

/// `true && …` keeps the shell between; what is below it must be able to end in good order.
async fn the_shell_of_a_start_command_does_not_cut_its_app_short(world: &World) {
    let app = "trap 'sleep 0.5; echo in order; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let spec = world.spec(&format!("cd / && /bin/sh -c \"{app}\"; true"));
    world.docker.start(&spec).await.unwrap();
    world.until_logged(&spec.id, "ready").await;
    world.docker.stop(&spec.id, GRACE).await.unwrap();
    let lines = world.log(&spec.id).await;
    assert!(lines.iter().any(|(_, line)| line == "in order"), "{lines:?}");
}

async fn a_dockerfile_is_built_and_let_go_of(world: &World, daemon: &Daemon) {
    let mut order = world.dockerfile(&[
        ("Dockerfile", "FROM base\nARG VERSION\nENV SAID=$VERSION\nCOPY . /app\nWORKDIR /app\nCMD [\"/bin/sh\", \"-c\", \"echo $SAID; ls\"]\n"),
        (".dockerignore", "secret\n"),
        ("secret", "s"),
        ("seen", "x"),
    ]);
    order.args = vec![("VERSION".into(), "7".into())];
    let log = said();
    let image = world.docker.build(order.clone(), &log).await.unwrap();
    assert!(log.0.into_inner().unwrap().iter().any(|line| line.contains("COPY . /app")));
    assert!(image.id.starts_with("sha256:") && image.size_bytes > 0, "{image:?}");
    assert!(image.env.contains(&("SAID".into(), "7".into())), "{image:?}");
    assert_eq!(world.docker.build(order.clone(), &said()).await.unwrap().id, image.id, "nothing changed");
    let spec = InstanceSpec { app: AppTree::Image { image: Box::new(as_image(&image)) }, ..world.spec("") };
    world.docker.start(&spec).await.unwrap();
    assert_eq!(world.ended(&spec.id).await, Exit::Code { code: 0 });
    let lines: Vec<String> = world.log(&spec.id).await.into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines[..3], ["7", "Dockerfile", "seen"], "{lines:?}");
    let broken = world.dockerfile(&[("Dockerfile", "FROM base\nRUN echo almost && exit 3\n")]);
    let log = said();
    let error = world.docker.build(broken, &log).await.unwrap_err();
    let words = ["returned a non-zero code: 3", "exit status 3"];
    assert!(words.iter().any(|words| error.message.contains(words)), "{error}");
    assert!(log.0.into_inner().unwrap().contains(&"almost".to_owned()));
    let known = || daemon.docker(&["images", "--all", "--quiet", "--no-trunc"]);
    assert_eq!(world.docker.collect(&[world.image.id.clone(), image.id.clone()]).await, Ok(0));
    assert!(known().contains(&image.id));
    // What a container was made of stays as long as the container.
    assert_eq!(world.docker.collect(std::slice::from_ref(&world.image.id)).await, Ok(0));
    world.docker.remove(&spec.id).await.unwrap();
    assert_eq!(world.docker.collect(std::slice::from_ref(&world.image.id)).await, Ok(1));
    assert!(!known().contains(&image.id), "{}", known());
    assert!(known().contains(&world.image.id), "one that others name is theirs, too");
    let gone = InstanceSpec { app: AppTree::Image { image: Box::new(as_image(&image)) }, ..world.spec("") };
    let error = world.docker.start(&gone).await.unwrap_err();
    assert!(error.message.contains("somebody removed it; deploy again"), "{error}");
    let error = world.docker.pull("127.0.0.1:1/nothing", &said()).await.unwrap_err();
    assert!(error.message.contains("cannot fetch the image 127.0.0.1:1/nothing:latest"), "{error}");
}

async fn a_dockerfile_that_asks_for_buildkit_is_built_by_it(world: &World, daemon: &Daemon) {
    let text = "FROM base\nARG HOME\nARG SECRET\nARG OTHER\nCOPY . /app\n\
                RUN --mount=type=cache,target=/cache echo once >> /cache/n; cat /cache/n > /n; echo said $HOME $SECRET $OTHER\n";
    let named = "FROM base\nRUN --mount=type=cache,target=/cache exit 7\n";
    let order = |text: &str, seen: &str| {
        let files = [("Dockerfile", text), ("seen", seen), (".dockerignore", "secret\n"), ("secret", "s")];
        let args = vec![("SECRET".into(), "4711".into()), ("HOME".into(), "/somewhere".into())];
        let given = vec![("SECRET".into(), "not this".into()), ("OTHER".into(), "42".into())];
        Dockerfile { wants_buildkit: true, args, given, ..world.dockerfile(&files) }
    };
    let log = said();
    let first = world.docker.build(order(text, "one"), &log).await;
    let log = log.0.into_inner().unwrap();
    if log.iter().any(|line| line.contains("no `docker` on this box speaks to it")) {
        eprintln!("NOT TESTED (needs a `docker` with BuildKit): builds by BuildKit");
        assert!(
            first.unwrap_err().to_string().contains("--mount"),
            "the older builder says what it cannot do"
        );
        return;
    }
    let first = first.unwrap();
    assert!(log.iter().any(|line| line.contains("said /somewhere 4711 42")), "{log:?}");
    // Its cache is there for the next build, and each image is let go of as any other.
    let second = world.docker.build(order(text, "two"), &said()).await.unwrap();
    assert_ne!(first.id, second.id);
    let mut spec = world.spec("cat /n; ls /app");
    spec.app = AppTree::Image { image: Box::new(as_image(&second)) };
    world.docker.start(&spec).await.unwrap();
    assert_eq!(world.ended(&spec.id).await, Exit::Code { code: 0 });
    let lines: Vec<String> = world.log(&spec.id).await.into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines[..4], ["once", "once", "Dockerfile", "seen"]);
    let error = world.docker.build(order(named, "one"), &said()).await.unwrap_err();
    assert!(error.message.contains("cannot build Dockerfile") && error.message.contains("exit 7"), "{error}");
    world.docker.remove(&spec.id).await.unwrap();
    assert!(!daemon.docker(&["images"]).contains("building-"), "{}", daemon.docker(&["images"]));
    assert_eq!(world.docker.collect(std::slice::from_ref(&world.image.id)).await, Ok(2));
    if daemon.is_podman() {
        return; // It goes on with a step that nobody waits for any more.
    }
    // Whoever leaves ends the build.
    let slow = order("FROM base\nRUN --mount=type=cache,target=/cache sleep 4712\n", "one");
    let log = said();
    let left = tokio::time::timeout(Duration::from_secs(5), world.docker.build(slow, &log)).await;
    assert!(left.is_err(), "{left:?}");
    wait_for("the build to end", async || {
        let processes = Command::new("ps").args(["-e", "-o", "args="]).output().unwrap().stdout;
        (!String::from_utf8_lossy(&processes).contains("sleep 4712")).then_some(())
    })
    .await;
}

async fn the_user_of_an_image_can_write_to_the_volume(world: &World) {
    let order = world.dockerfile(&[
        ("Dockerfile", "FROM base\nCOPY passwd /etc/passwd\nUSER app\n"),
        ("passwd", "root:x:0:0::/:/bin/sh\napp:x:1234:1234::/:/bin/sh\n"),
    ]);
    let image = world.docker.build(order, &said()).await.unwrap();
    let volume = world.volume("/data");
    let mut spec = world.spec("echo mine > /data/file && id -u");
    spec.app = AppTree::Image { image: Box::new(as_image(&image)) };
    spec.volumes = vec![volume];
    world.docker.start(&spec).await.unwrap();
    assert_eq!(world.ended(&spec.id).await, Exit::Code { code: 0 }, "{:?}", world.log(&spec.id).await);
    assert_eq!(world.log(&spec.id).await[0].1, "1234");
}

async fn a_keeper_that_is_killed_leaves_no_second_writer(world: &World) {
    let volume = world.volume("/data");
    let writes = InstanceSpec { volumes: vec![volume.clone()], ..world.spec("exec sleep 1000") };
    world.docker.start(&writes).await.unwrap();
    let app = world.docker.inspect(&writes.id).await.unwrap().unwrap().pids[1];
    kill(keeper(world, &writes.id).await);
    // Nobody has looked yet: the lock is free, and the container writes.
    let second = InstanceSpec { volumes: vec![volume.clone()], ..world.spec("exec sleep 1000") };
    let refused = world.docker.start(&second).await.unwrap_err();
    assert!(refused.message.contains("is in use by assistant v1"), "{refused}");
    assert!(world.docker.lease(&place(&volume)).await.unwrap().is_held);
    // Whoever looks settles it.
    assert_eq!(world.ended(&writes.id).await, Exit::Lost);
    assert!(!std::path::Path::new(&format!("/proc/{app}")).exists(), "nothing of it lives");
    let third = InstanceSpec { volumes: vec![volume], ..world.spec("exec sleep 1000") };
    world.docker.start(&third).await.unwrap();
    world.docker.stop(&third.id, GRACE).await.unwrap();
}

async fn an_engine_that_is_killed_leaves_no_second_writer_and_the_next_one_starts(
    world: &World,
    daemon: &mut Daemon,
) {
    let volume = world.volume("/data");
    let writes = "while :; do echo x >> /data/lines; sleep 0.02; done";
    let writes = InstanceSpec { volumes: vec![volume.clone()], ..world.spec(writes) };
    world.docker.start(&writes).await.unwrap();
    let app = world.docker.inspect(&writes.id).await.unwrap().unwrap().pids[1];
    daemon.crash();
    // Docker ends what it finds when it is not told to let it live; Podman's containers do not hear of it.
    let lives = || std::path::Path::new(&format!("/proc/{app}")).exists();
    if daemon.is_podman() {
        assert!(lives() && world.docker.lease(&place(&volume)).await.unwrap().is_held);
        world.docker.stop(&writes.id, Duration::ZERO).await.unwrap();
    }
    world.ended(&writes.id).await;
    assert!(!lives(), "it counts as ended and writes on");
    assert!(!world.docker.lease(&place(&volume)).await.unwrap().is_held);
    let next = InstanceSpec { volumes: vec![volume], ..world.spec("head -n 1 /data/lines") };
    world.docker.start(&next).await.unwrap();
    world.ended(&next.id).await;
    assert_eq!(
        world.log(&next.id).await[0],
        (LogStream::Out, "x".into()),
        "what the first one wrote is there"
    );
    world.docker.remove(&writes.id).await.unwrap();
    world.docker.remove(&next.id).await.unwrap();
}

async fn a_keeper_that_is_killed_while_it_freezes_leaves_nothing_frozen(world: &World) {
    let spec = world.spec("exec sleep 1000");
    world.docker.start(&spec).await.unwrap();
    let keeper = keeper(world, &spec.id).await;
    let frozen = world.docker.freeze(&spec.id, Duration::from_secs(4)).await.unwrap();
    kill(keeper);
    frozen.thaw().await.expect_err("nobody knows how long it stood still");
    assert_eq!(world.ended(&spec.id).await, Exit::Lost, "and it is not left to hang");
}

async fn strays_are_removed_and_what_is_not_ours_stays(world: &World, daemon: &Daemon) {
    daemon.docker(&[
        "run",
        "--detach",
        "--network",
        "none",
        "--name",
        "theirs",
        "base",
        "/bin/sleep",
        "1000",
    ]);
    let spec = world.spec("exec sleep 1000");
    let job = InstanceSpec { kind: InstanceKind::Job, ..world.spec("exec sleep 1000") };
    for spec in [&spec, &job] {
        world.docker.start(spec).await.unwrap();
    }
    // A record that is gone: only the engine knows of the container.
    let lost = world.spec("exec sleep 1000");
    world.docker.start(&lost).await.unwrap();
    kill(keeper(world, &lost.id).await);
    trackbed_stdx::files::remove_tree(&world.data.join("containers").join(lost.id.as_str())).unwrap();
    // As the next control plane finds it.
    let docker = world.open_again();
    docker.reconcile().await.unwrap();
    assert!(docker.inspect(&job.id).await.unwrap().is_none(), "nobody waits for a job any more");
    let names = daemon.docker(&["ps", "--format", "{{.Names}}"]);
    assert!(names.contains("theirs") && names.contains(spec.id.as_str()), "{names}");
    assert_eq!(names.lines().count(), 2, "{names}");
    docker.stop(&spec.id, GRACE).await.unwrap();
    daemon.docker(&["rm", "--force", "theirs"]);
}

async fn what_a_hanging_engine_does_not_remove_goes_when_it_answers(world: &World, daemon: &Daemon) {
    let spec = world.spec("exit 0");
    world.docker.start(&spec).await.unwrap();
    world.ended(&spec.id).await;
    daemon.hang();
    let removed = world.docker.remove(&spec.id).await;
    daemon.wake();
    removed.expect("nobody has to wait for the engine");
    assert!(world.docker.inspect(&spec.id).await.unwrap().is_none(), "it is forgotten");
    let left = daemon.containers();
    assert!(left.contains(spec.id.as_str()), "{left}");
    world.docker.reconcile().await.unwrap();
    let left = daemon.containers();
    assert!(!left.contains(spec.id.as_str()), "{left}");
}
