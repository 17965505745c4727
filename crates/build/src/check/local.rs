//! A look at a folder as it lies on somebody's disk, without a box.

use std::path::{Path, PathBuf};

use trackbed_core::Digest;
use trackbed_core::finding::Findings;
use trackbed_core::ports::{PlanRequest, PortError, Source};

use crate::check::{Known, facts, look};
use crate::host::Host;
use crate::planner::{self, Outcome};
use crate::python::interpreters::Interpreters;
use crate::toolchain::{HostPrograms, Program, Programs, Tool};

/// Variables with their values, and mounts of volumes.
pub type Lent = (Vec<(String, String)>, Vec<String>);

/// What is looked at, and with what.
#[derive(Debug, Clone, Default)]
pub struct LocalCheck {
    /// The folder.
    pub folder: PathBuf,
    /// Its files that would be deployed, relative to it.
    pub files: Vec<PathBuf>,
    /// Names and values of the variables of the service, and the mounts of its volumes, when a box knows it. A value may be
    /// empty where it is secret.
    pub service: Option<Lent>,
    /// The environment of the process: where to look for interpreters.
    pub environment: Vec<(String, String)>,
    /// Where a box of this user would keep what it fetched: interpreters below it count.
    pub data_dir: PathBuf,
}

/// The programs that are here: somebody who only looks fetches none.
struct Present(HostPrograms);

impl Programs for Present {
    fn list(&self, tool: Tool) -> Vec<Program> {
        self.0.list(tool)
    }

    fn fetch(&self, _: Tool, _: Option<&str>) -> Result<(), String> {
        Err("a check fetches nothing".to_owned())
    }
}

/// Looks at a folder. Blocking; runs nothing of it.
pub fn check_folder(check: &LocalCheck) -> Findings {
    let host = Host::new(check.environment.clone());
    let pythons = Interpreters::default().list(&host, &check.data_dir);
    let programs = Present(HostPrograms::new(host, check.data_dir.clone()));
    let request = PlanRequest {
        source: Source { digest: Digest::from_bytes([0; 32]), path: check.folder.clone() },
        overrides: Vec::new(),
        stored: Vec::new(),
        variables: Vec::new(),
    };
    let known = match check.service.clone() {
        Some((variables, mounts)) => Known { is_service: true, variables, mounts },
        None => Known::default(),
    };
    let has = |name: &str| check.files.iter().any(|file| file == Path::new(name));
    let planned = planner::plan(&request, &pythons, &programs, Some(&without_engine()));
    let plan = match &planned {
        Ok(Outcome::Ready(plan)) => Ok(plan.as_ref()),
        // A box would fetch one.
        Ok(Outcome::NoPython { .. } | Outcome::AsksEngine) => Err(None),
        Err(error) => Err(Some(error)),
    };
    let (facts, refused) = facts(&check.folder, plan, &known, &has);
    look(&check.folder, Some(&check.files), &facts, refused)
}

/// A look at a folder concerns its code; whether it is built by an engine is for the box to say.
fn without_engine() -> Result<String, PortError> {
    Err(PortError::new("no container engine was looked for"))
}
