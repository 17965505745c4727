//! The only place that prints. Results go to stdout, talk goes to stderr; colours only where somebody looks.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use trackbed_client::ClientError;

use crate::session::Refusal;

/// Where a command prints.
pub(crate) struct Output {
    result: RefCell<Box<dyn Write>>,
    talk: RefCell<Box<dyn Write>>,
    /// Whether somebody looks at the results.
    pub(crate) result_is_seen: bool,
    /// Whether somebody looks at the talk.
    pub(crate) talk_is_seen: bool,
    colours: bool,
    /// A status line stands at the bottom of the terminal and must be wiped first.
    status_stands: Cell<bool>,
}

/// How text looks on a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ink {
    /// Success.
    Good,
    /// Failure.
    Bad,
    /// A warning.
    Odd,
    /// Less important.
    Dim,
    /// More important.
    Bold,
}

/// Stdout cannot be written to.
#[derive(Debug)]
pub(crate) struct ResultLost(io::Error);

impl ResultLost {
    /// Returns whether the reader simply went away, as `head` does.
    pub(crate) fn is_reader_gone(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl fmt::Display for ResultLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl std::error::Error for ResultLost {}

impl Output {
    /// Prints to the streams of this process.
    pub(crate) fn of_process() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
        let colours = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (result, talk) = (io::stdout(), io::stderr());
        Self {
            result_is_seen: result.is_terminal(),
            talk_is_seen: talk.is_terminal(),
            colours,
            result: RefCell::new(Box::new(result)),
            talk: RefCell::new(Box::new(talk)),
            status_stands: Cell::new(false),
        }
    }

    /// Prints to buffers that nobody sees.
    #[cfg(test)]
    pub(crate) fn to(result: impl Write + 'static, talk: impl Write + 'static) -> Self {
        Self {
            result: RefCell::new(Box::new(result)),
            talk: RefCell::new(Box::new(talk)),
            result_is_seen: false,
            talk_is_seen: false,
            colours: false,
            status_stands: Cell::new(false),
        }
    }

    /// Prints a line of the result.
    pub(crate) fn result(&self, line: impl fmt::Display) -> Result<(), ResultLost> {
        self.result_bytes(format!("{line}\n").as_bytes())
    }

    /// Prints bytes of the result as they are.
    pub(crate) fn result_bytes(&self, bytes: &[u8]) -> Result<(), ResultLost> {
        self.wipe_status();
        let mut result = self.result.borrow_mut();
        result.write_all(bytes).and_then(|()| result.flush()).map_err(ResultLost)
    }

    /// Prints a JSON object on one line of the result.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), ResultLost> {
        let text = serde_json::to_string(value).map_err(|error| ResultLost(error.into()))?;
        self.result(text)
    }

    /// Prints a JSON value of the result over several lines.
    pub(crate) fn json_pretty(&self, value: &impl Serialize) -> Result<(), ResultLost> {
        let text = serde_json::to_string_pretty(value).map_err(|error| ResultLost(error.into()))?;
        self.result(text)
    }

    /// Prints a line of talk. Nobody to talk to is no failure.
    pub(crate) fn talk(&self, line: impl fmt::Display) {
        self.wipe_status();
        let _ = writeln!(self.talk.borrow_mut(), "{line}");
    }

    /// Shows a question or a prompt, without ending its line.
    pub(crate) fn prompt(&self, text: &str) {
        self.wipe_status();
        let mut talk = self.talk.borrow_mut();
        let _ = write!(talk, "{text}").and_then(|()| talk.flush());
    }

    /// Shows a line that is replaced by whatever comes next; nothing unless somebody looks.
    pub(crate) fn status(&self, line: impl fmt::Display) {
        if self.talk_is_seen {
            let mut talk = self.talk.borrow_mut();
            let _ = write!(talk, "\r\x1b[2K{line}").and_then(|()| talk.flush());
            self.status_stands.set(true);
        }
    }

    /// Takes the status line away.
    pub(crate) fn wipe_status(&self) {
        if self.status_stands.replace(false) {
            let mut talk = self.talk.borrow_mut();
            let _ = write!(talk, "\r\x1b[2K").and_then(|()| talk.flush());
        }
    }

    /// Colours text for the talk.
    pub(crate) fn ink_talk(&self, ink: Ink, text: &str) -> String {
        paint(ink, text, self.colours && self.talk_is_seen)
    }

    /// Colours text for the result.
    pub(crate) fn ink_result(&self, ink: Ink, text: &str) -> String {
        paint(ink, text, self.colours && self.result_is_seen)
    }

    /// Says what went wrong and what to do about it.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        self.talk(format!("{} {}", self.ink_talk(Ink::Bad, "error:"), sentence(error)));
        if let Some(hint) = hint(error) {
            self.talk(format!("hint: {hint}"));
        }
    }
}

/// Returns an error with its causes on one line, each said once.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

/// Returns what to do about an error.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(hint) = error.downcast_ref::<Refusal>().and_then(|refusal| refusal.hint.clone()) {
        return Some(hint);
    }
    let error = error.downcast_ref::<ClientError>()?;
    match error {
        ClientError::NotRunning { .. } => {
            Some("`trackbed up` in the folder of an app starts one, and so does `trackbed serve`".to_owned())
        }
        ClientError::PermissionDenied { .. } | ClientError::Stranger { .. } => {
            Some("run this as the user who runs the box, or choose another box by --data-dir".to_owned())
        }
        ClientError::Api(..) | ClientError::Late { .. } | ClientError::Transport { .. } => {
            error.hint().map(str::to_owned)
        }
    }
}

fn paint(ink: Ink, text: &str, colours: bool) -> String {
    if !colours {
        return text.to_owned();
    }
    let code = match ink {
        Ink::Good => "32",
        Ink::Bad => "31",
        Ink::Odd => "33",
        Ink::Dim => "2",
        Ink::Bold => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
