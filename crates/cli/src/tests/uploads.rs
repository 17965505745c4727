//! What is asked of a box that knows, has forgotten or misunderstands what a folder was before.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::json;
use sha2::{Digest, Sha256};
use trackbed_stdx::listing::{self, Listing, Node};

use super::fake::{Answer, Asked, FakeBox};

/// Names what a whole tar holds, as the box does.
fn name_of(tar: &[u8]) -> String {
    let mut listing = Listing::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = entry.path().unwrap().display().to_string();
        let node = match entry.link_name().unwrap() {
            Some(target) => Node::Link { target: target.display().to_string() },
            None => {
                let executable = entry.header().mode().unwrap() & 0o100 != 0;
                Node::File { executable, hash: Sha256::digest(&bytes).into() }
            }
        };
        listing.insert(name, node);
    }
    listing::hex(&listing::digest(&listing))
}

fn error(code: &str) -> String {
    json!({ "error": { "code": code, "message": "no", "hint": null } }).to_string()
}

/// A box that answers a difference by this status; 200 means that another source came out.
fn box_that(to_difference: u16) -> (FakeBox, Arc<AtomicU16>) {
    let to_difference = Arc::new(AtomicU16::new(to_difference));
    let status = Arc::clone(&to_difference);
    let answer = move |line: &str, asked: &Asked| -> Answer {
        match line {
            "GET /v1/box" => (200, super::up::box_info().to_string()),
            "POST /v1/sources" => (200, json!({ "digest": name_of(&asked.body) }).to_string()),
            "POST /v1/plans" => (422, error("invalid_source")),
            "POST /v1/deployments" => (409, error("conflict")),
            line if line.starts_with("POST /v1/sources?earlier=") => match status.load(Ordering::SeqCst) {
                200 => (200, json!({ "digest": "0".repeat(64) }).to_string()),
                404 => (404, error("not_found")),
                status => (status, error("invalid_source")),
            },
            line if line.starts_with("POST /v1/sources/") => (404, error("not_found")),
            other => panic!("nobody should ask {other}"),
        }
    };
    (FakeBox::start(answer), to_difference)
}

async fn brings(fake: &FakeBox, command: &[&str]) -> Vec<String> {
    let before = fake.asked().len();
    fake.run(command).await;
    let lines = fake.asked().into_iter().skip(before).map(|asked| asked.line);
    let uploads = lines.filter_map(|line| Some(line.strip_prefix("POST /v1/sources")?.to_owned()));
    // The names of sources are what they are.
    uploads.map(|rest| rest.trim_end_matches(|c: char| c.is_ascii_hexdigit()).to_owned()).collect()
}

#[tokio::test]
async fn a_difference_that_the_box_refuses_or_misunderstands_is_followed_by_everything() {
    let (fake, status) = box_that(404);
    let target = format!("demo/./{}", "x".repeat(110));
    for (name, target) in [("odd", ".//main.py"), ("here", "./."), ("long", target.as_str())] {
        std::os::unix::fs::symlink(target, fake.app.path().join("demo").join(name)).unwrap();
    }
    assert_eq!(brings(&fake, &["plan"]).await, [""], "nothing is known of the folder");
    for answer in [404, 422, 500, 200] {
        status.store(answer, Ordering::SeqCst);
        assert_eq!(brings(&fake, &["plan"]).await, ["/", "?earlier=", ""], "{answer}");
    }
    assert_eq!(brings(&fake, &["up", "--anew"]).await, [""]);
}
