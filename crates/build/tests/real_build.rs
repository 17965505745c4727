//! Real builds with uv against PyPI, in a small stand-in for the sandbox: a mount namespace with its own root.
//!
//! Needs root, `unshare` and the network: `cargo test -p trackbed-build --test real_build -- --ignored --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "the stand-in for the sandbox is a test too"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use trackbed_build::source::{SourceLimits, receive};
use trackbed_build::{Config, LocalBuilder};
use trackbed_core::image::Image;
use trackbed_core::instance::{AppTree, Exit, InstanceSpec, LogStream};
use trackbed_core::ports::{BuildLog, BuildRequest, Builder, JobEnd, JobRunner, PlanRequest, PortError};
use trackbed_core::{Secret, ServiceId};

/// Runs jobs in a fresh root: /usr and a few of /etc, /app, the binds, and nothing else of the box; as nobody.
struct Runner;

const ROOT: &str = r#"
set -e
root=$(mktemp -d); mount -t tmpfs tmpfs "$root"; cd "$root"
mkdir -p usr etc/ssl dev proc tmp app; chmod 1777 tmp
for link in bin lib lib64 sbin; do ln -s "usr/$link" "$link"; done
mount --rbind /usr usr; mount --bind /etc/ssl etc/ssl; mount --rbind /dev dev; mount --rbind /proc proc
for file in resolv.conf hosts nsswitch.conf passwd ld.so.cache; do [ -e "/etc/$file" ] && cp -L "/etc/$file" etc/; done
mount --bind "$APP" app
printf '%s' "$BINDS" | while IFS='|' read -r from to mode; do
  if [ -d "$from" ]; then mkdir -p ".$to"; else mkdir -p ".$(dirname "$to")"; : > ".$to"; fi
  mount --bind "$from" ".$to"
  if [ "$mode" = ro ]; then mount -o remount,bind,ro ".$to"; fi
done
exec chroot --userspec=12345:12345 "$root" /usr/bin/env -i $ENV_FILE /bin/sh -c '. /env; cd /app; eval "$(cat /command)"'
"#;

#[async_trait]
impl JobRunner for Runner {
    async fn run_job(
        &self,
        spec: InstanceSpec,
        _: Duration,
        log: &dyn BuildLog,
    ) -> Result<JobEnd, PortError> {
        let AppTree::Directory { path } = &spec.app else { return Err(PortError::new("no directory")) };
        let binds: String = spec
            .binds
            .iter()
            .map(|b| format!("{}|{}|{}\n", b.host_path, b.inside, if b.writable { "rw" } else { "ro" }))
            .collect();
        let env: String = spec
            .env
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quoted(value.expose())))
            .collect();
        let script = ROOT.replace(
            "exec chroot",
            "printf '%s' \"$JOB_ENV\" > env; printf '%s' \"$JOB_COMMAND\" > command\nexec chroot",
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .env("APP", path)
            .env("BINDS", binds)
            .env("JOB_ENV", env)
            .env("JOB_COMMAND", format!("({}) 2>&1", spec.command))
            .env("ENV_FILE", "")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            log.line(LogStream::Out, &line.unwrap());
        }
        let code = child.wait().unwrap().code().unwrap_or(1);
        Ok(JobEnd::Exit(Exit::Code { code }))
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl BuildLog for Log {
    fn line(&self, _: LogStream, text: &str) {
        println!("    | {text}");
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Log {
    fn has(&self, part: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(part))
    }
}

fn builder(data_dir: &Path) -> LocalBuilder {
    let mut environment: Vec<(String, String)> = std::env::vars().collect();
    for (name, value) in &mut environment {
        if name == "PATH" {
            value.push_str(":/tmp/uvt/bin");
        }
    }
    LocalBuilder::new(Config {
        data_dir: data_dir.to_owned(),
        jobs: Arc::new(Runner),
        images: Arc::new(trackbed_core::ports::NoImages),
        environment,
        builds: 1,
        memory_bytes: None,
    })
}

#[tokio::test]
#[ignore = "needs root, unshare and PyPI"]
async fn a_box_without_uv_gets_it_by_pip_and_a_missing_python_is_named() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let environment =
        std::env::vars().filter(|(name, _)| name.starts_with("SSL_") || name.starts_with("PIP_"));
    let config = Config {
        data_dir: folder.path().to_owned(),
        jobs: Arc::new(Runner),
        images: Arc::new(trackbed_core::ports::NoImages),
        environment: environment.collect(),
        builds: 1,
        memory_bytes: None,
    };
    let builder = LocalBuilder::new(config);
    let case = |version| Case {
        files: vec![(".python-version", version), ("main.py", "x"), ("Procfile", "web: x")],
    };
    case("3.11").build(&builder, folder.path(), &Log::default()).await.unwrap();
    assert!(folder.path().join("tools/uv/bin/uv").is_file());
    let error = case("3.77").build(&builder, folder.path(), &Log::default()).await.unwrap_err();
    println!("{}", error.message);
    assert!(error.message.starts_with(
        "this source asks for Python 3.77 (.python-version:1), which is not on this box; found "
    ));
}

struct Case {
    files: Vec<(&'static str, &'static str)>,
}

impl Case {
    async fn build(&self, builder: &LocalBuilder, data_dir: &Path, log: &Log) -> Result<Image, PortError> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        let source = receive(&tar.into_inner().unwrap()[..], data_dir, SourceLimits::default(), None)?;
        let request = PlanRequest {
            source: source.clone(),
            overrides: Vec::new(),
            stored: Vec::new(),
            variables: Vec::new(),
        };
        let plan = builder.plan(request).await?;
        println!("    {}; {}", plan.summary, plan.config.start_command);
        let request = BuildRequest {
            source,
            plan,
            service: ServiceId::from_random([7; 10]),
            service_number: 7,
            variables: vec![("SECRET".to_owned(), Secret::new("hush".to_owned()))],
        };
        let begun = Instant::now();
        let built = builder.build(request, log).await;
        println!("    took {:?}", begun.elapsed());
        built
    }
}

fn venv(data_dir: &Path, image: &Image) -> PathBuf {
    let layer =
        image.layers.iter().map(|layer| data_dir.join(&layer.path).join(".venv")).find(|path| path.is_dir());
    layer.unwrap()
}

/// Starts the image as an instance would see it, asks it once, and returns what it said.
fn serve(data_dir: &Path, image: &Image) -> String {
    let lower: Vec<String> =
        image.layers.iter().map(|l| data_dir.join(&l.path).display().to_string()).collect();
    let env: String = image.env.iter().map(|(name, value)| format!("{name}='{value}' ")).collect();
    let script = format!(
        "set -e; root=$(mktemp -d); mount -t tmpfs t $root; cd $root; mkdir -p usr dev proc tmp app up/u up/w; \
         for l in bin lib lib64 sbin; do ln -s usr/$l $l; done; mount --rbind /usr usr; mount --rbind /dev dev; mount --rbind /proc proc; \
         mount -t overlay o -o lowerdir={},upperdir=$root/up/u,workdir=$root/up/w app; \
         exec chroot --userspec=12345:12345 $root /usr/bin/env -i {env} /bin/sh -c 'cd /app; timeout 20 uvicorn main:app --port 18999 >/dev/null 2>&1 & pid=$!; sleep 6; \
         python -c \"import urllib.request as u; print(u.urlopen(\\\"http://127.0.0.1:18999/openapi.json\\\").status)\"; kill $pid'",
        lower.join(":")
    );
    let out = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

const FASTAPI: &str = "fastapi\nuvicorn\ngunicorn\nsqlalchemy\naiosqlite\nsse-starlette\nhttpx\n";
const MAIN: &str = "from fastapi import FastAPI\napp = FastAPI()\n";

#[tokio::test]
#[ignore = "needs root, unshare and PyPI"]
async fn a_requirements_app_is_built_once_and_its_layer_reused() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let data_dir = folder.path();
    let builder = builder(data_dir);
    let log = Log::default();
    let case = |main| Case { files: vec![("requirements.txt", FASTAPI), ("main.py", main)] };
    println!("  cold");
    let first = case(MAIN).build(&builder, data_dir, &log).await.unwrap();
    assert!(venv(data_dir, &first).join("bin/uvicorn").is_file());
    assert_eq!(
        serve(data_dir, &first),
        "200\n",
        "the image runs, its environment at the place where it was made"
    );
    println!("  code only");
    let second = case("from fastapi import FastAPI\nhello = FastAPI()\n")
        .build(&builder, data_dir, &log)
        .await
        .unwrap();
    assert!(log.has("reused layer"));
    assert_eq!(first.layers[1], second.layers[1]);
    assert_ne!(first.digest, second.digest);
    println!("  warm cache, other lock");
    let text = "fastapi\nuvicorn\ngunicorn\nsqlalchemy\naiosqlite\nsse-starlette\nhttpx\nidna\n";
    let other = Case { files: vec![("requirements.txt", text), ("main.py", MAIN)] };
    other.build(&builder, data_dir, &log).await.unwrap();
    assert_eq!(std::fs::read_dir(data_dir.join("build")).unwrap().count(), 0);
    assert!(!log.has("hush"));
}

#[tokio::test]
#[ignore = "needs root, unshare and PyPI"]
async fn a_requirement_that_does_not_exist_is_named_by_its_line() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let builder = builder(folder.path());
    let failing =
        |text| Case { files: vec![("requirements.txt", text), ("main.py", MAIN), ("Procfile", "web: x")] };
    for (text, line) in [
        ("fastapi\ntrackbed-no-such-package==1\n", "requirements.txt:2: `trackbed-no-such-package==1`"),
        ("fastapi==99.99\n", "requirements.txt:1: `fastapi==99.99`"),
    ] {
        let error = failing(text).build(&builder, folder.path(), &Log::default()).await.unwrap_err();
        println!("{}\nhint: {:?}", error.message, error.hint);
        assert!(error.message.starts_with(line), "{}", error.message);
    }
    assert_eq!(std::fs::read_dir(folder.path().join("build")).unwrap().count(), 0);
}

#[tokio::test]
#[ignore = "needs root, unshare, PyPI and a Python 3.12 or 3.13 of pyenv"]
async fn a_python_of_pyenv_and_a_build_command_work() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let data_dir = folder.path();
    let builder = builder(data_dir);
    let case = Case {
        files: vec![
            (".python-version", "3.12"),
            ("requirements.txt", "anyio\nhttpx\n"),
            ("main.py", "x"),
            (
                "railway.json",
                r#"{"build": {"buildCommand": "python -c 'import httpx, os; print(os.environ[\"SECRET\"][::-1])' && mkdir -p static && echo made > static/x"},
              "deploy": {"startCommand": "python main.py"}}"#,
            ),
        ],
    };
    let log = Log::default();
    let image = case.build(&builder, data_dir, &log).await.unwrap();
    assert!(log.has("hsuh"), "the command sees the service's variables");
    assert!(image.host_paths[0].contains("3.12"), "{:?}", image.host_paths);
    assert_eq!(image.layers.len(), 2, "an unchanged environment is not copied");
    assert_eq!(
        std::fs::read_to_string(data_dir.join(&image.layers[0].path).join("static/x")).unwrap(),
        "made\n"
    );
    let pip = Case {
        files: vec![
            ("requirements.txt", "anyio\n"),
            ("main.py", "x"),
            (
                "railway.json",
                r#"{"build": {"buildCommand": "pip install six && rm -f main.py"}, "deploy": {"startCommand": "x"}}"#,
            ),
        ],
    };
    let image = pip.build(&builder, data_dir, &log).await.unwrap();
    assert_eq!(image.layers.len(), 1);
    assert!(venv(data_dir, &image).parent().unwrap().join("requirements.txt").is_file());
    let failing = Case {
        files: vec![
            ("main.py", "x"),
            (
                "railway.json",
                r#"{"build": {"buildCommand": "echo first; false"}, "deploy": {"startCommand": "x"}}"#,
            ),
        ],
    };
    let error = failing.build(&builder, data_dir, &log).await.unwrap_err();
    assert!(
        error.message.contains("exited with code 1") && error.message.contains("first"),
        "{}",
        error.message
    );
}

#[tokio::test]
#[ignore = "needs root, unshare and PyPI"]
async fn locks_and_projects_are_installed_exactly() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let data_dir = folder.path();
    let builder = builder(data_dir);
    let installed = |image: &Image, name: &str| {
        let libraries = std::fs::read_dir(venv(data_dir, image).join("lib")).unwrap();
        libraries.flatten().any(|library| library.path().join("site-packages").join(name).exists())
    };
    let poetry = Case {
        files: vec![
            (
                "pyproject.toml",
                "[tool.poetry]\nname='x'\n[tool.poetry.dependencies]\npython='^3.11'\nidna='*'\n",
            ),
            (
                "poetry.lock",
                "[[package]]\nname='idna'\nversion='3.6'\noptional=false\ngroups=['main']\n[[package]]\nname='six'\nversion='1.16.0'\ngroups=['dev']\n",
            ),
            ("Procfile", "web: x"),
        ],
    };
    let image = poetry.build(&builder, data_dir, &Log::default()).await.unwrap();
    assert!(installed(&image, "idna-3.6.dist-info") && !installed(&image, "six.py"));
    let project = Case {
        files: vec![
            (
                "pyproject.toml",
                "[project]\nname='demo'\nversion='1'\ndependencies=['idna']\n[project.scripts]\ndemo='demo:main'\n[build-system]\nrequires=['setuptools']\nbuild-backend='setuptools.build_meta'\n",
            ),
            ("src/demo/__init__.py", "def main(): pass\n"),
            ("Procfile", "web: demo"),
        ],
    };
    let image = project.build(&builder, data_dir, &Log::default()).await.unwrap();
    assert!(venv(data_dir, &image).join("bin/demo").is_file());
    let sub = Case {
        files: vec![
            ("backend/requirements.txt", "-r more.txt\n"),
            ("backend/more.txt", "idna==3.6\n"),
            ("backend/main.py", MAIN),
            ("Procfile", "web: cd backend && x"),
        ],
    };
    let image = sub.build(&builder, data_dir, &Log::default()).await.unwrap();
    assert!(installed(&image, "idna-3.6.dist-info"));
    let old = Case { files: vec![("requirements.txt", "gunicorn==20.1.0\n"), ("Procfile", "web: x")] };
    let image = old.build(&builder, data_dir, &Log::default()).await.unwrap();
    assert!(installed(&image, "pkg_resources"));
    let nothing = Case { files: vec![("main.py", "print()\n"), ("Procfile", "web: python main.py")] };
    let image = nothing.build(&builder, data_dir, &Log::default()).await.unwrap();
    assert!(venv(data_dir, &image).join("bin/python").exists());
}

/// A release of Node, as far as it is asked for its version.
const NODE: &str = "#!/bin/sh\necho v99.1.0\n";

/// Makes what nodejs.org/dist has, with one release in it.
fn releases(folder: &Path) {
    let name = "node-v99.1.0-linux-x64";
    let bin = folder.join(name).join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(folder.join("v99.1.0")).unwrap();
    let script = format!(
        "cd '{}' && chmod 755 {name}/bin/* && tar czf v99.1.0/{name}.tar.gz {name} && cd v99.1.0 && sha256sum *.tar.gz > SHASUMS256.txt",
        folder.display()
    );
    std::fs::write(bin.join("node"), NODE).unwrap();
    std::fs::write(bin.join("npm"), NODE).unwrap();
    let index = r#"[{"version": "v99.1.0", "date": "2026-01-01", "files": ["linux-x64"], "lts": "Test"}]"#;
    std::fs::write(folder.join("index.json"), index).unwrap();
    assert!(Command::new("sh").args(["-c", &script]).status().is_ok_and(|status| status.success()));
}

/// Serves the files of a folder as long as the test runs; returns the port.
fn serve_files(folder: &Path) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let path =
                lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
            for _ in lines.by_ref().take_while(|line| !line.is_empty()) {}
            let file = std::fs::read(folder.join(path.trim_start_matches('/')));
            let (status, body) = file.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            let _ = std::io::Write::write_all(&mut stream, &[head.into_bytes(), body].concat());
        }
    });
    port
}

#[tokio::test]
#[ignore = "needs npm's registry, Node and x86_64"]
async fn a_node_that_the_box_has_not_is_fetched_and_checked() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    releases(&folder.path().join("dist"));
    let mirror = format!("http://127.0.0.1:{}/", serve_files(&folder.path().join("dist")));
    let builder = |data_dir: &Path| {
        let mut environment: Vec<(String, String)> = std::env::vars().collect();
        environment.push(("MISE_NODE_MIRROR_URL".to_owned(), mirror.clone()));
        LocalBuilder::new(Config {
            data_dir: data_dir.to_owned(),
            jobs: Arc::new(Runner),
            images: Arc::new(trackbed_core::ports::NoImages),
            environment,
            builds: 1,
            memory_bytes: None,
        })
    };
    let plan = async |data_dir: &Path, engines: &'static str| {
        let case = Case { files: vec![("package.json", engines), ("index.js", "")] };
        case.build(&builder(data_dir), data_dir, &Log::default()).await
    };
    let data_dir = folder.path().join("one");
    let image = plan(&data_dir, r#"{"engines": {"node": "^99"}}"#).await.unwrap();
    let fetched = data_dir.join("tools/mise/data/installs/node/99.1.0");
    assert_eq!(image.host_paths, [fetched.display().to_string()]);
    let error = plan(&data_dir, r#"{"engines": {"node": "^98"}}"#).await.unwrap_err().message;
    for word in ["Node.js ^98 (package.json:1)", "99.1.0", "it was not fetched", "node@98"] {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
    std::fs::write(folder.path().join("dist/v99.1.0/node-v99.1.0-linux-x64.tar.gz"), "something else")
        .unwrap();
    let error =
        plan(&folder.path().join("two"), r#"{"engines": {"node": "^99"}}"#).await.unwrap_err().message;
    println!("{error}");
    assert!(error.contains("it was not fetched") && error.contains("sha256:"), "{error}");
}

#[tokio::test]
#[ignore = "needs root, unshare, npm and its registry, and no pnpm"]
async fn pnpm_is_called_by_npm_and_a_stale_lock_of_npm_is_told() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let builder = builder(folder.path());
    let package = r#"{"packageManager": "pnpm@9.15.4", "dependencies": {"is-number": "7.0.0"}}"#;
    let files = vec![("package.json", package), ("index.js", "")];
    let log = Log::default();
    let image = Case { files }.build(&builder, folder.path(), &log).await.unwrap();
    assert!(log.has("npm exec --yes -- pnpm@9.15.4 install --prod"));
    let layers =
        image.layers.iter().map(|layer| folder.path().join(&layer.path).join("node_modules/is-number"));
    assert!(layers.into_iter().any(|package| package.join("package.json").exists()));
    let lock = r#"{"name": "x", "lockfileVersion": 3, "packages": {"": {"dependencies": {}}}}"#;
    let package = r#"{"dependencies": {"is-number": "7.0.0"}}"#;
    let files = vec![("package.json", package), ("package-lock.json", lock), ("index.js", "")];
    let error = Case { files }.build(&builder, folder.path(), &log).await.unwrap_err();
    println!("{}\n{:?}", error.message, error.hint);
    assert!(error.message.contains("the lock does not fit package.json"), "{}", error.message);
}
