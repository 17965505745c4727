//! Sends a file: a head, then pieces as they fit, never more of them than the client takes.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httparse::Header;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::conditions::{self, Asked, Wanted};
use super::find::{Found, Opened, Reach, Sought};
use super::path::Path;
use crate::buffers::{Kept, read_size, with_scratch};
use crate::fields::tokens;
use crate::limits::{DISK_TIME_MAX, FILE_PIECE_BYTES, HEADERS_MAX, HEADERS_WRITTEN_MAX, ROUNDS_MAX};
use crate::open_request::OpenRequest;
use crate::pages::Fault;
use crate::proxy::{Next, Side};
use crate::request::Request;
use crate::response::put_status_line;
use crate::target::TargetState;

/// How long a file may be kept whose name changes with its content: for good, which by custom is a year.
const KEPT_FOR_GOOD: &str = "public, max-age=31536000, immutable";
/// Every other file may be kept, and is asked for again each time: that costs 304 and no body.
const ASKED_AGAIN: &str = "no-cache";

/// An answer that is decided: its head is written, its body is a part of a file.
struct Answer {
    status: u16,
    head: Vec<u8>,
    body: Option<(Opened, Range<u64>)>,
}

/// What came of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// The next piece has to come from the disk.
    NeedsDisk,
    /// The client has gone.
    ClientLeft,
    /// The file ended early, or its target was cut.
    Broken,
}

impl Side<'_> {
    /// Answers with a file of the target's folder.
    pub(crate) async fn serve_file(
        &mut self,
        request: &Request,
        mut open: OpenRequest,
        target: &Arc<TargetState>,
    ) -> Next {
        // Made before the look at the files, so that no cut is missed.
        let cut = target.cut_notice();
        let head = std::mem::take(&mut self.head);
        let decided = decide(&head, request, target).await;
        self.head = head;
        let mut answer = match decided {
            Ok(Decided::Answer(answer)) => answer,
            Ok(Decided::Refused(fault)) => {
                return self.refuse(request, &fault(open.service_name()), Some(open)).await;
            }
            Err(error) => {
                tracing::warn!(instance = %target.target().instance, %error, "cannot read the files of a target");
                let service = open.service_name().to_owned();
                return self.refuse(request, &Fault::FilesUnreadable { service }, Some(open)).await;
            }
        };
        let next = self.next_after(request);
        let id = &self.head[request.id.clone()];
        answer.head.extend_from_slice(b"X-Request-Id: ");
        answer.head.extend_from_slice(id);
        answer.head.extend_from_slice(if next == Next::Request {
            b"\r\n\r\n"
        } else {
            b"\r\nConnection: close\r\n\r\n"
        });
        open.answer(answer.status);
        let sending = self.send(&mut answer, target);
        let sent = tokio::select! {
            biased;
            sent = sending => sent,
            () = cut => Sent::Broken,
        };
        match sent {
            Sent::All => {
                open.complete();
                next
            }
            Sent::ClientLeft => Next::Close,
            Sent::Broken | Sent::NeedsDisk => {
                open.fail();
                self.watch.link.end_badly();
                Next::Close
            }
        }
    }

    async fn send(&self, answer: &mut Answer, target: &Arc<TargetState>) -> Sent {
        let mut kept = Kept::default();
        let mut head = std::mem::take(&mut answer.head);
        let Some((opened, range)) = &mut answer.body else {
            return poll_fn(|cx| self.poll_pieces(cx, &mut kept, &mut head, None)).await;
        };
        loop {
            let sent = poll_fn(|cx| self.poll_pieces(cx, &mut kept, &mut head, Some((opened, range)))).await;
            if sent != Sent::NeedsDisk {
                return sent;
            }
            let piece = match read_from_disk(opened, range).await {
                Ok(piece) if !piece.is_empty() => piece,
                Ok(_) => return Sent::Broken,
                Err(error) => {
                    tracing::warn!(instance = %target.target().instance, %error, "cannot read a file");
                    return Sent::Broken;
                }
            };
            range.start += piece.len() as u64;
            kept.keep(&std::mem::take(&mut head));
            kept.keep(&piece);
        }
    }

    /// Writes what the client takes now. Nothing is kept but what was read and not taken.
    fn poll_pieces(
        &self,
        cx: &mut Context<'_>,
        kept: &mut Kept,
        head: &mut Vec<u8>,
        mut body: Option<(&Opened, &mut Range<u64>)>,
    ) -> Poll<Sent> {
        let link = &self.watch.link;
        if link.is_cut() {
            return Poll::Ready(Sent::ClientLeft);
        }
        for _ in 0..ROUNDS_MAX {
            let before = kept.left();
            let flushed = kept.poll_flush(link, cx);
            self.watch.note_progress(before, kept.left());
            match flushed {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Sent::ClientLeft),
                Poll::Ready(Ok(())) => {}
            }
            let wanted = body.as_ref().map_or(0, |(_, range)| range.end - range.start);
            if head.is_empty() && wanted == 0 {
                return Poll::Ready(Sent::All);
            }
            let size = read_size().min(FILE_PIECE_BYTES).min(usize::try_from(wanted).unwrap_or(usize::MAX));
            let round = with_scratch(|scratch| {
                let piece = &mut scratch.read[..size];
                let read = match &mut body {
                    Some((opened, range)) if size > 0 => {
                        match preadv2(
                            &opened.file,
                            &mut [IoSliceMut::new(piece)],
                            range.start,
                            ReadWriteFlags::NOWAIT,
                        ) {
                            Ok(0) => return Err(Sent::Broken),
                            Ok(count) => count,
                            // Not in memory, or a file system that does not say.
                            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => {
                                return Err(Sent::NeedsDisk);
                            }
                            Err(_) => return Err(Sent::Broken),
                        }
                    }
                    _ => 0,
                };
                if let Some((_, range)) = &mut body {
                    range.start += read as u64;
                }
                let slices = [IoSlice::new(head), IoSlice::new(&piece[..read])];
                let slices = if head.is_empty() { &slices[1..] } else { &slices[..] };
                kept.write(link, cx, slices).map_err(|_| Sent::ClientLeft)
            });
            if let Err(sent) = round {
                return Poll::Ready(sent);
            }
            head.clear();
        }
        // The others of the worker have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What becomes of the connection after an answer of the edge's own.
    pub(crate) fn next_after(&self, request: &Request) -> Next {
        if !request.body.is_done() {
            Next::Linger
        } else if !request.keeps_alive || request.is_http10 || self.client.routes.is_closing() {
            Next::Close
        } else {
            Next::Request
        }
    }
}

/// Reads the next piece on a thread that may wait.
async fn read_from_disk(opened: &Opened, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let file = opened.file.try_clone()?;
    let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let (start, size) = (range.start, read_size().min(FILE_PIECE_BYTES).min(wanted));
    let read = move || {
        let mut piece = vec![0; size];
        let count = file.read_at(&mut piece, start)?;
        piece.truncate(count);
        Ok(piece)
    };
    on_disk(read).await
}

/// Does what may wait for the disk on a thread of its own, within [`DISK_TIME_MAX`].
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let done = tokio::time::timeout(DISK_TIME_MAX, tokio::task::spawn_blocking(work)).await;
    done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?
}

/// What is answered, before it is sent.
enum Decided {
    Answer(Answer),
    Refused(fn(&str) -> Fault),
}

async fn decide(head: &[u8], request: &Request, target: &Arc<TargetState>) -> io::Result<Decided> {
    let Some(site) = target.site() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX + HEADERS_WRITTEN_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    // It was written by the edge itself, so it can be read.
    parsed.parse(head).map_err(io::Error::other)?;
    if !matches!(parsed.method, Some("GET" | "HEAD")) {
        return Ok(Decided::Refused(|service| Fault::NoMethodOfFiles { service: service.to_owned() }));
    }
    let (asked, mut sought) = read_fields(parsed.headers);
    sought.path = Path::read(&head[request.path.clone()]);
    sought.wants_page = request.wants_page;
    let found = match site.find(&sought, Reach::Memory) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let target = Arc::clone(target);
            let look = move || match target.site() {
                Some(site) => site.find(&sought, Reach::Disk),
                None => Err(io::ErrorKind::InvalidInput.into()),
            };
            on_disk(look).await
        }
        found => found,
    };
    let query = &head[request.path.end..].split(|byte| *byte == b' ').next().unwrap_or_default();
    Ok(match found? {
        Found::File(opened) => Decided::Answer(answer(opened, &asked, request.is_head)),
        Found::MissingPage(opened) => {
            let mut head = begin(404, "Not Found");
            put_about(&mut head, &opened, ASKED_AGAIN);
            let whole = 0..opened.length;
            Decided::Answer(with_body(404, head, opened, whole, request.is_head))
        }
        Found::Folder(link) => {
            let mut head = begin(301, "Moved Permanently");
            let _ = write!(head, "Location: {link}{}\r\n", String::from_utf8_lossy(query));
            let _ = write!(head, "Cache-Control: {ASKED_AGAIN}\r\nContent-Length: 0\r\n");
            Decided::Answer(Answer { status: 301, head, body: None })
        }
        Found::Health => {
            let mut head = begin(200, "OK");
            let _ = write!(head, "Cache-Control: no-store\r\nContent-Length: 0\r\n");
            Decided::Answer(Answer { status: 200, head, body: None })
        }
        Found::Missing => Decided::Refused(|service| Fault::NoFile { service: service.to_owned() }),
    })
}

/// Reads what the fields of a head say about files.
fn read_fields<'a>(headers: &[Header<'a>]) -> (Asked<'a>, Sought) {
    let (mut asked, mut sought) = (Asked::default(), Sought::default());
    for Header { name, value } in headers.iter() {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            5 if is("range") => asked.range = Some(value),
            8 if is("if-match") => asked.if_match = Some(value),
            8 if is("if-range") => asked.if_range = Some(value),
            13 if is("if-none-match") => asked.if_none_match = Some(value),
            15 if is("accept-encoding") => {
                sought.brotli |= takes(value, b"br");
                sought.gzip |= takes(value, b"gzip");
            }
            17 if is("if-modified-since") => asked.if_modified_since = Some(value),
            19 if is("if-unmodified-since") => asked.if_unmodified_since = Some(value),
            _ => {}
        }
    }
    (asked, sought)
}

/// Returns whether a list of codings names one, and not with a weight of nothing.
fn takes(list: &[u8], coding: &[u8]) -> bool {
    tokens(list).any(|token| {
        let mut parts = token.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let is_nothing = |part: &[u8]| {
            let weight = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="));
            weight.is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
        };
        named && !parts.any(is_nothing)
    })
}

/// Answers with a file, or as much of it as is wanted.
fn answer(opened: Opened, asked: &Asked<'_>, is_head: bool) -> Answer {
    let wanted = conditions::decide(asked, &opened.tag, opened.modified, opened.length, is_head);
    let caching = if opened.kind.is_hashed { KEPT_FOR_GOOD } else { ASKED_AGAIN };
    let length = opened.length;
    let (status, reason) = match &wanted {
        Wanted::Whole => (200, "OK"),
        Wanted::Part(_) => (206, "Partial Content"),
        Wanted::Nothing => (304, "Not Modified"),
        Wanted::Another => (412, "Precondition Failed"),
        Wanted::NoSuchPart => (416, "Range Not Satisfiable"),
    };
    let mut head = begin(status, reason);
    // Writing into a vector cannot fail.
    let _ = match &wanted {
        Wanted::NoSuchPart => write!(head, "Content-Range: bytes */{length}\r\nContent-Length: 0\r\n"),
        Wanted::Another => write!(head, "Content-Length: 0\r\n"),
        Wanted::Part(part) => {
            write!(head, "Content-Range: bytes {}-{}/{length}\r\n", part.start, part.end - 1)
        }
        Wanted::Whole | Wanted::Nothing => Ok(()),
    };
    match wanted {
        Wanted::Another | Wanted::NoSuchPart => Answer { status, head, body: None },
        Wanted::Nothing => {
            put_identity(&mut head, &opened, caching);
            Answer { status, head, body: None }
        }
        Wanted::Whole | Wanted::Part(_) => {
            put_identity(&mut head, &opened, caching);
            put_content(&mut head, &opened);
            head.extend_from_slice(b"Accept-Ranges: bytes\r\n");
            let part = if let Wanted::Part(part) = wanted { part } else { 0..length };
            with_body(status, head, opened, part, is_head)
        }
    }
}

fn begin(status: u16, reason: &str) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES_USUAL);
    put_status_line(&mut head, status, reason);
    let since = Duration::from_millis(u64::try_from(trackbed_stdx::clock::now_ms()).unwrap_or_default());
    put_date(&mut head, "Date", UNIX_EPOCH + since);
    head
}

/// Most heads fit.
const HEAD_BYTES_USUAL: usize = 512;

fn put_date(head: &mut Vec<u8>, name: &str, time: SystemTime) {
    let _ = write!(head, "{name}: {}\r\n", httpdate::fmt_http_date(time));
}

/// What tells this file from others, and how long it may be kept.
fn put_identity(head: &mut Vec<u8>, opened: &Opened, caching: &str) {
    let _ = write!(head, "ETag: {}\r\nCache-Control: {caching}\r\n", opened.tag);
    put_date(head, "Last-Modified", opened.modified);
    if opened.kind.may_have_twin() {
        head.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
}

/// What the bytes are. A browser must not guess something else, such as a script in a picture.
fn put_content(head: &mut Vec<u8>, opened: &Opened) {
    let content_type = opened.kind.content_type;
    let _ = write!(head, "Content-Type: {content_type}\r\nX-Content-Type-Options: nosniff\r\n");
    if let Some(encoding) = opened.encoding {
        let _ = write!(head, "Content-Encoding: {encoding}\r\n");
    }
}

fn put_about(head: &mut Vec<u8>, opened: &Opened, caching: &str) {
    put_content(head, opened);
    let _ = write!(head, "Cache-Control: {caching}\r\nVary: Accept-Encoding\r\n");
}

fn with_body(status: u16, mut head: Vec<u8>, opened: Opened, part: Range<u64>, is_head: bool) -> Answer {
    let _ = write!(head, "Content-Length: {}\r\n", part.end - part.start);
    Answer { status, head, body: (!is_head).then_some((opened, part)) }
}

#[cfg(test)]
mod tests {
    use super::takes;

    #[test]
    fn a_coding_is_taken_when_it_is_named_with_a_weight() {
        assert!(takes(b"gzip, deflate, br;q=0.5", b"br"));
        assert!(takes(b"GZIP", b"gzip"));
        for list in [&b"br;q=0"[..], b"br; q=0.000", b"brotli", b"", b"*"] {
            assert!(!takes(list, b"br"));
        }
    }
}
