//! Sources that cannot be deployed: each is refused with words that lead to the mend, and nothing that runs is touched.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use trackbed_tests::{App, TestBox, Traffic, User, is_root, wait_for};

#[test]
fn a_broken_settings_file_is_named_with_its_line_and_what_was_expected() {
    let town = TestBox::start();
    let app = town.up_good("shop");

    app.write(
        "railway.json",
        "{\n  \"deploy\": {\n    \"startCommand\": \"python app.py\"\n    \"port\": 1\n  }\n}\n",
    );
    let up =
        town.up_fails(&app.path(), &[], "plan", &["railway.json:4:5", "expected `,` or `}`", "found `\"`"]);
    up.hints(&["line 4"]);

    app.write("railway.json", "{\n  \"deploy\": {\n    \"startCommand\": [\"python\", \"app.py\"]\n  }\n}\n");
    town.up_fails(
        &app.path(),
        &[],
        "plan",
        &["railway.json:3", "`startCommand` is a list", "expected a text"],
    )
    .hints(&["line 3"]);

    app.write("railway.json", "{\n  \"deploy\": {\n    \"healthcheckTimeout\": \"soon\"\n  }\n}\n");
    town.up_fails(&app.path(), &[], "plan", &["railway.json:3", "soon", "number of seconds"]);

    app.write("railway.json", "{\"deploy\": ");
    town.up_fails(&app.path(), &[], "plan", &["railway.json:1", "expected"]);

    app.write("railway.json", "{}").write("trackbed.toml", "[[volumes]\nname = \"data\"\n");
    town.up_fails(&app.path(), &[], "plan", &["trackbed.toml:1"]).hints(&["line 1"]);

    app.write("trackbed.toml", "[limits]\n\nmemory = \"lots\"\n");
    town.up_fails(&app.path(), &[], "plan", &["trackbed.toml:3", "lots", "512MB"]);
    town.assert_serves_on("shop");

    // The same words without --json, and the exit code.
    let said = town.trackbed(&["up", &app.path().to_string_lossy()]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("failed at plan: trackbed.toml:3"), "{}", said.stderr);
    assert!(said.stderr.contains("previous release v1 keeps serving"), "{}", said.stderr);
}

#[test]
fn an_unknown_key_warns_with_its_line_and_deploys() {
    let town = TestBox::start();
    let app = App::plain("odd");
    app.write(
        "railway.json",
        "{\n  \"deploy\": {\n    \"startCommand\": \"python app.py\",\n    \"healthcheckPaht\": \"/health\"\n  }\n}\n",
    );
    let up = town.up_ok(&app.path());
    assert!(
        up.warnings().contains("railway.json:4: unknown key `deploy.healthcheckPaht`"),
        "{}",
        up.warnings()
    );
}

#[test]
fn settings_with_a_byte_order_mark_or_in_utf16_are_understood() {
    let town = TestBox::start();
    let app = App::plain("windows");
    let text = "{\"deploy\": {\"startCommand\": \"python app.py\", \"healthcheckPath\": \"/health\"}}";
    app.write("railway.json", format!("\u{feff}{text}"));
    town.up_ok(&app.path());
    let wide = |text: &str| -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect()
    };
    app.write("railway.json", wide(text)).write("requirements.txt", wide("# nothing\r\n")).version("two");
    town.up_ok(&app.path());
    assert_eq!(town.get("windows", "/version").body, "two");
    // Neither UTF-8 nor UTF-16: said, not guessed.
    app.write("railway.json", b"{\"deploy\": {\"startCommand\": \"caf\xe9\"}}");
    town.up_fails(&app.path(), &[], "plan", &["railway.json", "UTF-8"]);
    assert_eq!(town.get("windows", "/version").body, "two");
}

#[test]
fn a_folder_that_cannot_be_a_source_is_refused_before_anything_is_uploaded() {
    let town = TestBox::start();
    let app = town.up_good("shop");

    let empty = App::empty("shop");
    town.up_fails(&empty.path(), &[], "source", &["nothing to deploy"]).hints(&["right folder"]);
    empty.write(".gitignore", "*\n").write("app.py", "print()");
    town.up_fails(&empty.path(), &[], "source", &["nothing to deploy"]).hints(&["ignore"]);

    let missing = app.path().join("nowhere");
    town.up_fails(&missing, &["--service", "shop"], "source", &["nowhere", "No such file"]);
    let file = app.path().join("app.py");
    town.up_fails(&file, &["--service", "shop"], "source", &["app.py", "not a folder"]).hints(&["folder"]);

    let huge = app.path().join("model.bin");
    File::create(&huge).and_then(|file| file.set_len(3 << 30)).expect("a sparse file");
    let up =
        town.up_fails(&app.path(), &[], "source", &["200000 files or 2.1 GB", "biggest folders", "3.2 GB"]);
    up.hints(&[".railwayignore"]);
    fs::remove_file(&huge).expect("ours");

    let pipe = app.path().join("queue");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    town.up_fails(&app.path(), &[], "source", &["queue is a named pipe"]).hints(&[".railwayignore"]);
    fs::remove_file(&pipe).expect("ours");

    let link = app.path().join("secrets");
    symlink("../../../etc/shadow", &link).expect("a link");
    town.up_fails(&app.path(), &[], "source", &["secrets leads out of the folder", "../../../etc/shadow"]);
    fs::remove_file(&link).expect("ours");
    symlink("/etc/shadow", &link).expect("a link");
    town.up_fails(&app.path(), &[], "source", &["secrets leads out of the folder", "/etc/shadow"])
        .hints(&["copy what it leads to"]);
    fs::remove_file(&link).expect("ours");

    // Links that stay inside are fine.
    symlink("app.py", app.path().join("main.py")).expect("a link");
    town.assert_serves_on("shop");
    let tried = town.json(&["deployments", "--json", "--service", "shop"]);
    assert_eq!(
        tried.as_array().map(Vec::len),
        Some(1),
        "nothing but the good one was asked of the box: {tried:#}"
    );
    town.up_ok(&app.path());
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    if !is_root("an unreadable file, deployed by an ordinary user") {
        return;
    }
    let town = TestBox::start_with(User::Ordinary, &[], &[]);
    let app = App::plain("shop");
    town.up_ok(&app.path());
    let key = app.path().join("server.key");
    app.write("server.key", "secret");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
    town.up_fails(&app.path(), &[], "source", &["server.key", "Permission denied", "nothing was uploaded"])
        .hints(&["readable", ".railwayignore"]);
    fs::remove_file(&key).expect("ours");
    fs::create_dir(app.path().join("private")).expect("a folder");
    fs::set_permissions(app.path().join("private"), fs::Permissions::from_mode(0o700)).expect("ours");
    town.up_fails(&app.path(), &[], "source", &["private", "Permission denied"]);
    assert_eq!(town.get("shop", "/version").body, "one");
}

#[test]
fn ignored_files_are_not_in_the_app() {
    let town = TestBox::start();
    let app = App::plain("tidy");
    app.write(".gitignore", "*.log\n/cache/\n!kept.log\n")
        .write(".railwayignore", "notes.txt\n")
        .write("debug.log", "x")
        .write("kept.log", "x")
        .write("cache/a", "x")
        .write("notes.txt", "x")
        .write("sub/.gitignore", "drop\n")
        .write("sub/drop", "x")
        .write("sub/keep", "x")
        .write("node_modules/x/index.js", "x")
        .write(".git/config", "x")
        .write("run.sh", "#!/bin/sh\necho ran\n");
    fs::set_permissions(app.path().join("run.sh"), fs::Permissions::from_mode(0o755)).expect("ours");
    symlink("sub/keep", app.path().join("link")).expect("a link");
    town.up_ok(&app.path());
    let find =
        "cd /app && find . -path ./.venv -prune -o \\( -type f -o -type l \\) -print | sort && ./run.sh";
    let said = town.trackbed(&["run", "--service", "tidy", "--", "sh", "-c", find]);
    assert_eq!(said.code, 0, "{said:?}");
    let files: Vec<&str> = said.stdout.split_whitespace().collect();
    let expected = [
        "./.gitignore",
        "./.railwayignore",
        "./app.py",
        "./kept.log",
        "./link",
        "./railway.json",
        "./requirements.txt",
    ];
    let expected: Vec<&str> =
        expected.into_iter().chain(["./run.sh", "./sub/.gitignore", "./sub/keep", "ran"]).collect();
    assert_eq!(files, expected);
    // What git drops can be asked for.
    let up = town.up(&app.path(), &["--no-gitignore"]);
    assert_eq!(up.code, 0, "{:#}", up.last);
    let said = town.trackbed(&["run", "--service", "tidy", "--", "ls", "/app", "/app/cache"]);
    assert!(said.stdout.contains("debug.log") && !said.stdout.contains("notes.txt"), "{said:?}");
}

#[test]
fn a_full_disk_is_named_and_the_old_release_serves_on() {
    if !is_root("a full disk") {
        return;
    }
    let town = TestBox::prepare(User::Own, &[], &[]);
    let home = town.data_dir().parent().expect("a folder around it").to_owned();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=60m", "tmpfs"]).arg(&home).status();
    assert!(mounted.is_ok_and(|status| status.success()), "mount");
    let mut small = SmallBox { town, _mount: Mount(home) };
    let town = &mut small.town;
    town.start_serve();
    let app = town.up_good("shop");

    // Too large to be received.
    let big = app.path().join("model.bin");
    fs::write(&big, noise(80 << 20)).expect("80 MB");
    town.up_fails(&app.path(), &[], "upload", &["No space left on device"]).hints(&["disk"]);
    town.assert_serves_on("shop");
    fs::remove_file(&big).expect("ours");

    // Fills up while it is built.
    let build = "{\"build\": {\"buildCommand\": \"python -c \\\"open('x','wb').write(bytes(90<<20))\\\"\"}, \
                 \"deploy\": {\"startCommand\": \"python app.py\", \"healthcheckPath\": \"/health\"}}";
    app.write("railway.json", build);
    town.up_fails(&app.path(), &[], "build", &["the disk of the box is full"])
        .hints(&["free space on the disk of"]);
    town.assert_serves_on("shop");

    // And the dependencies.
    app.write("railway.json", "{\"deploy\": {\"startCommand\": \"python app.py\"}}")
        .write("requirements.txt", "numpy\n");
    town.up_fails(&app.path(), &[], "build", &["the disk of the box is full"]);
    town.assert_serves_on("shop");

    // With room again it goes on.
    app.write("requirements.txt", "").version("two");
    town.up_ok(&app.path());
    assert_eq!(town.get("shop", "/version").body, "two");
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);

    // Full when one instance is put in the place of another: callers may have to wait until there is room.
    let traffic = Traffic::get(town.port(), "shop", 2, Duration::from_millis(20));
    let filler = town.data_dir().join("filler");
    let mut file = fs::File::create(&filler).expect("a file");
    while std::io::Write::write_all(&mut file, &noise(64 << 10)).is_ok() {}
    drop(file);
    let asked = town.trackbed(&["restart", "--service", "shop", "--detach"]);
    if asked.code == 0 {
        wait_for("the full disk is met", Duration::from_secs(20), || {
            let log = town.serve_log();
            let failed = town.service("shop")["last_deployment"]["status"] == "failed";
            failed || log.contains("a pass over the service failed")
        });
    }
    fs::remove_file(&filler).expect("ours");
    wait_for("it has settled", Duration::from_secs(20), || {
        let service = town.service("shop");
        service["state"] == "running" && !service["last_deployment"]["finished_at"].is_null()
    });
    assert_eq!(town.get("shop", "/version").body, "two");
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);
    assert_eq!(town.get("shop", "/two-at-once").body, "False");
    assert_eq!(traffic.end().failures, Vec::<String>::new());
    let again = town.trackbed(&["restart", "--service", "shop"]);
    assert_eq!(again.code, 0, "{again:?}");
}

/// Bytes that no filesystem stores smaller.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    });
    bytes.flatten().take(count).collect()
}

/// A box on a small disk: ended before the disk goes.
struct SmallBox {
    town: TestBox,
    _mount: Mount,
}

/// Unmounts when the test ends, whatever its result.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}
