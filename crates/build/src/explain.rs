//! What a failed command of a build means: of a long output the lines that say it, and the way out where it is known.

use trackbed_core::ports::PortError;

/// Lines of a command's output that an error quotes.
const QUOTED: usize = 12;

/// What a line contains, what it means, and the way out.
const KNOWN: [(&str, &str, &str); 19] = [
    ("can only install packages when your package.json", "the lock does not fit package.json", NPM),
    ("can only install with an existing package-lock.json", "the lock cannot be read", NPM),
    ("ERR_PNPM_OUTDATED_LOCKFILE", "pnpm-lock.yaml does not fit package.json", PNPM),
    ("Your lockfile needs to be updated", "yarn.lock does not fit package.json", YARN),
    ("The lockfile would have been modified", "yarn.lock does not fit package.json", YARN),
    ("lockfile had changes, but lockfile is frozen", "the lock does not fit package.json", BUN),
    ("needs to be updated but --locked was passed", "Cargo.lock does not fit Cargo.toml", CARGO),
    ("cannot update the lock file", "Cargo.lock does not fit Cargo.toml", CARGO),
    ("missing go.sum entry", "go.sum does not fit go.mod", GO),
    ("updates to go.mod needed", "go.mod does not fit the code", GO),
    ("no required module provides package", "go.mod does not fit the code", GO),
    ("in frozen mode", "Gemfile.lock does not fit Gemfile", BUNDLE),
    ("after changing your Gemfile", "Gemfile.lock does not fit Gemfile", BUNDLE),
    (
        "Your bundle only supports platforms",
        "Gemfile.lock is not made for this machine",
        "run `bundle lock --add-platform x86_64-linux aarch64-linux` and commit Gemfile.lock",
    ),
    ("is not present in the lock file", "composer.lock does not fit composer.json", COMPOSER),
    ("Your lock file does not contain a compatible set", "composer.lock does not fit this PHP", COMPOSER),
    ("lock is out of date", "mix.lock does not fit mix.exs", "run `mix deps.get` and commit mix.lock"),
    ("lockfile is out of date", "deno.lock does not fit the code", "run `deno install` and commit deno.lock"),
    (
        "ELIFECYCLE",
        "a script of a package failed",
        "the lines above it in `trackbed logs --build` say which; native packages need a compiler on the box \
         (`apt install build-essential python3`) when no ready-made one fits",
    ),
];
const NPM: &str = "run `npm install` and commit package.json and package-lock.json together";
const PNPM: &str = "run `pnpm install` and commit pnpm-lock.yaml";
const YARN: &str = "run `yarn install` and commit yarn.lock";
const BUN: &str = "run `bun install` and commit the lock";
const CARGO: &str = "run `cargo build` and commit Cargo.lock";
const GO: &str = "run `go mod tidy` and commit go.mod and go.sum";
const BUNDLE: &str = "run `bundle lock` and commit Gemfile.lock";
const COMPOSER: &str = "run `composer update` and commit composer.lock";

/// Makes the error of a command that failed: `how` it ended, and its last lines.
pub(crate) fn command(command: &str, how: &str, tail: &[String]) -> PortError {
    let whole = "the whole output is in `trackbed logs --build`";
    let known = KNOWN.iter().find_map(|(part, meaning, mend)| {
        let at = tail.iter().position(|line| line.contains(part))?;
        Some((at, meaning, mend))
    });
    let name = command.lines().next().unwrap_or_default();
    let quote = |lines: &[String]| lines.join("\n");
    match known {
        Some((at, meaning, mend)) => {
            let lines = &tail[at..tail.len().min(at + QUOTED)];
            PortError::new(format!("`{name}` {how}: {meaning}:\n{}", quote(lines)))
                .hint(format!("{mend}; {whole}"))
        }
        None => {
            let lines = &tail[tail.len().saturating_sub(QUOTED)..];
            PortError::new(format!("`{command}` {how}:\n{}", quote(lines))).hint(whole)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_lock_is_told_by_the_line_that_says_it_and_not_by_the_last_ones() {
        let mut tail =
            vec!["npm error `npm ci` can only install packages when your package.json and …".to_owned()];
        tail.push("npm error Missing: uuid@11.0.0 from lock file".to_owned());
        tail.extend((0..40).map(|number| format!("npm error usage {number}")));
        let error = command("npm ci", "exited with code 1", &tail);
        assert!(
            error.message.starts_with("`npm ci` exited with code 1: the lock does not fit package.json:\n")
        );
        assert!(error.message.contains("Missing: uuid@11.0.0"), "{}", error.message);
        assert!(error.hint.is_some_and(|hint| hint.starts_with("run `npm install`")));
        let other = command("make", "exited with code 2", &["a".to_owned(), "b".to_owned()]);
        assert_eq!(other.message, "`make` exited with code 2:\na\nb");
    }
}
