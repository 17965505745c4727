//! A box that is not real: answers on a socket what a test tells it to, and remembers what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::args::{Invocation, parse_from};
use crate::commands;
use crate::input::Input;
use crate::output::Output;
use crate::session::Session;
use crate::tests::Scratch;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and path: `GET /v1/box`.
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its end.
    pub(crate) whole: bool,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An answer: status and body.
pub(crate) type Answer = (u16, String);

/// The box, its data folder, and an app to deploy.
pub(crate) struct FakeBox {
    pub(crate) data: Scratch,
    pub(crate) app: Scratch,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) result: String,
    pub(crate) talk: String,
}

impl Ran {
    /// The results as JSON, one object a line.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.result.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl FakeBox {
    /// Starts a box that answers by `answer`. Its thread lives as long as the test process.
    pub(crate) fn start(answer: impl Fn(&str, &Asked) -> Answer + Send + Sync + 'static) -> Self {
        let fake = Self::absent();
        trackbed_stdx::paths::ensure_run_dir(fake.data.path()).unwrap();
        let listener = UnixListener::bind(trackbed_stdx::paths::api_socket(fake.data.path())).unwrap();
        let (asked, answer) = (Arc::clone(&fake.asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream.unwrap(), &asked, &*answer));
            }
        });
        fake
    }

    /// A box that does not run.
    pub(crate) fn absent() -> Self {
        let app = Scratch::with(&[("demo/main.py", "print(1)\n"), ("demo/.env", "A=1\n")]);
        Self { data: Scratch::with(&[]), app, asked: Arc::default() }
    }

    /// What it was asked, without the log and event polls that depend on timing.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| !asked.line.contains("/log?")).cloned().collect()
    }

    /// Runs a command line in the app's folder.
    pub(crate) async fn run(&self, line: &[&str]) -> Ran {
        let (result, talk) = (Buffer::default(), Buffer::default());
        self.run_into(line, Output::to(result.clone(), talk.clone())).await.ran(&result, &talk)
    }

    /// Runs a command line that is given this to read.
    pub(crate) async fn run_with(&self, line: &[&str], input: &str) -> Ran {
        let (result, talk) = (Buffer::default(), Buffer::default());
        let output = Output::to(result.clone(), talk.clone());
        self.run_in(line, output, Input::of(input)).await.ran(&result, &talk)
    }

    /// Runs a command line and prints elsewhere.
    pub(crate) async fn run_into(&self, line: &[&str], output: Output) -> Code {
        self.run_in(line, output, Input::of("")).await
    }

    async fn run_in(&self, line: &[&str], output: Output, input: Input) -> Code {
        let words = std::iter::once("trackbed").chain(line.iter().copied()).map(Into::into);
        let Invocation::Command(command) = parse_from(words).unwrap() else {
            panic!("{line:?} is no command")
        };
        let folder = self.app.path().join("demo");
        let data_dir = self.data.path().to_owned();
        let session = Session { cache_dir: Some(data_dir.join("cache")), data_dir, folder, output, input };
        Code(commands::run(&session, command.verb).await)
    }
}

/// An exit code.
pub(crate) struct Code(pub(crate) u8);

impl Code {
    fn ran(self, result: &Buffer, talk: &Buffer) -> Ran {
        Ran { code: self.0, result: result.text(), talk: talk.text() }
    }
}

/// Shared memory to print into.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn serve(stream: &UnixStream, asked: &Mutex<Vec<Asked>>, answer: &dyn Fn(&str, &Asked) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = read_request(&mut reader) else { return };
    asked.lock().unwrap().push(request.clone());
    if !request.whole {
        return;
    }
    let (status, body) = answer(&request.line, &request);
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = stream;
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let line = read_line(reader)?;
    let line = line.strip_suffix(" HTTP/1.1")?.to_owned();
    let (mut length, mut chunked) = (0, false);
    loop {
        let header = read_line(reader)?.to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("transfer-encoding", "chunked")) => chunked = true,
            None if header.is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut whole = true;
    while chunked {
        let Some(size) = read_line(reader).and_then(|size| usize::from_str_radix(&size, 16).ok()) else {
            whole = false;
            break;
        };
        let mut chunk = vec![0; size + 2];
        if reader.read_exact(&mut chunk).is_err() {
            whole = false;
            break;
        }
        body.extend_from_slice(&chunk[..size]);
        chunked = size > 0;
    }
    Some(Asked { line, body, whole })
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.strip_suffix("\r\n").map(str::to_owned)
}
