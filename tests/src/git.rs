//! An app as a git repository, and the real `git` that pushes it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{App, Output, TestBox};

/// A repository with a work tree, on branch `main`.
pub struct Repository {
    path: PathBuf,
}

impl Repository {
    /// Makes the folder of an app a repository whose first commit holds all of it.
    pub fn of(app: &App) -> Repository {
        let repository = Repository { path: app.path() };
        repository.ok(&["init", "--quiet", "--initial-branch=main"]);
        repository.commit("first");
        repository
    }

    /// Takes a folder that is a repository already.
    pub fn at(path: &Path) -> Repository {
        Repository { path: path.to_owned() }
    }

    /// Commits everything that is in the folder, also when nothing has changed.
    pub fn commit(&self, message: &str) -> &Self {
        self.ok(&["add", "--all"]);
        self.ok(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self
    }

    /// Gives the repository a remote `trackbed` by the command that users type.
    pub fn connect(&self, town: &TestBox) -> &Self {
        let said = town.trackbed_in(&self.path, &["git", "connect"]);
        assert_eq!((said.code, said.stdout.trim()), (0, "git push trackbed main"), "{said:?}");
        self
    }

    /// Pushes to the box.
    pub fn push(&self, arguments: &[&str]) -> Output {
        self.git(&[&["push", "trackbed"], arguments].concat())
    }

    /// Pushes to the box and expects that it takes the push. Returns what was said.
    pub fn push_ok(&self, arguments: &[&str]) -> String {
        let said = self.push(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
        said.stderr
    }

    /// Pushes to the box and expects that it refuses the push, in lines of its own that hold all of `words`.
    pub fn push_refused(&self, arguments: &[&str], words: &[&str]) {
        let said = self.push(arguments);
        assert_ne!(said.code, 0, "{arguments:?} was taken: {}", said.stderr);
        let lines =
            said.stderr.lines().filter(|line| line.starts_with("remote: ") || line.starts_with("fatal: "));
        let lines: String = lines.collect::<Vec<_>>().join("\n");
        for word in words {
            assert!(lines.contains(word), "no `{word}` in:\n{}", said.stderr);
        }
    }

    /// Pushes what the user's own git does not send without force.
    pub fn push_refused_by_git(&self, arguments: &[&str]) {
        let said = self.push(arguments);
        assert!(said.code != 0 && said.stderr.contains("[rejected]"), "{}", said.stderr);
    }

    /// Starts a push without waiting for it, in a process group of its own.
    pub fn start_push(&self, arguments: &[&str]) -> Child {
        use std::os::unix::process::CommandExt;
        let mut command = self.command(&[&["push", "trackbed"], arguments].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command.spawn().expect("git runs")
    }

    /// Runs git and returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.git(arguments);
        assert_eq!(said.code, 0, "git {arguments:?}: {}", said.stderr);
        said.stdout.trim().to_owned()
    }

    /// Runs git.
    pub fn git(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("git runs");
        Output {
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.path).args(arguments).stdin(Stdio::null());
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Somebody")
                .env(format!("GIT_{who}_EMAIL"), "some@body.example");
        }
        // What the tester has configured must decide nothing.
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        command
    }
}

impl TestBox {
    /// The repositories that pushes have made on the box.
    pub fn pushed(&self) -> Vec<Repository> {
        let folder =
            std::fs::read_dir(self.data_dir().join("git/repositories")).into_iter().flatten().flatten();
        folder.map(|entry| Repository::at(&entry.path())).collect()
    }

    /// The commit of a branch on the box, empty when there is no such branch.
    pub fn pushed_to(&self, branch: &str) -> String {
        let repositories = self.pushed();
        assert_eq!(repositories.len(), 1, "one service takes pushes");
        repositories[0]
            .git(&["rev-parse", "--verify", "--quiet", &format!("refs/heads/{branch}")])
            .stdout
            .trim()
            .to_owned()
    }
}
