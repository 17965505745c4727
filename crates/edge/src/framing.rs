//! Watches the bytes of a request head for both `Content-Length` and `Transfer-Encoding`. hyper drops the length in
//! silence then, which is safe to forward but hides a smuggling attempt; the edge refuses it (RFC 9112 §6.1).

/// What has been seen of one head. Fed with bytes as they arrive, split anywhere.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    /// Lower-cased first bytes of the line being read, as many as tell the two names apart.
    line: [u8; LONGEST_NAME],
    /// Bytes of the line so far, counted up to one more than fit.
    line_bytes: usize,
    length: bool,
    encoding: bool,
    done: bool,
}

const LENGTH: &[u8] = b"content-length";
const ENCODING: &[u8] = b"transfer-encoding";
const LONGEST_NAME: usize = ENCODING.len();

impl HeadScanner {
    /// Reads on. Ends at the blank line: bytes of the body say nothing.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !self.done {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            self.extend_line(part);
            let Some(end) = end else { return };
            self.end_line();
            bytes = &bytes[end + 1..];
        }
    }

    /// Returns whether the head carries both ways to say where the body ends.
    pub(crate) fn conflict(&self) -> bool {
        self.length && self.encoding
    }

    fn extend_line(&mut self, part: &[u8]) {
        for byte in part {
            if self.line_bytes >= LONGEST_NAME {
                self.line_bytes = LONGEST_NAME + 1;
                return;
            }
            self.line[self.line_bytes] = byte.to_ascii_lowercase();
            self.line_bytes += 1;
        }
    }

    fn end_line(&mut self) {
        let line = &self.line[..self.line_bytes.min(LONGEST_NAME)];
        match line.first() {
            Some(b'c') => self.length |= line.starts_with(LENGTH),
            Some(b't') => self.encoding |= line.starts_with(ENCODING),
            // Blank lines before the request line are allowed and are no end, but then the scan just ends early.
            None | Some(b'\r') => self.done = true,
            Some(_) => {}
        }
        self.line_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(pieces: &[&str]) -> bool {
        let mut scanner = HeadScanner::default();
        for piece in pieces {
            scanner.feed(piece.as_bytes());
        }
        scanner.conflict()
    }

    #[test]
    fn both_headers_are_a_conflict_in_any_order_case_and_split() {
        assert!(conflict(&["POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"]));
        assert!(conflict(&[
            "POST / HTTP/1.1\r\nTRANSFER-ENC",
            "ODING: chunked\r\ncon",
            "tent-LENGTH:3\r\n\r\n"
        ]));
    }

    #[test]
    fn one_header_or_a_body_that_looks_like_one_is_fine() {
        assert!(!conflict(&["POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n"]));
        assert!(!conflict(&["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nContent-Length: 5\r\n"]));
        assert!(!conflict(&[
            "POST / HTTP/1.1\nContent-Type: a\nTransfer-Encoding: chunked\n\nContent-Length: 5"
        ]));
    }
}
