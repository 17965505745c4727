//! Reads the framing of a chunked body (RFC 9112 §7.1) as it passes, strictly: what two programs could read in two ways
//! is refused, so that nobody behind the edge ever sees another end of a message than the edge did.

/// Longest chunk extension, in bytes. Nobody uses them; a line without an end must not be read for ever.
const EXTENSION_BYTES_MAX: u32 = 256;
/// Longest trailer section, in bytes.
const TRAILER_BYTES_MAX: u32 = 8 * 1024;
/// Hexadecimal digits of a chunk size: one fewer than 64 bits have, so that no program behind the edge overflows either.
const DIGITS_MAX: u8 = 15;

/// What the next bytes of a chunked body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Sizes, extensions and line ends.
    Framing,
    /// Fields behind the content, which are not passed on (RFC 9110 §6.5.1 lets a proxy drop them): what they may mean to
    /// the programs behind is nobody's guess.
    Trailer,
    /// Bytes of the content.
    Content,
}

/// The framing is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("broken chunk framing")]
pub(crate) struct BadChunk;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a size line, after so many digits.
    Size(u8),
    Extension(u32),
    /// After the carriage return of a size line.
    SizeEnd,
    Content,
    /// After the content of a chunk.
    ContentEnd,
    ContentEndLine,
    /// At the beginning of a line of the trailer section.
    Trailer,
    TrailerName,
    TrailerLine,
    TrailerLineEnd,
    /// After the carriage return of the last, empty line.
    LastLine,
    Done,
}

/// Where a chunked body is.
#[derive(Debug, Clone)]
pub(crate) struct Chunks {
    state: State,
    /// Bytes of content left in the chunk; while its size is read, the size so far.
    left: u64,
    trailer_bytes: u32,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { state: State::Size(0), left: 0, trailer_bytes: 0 }
    }
}

impl Chunks {
    /// Returns whether the body is over.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns whether another chunk may be put in here.
    pub(crate) fn is_between_chunks(&self) -> bool {
        self.state == State::Size(0)
    }

    /// Reads on: returns what the first of the bytes are, and how many of them. None at the end of the bytes or the body.
    ///
    /// # Errors
    /// When the framing is broken; nothing may be forwarded from here on.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Option<(Part, usize)>, BadChunk> {
        if bytes.is_empty() || self.is_done() {
            return Ok(None);
        }
        if self.state == State::Content {
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= count as u64;
            if self.left == 0 {
                self.state = State::ContentEnd;
            }
            return Ok(Some((Part::Content, count)));
        }
        let mut count = 0;
        let mut part = None;
        while count < bytes.len() && self.state != State::Content && !self.is_done() {
            let before = self.state;
            self.step(bytes[count])?;
            let is_trailer =
                matches!(self.state, State::TrailerName | State::TrailerLine | State::TrailerLineEnd)
                    || before == State::TrailerLineEnd;
            let next = if is_trailer { Part::Trailer } else { Part::Framing };
            if *part.get_or_insert(next) != next {
                // Stepping is the same from here: this byte belongs to the next part.
                self.state = before;
                break;
            }
            count += 1;
        }
        Ok(Some((part.unwrap_or(Part::Framing), count)))
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size(digits), b'\r') if digits > 0 => State::SizeEnd,
            (State::Size(digits), b';') if digits > 0 => State::Extension(0),
            (State::Size(digits), _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                if digits >= DIGITS_MAX {
                    return Err(BadChunk);
                }
                self.left = (self.left << 4) | u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Extension(_), b'\r') => State::SizeEnd,
            (State::Extension(length), _) if length < EXTENSION_BYTES_MAX && is_text(byte) => {
                State::Extension(length + 1)
            }
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeEnd, b'\n') => State::Content,
            (State::ContentEnd, b'\r') => State::ContentEndLine,
            (State::ContentEndLine, b'\n') => State::Size(0),
            (State::Trailer, b'\r') => State::LastLine,
            (State::TrailerName, b':') => State::TrailerLine,
            (State::Trailer | State::TrailerName, _) if is_token(byte) => self.trailer(State::TrailerName)?,
            (State::TrailerLine, _) if is_text(byte) => self.trailer(State::TrailerLine)?,
            (State::TrailerLine, b'\r') => State::TrailerLineEnd,
            (State::TrailerLineEnd, b'\n') => State::Trailer,
            (State::LastLine, b'\n') => State::Done,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    /// Counts a byte of the trailer section.
    fn trailer(&mut self, next: State) -> Result<State, BadChunk> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX { Err(BadChunk) } else { Ok(next) }
    }
}

/// A byte of a field's name (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Any byte of a line but its end and other control characters.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the content, how many bytes were read, and whether the end came.
    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), BadChunk> {
        let mut chunks = Chunks::default();
        let (mut content, mut count) = (Vec::new(), 0);
        for mut part in bytes.chunks(piece) {
            while let Some((kind, length)) = chunks.next(part)? {
                if kind == Part::Content {
                    content.extend_from_slice(&part[..length]);
                }
                count += length;
                part = &part[length..];
            }
        }
        Ok((content, count, chunks.is_done()))
    }

    #[test]
    fn a_body_is_read_the_same_however_it_is_split() {
        let body = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nSum: 1\r\n\r\nGET / HTTP/1.1";
        for piece in 1..body.len() {
            let (content, count, done) = read(body, piece).unwrap();
            assert_eq!((content.as_slice(), done), (b"hello0123456789".as_slice(), true), "{piece}");
            assert_eq!(count, body.len() - b"GET / HTTP/1.1".len());
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "\r\n",
            "5 \r\nhello",
            " 5\r\nhello",
            "+5\r\nhello",
            "0x5\r\nhello",
            "5\nhello",
            "5\r\nhelloX",
            "5\r\nhello\n0",
            "5\r\nhello\rX",
            "5;a\nb\r\nhello",
            "5;\0\r\nhello",
            "10000000000000000\r\n",
            ";x\r\n",
            "g\r\n",
            "-1\r\n",
            "0\r\n X: 1\r\n\r\n",
            "0\r\nX: 1\n\r\n",
            "0\r\n: 1\r\n\r\n",
            "0\r\nX: \x001\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\nX : 1\r\n\r\n",
            "0\r\n\n",
        ] {
            for piece in [1, 100] {
                assert_eq!(read(bad.as_bytes(), piece), Err(BadChunk), "{bad:?}");
            }
        }
    }

    #[test]
    fn lines_without_an_end_are_refused() {
        assert!(read(format!("5;{}", "x".repeat(300)).as_bytes(), 50).is_err());
        assert!(read(format!("0\r\n{}", "x: y\r\n".repeat(4000)).as_bytes(), 50).is_err());
    }

    #[test]
    fn trailers_are_told_from_the_end() {
        let body = b"1\r\nx\r\n0\r\nA: 1\r\nB: 2\r\n\r\n";
        for piece in 1..body.len() {
            let (mut chunks, mut kept) = (Chunks::default(), Vec::new());
            for mut part in body.chunks(piece) {
                while let Some((kind, length)) = chunks.next(part).unwrap() {
                    if kind != Part::Trailer {
                        kept.extend_from_slice(&part[..length]);
                    }
                    part = &part[length..];
                }
            }
            assert_eq!(kept, b"1\r\nx\r\n0\r\n\r\n", "{piece}");
        }
    }

    #[test]
    fn a_place_between_chunks_is_known() {
        let mut chunks = Chunks::default();
        assert!(chunks.is_between_chunks());
        for (bytes, between) in
            [("5\r\nhel", false), ("lo", false), ("\r\n", true), ("0\r\n", false), ("\r\n", false)]
        {
            let mut rest = bytes.as_bytes();
            while let Some((_, count)) = chunks.next(rest).unwrap() {
                rest = &rest[count..];
            }
            assert_eq!(chunks.is_between_chunks(), between, "{bytes:?}");
        }
        assert!(chunks.is_done());
    }
}
