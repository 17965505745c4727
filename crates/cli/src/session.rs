//! One run of the program: the box it is for, the folder it stands in, where it prints.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use trackbed_client::Client;

use crate::home;
use crate::input::Input;
use crate::output::Output;

/// One run of the program.
pub(crate) struct Session {
    /// Data folder of the box; absolute.
    pub(crate) data_dir: PathBuf,
    /// Folder of what is only kept to be quicker.
    pub(crate) cache_dir: Option<PathBuf>,
    /// The folder it was started in.
    pub(crate) folder: PathBuf,
    /// Where it prints.
    pub(crate) output: Output,
    /// Where it reads.
    pub(crate) input: Input,
}

impl Session {
    /// Makes a session from what surrounds this process. Gives the output back when it cannot.
    pub(crate) fn of_process(
        data_dir: Option<PathBuf>,
        output: Output,
    ) -> Result<Self, (anyhow::Error, Output)> {
        let found = (|| {
            if std::env::var_os("TRACKBED_HOST").is_some_and(|host| !host.is_empty()) {
                anyhow::bail!(
                    "TRACKBED_HOST is set, but this version only talks to a box on this machine; unset it"
                );
            }
            let folder = std::env::current_dir().context("cannot find the current folder")?;
            Ok((home::data_dir(data_dir)?, folder))
        })();
        match found {
            Ok((data_dir, folder)) => {
                let (cache_dir, input) = (home::cache_dir(), Input::of_process());
                Ok(Self { data_dir, cache_dir, folder, output, input })
            }
            Err(error) => Err((error, output)),
        }
    }

    /// Asks whether to go on when somebody is there to answer; otherwise, and after `--yes`, it goes on.
    pub(crate) fn agrees(&self, is_said: bool, question: &str) -> anyhow::Result<bool> {
        if is_said || !self.input.can_ask(&self.output) {
            return Ok(true);
        }
        let agreed = self.input.confirms(&self.output, question)?;
        if !agreed {
            self.output.talk("nothing was changed");
        }
        Ok(agreed)
    }

    /// Returns a path that was typed, from the folder we stand in.
    pub(crate) fn below(&self, typed: &Path) -> PathBuf {
        // Going through the components drops `.`, so that messages are easier to read.
        self.folder.join(typed).components().collect()
    }

    /// Returns a client of the box.
    pub(crate) fn client(&self) -> Client {
        Client::local(trackbed_stdx::paths::api_socket(&self.data_dir))
    }
}

/// A refusal that this program itself makes.
#[derive(Debug)]
pub(crate) struct Refusal {
    message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// The command line was wrong, so the exit code is 2.
    pub(crate) is_usage: bool,
}

impl Refusal {
    /// Refuses, and says what to do.
    pub(crate) fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: Some(hint.into()), is_usage: false }.into()
    }

    /// Refuses what was typed.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: None, is_usage: true }.into()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
