//! Variables: byte-exact in the app, hidden everywhere else.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use trackbed_tests::{App, TestBox};

fn done(town: &TestBox, arguments: &[&str]) -> String {
    let said = town.trackbed(arguments);
    assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
    said.stdout
}

fn env(town: &TestBox, service: &str) -> BTreeMap<String, String> {
    serde_json::from_str(&town.get(service, "/env").body).expect("the app's environment")
}

#[test]
fn values_reach_the_app_byte_for_byte() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let mut values: BTreeMap<&str, String> = BTreeMap::from([
        ("LINES", "first\nsecond\r\n\tthird\n".to_owned()),
        ("QUOTES", "it's \"quoted\" `so` \\ $HOME ${HOME} $(id)".to_owned()),
        ("EQUALS", "a=b==c=".to_owned()),
        ("UNICODE", "grüße 🚂 \u{202e}ltr".to_owned()),
        ("SPACES", "  both sides  ".to_owned()),
        ("EMPTY", String::new()),
        ("PEM", "-----BEGIN KEY-----\nMIIB+/==\n-----END KEY-----\n".to_owned()),
        ("BRACES", "{{ x }} ${ y } $${{".to_owned()),
    ]);
    let pairs: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut arguments = vec!["variables", "set", "--service", "shop"];
    arguments.extend(pairs.iter().map(String::as_str));
    done(&town, &arguments);

    // As large as is promised, through standard input.
    let large = "0123456789abcdef".repeat(4096);
    let mut command = town.command();
    command.args(["variables", "set", "LARGE", "--stdin", "--service", "shop"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(large.as_bytes()).expect("it reads");
    assert!(child.wait().expect("our child").success());
    values.insert("LARGE", large);

    let file = app.path().join("../local.env");
    let text = "# a comment\nexport PLAIN=plain value # not this\nSINGLE='$not \"changed\" # here'\n\
                DOUBLE=\"two\\nlines\"\nBLOCK=\"one\ntwo\"\n\nNOTHING=\n";
    fs::write(&file, text).expect("a file");
    done(&town, &["variables", "import", &file.to_string_lossy(), "--service", "shop"]);
    for (name, value) in [
        ("PLAIN", "plain value"),
        ("SINGLE", "$not \"changed\" # here"),
        ("DOUBLE", "two\nlines"),
        ("BLOCK", "one\ntwo"),
        ("NOTHING", ""),
    ] {
        values.insert(name, value.to_owned());
    }
    town.up_ok(&app.path());
    let seen = env(&town, "shop");
    for (name, value) in &values {
        assert_eq!(seen.get(*name), Some(value), "{name}");
    }

    // The platform's own.
    for (name, value) in [
        ("TRACKBED_SERVICE", "shop"),
        ("TRACKBED_RELEASE", "v1"),
        ("RAILWAY_SERVICE_NAME", "shop"),
        ("RAILWAY_ENVIRONMENT_NAME", "production"),
        ("RAILWAY_PUBLIC_DOMAIN", "shop.localhost"),
    ] {
        assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}");
    }
    // With a network of its own an app has the usual one.
    let port: u16 = seen["PORT"].parse().expect("a port");
    assert!(port == 8080 || !nix::unistd::geteuid().is_root(), "{port}");
    assert!(seen.get("RAILWAY_DEPLOYMENT_ID").is_some_and(|id| id.starts_with("dep_")));
    assert!(
        !seen.keys().any(|name| name == "TRACKBED_DATA_DIR" || name == "PYENV_ROOT"),
        "the box's own leak"
    );

    done(&town, &["variables", "unset", "EMPTY", "LARGE", "--service", "shop"]);
    assert!(env(&town, "shop").contains_key("EMPTY"), "a change waits for the next deploy");
    done(&town, &["redeploy", "--service", "shop"]);
    let seen = env(&town, "shop");
    assert!(!seen.contains_key("EMPTY") && !seen.contains_key("LARGE"));

    // What no environment can hold is refused by name.
    let file = app.path().join("../bad.env");
    fs::write(&file, "GOOD=1\nthis is no line\n").expect("a file");
    let said = town.trackbed(&["variables", "import", &file.to_string_lossy(), "--service", "shop"]);
    assert!(said.code == 1 && said.stderr.contains("bad.env: line 2"), "{said:?}");
    for bad in ["1A=x", "A-B=x", "=x", "novalue"] {
        let said = town.trackbed(&["variables", "set", bad, "--service", "shop"]);
        assert!(said.code == 2 && said.stderr.contains("error: "), "{bad}: {said:?}");
    }
}

#[test]
fn values_are_hidden_and_encrypted() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let secret = "sk-live-c0ffee-nobody-may-read-this";
    let set = format!("API_KEY={secret}");
    let said = town.trackbed(&["variables", "set", &set, "--service", "shop"]);
    assert!(said.code == 0 && !format!("{said:?}").contains(secret));
    town.up_ok(&app.path());
    done(&town, &["redeploy", "--service", "shop"]);
    assert_eq!(env(&town, "shop")["API_KEY"], secret);

    let listed = done(&town, &["variables", "list", "--service", "shop"]);
    assert!(listed.contains("API_KEY") && !listed.contains(secret), "{listed}");
    let listed = done(&town, &["variables", "list", "--service", "shop", "--json"]);
    assert!(listed.contains("API_KEY") && !listed.contains(secret), "{listed}");
    let shown = done(&town, &["variables", "list", "--service", "shop", "--show"]);
    assert!(shown.contains(secret), "{shown}");
    for arguments in [&["status", "--json"][..], &["deployments", "--json", "--service", "shop"]] {
        assert!(!done(&town, arguments).contains(secret), "{arguments:?}");
    }

    let found = files_with(&town.data_dir(), secret.as_bytes());
    assert!(found.is_empty(), "in plain in {found:?}");
    assert!(!town.serve_log().contains(secret));
    let mode = fs::metadata(town.data_dir().join("key")).expect("the key file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mode = fs::metadata(town.data_dir()).expect("the folder").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

fn files_with(folder: &Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a readable folder");
        if kind.is_dir() {
            // Packages and tools are not ours to search, and large.
            if entry.file_name() != ".venv" && entry.file_name() != "tools" {
                found.extend(files_with(&entry.path(), bytes));
            }
        } else if kind.is_file() {
            let contents = fs::read(entry.path()).unwrap_or_default();
            if contents.windows(bytes.len()).any(|window| window == bytes) {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn references_are_resolved_and_one_that_leads_nowhere_fails_the_deploy() {
    let town = TestBox::start();
    let database = App::plain("database");
    let web = App::plain("web");
    let flags = ["--project", "town"];
    let up = |app: &App| town.up(&app.path(), &flags);
    let set = |service: &str, pairs: &[&str]| {
        done(&town, &[&["variables", "set", "--service", service, "--project", "town"], pairs].concat())
    };
    set("database", &["USER=admin", "URL=postgres://${{USER}}@${{RAILWAY_PRIVATE_DOMAIN}}/app"]);
    done(&town, &["variables", "set", "--shared", "REGION=north", "--service", "web", "--project", "town"]);
    set(
        "web",
        &[
            "DATABASE_URL=${{ database.URL }}",
            "WHERE=${{shared.REGION}}-1",
            "API=https://${{ database.RAILWAY_PUBLIC_DOMAIN }}",
        ],
    );
    assert_eq!((up(&database).code, up(&web).code), (0, 0));
    let seen = env(&town, "web");
    assert_eq!(seen["DATABASE_URL"], "postgres://admin@database.railway.internal/app");
    assert_eq!((seen["WHERE"].as_str(), seen["API"].as_str()), ("north-1", "https://database.localhost"));

    set("web", &["TOKEN=${{ database.NOSUCH }}"]);
    let up = town.up_fails(&web.path(), &flags, "plan", &["`TOKEN`", "database.NOSUCH", "not set"]);
    up.hints(&["variables"]);
    set("web", &["TOKEN=${{ nobody.X }}"]);
    town.up_fails(&web.path(), &flags, "plan", &["`TOKEN`", "nobody.X"]);
    set("web", &["TOKEN=${{ OTHER }}", "OTHER=${{ TOKEN }}"]);
    town.up_fails(&web.path(), &flags, "plan", &["itself"]);
    assert_eq!(town.get("web", "/version").body, "one");
    assert_eq!(town.service("web")["release"]["version"], Value::from(1));
}
