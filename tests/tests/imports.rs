//! `trackbed import`: files of other platforms, and services on Railway through the owner's own program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use trackbed_tests::{App, TestBox};

/// A `railway` that answers as the real one does (5.71), and writes down what it was asked.
const RAILWAY: &str = r#"#!/bin/sh
echo "$*" >> "$(dirname "$0")/asked"
case "$1 $2 $3" in
"--version  ") echo "railway 5.71.0" ;;
"link "*) echo "Project shop linked successfully!" >&2 ;;
"unlink "*) ;;
"variables --json "*)
  cat <<'JSON'
{
  "ANTHROPIC_API_KEY": "sk-\"quoted\"\nline two",
  "DATABASE_URL": "postgresql://u:p@postgres.railway.internal:5432/x",
  "RAILWAY_ENVIRONMENT": "production",
  "RAILWAY_RUN_UID": "0",
  "RAILWAY_SERVICE_ID": "svc-1",
  "RAILWAY_SERVICE_NAME": "api",
  "STRIPE_KEY": null
}
JSON
  ;;
"volume --environment production")
  if [ "$4 $5 $6 $7 $8 ${10}" = "files --volume 1 download / --json" ]; then
    mkdir -p "$9/uploads" && cp "$(dirname "$0")/theirs.db" "$9/app.db" && printf pdf > "$9/uploads/a b.pdf"
    echo "{\"localPath\": \"$9\"}"; exit
  fi
  [ "$4 $5" = "list --json" ] || { echo "error: unexpected argument: $*" >&2; exit 2; }
  echo '{"project":"shop","environment":"production","volumes":['
  echo '{"id":"1","name":"api volume","mountPath":"/data","serviceName":"api","currentSizeMB":1.5,"sizeMB":5000},'
  echo '{"id":"3","name":"old","mountPath":"/old","serviceName":"api","currentSizeMB":1.0,"sizeMB":500,"isPendingDeletion":true},'
  echo '{"id":"2","name":"pg","mountPath":"/var/lib/postgresql/data","serviceName":"Postgres","currentSizeMB":9.0,"sizeMB":5000}]}' ;;
"environment config --environment")
  echo '{"services":{"svc-2":{"deploy":{"startCommand":"postgres"}},"svc-1":{"source":{"repo":"me/shop"},'
  echo '"build":{"builder":"RAILPACK","buildCommand":null},"deploy":{"startCommand":"python app.py","healthcheckPath":"/health",'
  echo '"multiRegionConfig":{"us-west2":{"numReplicas":1}},"registryCredentials":{"username":"u","password":"hidden"}}}}}' ;;
*) echo "error: unexpected argument: $*" >&2; exit 2 ;;
esac
"#;

fn fake_railway(tools: &App, text: &str) -> String {
    let program = tools.write("railway", text).path().join("railway");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
    program.to_string_lossy().into_owned()
}

/// Puts a database where the program finds it, of some thousand rows.
fn their_database(tools: &App) -> PathBuf {
    let path = tools.path().join("theirs.db");
    let rows = "create table t (id integer primary key, body text); with recursive n(i) as \
                (select 1 union all select i + 1 from n where i < 3000) insert into t select i, hex(randomblob(40)) from n";
    let made = Command::new("sqlite3").arg(&path).arg(rows).status().expect("sqlite3 is needed here");
    assert!(made.success());
    path
}

#[test]
fn variables_and_the_volume_of_a_service_come_over_from_railway() {
    let (town, app, tools) = (TestBox::start(), App::plain("api"), App::empty("tools"));
    app.remove("railway.json")
        .write(".railway/railway.ts", "export default defineRailway(() => project('shop'));\n");
    let plan = town.trackbed(&["plan", &app.path().to_string_lossy()]);
    assert!(
        plan.stdout.contains("railway.ts") && plan.stdout.contains("trackbed import railway"),
        "{plan:?}"
    );
    let program = fake_railway(&tools, RAILWAY);
    let theirs = fs::read(their_database(&tools)).unwrap();
    let arguments = ["import", "railway", "--project", "shop", "--service", "API", "--cli", &program];
    let output = town.trackbed_in(&app.path(), &arguments);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("DATABASE_URL names an address on Railway"), "{output:?}");
    assert!(output.stderr.contains("volume api-volume at /data: 2 files copied"), "{output:?}");
    assert!(output.stderr.contains("volume api-volume: what came is whole"), "{output:?}");
    assert!(output.stderr.contains("volume old is left out"), "{output:?}");
    assert!(output.stderr.contains("trackbed variables set STRIPE_KEY=…"), "{output:?}");
    assert!(!output.stderr.contains("sk-"), "no value is shown: {output:?}");
    let variables = town.json(&["variables", "--service", "api", "--show", "--json"]);
    let value = |name: &str| {
        let all = variables.as_array().into_iter().flatten();
        all.clone().find(|variable| variable["name"] == name).map(|variable| variable["value"].clone())
    };
    assert_eq!(value("ANTHROPIC_API_KEY").unwrap(), "sk-\"quoted\"\nline two");
    assert_eq!(value("RAILWAY_RUN_UID").unwrap(), "0", "a knob of its owner");
    assert_eq!(value("RAILWAY_ENVIRONMENT"), None, "the box injects its own");
    let data = town.volume_folder("api", "api-volume");
    assert!(fs::read(data.join("app.db")).unwrap() == theirs, "the database as it was");
    assert_eq!(fs::read(data.join("uploads/a b.pdf")).unwrap(), b"pdf");
    let asked = fs::read_to_string(tools.path().join("asked")).unwrap();
    assert!(asked.contains("link --project shop --environment production --service API"), "{asked}");
    assert!(asked.trim_end().ends_with("unlink --yes"), "{asked}");

    let written = fs::read_to_string(app.path().join("railway.json")).unwrap();
    assert!(written.contains("\"startCommand\": \"python app.py\""), "{written}");
    assert!(!written.contains("hidden") && !written.contains("postgres"), "{written}");
    let plan = town.trackbed(&["plan", &app.path().to_string_lossy()]);
    assert!(plan.stdout.contains("python app.py") && !plan.stdout.contains("railway.ts"), "{plan:?}");
    let up = town.trackbed_in(&app.path(), &["up"]);
    assert_eq!(up.code, 0, "{up:?}");

    let again = town.trackbed_in(&app.path(), &arguments);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(
        again.stderr.contains("railway.json is there, so what Railway has set was not written"),
        "{again:?}"
    );
    assert!(again.stderr.contains("volume api-volume holds files already"), "{again:?}");
}

#[test]
fn a_database_that_was_copied_half_old_half_new_is_told() {
    let town = TestBox::start();
    let tools = App::empty("torn");
    let program = fake_railway(&tools, RAILWAY);
    let path = their_database(&tools);
    let mut torn = fs::read(&path).unwrap();
    // Every other page is of another time.
    for page in torn.chunks_mut(4096).skip(2).step_by(2) {
        page.fill(0);
    }
    tools.write("theirs.db", torn);
    let output = town.trackbed(&["import", "railway", "--no-settings", "--to", "api", "--cli", &program]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.stderr.contains("NOT whole") && output.stderr.contains("`app.db` is damaged"),
        "{output:?}"
    );
    assert!(output.stderr.contains("trackbed volume remove api-volume"), "{output:?}");
}

#[test]
fn what_goes_wrong_with_the_railway_program_is_said_with_a_way_out() {
    let town = TestBox::start();
    let tools = App::empty("tools");
    let missing = tools.path().join("none").to_string_lossy().into_owned();
    let output = town.trackbed(&["import", "railway", "--cli", &missing]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("is not installed") && output.stderr.contains("railway login"),
        "{output:?}"
    );
    let refusing =
        "#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'Unauthorized. Please login' >&2\nexit 1\n";
    let program = fake_railway(&tools, refusing);
    let output = town.trackbed(&["import", "railway", "--cli", &program]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("Unauthorized. Please login"), "{output:?}");
    let odd = fake_railway(&tools, "#!/bin/sh\necho not json\n");
    let output = town.trackbed(&["import", "railway", "--cli", &odd]);
    assert!(output.code == 1 && output.stderr.contains("no table of variables"), "{output:?}");
}

#[test]
fn a_folder_gets_a_file_that_says_the_same_and_one_that_is_there_is_not_replaced() {
    let town = TestBox::start();
    let app = App::plain("moved");
    app.remove("railway.json").write(
        "fly.toml",
        "app = 'x'\n[processes]\napp = 'python app.py'\n[env]\nGREETING = 'hi \"you\"'\n\
         [deploy]\nrelease_command = 'echo ready'\n[mounts]\nsource = 'data'\ndestination = '/data'\nodd = 1\n",
    );
    let path = app.path().to_string_lossy().into_owned();
    let shown = town.trackbed(&["import", &path, "--stdout"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(!app.path().join("trackbed.toml").exists());
    let output = town.trackbed(&["import", &path]);
    assert_eq!(output.code, 0, "{output:?}");
    let text = fs::read_to_string(app.path().join("trackbed.toml")).unwrap();
    assert_eq!(text.trim_end(), shown.stdout.trim_end());
    assert!(text.contains("preDeployCommand = \"echo ready\"  # fly.toml:7"), "{text}");
    let before = town.json(&["plan", &path, "--json"]);
    app.remove("fly.toml");
    let after = town.json(&["plan", &path, "--json"]);
    let values = |plan: &serde_json::Value| -> Vec<String> {
        let settings = plan["settings"].as_array().cloned().unwrap_or_default();
        settings.iter().map(|setting| format!("{} {}", setting["key"], setting["value"])).collect()
    };
    assert_eq!(values(&after), values(&before));
    let refused = town.trackbed(&["import", &path]);
    assert!(refused.code == 1 && refused.stderr.contains("is there already"), "{refused:?}");
    assert_eq!(town.trackbed(&["import", &path, "--force"]).code, 0);
    let kept = fs::read_to_string(app.path().join("trackbed.toml")).unwrap();
    assert!(kept.contains("GREETING = \"hi \\\"you\\\"\""), "{kept}");
    town.up_ok(&app.path());
    let empty = App::plain("nothing");
    empty.remove("railway.json");
    let refused = town.trackbed(&["import", &empty.path().to_string_lossy()]);
    assert!(refused.code == 1 && refused.stderr.contains("could be imported"), "{refused:?}");
}
