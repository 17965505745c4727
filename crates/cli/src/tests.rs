//! What several tests need: folders to walk, and a box that is not real.

mod data;
mod databases;
pub(crate) mod fake;
mod git;
mod others;
mod up;
mod uploads;

use std::path::{Path, PathBuf};

use trackbed_api::{IsolationInfo, Service};

/// A folder that goes away with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder with these files, by path and content.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let tail: String =
            trackbed_stdx::random::bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = Path::new("/tmp").join(format!("trackbed-cli-{tail}"));
        std::fs::create_dir_all(&folder).unwrap();
        for (path, content) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            trackbed_stdx::files::write_atomic(&path, content.as_bytes(), 0o644).unwrap();
        }
        Self(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = trackbed_stdx::files::remove_tree(&self.0);
    }
}

/// Makes a service that runs.
pub(crate) fn service(project: &str, name: &str) -> Service {
    Service {
        project: project.to_owned(),
        service: name.to_owned(),
        state: "running".to_owned(),
        detail: None,
        url: format!("http://{name}.localhost:8080"),
        release: None,
        instance: None,
        job: None,
        deploying: None,
        last_deployment: None,
        volumes: Vec::new(),
        isolation: IsolationInfo { level: "full".to_owned(), missing: Vec::new() },
        parked: 0,
        warnings: Vec::new(),
        pids: Vec::new(),
        last_restore_point: None,
        last_proven: None,
        last_proof: None,
    }
}
