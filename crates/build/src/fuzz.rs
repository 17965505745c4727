//! Ways into the readers of this crate for inputs that a machine makes up, and for measurements. Nothing that runs calls
//! them.

use std::path::{Path, PathBuf};

use trackbed_core::Digest;
use trackbed_core::plan::Plan;
use trackbed_core::ports::{PlanRequest, PortError, Source};

use crate::check::{Known, facts, look};
use crate::config::draft::Draft;
use crate::config::{self, resolve};
use crate::planner::{self, Outcome};
use crate::python::interpreters::Interpreter;
use crate::python::version::Version;
use crate::text;
use crate::toolchain::{Program, Programs, Tool};

/// Reads a file of settings by the reader of its name and resolves what it said. Returns whether any reads that name.
pub fn settings(name: &str, bytes: &[u8]) -> bool {
    let Some(reader) = config::reader_of(name) else { return false };
    let Ok(text) = text::decode(bytes) else { return true };
    let mut draft = Draft::default();
    if reader(name, &text, &mut draft).is_ok() {
        let _ = resolve::resolve(&mut draft);
    }
    true
}

/// Returns the names of all files of settings.
pub fn settings_names() -> impl Iterator<Item = &'static str> {
    config::files()
}

/// Plans a folder and checks it, as on a box that has one version of everything.
pub fn source(folder: &Path) {
    let planned = plan(folder);
    let plan = match &planned {
        Ok(Some(plan)) => Ok(plan),
        Ok(None) => Err(None),
        Err(error) => Err(Some(error)),
    };
    let has = |name: &str| folder.join(name).is_file();
    let (facts, refused) = facts(folder, plan, &Known::default(), &has);
    look(folder, None, &facts, refused);
}

/// Plans a folder, as on a box that has one version of everything; none when it asks for another Python.
///
/// # Errors
/// When there is no plan of it.
pub fn plan(folder: &Path) -> Result<Option<Plan>, PortError> {
    let request = PlanRequest {
        source: Source { digest: Digest::from_bytes([0; 32]), path: folder.to_owned() },
        overrides: Vec::new(),
        stored: Vec::new(),
        variables: Vec::new(),
    };
    let python = Interpreter {
        version: Version { major: 3, minor: 13, patch: 0 },
        program: PathBuf::from("/usr/bin/python3"),
        prefix: PathBuf::from("/usr"),
        sqlite: "3.51.3".to_owned(),
        libc: "glibc 2.41".to_owned(),
    };
    Ok(match planner::plan(&request, &[python], &OneOfEach, Some(&Ok("an engine".to_owned())))? {
        Outcome::Ready(plan) => Some(*plan),
        Outcome::NoPython { .. } | Outcome::AsksEngine => None,
    })
}

struct OneOfEach;

impl Programs for OneOfEach {
    fn list(&self, tool: Tool) -> Vec<Program> {
        let version = Version { major: 22, minor: 1, patch: 0 };
        let path = Path::new("/usr/bin").join(tool.program());
        vec![Program { tool, version, path, preview: false }]
    }

    fn fetch(&self, _: Tool, _: Option<&str>) -> Result<(), String> {
        Err("nothing is fetched".to_owned())
    }
}
