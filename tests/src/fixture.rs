//! Apps to deploy: a tiny one made for a test, and the example assistant.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A source folder that a test may change.
pub struct App {
    folder: TempDir,
    name: String,
}

impl App {
    /// Makes a source from `tests/fixtures/plain`: one Python file on the standard library, no dependencies, driven
    /// by variables and paths. The folder, and with it the service, is called `name`.
    pub fn plain(name: &str) -> App {
        Self::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/plain"), name)
    }

    /// Makes a source from `tests/fixtures/writer`: an app that finds out when another one writes to its volume.
    pub fn writer(name: &str) -> App {
        Self::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/writer"), name)
    }

    /// Makes a source from `tests/fixtures/ledger`: an app that commits several hundred transactions a second, and whose
    /// volume `data` can be checked by `content.py`.
    pub fn ledger(name: &str) -> App {
        Self::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ledger"), name)
    }

    /// Makes a source from `tests/fixtures/crew`: a web server that takes notes and a worker that works them off.
    pub fn crew(name: &str) -> App {
        Self::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/crew"), name)
    }

    /// Makes a source from `tests/fixtures/odd`: an app whose volume holds everything that a snapshot may stumble over.
    pub fn odd(name: &str) -> App {
        Self::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/odd"), name)
    }

    /// Makes the plain app with a volume at `/data`.
    pub fn plain_with_volume(name: &str) -> App {
        let app = App::plain(name);
        app.with_volume("/data");
        app
    }

    /// Makes an empty source.
    pub fn empty(name: &str) -> App {
        let folder = tempfile::Builder::new().prefix("trackbed-app-").tempdir().expect("a temporary folder");
        open_up(folder.path());
        fs::create_dir(folder.path().join(name)).expect("a folder of the app's name");
        App { folder, name: name.to_owned() }
    }

    /// Makes a source as a copy of a folder.
    pub fn copy(from: &Path, name: &str) -> App {
        let app = Self::empty(name);
        copy_tree(from, &app.path());
        app
    }

    /// Returns the source's folder.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Writes a file of the source.
    pub fn write(&self, file: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().expect("a file in the source")).expect("its folder");
        fs::write(path, text).expect("a file of the source");
        self
    }

    /// Changes what the plain app answers at `/version`, and the writer at `/identity`.
    pub fn version(&self, text: &str) -> &Self {
        let code = fs::read_to_string(self.path().join("app.py")).expect("the plain app");
        let lines = code.lines().map(|line| match line.starts_with("VERSION = ") {
            true => format!("VERSION = \"{text}\"\n"),
            false => format!("{line}\n"),
        });
        let code: String = lines.collect();
        self.write("app.py", code)
    }

    /// Gives the source a volume `data`.
    pub fn with_volume(&self, mount: &str) -> &Self {
        self.write("trackbed.toml", format!("[[volumes]]\nname = \"data\"\nmount = \"{mount}\"\n"))
    }

    /// Removes a file of the source.
    pub fn remove(&self, file: &str) -> &Self {
        fs::remove_file(self.path().join(file)).expect("the file is there");
        self
    }
}

/// Makes a source as a copy of the example assistant, its tests left out.
pub fn assistant() -> App {
    example("assistant")
}

/// Makes a source as a copy of the assistant's edition in Rust.
pub fn assistant_rs() -> App {
    example("assistant-rs")
}

/// Makes a source as a copy of the example with ChromaDB, its tests left out.
pub fn knowledge() -> App {
    example("knowledge")
}

fn example(name: &str) -> App {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned();
    App::copy(&root.join("examples").join(name), name)
}

/// A temporary folder is private; an ordinary user's box must be able to read the source.
fn open_up(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("our own folder");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the target folder");
    for entry in fs::read_dir(from).expect("the fixture is there") {
        let entry = entry.expect("a readable fixture");
        let name = entry.file_name();
        if matches!(name.to_str(), Some("__pycache__" | "tests" | ".pytest_cache" | ".venv" | "target")) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().expect("a readable fixture").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a readable fixture");
        }
    }
}
