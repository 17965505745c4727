//! Taking in a source, and telling what would be done with it.

use std::io::{self, Read};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use trackbed_api::{Plan, PlanRequest, SourceInfo};
use trackbed_build::source::{self, SourceLimits};

use crate::api::Api;
use crate::convert;
use crate::error::ApiError;
use crate::given::Given;

/// Pieces of an upload that wait for the disk; the sender is held back beyond that.
const PIECES_WAITING_MAX: usize = 8;

pub(crate) async fn receive(State(api): State<Api>, body: Body) -> Result<Json<SourceInfo>, ApiError> {
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
    let data_dir = api.data_dir.clone();
    let unpacking = tokio::task::spawn_blocking(move || {
        let reader = Pieces { waiting, current: Bytes::new(), complete: false };
        source::receive(reader, &data_dir, SourceLimits::default())
    });
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece =
            piece.map(Some).map_err(|error| io::Error::other(format!("the upload broke off: {error}")));
        let broken = piece.is_err();
        if pieces.send(piece).await.is_err() || broken {
            break;
        }
    }
    // The end is said aloud: a caller that vanished must not look like a complete upload.
    let _ = pieces.send(Ok(None)).await;
    drop(pieces);
    let received = unpacking.await.map_err(|error| ApiError::invalid(error.to_string()))?;
    let source = received.map_err(ApiError::source)?;
    api.control.add_source(source.digest.clone()).await?;
    Ok(Json(SourceInfo { digest: source.digest.to_string() }))
}

pub(crate) async fn plan(
    State(api): State<Api>,
    Given(request): Given<PlanRequest>,
) -> Result<Json<Plan>, ApiError> {
    let (project, service) = (request.project.parse()?, request.service.parse()?);
    let plan = api.control.plan(&project, &service, request.source.parse()?, request.overrides).await;
    Ok(Json(convert::plan(plan.map_err(|error| match error {
        trackbed_control::ControlError::Port(error) => ApiError::source(error),
        other => other.into(),
    })?)))
}

/// The pieces of an upload as a blocking reader.
struct Pieces {
    waiting: mpsc::Receiver<io::Result<Option<Bytes>>>,
    current: Bytes,
    complete: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.current.has_remaining() && !self.complete {
            match self.waiting.blocking_recv() {
                Some(Ok(Some(piece))) => self.current = piece,
                Some(Ok(None)) => self.complete = true,
                Some(Err(error)) => return Err(error),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the upload broke off")),
            }
        }
        let count = buffer.len().min(self.current.remaining());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
