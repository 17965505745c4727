//! Every path of the API as a method.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use trackbed_api as api;

use crate::connection::{Connection, Place, RequestBody};
use crate::upload::{ChannelBody, Counter};
use crate::wire::{escape, json_body, parse, read_body, read_json, refusal, request};
use crate::{ClientError, RunStream};

/// How long an ordinary call may take.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// How long a call may take that waits on the box for news, which it does for 20 s.
const LONG_POLL_DEADLINE: Duration = Duration::from_secs(60);
/// How long an upload may stand still.
const UPLOAD_IDLE: Duration = Duration::from_secs(120);
/// How long a call may take that reads or writes whole volumes: at least 1 TB at the speed of a slow disk.
const VOLUME_DEADLINE: Duration = Duration::from_secs(4 * 60 * 60);

/// A client of one box. It holds no connection: each call makes its own.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
}

impl Client {
    /// Makes a client of the box that listens on `socket`. Nothing is tried yet.
    pub fn local(socket: PathBuf) -> Self {
        Self { place: Place::Socket(socket) }
    }

    /// Returns what the box says of itself.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all calls.
    pub async fn box_info(&self) -> Result<api::BoxInfo, ClientError> {
        self.get("/v1/box").await
    }

    /// Asks the box to stop.
    pub async fn stop_box(&self, request: &api::StopBox) -> Result<(), ClientError> {
        let body = json_body(request);
        self.call(Method::POST, "/v1/box/stop", Some(body), CALL_DEADLINE).await.map(drop)
    }

    /// Returns whether the box has a source. If so, it is kept for an hour.
    pub async fn has_source(&self, digest: &str) -> Result<bool, ClientError> {
        let path = format!("/v1/sources/{}", escape(digest));
        match self.call(Method::POST, &path, None, CALL_DEADLINE).await {
            Err(error) if error.is_not_found() => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Uploads a source, a tar that comes through the channel; `on_progress` hears how many bytes have gone so far.
    /// It may take as long as it likes, as long as something moves. With the digest of an `earlier` source the tar holds
    /// what differs from it; a box that does not know that one says "not found".
    pub async fn upload_source(
        &self,
        chunks: mpsc::Receiver<io::Result<Bytes>>,
        earlier: Option<&str>,
        on_progress: impl FnMut(u64) + Send + Unpin + 'static,
    ) -> Result<api::SourceInfo, ClientError> {
        let sent = Counter::default();
        let body = ChannelBody { chunks, sent: sent.clone(), on_progress }.boxed_unsync();
        let path = match earlier {
            Some(digest) => format!("/v1/sources?earlier={}", escape(digest)),
            None => "/v1/sources".to_owned(),
        };
        let request = request(Method::POST, &path, "application/x-tar", body);
        self.upload(request, &path, &sent).await
    }

    /// Sends a request with a long body, which may take as long as it likes, as long as something moves.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        request: hyper::Request<RequestBody>,
        path: &str,
        sent: &Counter,
    ) -> Result<T, ClientError> {
        let work = async {
            let mut connection = Connection::open(&self.place, path).await?;
            let answer = connection.send(request, path).await?;
            read_json(&mut connection, answer, path).await
        };
        let mut work = std::pin::pin!(work);
        loop {
            let before = sent.bytes();
            if let Ok(done) = tokio::time::timeout(UPLOAD_IDLE, &mut work).await {
                return done;
            }
            if sent.bytes() == before {
                return Err(ClientError::Late { call: path.to_owned(), seconds: UPLOAD_IDLE.as_secs() });
            }
        }
    }

    /// Sends a request and gives its answer back as soon as it begins.
    pub(crate) async fn begin(
        &self,
        request: hyper::Request<RequestBody>,
        call: &str,
    ) -> Result<(Connection, hyper::Response<hyper::body::Incoming>), ClientError> {
        let begin = async {
            let mut connection = Connection::open(&self.place, call).await?;
            let answer = connection.send(request, call).await?;
            if answer.status().is_success() {
                return Ok((connection, answer));
            }
            let status = answer.status().as_u16();
            let bytes = connection.whole_body(answer.into_body(), call).await?;
            Err(refusal(status, &bytes, call))
        };
        match tokio::time::timeout(CALL_DEADLINE, begin).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::Late { call: call.to_owned(), seconds: CALL_DEADLINE.as_secs() }),
        }
    }

    /// Returns what would be done with a source.
    pub async fn plan(&self, request: &api::PlanRequest) -> Result<api::Plan, ClientError> {
        self.post("/v1/plans", request).await
    }

    /// Asks for a deployment.
    pub async fn deploy(&self, request: &api::DeploymentRequest) -> Result<api::Deployment, ClientError> {
        self.post("/v1/deployments", request).await
    }

    /// Returns a deployment.
    pub async fn deployment(&self, id: &str) -> Result<api::Deployment, ClientError> {
        self.get(&format!("/v1/deployments/{}", escape(id))).await
    }

    /// Asks that a deployment is cancelled. Returns it as it is then, which may be on its way back.
    pub async fn cancel(&self, id: &str) -> Result<api::Deployment, ClientError> {
        self.post(&format!("/v1/deployments/{}/cancel", escape(id)), &serde_json::json!({})).await
    }

    /// Waits up to 20 s for events of a deployment after the one numbered `after`.
    pub async fn events(&self, id: &str, after: u64) -> Result<api::EventPage, ClientError> {
        self.poll(&format!("/v1/deployments/{}/events?after={after}", escape(id))).await
    }

    /// Returns what the build said, from a place on: none is the start.
    pub async fn build_log(&self, id: &str, from: Option<&str>) -> Result<api::LogPage, ClientError> {
        let from = escape(from.unwrap_or("0"));
        self.poll(&format!("/v1/deployments/{}/log?from={from}", escape(id))).await
    }

    /// Returns all services of the box.
    pub async fn services(&self) -> Result<Vec<api::Service>, ClientError> {
        self.get("/v1/services").await
    }

    /// Turns to one service; nothing is asked yet.
    pub fn service(&self, project: &str, service: &str) -> ServiceClient<'_> {
        ServiceClient { client: self, path: format!("/v1/services/{}/{}", escape(project), escape(service)) }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let bytes = self.call(Method::GET, path, None, CALL_DEADLINE).await?;
        parse(&bytes, path)
    }

    async fn poll<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let bytes = self.call(Method::GET, path, None, LONG_POLL_DEADLINE).await?;
        parse(&bytes, path)
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, body, CALL_DEADLINE).await
    }

    /// Waits for an answer that takes as long as reading or writing a whole volume does.
    pub(crate) async fn get_slowly<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        parse(&self.call(Method::GET, path, None, VOLUME_DEADLINE).await?, path)
    }

    /// As [`Client::get_slowly`].
    pub(crate) async fn post_slowly<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, body, VOLUME_DEADLINE).await
    }

    /// Sends a JSON body by any method.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        parse(&self.call(method, path, Some(json_body(body)), deadline).await?, path)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<RequestBody>,
        deadline: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let body = body.unwrap_or_else(|| Full::default().map_err(|never| match never {}).boxed_unsync());
        let request = request(method, path, "application/json", body);
        let work = async {
            let mut connection = Connection::open(&self.place, path).await?;
            let answer = connection.send(request, path).await?;
            read_body(&mut connection, answer, path).await
        };
        match tokio::time::timeout(deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::Late { call: path.to_owned(), seconds: deadline.as_secs() }),
        }
    }
}

/// The calls about one service.
#[derive(Debug, Clone)]
pub struct ServiceClient<'a> {
    pub(crate) client: &'a Client,
    pub(crate) path: String,
}

impl ServiceClient<'_> {
    /// Returns the service and how it does.
    pub async fn show(&self) -> Result<api::Service, ClientError> {
        self.client.get(&self.path).await
    }

    /// Returns its newest deployments, newest first.
    pub async fn deployments(&self, limit: u32) -> Result<Vec<api::Deployment>, ClientError> {
        self.client.get(&format!("{}/deployments?limit={limit}", self.path)).await
    }

    /// Asks that it stops.
    pub async fn stop(&self) -> Result<api::Service, ClientError> {
        self.client.post(&format!("{}/stop", self.path), &serde_json::json!({})).await
    }

    /// Asks that its deployments under way are cancelled. Returns the one that has begun, else the newest.
    pub async fn cancel(&self) -> Result<api::Deployment, ClientError> {
        self.client.post(&format!("{}/cancel", self.path), &serde_json::json!({})).await
    }

    /// Returns the last lines that it wrote, or one of its processes.
    pub async fn logs(&self, tail: u32, process: Option<&str>) -> Result<api::LogPage, ClientError> {
        self.client.get(&format!("{}/logs?tail={tail}{}", self.path, of_process(process))).await
    }

    /// Waits for lines from a place on.
    pub async fn logs_from(&self, cursor: &str, process: Option<&str>) -> Result<api::LogPage, ClientError> {
        let (cursor, process) = (escape(cursor), of_process(process));
        self.client.poll(&format!("{}/logs?from={cursor}&wait=true{process}", self.path)).await
    }

    /// Returns its variables, with values only when `show`.
    pub async fn variables(&self, show: bool) -> Result<Vec<api::Variable>, ClientError> {
        self.client.get(&format!("{}/variables?show={show}", self.path)).await
    }

    /// Changes variables, all or nothing.
    pub async fn change_variables(
        &self,
        change: &api::VariableChange,
    ) -> Result<Vec<api::Variable>, ClientError> {
        let path = format!("{}/variables", self.path);
        self.client.ask(Method::PATCH, &path, change, CALL_DEADLINE).await
    }

    /// Returns its processes and how many copies of each run.
    pub async fn scale(&self) -> Result<Vec<api::ScaledProcess>, ClientError> {
        self.client.get(&format!("{}/scale", self.path)).await
    }

    /// Changes how many copies run, all or nothing.
    pub async fn change_scale(
        &self,
        change: &api::ScaleChange,
    ) -> Result<Vec<api::ScaledProcess>, ClientError> {
        let path = format!("{}/scale", self.path);
        self.client.ask(Method::PATCH, &path, change, CALL_DEADLINE).await
    }

    /// Runs a command in its live instance. It may run as long as it likes.
    pub async fn run(&self, request: &api::RunRequest) -> Result<RunStream, ClientError> {
        let call = format!("{}/run", self.path);
        let request = crate::wire::request(Method::POST, &call, "application/json", json_body(request));
        let (connection, answer) = self.client.begin(request, &call).await?;
        Ok(RunStream { connection, body: answer.into_body(), waiting: Vec::new(), call })
    }
}

fn of_process(process: Option<&str>) -> String {
    process.map(|process| format!("&process={}", escape(process))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_not_there_means_not_running() {
        let client = Client::local(PathBuf::from("/nonexistent/trackbed.sock"));
        assert!(matches!(client.box_info().await, Err(ClientError::NotRunning { .. })));
    }
}
