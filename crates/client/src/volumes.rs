//! The calls about the data of a service: volumes, files, restore points, databases.

use std::io;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;
use trackbed_api as api;

use crate::calls::{CALL_DEADLINE, ServiceClient};
use crate::connection::{Connection, RequestBody};
use crate::upload::{ChannelBody, Counter};
use crate::wire::{escape, request};
use crate::{Client, ClientError};

/// How long the box may say nothing in the middle of a file.
const FILE_IDLE: std::time::Duration = std::time::Duration::from_secs(120);

impl<'a> ServiceClient<'a> {
    /// Returns its volumes.
    pub async fn volumes(&self) -> Result<Vec<api::Volume>, ClientError> {
        self.client.get(&format!("{}/volumes", self.path)).await
    }

    /// Returns its removed volumes, as far as they can still be had back.
    pub async fn removed_volumes(&self) -> Result<Vec<api::Volume>, ClientError> {
        self.client.get(&format!("{}/volumes?removed=true", self.path)).await
    }

    /// Adds a volume.
    pub async fn add_volume(&self, request: &api::VolumeRequest) -> Result<api::Volume, ClientError> {
        self.client.post(&format!("{}/volumes", self.path), request).await
    }

    /// Turns to one volume; nothing is asked yet.
    pub fn volume(&self, name: &str) -> VolumeClient<'a> {
        VolumeClient { client: self.client, path: format!("{}/volumes/{}", self.path, escape(name)) }
    }

    /// Takes restore points of volumes now. Returns when they are taken.
    pub async fn snapshot(
        &self,
        request: &api::SnapshotRequest,
    ) -> Result<Vec<api::RestorePoint>, ClientError> {
        self.client.post_slowly(&format!("{}/points", self.path), request).await
    }

    /// Returns what a rollback with data would change; none is the release before the live one.
    pub async fn preview_rollback(&self, version: Option<u32>) -> Result<api::RollbackPreview, ClientError> {
        let version = version.map(|version| format!("?version={version}")).unwrap_or_default();
        self.client.get_slowly(&format!("{}/rollback{version}", self.path)).await
    }

    /// Asks that data outside the volumes moves into one.
    pub async fn adopt(&self, request: &api::AdoptionRequest) -> Result<api::Deployment, ClientError> {
        self.client.post(&format!("{}/adoptions", self.path), request).await
    }

    /// Returns the databases of its volumes, as they are now.
    pub async fn databases(&self) -> Result<Vec<api::Database>, ClientError> {
        self.client.get_slowly(&format!("{}/databases", self.path)).await
    }
}

/// The calls about one volume.
#[derive(Debug, Clone)]
pub struct VolumeClient<'a> {
    client: &'a Client,
    path: String,
}

impl VolumeClient<'_> {
    /// Changes schedules or limit.
    pub async fn change(&self, change: &api::VolumeChange) -> Result<api::Volume, ClientError> {
        self.client.ask(Method::PATCH, &self.path, change, CALL_DEADLINE).await
    }

    /// Removes it; its data is kept for a while.
    pub async fn remove(&self) -> Result<api::Volume, ClientError> {
        self.client.ask(Method::DELETE, &self.path, &serde_json::json!({}), CALL_DEADLINE).await
    }

    /// Has a removed one back.
    pub async fn undelete(&self) -> Result<api::Volume, ClientError> {
        self.client.post(&format!("{}/undelete", self.path), &serde_json::json!({})).await
    }

    /// Makes a new volume with its data. Returns when that is there.
    pub async fn clone_to(&self, request: &api::CloneRequest) -> Result<api::Volume, ClientError> {
        self.client.post_slowly(&format!("{}/clones", self.path), request).await
    }

    /// Returns the files in a folder.
    pub async fn files(&self, path: &str) -> Result<Vec<api::FileEntry>, ClientError> {
        self.client.get(&format!("{}/files?path={}", self.path, escape(path))).await
    }

    /// Returns what a folder uses.
    pub async fn usage(&self, path: &str) -> Result<api::FolderUsage, ClientError> {
        self.client.get_slowly(&format!("{}/usage?path={}", self.path, escape(path))).await
    }

    /// Reads a file, or a folder as a tar.
    pub async fn get_file(&self, path: &str) -> Result<FileStream, ClientError> {
        let call = format!("{}/file?path={}", self.path, escape(path));
        let nothing = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = request(Method::GET, &call, "application/json", nothing);
        let (connection, answer) = self.client.begin(request, &call).await?;
        let length = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let size_bytes = length.and_then(|text| text.parse().ok());
        let is_folder = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/x-tar");
        Ok(FileStream { size_bytes, is_folder, connection, body: answer.into_body(), call })
    }

    /// Writes a file of `size_bytes`, whose bytes come through the channel; `on_progress` hears how many have gone so
    /// far. When fewer come, the box keeps none of them.
    pub async fn put_file(
        &self,
        path: &str,
        size_bytes: u64,
        chunks: mpsc::Receiver<io::Result<Bytes>>,
        on_progress: impl FnMut(u64) + Send + Unpin + 'static,
    ) -> Result<api::FileEntry, ClientError> {
        let call = format!("{}/file?path={}", self.path, escape(path));
        let sent = Counter::default();
        let body: RequestBody = ChannelBody { chunks, sent: sent.clone(), on_progress }.boxed_unsync();
        let mut request = request(Method::PUT, &call, "application/octet-stream", body);
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
        self.client.upload(request, &call, &sent).await
    }

    /// Removes one of its restore points for good, and returns it.
    pub async fn forget(&self, point: &str) -> Result<api::RestorePoint, ClientError> {
        let path = format!("{}/points/{point}", self.path);
        self.client.ask(Method::DELETE, &path, &serde_json::json!({}), CALL_DEADLINE).await
    }

    /// Returns its restore points, newest first.
    pub async fn points(&self) -> Result<Vec<api::RestorePoint>, ClientError> {
        self.client.get(&format!("{}/points", self.path)).await
    }

    /// Returns how it differs from a point, by id or by milliseconds since 1970.
    pub async fn difference(&self, at: &str) -> Result<api::Difference, ClientError> {
        self.client.get_slowly(&format!("{}/difference?at={}", self.path, escape(at))).await
    }

    /// Asks for a restore.
    pub async fn restore(&self, request: &api::RestoreRequest) -> Result<api::Deployment, ClientError> {
        self.client.post(&format!("{}/restore", self.path), request).await
    }

    /// Has a point proven. Returns when that is done.
    pub async fn drill(&self, request: &api::DrillRequest) -> Result<api::RestorePoint, ClientError> {
        self.client.post_slowly(&format!("{}/drills", self.path), request).await
    }

    /// Runs a SQL statement on one of its databases.
    pub async fn query(&self, request: &api::QueryRequest) -> Result<api::QueryResult, ClientError> {
        self.client.post_slowly(&format!("{}/queries", self.path), request).await
    }
}

/// A file as it comes.
pub struct FileStream {
    /// Its size, when the box told it.
    pub size_bytes: Option<u64>,
    /// Whether it is a folder, which comes as a tar.
    pub is_folder: bool,
    connection: Connection,
    body: Incoming,
    call: String,
}

impl FileStream {
    /// Waits for the next bytes; none at the end. Not cancel-safe: drop the stream instead.
    ///
    /// # Errors
    /// When the connection breaks, or the box says nothing for long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        match tokio::time::timeout(FILE_IDLE, self.connection.next_chunk(&mut self.body, &self.call)).await {
            Ok(chunk) => chunk,
            Err(_) => Err(ClientError::Late { call: self.call.clone(), seconds: FILE_IDLE.as_secs() }),
        }
    }
}
