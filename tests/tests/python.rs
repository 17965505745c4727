//! Python sources as people have them: versions, lockfiles, and what is wrong with them.

use std::path::Path;
use std::process::Command;

use trackbed_tests::{App, TestBox};

const SERVER: &str = r#"
import http.server, os, sys
try:
    import idna; found = idna.__version__
except ImportError:
    found = "none"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{sys.version.split()[0]} {sys.base_prefix} idna={found}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// An app that tells which Python it runs on and which idna it has.
fn app(name: &str) -> App {
    let app = App::empty(name);
    app.write("server.py", SERVER);
    app.write(
        "railway.json",
        "{\"deploy\": {\"startCommand\": \"python server.py\", \"healthcheckPath\": \"/\"}}",
    );
    app
}

fn build_log(town: &TestBox, service: &str) -> String {
    let said = town.trackbed(&["logs", "--build", "--service", service]);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout
}

#[test]
fn a_requirement_that_does_not_exist_is_named_with_its_line() {
    let town = TestBox::start();
    let shop = town.up_good("shop");
    shop.write("requirements.txt", "# ours\n-r more.txt\n")
        .write("more.txt", "\nidna\ntrackbed-no-such-package-7f3a==1.0\n");
    let up = town.up_fails(&shop.path(), &[], "build", &["more.txt:3", "trackbed-no-such-package-7f3a"]);
    up.hints(&["more.txt:3"]);
    shop.write("requirements.txt", "idna==999.0\n");
    town.up_fails(&shop.path(), &[], "build", &["requirements.txt:1", "idna==999.0"])
        .hints(&["requirements.txt:1"]);
    shop.write("requirements.txt", "-r gone.txt\n");
    town.up_fails(&shop.path(), &[], "plan", &["requirements.txt:1", "gone.txt", "not in the source"]);
    town.assert_serves_on("shop");
}

#[test]
fn a_source_that_says_nothing_about_its_start_hears_what_was_looked_for() {
    let town = TestBox::start();
    let shop = town.up_good("shop");
    shop.remove("railway.json").remove("app.py").write("job.py", "print(1)\n");
    let words = ["trackbed.toml", "railway.json", "Procfile", "manage.py", "FastAPI("];
    town.up_fails(&shop.path(), &[], "plan", &words).hints(&[
        "startCommand",
        "Procfile",
        "trackbed up --start",
    ]);
    // The plan says the same without deploying.
    let said = town.trackbed(&["plan", &shop.path().to_string_lossy()]);
    assert!(said.code == 1 && said.stderr.contains("Procfile"), "{said:?}");
    town.assert_serves_on("shop");
}

#[test]
fn a_python_that_is_nowhere_is_named_beside_those_that_are_here() {
    let town = TestBox::start();
    let shop = town.up_good("shop");
    shop.write(".python-version", "3.99\n");
    let up = town.up_fails(
        &shop.path(),
        &[],
        "plan",
        &["Python 3.99", ".python-version:1", "not on this box", "3.1"],
    );
    up.hints(&["3.99"]);
    town.assert_serves_on("shop");
}

#[test]
fn a_source_for_python_3_12_runs_on_the_one_that_pyenv_has() {
    let has = |program: &Path| program.exists();
    let roots =
        [std::env::var("PYENV_ROOT").ok(), std::env::var("HOME").ok().map(|home| format!("{home}/.pyenv"))];
    let versions = roots.into_iter().flatten().map(|root| Path::new(&root).join("versions"));
    let here = versions
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|folder| folder.flatten())
        .any(|version| {
            version.file_name().to_string_lossy().starts_with("3.12.")
                && has(&version.path().join("bin/python3.12"))
        });
    if !here {
        eprintln!("NOT TESTED (pyenv has no 3.12 here): an interpreter inside a home folder");
        return;
    }
    let town = TestBox::start();
    let shop = app("shop");
    shop.write(".python-version", "3.12\n").write("requirements.txt", "idna==3.10\n");
    town.up_ok(&shop.path());
    let said = town.get("shop", "/").body;
    assert!(
        said.starts_with("3.12.") && said.contains("/versions/3.12.") && said.ends_with("idna=3.10"),
        "{said}"
    );

    // A code-only redeploy installs nothing.
    assert!(!build_log(&town, "shop").contains("reused"), "{}", build_log(&town, "shop"));
    shop.write("notes.txt", "changed");
    town.up_ok(&shop.path());
    let log = build_log(&town, "shop");
    assert!(log.contains("dependencies: reused layer") && log.contains("1 package"), "{log}");
    // A change of the list does.
    shop.write("requirements.txt", "idna==3.9\n");
    town.up_ok(&shop.path());
    assert!(town.get("shop", "/").body.ends_with("idna=3.9"));
    assert!(!build_log(&town, "shop").contains("reused"));
}

#[test]
fn a_uv_lockfile_is_obeyed_and_one_that_is_stale_is_named() {
    let Some(uv) = trackbed_tests::uv_folder() else {
        eprintln!("NOT TESTED (no uv and no pip here): uv.lock");
        return;
    };
    let town = TestBox::start();
    let shop = app("shop");
    let project = "[project]\nname = \"shop\"\nversion = \"1.0\"\nrequires-python = \">=3.9\"\n";
    shop.write("pyproject.toml", format!("{project}dependencies = [\"idna==3.9\"]\n"));
    let lock = Command::new(uv.join("uv")).args(["lock", "--quiet"]).current_dir(shop.path()).output();
    let lock = lock.expect("uv runs");
    assert!(lock.status.success(), "{lock:?}");
    town.up_ok(&shop.path());
    assert!(town.get("shop", "/").body.ends_with("idna=3.9"), "{:?}", town.get("shop", "/"));

    shop.write("pyproject.toml", format!("{project}dependencies = [\"idna==3.10\"]\n"));
    town.up_fails(&shop.path(), &[], "build", &["lockfile"]).hints(&["uv lock"]);
    assert!(town.get("shop", "/").body.ends_with("idna=3.9"));
}

#[test]
fn a_poetry_lockfile_is_obeyed() {
    let town = TestBox::start();
    let shop = app("shop");
    shop.write(
        "pyproject.toml",
        "[tool.poetry]\nname = \"shop\"\nversion = \"1.0\"\ndescription = \"\"\nauthors = []\npackage-mode = false\n\n\
         [tool.poetry.dependencies]\npython = \"^3.9\"\nidna = \"^3.0\"\n",
    );
    shop.write(
        "poetry.lock",
        "# This file is automatically @generated by Poetry 2.1.1 and should not be changed by hand.\n\n\
         [[package]]\nname = \"idna\"\nversion = \"3.9\"\ndescription = \"IDNA\"\noptional = false\n\
         python-versions = \">=3.6\"\ngroups = [\"main\"]\nfiles = []\n\n\
         [metadata]\nlock-version = \"2.1\"\npython-versions = \"^3.9\"\ncontent-hash = \"0\"\n",
    );
    town.up_ok(&shop.path());
    assert!(town.get("shop", "/").body.ends_with("idna=3.9"), "{:?}", town.get("shop", "/"));
}

#[test]
fn a_box_without_uv_fetches_it_once() {
    let town = TestBox::start_with(
        trackbed_tests::User::Own,
        &[("PATH", &std::env::var("PATH").unwrap_or_default())],
        &[],
    );
    town.up_ok(&App::plain("shop").path());
    assert_eq!(town.get("shop", "/version").body, "one");
}

#[test]
fn a_box_without_uv_and_pip_fetches_it_from_its_makers() {
    // pip is there, and gets nothing: nobody listens at its index.
    let town = TestBox::start_with(
        trackbed_tests::User::Own,
        &[
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("PIP_INDEX_URL", "http://127.0.0.1:9/"),
            ("PIP_FIND_LINKS", ""),
        ],
        &[],
    );
    town.up_ok(&App::plain("shop").path());
    assert_eq!(town.get("shop", "/version").body, "one");
    let tool = town.data_dir().join("tools/uv");
    assert!(tool.join("bin/uv").is_file());
    let found = std::fs::read_dir(tool).expect("it is there");
    assert_eq!(found.count(), 1, "the program alone; pip leaves what describes it beside it");
}
