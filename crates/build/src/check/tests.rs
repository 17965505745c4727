//! Rules on small sources: what they find, and what they leave alone.

use std::path::Path;

use trackbed_core::finding::{Level, Rule};

use crate::check::app::{Facts, Side};
use crate::check::look;

/// A source, and what is known about its service.
struct Case {
    files: Vec<(&'static str, String)>,
    facts: Facts,
}

const START: &str = "gunicorn main:app --workers 4 --bind 0.0.0.0:$PORT";

/// A Python source of one file, whose service has a volume at /data.
fn python(code: &str) -> Case {
    let facts = Facts {
        provider: "python".into(),
        start: Some((START.into(), "railway.json:3".into())),
        health: Some(("/".into(), "railway.json:4".into())),
        is_service: true,
        mounts: vec!["/data".into()],
        ..Facts::default()
    };
    Case { files: vec![("main.py", code.to_owned())], facts }
}

fn other(provider: &str, file: &'static str, start: &str, code: &str) -> Case {
    let mut case = python("");
    case.files = vec![(file, code.to_owned())];
    case.facts.provider = provider.into();
    case.facts.start = Some((start.into(), "railway.json:3".into()));
    case
}

impl Case {
    fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.push((name, text.to_owned()));
        self
    }

    fn start(mut self, command: &str) -> Self {
        self.facts.start = Some((command.to_owned(), "railway.json:3".into()));
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.facts);
        self
    }

    fn set(self, name: &str, value: &str) -> Self {
        self.with(|facts| drop(facts.variables.insert(name.into(), value.into())))
    }

    /// Returns what is found: `rule level place`.
    fn found(&self) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &self.files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            trackbed_stdx::files::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        }
        let found = look(folder.path(), None, &self.facts, None).list;
        found
            .iter()
            .map(|finding| format!("{} {} {}", finding.rule.id(), finding.level, finding.place()))
            .collect()
    }

    fn is_clean(&self) {
        assert_eq!(self.found(), Vec::<String>::new(), "{:?}", self.files);
    }

    fn finds(&self, expected: &[&str]) {
        assert_eq!(self.found(), expected, "{:?}", self.files);
    }
}

#[test]
fn a_relative_sqlite_path_is_outside_the_volumes() {
    let outside = "data-outside-volume error main.py:1";
    for code in [
        "engine = create_engine('sqlite:///./app.db')",
        "URL = \"sqlite+aiosqlite:///app.db\"",
        "URL = 'sqlite:////srv/app.db'",
        "URL = os.getenv('DATABASE_URL', 'sqlite:///./app.db')",
        "URL = os.environ.get('DATABASE_URL') or 'sqlite:///./app.db'",
        "import sqlite3; db = sqlite3.connect('store.db')",
        "import sqlite3; db = sqlite3.connect(os.path.join(os.path.dirname(__file__), 'store.db'))",
        "import aiosqlite; db = aiosqlite.connect(os.getenv('DB', 'store.db'))",
        "import chromadb; db = chromadb.PersistentClient(path='./chroma')",
        "URL = 'sqlite:///' + os.path.join(basedir, 'store.db')",
    ] {
        python(code).start("gunicorn main:app").finds(&[outside]);
    }
    python("import sqlite3\nNAME = 'store.db'\ndb = sqlite3.connect(NAME)")
        .finds(&["data-outside-volume error main.py:3"]);
}

#[test]
fn a_path_inside_a_volume_or_another_database_is_left_alone() {
    for code in [
        "URL = 'sqlite:////data/app.db'",
        "URL = 'sqlite:///../data/app.db'",
        "URL = 'sqlite://'",
        "URL = 'sqlite:///:memory:'",
        "URL = 'postgresql://u@h/d'",
        "# URL = 'sqlite:///app.db'",
        "\"\"\"\nURL = 'sqlite:///app.db'\n\"\"\"",
        "'sqlite:///app.db'",
        "if url.startswith('sqlite:///x'): pass",
        "if url == 'sqlite:///x.db': pass",
        "url = url.replace('sqlite://', 'sqlite+aiosqlite://')",
        "x = Field(description='sqlite:///app.db')",
        "URL = f'sqlite:///{path}'",
        "import sqlite3; db = sqlite3.connect(path)",
        "import sqlite3; db = sqlite3.connect('/tmp/x.db')",
        "import sqlite3; db = sqlite3.connect('cache.db')",
        "import psycopg; db = psycopg.connect('store.db')",
        "def f(path='store.db'): pass",
        "if DEBUG:\n    URL = 'sqlite:///app.db'",
    ] {
        python(code).is_clean();
    }
    python("URL = os.getenv('DATABASE_URL', 'sqlite:///./app.db')")
        .set("DATABASE_URL", "sqlite:////data/a.db")
        .is_clean();
    python("URL = 'sqlite:///data/a.db'").with(|facts| facts.mounts = vec!["/app/data".into()]).is_clean();
}

#[test]
fn where_nothing_is_known_of_volumes_only_relative_paths_are_told() {
    let local = |facts: &mut Facts| (facts.is_service, facts.mounts) = (false, Vec::new());
    python("URL = 'sqlite:////data/app.db'").with(local).is_clean();
    python("URL = 'sqlite:///app.db'").with(local).finds(&["data-outside-volume warning main.py:1"]);
}

#[test]
fn a_variable_that_names_a_relative_database_is_told_without_its_value() {
    let case = python("").set("DATABASE_URL", "sqlite:///./secret-name.db");
    case.finds(&["data-outside-volume error "]);
    let folder = tempfile::tempdir().unwrap();
    let found = look(folder.path(), None, &case.facts, None).list;
    assert!(
        found[0].what.contains("DATABASE_URL") && !found[0].to_string().contains("secret-name"),
        "{}",
        found[0]
    );
}

#[test]
fn databases_of_other_languages_are_found() {
    let outside = |file: &str| format!("data-outside-volume error {file}");
    let node = other(
        "node",
        "server.js",
        "node server.js",
        "const Database = require('better-sqlite3')\nconst db = new Database('./app.db')",
    );
    node.finds(&[&outside("server.js:2")]);
    other(
        "node",
        "server.js",
        "node server.js",
        "import Database from 'better-sqlite3'\nnew Database(process.env.DB ?? '/data/app.db')",
    )
    .is_clean();
    other(
        "go",
        "main.go",
        "./main",
        "import \"database/sql\"\nfunc main() { db, err := sql.Open(\"sqlite3\", \"./app.db\") }",
    )
    .finds(&[&outside("main.go:2")]);
    other(
        "go",
        "main.go",
        "./main",
        "import \"database/sql\"\nfunc main() { sql.Open(\"postgres\", \"app.db\") }",
    )
    .is_clean();
    other(
        "rust",
        "src/main.rs",
        "./app",
        "use rusqlite::Connection;\nfn main() { let c = Connection::open(\"app.db\").unwrap(); }",
    )
    .finds(&[&outside("src/main.rs:2")]);
    other("rust", "src/main.rs", "./app", "fn main() { let u = \"sqlite:///data/app.db\"; }\n#[cfg(test)]\nmod tests { const U: &str = \"sqlite://x.db\"; }")
        .is_clean();
    let schema = "datasource db {\n  provider = \"sqlite\"\n  url = \"file:./dev.db\"\n}\n";
    other("node", "server.js", "node server.js", "")
        .file("prisma/schema.prisma", schema)
        .finds(&[&outside("prisma/schema.prisma:3")]);
}

#[test]
fn required_variables_that_are_not_set_are_told() {
    for code in [
        "KEY = os.environ['KEY']",
        "KEY: str = environ[\"KEY\"]",
        "with x:\n    KEY = os.environ['KEY']",
        "class C:\n    KEY = os.environ['KEY']",
        "KEY = os.getenv('KEY')\nif not KEY:\n    raise RuntimeError('no')",
        "KEY = os.environ.get('KEY')\nif KEY is None:\n    sys.exit(1)",
        "KEY = os.getenv('KEY')\nassert KEY, 'no'",
        "N = int(os.getenv('KEY'))",
        "from decouple import config\nKEY = config('KEY')",
    ] {
        let found = python(code).found();
        assert!(
            found.len() == 1 && found[0].starts_with("variable-unset error main.py:"),
            "{code}: {found:?}"
        );
        python(code).set("KEY", "x").is_clean();
    }
}

#[test]
fn variables_that_the_app_can_do_without_are_left_alone() {
    for code in [
        "KEY = os.environ.get('KEY')",
        "KEY = os.getenv('KEY')",
        "KEY = os.getenv('KEY', 'x')",
        "os.environ['KEY'] = 'x'",
        "del os.environ['KEY']",
        "P = os.environ['PORT']",
        "R = os.environ['RAILWAY_SERVICE_NAME']",
        "# KEY = os.environ['KEY']",
        "s = \"os.environ['KEY']\"",
        "def f():\n    return os.environ['KEY']",
        "f = lambda: os.environ['KEY']",
        "if 'KEY' in os.environ:\n    KEY = os.environ['KEY']",
        "try:\n    KEY = os.environ['KEY']\nexcept KeyError:\n    KEY = ''",
        "KEY = os.environ['KEY'] if x else ''",
        "os.environ.setdefault('KEY', 'x')\nKEY = os.environ['KEY']",
        "KEY = os.getenv('KEY')\nif not KEY:\n    print('none')",
        "KEY = os.getenv('KEY')\nif not KEY and PRODUCTION:\n    raise E",
        "KEY = os.getenv('KEY') or make()\nif not KEY:\n    raise E",
        "from decouple import config\nKEY = config('KEY', default='')",
    ] {
        python(code).is_clean();
    }
}

const SETTINGS: &str =
    "from pydantic_settings import BaseSettings, SettingsConfigDict\nclass Settings(BaseSettings):\n";

#[test]
fn settings_classes_say_what_they_need() {
    for (body, line) in [
        ("    api_key: str\n", 3),
        ("    api_key: SecretStr = Field(...)\n", 3),
        ("    api_key: str = Field(min_length=3)\n", 3),
        ("    api_key: str | None\n", 3),
        ("    other: str = 'x'\n    key: str = Field(alias='API_KEY')\n", 4),
        ("    model_config = SettingsConfigDict(env_prefix='API_')\n    key: str\n", 4),
    ] {
        let code = format!("{SETTINGS}{body}settings = Settings()\n");
        python(&code).finds(&[&format!("variable-unset error main.py:{line}")]);
        python(&code).set("API_KEY", "x").is_clean();
        python(&code)
            .with(|facts| facts.is_service = false)
            .finds(&[&format!("variable-unset note main.py:{line}")]);
    }
    let by_base =
        format!("{SETTINGS}    api_key: str\nclass Mine(Settings):\n    api_key: str = 'x'\nMine()\n");
    python(&by_base).is_clean();
    let in_another = python("from config import settings\n")
        .file("config.py", &format!("{SETTINGS}    api_key: str\ns = Settings()\n"));
    in_another.finds(&["variable-unset error config.py:3"]);
}

#[test]
fn settings_that_are_filled_otherwise_are_left_alone() {
    for body in [
        "    api_key: str = ''\nSettings()",
        "    api_key: str = Field(default='x')\nSettings()",
        "    api_key: str = Field('x')\nSettings()",
        "    api_keys: dict[str, str] = Field(default_factory=dict)\nSettings()",
        "    kind: ClassVar[str]\nSettings()",
        "    _own: str\nSettings()",
        "    api_key: str\n",
        "    api_key: str\nSettings(api_key='x')",
        "    api_key: str\nSettings(**given)",
        "    api_key: str\n    @classmethod\n    def settings_customise_sources(cls): ...\nSettings()",
        "    @property\n    def url(self) -> str:\n        name: str\n        return name\nSettings()",
    ] {
        python(&format!("{SETTINGS}{body}\n")).is_clean();
    }
    python("class Item(BaseModel):\n    api_key: str\nItem()\n").is_clean();
    python(&format!("{SETTINGS}    api_key: str\nSettings()\n"))
        .file(".env", "API_KEY=x\n")
        .set("API_KEY", "")
        .is_clean();
}

#[test]
fn required_variables_of_other_languages_are_told() {
    let unset = |level: &str, place: &str| format!("variable-unset {level} {place}");
    let node = |code: &str| other("node", "server.js", "node server.js", code);
    node("if (!process.env.KEY) { throw new Error('x') }").finds(&[&unset("error", "server.js:1")]);
    node("const key = process.env.KEY\nif (!key) process.exit(1)").finds(&[&unset("error", "server.js:1")]);
    for code in [
        "const key = process.env.KEY || 'x'\nif (!key) { throw new Error() }",
        "function f() { if (!process.env.KEY) { throw new Error() } }",
        "if (!process.env.KEY) { console.warn('x') }",
        "if (prod && !process.env.KEY) { throw new Error() }",
        "// if (!process.env.KEY) throw 1",
        "const key = process.env.KEY",
    ] {
        node(code).is_clean();
    }
    let go = |code: &str| other("go", "main.go", "./main", code);
    go("func main() {\n key := os.Getenv(\"KEY\")\n if key == \"\" {\n  log.Fatal(\"x\")\n }\n}")
        .finds(&[&unset("warning", "main.go:2")]);
    go("func main() {\n key := os.Getenv(\"KEY\")\n if key == \"\" {\n  key = \"x\"\n }\n}").is_clean();
    let rust = |code: &str| other("rust", "src/main.rs", "./app", code);
    rust("fn main() { let k = std::env::var(\"KEY\").expect(\"KEY\"); }")
        .finds(&[&unset("warning", "src/main.rs:1")]);
    rust("fn main() { let k = env::var(\"KEY\").unwrap_or_default(); if s3 { env::var(\"S3\").unwrap(); } }")
        .is_clean();
}

#[test]
fn what_the_example_of_variables_leaves_open_is_one_note() {
    let code = "A = os.getenv('A')\nB = os.getenv('B')\nC = os.getenv('C', 'x')\n";
    let example = "# x\nA=\nB=\"\"\nC=\nD=\n";
    python(code).file(".env.example", example).finds(&["variable-unset note .env.example:2"]);
    python(code).file(".env.example", "A=1\nB=2\n").is_clean();
}

#[test]
fn servers_that_do_not_listen_where_they_should_are_told() {
    let (port, local) = ("port-fixed warning ", "loopback-only warning ");
    for (command, expected) in [
        ("uvicorn main:app --host 0.0.0.0 --port 8000", vec![port]),
        ("uvicorn main:app", vec![port, local]),
        ("cd x && uvicorn main:app --port $PORT", vec![local]),
        ("gunicorn main:app -b 127.0.0.1:8000", vec![port, local]),
        ("gunicorn main:app --bind=0.0.0.0:5000", vec![port]),
        ("hypercorn main:app --bind 0.0.0.0:$PORT", vec![]),
        ("gunicorn main:app", vec![]),
        ("gunicorn main:app -b 0.0.0.0:${PORT:-8000}", vec![]),
        ("gunicorn main:app --bind unix:/tmp/s", vec![]),
        ("gunicorn main:app -c conf.py", vec![]),
        ("uvicorn main:app --host 0.0.0.0 --port \"$PORT\"", vec![]),
        ("sh -c 'uvicorn main:app'", vec![]),
        ("streamlit run app.py --server.port $PORT", vec![]),
        ("flask run --host=0.0.0.0", vec![port]),
        ("flask db upgrade", vec![]),
        ("flask run -p $PORT -h 0.0.0.0", vec![]),
    ] {
        python("").start(command).finds(&expected);
    }
    python("")
        .start("uvicorn main:app --host 0.0.0.0 --port 8000")
        .with(|facts| facts.port = Some(8000))
        .is_clean();
}

#[test]
fn code_that_does_not_listen_where_it_should_is_told() {
    let script = |code: &str| python(code).start("python main.py");
    let (port, local) = ("port-fixed warning main.py:1", "loopback-only warning main.py:1");
    script("uvicorn.run(app, host='0.0.0.0', port=8000)").finds(&[port]);
    script("uvicorn.run('main:app')").finds(&[port, local]);
    script("uvicorn.run(app, host='0.0.0.0', port=int(os.getenv('PORT', 8000)))").is_clean();
    script("uvicorn.run(app, host='0.0.0.0', port=settings.port)").is_clean();
    script("uvicorn.run(app, **options)").is_clean();
    script("subprocess.run(['x'])").is_clean();
    // The server of the start command imports the file, and its last lines are not run.
    python("if __name__ == '__main__':\n    uvicorn.run(app, port=8000)").is_clean();
    let node = |code: &str| other("node", "server.js", "node server.js", code);
    node("app.listen(3000)").finds(&["port-fixed warning server.js:1"]);
    node("const port = 3000\napp.listen(port, () => {})").finds(&["port-fixed warning server.js:2"]);
    node("app.listen(process.env.PORT || 3000)").is_clean();
    node("const { PORT } = process.env\napp.listen(PORT)").is_clean();
    node("server.listen({ port: config.port })").is_clean();
    let go = |code: &str| other("go", "main.go", "./main", code);
    go("func main() { http.ListenAndServe(\":8080\", nil) }").finds(&["port-fixed warning main.go:1"]);
    go("func main() { go http.ListenAndServe(\"localhost:6060\", nil); http.ListenAndServe(\":\"+os.Getenv(\"PORT\"), nil) }").is_clean();
    let rust = |code: &str| other("rust", "src/main.rs", "./app", code);
    rust("fn main() { TcpListener::bind(\"127.0.0.1:3000\") }")
        .finds(&["port-fixed warning src/main.rs:1", "loopback-only warning src/main.rs:1"]);
    rust("fn main() { TcpListener::bind(format!(\"0.0.0.0:{port}\")) }").is_clean();
}

fn healthy(code: &str) -> Case {
    python(code).with(|facts| facts.health = Some(("/api/health".into(), "railway.json:4".into())))
}

#[test]
fn a_health_path_that_asks_for_a_login_is_an_error() {
    for code in [
        "@app.get('/api/health', dependencies=[Depends(verify_token)])\ndef health(): ...",
        "@router.get('/health')\nasync def health(\n    user = Depends(get_current_user)): ...",
        "@login_required\n@app.route('/api/health')\ndef health(): ...",
        "router = APIRouter(dependencies=[Depends(require_auth)])\n@router.get('/health')\ndef health(): ...",
        "@app.get('/health')\ndef health(key: str = Security(api_key_header)): ...",
    ] {
        let found = healthy(code).found();
        assert!(found.len() == 1 && found[0].starts_with("health-protected error"), "{code}: {found:?}");
    }
    let middleware = "@app.get('/api/health')\ndef h(): ...\n@app.middleware('http')\nasync def guard(request, call_next):\n    if not request.headers.get('x'):\n        return JSONResponse({}, status_code=401)\n    return await call_next(request)\n";
    healthy(middleware).finds(&["health-protected warning main.py:6"]);
}

#[test]
fn open_health_paths_are_left_alone() {
    for code in [
        "@app.get('/api/health')\ndef health(db = Depends(get_db)): ...",
        "@router.get('/health')\ndef health(): ...\n@router.get('/me')\ndef me(user = Depends(get_current_user)): ...",
        "@router.get('/health')\ndef health(user = Depends(get_optional_user)): ...",
        "urlpatterns = [path('health/', health)]",
        "@app.get('/health')\ndef h(): ...\n@app.middleware('http')\nasync def guard(request, call_next):\n    if request.url.path in OPEN: return await call_next(request)\n    return JSONResponse({}, status_code=401)\n",
    ] {
        healthy(code).is_clean();
    }
    healthy("@app.get('/me')\ndef me(): ...").finds(&["health-unanswered warning "]);
}

#[test]
fn a_missing_health_path_is_a_note_unless_a_route_is_there() {
    let unset = |code: &str| python(code).with(|facts| facts.health = None);
    unset("x = 1").finds(&["health-unset note "]);
    unset("x = 1\n@app.get('/healthz')\ndef h(): ...").finds(&["health-unset warning main.py:2"]);
}

const STREAMS: &str = "KIND = 'text/event-stream'\n";

#[test]
fn middleware_that_holds_events_back_is_told() {
    let gzip = format!("{STREAMS}app.add_middleware(GZipMiddleware, minimum_size=1)\n");
    let held = "stream-held-back warning main.py:2";
    python(&gzip).file("requirements.txt", "fastapi==0.110.0\n").finds(&[held]);
    python(&gzip).file("requirements.txt", "starlette==0.45.3\nfastapi==0.115.8\n").finds(&[held]);
    python(&gzip).file("requirements.txt", "fastapi==0.116.1\n").is_clean();
    python(&gzip).file("requirements.txt", "fastapi\n").is_clean();
    python("app.add_middleware(GZipMiddleware)\n").file("requirements.txt", "fastapi==0.110.0\n").is_clean();
    let collecting = |more: &str| {
        format!(
            "{STREAMS}async def log(request, call_next):\n    response = await call_next(request)\n    {more}body = b''.join([p async for p in response.body_iterator])\n    return Response(body)\n"
        )
    };
    python(&collecting("")).finds(&["stream-held-back warning main.py:4"]);
    python(&collecting("if response.headers['content-type'] == 'text/event-stream': return response\n    "))
        .is_clean();
    python(&format!("{STREAMS}async def log(request, call_next):\n    response = await call_next(request)\n    return response\n")).is_clean();
}

#[test]
fn express_compression_is_told_where_nothing_flushes() {
    let code =
        "const compression = require('compression')\napp.use(compression())\nres.type('text/event-stream')\n";
    let node = |code: &str| other("node", "server.js", "node server.js", code);
    node(code).finds(&["stream-held-back warning server.js:2"]);
    node(&format!("{code}res.flush()\n")).is_clean();
    node("const compression = require('compression')\napp.use(compression())\n").is_clean();
    node(&code.replace("compression()", "compression({ filter })")).is_clean();
}

#[test]
fn several_processes_on_one_embedded_store_are_told() {
    let chroma = "import chromadb\nc = chromadb.PersistentClient(path='/data/c')\n";
    python(chroma).finds(&["several-writers warning main.py:2"]);
    let duck = "import duckdb\nc = duckdb.connect('/data/c.duckdb')\n";
    python(duck).finds(&["several-writers error main.py:2"]);
    for command in [
        "gunicorn main:app --workers 1",
        "gunicorn main:app",
        "gunicorn main:app -w $N",
        "uvicorn main:app --host 0.0.0.0 --port $PORT",
    ] {
        python(duck).start(command).is_clean();
    }
    let beside = |code: &str, worker: &'static str, count| {
        let side = Side { name: "worker".into(), command: "python worker.py".into(), count };
        let case = python(code).start("gunicorn main:app").file("worker.py", worker);
        case.with(|facts| facts.sides = vec![side])
    };
    let other = "import duckdb\nimport os\nc = duckdb.connect('/data/other.duckdb')\n";
    beside(duck, "from main import c\n", 1).finds(&["several-writers error main.py:2"]);
    beside(duck, "import duckdb\nc = duckdb.connect('/data/c.duckdb')\n", 1)
        .finds(&["several-writers error worker.py:2"]);
    beside(duck, "print()\n", 2).is_clean();
    beside(duck, other, 1).is_clean();
    beside(duck, other, 2).finds(&["several-writers error worker.py:3"]);
    python(duck)
        .start("gunicorn main:app")
        .set("WEB_CONCURRENCY", "3")
        .finds(&["several-writers error main.py:2"]);
    python(duck)
        .start("gunicorn main:app")
        .file("gunicorn.conf.py", "workers = 2\n")
        .finds(&["several-writers error main.py:2"]);
    python("import duckdb\nc = duckdb.connect()\nd = duckdb.connect(':memory:')\ne = duckdb.connect('/data/x', read_only=True)").is_clean();
    python("import chromadb\nc = chromadb.HttpClient(host='x')").is_clean();
}

#[test]
fn an_old_sqlite_is_told_where_a_database_is_in_wal_mode() {
    let old = |code: &str| python(code).with(|facts| facts.sqlite = Some("3.40.1".into()));
    old("db.execute('PRAGMA journal_mode=WAL')").finds(&["sqlite-old warning main.py:1"]);
    old("db.execute('PRAGMA journal_mode = wal')")
        .start("gunicorn main:app")
        .finds(&["sqlite-old note main.py:1"]);
    old("db.execute('PRAGMA foreign_keys=ON')").is_clean();
    python("db.execute('PRAGMA journal_mode=WAL')")
        .with(|facts| facts.sqlite = Some("3.51.3".into()))
        .is_clean();
}

#[test]
fn only_code_that_the_app_loads_is_looked_at() {
    let tool = "KEY = os.environ['KEY']\n";
    python("from app import core\n")
        .file("app/__init__.py", "")
        .file("app/core.py", "")
        .file("tool.py", tool)
        .is_clean();
    let package = python("from app.core import x\n").file("app/__init__.py", tool).file("app/core.py", "");
    package.finds(&["variable-unset error app/__init__.py:1"]);
    let relative = python("from app.web import x\n")
        .file("app/web.py", "from . import a\nfrom .b import c\n")
        .file("app/a.py", tool);
    relative.finds(&["variable-unset error app/a.py:1"]);
    let folder = python("")
        .file("api/main.py", "import core\n")
        .file("api/core.py", tool)
        .start("cd api && gunicorn main:app");
    folder.finds(&["variable-unset error api/core.py:1"]);
    let node = other("node", "src/server.ts", "tsx src/server.ts", "import { a } from './a.js'\n");
    let scripts = "{\"scripts\": {\"start\": \"npm run serve\", \"serve\": \"node server.js\"}}";
    other("node", "server.js", "npm run start", "app.listen(3000)")
        .file("package.json", scripts)
        .file("release.js", "app.listen(4000)")
        .finds(&["port-fixed warning server.js:1"]);
    node.file("src/a.ts", "app.listen(3000)")
        .file("src/b.ts", "app.listen(3000)")
        .finds(&["port-fixed warning src/a.ts:1"]);
}

#[test]
fn odd_files_come_to_an_end() {
    let deep = "(".repeat(50_000);
    let case = python(&deep).file("b.py", "\0\u{1}").file("c.py", "x = '''");
    case.is_clean();
    other("node", "server.js", "node server.js", &"{".repeat(50_000)).is_clean();
    let many = "if (!a) { throw 1 }\n".repeat(20_000);
    other("node", "server.js", "node server.js", &many).is_clean();
}

#[test]
fn ids_of_rules_are_unique_and_their_levels_are_kept() {
    let mut ids: Vec<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), Rule::ALL.len());
    assert!(Level::Error < Level::Warning && Level::Warning < Level::Note);
}
