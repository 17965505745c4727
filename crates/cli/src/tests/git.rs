//! `trackbed git` against a box that is not real, in repositories that are.

use std::process::Command;

use serde_json::json;

use super::fake::FakeBox;
use super::service;

const TOKEN: &str = "tbg_0123";
const URL: &str = "http://127.0.0.1:8079/web.git";

fn pushed_box() -> FakeBox {
    FakeBox::start(|line, _| {
        let body = match line {
            "GET /v1/box" => {
                json!({ "version": "0", "pid": 1, "data_dir": "/", "domain": "localhost", "edge": null,
                        "resident_bytes": 0, "isolation": { "level": "full", "missing": [] }, "backup": null })
            }
            "GET /v1/services" => json!([service("web", "web")]),
            "GET /v1/services/web/web/git" => json!({ "url": URL, "branch": null, "tokens": [] }),
            "POST /v1/services/web/web/git/tokens" => json!({ "id": "gtk_1", "token": TOKEN, "url": URL }),
            _ => {
                return (
                    404,
                    json!({ "error": { "code": "not_found", "message": line, "hint": null } }).to_string(),
                );
            }
        };
        (200, body.to_string())
    })
}

fn git(fake: &FakeBox, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(fake.app.path().join("demo")).args(arguments).env("GIT_CONFIG_NOSYSTEM", "1");
    let said = git.env("HOME", "/nonexistent").output().unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

fn tokens_made(fake: &FakeBox) -> usize {
    fake.asked().iter().filter(|asked| asked.line.ends_with("/git/tokens")).count()
}

#[tokio::test]
async fn connect_gives_the_repository_a_remote_with_a_token_and_renews_it() {
    let fake = pushed_box();
    git(&fake, &["init", "--quiet"]);
    for made in 1..=2 {
        let ran = fake.run(&["git", "connect", "-s", "web", "--for", "laptop"]).await;
        assert_eq!(ran.code, 0, "{}", ran.talk);
        assert!(ran.result.starts_with("git push trackbed "), "{}", ran.result);
        assert!(ran.talk.contains(URL) && !ran.talk.contains(TOKEN), "{}", ran.talk);
        let url = git(&fake, &["remote", "get-url", "trackbed"]);
        assert_eq!(url, "http://trackbed:tbg_0123@127.0.0.1:8079/web.git");
        assert_eq!(tokens_made(&fake), made);
    }
    assert_eq!(fake.asked().last().unwrap().json()["name"], "laptop");
}

#[tokio::test]
async fn connect_touches_no_other_remote_and_makes_no_token_in_vain() {
    let fake = pushed_box();
    let ran = fake.run(&["git", "connect", "-s", "web"]).await;
    assert!(ran.code == 1 && ran.talk.contains("is in no git repository"), "{}", ran.talk);
    assert!(ran.talk.contains("git init"), "{}", ran.talk);
    git(&fake, &["init", "--quiet"]);
    git(&fake, &["remote", "add", "trackbed", "https://me:secret@example.com/web.git"]);
    let ran = fake.run(&["git", "connect", "-s", "web"]).await;
    assert!(ran.code == 1 && ran.talk.contains("has a remote `trackbed` already"), "{}", ran.talk);
    assert!(ran.talk.contains("--remote NAME") && !ran.talk.contains("secret"), "{}", ran.talk);
    assert_eq!(tokens_made(&fake), 0);
    assert!(git(&fake, &["remote", "get-url", "trackbed"]).contains("example.com"));
}

#[tokio::test]
async fn a_token_is_the_result_alone_and_how_to_use_it_is_talk() {
    let fake = pushed_box();
    let ran = fake.run(&["git", "token", "-s", "web"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, "tbg_0123\n"), "{}", ran.talk);
    assert!(
        ran.talk.contains("git remote add trackbed http://trackbed@127.0.0.1:8079/web.git"),
        "{}",
        ran.talk
    );
    let ran = fake.run(&["git", "show", "-s", "web"]).await;
    assert!(ran.result.contains("address  http://127.0.0.1:8079/web.git"), "{}", ran.result);
    assert!(ran.result.contains("main or master"), "{}", ran.result);
}
