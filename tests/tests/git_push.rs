//! `git push` to a box by the real git: what is deployed, what is refused and in which words, and that a branch is always
//! what was live last.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::os::unix::fs::symlink;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use trackbed_tests::{
    App, Connection, FileSystem, Random, Repository, TestBox, User, is_root, processes, request, wait_for,
};

const SOON: Duration = Duration::from_secs(30);

/// What a push came to. Its log is short: the pipe holds all of it.
fn said(mut child: Child) -> (bool, String) {
    wait_for("git push ends", SOON, || child.try_wait().expect("our child").is_some());
    let output = child.wait_with_output().expect("our child");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn is_healthy_after(app: &App, seconds: u32) {
    app.write(
        "railway.json",
        format!(
            r#"{{"build": {{"buildCommand": "echo built by hand"}},
               "deploy": {{"startCommand": "python app.py", "healthcheckPath": "/health", "healthcheckTimeout": {seconds}}}}}"#
        ),
    );
}

#[test]
fn a_push_deploys_with_its_log_and_the_same_files_are_live_already() {
    let town = TestBox::start();
    let app = App::plain("shop");
    is_healthy_after(&app, 20);
    let repository = Repository::of(&app);
    repository.connect(&town);

    let log = repository.push_ok(&["main"]);
    for line in [
        "remote:   | built by hand",
        "remote: ✓ health",
        "remote: ✓ v1 of shop is live",
        "remote: http://shop.localhost:",
        "`main` is the branch that is deployed",
        "[new branch]",
    ] {
        assert!(log.contains(line), "no `{line}` in:\n{log}");
    }
    assert_eq!(town.get("shop", "/version").body, "one");
    assert_eq!(town.pushed_to("main"), repository.ok(&["rev-parse", "HEAD"]));

    // The same commit: git itself has nothing to say to the box.
    assert!(repository.push_ok(&["main"]).contains("Everything up-to-date"));
    // An empty commit: the branch moves, and nothing is deployed.
    let log = repository.commit("empty").push_ok(&["main"]);
    assert!(log.contains("already live: v1 of shop"), "{log}");
    assert_eq!(town.pushed_to("main"), repository.ok(&["rev-parse", "HEAD"]));
    // With another variable, the same files are another release.
    assert_eq!(town.trackbed(&["variables", "set", "COLOUR=red", "--service", "shop"]).code, 0);
    assert!(repository.commit("for the variable").push_ok(&["main"]).contains("v2 of shop is live"));

    // More than git sends in one piece: it asks first whether it may, and sends chunks.
    app.version("two").write("large.bin", Random::seeded("a large push").bytes(3 << 20));
    assert!(repository.commit("two").push_ok(&["main"]).contains("v3 of shop is live"));
    assert_eq!(town.get("shop", "/version").body, "two");

    // History is rewritten: git wants force, the box says what it means, and what was live before stays in its list.
    repository.ok(&["reset", "--quiet", "--hard", "HEAD~3"]);
    app.version("other");
    repository.commit("other").push_refused_by_git(&["main"]);
    let log = repository.push_ok(&["--force", "main"]);
    assert!(log.contains("`main` is rewritten") && log.contains("(forced update)"), "{log}");
    assert_eq!(town.get("shop", "/version").body, "other");
    let live = town.service("shop")["release"]["version"].clone();
    assert_eq!(live, 4);
}

#[test]
fn a_push_that_does_not_become_live_is_refused_and_moves_nothing() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town).push_ok(&["main"]);
    let live = repository.ok(&["rev-parse", "HEAD"]);

    // It does not build.
    app.version("two").write("railway.json", "{\"deploy\": ");
    let words = [
        "failed at plan: railway.json:1",
        "previous release v1 keeps serving",
        "the push is refused: `main` stays",
    ];
    repository.commit("broken").push_refused(&["main"], &words);
    // It does not get healthy.
    is_healthy_after(&app, 2);
    assert_eq!(town.trackbed(&["variables", "set", "HEALTH_STATUS=500", "--service", "shop"]).code, 0);
    repository.commit("ill").push_refused(&["main"], &["failed at health", "500", "the push is refused"]);
    assert_eq!(town.pushed_to("main"), live);
    assert_eq!(town.get("shop", "/version").body, "one");

    // Mended without a new commit: the same push is tried again in earnest.
    assert_eq!(town.trackbed(&["variables", "unset", "HEALTH_STATUS", "--service", "shop"]).code, 0);
    assert!(repository.push_ok(&["main"]).contains("is live"));
    assert_eq!(town.pushed_to("main"), repository.ok(&["rev-parse", "HEAD"]));
    assert_eq!(town.get("shop", "/version").body, "two");
}

#[test]
fn a_branch_for_each_environment_deploys_a_service_of_its_own() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town);
    repository.push_ok(&["main"]);

    let staging = ["--service", "shop-staging", "--project", "shop"];
    let path = app.path();
    let connect = [&["git", "connect", "--remote", "staging"][..], &staging].concat();
    let said = town.trackbed_in(&path, &connect);
    assert_eq!((said.code, said.stdout.trim()), (0, "git push staging main"), "{said:?}");
    // As the README says it: the name of the service alone.
    let branch = town.trackbed(&["git", "branch", "staging", "--service", "shop-staging"]);
    assert_eq!(branch.code, 0, "{branch:?}");
    repository.ok(&["checkout", "--quiet", "-b", "staging"]);
    app.version("two");
    repository.commit("second");
    repository.ok(&["push", "--quiet", "staging", "staging"]);
    assert_eq!(town.get("shop-staging", "/version").body, "two");
    assert_eq!(town.get("shop", "/version").body, "one");
    let said = repository.git(&["push", "staging", "main"]);
    assert!(said.code != 0 && said.stderr.contains("deploys `staging` alone"), "{}", said.stderr);
    // The token of one opens nothing of the other.
    let of_staging = repository.ok(&["config", "remote.staging.url"]);
    let other = of_staging.replace("shop/shop-staging.git", "shop.git");
    assert_ne!(other, of_staging);
    assert_ne!(repository.git(&["push", &other, "staging:main"]).code, 0);
    assert_eq!(town.get("shop", "/version").body, "one");
}

#[test]
fn only_the_branch_of_the_service_is_deployed_and_tags_deploy_nothing() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town);
    repository.ok(&["tag", "v0"]);
    let log = repository.push_ok(&["v0"]);
    assert!(log.contains("tag `v0` is kept; tags deploy nothing"), "{log}");
    assert_eq!(town.service("shop")["state"], "new");
    repository.push_refused(&["main:trunk"], &["`trunk` is not deployed", "`main` or `master`", "main"]);

    // The first one that is pushed decides.
    repository.push_ok(&["main:master"]);
    let words =
        ["`main` is not deployed", "deploys `master` alone", "git connect --remote NEW", "main:master"];
    repository.push_refused(&["main"], &words);
    repository.push_refused(&["--all"], &["`main` is not deployed"]);
    repository.push_refused(&["--delete", "master"], &["removing it would stop nothing", "trackbed down"]);
    repository.push_refused(&["main:refs/trackbed/x"], &[]);

    assert_eq!(town.trackbed(&["git", "branch", "main", "--service", "shop"]).code, 0);
    assert!(repository.push_ok(&["main"]).contains("already live"));
    assert!(repository.push_ok(&["--delete", "master", "v0"]).contains("it was not deployed"));
    let said = town.trackbed(&["git", "branch", "a..b", "--service", "shop"]);
    assert!(said.code == 1 && said.stderr.contains("`a..b` is not the name of a branch"), "{said:?}");
    let shown = town.json(&["git", "show", "--json", "--service", "shop"]);
    assert_eq!(shown["branch"], "main", "{shown:#}");
}

#[test]
fn a_token_opens_one_service_until_it_is_revoked_and_nothing_can_be_fetched() {
    let town = TestBox::start();
    assert!(!town.data_dir().join("git/repositories").exists(), "nothing of it before somebody asks");
    let (shop, other) = (App::plain("shop"), App::plain("other"));
    let (one, two) = (Repository::of(&shop), Repository::of(&other));
    one.connect(&town);
    two.connect(&town);
    let url = one.ok(&["remote", "get-url", "trackbed"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(shop.path().join(".git/config")).expect("a file").permissions(),
    );
    assert_eq!(mode & 0o077, 0, "the token is its owner's alone");

    let fetched = one.git(&["fetch", "trackbed"]);
    assert!(fetched.code != 0 && fetched.stderr.contains("only takes pushes"), "{}", fetched.stderr);
    let strange = url.replace("/shop.git", "/other.git");
    let pushed = one.git(&["push", &strange, "main"]);
    assert!(
        pushed.code != 0 && pushed.stderr.contains("this token is not for a service `other`"),
        "{}",
        pushed.stderr
    );
    let (scheme, place) = url.split_once("trackbed:").expect("a user");
    let place = place.split_once('@').expect("a host").1;
    let wrong = format!("{scheme}trackbed:tbg_{}@{place}", "0".repeat(40));
    let pushed = one.git(&["push", &wrong, "main"]);
    assert!(pushed.code != 0 && pushed.stderr.contains("this token opens nothing"), "{}", pushed.stderr);

    let shown = town.json(&["git", "show", "--json", "--service", "shop"]);
    let id = shown["tokens"][0]["id"].as_str().expect("a token").to_owned();
    assert!(shown["tokens"][0]["used_at"].is_i64(), "{shown:#}");
    let token = url.split(':').nth(2).and_then(|rest| rest.split('@').next()).expect("a token").to_owned();
    assert!(!shown.to_string().contains(&token));
    assert_eq!(town.trackbed(&["git", "revoke", &id, "--service", "shop"]).code, 0);
    one.push_refused(&["main"], &["Authentication failed"]);
    assert_eq!(town.service("shop")["state"], "new");
    // A second `connect` renews the token of its own remote.
    one.connect(&town).push_ok(&["main"]);
    let state = std::fs::read(town.data_dir().join("state.db")).expect("the state");
    assert!(
        !state.windows(token.len()).any(|bytes| bytes == token.as_bytes()),
        "a token is kept as a hash only"
    );

    // What is no push is answered in words.
    let port = place.split(['/', ':']).nth(1).and_then(|port| port.parse().ok()).expect("a port");
    for path in ["/", "/shop.git/info/refs?service=git-receive-pack", "/../../etc/passwd"] {
        let answer = request(port, "127.0.0.1", "GET", path, "").expect("an answer");
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
    }
}

#[test]
fn a_shallow_clone_can_push_the_first_time_and_later() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    for version in ["two", "three"] {
        app.version(version);
        repository.commit(version);
    }
    let clone = App::empty("clone");
    let (from, to) = (format!("file://{}", app.path().display()), clone.path().join("shop"));
    repository.ok(&["clone", "--quiet", "--depth", "1", &from, &to.to_string_lossy()]);
    let shallow = Repository::at(&to);
    assert_eq!(shallow.ok(&["rev-list", "--count", "HEAD"]), "1");
    shallow.connect(&town).push_ok(&["main"]);
    assert_eq!(town.get("shop", "/version").body, "three");
    std::fs::write(to.join("note"), "more").expect("our own folder");
    assert!(shallow.commit("more").push_ok(&["main"]).contains("v2 of shop is live"));
    // Whoever has the whole history goes on from there.
    repository.ok(&["remote", "add", "trackbed", &shallow.ok(&["remote", "get-url", "trackbed"])]);
    repository.ok(&["pull", "--quiet", &to.to_string_lossy(), "main"]);
    app.version("four");
    repository.commit("four").push_ok(&["main"]);
    assert_eq!(town.get("shop", "/version").body, "four");
}

#[test]
fn submodules_and_lfs_pointers_are_named_and_deployed_only_on_request() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town);
    let commit = repository.ok(&["rev-parse", "HEAD"]);
    repository.ok(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},libs/shared")]);
    repository.ok(&["commit", "--quiet", "--message", "a submodule"]);
    let words = [
        "`libs/shared` is a submodule",
        "commit the files themselves",
        "trackbed up",
        "git push -o incomplete",
    ];
    repository.push_refused(&["main"], &words);

    repository.ok(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n", "a".repeat(64));
    for number in 0..7 {
        app.write(&format!("models/{number}.bin"), &pointer);
    }
    app.write(".gitattributes", "*.bin filter=lfs\n").write("notes.txt", format!("about LFS: {pointer}"));
    repository.ok(&["config", "filter.lfs.clean", "cat"]);
    let words = ["`models/0.bin`", "and 2 others are a pointer of Git LFS", "git lfs migrate export"];
    repository.commit("pointers").push_refused(&["main"], &words);
    assert_eq!(town.service("shop")["state"], "new");

    repository.push_refused(&["-o", "whatever", "main"], &["there is no push option `whatever`"]);
    let log = repository.push_ok(&["-o", "incomplete", "main"]);
    assert!(log.contains("! `models/0.bin`") && log.contains("v1 of shop is live"), "{log}");
}

#[test]
fn what_is_pushed_is_taken_as_it_was_committed_and_hostile_trees_are_refused() {
    let town = TestBox::start();
    let app = App::plain("shop");
    // No attribute leaves a file at home or changes it.
    app.write(".gitattributes", "app.py export-ignore\nrailway.json export-subst text eol=crlf\n");
    let repository = Repository::of(&app);
    repository.connect(&town).push_ok(&["main"]);
    let by_push = town.service("shop")["release"]["source"].clone();
    town.up_ok(&app.path());
    assert_eq!(town.service("shop")["release"]["source"], by_push, "the same files are the same source");
    // Flags of `up` are no part of what is pushed.
    town.up(&app.path(), &["--health-timeout", "19"]);
    assert!(repository.commit("empty").push_ok(&["main"]).contains("v4 of shop is live"));

    symlink("../../etc/passwd", app.path().join("link")).expect("our own folder");
    repository.commit("a link out").push_refused(&["main"], &["the link `link`", "points out of the source"]);
    repository.ok(&["reset", "--quiet", "--hard", "HEAD~1"]);

    // A tree that no git would check out: refused by fsck before anything looks at it.
    let blob = repository.ok(&["hash-object", "-w", "app.py"]);
    for name in [".git", "..", ".GIT"] {
        let list = app.path().join("../list");
        std::fs::write(&list, format!("100644 blob {blob}\t{name}\n")).expect("our own folder");
        let script = "git -C \"$0\" mktree < \"$1\"";
        let made =
            std::process::Command::new("/bin/sh").args(["-c", script]).arg(app.path()).arg(&list).output();
        let tree = String::from_utf8(made.expect("a shell").stdout).expect("a name").trim().to_owned();
        let commit = repository.ok(&["commit-tree", &tree, "-m", "hostile", "-p", "HEAD"]);
        let said = repository.push(&[&format!("{commit}:refs/heads/main")]);
        assert!(said.code != 0 && said.stderr.contains("unpack"), "{name}: {}", said.stderr);
    }
    assert_eq!(town.service("shop")["release"]["version"], 4);
}

#[test]
fn of_two_pushes_at_once_the_second_is_told_so_and_one_that_leaves_is_deployed_all_the_same() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town);
    let set =
        |pair: &str| assert_eq!(town.trackbed(&["variables", "set", pair, "--service", "shop"]).code, 0);
    // It waits for a health that comes when the test says so.
    set("HEALTH_STATUS=500");
    is_healthy_after(&app, 120);
    repository.commit("slow");
    let first = repository.start_push(&["main"]);
    wait_for("it waits for health", SOON, || town.service("shop")["deploying"]["step"] == "health");
    repository.push_refused(&["main"], &["another push to shop is under way", "trackbed cancel shop"]);
    assert_eq!(town.trackbed(&["cancel", "shop"]).code, 0);
    let (taken, log) = said(first);
    assert!(!taken && log.contains("cancelled at health") && log.contains("the push is refused"), "{log}");
    assert_eq!(town.pushed_to("main"), "");

    // The pusher leaves in the middle.
    set("START_DELAY=3");
    set("HEALTH_STATUS=200");
    let second = repository.start_push(&["main"]);
    wait_for("it starts", SOON, || town.service("shop")["deploying"]["step"] == "health");
    killpg(Pid::from_raw(i32::try_from(second.id()).expect("a process id")), Signal::SIGKILL)
        .expect("our child");
    let (_, log) = said(second);
    assert!(log.contains("it goes on when you leave"), "{log}");
    town.wait_state("shop", "running", SOON);
    let head = repository.ok(&["rev-parse", "HEAD"]);
    wait_for("the branch follows", SOON, || town.pushed_to("main") == head);
    assert!(repository.push_ok(&["main"]).contains("Everything up-to-date"));
}

#[test]
fn a_deployment_outlives_a_serve_that_ends_in_the_middle_of_a_push() {
    let mut town = TestBox::start_with_port_for_git();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town);
    assert_eq!(town.trackbed(&["variables", "set", "START_DELAY=3", "--service", "shop"]).code, 0);
    let push = repository.start_push(&["main"]);
    wait_for("it starts", SOON, || town.service("shop")["deploying"]["step"] == "health");
    assert_eq!(town.stop_serve(), 0);
    let (taken, log) = said(push);
    assert!(!taken, "{log}");
    assert_eq!(town.pushed_to("main"), "");
    town.start_serve();
    town.wait_state("shop", "running", SOON);
    // At the same address as before, and nothing is done twice.
    assert!(repository.push_ok(&["main"]).contains("already live: v1 of shop"));
    assert_eq!(town.pushed_to("main"), repository.ok(&["rev-parse", "HEAD"]));
}

#[test]
fn a_push_whose_git_dies_on_the_box_is_broken_off_and_not_closed() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town);
    assert_eq!(town.trackbed(&["variables", "set", "START_DELAY=3", "--service", "shop"]).code, 0);
    let push = repository.start_push(&["main"]);
    wait_for("it starts", SOON, || town.service("shop")["deploying"]["step"] == "health");
    // It never says the packet with which its answer ends, and git would wait for that for ever.
    let receiving = processes(&town.data_dir().join("git/repositories"));
    assert!(!receiving.is_empty());
    for (process, _) in receiving {
        town.kill_pid(process);
    }
    let (taken, log) = said(push);
    assert!(!taken && log.contains("the remote end hung up unexpectedly"), "{log}");
    assert_eq!(town.pushed_to("main"), "");
    town.wait_state("shop", "running", SOON);
    wait_for("the place is free", SOON, || {
        !repository.push(&["main"]).stderr.contains("another push to shop is under way")
    });
    assert!(repository.commit("again").push_ok(&["main"]).contains("already live: v1 of shop"));
}

#[test]
fn a_push_that_breaks_off_leaves_nothing() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town).push_ok(&["main"]);
    let url = repository.ok(&["remote", "get-url", "trackbed"]);
    let (user, place) = url.strip_prefix("http://").and_then(|rest| rest.split_once('@')).expect("a user");
    let port = place.split(['/', ':']).nth(1).and_then(|port| port.parse().ok()).expect("a port");
    let head = repository.ok(&["rev-parse", "HEAD"]);
    let command = format!("{head} {} refs/heads/main\0 report-status side-band-64k", "1".repeat(40));
    let command = format!("{:04x}{command}0000PACK\0\0\0\x02\0\0\0\x09", command.len() + 4);
    let credentials = base64(user.as_bytes());
    let extra = format!("Authorization: Basic {credentials}\r\nX-Longer: yes\r\n");
    let head = format!(
        "POST /shop.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n{extra}\r\n{command}"
    );
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the box");
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("the box reads");
    let incoming = || -> usize {
        let objects = town.data_dir().join("git/repositories");
        let folders = std::fs::read_dir(objects).into_iter().flatten().flatten();
        let inside =
            folders.flat_map(|folder| std::fs::read_dir(folder.path().join("objects")).into_iter().flatten());
        inside.flatten().filter(|entry| entry.file_name().to_string_lossy().contains("incoming")).count()
    };
    wait_for("git receives", SOON, || incoming() == 1);
    drop(stream);
    wait_for("nothing is left of it", SOON, || incoming() == 0);
    // The place is free again.
    assert!(repository.commit("empty").push_ok(&["main"]).contains("already live"));

    // A pack that is none is refused by git, in an answer.
    let answer =
        Connection::send(port, "x", "POST", "/shop.git/git-receive-pack", &extra, command.as_bytes());
    let answer = answer.and_then(Connection::read_all).expect("an answer");
    assert!(answer.status == 200 && answer.body.contains("unpack"), "{answer:?}");
}

#[test]
fn a_box_without_git_says_which_package_is_missing() {
    // Everything that this machine has, but no git.
    let programs = tempfile::tempdir().expect("a temporary folder");
    for folder in std::env::split_paths(&std::env::var_os("PATH").expect("a PATH")) {
        for program in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if program.file_name() != "git" {
                let _ = symlink(program.path(), programs.path().join(program.file_name()));
            }
        }
    }
    let path = programs.path().to_string_lossy().into_owned();
    let town = TestBox::start_with(User::Own, &[("PATH", &path)], &[]);
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    let made = town.json(&["git", "token", "--json", "--service", "shop"]);
    let (url, token) = (made["url"].as_str().expect("an address"), made["token"].as_str().expect("a token"));
    repository.ok(&["remote", "add", "trackbed", &url.replace("://", &format!("://me:{token}@"))]);
    repository.push_refused(&["main"], &["git is not installed on the box: `apt-get install git`"]);
}

#[test]
fn a_push_does_not_take_the_reserve_of_the_volumes() {
    if !FileSystem::Ext4.is_here("a push to a full disk") {
        return;
    }
    let town = TestBox::start_on(FileSystem::Ext4, 400);
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    repository.connect(&town).push_ok(&["main"]);
    // A quarter of a small disk is the reserve.
    town.disk().fill_up_to(104);
    app.version("two").write("large.bin", Random::seeded("a full disk").bytes(30 << 20));
    let said = repository.commit("large").push(&["main"]);
    assert!(said.code != 0 && said.stderr.contains("exceeds maximum allowed size"), "{}", said.stderr);
    town.disk().empty();
    town.disk().fill_up_to(80);
    repository.push_refused(&["main"], &["the disk of the box is full but for the reserve of its volumes"]);
    town.disk().empty();
    repository.push_ok(&["main"]);
    assert_eq!(town.get("shop", "/version").body, "two");
}

#[test]
fn an_ordinary_users_box_takes_pushes_at_the_address_it_was_told() {
    if !is_root("pushes to the box of an ordinary user") {
        return;
    }
    let town = TestBox::start_with(User::Ordinary, &[], &["--git-listen", "127.0.0.1:0"]);
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    let token = town.trackbed(&["git", "token", "--service", "shop", "--for", "laptop"]);
    let shown = town.json(&["git", "show", "--json", "--service", "shop"]);
    let url =
        shown["url"].as_str().expect("an address").replace("://", &format!("://me:{}@", token.stdout.trim()));
    repository.ok(&["remote", "add", "trackbed", &url]);
    repository.push_ok(&["main"]);
    assert_eq!(town.get("shop", "/version").body, "one");
    assert!(shown["tokens"][0]["name"] == "laptop", "{shown:#}");
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            (0..3).fold(0_u32, |bits, at| (bits << 8) | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]);
            text.push(if at <= chunk.len() { letter } else { '=' });
        }
    }
    text
}
