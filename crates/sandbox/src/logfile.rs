//! The log of an instance: text lines in files named by the offset of their first byte, so that a place in the log
//! stays valid across rotation and nobody ever renames a file that somebody reads.
//!
//! A line is `<ms> <o|e|s> <text>`, or `<ms> <o|e>:<process> <text>` where there are several processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use trackbed_core::Timestamp;
use trackbed_core::instance::{LogCursor, LogLine, LogPage, LogStream};

/// Bytes in a file before the next one is begun.
const FILE_LIMIT_BYTES: u64 = 10 << 20;
/// Files kept.
const FILES_KEPT: usize = 5;
/// Longest line; longer ones are split.
pub(crate) const LINE_LIMIT_BYTES: usize = 16 << 10;
/// Bytes collected before they are written.
const BATCH_BYTES: usize = 32 << 10;

/// Writes a log. Never fails and never waits: what cannot be written is counted and told later.
pub(crate) struct LogWriter {
    folder: PathBuf,
    file: Option<File>,
    base: u64,
    length: u64,
    batch: Vec<u8>,
    batch_lines: u64,
    dropped_lines: u64,
}

impl LogWriter {
    /// Begins the log of a new instance.
    pub(crate) fn create(folder: &Path) -> LogWriter {
        let file = new_file(folder, 0).ok();
        LogWriter {
            folder: folder.to_owned(),
            file,
            base: 0,
            length: 0,
            batch: Vec::new(),
            batch_lines: 0,
            dropped_lines: 0,
        }
    }

    /// Adds a line of the supervisor or of an app with one process. It is on disk after the next [`LogWriter::flush`].
    pub(crate) fn line(&mut self, now_ms: i64, stream: LogStream, text: &[u8]) {
        self.line_of(now_ms, stream, None, text);
    }

    /// Adds a line of a process. Its name holds no white space.
    fn line_of(&mut self, now_ms: i64, stream: LogStream, process: Option<&str>, text: &[u8]) {
        let mark = match stream {
            LogStream::Out => 'o',
            LogStream::Err => 'e',
            LogStream::System => 's',
        };
        let _ = match process {
            Some(process) => write!(self.batch, "{now_ms} {mark}:{process} "),
            None => write!(self.batch, "{now_ms} {mark} "),
        };
        self.batch.extend_from_slice(text);
        self.batch.push(b'\n');
        self.batch_lines += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.write_batch(now_ms);
        }
    }

    /// Writes what has been collected.
    pub(crate) fn flush(&mut self, now_ms: i64) {
        if !self.batch.is_empty() {
            self.write_batch(now_ms);
        }
    }

    fn write_batch(&mut self, now_ms: i64) {
        if self.length >= FILE_LIMIT_BYTES {
            self.rotate();
        }
        if self.dropped_lines > 0 {
            let mut notice =
                format!("{now_ms} s {} log lines were dropped: the disk refused them\n", self.dropped_lines)
                    .into_bytes();
            notice.append(&mut self.batch);
            self.batch = notice;
        }
        if self.try_write() {
            self.dropped_lines = 0;
        } else {
            self.dropped_lines += self.batch_lines;
        }
        self.batch.clear();
        self.batch_lines = 0;
    }

    fn try_write(&mut self) -> bool {
        if self.file.is_none() {
            self.file = new_file(&self.folder, self.base + self.length).ok();
            self.base += self.length;
            self.length = 0;
        }
        let Some(file) = &mut self.file else { return false };
        if file.write_all(&self.batch).is_ok() {
            self.length += self.batch.len() as u64;
            return true;
        }
        // Half a batch must not stay: offsets would be wrong, and the last line torn.
        let _ = file.set_len(self.length);
        false
    }

    fn rotate(&mut self) {
        let base = self.base + self.length;
        let Ok(file) = new_file(&self.folder, base) else { return };
        self.file = Some(file);
        self.base = base;
        self.length = 0;
        let files = list(&self.folder);
        for (_, path) in files.iter().take(files.len().saturating_sub(FILES_KEPT)) {
            let _ = fs::remove_file(path);
        }
    }
}

fn new_file(folder: &Path, base: u64) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(format!("{base:020}")))
}

/// Returns the files of a log with the offsets of their first bytes, oldest first.
fn list(folder: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    files.sort();
    files
}

/// Reads whole lines from a place on, at most `limit`.
pub(crate) fn read(folder: &Path, from: LogCursor, limit: usize) -> io::Result<LogPage> {
    let files = list(folder);
    let mut lines = Vec::new();
    let mut next = from.0.max(files.first().map_or(0, |(base, _)| *base));
    let first = files.partition_point(|(base, _)| *base <= next).saturating_sub(1);
    for (index, (base, path)) in files.iter().enumerate().skip(first) {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        next = next.max(*base);
        file.seek(SeekFrom::Start(next - base))?;
        let mut reader = BufReader::new(file);
        let mut raw = Vec::new();
        while lines.len() < limit {
            raw.clear();
            reader.read_until(b'\n', &mut raw)?;
            if raw.last() != Some(&b'\n') {
                break;
            }
            next += raw.len() as u64;
            lines.extend(parse(&raw[..raw.len() - 1]));
        }
        if lines.len() >= limit || index + 1 == files.len() {
            break;
        }
    }
    Ok(LogPage { lines, next: LogCursor(next) })
}

fn parse(raw: &[u8]) -> Option<LogLine> {
    let text = String::from_utf8_lossy(raw);
    let mut parts = text.splitn(3, ' ');
    let at = Timestamp(parts.next()?.parse().ok()?);
    let mark = parts.next()?;
    let (mark, process) =
        mark.split_once(':').map_or((mark, None), |(mark, process)| (mark, Some(process.to_owned())));
    let stream = match mark {
        "o" => LogStream::Out,
        "e" => LogStream::Err,
        "s" => LogStream::System,
        _ => return None,
    };
    Some(LogLine { at, stream, process, text: parts.next()?.to_owned() })
}

/// Cuts a stream of bytes into lines.
pub(crate) struct LineCutter {
    stream: LogStream,
    process: Option<String>,
    rest: Vec<u8>,
}

impl LineCutter {
    /// Makes one for a stream of an app, or of one of its processes.
    pub(crate) fn new(stream: LogStream, process: Option<String>) -> LineCutter {
        LineCutter { stream, process, rest: Vec::new() }
    }

    /// Takes what was read and hands whole lines on.
    pub(crate) fn feed(&mut self, now_ms: i64, mut bytes: &[u8], log: &mut LogWriter) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.take(now_ms, &bytes[..end], log);
            log.line_of(
                now_ms,
                self.stream,
                self.process.as_deref(),
                self.rest.strip_suffix(b"\r").unwrap_or(&self.rest),
            );
            self.rest.clear();
            bytes = &bytes[end + 1..];
        }
        self.take(now_ms, bytes, log);
    }

    fn take(&mut self, now_ms: i64, mut bytes: &[u8], log: &mut LogWriter) {
        while self.rest.len() + bytes.len() > LINE_LIMIT_BYTES {
            let (head, tail) = bytes.split_at(LINE_LIMIT_BYTES - self.rest.len());
            self.rest.extend_from_slice(head);
            log.line_of(now_ms, self.stream, self.process.as_deref(), &self.rest);
            self.rest.clear();
            bytes = tail;
        }
        self.rest.extend_from_slice(bytes);
    }

    /// Hands on what is left without a line end.
    pub(crate) fn finish(&mut self, now_ms: i64, log: &mut LogWriter) {
        if !self.rest.is_empty() {
            log.line_of(now_ms, self.stream, self.process.as_deref(), &self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("trackbed-log-{:x?}", trackbed_stdx::random::bytes::<6>()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_place_in_the_log_survives_rotation() {
        let folder = scratch();
        let mut log = LogWriter::create(&folder);
        log.line(1, LogStream::Out, b"first");
        log.flush(1);
        let page = read(&folder, LogCursor::START, 10).unwrap();
        assert_eq!(page.lines[0].text, "first");
        log.length = FILE_LIMIT_BYTES;
        // A file that claims to be full: the next one starts at its claimed end.
        log.file.as_ref().unwrap().set_len(0).unwrap();
        log.line(2, LogStream::Err, b"second");
        log.flush(2);
        let page = read(&folder, page.next, 10).unwrap();
        assert_eq!(page.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["second"]);
        assert!(read(&folder, page.next, 10).unwrap().lines.is_empty());
        trackbed_stdx::files::remove_tree(&folder).unwrap();
    }

    #[test]
    fn a_line_of_one_process_of_several_has_its_name() {
        let folder = scratch();
        let mut log = LogWriter::create(&folder);
        for process in [None, Some("worker.1".to_owned())] {
            let mut cutter = LineCutter::new(LogStream::Err, process);
            cutter.feed(1, b"e:x y z\n", &mut log);
        }
        log.flush(1);
        let lines = read(&folder, LogCursor::START, 10).unwrap().lines;
        let seen: Vec<_> = lines.iter().map(|line| (line.process.as_deref(), line.text.as_str())).collect();
        assert_eq!(seen, [(None, "e:x y z"), (Some("worker.1"), "e:x y z")]);
        assert!(lines.iter().all(|line| line.stream == LogStream::Err));
        trackbed_stdx::files::remove_tree(&folder).unwrap();
    }

    #[test]
    fn long_lines_are_split_and_the_last_one_needs_no_end() {
        let folder = scratch();
        let mut log = LogWriter::create(&folder);
        let mut cutter = LineCutter::new(LogStream::Out, None);
        cutter.feed(1, &vec![b'x'; LINE_LIMIT_BYTES + 10], &mut log);
        cutter.feed(1, b"\ny", &mut log);
        cutter.finish(1, &mut log);
        log.flush(1);
        let lengths: Vec<usize> =
            read(&folder, LogCursor::START, 10).unwrap().lines.iter().map(|line| line.text.len()).collect();
        assert_eq!(lengths, [LINE_LIMIT_BYTES, 10, 1]);
        trackbed_stdx::files::remove_tree(&folder).unwrap();
    }
}
