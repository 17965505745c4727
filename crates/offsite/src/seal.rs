//! Encryption of whole streams by age (age-encryption.org/v1), for one X25519 recipient: with the identity and the
//! standard tool a person can open every object by hand.

use std::io::{self, Read, Write};
use std::iter;

use age::secrecy::ExposeSecret;
use age::x25519;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use trackbed_core::{Digest, Secret};

use crate::error::OffsiteError;

/// The identity that opens the copies and the recipient that they are sealed for.
#[derive(Clone)]
pub struct Keys {
    pub(crate) identity: x25519::Identity,
    pub(crate) recipient: x25519::Recipient,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.recipient)
    }
}

impl Keys {
    /// Reads an identity: a line `AGE-SECRET-KEY-1…`, also with comments around it, as age-keygen writes them.
    ///
    /// # Errors
    /// When there is none; the text is not quoted, because it may be a secret all the same.
    pub fn parse(text: &Secret<String>) -> Result<Keys, OffsiteError> {
        let mut lines = text.expose().lines().map(str::trim);
        let line = lines.find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
        let identity: x25519::Identity = line.parse().map_err(|_| {
            OffsiteError::refused(
                "what was given is not an age identity",
                "it begins with `AGE-SECRET-KEY-1` and was shown when the target was set; `trackbed backup key` shows it on the box",
            )
        })?;
        let recipient = identity.to_public();
        Ok(Keys { identity, recipient })
    }

    /// Returns the recipient: `age1…`.
    pub fn recipient(&self) -> String {
        self.recipient.to_string()
    }
}

/// Makes a new identity.
pub fn new_identity() -> Secret<String> {
    Secret::new(x25519::Identity::generate().to_string().expose_secret().to_owned())
}

/// What a stream came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Bytes before encryption.
    pub(crate) bytes: u64,
    /// SHA-256 of them.
    pub(crate) digest: Digest,
}

/// Counts and digests what is written through it.
pub(crate) struct Measure<W> {
    inner: W,
    bytes: u64,
    hasher: Sha256,
}

impl<W> Measure<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, bytes: 0, hasher: Sha256::new() }
    }

    pub(crate) fn finish(self) -> (W, Measured) {
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        (self.inner, Measured { bytes: self.bytes, digest })
    }
}

impl<W: Write> Write for Measure<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.hasher.update(&data[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes encrypted parts into a channel. Blocking; ends with an error when nobody listens any more.
pub(crate) fn seal(
    keys: &Keys,
    parts: mpsc::Sender<Vec<u8>>,
    part_bytes: usize,
    fill: &dyn Fn(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Measured> {
    let recipient: &dyn age::Recipient = &keys.recipient;
    let encryptor = age::Encryptor::with_recipients(iter::once(recipient)).map_err(io::Error::other)?;
    let sink = Parts { parts, part_bytes, waiting: Vec::with_capacity(part_bytes.min(1 << 20)) };
    let mut measure = Measure::new(encryptor.wrap_output(sink)?);
    fill(&mut measure)?;
    let (sealer, measured) = measure.finish();
    sealer.finish()?.send_rest()?;
    Ok(measured)
}

/// Cuts a stream into parts.
struct Parts {
    parts: mpsc::Sender<Vec<u8>>,
    part_bytes: usize,
    waiting: Vec<u8>,
}

impl Parts {
    fn send_rest(mut self) -> io::Result<()> {
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.waiting);
        self.parts.blocking_send(part).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Parts {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = self.part_bytes - self.waiting.len();
        let count = data.len().min(room);
        self.waiting.extend_from_slice(&data[..count]);
        if self.waiting.len() == self.part_bytes {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why an encrypted stream could not be used.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// It is not what was sent, or was sealed for another key.
    Damaged(String),
    /// Whoever took the plain bytes refused.
    Sink(io::Error),
}

/// Decrypts a stream into `sink`, to its very end. Blocking.
pub(crate) fn open<T>(
    keys: &Keys,
    stream: impl Read,
    sink: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> Result<T, OpenError> {
    let damaged = |error: &dyn std::fmt::Display| OpenError::Damaged(error.to_string());
    let decryptor = age::Decryptor::new(stream).map_err(|error| damaged(&error))?;
    let identity: &dyn age::Identity = &keys.identity;
    let plain = decryptor.decrypt(iter::once(identity)).map_err(|error| damaged(&error))?;
    let mut watched = Watched { inner: plain, broken: None };
    let taken = sink(&mut watched);
    if let Some(broken) = watched.broken {
        return Err(OpenError::Damaged(broken));
    }
    let taken = taken.map_err(OpenError::Sink)?;
    // The last chunk says that it is the last: without it a stream that was cut off would pass.
    io::copy(&mut watched, &mut io::sink()).map_err(|error| damaged(&error))?;
    Ok(taken)
}

/// Tells errors of the stream from those of whoever writes it down.
struct Watched<R> {
    inner: R,
    broken: Option<String>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|error| self.broken = Some(error.to_string()))
    }
}

/// Reads what comes through a channel. Blocking.
pub(crate) struct Arriving {
    pub(crate) chunks: mpsc::Receiver<bytes::Bytes>,
    pub(crate) current: bytes::Bytes,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Encrypts a small value in memory.
pub(crate) fn seal_small(keys: &Keys, plain: &[u8]) -> Result<Vec<u8>, OffsiteError> {
    age::encrypt(&keys.recipient, plain)
        .map_err(|error| OffsiteError::Disk { attempt: "encrypt".into(), source: io::Error::other(error) })
}

/// Opens what [`seal_small`] made.
pub(crate) fn open_small(keys: &Keys, object: &str, sealed: &[u8]) -> Result<Vec<u8>, OffsiteError> {
    age::decrypt(&keys.identity, sealed).map_err(|error| OffsiteError::damaged(object, error.to_string()))
}
