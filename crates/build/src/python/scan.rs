//! Looks for the web application in Python files: assignments at the left edge, read as text, never run.

use crate::python::code::PythonFile;

/// How an application wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// FastAPI, Starlette, Litestar, Quart and the like.
    Asgi,
    /// Flask, Bottle, Falcon's older face.
    Wsgi,
    /// A script that imports Streamlit.
    Streamlit,
    /// A script that reads `PORT` and runs by itself.
    Script,
}

/// An application that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct App {
    /// File relative to the source: `app/main.py`.
    pub(crate) file: String,
    /// Line.
    pub(crate) line: u32,
    /// What makes it: `FastAPI`.
    pub(crate) maker: String,
    /// How it is called.
    pub(crate) kind: Kind,
    /// The variable, or the function when it is a factory.
    pub(crate) name: String,
    /// Whether the name is a function that makes the application.
    pub(crate) factory: bool,
    /// The folder to run in, so that the file's own imports are found; empty for the root.
    pub(crate) base: String,
}

impl App {
    /// Returns `app.main:app`, seen from [`App::base`].
    pub(crate) fn target(&self) -> String {
        let file = self.file.strip_prefix(&self.base).unwrap_or(&self.file).trim_start_matches('/');
        let module = file.trim_end_matches(".py").trim_end_matches("/__init__").replace('/', ".");
        format!("{module}:{}", self.name)
    }
}

const MAKERS: [(&str, Kind); 13] = [
    ("FastAPI", Kind::Asgi),
    ("Starlette", Kind::Asgi),
    ("Litestar", Kind::Asgi),
    ("Quart", Kind::Asgi),
    ("Sanic", Kind::Asgi),
    ("FastHTML", Kind::Asgi),
    ("BlackSheep", Kind::Asgi),
    ("get_asgi_application", Kind::Asgi),
    ("Flask", Kind::Wsgi),
    ("APIFlask", Kind::Wsgi),
    ("Bottle", Kind::Wsgi),
    ("Dash", Kind::Wsgi),
    ("get_wsgi_application", Kind::Wsgi),
];
const FACTORIES: [&str; 5] = ["create_app", "make_app", "build_app", "get_app", "create_application"];

/// Finds every application, the likeliest first.
pub(crate) fn apps(files: &[PythonFile]) -> Vec<App> {
    let mut found: Vec<App> = files.iter().filter_map(|file| app_in(file, files)).collect();
    found.sort_by_key(|app| (rank(app), app.file.clone()));
    found
}

fn app_in(file: &PythonFile, files: &[PythonFile]) -> Option<App> {
    let base = base_of(file, files);
    let app = |line: u32, maker: &str, kind, name: &str, factory| App {
        file: file.path.clone(),
        line,
        maker: maker.to_owned(),
        kind,
        name: name.to_owned(),
        factory,
        base: base.clone(),
    };
    let made_inside = MAKERS
        .iter()
        .find(|(maker, _)| file.code.lines().any(|line| line.starts_with([' ', '\t']) && calls(line, maker)));
    let mut best: Option<App> = None;
    for (number, line) in (1u32..).zip(file.code.lines()) {
        if let Some((name, value)) = assignment(line) {
            let called = callee(value);
            let made = MAKERS.iter().find(|(maker, _)| *maker == called).copied();
            let made = made.or_else(|| {
                let made_by_factory = FACTORIES.contains(&called);
                made_by_factory.then(|| made_inside.copied().unwrap_or_else(|| guess(files)))
            });
            let Some((maker, kind)) = made else { continue };
            let usual = matches!(name, "app" | "application");
            if best.is_none()
                || (usual && best.as_ref().is_some_and(|best| best.factory || best.name != "app"))
            {
                best = Some(app(number, maker, kind, name, false));
            }
        } else if let Some(name) = FACTORIES
            .iter()
            .find(|name| line.strip_prefix("def ").is_some_and(|rest| rest.starts_with(&format!("{name}("))))
            && best.is_none()
            && let Some((maker, kind)) = made_inside
        {
            best = Some(app(number, maker, *kind, name, true));
        }
    }
    if best.is_some() {
        return best;
    }
    let imports = |module: &str| {
        file.code.lines().any(|line| {
            line.starts_with(&format!("import {module}")) || line.starts_with(&format!("from {module} "))
        })
    };
    if imports("streamlit") {
        return Some(app(1, "streamlit", Kind::Streamlit, "", false));
    }
    let port = (1u32..).zip(file.code.lines()).find(|(_, line)| {
        (line.contains("environ") || line.contains("getenv"))
            && (line.contains("\"PORT\"") || line.contains("'PORT'"))
    })?;
    let runs =
        file.code.contains("__main__") || file.code.contains("serve_forever") || file.code.contains(".run(");
    runs.then(|| app(port.0, "PORT", Kind::Script, "", false))
}

/// Which framework a factory of another file makes: the first one that is imported anywhere.
fn guess(files: &[PythonFile]) -> (&'static str, Kind) {
    let made = |maker: &str| files.iter().any(|file| file.code.lines().any(|line| calls(line, maker)));
    MAKERS.iter().find(|(maker, _)| made(maker)).copied().unwrap_or(("FastAPI", Kind::Asgi))
}

fn calls(line: &str, maker: &str) -> bool {
    line.match_indices(maker).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        line[at + maker.len()..].starts_with('(') && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    }) && !line.trim_start().starts_with("class ")
}

/// Splits `app: FastAPI = x(…)` at the left edge into name and value.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix(':') {
        Some(typed) => &typed[typed.find('=')?..],
        None => rest,
    };
    let value = rest.strip_prefix('=')?;
    (!value.starts_with('=')).then(|| (name, value.trim()))
}

/// Returns the last name before the first bracket: `FastAPI` of `fastapi.FastAPI(title=…)`.
fn callee(value: &str) -> &str {
    let Some((called, _)) = value.split_once('(') else { return "" };
    called.rsplit('.').next().unwrap_or(called).trim()
}

/// Finds the folder from which the file's own imports resolve best; the outermost of equals.
fn base_of(file: &PythonFile, files: &[PythonFile]) -> String {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut bases = vec![String::new()];
    let mut at = String::new();
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
        bases.push(at.clone());
    }
    let relative = file.code.lines().any(|line| line.trim_start().starts_with("from ."));
    if relative && bases.len() > 1 {
        bases.pop();
    }
    let imported: Vec<&str> = file
        .code
        .lines()
        .filter_map(|line| line.strip_prefix("from ").or_else(|| line.strip_prefix("import ")))
        .filter_map(|rest| rest.split([' ', '.', ',', ';']).next())
        .filter(|module| !module.is_empty())
        .collect();
    let has = |base: &str, module: &str| {
        let prefix = if base.is_empty() { module.to_owned() } else { format!("{base}/{module}") };
        let (script, package) = (format!("{prefix}.py"), format!("{prefix}/"));
        files.iter().any(|file| file.path == script || file.path.starts_with(&package))
    };
    let score = |base: &String| imported.iter().filter(|module| has(base, module)).count();
    let mut best = bases[0].clone();
    for base in &bases {
        if score(base) > score(&best) {
            best.clone_from(base);
        }
    }
    // `src` is a place for packages, not a package.
    if best.is_empty() && file.path.starts_with("src/") && score(&best) == 0 {
        best = "src".to_owned();
    }
    best
}

fn rank(app: &App) -> (usize, usize, usize, usize) {
    let kind = match app.kind {
        Kind::Asgi | Kind::Wsgi => 0,
        Kind::Streamlit => 1,
        Kind::Script => 2,
    };
    let name = app.file.rsplit('/').next().unwrap_or(&app.file);
    let names = [
        "main.py",
        "app.py",
        "server.py",
        "api.py",
        "asgi.py",
        "wsgi.py",
        "application.py",
        "run.py",
        "__init__.py",
    ];
    let name = names.iter().position(|usual| *usual == name).unwrap_or(names.len());
    (kind, app.file.matches('/').count(), name, usize::from(app.factory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::code::blank;

    fn found(sources: &[(&str, &str)]) -> Vec<(String, String)> {
        let files: Vec<PythonFile> = sources
            .iter()
            .map(|(path, text)| PythonFile { path: (*path).to_owned(), code: blank(text) })
            .collect();
        apps(&files).into_iter().map(|app| (app.base.clone(), app.target())).collect()
    }

    fn pair(base: &str, target: &str) -> (String, String) {
        (base.to_owned(), target.to_owned())
    }

    #[test]
    fn applications_are_found_at_the_left_edge_only() {
        assert_eq!(
            found(&[("main.py", "import fastapi\napi: FastAPI = fastapi.FastAPI(\n)\n")]),
            [pair("", "main:api")]
        );
        assert_eq!(
            found(&[("m.py", "\"\"\"\napp = FastAPI()\n\"\"\"\n# app = Flask(x)\n  app = Flask(x)\n")]),
            []
        );
        assert_eq!(
            found(&[("m.py", "def create_app():\n    app = Flask(__name__)\n")]),
            [pair("", "m:create_app")]
        );
        assert_eq!(
            found(&[("m.py", "def create_app():\n    return FastAPI()\napp = create_app()\n")]),
            [pair("", "m:app")]
        );
        assert_eq!(found(&[("m.py", "class FastAPI(X):\n  pass\n")]), []);
    }

    #[test]
    fn the_folder_to_run_in_is_where_imports_resolve() {
        let main = "from database import x\nfrom fastapi import FastAPI\napp = FastAPI()\n";
        assert_eq!(
            found(&[("backend/main.py", main), ("backend/database.py", "")])[0],
            pair("backend", "main:app")
        );
        let main = "from app.db import x\napp = FastAPI()\n";
        assert_eq!(found(&[("app/main.py", main), ("app/db.py", "")])[0], pair("", "app.main:app"));
        assert_eq!(
            found(&[("src/app/main.py", main), ("src/app/db.py", "")])[0],
            pair("src", "app.main:app")
        );
        let main = "from .db import x\napp = FastAPI()\n";
        assert_eq!(found(&[("app/main.py", main), ("app/db.py", "")])[0], pair("", "app.main:app"));
    }

    #[test]
    fn the_likeliest_comes_first() {
        let app = "app = FastAPI()\n";
        let all = found(&[("tools/main.py", app), ("zebra.py", app), ("main.py", app)]);
        assert_eq!(all[0].1, "main:app");
    }
}
