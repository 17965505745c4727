//! The socket of a keeper: one JSON line each way, for the box's own user and root alone.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest wait for an answer that needs no work.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Longest line.
const LINE_LIMIT_BYTES: u64 = 16 << 10;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub(crate) enum Ask {
    /// End it: the signal to end now, SIGKILL after the grace.
    Stop { grace_ms: u64 },
    /// Make it stand still until the same line says [`Ask::Thaw`] or ends, or the limit is over.
    Freeze { limit_ms: u64 },
    /// Let it go on.
    Thaw,
    /// Let it go on, whoever holds it: a command is about to be run in it.
    Release,
}

/// The answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) error: Option<String>,
    /// How long it stood still, in microseconds.
    #[serde(default)]
    pub(crate) stood_still_us: Option<u64>,
}

impl Answer {
    pub(crate) fn of<T>(result: Result<T, String>) -> Answer {
        Answer { error: result.err(), stood_still_us: None }
    }
}

/// One end of an open line.
pub(crate) struct Line(BufReader<UnixStream>);

impl Line {
    pub(crate) fn new(stream: UnixStream) -> Line {
        Line(BufReader::new(stream))
    }

    /// Connects to the keeper that listens here.
    pub(crate) async fn open(socket: &Path) -> std::io::Result<Line> {
        Ok(Line::new(UnixStream::connect(socket).await?))
    }

    /// Returns whether the other end is the box's own user, or root.
    pub(crate) fn is_trusted(&self) -> bool {
        let own = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
        self.0
            .get_ref()
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == 0 || own.is_ok_and(|own| own == peer.uid()))
    }

    pub(crate) async fn send<T: Serialize>(&mut self, value: &T) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        self.0.get_mut().write_all(&text).await
    }

    /// Reads a line; none at its end. Not cancel-safe: who gives up drops the line.
    pub(crate) async fn receive<T: for<'de> Deserialize<'de>>(&mut self) -> std::io::Result<Option<T>> {
        let mut text = Vec::new();
        (&mut self.0).take(LINE_LIMIT_BYTES).read_until(b'\n', &mut text).await?;
        if text.last() != Some(&b'\n') {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&text)?))
    }
}

/// Asks a keeper and waits for its answer, at most [`ANSWER_LIMIT`].
pub(crate) async fn call(socket: &Path, ask: Ask) -> std::io::Result<Answer> {
    let talk = async {
        let mut line = Line::open(socket).await?;
        line.send(&ask).await?;
        line.receive().await?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    };
    match tokio::time::timeout(ANSWER_LIMIT, talk).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}
