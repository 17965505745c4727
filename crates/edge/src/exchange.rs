//! One request and its answer between a client and a target: bytes pass as they come, through the worker's own buffer,
//! and are kept only while a peer does not take them.

use std::io::{IoSlice, Write};
use std::sync::Arc;
use std::task::{Context, Poll};

use trackbed_core::route::StreamFault;

use crate::body::Body;
use crate::buffers::{Kept, Scratch, read_size, with_scratch};
use crate::events::Events;
use crate::frames::Frames;
use crate::limits::{
    AT_ONCE, COLLECTED_AFTER, HEAD_BYTES_MAX, JOINED_BYTES_MAX, PIPELINED_BYTES_MAX, ROUNDS_MAX,
};
use crate::open_request::OpenRequest;
use crate::request::{Request, ends_head};
use crate::response::{Asked, Recoding, Response, read_response};
use crate::streams::OpenStream;
use crate::table::Routes;
use crate::tunnel::{Flow, Switched};
use crate::upstream::Upstream;
use crate::watch::Watch;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client has the whole answer.
    Answered {
        /// Whether the target's connection can take another request.
        reusable: bool,
        /// Whether the client may go on with its connection.
        keeps_client: bool,
        /// Whether the client has not sent all of its request.
        unread: bool,
    },
    /// The target speaks another protocol now, and the client has its word for it.
    Switched,
    /// The target closed before it answered.
    NoAnswer {
        /// Whether nothing of the request can have been done.
        untouched: bool,
    },
    /// What the target sent is no answer.
    BadAnswer,
    /// The chunks of the request are broken. Nothing has been answered.
    BadBody,
    /// The client has gone.
    ClientLeft,
    /// The answer was broken off; the client must see that.
    Broken {
        /// Whether it would take the end of its connection for the end of the answer.
        unnoticed: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Head,
    Body,
    Done,
    /// The target does not take the rest.
    Refused,
}

/// An event stream among the answers.
struct EventStream {
    open: Arc<OpenStream>,
    events: Events,
    began: std::time::Instant,
}

/// A request under way. Dropped before its end, it closes the connection to the target, which is how the target learns
/// that the client has left.
pub(crate) struct Exchange<'a> {
    routes: &'a Routes,
    watch: &'a Watch,
    upstream: &'a Arc<Upstream>,
    request: &'a Request,
    open: &'a mut OpenRequest,
    /// Bytes of the client that belong to this request's body, or to the next request.
    inbuf: &'a mut Vec<u8>,
    /// The request's head; given back when the answer is a stream, which needs it no more.
    head: &'a mut Vec<u8>,
    asking: Asking,
    body: Body,
    told_to_continue: bool,
    sent_any: bool,
    /// Whether a head of any answer has come.
    heard: bool,
    to_target: Kept,
    to_client: Kept,
    /// The beginning of the answer's head, when it came in pieces.
    partial: Vec<u8>,
    answer: Option<Response>,
    answered: bool,
    stream: Option<Box<EventStream>>,
    /// Set when the target has switched protocols.
    switched: Option<Arc<OpenStream>>,
    /// What the target said after that.
    greeting: Frames,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        routes: &'a Routes,
        watch: &'a Watch,
        upstream: &'a Arc<Upstream>,
        request: &'a Request,
        open: &'a mut OpenRequest,
        inbuf: &'a mut Vec<u8>,
        head: &'a mut Vec<u8>,
    ) -> Self {
        Self {
            routes,
            watch,
            upstream,
            request,
            open,
            inbuf,
            head,
            asking: Asking::Head,
            body: request.body.clone(),
            told_to_continue: !request.expects_continue,
            sent_any: false,
            heard: false,
            to_target: Kept::default(),
            to_client: Kept::default(),
            partial: Vec::new(),
            answer: None,
            answered: false,
            stream: None,
            switched: None,
            greeting: Frames::default(),
        }
    }

    /// Returns what a tunnel goes on with, when the target has switched protocols.
    pub(crate) fn into_switched(self) -> Option<Switched> {
        let Exchange { switched, greeting, to_client, to_target, .. } = self;
        let down = Flow::new(greeting, to_client);
        Some(Switched { open: switched?, down, up: Flow::new(Frames::default(), to_target) })
    }

    /// Moves bytes in both directions until the exchange has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.upstream.link.poll_cut(cx) && !self.answered {
            return Poll::Ready(self.cut_short());
        }
        with_scratch(|scratch| {
            for _ in 0..ROUNDS_MAX {
                if let Err(ended) = self.push_request(cx, scratch) {
                    return Poll::Ready(ended);
                }
                match self.pull_answer(cx, scratch) {
                    Ok(true) => {}
                    Ok(false) => return Poll::Pending,
                    Err(ended) => return Poll::Ready(ended),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Moves the request as far as the client has sent it and the target takes it.
    fn push_request(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<(), Ended> {
        if self.asking == Asking::Head {
            self.push_head(cx)?;
        }
        while self.asking == Asking::Body {
            match self.to_target.poll_flush(&self.upstream.link, cx) {
                // The target may never read on, and the client's end would go unseen behind what it has sent.
                Poll::Pending => return self.notice_end(cx),
                Poll::Ready(Err(_)) => self.asking = Asking::Refused,
                Poll::Ready(Ok(())) if self.body.is_done() => {
                    self.asking = Asking::Done;
                    if self.inbuf.is_empty() {
                        *self.inbuf = Vec::new();
                    }
                }
                Poll::Ready(Ok(())) => {
                    if !self.push_body(cx, scratch)? {
                        return Ok(());
                    }
                }
            }
        }
        match self.asking {
            Asking::Done => self.look_at_client(cx, scratch),
            Asking::Refused => self.notice_end(cx),
            Asking::Head | Asking::Body => Ok(()),
        }
    }

    /// Sends the head together with what has come of the body.
    fn push_head(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        // Until the first byte is written the request can still be sent elsewhere.
        let mut body = self.body.clone();
        let taken = body.take(self.inbuf, |_| {}).map_err(|_| Ended::BadBody)?;
        let (first, second) = taken.pieces(self.inbuf);
        let slices = [IoSlice::new(self.head), IoSlice::new(first), IoSlice::new(second)];
        let slices = if taken.count > 0 { &slices[..] } else { &slices[..1] };
        match self.to_target.write(&self.upstream.link, cx, slices) {
            Ok(written) => {
                self.sent_any = written > 0 || !self.to_target.is_empty();
                self.inbuf.drain(..taken.count);
                self.body = body;
                self.asking = Asking::Body;
                Ok(())
            }
            Err(_) => Err(Ended::NoAnswer { untouched: true }),
        }
    }

    /// Moves a piece of the body. Returns whether there may be another.
    fn push_body(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, Ended> {
        if !self.inbuf.is_empty() {
            let bytes = std::mem::take(self.inbuf);
            let taken = self.body.take(&bytes, |_| {}).map_err(|_| self.bad_body())?;
            self.inbuf.extend_from_slice(&bytes[taken.count..]);
            self.send_body(cx, taken.pieces(&bytes));
            return Ok(true);
        }
        if !self.told_to_continue && self.answer.is_none() {
            self.told_to_continue = true;
            let said = self.to_client.write(&self.watch.link, cx, &[IoSlice::new(CONTINUE)]);
            said.map_err(|_| Ended::ClientLeft)?;
        }
        let size = read_size();
        let count = match self.watch.link.poll_read(cx, &mut scratch.read[..size]) {
            Poll::Pending => {
                self.watch.note_body(true);
                return Ok(false);
            }
            Poll::Ready(Ok(0) | Err(_)) => return Err(Ended::ClientLeft),
            Poll::Ready(Ok(count)) => count,
        };
        self.watch.note_body(false);
        let bytes = &scratch.read[..count];
        let taken = self.body.take(bytes, |_| {}).map_err(|_| self.bad_body())?;
        self.inbuf.extend_from_slice(&bytes[taken.count..]);
        self.send_body(cx, taken.pieces(bytes));
        Ok(true)
    }

    fn send_body(&mut self, cx: &mut Context<'_>, (first, second): (&[u8], &[u8])) {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let slices = if second.is_empty() { &slices[..1] } else { &slices[..] };
        if self.to_target.write(&self.upstream.link, cx, slices).is_err() {
            // It may have answered before it closed.
            self.asking = Asking::Refused;
        }
    }

    /// A client that breaks its body while it is answered gets no end of that answer.
    fn bad_body(&self) -> Ended {
        if self.answer.is_none() { Ended::BadBody } else { Ended::ClientLeft }
    }

    fn notice_end(&self, cx: &mut Context<'_>) -> Result<(), Ended> {
        if self.watch.link.poll_closed(cx).is_ready() { Err(Ended::ClientLeft) } else { Ok(()) }
    }

    /// Notices that the client has left; takes what it sends ahead, within a limit.
    fn look_at_client(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<(), Ended> {
        loop {
            if self.inbuf.len() >= PIPELINED_BYTES_MAX {
                return self.notice_end(cx);
            }
            let space = PIPELINED_BYTES_MAX - self.inbuf.len();
            match self.watch.link.poll_read(cx, &mut scratch.read[..space]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0) | Err(_)) => return Err(Ended::ClientLeft),
                Poll::Ready(Ok(count)) => self.inbuf.extend_from_slice(&scratch.read[..count]),
            }
        }
    }

    /// Moves a piece of the answer. Returns whether there may be another.
    fn pull_answer(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, Ended> {
        let left = self.to_client.left();
        let flushed = self.to_client.poll_flush(&self.watch.link, cx);
        self.watch.note_progress(left, self.to_client.left());
        match flushed {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(_)) => return Err(Ended::ClientLeft),
            Poll::Ready(Ok(())) => {}
        }
        if self.answered {
            return Err(self.ended());
        }
        if self.end_politely(cx)? {
            return Ok(true);
        }
        let size = read_size();
        let count = match self.upstream.link.poll_read(cx, &mut scratch.read[..size]) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return self.end_with_connection(cx).map(|()| true),
            Poll::Ready(Err(_)) => return Err(self.cut_short()),
            Poll::Ready(Ok(count)) => count,
        };
        let Scratch { read, head } = scratch;
        match &mut self.answer {
            None => self.take_head(cx, &read[..count], head)?,
            Some(_) => {
                head.clear();
                self.pass_on(cx, head, &read[..count])?;
            }
        }
        if self.answered && self.to_client.is_empty() { Err(self.ended()) } else { Ok(true) }
    }

    /// The target has closed its side, which is the end of an answer without a length.
    fn end_with_connection(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        match &self.answer {
            Some(answer) if matches!(answer.body, Body::UntilClose) && !self.upstream.link.is_cut() => {
                let end = if answer.recoding == Recoding::IntoChunks { LAST_CHUNK } else { &[] };
                self.answered = true;
                self.say(cx, &[IoSlice::new(end)])
            }
            _ => Err(self.cut_short()),
        }
    }

    /// The target has gone in the middle.
    fn cut_short(&self) -> Ended {
        let Some(answer) = &self.answer else {
            let is_unheard = !self.heard && self.partial.is_empty() && !self.upstream.link.is_cut();
            let may_repeat = !self.sent_any || (self.upstream.is_used() && self.request.is_repeatable);
            return Ended::NoAnswer { untouched: is_unheard && may_repeat };
        };
        let unnoticed = self.request.is_http10 && !matches!(answer.body, Body::Length(_));
        Ended::Broken { unnoticed }
    }

    fn say(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Result<(), Ended> {
        self.to_client.write(&self.watch.link, cx, slices).map(drop).map_err(|_| Ended::ClientLeft)
    }

    /// Reads heads from the target until the final one, and passes it on with what has come of its body.
    fn take_head(&mut self, cx: &mut Context<'_>, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Ended> {
        let gathered;
        let mut rest = bytes;
        if !self.partial.is_empty() {
            // A head that comes in pieces is read when it is whole.
            let seen = self.partial.len().saturating_sub(3);
            self.partial.extend_from_slice(bytes);
            if !ends_head(&self.partial[seen..]) {
                return self.bound_partial();
            }
            gathered = std::mem::take(&mut self.partial);
            rest = &gathered;
        }
        loop {
            out.clear();
            let asked = Asked {
                is_head: self.request.is_head,
                is_http10: self.request.is_http10,
                keeps_alive: self.request.keeps_alive && !self.routes.is_closing() && self.body.is_done(),
                wants_upgrade: self.request.wants_upgrade,
                id: &self.head[self.request.id.clone()],
            };
            let Some(answer) = read_response(rest, &asked, out).map_err(|_| Ended::BadAnswer)? else {
                self.partial = rest.to_vec();
                return self.bound_partial();
            };
            self.heard = true;
            rest = &rest[answer.head_bytes..];
            match answer.status {
                101 if self.request.wants_upgrade => {
                    self.open.answer(answer.status);
                    // Before the client hears of it: whoever counts streams must find it.
                    self.switched = Some(self.open.become_stream(self.upstream, true));
                    self.say(cx, &[IoSlice::new(out)])?;
                    // What the target says in the new protocol follows at once.
                    self.greeting.feed(rest);
                    self.say(cx, &[IoSlice::new(rest)])?;
                    return Err(Ended::Switched);
                }
                101 => return Err(Ended::BadAnswer),
                // Said already, when the client waited for it.
                100 => {}
                102..200 if self.request.is_http10 => {}
                102..200 => self.say(cx, &[IoSlice::new(out)])?,
                _ => return self.begin_answer(cx, answer, out, rest),
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn bound_partial(&self) -> Result<(), Ended> {
        if self.partial.len() >= HEAD_BYTES_MAX { Err(Ended::BadAnswer) } else { Ok(()) }
    }

    fn begin_answer(
        &mut self,
        cx: &mut Context<'_>,
        answer: Response,
        head: &mut Vec<u8>,
        rest: &[u8],
    ) -> Result<(), Ended> {
        self.open.answer(answer.status);
        if answer.is_event_stream {
            self.begin_stream(&answer);
        }
        self.answered = answer.body.is_done();
        self.answer = Some(answer);
        self.pass_on(cx, head, rest)
    }

    fn begin_stream(&mut self, answer: &Response) {
        let path = String::from_utf8_lossy(&self.head[self.request.path.clone()]).into_owned();
        if answer.is_compressed {
            self.open.notice(StreamFault::Compressed, &path);
        }
        if matches!(answer.body, Body::Length(1..)) {
            self.open.notice(StreamFault::Sized, &path);
        }
        let open = self.open.become_stream(self.upstream, false);
        let began = std::time::Instant::now();
        self.stream = Some(Box::new(EventStream { open, events: Events::default(), began }));
        // It may be quiet for hours: what is not needed any more is given back.
        if self.asking == Asking::Done {
            self.inbuf.shrink_to_fit();
            self.head.truncate(self.request.path.end);
            self.head.shrink_to_fit();
        }
    }

    /// Passes on bytes of the body, behind what `head` holds.
    fn pass_on(&mut self, cx: &mut Context<'_>, head: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Ended> {
        let Some(answer) = &mut self.answer else { return Ok(()) };
        let mut plain = Vec::new();
        let recoding = answer.recoding;
        let mut stream = self.stream.as_mut();
        let taken = answer.body.take(bytes, |content| {
            if let Some(stream) = &mut stream {
                stream.open.touch();
                stream.events.feed(content);
            }
            if recoding == Recoding::OutOfChunks {
                plain.extend_from_slice(content);
            }
        });
        let Ok(taken) = taken else { return Err(self.cut_short()) };
        let (content, behind) = taken.pieces(bytes);
        // Bytes behind the end are nobody's answer.
        answer.reusable &= taken.count == bytes.len();
        self.answered = answer.body.is_done();
        let (content, mut end) =
            if recoding == Recoding::OutOfChunks { (&plain[..], &[][..]) } else { (content, behind) };
        if recoding == Recoding::IntoChunks && !content.is_empty() {
            // Writing into a vector cannot fail.
            let _ = write!(head, "{:x}\r\n", content.len());
            end = b"\r\n";
        }
        if head.is_empty() && end.is_empty() {
            return self.say(cx, &[IoSlice::new(content)]);
        }
        if content.len() <= JOINED_BYTES_MAX {
            head.extend_from_slice(content);
            head.extend_from_slice(end);
            return self.say(cx, &[IoSlice::new(head)]);
        }
        self.say(cx, &[IoSlice::new(head), IoSlice::new(content), IoSlice::new(end)])
    }

    /// Ends an event stream that was asked to end, if it stands between two events. Returns whether it did.
    fn end_politely(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let (Some(stream), Some(answer)) = (&self.stream, &mut self.answer) else { return Ok(false) };
        stream.open.register(cx.waker());
        let Some(retry_ms) = stream.open.asked_to_end() else { return Ok(false) };
        let may_end = match (&answer.body, answer.recoding) {
            (Body::Chunked(chunks), _) => chunks.is_between_chunks(),
            (Body::UntilClose, _) => true,
            // Its length is promised.
            (Body::Length(_), _) => false,
        };
        // What is compressed cannot be looked into.
        if !may_end || !(answer.is_compressed || stream.events.is_between_events()) {
            return Ok(false);
        }
        // Behind a compressor nothing can be added.
        let hint = if answer.is_compressed { String::new() } else { format!("retry: {retry_ms}\n\n") };
        let is_chunked = !self.request.is_http10;
        let text = match (is_chunked, hint.is_empty()) {
            (true, true) => String::from_utf8_lossy(LAST_CHUNK).into_owned(),
            (true, false) => format!("{:x}\r\n{hint}\r\n0\r\n\r\n", hint.len()),
            (false, _) => hint,
        };
        answer.reusable = false;
        self.answered = true;
        self.say(cx, &[IoSlice::new(text.as_bytes())])?;
        Ok(true)
    }

    fn ended(&mut self) -> Ended {
        if let Some(stream) = &self.stream {
            let collected = stream.began.saturating_duration_since(self.open.entered()) >= COLLECTED_AFTER
                && stream.began.elapsed() <= AT_ONCE
                && stream.events.count_ends() > 1;
            if collected {
                let path = String::from_utf8_lossy(&self.head[self.request.path.clone()]).into_owned();
                self.open.notice(StreamFault::Buffered, &path);
            }
        }
        let unread = self.asking != Asking::Done;
        let (reusable, keeps) = self.answer.as_ref().map_or((false, false), |a| (a.reusable, a.keeps_alive));
        Ended::Answered { reusable: reusable && !unread, keeps_client: keeps && !unread, unread }
    }
}
