//! Which processes run beside the start command, and how many of each.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use super::*;
use crate::config;

fn resolved(files: &[(&str, &str)], stored: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let stored: Vec<_> =
        stored.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut draft = config::read(folder.path(), &[], &stored, &[]).unwrap();
    let start = draft.text(Key::StartCommand).unwrap_or_default();
    match resolve(&mut draft) {
        Ok(Resolved { main, others, .. }) => {
            let others = others.iter().map(|side| format!("{} x{}: {}", side.name, side.count, side.command));
            let all = std::iter::once(format!("{main}: {start}")).chain(others).collect();
            (all, draft.warnings.into_iter().map(|warning| warning.message).collect())
        }
        Err(error) => (vec![error.message], Vec::new()),
    }
}

const PROCFILE: (&str, &str) = ("Procfile", "web: serve\nworker: work\nrelease: migrate\nbeat: tick\n");

#[test]
fn every_process_of_a_procfile_runs_once_unless_somebody_says_otherwise() {
    let (all, warnings) = resolved(&[PROCFILE], &[]);
    assert_eq!(all, ["web: serve", "beat x1: tick", "worker x1: work"]);
    assert_eq!(warnings, [] as [String; 0]);
    let formation = (
        "app.json",
        r#"{"formation": {"worker": {"quantity": 3}, "web": {"quantity": 2}, "x": {"quantity": 1}}}"#,
    );
    let (all, warnings) = resolved(&[PROCFILE, formation], &[("scale.beat", "0")]);
    assert_eq!(all, ["web: serve", "beat x0: tick", "worker x3: work"]);
    assert!(warnings.iter().any(|text| text.starts_with("`web` runs once, not 2 times")), "{warnings:?}");
    assert!(
        warnings.iter().any(|text| text == "there is no process `x`; its count is ignored"),
        "{warnings:?}"
    );
    let (all, _) = resolved(&[PROCFILE, formation], &[("scale.worker", "2")]);
    assert_eq!(all[2], "worker x2: work", "what was scaled wins over the file");
}

#[test]
fn our_own_file_adds_and_replaces() {
    let own = (
        "trackbed.toml",
        "[processes]\nworker = { command = \"better\", count = 2 }\nmail = \"send\"\nbeat = { count = 0 }\n",
    );
    let (all, _) = resolved(&[PROCFILE, own], &[]);
    assert_eq!(all, ["web: serve", "beat x0: tick", "mail x1: send", "worker x2: better"]);
    let (all, _) = resolved(&[("trackbed.toml", "[processes]\nweb = \"serve\"\nworker = \"work\"\n")], &[]);
    assert_eq!(all, ["web: serve", "worker x1: work"]);
    for bad in ["worker = 1", "worker = { count = 17 }", "worker = { command = \"\" }", "\"a b\" = \"x\""] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("trackbed.toml"), format!("[processes]\n{bad}\n")).unwrap();
        let error = config::read(folder.path(), &[], &[], &[]).unwrap_err();
        assert!(error.message.starts_with("trackbed.toml:2: "), "{}", error.message);
    }
}

#[test]
fn without_web_the_first_is_the_main_one() {
    assert_eq!(
        resolved(&[("Procfile", "beat: tick\nworker: work\n")], &[]).0,
        ["worker: work", "beat x1: tick"]
    );
    let own = ("trackbed.toml", "[deploy]\nstartCommand = \"serve\"\n");
    let (all, _) = resolved(&[("Procfile", "worker: work\n"), own], &[]);
    assert_eq!(all, ["web: serve", "worker x1: work"]);
    let own = ("trackbed.toml", "[deploy]\nstartCommand = \"work\"\n");
    let (all, _) = resolved(&[("Procfile", "worker: work\n"), own], &[]);
    assert_eq!(all, ["worker: work"], "it does not run twice");
}

#[test]
fn where_railway_gives_the_start_command_the_others_wait_to_be_asked_for() {
    let railway = ("railway.json", r#"{"deploy": {"startCommand": "celery & serve"}}"#);
    let (all, warnings) = resolved(&[PROCFILE, railway], &[("scale.beat", "1")]);
    assert_eq!(all, ["web: celery & serve", "beat x1: tick", "worker x0: work"]);
    assert!(warnings.iter().any(|text| text.contains("trackbed scale worker=1")), "{warnings:?}");
}

#[test]
fn files_of_two_platforms_are_not_mixed() {
    let fly = (
        "fly.toml",
        "[processes]\napp = \"serve\"\nworker = \"fly\"\nother = \"o\"\n[http_service]\nprocesses = [\"app\"]\n",
    );
    let (all, warnings) = resolved(&[PROCFILE, fly], &[]);
    assert_eq!(all, ["web: serve", "beat x1: tick", "worker x1: work"]);
    assert!(warnings.iter().any(|text| text.contains("those of Procfile")), "{warnings:?}");
    assert_eq!(resolved(&[fly], &[]).0, ["app: serve", "other x1: o", "worker x1: fly"]);
}

#[test]
fn there_are_bounds() {
    let (all, _) = resolved(&[PROCFILE], &[("scale.worker", "14"), ("scale.beat", "1")]);
    assert_eq!(all[2], "worker x14: work");
    let (refused, _) = resolved(&[PROCFILE], &[("scale.worker", "15"), ("scale.beat", "1")]);
    assert_eq!(refused, ["web, worker=15, beat=1 are 17 processes; one instance runs at most 16"]);
    assert_eq!([parse_count("16"), parse_count(" 0 ")], [Ok(16), Ok(0)]);
    for bad in ["17", "-1", "1.5", "", "two"] {
        assert!(parse_count(bad).is_err(), "{bad}");
    }
}
