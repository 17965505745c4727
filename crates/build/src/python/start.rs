//! Decides how an application that was found is started, from what its dependencies contain.

use trackbed_core::ports::PortError;

use crate::python::code::PythonFile;
use crate::python::scan::{App, Kind};

/// What was decided.
pub(crate) struct Start {
    /// The command.
    pub(crate) command: String,
    /// Where it was found: `main.py:12`.
    pub(crate) place: String,
    /// What the owner should know.
    pub(crate) warning: Option<String>,
}

/// The three ways to say it oneself.
pub(crate) const MEND: &str = "say how it starts, in one of these ways:\n  \
    railway.json   {\"deploy\": {\"startCommand\": \"uvicorn main:app --host 0.0.0.0 --port $PORT\"}}\n  \
    Procfile       web: uvicorn main:app --host 0.0.0.0 --port $PORT\n  \
    command line   trackbed up --start 'uvicorn main:app --host 0.0.0.0 --port $PORT'";

/// Finds a start command. `has` tells whether a package is installed.
pub(crate) fn find(
    apps: &[App],
    files: &[PythonFile],
    has: &dyn Fn(&str) -> bool,
) -> Result<Start, PortError> {
    if let Some(start) = django(files, has) {
        return start;
    }
    let Some(app) = apps.first() else {
        return Err(PortError::new(format!(
            "found no way to start this source:\n\
             - no start command in trackbed.toml, railway.json, railway.toml, railpack.json, nixpacks.toml or Procfile\n\
             - no manage.py of Django\n\
             - {}, in folders up to four deep, tests apart; what was looked for at the left edge of a line:\n  \
             `x = FastAPI(`, `Starlette(`, `Litestar(`, `Quart(`, `Sanic(`, `Flask(`, `Bottle(` or `Dash(`,\n  \
             `def create_app(`, `import streamlit`, or that PORT is read from the environment",
            match files.len() {
                0 => "no Python files".to_owned(),
                1 => "nothing to serve in 1 Python file".to_owned(),
                count => format!("nothing to serve in {count} Python files"),
            }
        ))
        .hint(MEND));
    };
    let mut start = command(app, has)?;
    let others: Vec<String> = apps[1..]
        .iter()
        .filter(|other| other.kind == app.kind)
        .take(5)
        .map(|other| format!("{}:{}", other.file, other.line))
        .collect();
    if !others.is_empty() && start.warning.is_none() {
        start.warning = Some(format!(
            "{} is started; other applications are in {}: set deploy.startCommand if one of those is meant",
            app.file,
            others.join(", ")
        ));
    }
    if !app.base.is_empty() && app.kind != Kind::Streamlit {
        start.command = format!("cd {} && {}", app.base, start.command);
    }
    Ok(start)
}

fn command(app: &App, has: &dyn Fn(&str) -> bool) -> Result<Start, PortError> {
    let place = format!("{}:{}", app.file, app.line);
    let target = app.target();
    let good = |command: String| Ok(Start { command, place: place.clone(), warning: None });
    let call = if app.factory { format!("'{target}()'") } else { target.clone() };
    let factory = if app.factory { " --factory" } else { "" };
    let missing = |what: &str, mend: &str| {
        Err(PortError::new(format!(
            "{place} makes an application with {}, but none of the dependencies can serve it: {what} is missing",
            app.maker
        ))
        .hint(mend.to_owned()))
    };
    match app.kind {
        Kind::Asgi if has("uvicorn") && has("gunicorn") && !app.factory => good(format!(
            "gunicorn {target} --worker-class uvicorn.workers.UvicornWorker --bind 0.0.0.0:$PORT"
        )),
        Kind::Asgi if has("uvicorn") => {
            good(format!("uvicorn {target}{factory} --host 0.0.0.0 --port $PORT"))
        }
        Kind::Asgi if has("hypercorn") => good(format!("hypercorn {call} --bind 0.0.0.0:$PORT")),
        Kind::Asgi if has("granian") => {
            good(format!("granian --interface asgi{factory} --host 0.0.0.0 --port $PORT {target}"))
        }
        Kind::Asgi if has("daphne") => good(format!("daphne -b 0.0.0.0 -p $PORT {target}")),
        Kind::Asgi if has("sanic") => good(format!("sanic {target} --host=0.0.0.0 --port=$PORT")),
        Kind::Asgi => missing(
            "uvicorn (or hypercorn, granian, daphne)",
            "add a line `uvicorn` to requirements.txt, or `uvicorn` to the dependencies in pyproject.toml",
        ),
        Kind::Wsgi => {
            let call = if app.maker == "Dash" { format!("{target}.server") } else { call };
            if has("gunicorn") {
                return good(format!("gunicorn {call} --bind 0.0.0.0:$PORT"));
            }
            if has("waitress") {
                let factory = if app.factory { "--call " } else { "" };
                return good(format!("waitress-serve --listen=0.0.0.0:$PORT {factory}{target}"));
            }
            if has("uvicorn") && app.maker != "Dash" {
                return good(format!(
                    "uvicorn {target}{factory} --interface wsgi --host 0.0.0.0 --port $PORT"
                ));
            }
            if matches!(app.maker.as_str(), "Flask" | "APIFlask") {
                return Ok(Start {
                    command: format!("flask --app {target} run --host 0.0.0.0 --port $PORT"),
                    place,
                    warning: Some(
                        "served by Flask's development server, because gunicorn is not among the dependencies: add a line `gunicorn` to requirements.txt"
                            .to_owned(),
                    ),
                });
            }
            missing("gunicorn (or waitress)", "add a line `gunicorn` to requirements.txt")
        }
        Kind::Streamlit if !has("streamlit") => {
            missing("streamlit", "add a line `streamlit` to requirements.txt")
        }
        Kind::Streamlit => good(format!(
            "streamlit run {} --server.port $PORT --server.address 0.0.0.0 --server.headless true",
            app.file
        )),
        Kind::Script => {
            let file = app.file.strip_prefix(&app.base).unwrap_or(&app.file).trim_start_matches('/');
            good(format!("python {file}"))
        }
    }
}

/// A Django project: `manage.py` and the `wsgi.py` or `asgi.py` nearest to it. Migrations run first, as on Railway.
fn django(files: &[PythonFile], has: &dyn Fn(&str) -> bool) -> Option<Result<Start, PortError>> {
    let manage = files
        .iter()
        .filter(|file| file.path == "manage.py" || file.path.ends_with("/manage.py"))
        .filter(|file| file.code.contains("django"))
        .min_by_key(|file| file.path.len())?;
    let base = manage.path.strip_suffix("manage.py").unwrap_or_default();
    let entry = |name: &str| {
        let below = files.iter().filter_map(|file| file.path.strip_prefix(base));
        let found = below.filter(|path| path.ends_with(name)).min_by_key(|path| path.len())?;
        Some(format!("{}:application", found.trim_end_matches(".py").replace('/', ".")))
    };
    let mut warning = None;
    let serve = match (entry("/wsgi.py"), entry("/asgi.py")) {
        (Some(wsgi), _) if has("gunicorn") => format!("gunicorn {wsgi} --bind 0.0.0.0:$PORT"),
        (_, Some(asgi)) if has("uvicorn") => format!("uvicorn {asgi} --host 0.0.0.0 --port $PORT"),
        (_, Some(asgi)) if has("daphne") => format!("daphne -b 0.0.0.0 -p $PORT {asgi}"),
        (Some(wsgi), _) if has("waitress") => format!("waitress-serve --listen=0.0.0.0:$PORT {wsgi}"),
        _ => {
            warning = Some(
                "served by Django's development server, because gunicorn is not among the dependencies: add a line `gunicorn` to requirements.txt"
                    .to_owned(),
            );
            "python manage.py runserver --noreload 0.0.0.0:$PORT".to_owned()
        }
    };
    let folder = base.trim_end_matches('/');
    let enter = if folder.is_empty() { String::new() } else { format!("cd {folder} && ") };
    let command = format!("{enter}python manage.py migrate --noinput && {serve}");
    Some(Ok(Start { command, place: manage.path.clone(), warning }))
}
