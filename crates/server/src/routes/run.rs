//! Running a command inside the live instance of a service, its output streamed back line by line.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;
use trackbed_api::{RunEvent, RunRequest};
use trackbed_control::ControlError;
use trackbed_core::instance::{Exit, LogStream};
use trackbed_core::ports::BuildLog;

use crate::api::Api;
use crate::convert;
use crate::error::{ApiError, chain};
use crate::given::Given;

/// Lines that wait for the caller. A command that writes faster than its caller reads is held back.
const LINES_WAITING_MAX: usize = 20_000;
/// Places kept free for lines that were read before the sink was found full: a read gives at most 4096 of each stream.
const LINES_RESERVED: usize = 10_000;

struct Sink {
    lines: mpsc::Sender<RunEvent>,
    lost: AtomicU64,
}

impl BuildLog for Sink {
    fn line(&self, stream: LogStream, text: &str) {
        let line = RunEvent::Line { stream: convert::stream(stream), text: text.to_owned() };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.lines.try_send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_full(&self) -> bool {
        !self.lines.is_closed() && self.lines.capacity() < LINES_RESERVED
    }
}

pub(crate) async fn run(
    State(api): State<Api>,
    Path((project, service)): Path<(String, String)>,
    Given(request): Given<RunRequest>,
) -> Result<Response, ApiError> {
    if request.command.is_empty() {
        return Err(ApiError::invalid("there is no command to run"));
    }
    let service = api.control.service(&project.parse()?, &service.parse()?).await?;
    let (sink, lines) = mpsc::channel(LINES_WAITING_MAX);
    // The work lives in the body's stream: when the caller goes, the stream is dropped, and the command with it.
    let work = async move {
        let log = Sink { lines: sink, lost: AtomicU64::new(0) };
        match api.control.run(&service, &request.command, &log).await {
            Ok(_) if log.lost.load(Ordering::Relaxed) > 0 => RunEvent::Error {
                message: format!("{} lines were lost on the way", log.lost.load(Ordering::Relaxed)),
                hint: Some("let the command write to a file on a volume".into()),
            },
            Ok(exit) => ended(&exit),
            Err(ControlError::Conflict { message, hint }) => RunEvent::Error { message, hint },
            Err(error) => RunEvent::Error { message: chain(&error), hint: None },
        }
    };
    let state = (Box::pin(work), lines, false);
    let events = stream::unfold(state, |(mut work, mut lines, mut over)| async move {
        if over {
            return None;
        }
        let event = tokio::select! {
            biased;
            Some(line) = lines.recv() => line,
            last = &mut work => {
                over = true;
                // Lines that were written just before the end come first.
                let mut rest = Vec::new();
                while let Ok(line) = lines.try_recv() {
                    rest.push(line);
                }
                rest.push(last);
                return Some((encode(&rest), (work, lines, over)));
            }
        };
        Some((encode(&[event]), (work, lines, over)))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(events)).into_response())
}

fn encode(events: &[RunEvent]) -> Result<Bytes, serde_json::Error> {
    let mut bytes = Vec::new();
    for event in events {
        serde_json::to_writer(&mut bytes, event)?;
        bytes.push(b'\n');
    }
    Ok(bytes.into())
}

fn ended(exit: &Exit) -> RunEvent {
    let code = match exit {
        Exit::Code { code } => *code,
        Exit::Signal { signal } => 128 + signal,
        Exit::Oom => 137,
        Exit::Setup { .. } | Exit::Lost => 125,
    };
    let message = (!matches!(exit, Exit::Code { .. })).then(|| format!("the command {exit}"));
    RunEvent::Exit { code, message }
}
