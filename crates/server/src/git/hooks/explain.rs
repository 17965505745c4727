//! What it means for the owner that git could not fetch. Git and ssh say it in English, which `LC_ALL` sees to.

use trackbed_core::Branch;
use trackbed_core::ports::PortError;
use trackbed_core::remote::RepositoryUrl;

use super::fetch::named;

/// Lines of git that are quoted when nothing better is known.
const QUOTED_LINES: usize = 3;
/// Bytes of them.
const QUOTED_MAX_CHARS: usize = 500;

/// Words of git or ssh, and what they mean.
const KNOWN: [(&[&str], Meaning); 10] = [
    (&["REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed"], Meaning::OtherHost),
    (&["Permission denied (", "Load key", "Too many authentication failures"], Meaning::KeyRefused),
    (
        &["could not read Username", "could not read Password", "Authentication failed", "error: 403"],
        Meaning::Credentials,
    ),
    (&["Could not resolve host", "Name or service not known"], Meaning::NoHost),
    (&["certificate"], Meaning::Certificate),
    (&["couldn't find remote ref", "Couldn't find remote ref"], Meaning::NoBranch),
    (&["signal 25", "File too large", "File size limit", "invalid index-pack output"], Meaning::TooLarge),
    (&["cannot run ssh", "ssh: not found", "ssh: command not found"], Meaning::NoSsh),
    (
        &["not found", "does not appear to be a git repository", "Repository not found", "does not exist"],
        Meaning::NoRepository,
    ),
    (
        &[
            "Connection refused",
            "Failed to connect",
            "Couldn't connect",
            "timed out",
            "No route to host",
            "unreachable",
            "Connection reset",
            "Connection closed",
            "too slow",
        ],
        Meaning::Unreachable,
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    OtherHost,
    KeyRefused,
    Credentials,
    NoHost,
    Certificate,
    NoBranch,
    TooLarge,
    NoSsh,
    NoRepository,
    Unreachable,
}

/// Returns whether a forge does not give out a commit by its name alone.
pub(super) fn is_refused_by_name(said: &str) -> bool {
    ["unadvertised object", "not our ref", "find remote ref"].iter().any(|words| said.contains(words))
}

/// Returns whether git failed at the repository on the box, not at the forge.
pub(super) fn is_our_trouble(said: &str) -> bool {
    [".lock'", "corrupt", "bad object", "did not send all necessary objects"]
        .iter()
        .any(|words| said.contains(words))
}

/// Says what git's complaints mean, and what to do.
pub(super) fn explain(said: &str, url: &RepositoryUrl, branch: &Branch) -> PortError {
    let (what, host) = (named(url), url.host());
    let again = "then try again: trackbed source deploy";
    let meaning = KNOWN.iter().find(|(words, _)| words.iter().any(|words| said.contains(words)));
    let Some((_, meaning)) = meaning else {
        return PortError::new(format!("git cannot fetch {what}: {}", quoted(said)));
    };
    let (message, hint) = match meaning {
        Meaning::OtherHost => (
            format!("the host key of {host} is not the one that it had at first: somebody may stand between"),
            format!(
                "if its owner says that the key was changed, accept the new one: trackbed source connect {url}"
            ),
        ),
        Meaning::KeyRefused => (
            format!("{host} does not accept the deploy key for {what}"),
            format!("add the key that `trackbed source show` prints to the repository, to read; {again}"),
        ),
        Meaning::Credentials => (
            format!("{what} wants a password, and is private or not there"),
            format!(
                "connect it by ssh, with a deploy key: trackbed source connect git@{host}:{}.git",
                url.project()
            ),
        ),
        Meaning::NoHost => (
            format!("the box does not find the host {host}"),
            format!("look at the address and at the box's DNS; {again}"),
        ),
        Meaning::Certificate => (
            format!("the certificate of {host} is not trusted: {}", quoted(said)),
            "let SSL_CERT_FILE of `trackbed serve` name the file of its authority".to_owned(),
        ),
        Meaning::NoBranch => (
            format!("{what} has no branch `{branch}`"),
            format!("push it, or choose another: trackbed source connect {url} --branch NAME"),
        ),
        Meaning::TooLarge => (
            format!("the commit of {what} is larger than the box takes or has room for"),
            "take large files out of the repository, or make room: trackbed status".to_owned(),
        ),
        Meaning::NoSsh => {
            ("ssh is not installed on the box".to_owned(), format!("apt-get install openssh-client; {again}"))
        }
        Meaning::NoRepository => (
            format!("there is no repository {what}, or the box may not see it"),
            format!(
                "look at the address, and add the deploy key that `trackbed source show` prints; {again}"
            ),
        ),
        Meaning::Unreachable => (
            format!("{host} cannot be reached from the box: {}", quoted(said)),
            format!("look whether it is up, and at firewall and proxy; {again}"),
        ),
    };
    PortError::new(message).hint(hint)
}

/// The last lines that say something, on one line and without control characters.
fn quoted(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("; ");
    last.chars().filter(|letter| !letter.is_control()).take(QUOTED_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_and_ssh_say_is_put_into_words_with_a_way_out() {
        let (url, branch) = ("git@forge.example:me/shop.git".parse().unwrap(), "main".parse().unwrap());
        for (said, words) in [
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                "is not the one that it had",
            ),
            ("git@forge.example: Permission denied (publickey).", "does not accept the deploy key"),
            ("fatal: could not read Username for 'https://forge.example'", "wants a password"),
            (
                "ssh: Could not resolve hostname forge.example: Name or service not known",
                "does not find the host",
            ),
            ("fatal: unable to access: SSL certificate problem: self-signed", "certificate of forge.example"),
            ("fatal: couldn't find remote ref refs/heads/main", "has no branch `main`"),
            ("error: fetch-pack died of signal 25", "larger than"),
            ("fatal: fetch-pack: invalid index-pack output", "larger than"),
            ("error: cannot run ssh -F none: No such file or directory", "ssh is not installed"),
            ("ERROR: Repository not found.", "there is no repository `me/shop` at forge.example"),
            ("ssh: connect to host forge.example port 22: Connection refused", "cannot be reached"),
        ] {
            let error = explain(said, &url, &branch);
            assert!(error.message.contains(words) && error.hint.is_some(), "{said}: {error:?}");
        }
        let odd = explain("fatal: \x1b[31modd\nlast", &url, &branch);
        assert_eq!(odd.message, "git cannot fetch `me/shop` at forge.example: fatal: [31modd; last");
    }

    #[test]
    fn a_lock_that_a_crash_has_left_is_not_the_forges_fault() {
        assert!(is_our_trouble("fatal: Unable to create '/x/shallow.lock': File exists."));
        assert!(!is_our_trouble("ssh: connect to host forge.example port 22: Connection refused"));
    }

    #[test]
    fn a_forge_that_gives_out_branches_only_is_told_apart() {
        for said in
            ["Server does not allow request for unadvertised object aa", "upload-pack: not our ref aa"]
        {
            assert!(is_refused_by_name(said));
        }
        assert!(!is_refused_by_name("Permission denied (publickey)"));
    }
}
