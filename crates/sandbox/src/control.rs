//! The control socket of a shim: one JSON line each way per request, for the box's own user and root alone.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use trackbed_core::instance::Exit;

use crate::records::VERSION;
use crate::sockets;

const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Clients served at once; more wait in the kernel's queue.
pub(crate) const CLIENTS: usize = 16;
/// Commands at once: some clients must always be able to ask for something else.
pub(crate) const EXECS: usize = 12;
/// Longest silence of a client that waits for nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Longest request. The kernel takes about two MiB of words and variables for a command; JSON may need more.
const REQUEST_LIMIT_BYTES: usize = 8 << 20;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) ask: Ask,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub(crate) enum Ask {
    Status,
    Stop {
        grace_ms: u64,
    },
    Kill,
    /// Standard output and error come along as descriptors.
    Exec {
        command: Vec<String>,
        env: Vec<(String, String)>,
    },
    /// Make the instance stand still until the same client asks for [`Ask::Thaw`] or goes, or the limit is over.
    Freeze {
        limit_ms: u64,
    },
    Thaw,
}

/// An answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) version: u32,
    pub(crate) error: Option<String>,
    pub(crate) exit: Option<Exit>,
    /// How long the instance stood still, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stood_still_us: Option<u64>,
}

impl Answer {
    pub(crate) fn ok() -> Answer {
        Answer { version: VERSION, ..Answer::default() }
    }

    pub(crate) fn error(message: impl Into<String>) -> Answer {
        Answer { error: Some(message.into()), ..Answer::ok() }
    }
}

/// Sends a request and returns the open line, on which the answer comes.
pub(crate) fn ask(socket: &Path, ask: Ask, fds: &[RawFd]) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    send(&stream, ask, fds)?;
    Ok(stream)
}

/// Sends a request over an open line.
pub(crate) fn send(stream: &UnixStream, ask: Ask, fds: &[RawFd]) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(&Request { version: VERSION, ask })?;
    text.push(b'\n');
    if text.len() > REQUEST_LIMIT_BYTES {
        let message = format!("the request has {} bytes, more than {REQUEST_LIMIT_BYTES}", text.len());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
    }
    let sent = sockets::send_bytes(stream.as_fd(), &text, fds)?;
    let mut rest = stream;
    rest.write_all(&text[sent..])
}

/// Waits for the answer.
pub(crate) fn answer(stream: &UnixStream) -> std::io::Result<Answer> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Sends a request and waits for the answer.
pub(crate) fn call(socket: &Path, what: Ask) -> std::io::Result<Answer> {
    answer(&ask(socket, what, &[])?)
}

/// One client of a shim.
pub(crate) struct Client {
    stream: UnixStream,
    text: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The command that it waits for.
    pub(crate) exec: Option<u64>,
    /// Whether the instance stands still for it.
    pub(crate) freezes: bool,
    /// Whether it has got its last answer.
    pub(crate) done: bool,
    heard: Instant,
}

/// What reading from a client came to.
pub(crate) enum Heard {
    Nothing,
    Gone,
    Asked(Request, Vec<OwnedFd>),
}

impl Client {
    /// Takes the next client. Others than the box's user and root are turned away.
    pub(crate) fn accept(listener: &UnixListener) -> Option<Client> {
        let (stream, _) = listener.accept().ok()?;
        let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).ok()?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return None;
        }
        stream.set_nonblocking(true).ok()?;
        Some(Client {
            stream,
            text: Vec::new(),
            fds: Vec::new(),
            exec: None,
            freezes: false,
            done: false,
            heard: Instant::now(),
        })
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Returns when it is turned away unless it says something; never while it waits for a command, or the
    /// instance stands still for it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.exec.is_none() && !self.freezes).then(|| self.heard + SILENCE_LIMIT)
    }

    /// Reads what is there.
    pub(crate) fn hear(&mut self) -> Heard {
        let mut buffer = [0; 16 << 10];
        let known = self.text.len();
        match sockets::receive_bytes(self.stream.as_fd(), &mut buffer) {
            Ok((0, _)) => return Heard::Gone,
            Ok((length, fds)) => {
                self.heard = Instant::now();
                self.text.extend_from_slice(&buffer[..length]);
                self.fds.extend(fds);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Heard::Nothing,
            Err(_) => return Heard::Gone,
        }
        let Some(end) = self.text[known..].iter().position(|byte| *byte == b'\n').map(|end| known + end)
        else {
            if self.text.len() > REQUEST_LIMIT_BYTES || self.fds.len() > 2 {
                self.answer(&Answer::error("the request is too long"));
                return Heard::Gone;
            }
            return Heard::Nothing;
        };
        let request = serde_json::from_slice(&self.text[..end]);
        // One request at a time: nobody sends the next before the answer.
        self.text = Vec::new();
        match request {
            Ok(request) => Heard::Asked(request, std::mem::take(&mut self.fds)),
            Err(error) => {
                self.answer(&Answer::error(format!("cannot read the request: {error}")));
                Heard::Gone
            }
        }
    }

    /// Answers; a client that does not read loses its answer.
    pub(crate) fn answer(&self, answer: &Answer) {
        if let Ok(mut text) = serde_json::to_vec(answer) {
            text.push(b'\n');
            let _ = (&self.stream).write_all(&text);
        }
    }
}
