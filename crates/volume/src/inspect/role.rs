//! The process that looks.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::wire::{Line, Request};
use super::{backup, confine, content, query, schema};

/// Bytes of a request at most: the SQL of a person.
const REQUEST_MAX: u64 = 1 << 20;

/// Does what its arguments say (`content FOLDER`, `schema FOLDER`, `query FOLDER FILE`, `backup FROM TO`), tells what it finds on standard
/// output and returns the exit code. Options come as a line of JSON on standard input, which stays open: when it ends, the
/// process does.
pub fn look_into(arguments: impl Iterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.collect();
    let mut output = io::stdout().lock();
    let mut say = |line: Line| {
        serde_json::to_writer(&mut output, &line)?;
        output.write_all(b"\n")?;
        output.flush()
    };
    let outcome =
        read_request().map_err(|error| format!("cannot read the request: {error}")).and_then(|request| {
            confine::limit(request.low_priority).map_err(|error| format!("cannot limit itself: {error}"))?;
            confine::end_with_the_asker();
            act(&arguments, &request, &mut say)
        });
    let last = match outcome {
        Ok(()) => Line::Done,
        Err(reason) => Line::Failed { reason },
    };
    let is_done = matches!(last, Line::Done);
    u8::from(say(last).is_err() || !is_done)
}

fn read_request() -> io::Result<Request> {
    let mut line = String::new();
    io::Read::take(io::stdin().lock(), REQUEST_MAX).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn act(
    arguments: &[OsString],
    request: &Request,
    say: &mut dyn FnMut(Line) -> io::Result<()>,
) -> Result<(), String> {
    let words: Vec<&OsString> = arguments.iter().collect();
    let enter = |folder: &OsString| {
        confine::enter(Path::new(folder))
            .map_err(|error| format!("cannot enter {}: {error}", folder.display()))
    };
    match words[..] {
        [verb, folder] if verb == "content" => {
            enter(folder)?;
            content::all(&request.skip, say).map_err(|error| error.to_string())
        }
        [verb, folder] if verb == "schema" => {
            enter(folder)?;
            schema::all(say).map_err(|error| error.to_string())
        }
        [verb, folder, file] if verb == "query" => {
            enter(folder)?;
            let answer = query::run(&PathBuf::from(file), request)?;
            say(Line::Answer(answer)).map_err(|error| error.to_string())
        }
        [verb, from, to] if verb == "backup" => {
            backup::run(Path::new(from), Path::new(to), Duration::from_millis(request.patience_ms))
        }
        _ => Err(
            "`look-into` knows `content FOLDER`, `schema FOLDER`, `query FOLDER FILE` and `backup FROM TO`"
                .into(),
        ),
    }
}
