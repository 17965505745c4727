//! Looks at the content of an event stream as it passes, to know where one event ends and the next begins.

/// The longest end of an event, `\r\n\r\n`, in bytes.
const END_BYTES_MAX: usize = 4;
/// Events are counted in the first bytes of a stream only: enough to tell a stream that was collected first.
const COUNTED_BYTES: usize = 16 * 1024;

/// Where an event stream is.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The last bytes, oldest first.
    tail: [u8; END_BYTES_MAX],
    bytes: u64,
    ends: u32,
}

impl Events {
    /// Reads on.
    pub(crate) fn feed(&mut self, content: &[u8]) {
        if self.bytes < COUNTED_BYTES as u64 {
            self.count(content);
        }
        self.bytes += content.len() as u64;
        let kept = content.len().min(END_BYTES_MAX);
        self.tail.copy_within(kept.., 0);
        self.tail[END_BYTES_MAX - kept..].copy_from_slice(&content[content.len() - kept..]);
    }

    /// Returns whether the stream stands between two events: a client that is told to come back loses nothing.
    pub(crate) fn is_between_events(&self) -> bool {
        let ends: [&[u8]; 4] = [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"];
        self.bytes == 0 || ends.iter().any(|end| self.tail.ends_with(end))
    }

    /// Returns how many events began and ended, as far as they were counted.
    pub(crate) fn count_ends(&self) -> u32 {
        self.ends
    }

    fn count(&mut self, content: &[u8]) {
        let content = &content[..content.len().min(COUNTED_BYTES)];
        let mut last = self.tail[END_BYTES_MAX - 1];
        let mut is_blank = self.bytes == 0 || last == b'\n';
        for &byte in content {
            match byte {
                b'\n' if is_blank && last == b'\n' => self.ends += 1,
                b'\n' => is_blank = true,
                b'\r' => continue,
                _ => is_blank = false,
            }
            last = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_between_two_events_is_known_however_it_is_split() {
        for (stream, wanted) in [
            ("data: a\n\n", true),
            ("data: a\r\n\r\n", true),
            ("data: a\r\rdata: b\r\r", true),
            (": ping\r\n\r\n", true),
            ("data: a\n", false),
            ("data: a\r\n", false),
            ("data: a\n\ndata", false),
            ("", true),
        ] {
            for piece in 1..=stream.len().max(1) {
                let mut events = Events::default();
                for part in stream.as_bytes().chunks(piece) {
                    events.feed(part);
                }
                assert_eq!(events.is_between_events(), wanted, "{stream:?} by {piece}");
            }
        }
    }

    #[test]
    fn events_are_counted() {
        let mut events = Events::default();
        for part in ["data: a\n", "\ndata: b\ndata: c\n\n", "event: x\r\n", "data: d\r\n\r\n"] {
            events.feed(part.as_bytes());
        }
        assert_eq!(events.count_ends(), 3);
    }
}
