//! Sources with a Dockerfile, and images by name: built and run by a Docker that is on the box, and by detection without.

use std::time::Duration;

use serde_json::Value;
use trackbed_testkit::dockerd::Daemon;
use trackbed_tests::{App, TestBox, Traffic, User, wait_for};

const SOON: Duration = Duration::from_secs(30);

const DOCKERFILE: &str = "FROM base\nENV FROM_IMAGE=yes PATH=/usr/bin:/bin\nWORKDIR /srv\nCOPY app.py .\n\
                          CMD [\"python3\", \"-u\", \"app.py\"]\n";

fn on(daemon: &Daemon) -> TestBox {
    TestBox::start_with(User::Own, &[("DOCKER_HOST", &daemon.host())], &[])
}

/// The plain app in a container, with a volume.
fn contained(name: &str) -> App {
    let app = App::plain_with_volume(name);
    app.write("Dockerfile", DOCKERFILE).remove("requirements.txt");
    // Without its start command: the image has one.
    app.write("railway.json", "{\"deploy\": {\"healthcheckPath\": \"/health\"}}");
    app
}

fn containers(daemon: &Daemon) -> usize {
    daemon.docker(&["ps", "--quiet"]).lines().count()
}

#[test]
fn a_dockerfile_is_built_run_handed_over_and_rolled_back() {
    let Some(daemon) = Daemon::start("a whole box with Docker") else { return };
    daemon.make_base("base", true);
    let mut town = on(&daemon);
    let app = contained("shop");
    let plan = town.trackbed(&["plan", &app.path().to_string_lossy()]).stdout;
    assert!(plan.contains("Dockerfile, built and run by Docker"), "{plan}");
    town.up_ok(&app.path());
    let status = town.service("shop");
    assert_eq!(status["release"]["provider"], "docker", "{status:#}");
    let log = town.trackbed(&["logs", "--build", "--service", "shop"]).stdout;
    assert!(log.contains("COPY app.py"), "{log}");
    assert_eq!(town.request("shop", "POST", "/notes", "first").status, 201);

    // One writer: callers wait, nothing that was acknowledged is lost.
    let traffic = Traffic::notes(town.port(), "shop", 2, Duration::from_millis(30));
    town.up_ok(app.version("two").path().as_path());
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!((town.get("shop", "/version").body.as_str(), containers(&daemon)), ("two", 1));
    assert_eq!(town.get("shop", "/two-at-once").body, "False");
    let kept: Vec<String> = serde_json::from_str(&town.get("shop", "/notes").body).expect("JSON");
    assert!(tally.acknowledged.iter().all(|note| kept.contains(note)), "an acknowledged note is lost");
    assert!(kept.contains(&"first".to_owned()), "{kept:?}");

    // A snapshot stands it still for a moment.
    let snapshot = town.trackbed(&["volume", "snapshot", "--service", "shop"]);
    assert_eq!(snapshot.code, 0, "{snapshot:?}");

    // A release that does not build, and one that does not start, take no traffic.
    app.write("Dockerfile", format!("{DOCKERFILE}RUN exit 9\n"));
    town.up_fails(&app.path(), &[], "build", &["non-zero code: 9"]);
    app.write("Dockerfile", format!("{DOCKERFILE}CMD [\"/bin/sh\", \"-c\", \"echo no >&2; exit 4\"]\n"));
    let up = town.up(&app.path(), &[]);
    assert_eq!(up.code, 1, "{:#}", up.last);
    wait_for("the old release serves", SOON, || town.service("shop")["state"] == "running");
    assert_eq!(town.get("shop", "/version").body, "two");

    // The image of the first release is still there, and is the very same.
    let back = town.trackbed(&["rollback", "v1", "--service", "shop"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(town.get("shop", "/version").body, "one");

    // The control plane may be killed: the container goes on, and the next one knows it.
    let before = town.service("shop")["instance"]["id"].clone();
    town.kill_serve();
    assert_eq!(containers(&daemon), 1);
    town.start_serve();
    assert_eq!(town.service("shop")["instance"]["id"], before);
    let run =
        town.trackbed(&["run", "--service", "shop", "--", "/bin/sh", "-c", "echo $FROM_IMAGE; ls /data"]);
    assert!(run.stdout.contains("yes") && run.stdout.contains("app.db"), "{run:?}");
    assert_eq!(town.end(), trackbed_tests::Leftovers::default());
    assert_eq!(containers(&daemon), 0, "no container runs");
    assert!(!daemon.docker(&["network", "ls", "--format", "{{.Name}}"]).contains("trackbed"));
}

#[test]
fn an_image_by_name_is_pinned_when_its_tag_moves() {
    let Some(daemon) = Daemon::start("images by name on a whole box") else { return };
    daemon.make_base("base", true);
    let build = |version: &str| {
        let app = App::plain("image");
        app.write("Dockerfile", DOCKERFILE).version(version);
        daemon.docker(&["build", "--quiet", "--tag", "shop:live", &app.path().to_string_lossy()]);
    };
    build("one");
    let town = on(&daemon);
    let app = App::empty("shop");
    app.write("trackbed.toml", "[build]\nimage = \"shop:live\"\n");
    let up = town.up_ok(&app.path());
    let said: Vec<&str> = up.events.iter().filter_map(|event| event["message"].as_str()).collect();
    assert_eq!(town.get("shop", "/version").body, "one", "{said:?}");
    build("two");
    assert_eq!(town.trackbed(&["restart", "--service", "shop"]).code, 0);
    assert_eq!(town.get("shop", "/version").body, "one", "the release keeps its image");
    assert_eq!(town.trackbed(&["redeploy", "--service", "shop"]).code, 0);
    assert_eq!(town.get("shop", "/version").body, "two");
}

#[test]
fn without_docker_detection_goes_on_and_says_so() {
    let nowhere = [("DOCKER_HOST", "unix:///nowhere/docker.sock")];
    let town = TestBox::start_with(User::Own, &nowhere, &[]);
    let app = App::plain("shop");
    app.write("Dockerfile", DOCKERFILE);
    let up = town.up_ok(&app.path());
    let said =
        "Dockerfile is not used (neither Docker nor Podman answers on this box); going on with detection";
    assert!(up.warnings().contains(said), "{}", up.warnings());
    assert_eq!(town.service("shop")["release"]["provider"], Value::from("python"));
    app.write("trackbed.toml", "[build]\nimage = \"redis:7\"\n");
    town.up_fails(&app.path(), &[], "plan", &["redis:7 needs a container engine", "/nowhere/docker.sock"]);
    assert_eq!(town.get("shop", "/version").body, "one");
}
