//! What each key of Railway's files comes to.

use trackbed_core::settings::RestartMode;

use super::*;

fn json_read(text: &str) -> Draft {
    let mut draft = Draft::default();
    read_json("railway.json", text, &mut draft).unwrap();
    draft
}

fn told(draft: &Draft) -> Vec<String> {
    let place = |warning: &trackbed_core::plan::Warning| {
        format!("{}: {}", warning.line.unwrap_or_default(), warning.message)
    };
    draft.warnings.iter().map(place).collect()
}

#[test]
fn every_key_of_the_reference_has_an_effect_or_a_word() {
    let draft = json_read(
        r#"{
"build": {
  "builder": "HEROKU", "buildCommand": "b",
  "dockerfilePath": "D",
  "watchPatterns": ["src/**", "!docs/**"],
  "railpackVersion": "0.1",
  "nixpacksConfigPath": "ops/nixpacks.toml",
  "nixpacksPlan": {"start": {"cmd": "planned"}, "phases": {"setup": {}}},
  "nixpacksVersion": "1",
  "buildEnvironment": "V3"
},
"deploy": {
  "startCommand": "s", "preDeployCommand": ["migrate"],
  "healthcheckPath": "/h", "healthcheckTimeout": 5,
  "restartPolicyType": "ALWAYS", "restartPolicyMaxRetries": 3,
  "cronSchedule": "*/5 * * * *",
  "numReplicas": 2,
  "multiRegionConfig": {"eu": {"numReplicas": 1}},
  "overlapSeconds": "10",
  "drainingSeconds": "20",
  "sleepApplication": true,
  "requiredMountPath": "/data",
  "limitOverride": {"containers": {"cpu": 0.5, "memoryBytes": 536870912, "diskBytes": 1}},
  "registryCredentials": {"username": "u", "password": "p"},
  "ipv6EgressEnabled": true,
  "runtime": "V2",
  "useLegacyStacker": true,
  "region": "eu"
}}"#,
    );
    assert_eq!(
        told(&draft),
        [
            "3: builder \"HEROKU\" is not here: the source is built by detection",
            "5: `build.watchPatterns` is for pushes: `trackbed up` deploys what it is given",
            "8: `build.nixpacksPlan.phases.setup` is not run: dependencies are found by Trackbed itself",
            "6: `build.railpackVersion` is not needed: Trackbed builds by itself",
            "9: `build.nixpacksVersion` is not needed: Trackbed builds by itself",
            "10: `build.buildEnvironment` means nothing here: every build has the same jail",
            "23: `deploy.limitOverride.containers.diskBytes` is not a limit here; `trackbed volume limit` bounds a volume",
            "17: `deploy.numReplicas`: one instance runs, whatever the number",
            "18: `deploy.multiRegionConfig`: one instance runs, on this box",
            "28: `deploy.region` means nothing here: the service runs on this box",
            "21: `deploy.sleepApplication` is not obeyed: the service stays awake",
            "19: `deploy.overlapSeconds` is not needed: the old release goes on until its last request is answered, at most for `drainingSeconds`",
            "24: `deploy.registryCredentials` is not used: log in to the registry with the container engine (`docker login`)",
            "25: `deploy.ipv6EgressEnabled` is not obeyed: an app gets the addresses of the box",
            "26: `deploy.runtime` means nothing here: there is one runtime",
            "27: `deploy.useLegacyStacker` means nothing here",
        ]
    );
    let value = |key| draft.find(key).map(|given| key.show(&given.setting)).unwrap_or_default();
    let keys = [
        (Key::Builder, "HEROKU"),
        (Key::Dockerfile, "D"),
        (Key::BuildCommand, "b"),
        (Key::WatchPatterns, "src/**, !docs/**"),
        (Key::StartCommand, "s"),
        (Key::PreDeploy, "migrate"),
        (Key::HealthPath, "/h"),
        (Key::HealthTimeout, "5s"),
        (Key::MaxRetries, "3"),
        (Key::Cron, "*/5 * * * *"),
        (Key::DrainTimeout, "20s"),
        (Key::RequiredMount, "/data"),
        (Key::Memory, "512MB"),
        (Key::Cpu, "0.5"),
    ];
    for (key, expected) in keys {
        assert_eq!(value(key), expected, "{key:?}");
    }
    assert!(matches!(draft.find(Key::RestartMode).unwrap().setting, Setting::Restart(RestartMode::Always)));
    assert_eq!(draft.nixpacks_at.unwrap().0, "ops/nixpacks.toml");
}

#[test]
fn a_value_that_asks_for_nothing_is_not_told() {
    let draft = json_read(
        r#"{"$schema": "x", "build": {"builder": "nixpacks", "watchPatterns": null, "dockerfilePath": null},
        "deploy": {"numReplicas": 1, "overlapSeconds": 0, "sleepApplication": false, "multiRegionConfig": null,
        "drainingSeconds": null, "preDeployCommand": [], "ipv6EgressEnabled": false, "cronSchedule": null}}"#,
    );
    assert_eq!(told(&draft), [] as [&str; 0]);
    assert!(draft.find(Key::PreDeploy).is_none() && draft.find(Key::Cron).is_none());
}

#[test]
fn only_production_overrides_the_base() {
    let draft = json_read(
        "{\"deploy\": {\"startCommand\": \"base\"},\n\"environments\": {\n\"pr\": {\"deploy\": {\"startCommand\": \"pr\"}},\n\
         \"production\": {\"deploy\": {\"startCommand\": \"production\", \"healthcheckPath\": null},\n\"variables\": {}},\n\
         \"staging\": null}}",
    );
    assert_eq!(draft.text(Key::StartCommand).unwrap(), "production");
    assert_eq!(
        told(&draft),
        [
            "3: `environments.pr` applies to nothing: a service here is in `production`",
            "5: `environments.production.variables` is not read, as on Railway: `trackbed variables set` sets them",
        ]
    );
}

#[test]
fn a_path_that_leaves_the_source_is_not_followed() {
    for path in ["../x.toml", "a/../../x", "", "."] {
        let draft = json_read(&format!("{{\"build\": {{\"nixpacksConfigPath\": \"{path}\"}}}}"));
        assert_eq!(draft.nixpacks_at, None, "{path}");
        assert_eq!(told(&draft).len(), 1, "{path}");
    }
}

#[test]
fn several_commands_before_the_start_run_one_after_the_other() {
    let draft = json_read(r#"{"deploy": {"preDeployCommand": ["a", " ", "b", 3]}}"#);
    assert_eq!(draft.text(Key::PreDeploy).unwrap(), "a && b");
    assert_eq!(told(&draft), ["1: `preDeployCommand`: what is no text in this list is ignored"]);
}

#[test]
fn our_own_file_sets_variables_and_theirs_does_not() {
    let mut draft = Draft::default();
    let text = "[deploy]\npre_deploy = \"m\"\n[variables]\nA = \"1\"\nB = 2\nC = []\n\"D D\" = \"\"\n";
    read_toml("trackbed.toml", text, &mut draft).unwrap();
    let names: Vec<String> = draft.variables.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
    assert_eq!(names, ["A=1", "B=2"]);
    assert_eq!(told(&draft).len(), 2, "{:?}", told(&draft));
    assert_eq!(draft.text(Key::PreDeploy).unwrap(), "m");
    let draft = json_read(r#"{"variables": {"A": "1"}}"#);
    assert!(draft.variables.is_empty());
    assert_eq!(told(&draft).len(), 1);
}
