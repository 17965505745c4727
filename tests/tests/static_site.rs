//! Static sites: served by the edge itself, deployed like everything else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trackbed_tests::{App, Response, TestBox, Traffic, request, wait_for};

/// From a change to its effect.
const EFFECT: Duration = Duration::from_secs(20);

/// A site of a few files.
fn site(name: &str) -> App {
    let app = App::empty(name);
    app.write("index.html", "<h1>one</h1>").write("404.html", "lost").write("css/site.css", "b{}");
    app.write("version", "one").write(".env", "SECRET=1").write("docs/index.html", "docs");
    app
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.head.lines().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn run(town: &TestBox, arguments: &[&str]) -> (i32, String) {
    let output = town.trackbed(arguments);
    (output.code, format!("{}{}", output.stdout, output.stderr))
}

#[test]
fn a_folder_is_served_without_a_process() {
    let (mut town, app) = (TestBox::start(), site("pages"));
    let up = town.up_ok(&app.path());
    assert_eq!(up.text("release"), "v1");
    assert!(town.living_instances().is_empty(), "nothing runs");
    assert_eq!(town.service("pages")["state"], "running");
    let page = town.get("pages", "/");
    assert_eq!((page.status, page.body.as_str()), (200, "<h1>one</h1>"));
    assert_eq!(header(&page, "content-type"), Some("text/html; charset=utf-8"));
    let lost = town.get("pages", "/nothing");
    assert_eq!((lost.status, lost.body.as_str()), (404, "lost"));
    assert_eq!(town.get("pages", "/.env").status, 404);
    assert_eq!(header(&town.get("pages", "/docs"), "location"), Some("/docs/"));
    assert_eq!(town.request("pages", "POST", "/", "x").status, 405);

    let (code, said) = run(&town, &["status", "--service", "pages"]);
    assert!(code == 0 && said.contains("served by the edge, without a process"), "{said}");
    let (code, said) = run(&town, &["logs", "--service", "pages"]);
    assert!(code == 0 && said.contains("the edge serves its files"), "{said}");
    let (code, said) = run(&town, &["run", "--service", "pages", "--", "ls"]);
    assert!(code != 0 && said.contains("it has no process"), "{said}");

    // The control plane may be gone for good: the edge needs nobody.
    let port = town.port();
    town.kill_serve();
    let host = format!("pages.localhost:{port}");
    assert_eq!(
        request(port, &host, "GET", "/version", "").map(|answer| answer.body).ok().as_deref(),
        Some("one")
    );
    town.start_serve();
    assert_eq!(town.get("pages", "/version").body, "one");
    assert_eq!(town.service("pages")["state"], "running");
    // A new edge finds the site in its own records.
    let edge = town.edge_pid();
    town.kill_pid(edge);
    wait_for("another edge serves the site", EFFECT, || {
        request(port, &host, "GET", "/version", "").is_ok_and(|answer| answer.body == "one")
    });

    assert_eq!(run(&town, &["restart", "--service", "pages"]).0, 0);
    assert_eq!(town.get("pages", "/version").body, "one");
    assert_eq!(run(&town, &["down", "--service", "pages"]).0, 0);
    assert_eq!(town.get("pages", "/version").status, 503);
    assert_eq!(run(&town, &["restart", "--service", "pages"]).0, 0);
    assert_eq!(town.get("pages", "/version").body, "one");
}

#[test]
fn a_tag_stays_as_long_as_the_content_does() {
    let (town, app) = (TestBox::start(), site("pages"));
    town.up_ok(&app.path());
    let tags =
        || ["/", "/css/site.css"].map(|path| header(&town.get("pages", path), "etag").map(str::to_owned));
    let before = tags();
    app.write("index.html", "<h1>two</h1>").write("version", "two");
    town.up_ok(&app.path());
    assert_eq!(town.get("pages", "/version").body, "two");
    let after = tags();
    assert_ne!(before[0], after[0], "another page");
    assert_eq!(before[1], after[1], "the same file of another release");
    let (code, said) = run(&town, &["rollback", "v1", "--service", "pages"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(town.get("pages", "/version").body, "one");
    assert_eq!(tags(), before);
}

#[test]
fn a_process_becomes_a_site_and_back_and_no_request_fails() {
    let (town, app) = (TestBox::start(), App::plain("shop"));
    app.version("process");
    town.up_ok(&app.path());
    let port = town.port();
    let traffic = Traffic::get(port, "shop", 4, Duration::from_millis(5));
    let pages = site("shop");
    for _ in 0..2 {
        town.up_ok(&pages.path());
        assert_eq!(town.get("shop", "/version").body, "one");
        wait_for("the process ends", EFFECT, || town.living_instances().is_empty());
        town.up_ok(&app.path());
        assert_eq!(town.get("shop", "/version").body, "process");
    }
    let (code, said) = run(&town, &["rollback", "v2", "--service", "shop"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(town.get("shop", "/version").body, "one");
    let tally = traffic.end();
    assert!(tally.sent > 50 && tally.failures.is_empty(), "{} sent: {:#?}", tally.sent, tally.failures);
}

#[test]
fn a_site_that_cannot_be_leaves_the_live_one_alone() {
    let (town, app) = (TestBox::start(), site("pages"));
    town.up_ok(&app.path());
    app.write("trackbed.toml", "[static]\nroot = \"dist\"\n");
    town.up_fails(&app.path(), &[], "plan", &["trackbed.toml:2", "`dist`", "no such folder"]);
    app.write("trackbed.toml", "[build]\nbuildCommand = \"mkdir out\"\n[static]\nroot = \"dist\"\n");
    town.up_fails(&app.path(), &[], "build", &["the build made no folder `dist`", "`out`"]);
    app.write(
        "trackbed.toml",
        "[static]\nroot = \"css\"\n[deploy]\nhealthcheckPath = \"/\"\nhealthcheckTimeout = 2\n",
    );
    town.up_fails(&app.path(), &[], "health", &["404"]);
    assert_eq!(town.get("pages", "/version").body, "one");
}

#[test]
fn a_staticfile_of_railway_deploys_unchanged() {
    let (town, app) = (TestBox::start(), App::empty("pages"));
    app.write("Staticfile", "root: site\n").write("site/page.html", "a page");
    app.write("railway.json", "{\"deploy\": {\"healthcheckPath\": \"/health\"}}");
    town.up_ok(&app.path());
    assert_eq!(town.get("pages", "/page").body, "a page");
    assert_eq!(town.get("pages", "/health").status, 200);
    assert_eq!(town.get("pages", "/Staticfile").status, 404);
}

/// Finds programs on this machine. Without them the test says loudly that it tested nothing.
fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here =
        |program: &&str| std::env::split_paths(&path).any(|folder: PathBuf| folder.join(program).is_file());
    let all = programs.iter().all(is_here);
    if !all {
        eprintln!("NOT TESTED (one of {programs:?} is missing here): sites that are built");
    }
    all
}

#[test]
fn a_build_that_ends_in_files_gets_its_variables_and_is_served() {
    if !has(&["node", "npm"]) {
        return;
    }
    let (town, app) = (TestBox::start(), App::empty("pages"));
    app.write("package.json", r#"{"name": "pages", "scripts": {"build": "node build.js"}}"#);
    app.write("trackbed.toml", "[static]\nroot = \"dist\"\nspa = true\n");
    app.write(
        "build.js",
        "const fs = require('fs');\nfs.mkdirSync('dist/assets', {recursive: true});\n\
         fs.writeFileSync('dist/index.html', `built for ${process.env.PUBLIC_NAME}`);\n\
         fs.writeFileSync('dist/assets/app-BfJ2x9aQ.js', 'js');\n\
         fs.writeFileSync('dist/assets/app-BfJ2x9aQ.js.gz', 'gz');\n\
         fs.symlinkSync('/etc/passwd', 'dist/passwd');\n",
    );
    town.up_ok(&app.path());
    let (code, said) = run(&town, &["variables", "set", "PUBLIC_NAME=everybody", "--service", "pages"]);
    assert_eq!(code, 0, "{said}");
    app.write("note", "a change of the source");
    town.up_ok(&app.path());
    assert_eq!(town.get("pages", "/").body, "built for everybody");
    assert_eq!(town.get("pages", "/deep/link").body, "built for everybody");
    assert_eq!(town.get("pages", "/build.js").status, 404, "only what was built is served");
    assert!(!town.get("pages", "/passwd").body.contains("root:"));
    let script = town.get("pages", "/assets/app-BfJ2x9aQ.js");
    assert_eq!(header(&script, "cache-control"), Some("public, max-age=31536000, immutable"));
    assert!(town.living_instances().is_empty());
}

#[test]
fn a_vite_app_is_built_and_served() {
    if !has(&["node", "npm"]) {
        return;
    }
    let app = App::empty("spa");
    app.write(
        "package.json",
        r#"{"name": "spa", "private": true, "type": "module", "scripts": {"dev": "vite", "build": "vite build"}, "devDependencies": {"vite": "^5.4.0"}}"#,
    );
    // Without a lock: what npm writes into one differs from machine to machine, and this is about the site.
    let seen = Command::new("npm").args(["view", "vite", "version"]).current_dir(app.path()).output();
    if !seen.is_ok_and(|seen| seen.status.success()) {
        eprintln!("NOT TESTED (npm's registry is out of reach): a Vite app");
        return;
    }
    app.write("index.html", "<div id=app></div><script type=module src=/src/main.js></script>");
    app.write("src/main.js", "document.querySelector('#app').textContent = 'vite';");
    let town = TestBox::start();
    town.up_ok(&app.path());
    let page = town.get("spa", "/some/route");
    assert_eq!(page.status, 200);
    let script = page.body.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a script");
    assert!(script.starts_with("/assets/index-") && Path::new(script).extension().is_some(), "{script}");
    let answer = town.get("spa", script);
    assert!(answer.status == 200 && answer.body.contains("vite"), "{answer:?}");
    let missing = town.get("spa", "/assets/gone.js");
    assert_eq!(missing.status, 404, "a page is no script");
    assert!(town.living_instances().is_empty());
}
