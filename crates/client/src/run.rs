//! The answer to `run`: events as they come, one JSON object a line.

use hyper::body::Incoming;
use trackbed_api::RunEvent;

use crate::ClientError;
use crate::connection::Connection;

/// Longest line of a run: a command that writes more without a line end is cut by the box long before.
const LINE_MAX_BYTES: usize = 16 << 20;

/// Events of a command that runs. Dropping it hangs up.
pub struct RunStream {
    pub(crate) connection: Connection,
    pub(crate) body: Incoming,
    pub(crate) waiting: Vec<u8>,
    pub(crate) call: String,
}

impl RunStream {
    /// Waits for the next event; none after the last. Not cancel-safe: drop the stream instead.
    ///
    /// # Errors
    /// When the connection breaks or a line is no event.
    pub async fn next(&mut self) -> Result<Option<RunEvent>, ClientError> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| self.broken(error.to_string()));
            }
            if self.waiting.len() > LINE_MAX_BYTES {
                return Err(self.broken("a line is longer than 16 MiB".to_owned()));
            }
            match self.connection.next_chunk(&mut self.body, &self.call).await? {
                Some(chunk) => self.waiting.extend_from_slice(&chunk),
                None if self.waiting.trim_ascii().is_empty() => return Ok(None),
                None => self.waiting.push(b'\n'),
            }
        }
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Transport { call: self.call.clone(), reason }
    }
}
