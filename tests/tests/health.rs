//! The health gate and the port doctor: what answers as it should goes live, everything else is named.

use trackbed_tests::{App, TestBox, Up};

fn set(town: &TestBox, service: &str, variables: &[&str]) {
    let set = town.trackbed(&[&["variables", "set", "--service", service], variables].concat());
    assert_eq!(set.code, 0, "{set:?}");
}

/// Deploys the good app of `shop` with variables and little patience, and expects the gate to stay shut.
fn refused(town: &TestBox, app: &App, variables: &[&str], words: &[&str]) -> Up {
    set(town, "shop", variables);
    let up = town.up_fails(&app.path(), &["--health-timeout", "3"], "health", words);
    let names: Vec<&str> =
        variables.iter().filter_map(|pair| pair.split_once('=')).map(|(name, _)| name).collect();
    let unset = town.trackbed(&[&["variables", "unset", "--service", "shop"], names.as_slice()].concat());
    assert_eq!(unset.code, 0, "{unset:?}");
    town.assert_serves_on("shop");
    up
}

#[test]
fn an_app_that_does_not_answer_200_never_takes_traffic() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    refused(&town, &app, &["HEALTH_STATUS=500"], &["/health answered 500 for 3 s, not 200"]);
    refused(&town, &app, &["HEALTH_STATUS=301"], &["/health answered 301", "/login"]).hints(&["redirect"]);
    refused(&town, &app, &["HEALTH_STATUS=404"], &["/health answered 404"]).hints(&["healthcheckPath"]);
    refused(&town, &app, &["HEALTH_STATUS=0"], &["/health gave no answer within 3 s"]).hints(&["$PORT"]);
}

#[test]
fn an_app_that_listens_nowhere_or_on_too_many_other_ports_is_named() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    let up = refused(&town, &app, &["MODE=deaf"], &["nothing listened on $PORT", "for 3 s"]);
    up.hints(&["0.0.0.0:$PORT", "healthcheckTimeout"]);
    assert!(up.quoted().contains("in mode deaf"), "{:#}", up.last);
    refused(&town, &app, &["LISTEN_PORT=9000", "SECOND_PORT=9001"], &["9000 and 9001", "not on $PORT"])
        .hints(&["[deploy] port"]);
}

#[test]
fn an_app_that_refuses_its_host_is_told_which_one_to_allow() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    refused(&town, &app, &["ALLOWED_HOST=example.com"], &["/health answered 400", "Invalid host header"])
        .hints(&["shop.localhost", "healthcheck.railway.app"]);
    // One that knows Railway's own host is let through, with a warning.
    set(&town, "shop", &["ALLOWED_HOST=healthcheck.railway.app"]);
    let up = town.up_ok(&app.path());
    assert!(up.warnings().contains("shop.localhost"), "{}", up.warnings());
}

#[test]
fn an_app_on_another_port_or_only_on_loopback_is_served() {
    let town = TestBox::start();
    let app = App::plain("shop");
    set(&town, "shop", &["LISTEN_PORT=9123"]);
    let up = town.up_ok(&app.path());
    assert!(up.warnings().contains("listens on port 9123, not on $PORT"), "{}", up.warnings());
    assert_eq!(town.get("shop", "/version").body, "one");

    // Named, it needs no doctor.
    app.write("trackbed.toml", "[deploy]\nport = 9123\n").version("two");
    let up = town.up_ok(&app.path());
    assert_eq!((up.warnings().as_str(), town.get("shop", "/version").body.as_str()), ("", "two"));

    set(&town, "shop", &["LISTEN_HOST=127.0.0.1"]);
    town.up_ok(app.version("three").path().as_path());
    assert_eq!(town.get("shop", "/version").body, "three");
}

#[test]
fn a_slow_start_is_waited_for_and_traffic_moves_only_then() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    set(&town, "shop", &["START_DELAY=3"]);
    app.version("two");
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| town.up_ok(&app.path()));
        // Held meanwhile, never refused: the app has a volume.
        while !deploying.is_finished() {
            let answer = town.get("shop", "/version");
            assert_eq!(answer.status, 200, "{answer:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    assert_eq!(town.get("shop", "/version").body, "two");
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);
}

#[test]
fn without_a_health_path_it_is_enough_to_accept() {
    let town = TestBox::start();
    let app = App::plain("shop");
    app.write("railway.json", "{\"deploy\": {\"startCommand\": \"python app.py\"}}");
    set(&town, "shop", &["HEALTH_STATUS=500"]);
    town.up_ok(&app.path());
    assert_eq!(town.get("shop", "/version").body, "one");
}
