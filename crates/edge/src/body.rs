//! Where the body of a message ends (RFC 9112 §6).

use std::ops::Range;

use crate::chunks::{BadChunk, Chunks, Part};

/// How a body is framed, and how much of it is left.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// So many bytes. None is no body.
    Length(u64),
    Chunked(Chunks),
    /// Ends with the connection: answers only.
    UntilClose,
}

/// What of some bytes belongs to a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many, from the first.
    pub(crate) count: usize,
    /// Those of them that are not passed on.
    pub(crate) trailers: Range<usize>,
}

impl Taken {
    /// Returns the bytes to pass on, in two pieces.
    pub(crate) fn pieces<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        (&bytes[..self.trailers.start], &bytes[self.trailers.end..self.count])
    }
}

impl Body {
    pub(crate) const NONE: Self = Self::Length(0);

    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunks::default())
    }

    /// Returns whether all of it has passed.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunks) => chunks.is_done(),
            Body::UntilClose => false,
        }
    }

    /// Returns how many of the bytes belong to the body, having shown its content to `see`, and counts them as passed.
    ///
    /// # Errors
    /// When the framing is broken.
    pub(crate) fn take(&mut self, bytes: &[u8], mut see: impl FnMut(&[u8])) -> Result<Taken, BadChunk> {
        let all = |count| Taken { count, trailers: count..count };
        match self {
            Body::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                see(&bytes[..count]);
                Ok(all(count))
            }
            Body::UntilClose => {
                see(bytes);
                Ok(all(bytes.len()))
            }
            Body::Chunked(chunks) => {
                let mut count = 0;
                let mut trailers = None;
                while let Some((part, length)) = chunks.next(&bytes[count..])? {
                    match part {
                        Part::Content => see(&bytes[count..count + length]),
                        Part::Trailer => trailers.get_or_insert(count..count).end = count + length,
                        Part::Framing => {}
                    }
                    count += length;
                }
                Ok(Taken { count, trailers: trailers.unwrap_or(count..count) })
            }
        }
    }
}
