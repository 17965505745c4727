//! Jobs: services whose start command runs at the ticks of a schedule and ends.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, TestBox, wait_for};

/// Two ticks, and what a busy machine needs.
const TWO_TICKS: Duration = Duration::from_secs(200);

fn job(name: &str, code: &str) -> App {
    let app = App::empty(name);
    let settings = "[deploy]\nstartCommand = \"python job.py\"\ncronSchedule = \"* * * * *\"\n\
                    [[volumes]]\nname = \"data\"\nmount = \"/data\"\n";
    app.write("requirements.txt", "").write("job.py", code).write("trackbed.toml", settings);
    app
}

fn runs(town: &TestBox, name: &str) -> Vec<Value> {
    town.service(name)["job"]["runs"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_job_runs_at_its_ticks_and_leaves_exit_codes_and_logs_and_a_long_one_skips_the_next() {
    let town = TestBox::start();
    let short = job("short", "print('a tick')\nopen('/data/ticks', 'a').write('x')\nraise SystemExit(3)\n");
    let long = job("long", "import time\nprint('begins', flush=True)\ntime.sleep(100)\n");
    town.up_ok(&short.path());
    town.up_ok(&long.path());
    let service = town.service("short");
    assert_eq!(service["state"], "scheduled", "{service:#}");
    assert_eq!(service["job"]["schedule"], "* * * * *");
    assert!(service["job"]["next_at"].as_i64().is_some(), "{service:#}");

    let ended = || runs(&town, "short").iter().filter(|run| run["state"] == "ended").count() >= 2;
    wait_for("two runs", TWO_TICKS, ended);
    let first = runs(&town, "short").remove(0);
    assert_eq!(first["exit_code"], 3, "{first:#}");
    assert_eq!(first["due_at"].as_i64().unwrap_or(1) % 60_000, 0, "{first:#}");
    assert!(town.trackbed(&["logs", "--service", "short"]).stdout.contains("a tick"));
    let status = town.trackbed(&["status", "--service", "short"]).stdout;
    assert!(status.contains("job at `* * * * *` UTC"), "{status}");
    assert!(status.contains("exited with code 3"), "{status}");

    // Between its runs nothing holds its volume, and nothing is owed to it.
    let same = town.trackbed(&["up", &short.path().to_string_lossy()]);
    assert!(same.stderr.contains("already live: v1 of short"), "{same:?}");

    let skipped = || runs(&town, "long").iter().any(|run| run["state"] == "skipped");
    wait_for("a skipped tick", TWO_TICKS, skipped);
    assert_eq!(town.service("long")["state"], "running");
    // A deployment ends the run before it touches the volume.
    town.up_ok(&job("long", "print('another')\n").path());
    let first = runs(&town, "long").remove(0);
    wait_for("its end", TWO_TICKS, || runs(&town, "long").remove(0)["state"] == "ended");
    assert!(first["instance"].is_string(), "{first:#}");
}
