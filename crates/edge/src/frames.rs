//! Looks at WebSocket frames as they pass (RFC 6455 §5.2), to know where a frame of our own may stand between them.

/// Status of a close frame that says: this server restarts, come back (RFC 6455's registry, "Service Restart").
const SERVICE_RESTART: [u8; 2] = 1012u16.to_be_bytes();
const OPCODE_CLOSE: u8 = 8;
/// First byte of a frame that is whole and closes.
const FINAL_CLOSE: u8 = 0x80 | OPCODE_CLOSE;
const MASKED: u8 = 0x80;
/// Two bytes, up to eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// The close frame to a client.
pub(crate) const CLOSE_TO_CLIENT: [u8; 4] = [FINAL_CLOSE, 2, SERVICE_RESTART[0], SERVICE_RESTART[1]];
/// The close frame to an app, in the client's name: masked, with a mask of zeros, which leaves the bytes as they are.
pub(crate) const CLOSE_TO_APP: [u8; 8] =
    [FINAL_CLOSE, MASKED | 2, 0, 0, 0, 0, SERVICE_RESTART[0], SERVICE_RESTART[1]];

/// Where one direction of a WebSocket is.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// Bytes of the frame's content left.
    left: u64,
    closed: bool,
}

impl Frames {
    /// Reads on.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= count as u64;
                bytes = &bytes[count..];
                continue;
            }
            self.header[self.header_bytes] = bytes[0];
            self.header_bytes += 1;
            bytes = &bytes[1..];
            if let Some(length) = self.content_length() {
                self.closed |= self.header[0] & 0x0f == OPCODE_CLOSE;
                self.left = length;
                self.header_bytes = 0;
            }
        }
    }

    /// Returns whether a frame of our own may stand here.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.header_bytes == 0 && self.left == 0
    }

    /// Returns whether this side has said that it closes; nothing may follow that.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns the length of the content once the header is whole.
    fn content_length(&self) -> Option<u64> {
        let header = &self.header[..self.header_bytes];
        let second = *header.get(1)?;
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        let (length_bytes, short) = match second & !MASKED {
            126 => (2, None),
            127 => (8, None),
            short => (0, Some(u64::from(short))),
        };
        if header.len() < 2 + length_bytes + mask {
            return None;
        }
        let long = || header[2..2 + length_bytes].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        Some(short.unwrap_or_else(long))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_between_two_frames_is_known_however_it_is_split() {
        let mut stream = vec![0x81, 3, b'a', b'b', b'c', 0x82, 126, 1, 0];
        stream.extend([7; 256]);
        let ends = [0, 5, 9 + 256, 9 + 256 + 9];
        stream.extend([0x81, 0x83, 1, 2, 3, 4, 9, 9, 9]);
        for piece in 1..40 {
            let mut frames = Frames::default();
            let mut count = 0;
            for part in stream.chunks(piece) {
                frames.feed(part);
                count += part.len();
                assert_eq!(frames.is_between_frames(), ends.contains(&count), "{count} by {piece}");
            }
            assert!(!frames.is_closed());
        }
    }

    #[test]
    fn a_close_is_seen_and_ours_are_whole_frames() {
        for close in [CLOSE_TO_CLIENT.as_slice(), &CLOSE_TO_APP] {
            let mut frames = Frames::default();
            frames.feed(close);
            assert!(frames.is_closed() && frames.is_between_frames());
        }
    }
}
