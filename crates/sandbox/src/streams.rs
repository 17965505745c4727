//! What the processes of an instance write, on its way into the log: a pipe for each stream of each.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};
use trackbed_core::instance::LogStream;
use trackbed_core::process::Formation;

use crate::logfile::{LineCutter, LogWriter};

/// Bytes read from a stream before others get their turn.
pub(crate) const CHUNK_BYTES: usize = 32 << 10;

/// The streams of all processes of an instance.
pub(crate) struct Streams {
    all: Vec<Stream>,
}

struct Stream {
    /// None once its other end is closed.
    pipe: Option<OwnedFd>,
    cutter: LineCutter,
}

impl Streams {
    /// Takes the pipes of the main process and of those beside it, in the order of the formation.
    pub(crate) fn of(formation: &Formation, pipes: Vec<[OwnedFd; 2]>) -> Streams {
        let is_alone = formation.beside.is_empty();
        let main = (!is_alone).then(|| formation.main.to_string());
        let names = std::iter::once(main).chain(formation.beside.iter().map(|side| Some(side.name.clone())));
        let of_one = |([out, err], name): ([OwnedFd; 2], Option<String>)| {
            let both = [(out, LogStream::Out, name.clone()), (err, LogStream::Err, name)];
            both.map(|(pipe, stream, name)| Stream {
                pipe: Some(pipe),
                cutter: LineCutter::new(stream, name),
            })
        };
        Streams { all: pipes.into_iter().zip(names).flat_map(of_one).collect() }
    }

    /// Adds those that are open to what is waited for. Returns their places in it.
    pub(crate) fn watch<'fds>(&'fds self, fds: &mut Vec<PollFd<'fds>>) -> Vec<Option<usize>> {
        let place = |stream: &'fds Stream| {
            let pipe = stream.pipe.as_ref()?;
            fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            Some(fds.len() - 1)
        };
        self.all.iter().map(place).collect()
    }

    /// Reads at most one chunk of each of some. Returns whether there was anything.
    pub(crate) fn read(
        &mut self,
        is_wanted: impl Fn(usize) -> bool,
        buffer: &mut [u8],
        now_ms: i64,
        log: &mut LogWriter,
    ) -> bool {
        let mut any = false;
        for (_, stream) in self.all.iter_mut().enumerate().filter(|(index, _)| is_wanted(*index)) {
            let Some(pipe) = &stream.pipe else { continue };
            match nix::unistd::read(pipe, buffer) {
                Ok(0) => stream.pipe = None,
                Ok(length) => {
                    stream.cutter.feed(now_ms, &buffer[..length], log);
                    any = true;
                }
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                Err(_) => stream.pipe = None,
            }
        }
        any
    }

    /// Hands on what is left without a line end.
    pub(crate) fn finish(&mut self, now_ms: i64, log: &mut LogWriter) {
        for stream in &mut self.all {
            stream.cutter.finish(now_ms, log);
        }
    }
}
