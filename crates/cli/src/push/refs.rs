//! What a push wants of the refs, and what becomes of it. All or nothing: one ref that is refused refuses the push.

use anyhow::{Result, ensure};

use crate::human::{count, plain};
use crate::session::Refusal;

/// Branches that are deployed while nobody has chosen one.
const USUAL: [&str; 2] = ["main", "master"];
/// Names that are told of a long list.
const NAMED_MAX: usize = 5;

/// A ref, as it was and as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(super) old: String,
    pub(super) new: String,
    /// `refs/heads/main`.
    pub(super) name: String,
}

impl Change {
    /// Returns the name without its kind.
    pub(super) fn short(&self) -> &str {
        self.branch().or_else(|| self.name.strip_prefix("refs/tags/")).unwrap_or(&self.name)
    }

    fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }

    fn deletes(&self) -> bool {
        is_none(&self.new)
    }
}

/// Returns whether an object's name stands for no object.
pub(super) fn is_none(object: &str) -> bool {
    object.bytes().all(|byte| byte == b'0')
}

/// What is done with a push.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The change that is deployed.
    pub(super) deploys: Option<&'a Change>,
    /// For the pusher.
    pub(super) notes: Vec<String>,
}

/// Reads what git tells its hook: old object, new object and ref, one line each.
pub(crate) fn parse(told: &str) -> Result<Vec<Change>> {
    let is_object = |text: &str| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let changes = told.lines().map(|line| {
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        let (old, new) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let name = parts.next().unwrap_or_default();
        ensure!(is_object(&old) && is_object(&new) && name.starts_with("refs/"), "`{}`", plain(line));
        Ok(Change { old, new, name })
    });
    changes.collect()
}

/// Decides what becomes of a push. `branch` is the one that is deployed, none while that is open.
pub(crate) fn decide<'a>(changes: &'a [Change], branch: Option<&str>, service: &str) -> Result<Plan<'a>> {
    let is_deployed = |name: &str| branch.map_or(USUAL.contains(&name), |branch| branch == name);
    let (mut deploys, mut notes, mut others) = (None, Vec::new(), Vec::new());
    for change in changes {
        let short = plain(change.short());
        match change.branch() {
            None if change.deletes() => notes.push(format!("tag `{short}` is removed")),
            None => notes.push(format!("tag `{short}` is kept; tags deploy nothing")),
            Some(name) if is_deployed(name) && change.deletes() => {
                let message =
                    format!("`{short}` is the branch that is deployed, and removing it would stop nothing");
                let hint = format!(
                    "to stop the service: trackbed down --service {service}; to deploy another branch: trackbed git branch NAME --service {service}"
                );
                return Err(Refusal::with_hint(message, hint));
            }
            Some(name) if is_deployed(name) => {
                if deploys.replace(change).is_some() {
                    let hint =
                        format!("push one of them, or choose: trackbed git branch NAME --service {service}");
                    return Err(Refusal::with_hint("`main` and `master` cannot both be deployed", hint));
                }
            }
            Some(_) if change.deletes() => {
                notes.push(format!("branch `{short}` is removed; it was not deployed"))
            }
            Some(_) => others.push(short),
        }
    }
    if others.is_empty() {
        return Ok(Plan { deploys, notes });
    }
    let deployed = branch.map_or_else(|| "`main` or `master`".to_owned(), |branch| format!("`{branch}`"));
    let message = format!("{} not deployed: service {service} deploys {deployed} alone", list(&others));
    let (other, to) = (&others[0], branch.unwrap_or(USUAL[0]));
    let hint = format!(
        "to deploy it once: git push trackbed {other}:{to}; to deploy it from now on: trackbed git branch {other} --service {service}; \
         to give it a service of its own: trackbed git connect --remote NEW --service NEW"
    );
    Err(Refusal::with_hint(message, hint))
}

/// Returns names in a row: `a` and `b` are, or the first few of many.
pub(super) fn list(names: &[String]) -> String {
    let named: Vec<String> = names.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
    match names.len() {
        1 => format!("{} is", named[0]),
        many if many <= NAMED_MAX => format!("{} are", named.join(", ")),
        many => format!("{} and {} are", named.join(", "), count((many - NAMED_MAX) as u64, "other")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const NONE: &str = "0000000000000000000000000000000000000000";

    fn changes(lines: &[(&str, &str)]) -> Vec<Change> {
        let told: String = lines.iter().map(|(new, name)| format!("{NONE} {new} {name}\n")).collect();
        parse(&told).unwrap()
    }

    fn decided(lines: &[(&str, &str)], branch: Option<&str>) -> Result<(Option<String>, usize), String> {
        let changes = changes(lines);
        let decided = decide(&changes, branch, "shop");
        decided
            .map(|plan| (plan.deploys.map(|change| change.short().to_owned()), plan.notes.len()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_git_tells_is_read_and_nothing_else() {
        assert_eq!(changes(&[(A, "refs/heads/a b")])[0].short(), "a b");
        for bad in [
            "",
            "x y refs/heads/a",
            &format!("{A} {A}"),
            &format!("{A} --all refs/heads/a"),
            &format!("{A} {A} x"),
        ] {
            assert!(parse(&format!("{bad}\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_usual_branches_are_deployed_until_one_is_chosen() {
        let (main, master) = ((A, "refs/heads/main"), (A, "refs/heads/master"));
        assert_eq!(decided(&[main], None), Ok((Some("main".into()), 0)));
        assert_eq!(decided(&[master], None), Ok((Some("master".into()), 0)));
        assert!(decided(&[main, master], None).unwrap_err().contains("cannot both"));
        assert_eq!(decided(&[(A, "refs/heads/trunk")], Some("trunk")), Ok((Some("trunk".into()), 0)));
        assert!(decided(&[main], Some("trunk")).unwrap_err().contains("`main` is not deployed"));
    }

    #[test]
    fn another_branch_refuses_the_whole_push_and_is_named() {
        let refused = decided(&[(A, "refs/heads/main"), (A, "refs/heads/x"), (A, "refs/heads/y")], None);
        assert!(refused.unwrap_err().starts_with("`x`, `y` are not deployed"));
        let many: Vec<String> = (0..8).map(|number| format!("refs/heads/b{number}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (A, name.as_str())).collect();
        assert!(decided(&many, None).unwrap_err().contains("`b4` and 3 others are"));
    }

    #[test]
    fn tags_deploy_nothing_and_the_deployed_branch_is_not_removed() {
        assert_eq!(decided(&[(A, "refs/tags/v1"), (NONE, "refs/tags/v0")], None), Ok((None, 2)));
        assert_eq!(decided(&[(NONE, "refs/heads/old")], Some("main")), Ok((None, 1)));
        assert!(decided(&[(NONE, "refs/heads/main")], Some("main")).unwrap_err().contains("stop nothing"));
        let told = changes(&[(A, "refs/heads/x")]);
        let refused = decide(&told, Some("main"), "shop").unwrap_err();
        let hint = refused.downcast_ref::<Refusal>().and_then(|refusal| refusal.hint.clone()).unwrap();
        assert!(hint.contains("git push trackbed x:main"), "{hint}");
    }
}
