//! What a delivery says, in the words of each forge. Nothing of it is believed further than its signature goes: the commit
//! is looked for in the repository that the owner named, never in one that the delivery names.

use axum::http::HeaderMap;
use serde::Deserialize;
use trackbed_core::git::{Commit, Via};
use trackbed_core::remote::Forge;

/// Longest name of a delivery.
const NAME_MAX_BYTES: usize = 200;

/// Who sent a delivery, and about what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) forge: Forge,
    pub(super) event: String,
    /// What the forge calls this delivery, the forge's kind in front; none when it does not say.
    pub(super) name: Option<String>,
}

impl Envelope {
    /// Reads the headers; none when no forge is known by them. Gitea sends GitHub's headers, too, so it is asked for first.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let header = |name: &&str| headers.get(*name)?.to_str().ok().map(str::to_owned);
        let kinds: [(Forge, &[&str], &[&str]); 3] = [
            (Forge::Gitlab, &["x-gitlab-event"], &["webhook-id", "idempotency-key", "x-gitlab-event-uuid"]),
            (
                Forge::Gitea,
                &["x-forgejo-event", "x-gitea-event"],
                &["x-forgejo-delivery", "x-gitea-delivery"],
            ),
            (Forge::Github, &["x-github-event"], &["x-github-delivery"]),
        ];
        kinds.into_iter().find_map(|(forge, events, names)| {
            let event = events.iter().find_map(header)?;
            let name = names.iter().find_map(header).filter(|name| !name.is_empty());
            let name = name.filter(|name| name.len() <= NAME_MAX_BYTES);
            Some(Self { forge, event, name: name.map(|name| format!("{} {name}", forge.as_str())) })
        })
    }
}

/// What a delivery says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The forge tries the webhook.
    Ping,
    /// Something that deploys nothing.
    Other,
    /// What was pushed is no branch.
    NoBranch(String),
    /// A branch was removed.
    Removed(String),
    /// A branch is at this commit now.
    Push(Commit),
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    name: String,
    after: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    head_commit: Option<Message>,
    #[serde(default)]
    commits: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    #[serde(default)]
    message: String,
}

/// Reads a body. An error says what is wrong with it.
pub(super) fn read(envelope: &Envelope, body: &[u8]) -> Result<Told, String> {
    let is_push = match (envelope.forge, envelope.event.as_str()) {
        (Forge::Github, "ping") => return Ok(Told::Ping),
        (Forge::Github | Forge::Gitea, event) => event == "push",
        (Forge::Gitlab, event) => event == "Push Hook",
    };
    if !is_push {
        return Ok(Told::Other);
    }
    let push: Push =
        serde_json::from_slice(body).map_err(|error| format!("the body is no push in JSON: {error}"))?;
    let Some(branch) = push.name.strip_prefix("refs/heads/") else { return Ok(Told::NoBranch(push.name)) };
    if push.deleted || (!push.after.is_empty() && push.after.bytes().all(|byte| byte == b'0')) {
        return Ok(Told::Removed(branch.to_owned()));
    }
    let told = push.commits.iter().chain(&push.head_commit).find(|commit| commit.id == push.after);
    let message = told.map_or("", |commit| commit.message.as_str());
    let commit = Commit::new(Via::Remote, &push.after, branch, message);
    commit.map(Told::Push).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const NONE: &str = "0000000000000000000000000000000000000000";

    fn envelope(headers: &[(&str, &str)]) -> Option<Envelope> {
        let pairs =
            headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        Envelope::read(&pairs.collect())
    }

    fn told(forge: Forge, event: &str, body: &str) -> Result<Told, String> {
        read(&Envelope { forge, event: event.to_owned(), name: None }, body.as_bytes())
    }

    #[test]
    fn a_forge_is_known_by_its_headers_also_when_it_sends_those_of_others() {
        let github = envelope(&[("X-GitHub-Event", "push"), ("X-GitHub-Delivery", "1")]).unwrap();
        assert_eq!((github.forge, github.name.as_deref()), (Forge::Github, Some("github 1")));
        let gitea = envelope(&[
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Delivery", "1"),
            ("X-Gitea-Event", "push"),
            ("X-Gitea-Delivery", "2"),
        ]);
        let gitea = gitea.unwrap();
        assert_eq!((gitea.forge, gitea.name.as_deref()), (Forge::Gitea, Some("gitea 2")));
        let gitlab = envelope(&[("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Event-UUID", "3")]).unwrap();
        assert_eq!((gitlab.forge, gitlab.name.as_deref()), (Forge::Gitlab, Some("gitlab 3")));
        assert_eq!(envelope(&[("X-Other", "push")]), None);
        let long = "x".repeat(NAME_MAX_BYTES + 1);
        let nameless = envelope(&[("X-GitHub-Event", "push"), ("X-GitHub-Delivery", &long)]).unwrap();
        assert_eq!(nameless.name, None);
    }

    #[test]
    fn pushes_of_all_forges_say_branch_commit_and_message() {
        let github = format!(
            r#"{{"ref":"refs/heads/main","before":"{NONE}","after":"{A}","deleted":false,
                "head_commit":{{"id":"{A}","message":"first\n\nmore","added":[]}},"repository":{{"id":1}}}}"#
        );
        let gitlab = format!(
            r#"{{"object_kind":"push","ref":"refs/heads/main","after":"{A}","checkout_sha":"{A}",
                "commits":[{{"id":"x","message":"older"}},{{"id":"{A}","message":"first"}}]}}"#
        );
        for (forge, event, body) in [
            (Forge::Github, "push", &github),
            (Forge::Gitlab, "Push Hook", &gitlab),
            (Forge::Gitea, "push", &github),
        ] {
            let Ok(Told::Push(commit)) = told(forge, event, body) else { panic!("{forge:?}") };
            assert_eq!(
                (commit.id.as_str(), commit.branch.as_str(), commit.subject.as_str()),
                (A, "main", "first")
            );
        }
    }

    #[test]
    fn what_is_no_push_of_a_branch_is_told_apart() {
        assert_eq!(told(Forge::Github, "ping", "{}"), Ok(Told::Ping));
        assert_eq!(told(Forge::Github, "issues", "no JSON at all"), Ok(Told::Other));
        assert_eq!(told(Forge::Gitlab, "Tag Push Hook", "{}"), Ok(Told::Other));
        let push = |name: &str, after: &str| {
            told(Forge::Gitea, "push", &format!(r#"{{"ref":"{name}","after":"{after}"}}"#))
        };
        assert_eq!(push("refs/tags/v1", A), Ok(Told::NoBranch("refs/tags/v1".into())));
        assert_eq!(push("refs/heads/x", NONE), Ok(Told::Removed("x".into())));
        for after in ["", "abc", "--upload-pack=id", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(
                push("refs/heads/x", after).unwrap_err().contains("is not the name of a commit"),
                "{after}"
            );
        }
        for body in ["", "payload=%7B%7D", "[]", "{}", r#"{"ref":1,"after":"x"}"#, &"[".repeat(10_000)] {
            assert!(told(Forge::Github, "push", body).unwrap_err().contains("no push in JSON"), "{body:.20}");
        }
    }
}
