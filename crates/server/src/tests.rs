//! The API over its socket, by the client that people use, in front of a world of fakes with real volumes.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use trackbed_api::{self as wire, ErrorCode};
use trackbed_client::{Client, ClientError, ServiceClient, VolumeClient, source_channel};
use trackbed_control::{Config, Control, Parts};
use trackbed_core::Timestamp;
use trackbed_edge::EdgeClient;
use trackbed_stdx::clock::now_ms;
use trackbed_stdx::files::try_lock;
use trackbed_stdx::tasks::Tasks;
use trackbed_store::{Key, Store};
use trackbed_testkit::{FakeBuilder, FakeEdge, FakeEngine, Faults, World};
use trackbed_volume::LocalVolumes;

use crate::api::{self, Api};
use crate::git::GitDoor;
use crate::git::hooks::Hooks;

/// A box that answers, with a service `web` that never ran and has a volume `data`.
struct TestBox {
    client: Client,
    volumes: Arc<LocalVolumes>,
    tasks: Tasks,
    folder: TempDir,
}

impl TestBox {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (world, faults, tasks) = (World::new(), Faults::default(), Tasks::default());
        let store =
            Store::open(&folder.path().join("state.db"), Key::open(&folder.path().join("key")).unwrap())
                .unwrap();
        let engine = Arc::new(FakeEngine::new(world.clone(), faults.clone()));
        let volumes = Arc::new(LocalVolumes::new(folder.path()));
        let parts = Parts {
            store,
            builder: Arc::new(FakeBuilder::new(world.clone(), faults.clone())),
            engine: engine.clone(),
            edge: Arc::new(FakeEdge::new(world, faults)),
            volumes: volumes.clone(),
            clock: || Timestamp(now_ms()),
            config: Config {
                data_dir: folder.path().to_owned(),
                domain: "localhost".parse().unwrap(),
                public_port: 80,
                trusted_proxies: Vec::new(),
                builds_at_once: 1,
                abort_at: None,
            },
        };
        let control = Control::new(parts, tasks.clone());
        control.start().await.unwrap();
        let socket = folder.path().join("api.sock");
        let hooks = Hooks::new(control.clone(), folder.path().into(), Vec::new(), tasks.clone());
        let git = GitDoor::new(
            control.clone(),
            hooks.clone(),
            folder.path().into(),
            "localhost".parse().unwrap(),
            None,
            tasks.clone(),
        );
        let api = Api {
            control,
            git,
            hooks,
            engine,
            edge: Arc::new(EdgeClient::new(folder.path().join("edge.sock"))),
            volumes: volumes.clone(),
            data_dir: folder.path().to_owned(),
            domain: "localhost".parse().unwrap(),
            stop: mpsc::channel(1).0,
        };
        api::serve(&tasks, api, UnixListener::bind(&socket).unwrap());
        let client = Client::local(socket);
        let found = Self { client, volumes, tasks, folder };
        let request = wire::VolumeRequest { name: "data".into(), mount: "/data".into() };
        found.web().add_volume(&request).await.unwrap();
        found
    }

    fn web(&self) -> ServiceClient<'_> {
        self.client.service("web", "web")
    }

    fn data(&self) -> VolumeClient<'_> {
        self.web().volume("data")
    }

    /// Where a volume lies.
    async fn place(&self, name: &str) -> trackbed_core::ports::VolumePlace {
        let volumes = self.web().volumes().await.unwrap();
        let id = volumes.iter().find(|volume| volume.name == name).unwrap().id.parse().unwrap();
        self.volumes.place(&id)
    }

    async fn folder_of(&self, name: &str) -> PathBuf {
        self.place(name).await.directory
    }

    async fn put(&self, path: &str, bytes: &[u8]) -> Result<wire::FileEntry, ClientError> {
        self.put_announced(path, bytes, bytes.len() as u64).await
    }

    async fn put_announced(
        &self,
        path: &str,
        bytes: &[u8],
        announced: u64,
    ) -> Result<wire::FileEntry, ClientError> {
        let (chunks, taken) = source_channel();
        let bytes = Bytes::copy_from_slice(bytes);
        let send = async move {
            let _ = chunks.send(Ok(bytes)).await;
        };
        let volume = self.data();
        let (entry, ()) = tokio::join!(volume.put_file(path, announced, taken, |_| {}), send);
        entry
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        let mut file = self.data().get_file(path).await?;
        let mut whole = Vec::new();
        while let Some(bytes) = file.next().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    async fn snapshot(&self) -> wire::RestorePoint {
        self.web().snapshot(&wire::SnapshotRequest::default()).await.unwrap().remove(0)
    }

    async fn end(self) {
        self.tasks.stop(Duration::from_secs(10)).await;
        drop(self.folder);
    }
}

/// What the box refused with: its kind, and its words.
fn refused<T>(outcome: Result<T, ClientError>) -> (ErrorCode, String) {
    match outcome.err() {
        Some(ClientError::Api(detail, _)) => (detail.code, detail.message),
        Some(other) => panic!("no refusal of the box: {other}"),
        None => panic!("it was not refused"),
    }
}

#[tokio::test]
async fn files_go_in_and_out_and_are_measured() {
    let found = TestBox::start().await;
    let large = vec![b'x'; 3 << 20];
    std::fs::create_dir(found.folder_of("data").await.join("up")).unwrap();
    let entry = found.put("/up/large.bin", &large).await.unwrap();
    assert_eq!((entry.path.as_str(), entry.size_bytes), ("up/large.bin", 3 << 20));
    assert_eq!(found.get("up/large.bin").await.unwrap(), large);
    found.put("/up/large.bin", b"small").await.unwrap();
    let listed = found.data().files("/up").await.unwrap();
    assert_eq!((listed[0].path.as_str(), listed[0].size_bytes), ("up/large.bin", 5));
    let used = found.data().usage("/").await.unwrap();
    assert_eq!((used.files, used.entries[0].path.as_str(), used.limit_bytes), (1, "up", None));
    let tar = found.data().get_file("up").await.unwrap();
    assert!(tar.is_folder && tar.size_bytes.is_none());
    found.end().await;
}

#[tokio::test]
async fn a_path_stays_in_its_volume_and_names_what_it_says() {
    let found = TestBox::start().await;
    let folder = found.folder_of("data").await;
    std::fs::create_dir(folder.join("up")).unwrap();
    std::fs::write(folder.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", folder.join("out")).unwrap();
    for path in ["../../key", "/../../key", "up/../../../key", "out/passwd", "out"] {
        let (code, said) = refused(found.get(path).await);
        assert!(matches!(code, ErrorCode::InvalidRequest | ErrorCode::NotFound), "{path}: {said}");
        let (code, said) = refused(found.put(path, b"x").await);
        assert!(matches!(code, ErrorCode::InvalidRequest | ErrorCode::NotFound), "{path}: {said}");
        refused(found.data().files(path).await);
        refused(found.data().usage(path).await);
    }
    assert!(refused(found.put("/up", b"x").await).1.contains("is a folder; name the file in it"));
    assert!(refused(found.put("/file/below", b"x").await).1.contains("is not a folder"));
    assert!(refused(found.get("none/file").await).1.contains("is not in the volume"));
    assert_eq!(found.put("/none/file", b"x").await.unwrap().path, "none/file", "folders are made on the way");
    assert!(refused(found.get("nowhere").await).1.contains("is not in the volume"));
    let (code, said) = refused(found.web().volume("nope").files("/").await);
    assert_eq!((code, said.as_str()), (ErrorCode::NotFound, "service `web` has no volume `nope`"));
    let (code, _) = refused(found.web().volume("No Name").files("/").await);
    assert_eq!(code, ErrorCode::InvalidRequest);
    found.end().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_or_is_too_large_leaves_the_old_file() {
    let found = TestBox::start().await;
    found.put("/file", b"old").await.unwrap();
    assert!(found.put_announced("/file", b"ne", 9).await.is_err());
    let limit = wire::VolumeChange { limit_bytes: Some(1 << 20), ..wire::VolumeChange::default() };
    found.data().change(&limit).await.unwrap();
    let (code, said) = refused(found.put("/file", &vec![0; 2 << 20]).await);
    assert!(code == ErrorCode::Conflict && said.contains("has room for"), "{said}");
    assert_eq!(found.get("file").await.unwrap(), b"old");
    assert_eq!(found.data().files("/").await.unwrap().len(), 1, "nothing half is left behind");
    found.end().await;
}

#[tokio::test]
async fn a_database_is_replaced_only_while_nobody_holds_the_volume() {
    let found = TestBox::start().await;
    let mut database = b"SQLite format 3\0".to_vec();
    database.resize(4096, 0);
    found.put("/app.db", &database).await.unwrap();
    let held = try_lock(&found.place("data").await.lock).unwrap().unwrap();
    let (_, said) = refused(found.put("/app.db", b"other").await);
    assert!(said.contains("stop the service first"), "{said}");
    found.put("/other", b"other").await.unwrap();
    drop(held);
    found.put("/app.db", b"other").await.unwrap();
    assert_eq!(found.get("app.db").await.unwrap(), b"other");
    found.end().await;
}

#[tokio::test]
async fn points_are_taken_listed_and_compared() {
    let found = TestBox::start().await;
    found.put("/a", b"one").await.unwrap();
    let point = found.snapshot().await;
    assert_eq!((point.volume.as_str(), point.why.as_str(), point.files), ("data", "command", 1));
    assert_eq!((point.pause_ms, point.consistency.as_str()), (0, "instant"));
    found.put("/a", b"two").await.unwrap();
    found.put("/b", b"new").await.unwrap();
    let listed = found.data().points().await.unwrap();
    assert_eq!(listed.iter().map(|point| &point.id).collect::<Vec<_>>(), [&point.id]);
    for at in [point.id.clone(), now_ms().to_string()] {
        let difference = found.data().difference(&at).await.unwrap();
        let changes = &difference.changes;
        assert_eq!((difference.point.id.as_str(), changes.added, changes.changed), (point.id.as_str(), 1, 1));
    }
    let volume = found.web().volumes().await.unwrap().remove(0);
    assert_eq!((volume.restore_points, volume.last_restore_point), (1, Some(point.taken_at)));
    assert_eq!((volume.last_proof, volume.schedules.join(",").as_str()), (None, "hourly,daily"));
    let service = found.web().show().await.unwrap();
    assert_eq!(service.last_restore_point, Some(point.taken_at));
    found.end().await;
}

#[tokio::test]
async fn what_names_no_point_to_go_back_to_is_refused() {
    let found = TestBox::start().await;
    let request = wire::VolumeRequest { name: "other".into(), mount: "/other".into() };
    found.web().add_volume(&request).await.unwrap();
    assert!(refused(found.data().difference("proven").await).1.contains("has no restore point yet"));
    let other = wire::SnapshotRequest { volume: Some("other".into()) };
    let other = found.web().snapshot(&other).await.unwrap().remove(0).id;
    let (code, said) = refused(found.data().difference(&other).await);
    assert!(code == ErrorCode::Conflict && said.contains("is of volume `other`, not of `data`"), "{said}");
    let future = (now_ms() + 60_000).to_string();
    assert!(refused(found.data().difference(&future).await).1.contains("is in the future"));
    found.snapshot().await;
    assert!(refused(found.data().difference("1000").await).1.contains("of that time or before it"));
    assert!(refused(found.data().difference("proven").await).1.contains("is proven"));
    assert_eq!(refused(found.data().difference("yesterday").await).0, ErrorCode::InvalidRequest);
    let unknown = "rp_0000000000000000";
    assert_eq!(refused(found.data().difference(unknown).await).0, ErrorCode::NotFound);
    let drill = wire::DrillRequest { point: Some(other) };
    assert_eq!(refused(found.data().drill(&drill).await).0, ErrorCode::NotFound);
    let snapshot = wire::SnapshotRequest { volume: Some("nope".into()) };
    assert_eq!(refused(found.web().snapshot(&snapshot).await).0, ErrorCode::NotFound);
    let restore = wire::RestoreRequest { at: "proven".into() };
    assert!(refused(found.data().restore(&restore).await).1.contains("no live release yet"));
    assert!(refused(found.web().preview_rollback(None).await).1.contains("no live release yet"));
    let adopt = wire::AdoptionRequest { paths: vec!["/etc/passwd".into()], volume: None };
    refused(found.web().adopt(&adopt).await);
    found.end().await;
}

#[tokio::test]
async fn schedules_limits_and_removal_are_changed_by_name() {
    let found = TestBox::start().await;
    let schedules = |words: &[&str]| wire::VolumeChange {
        schedules: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        limit_bytes: Some(5000),
    };
    let changed = found.data().change(&schedules(&["weekly", "hourly", "hourly"])).await.unwrap();
    assert_eq!((changed.schedules.join(",").as_str(), changed.limit_bytes), ("hourly,weekly", Some(5000)));
    let none = wire::VolumeChange { schedules: Some(Vec::new()), limit_bytes: Some(0) };
    let changed = found.data().change(&none).await.unwrap();
    assert_eq!((changed.schedules.len(), changed.limit_bytes), (0, None));
    let (code, said) = refused(found.data().change(&schedules(&["fortnightly"])).await);
    assert!(code == ErrorCode::InvalidRequest && said.contains("hourly"), "{said}");
    found.put("/a", b"kept").await.unwrap();
    let gone = found.data().remove().await.unwrap();
    assert!(gone.kept_until.unwrap() - gone.removed_at.unwrap() == 48 * 3_600_000);
    assert_eq!(refused(found.data().files("/").await).0, ErrorCode::NotFound);
    assert_eq!(found.web().removed_volumes().await.unwrap().len(), 1);
    found.data().undelete().await.unwrap();
    assert_eq!(found.get("a").await.unwrap(), b"kept");
    assert_eq!(refused(found.data().undelete().await).0, ErrorCode::NotFound);
    found.end().await;
}

#[tokio::test]
async fn a_clone_has_the_data_and_a_place_of_its_own() {
    let found = TestBox::start().await;
    found.put("/a", b"one").await.unwrap();
    let clone = |name: &str, mount: Option<&str>| wire::CloneRequest {
        name: name.to_owned(),
        mount: mount.map(str::to_owned),
        at: None,
    };
    let (code, _) = refused(found.data().clone_to(&clone("data", None)).await);
    assert_eq!(code, ErrorCode::Conflict);
    assert!(refused(found.data().clone_to(&clone("copy", Some("/data"))).await).1.contains("at /data"));
    assert_eq!(
        refused(found.data().clone_to(&clone("copy", Some("/etc"))).await).0,
        ErrorCode::InvalidRequest
    );
    assert_eq!(
        refused(found.web().volume("nope").clone_to(&clone("copy", None)).await).0,
        ErrorCode::NotFound
    );
    found.end().await;
}

#[tokio::test]
async fn a_query_names_a_database_and_a_point_of_its_volume() {
    let found = TestBox::start().await;
    found.put("/notes.db", b"no database at all").await.unwrap();
    let query = |sql: &str, point: Option<&str>| wire::QueryRequest {
        database: "notes.db".into(),
        sql: sql.to_owned(),
        point: point.map(str::to_owned),
        write: false,
    };
    let data = found.data();
    assert!(refused(data.query(&query("SELECT 1", None)).await).1.contains("holds no database `notes.db`"));
    let unknown = query("SELECT 1", Some("rp_0000000000000000"));
    assert_eq!(refused(data.query(&unknown).await).0, ErrorCode::NotFound);
    assert!(refused(data.query(&query(&"x".repeat(600 << 10), None)).await).1.contains("at most"));
    assert_eq!(
        refused(found.web().volume("nope").query(&query("SELECT 1", None)).await).0,
        ErrorCode::NotFound
    );
    found.end().await;
}
