//! Webhooks and followed repositories, with the real git, the real sshd and a forge on loopback: what is deployed, what is
//! refused and in which words, and what the forge hears of it.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use trackbed_tests::{
    App, Connection, FileSystem, Forge, Hook, Random, Repository, SshServer, TestBox, push, wait_for,
};

const SOON: Duration = Duration::from_secs(60);
const NONE: &str = "0000000000000000000000000000000000000000";

/// Waits until the newest delivery of `shop` is in this state, and returns it.
fn ended(town: &TestBox, state: &str) -> Value {
    let mut seen = Value::Null;
    wait_for(&format!("the delivery is {state}"), SOON, || {
        seen = town.delivery("shop");
        let is_there = seen["state"] == state;
        let under_way = ["fetching", "deploying"].iter().any(|word| seen["state"] == *word);
        assert!(is_there || under_way || seen.is_null(), "{seen:#}\n{}", town.serve_log());
        is_there
    });
    seen
}

fn watches(app: &App, patterns: &str) {
    app.write(
        "railway.json",
        format!(
            r#"{{"build": {{"watchPatterns": {patterns}}},
               "deploy": {{"startCommand": "python app.py", "healthcheckPath": "/health", "healthcheckTimeout": 20}}}}"#
        ),
    );
}

/// A box that follows a repository of a forge, whose statuses it may set.
fn followed(app: &App) -> (TestBox, Forge, Repository, Hook) {
    let town = TestBox::start_with_port_for_git();
    let (forge, repository) = (Forge::start(), Repository::of(app));
    forge.take(&repository, "me/shop");
    let token = app.path().join("../token");
    std::fs::write(&token, "forge-token\n").expect("our own folder");
    let (api, token) = (forge.api(), token.to_string_lossy().into_owned());
    let more = ["--forge", "github", "--api", &api, "--status-token", &token];
    let hook = town.follow("shop", &forge.url("me/shop"), &more);
    (town, forge, repository, hook)
}

#[test]
fn a_push_at_the_forge_is_deployed_and_its_commit_gets_a_status() {
    let app = App::plain("shop");
    let (town, forge, repository, hook) = followed(&app);
    let first = forge.take(&repository, "me/shop");
    let answer = hook.github("one", &first);
    assert_eq!(answer.status, 202, "{answer:?}");
    let delivery = ended(&town, "live");
    assert_eq!(delivery["commit"]["id"], first, "{delivery:#}");
    assert_eq!(town.get("shop", "/version").body, "one");
    let deployments = town.json(&["deployments", "--json", "--service", "shop"]);
    let commit = &deployments[0]["commit"];
    assert_eq!((&commit["id"], &commit["subject"]), (&json!(first), &json!("first")), "{deployments:#}");

    wait_for("the forge hears of it", SOON, || forge.statuses(&first).len() == 2);
    let told = forge.told();
    assert_eq!(told[0]["path"], format!("/repos/me/shop/statuses/{first}"));
    assert_eq!(
        (&told[0]["token"], &told[0]["context"]),
        (&json!("Bearer forge-token"), &json!("trackbed/shop"))
    );
    assert_eq!((&told[0]["state"], &told[1]["state"]), (&json!("pending"), &json!("success")));
    assert!(
        told[1]["target_url"].as_str().is_some_and(|url| url.starts_with("http://shop.localhost")),
        "{told:?}"
    );

    // The next one, by a shallow fetch into what is there.
    app.version("two");
    let second = forge.take(repository.commit("two"), "me/shop");
    assert_eq!(hook.github("two", &second).status, 202);
    wait_for("it is live", SOON, || town.get("shop", "/version").body == "two");
    // The same files once more: nothing is deployed, and the forge hears that all is well.
    let empty = forge.take(repository.commit("empty"), "me/shop");
    assert_eq!(hook.github("three", &empty).status, 202);
    assert!(ended(&town, "already live")["detail"].as_str().is_some_and(|text| text.starts_with("v2 has")));
    wait_for("the forge hears of it", SOON, || {
        forge.statuses(&empty).last().is_some_and(|(state, _)| state == "success")
    });

    // What does not build leaves the old release, and the forge hears why.
    app.write("railway.json", "{\"deploy\": ");
    let broken = forge.take(repository.commit("broken"), "me/shop");
    assert_eq!(hook.github("four", &broken).status, 202);
    let delivery = ended(&town, "failed");
    assert!(delivery["detail"].as_str().is_some_and(|text| text.contains("railway.json:1")), "{delivery:#}");
    wait_for("the forge hears of it", SOON, || {
        forge
            .statuses(&broken)
            .iter()
            .any(|(state, why)| state == "failure" && why.contains("failed at plan"))
    });
    assert_eq!(town.get("shop", "/version").body, "two");
    assert!(town.service("shop")["release"]["version"] == 2, "{:#}", town.service("shop"));
}

#[test]
fn what_is_no_push_of_the_branch_is_answered_in_words_and_deploys_nothing() {
    let app = App::plain("shop");
    let (town, forge, repository, hook) = followed(&app);
    let commit = forge.take(&repository, "me/shop");
    let mut number = 0;
    let mut taken_note = |event: &str, body: &Value, words: &str| {
        number += 1;
        let answer = hook.github_event(event, &number.to_string(), body);
        assert!(answer.status == 200 && answer.body.contains(words), "{event}: {answer:?}");
    };
    taken_note("ping", &json!({ "zen": "x" }), "pong: pushes to `main` deploy shop");
    taken_note("issues", &json!({}), "`issues` deploys nothing");
    taken_note("push", &push("refs/heads/other", &commit), "shop deploys `main`, not `other`");
    taken_note("push", &push("refs/tags/v1", &commit), "`refs/tags/v1` is no branch");
    taken_note("push", &push("refs/heads/main", NONE), "shop serves on: `trackbed down` stops it");
    taken_note("push", &push("refs/heads/other", NONE), "was not deployed");
    assert!(town.delivery("shop").is_null() && town.service("shop")["state"] == "new");
    assert_eq!(forge.told().len(), 0);
}

#[test]
fn a_delivery_that_cannot_be_believed_or_read_is_refused() {
    let app = App::plain("shop");
    let (town, forge, repository, hook) = followed(&app);
    let commit = forge.take(&repository, "me/shop");
    let body = push("refs/heads/main", &commit).to_string();
    let event = "X-GitHub-Event: push\r\nX-GitHub-Delivery: 1\r\n";
    let signed = |body: &str| format!("{event}X-Hub-Signature-256: sha256={}\r\n", hook.sign(body));
    let form = "payload=%7B%7D";
    for (headers, body, status, words) in [
        (event.to_owned(), body.as_str(), 401, "X-Hub-Signature-256 is missing"),
        (signed("another body"), &body, 401, "the signature is wrong"),
        (format!("{event}X-Gitlab-Token: {}\r\n", hook.secret), &body, 401, "is missing"),
        (
            "X-Gitlab-Event: Push Hook\r\nX-Gitlab-Token: wrong\r\n".to_owned(),
            &body,
            401,
            "signature is wrong",
        ),
        (String::new(), &body, 400, "no forge is known by these headers"),
        (signed("no JSON"), "no JSON", 400, "no push in JSON"),
        (signed("{}"), "{}", 400, "missing field `ref`"),
        (
            format!("X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={}\r\n", hook.sign(&body)),
            &body,
            400,
            "no name of its own",
        ),
    ] {
        let answer = hook.send(&headers, body);
        assert!(answer.status == status && answer.body.contains(words), "{headers}: {answer:?}");
    }
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let send = |method: &str, path: &str, headers: &str, body: &str| {
        let sent = Connection::send(hook.port, "box", method, path, headers, body.as_bytes());
        sent.and_then(Connection::read_all).expect("an answer")
    };
    let answer = send("POST", &hook.path, &format!("{kind}{}", signed(form)), form);
    assert!(answer.status == 415 && answer.body.contains("application/json"), "{answer:?}");
    let answer = send("GET", &hook.path, "", "");
    assert!(answer.status == 405 && answer.body.contains("takes POST alone"), "{answer:?}");
    for (path, status, words) in [
        ("/hooks/other", 404, "no service takes deliveries"),
        ("/hooks/shop/x", 404, "no service takes deliveries"),
        // Those are no addresses of webhooks.
        ("/hooks/", 401, "a token is wanted"),
        ("/hooks/a/b/c", 401, "a token is wanted"),
        ("/hooks/..%2fshop", 401, "a token is wanted"),
    ] {
        let answer = send("POST", path, &signed(&body), &body);
        assert!(answer.status == status && answer.body.contains(words), "{path}: {answer:?}");
    }
    // Refused by its announced length; nobody reads so much of a stranger.
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n", hook.path);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", hook.port)).expect("the box");
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("the box reads");
    let answer = Connection { stream }.read_all().expect("an answer");
    assert!(answer.status == 413 && answer.body.contains("25 MB"), "{answer:?}");
    assert!(town.delivery("shop").is_null());

    // A replay: by its name, and by its signed body under another name.
    assert_eq!(hook.send(&signed(&body), &body).status, 202);
    ended(&town, "live");
    for name in ["1", "2"] {
        let again = hook.github(name, &commit);
        assert!(again.status == 409 && again.body.contains("trackbed source deploy"), "{again:?}");
    }
    assert_eq!(town.service("shop")["release"]["version"], 1);
}

#[test]
fn gitlab_gitea_and_forgejo_are_understood_each_by_its_own_signature() {
    let app = App::plain("shop");
    let (town, forge, repository, hook) = followed(&app);
    let mut version = 0;
    let mut deploys = |headers: &dyn Fn(&str) -> String| {
        version += 1;
        app.version(&format!("{version}"));
        let commit = forge.take(repository.commit("next"), "me/shop");
        let body = push("refs/heads/main", &commit).to_string();
        let answer = hook.send(&headers(&body), &body);
        assert_eq!(answer.status, 202, "{answer:?}");
        wait_for("it is live", SOON, || town.get("shop", "/version").body == version.to_string());
    };
    deploys(&|_| {
        format!("X-Gitlab-Event: Push Hook\r\nX-Gitlab-Event-UUID: 1\r\nX-Gitlab-Token: {}\r\n", hook.secret)
    });
    deploys(&|body| {
        let signature = hook.sign(body);
        format!(
            "X-GitHub-Event: push\r\nX-Gitea-Event: push\r\nX-Gitea-Delivery: 1\r\nX-Gitea-Signature: {signature}\r\n"
        )
    });
    deploys(&|body| {
        let signature = hook.sign(body);
        format!("X-Forgejo-Event: push\r\nX-Forgejo-Delivery: 2\r\nX-Forgejo-Signature: {signature}\r\n")
    });
}

#[test]
fn where_gitlab_signs_with_a_token_of_its_own_nothing_less_is_believed() {
    let app = App::plain("shop");
    let (town, forge, repository, _) = followed(&app);
    let file = app.path().join("../signing-token").to_string_lossy().into_owned();
    let connect = |secret: &str| {
        std::fs::write(&file, secret).expect("our own file");
        let url = forge.url("me/shop");
        town.trackbed(&["source", "connect", &url, "--webhook-secret", &file, "--service", "shop"])
    };
    for bad in ["short", "whsec_short", "whsec_not base64"] {
        let said = connect(bad);
        assert!(said.code == 1 && !said.stderr.is_empty(), "{bad}: {said:?}");
    }
    let token = "whsec_dGhpcnR5LXR3byBieXRlcyBvZiBhIHRlc3RlciEhIQ==";
    let said = connect(token);
    assert!(said.code == 0 && !format!("{said:?}").contains("whsec_"), "{said:?}");
    // It stays, as every secret does, when the repository is connected once more.
    let hook = town.follow("shop", &forge.url("me/shop"), &["--forge", "gitlab"]);
    assert_eq!(hook.secret, token);

    let commit = forge.take(&repository, "me/shop");
    let now = i64::try_from(UNIX_EPOCH.elapsed().expect("a clock").as_secs()).expect("a time");
    let body = push("refs/heads/main", &commit).to_string();
    let bare = format!("X-Gitlab-Event: Push Hook\r\nX-Gitlab-Token: {token}\r\n");
    let another = token.replace("dG", "dH");
    for (answer, words) in [
        (hook.send(&bare, &body), "webhook-signature is missing"),
        (hook.signed_by_gitlab(&another, "1", now, &commit), "the signature is wrong"),
        (hook.signed_by_gitlab(token, "1", now - 3600, &commit), "old one sent again"),
    ] {
        assert!(answer.status == 401 && answer.body.contains(words), "{answer:?}");
    }
    assert!(town.delivery("shop").is_null());
    assert_eq!(hook.signed_by_gitlab(token, "1", now, &commit).status, 202);
    ended(&town, "live");
    // Signed anew, under the name that is signed: what else the headers say does not make it another delivery.
    let again = hook.signed_by_gitlab(token, "1", now + 1, &commit);
    assert!(again.status == 409 && again.body.contains("taken before"), "{again:?}");
}

#[test]
fn of_several_pushes_in_a_row_the_newest_is_live_and_the_others_are_given_up() {
    let app = App::plain("shop");
    let (town, forge, repository, hook) = followed(&app);
    let hold = forge.hold();
    let mut commits = Vec::new();
    for number in 0..4 {
        app.version(&number.to_string());
        commits.push(forge.take(repository.commit("next"), "me/shop"));
        assert_eq!(hook.github(&number.to_string(), &commits[number]).status, 202);
    }
    drop(hold);
    assert_eq!(ended(&town, "live")["commit"]["id"], commits[3]);
    assert_eq!(town.get("shop", "/version").body, "3");
    let shown = town.json(&["source", "show", "--json", "--service", "shop"]);
    let states: Vec<_> =
        shown["deliveries"].as_array().expect("a list").iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["live", "superseded", "superseded", "superseded"], "{shown:#}");
    for commit in &commits[..3] {
        wait_for("the forge hears of it", SOON, || {
            forge.statuses(commit).last().is_some_and(|(state, _)| state == "error")
        });
    }
}

#[test]
fn a_box_that_ends_in_the_middle_goes_on_when_it_is_back() {
    let app = App::plain("shop");
    let (mut town, forge, repository, hook) = followed(&app);
    // In the middle of the fetch.
    let commit = forge.take(&repository, "me/shop");
    let hold = forge.hold();
    assert_eq!(hook.github("one", &commit).status, 202);
    wait_for("git fetches", SOON, || town.data_dir().join("git/fetched").exists());
    town.kill_serve();
    drop(hold);
    town.start_serve();
    ended(&town, "live");
    let left = std::fs::read_dir(town.data_dir().join("git/aside")).into_iter().flatten().count();
    assert_eq!(left, 0, "no key stays on the disk");
    // In the middle of the deployment.
    assert_eq!(town.trackbed(&["variables", "set", "START_DELAY=3", "--service", "shop"]).code, 0);
    app.version("two");
    let commit = forge.take(repository.commit("two"), "me/shop");
    assert_eq!(hook.github("two", &commit).status, 202);
    wait_for("it starts", SOON, || town.service("shop")["deploying"]["step"] == "health");
    town.kill_serve();
    town.start_serve();
    ended(&town, "live");
    assert_eq!(town.get("shop", "/version").body, "two");
    wait_for("the forge hears of it", SOON, || {
        forge.statuses(&commit).last().is_some_and(|(state, _)| state == "success")
    });
    let deployments = town.json(&["deployments", "--json", "--service", "shop"]);
    assert_eq!(deployments.as_array().map(Vec::len), Some(2), "nothing is deployed twice: {deployments:#}");
}

#[test]
fn what_changes_nothing_that_is_watched_is_skipped_by_webhook_and_by_push() {
    let app = App::plain("shop");
    watches(&app, r#"["*.py", "version*", "!docs/**"]"#);
    let (town, forge, repository, hook) = followed(&app);
    let first = forge.take(&repository, "me/shop");
    // The first one is deployed, whatever it changes.
    assert_eq!(hook.github("1", &first).status, 202);
    ended(&town, "live");
    app.write("README.md", "words");
    let words = forge.take(repository.commit("words"), "me/shop");
    assert_eq!(hook.github("2", &words).status, 202);
    let delivery = ended(&town, "skipped");
    let reason = delivery["detail"].as_str().expect("words");
    assert!(reason.contains("does not match `build.watchPatterns` (*.py, version*, !docs/**)"), "{reason}");
    let last = town.json(&["deployments", "--json", "--service", "shop"])[0].clone();
    assert_eq!((&last["status"], &last["skipped"]), (&json!("skipped"), &json!(reason)), "{last:#}");
    wait_for("the forge hears of it", SOON, || {
        forge
            .statuses(&words)
            .last()
            .is_some_and(|(state, why)| state == "success" && why.starts_with("skipped"))
    });

    // By push: taken, told, and the branch moves.
    repository.connect(&town);
    app.write("docs/example.py", "pass");
    let log = repository.commit("docs").push_ok(&["main"]);
    assert!(log.contains("remote: - SKIPPED: no changed file matches"), "{log}");
    assert!(log.contains("trackbed redeploy"), "{log}");
    assert_eq!(town.pushed_to("main"), repository.ok(&["rev-parse", "HEAD"]));
    assert_eq!(town.service("shop")["release"]["version"], 1);
    // What its owner asks for is done: by `redeploy` what was skipped, by `up` what is there.
    assert_eq!(town.trackbed(&["redeploy", "--service", "shop"]).code, 0);
    assert_eq!(town.service("shop")["release"]["version"], 2);
    app.write("README.md", "other words");
    town.up_ok(&app.path());
    assert_eq!(town.service("shop")["release"]["version"], 3);
    // A watched file.
    app.version("two");
    assert!(repository.commit("two").push_ok(&["main"]).contains("v4 of shop is live"));
}

#[test]
fn what_cannot_be_fetched_says_why_and_the_way_out_and_may_come_again() {
    let app = App::plain("shop");
    let (town, forge, repository, hook) = followed(&app);
    let commit = forge.take(&repository, "me/shop");
    let words = |words: &[&str]| {
        let detail = ended(&town, "not fetched")["detail"].as_str().expect("words").to_owned();
        for word in words {
            assert!(detail.contains(word), "no `{word}` in {detail}");
        }
    };
    let follow = |url: &str| town.follow("shop", url, &["--forge", "github"]);
    // Nobody listens there.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    follow(&format!("http://127.0.0.1:{port}/me/shop.git"));
    assert_eq!(hook.github("one", &commit).status, 202);
    words(&["127.0.0.1 cannot be reached", "firewall", "trackbed source deploy"]);
    // The same delivery again, to a repository that wants a password.
    follow(&forge.url("private/shop"));
    assert_eq!(hook.github("one", &commit).status, 202);
    words(&["wants a password", "git@127.0.0.1:private/shop.git"]);
    follow(&forge.url("me/none"));
    assert_eq!(hook.github("one", &commit).status, 202);
    words(&["there is no repository `me/none`"]);
    // A commit that is not there, and a branch that is not.
    follow(&forge.url("me/shop"));
    assert_eq!(hook.github("two", &"b".repeat(40)).status, 202);
    words(&["bbbbbbbbbb is no longer what `main` is at"]);
    town.follow("shop", &forge.url("me/shop"), &["--branch", "trunk"]);
    let said = town.trackbed(&["source", "deploy", "--service", "shop"]);
    assert!(said.code == 1 && said.stderr.contains("has no branch `trunk`"), "{said:?}");
    assert_eq!(town.service("shop")["state"], "new");

    town.follow("shop", &forge.url("me/shop"), &["--branch", "main"]);
    assert_eq!(hook.github("one", &commit).status, 202, "the same delivery again, and the same secret");
    ended(&town, "live");

    // Its tree lacks what a push would lack.
    repository.ok(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},libs/shared")]);
    repository.ok(&["commit", "--quiet", "--message", "a submodule"]);
    let submodule = forge.take(&repository, "me/shop");
    assert_eq!(hook.github("three", &submodule).status, 202);
    words(&["`libs/shared` is a submodule", "commit the files themselves"]);
    assert_eq!(town.get("shop", "/version").body, "one");
}

#[test]
fn addresses_that_git_could_take_for_something_else_are_refused() {
    let town = TestBox::start();
    for url in [
        "file:///srv/shop.git",
        "/srv/shop.git",
        "ext::sh -c id",
        "ext::id",
        "--upload-pack=id",
        "-oProxyCommand=id@host:shop",
        "git@-oProxyCommand=id:shop",
        "https://me:password@host/shop.git",
        "git://host/shop.git",
    ] {
        let said = town.trackbed(&["source", "connect", "--service", "shop", "--", url]);
        assert!(
            said.code == 1 && said.stderr.contains("is not the address of a repository"),
            "{url}: {said:?}"
        );
    }
    let said =
        town.trackbed(&["source", "connect", "https://host/a/b", "--branch", "-f", "--service", "shop"]);
    assert_ne!(said.code, 0, "{said:?}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "token").expect("our own file");
    let token = file.path().to_string_lossy().into_owned();
    let unknown =
        ["source", "connect", "https://host.example/a/b", "--status-token", &token, "--service", "shop"];
    let said = town.trackbed(&unknown);
    assert!(said.code == 1 && said.stderr.contains("--forge github, gitlab or gitea"), "{said:?}");
    assert_eq!(town.service("shop"), Value::Null, "nothing was made");
}

#[test]
fn a_repository_behind_ssh_is_fetched_with_the_deploy_key_and_a_changed_host_is_refused() {
    let Some(mut ssh) = SshServer::start() else { return };
    let app = App::plain("shop");
    let (town, forge, repository) = (TestBox::start(), Forge::start(), Repository::of(&app));
    let commit = forge.take(&repository, "me/shop");
    let url = ssh.url(&forge.path("me/shop"));
    let hook = town.follow("shop", &url, &[]);
    let key = hook.said["deploy_key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("ssh-ed25519 ") && key.ends_with(" trackbed-shop"), "{key}");

    // Without the key, nobody is let in.
    assert_eq!(hook.github("one", &commit).status, 202);
    let delivery = ended(&town, "not fetched");
    let detail = delivery["detail"].as_str().expect("words");
    assert!(
        detail.contains("does not accept the deploy key") && detail.contains("trackbed source show"),
        "{detail}"
    );
    ssh.let_in(&key);
    assert_eq!(hook.github("one", &commit).status, 202);
    ended(&town, "live");
    assert_eq!(town.get("shop", "/version").body, "one");

    // Another host at the same address.
    app.version("two");
    let commit = forge.take(repository.commit("two"), "me/shop");
    ssh.change_host_key();
    assert_eq!(hook.github("two", &commit).status, 202);
    let delivery = ended(&town, "not fetched");
    let detail = delivery["detail"].as_str().expect("words");
    assert!(detail.contains("is not the one that it had at first"), "{detail}");
    assert!(detail.contains("trackbed source connect ssh://"), "{detail}");
    // Its owner says that it is right. Key and secret stay what the forge knows.
    let again = town.follow("shop", &url, &[]);
    assert_eq!((again.said["deploy_key"].as_str(), &again.secret), (Some(key.as_str()), &hook.secret));
    let said = town.trackbed(&["source", "deploy", "--service", "shop"]);
    assert!(said.code == 0 && said.stderr.contains("v2 of shop is live"), "{said:?}");
    assert_eq!(town.get("shop", "/version").body, "two");

    // Nothing of it is readable on the disk, and nothing is left of it in the end.
    for file in ["state.db", "state.db-wal"] {
        let bytes = std::fs::read(town.data_dir().join(file)).unwrap_or_default();
        for secret in [hook.secret.as_bytes(), b"OPENSSH PRIVATE KEY"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{file}");
        }
    }
    let left = std::fs::read_dir(town.data_dir().join("git/aside")).into_iter().flatten().count();
    assert_eq!(left, 0, "no key stays on the disk");
    assert_eq!(town.trackbed(&["source", "disconnect", "--service", "shop"]).code, 0);
    assert_eq!(hook.github("three", &commit).status, 404);
    let said = town.trackbed(&["source", "show", "--service", "shop"]);
    assert!(said.code == 1 && said.stderr.contains("trackbed source connect URL"), "{said:?}");
    assert_eq!(town.get("shop", "/version").body, "two", "it serves on");
}

#[test]
fn a_fetch_does_not_take_the_reserve_of_the_volumes() {
    if !FileSystem::Ext4.is_here("a fetch to a full disk") {
        return;
    }
    let (town, forge) = (TestBox::start_on(FileSystem::Ext4, 400), Forge::start());
    let app = App::plain("shop");
    let repository = Repository::of(&app);
    let first = forge.take(&repository, "me/shop");
    let hook = town.follow("shop", &forge.url("me/shop"), &[]);
    assert_eq!(hook.github("one", &first).status, 202);
    ended(&town, "live");
    // A quarter of a small disk is the reserve.
    town.disk().fill_up_to(104);
    app.version("two").write("large.bin", Random::seeded("a large fetch").bytes(30 << 20));
    let large = forge.take(repository.commit("large"), "me/shop");
    assert_eq!(hook.github("two", &large).status, 202);
    let delivery = ended(&town, "not fetched");
    let detail = delivery["detail"].as_str().expect("words");
    assert!(detail.contains("is larger than the box takes or has room for"), "{detail}");
    town.disk().fill_up_to(80);
    assert_eq!(hook.github("two", &large).status, 202);
    wait_for("there is no room at all", SOON, || {
        town.delivery("shop")["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("full but for the reserve"))
    });
    town.disk().empty();
    assert_eq!(hook.github("two", &large).status, 202);
    ended(&town, "live");
    assert_eq!(town.get("shop", "/version").body, "two");
}
