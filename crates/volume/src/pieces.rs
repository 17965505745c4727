//! Reading a file in pieces of a chunk, with a quick sum of each, without reading its holes. A large file is read by two
//! threads, ahead of whoever takes the pieces.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, scope};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::chunk_store::{CHUNK_BYTES, StoreError, is_zero};

/// Read with one call: enough that the calls cost nothing, little enough to stay in the processor's cache.
const READ_BYTES: usize = 16 * CHUNK_BYTES;
const CHUNK: u64 = CHUNK_BYTES as u64;
/// From this size on threads are worth their start.
const THREADS_FROM_BYTES: u64 = 4 * 1024 * 1024;
/// Threads that read a file. Copying and summing is all that has to be done with what did not change.
const READERS: usize = 2;
/// Blocks that are read ahead: 2 MiB of memory for each file, and one is read at a time.
const BLOCKS_MAX: usize = 8;

/// A file's piece: none when all of its bytes are zero.
pub(crate) type Piece<'a> = Option<Summed<'a>>;

/// Bytes, at most a chunk of them, and their quick sum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summed<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) sum: u128,
}

/// Why a file could not be read to its end.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file refuses.
    File(io::Error),
    /// What takes the pieces refuses.
    Store(StoreError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A file to read: up to `size` bytes, or its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a File,
    pub(crate) size: u64,
    /// What it takes on disk: less than its size means that it may have holes.
    pub(crate) allocated: u64,
}

/// Reads a file piece by piece and returns how many bytes there were. `buffer` is reused.
pub(crate) fn read_pieces(
    source: Source<'_>,
    buffer: &mut Block,
    sum: impl Fn(&[u8]) -> u128 + Sync,
    mut each: impl FnMut(Piece<'_>) -> Result<(), StoreError>,
) -> Result<u64, ReadError> {
    let mut plan = Plan::new(source);
    if source.size >= THREADS_FROM_BYTES {
        return scope(|scope| read_ahead(scope, source.file, plan, &sum, each));
    }
    while let Some(step) = plan.next()? {
        match step {
            Step::Hole(chunks) => (0..chunks).try_for_each(|_| each(None))?,
            Step::Data { at, bytes } => {
                buffer.is_to_hold(at, bytes);
                buffer.fill(source.file, &sum)?;
                buffer.pieces().try_for_each(&mut each)?;
                if buffer.is_short() {
                    return Ok(buffer.end());
                }
            }
        }
    }
    Ok(source.size)
}

fn read_ahead<'scope>(
    scope: &'scope Scope<'scope, '_>,
    file: &'scope File,
    mut plan: Plan<'_>,
    sum: &'scope (impl Fn(&[u8]) -> u128 + Sync),
    mut each: impl FnMut(Piece<'_>) -> Result<(), StoreError>,
) -> Result<u64, ReadError> {
    let ended = || StoreError::Refused("a thread that reads the volume died".to_owned());
    let readers = (0..READERS).map(|_| Reader::start(scope, file, sum)).collect::<Result<Vec<_>, _>>()?;
    let mut free = vec![Block::default(); BLOCKS_MAX];
    let mut under_way = VecDeque::new();
    let mut turns = (0..READERS).cycle();
    loop {
        while let Some(mut block) = free.pop() {
            match plan.next()? {
                None => break,
                Some(Step::Hole(chunks)) => {
                    under_way.push_back(UnderWay::Hole(chunks));
                    free.push(block);
                }
                Some(Step::Data { at, bytes }) => {
                    let reader = turns.next().unwrap_or(0);
                    block.is_to_hold(at, bytes);
                    readers[reader].empty.send(block).map_err(|_| ended())?;
                    under_way.push_back(UnderWay::Block(reader));
                }
            }
        }
        match under_way.pop_front() {
            None => return Ok(plan.size),
            Some(UnderWay::Hole(chunks)) => (0..chunks).try_for_each(|_| each(None))?,
            Some(UnderWay::Block(reader)) => {
                let block = readers[reader].filled.recv().map_err(|_| ended())??;
                block.pieces().try_for_each(&mut each)?;
                if block.is_short() {
                    return Ok(block.end());
                }
                free.push(block);
            }
        }
    }
}

/// What comes next, in the order of the file.
enum UnderWay {
    Hole(u64),
    /// The next block of this reader.
    Block(usize),
}

/// A thread that fills blocks, in the order in which it gets them. It ends with this.
struct Reader {
    empty: SyncSender<Block>,
    filled: Receiver<io::Result<Block>>,
}

impl Reader {
    fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        file: &'scope File,
        sum: &'scope (impl Fn(&[u8]) -> u128 + Sync),
    ) -> Result<Self, StoreError> {
        let (empty, to_fill) = sync_channel::<Block>(BLOCKS_MAX);
        let (done, filled) = sync_channel(BLOCKS_MAX);
        // It has the priority of whoever starts it.
        let started = Builder::new().name("volume".to_owned()).spawn_scoped(scope, move || {
            for mut block in to_fill {
                let read = block.fill(file, sum).map(|()| block);
                if done.send(read).is_err() {
                    break;
                }
            }
        });
        started.map_err(|error| StoreError::Refused(format!("cannot start a thread: {error}")))?;
        Ok(Self { empty, filled })
    }
}

/// Room for bytes that are read with one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    at: u64,
    wanted: usize,
    bytes: Vec<u8>,
    /// Of each piece; none where all is zero.
    sums: Vec<Option<u128>>,
}

impl Block {
    fn is_to_hold(&mut self, at: u64, bytes: usize) {
        (self.at, self.wanted) = (at, bytes);
    }

    fn fill(&mut self, file: &File, sum: &impl Fn(&[u8]) -> u128) -> io::Result<()> {
        self.bytes.resize(self.wanted, 0);
        let read = read_full(file, &mut self.bytes, self.at)?;
        self.bytes.truncate(read);
        self.sums.clear();
        let sums =
            self.bytes.chunks(CHUNK_BYTES).map(|piece| Some(piece).filter(|piece| !is_zero(piece)).map(sum));
        self.sums.extend(sums);
        Ok(())
    }

    fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let pieces = self.bytes.chunks(CHUNK_BYTES).zip(&self.sums);
        pieces.map(|(bytes, sum)| sum.map(|sum| Summed { bytes, sum }))
    }

    /// Returns whether the file has ended before all was read.
    fn is_short(&self) -> bool {
        self.bytes.len() < self.wanted
    }

    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

/// What is to be read of a file, in order.
struct Plan<'a> {
    file: &'a File,
    size: u64,
    at: u64,
    /// Up to where there is no hole.
    data_end: u64,
}

enum Step {
    /// Chunks that are zero.
    Hole(u64),
    Data {
        at: u64,
        bytes: usize,
    },
}

impl<'a> Plan<'a> {
    fn new(Source { file, size, allocated }: Source<'a>) -> Self {
        Self { file, size, at: 0, data_end: if allocated < size { 0 } else { size } }
    }

    fn next(&mut self) -> io::Result<Option<Step>> {
        if self.at >= self.size {
            return Ok(None);
        }
        if self.at >= self.data_end {
            let (begin, end) = next_data(self.file, self.at, self.size)?;
            self.data_end = end;
            if begin > self.at {
                let chunks = (begin - self.at).div_ceil(CHUNK);
                self.at += chunks * CHUNK;
                return Ok(Some(Step::Hole(chunks)));
            }
        }
        let (at, left) = (self.at, self.data_end.min(self.size) - self.at);
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES);
        self.at += bytes as u64;
        Ok(Some(Step::Data { at, bytes }))
    }
}

/// Returns where the next chunk with data begins, and where the data after it ends; both at a chunk's edge.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        // Nothing but a hole, to the end; or a file system that knows no holes.
        Err(Errno::NXIO) => return Ok((size.next_multiple_of(CHUNK), size)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, size)),
        Err(error) => return Err(error.into()),
    };
    let end = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
        Ok(end) => end.next_multiple_of(CHUNK),
        Err(_) => size,
    };
    Ok((data / CHUNK * CHUNK, end))
}

fn read_full(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
