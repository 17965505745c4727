//! Looks in a source for what usually keeps its event streams from arriving one event at a time. Reads, never runs.

use std::path::Path;

use trackbed_core::ports::Suspect;
use trackbed_core::route::StreamFault;

use crate::python::code::{self, PythonFile};

/// Places that are told; more would not be read.
const TOLD_MAX: usize = 3;

/// Something in the code that is known to cause faults.
struct Known {
    /// What stands in the code, spaces left out.
    sign: &'static str,
    /// What must stand on the same line, too.
    with: &'static str,
    /// What must not.
    without: &'static str,
    faults: &'static [StreamFault],
    mend: &'static str,
}

const GZIP_MEND: &str = "let it leave `text/event-stream` alone (Starlette's own does in newer versions: upgrade starlette), or take it out";
const ASGI_MEND: &str = "write it as a pure ASGI middleware (`async def __call__(self, scope, receive, send)`), which passes each part on";
const STREAM_MEND: &str =
    "return a StreamingResponse, or an EventSourceResponse of sse-starlette, over a generator";

const KNOWN: [Known; 8] = [
    known("GZipMiddleware", &[StreamFault::Compressed, StreamFault::Buffered], GZIP_MEND),
    known("BrotliMiddleware", &[StreamFault::Compressed, StreamFault::Buffered], GZIP_MEND),
    known("CompressMiddleware", &[StreamFault::Compressed, StreamFault::Buffered], GZIP_MEND),
    known(
        "flask_compress",
        &[StreamFault::Compressed, StreamFault::Buffered],
        "keep `text/event-stream` out of COMPRESS_MIMETYPES, and set COMPRESS_STREAMS = False",
    ),
    known("BaseHTTPMiddleware", &[StreamFault::Buffered, StreamFault::Sized], ASGI_MEND),
    known(".middleware(\"http\")", &[StreamFault::Buffered, StreamFault::Sized], ASGI_MEND),
    known(".middleware('http')", &[StreamFault::Buffered, StreamFault::Sized], ASGI_MEND),
    Known {
        sign: "text/event-stream",
        with: "Response(",
        without: "StreamingResponse(",
        faults: &[StreamFault::Sized],
        mend: STREAM_MEND,
    },
];

const fn known(sign: &'static str, faults: &'static [StreamFault], mend: &'static str) -> Known {
    Known { sign, with: "", without: "\n", faults, mend }
}

/// Finds what may cause a fault, in order of path and line; imports count only where nothing else is found.
pub(crate) fn find(folder: &Path, fault: StreamFault) -> Vec<Suspect> {
    find_in(&code::files(folder), fault)
}

fn find_in(files: &[PythonFile], fault: StreamFault) -> Vec<Suspect> {
    let (mut used, mut imported) = (Vec::new(), Vec::new());
    for file in files {
        for (number, line) in (1u32..).zip(file.code.lines()) {
            let plain: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            let fits = |known: &&Known| {
                known.faults.contains(&fault)
                    && plain.contains(known.sign)
                    && plain.contains(known.with)
                    && !plain.contains(known.without)
            };
            let Some(known) = KNOWN.iter().find(fits) else { continue };
            let suspect = Suspect {
                place: format!("{}:{number}", file.path),
                what: line.trim().to_owned(),
                mend: known.mend.to_owned(),
            };
            let is_import =
                line.trim_start().starts_with("from ") || line.trim_start().starts_with("import ");
            if is_import { &mut imported } else { &mut used }.push(suspect);
        }
    }
    let mut found = if used.is_empty() { imported } else { used };
    found.truncate(TOLD_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(code: &str, fault: StreamFault) -> Vec<String> {
        let file = PythonFile { path: "main.py".into(), code: code::blank(code) };
        find_in(&[file], fault).into_iter().map(|suspect| suspect.place).collect()
    }

    #[test]
    fn the_line_that_uses_a_middleware_is_named_before_its_import() {
        let code =
            "from starlette.middleware.gzip import GZipMiddleware\napp.add_middleware( GZipMiddleware )\n";
        assert_eq!(places(code, StreamFault::Compressed), ["main.py:2"]);
        assert_eq!(places(code, StreamFault::Buffered), ["main.py:2"]);
        assert_eq!(places(code, StreamFault::Sized), Vec::<String>::new());
        assert_eq!(places("from flask_compress import Compress\n", StreamFault::Compressed), ["main.py:1"]);
    }

    #[test]
    fn what_collects_a_stream_is_found() {
        let code =
            "# @app.middleware(\"http\")\n@app.middleware( 'http' )\nasync def log(request, call_next):\n";
        assert_eq!(places(code, StreamFault::Buffered), ["main.py:2"]);
        let code = "return Response(all, media_type='text/event-stream')\n\
                    return StreamingResponse(some(), media_type='text/event-stream')\n";
        assert_eq!(places(code, StreamFault::Sized), ["main.py:1"]);
    }
}
