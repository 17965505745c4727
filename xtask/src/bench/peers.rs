//! The contestants: nginx, haproxy and our edge, each with one worker on the first processor, in front of one upstream.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::load;
use crate::http;
use crate::shell::{is_root, read, target_dir};

/// Host that the proxies serve.
pub(super) const HOST: &str = "bench.test";
/// Processor of the proxies; everything else is on [`REST_CPU`].
const PROXY_CPU: &str = "0";
/// Processor of upstream and load.
pub(super) const REST_CPU: &str = "1";
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Which proxy, and how it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Buffers that take a 64 KB answer in one go.
    Nginx,
    /// nginx with the buffers it has by itself: 8 of 4 KB.
    NginxDefault,
    /// nginx as one sets it for event streams: `proxy_buffering off`.
    NginxUnbuffered,
    /// haproxy with its own defaults, connections to the upstream shared as far as possible.
    Haproxy,
    /// haproxy with `option http-no-delay`, without which it holds events back.
    HaproxyNoDelay,
    Trackbed,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Nginx | Kind::NginxUnbuffered => "nginx",
            Kind::NginxDefault => "nginx-default",
            Kind::Haproxy | Kind::HaproxyNoDelay => "haproxy",
            Kind::Trackbed => "trackbed",
        }
    }
}

/// A running proxy, or the upstream. Ends with this value.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) port: u16,
    child: Child,
}

/// Where proxies are made: a folder for their files, what is behind them, and how many client connections they must take.
pub(super) struct Bench {
    pub(super) folder: PathBuf,
    pub(super) upstream_port: u16,
    pub(super) connections: u64,
}

impl Bench {
    /// Starts a proxy and waits until `path` is answered through it.
    pub(super) fn start(&self, kind: Kind, path: &str) -> Result<Server> {
        let port = free_port()?;
        let folder = self.folder.join(format!("{kind:?}").to_lowercase());
        std::fs::create_dir_all(&folder)?;
        let mut command = pinned(PROXY_CPU);
        match kind {
            Kind::Nginx | Kind::NginxDefault | Kind::NginxUnbuffered => {
                let buffers = match kind {
                    Kind::Nginx => "proxy_buffer_size 16k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;",
                    Kind::NginxUnbuffered => "proxy_buffering off; proxy_read_timeout 1h;",
                    _ => "",
                };
                let server = self.nginx_server(port, buffers);
                let connections = self.connections * 2 * NGINX_SPARE_IN_8 / 8 + SPARE_CONNECTIONS;
                nginx(&mut command, &folder, connections, &server)?;
            }
            Kind::Haproxy | Kind::HaproxyNoDelay => {
                let no_delay = if kind == Kind::HaproxyNoDelay { "option http-no-delay" } else { "" };
                let config = folder.join("haproxy.cfg");
                std::fs::write(&config, self.haproxy_config(port, no_delay))?;
                command.args(["haproxy", "-db", "-f"]).arg(config);
            }
            Kind::Trackbed => {
                command.arg(target_dir().join("release/examples/edge-standalone"));
                command.arg(format!("127.0.0.1:{port}")).arg(&folder).arg("1");
                command.arg(format!("{HOST}=tcp:127.0.0.1:{}", self.upstream_port));
            }
        }
        Server::spawn(kind.name(), command, &folder, port, path)
    }

    fn nginx_server(&self, port: u16, buffers: &str) -> String {
        let upstream = self.upstream_port;
        format!(
            "upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
             server {{
               listen 127.0.0.1:{port} backlog=4096; server_name {HOST};
               location / {{
                 proxy_pass http://app; proxy_http_version 1.1; {buffers}
                 proxy_set_header Connection \"\";
                 proxy_set_header Host $host;
                 proxy_set_header X-Forwarded-For $remote_addr;
                 proxy_set_header X-Forwarded-Proto $scheme;
                 proxy_set_header X-Forwarded-Host $http_host;
               }}
             }}"
        )
    }

    fn haproxy_config(&self, port: u16, no_delay: &str) -> String {
        let (upstream, connections) = (self.upstream_port, self.connections);
        format!(
            "global
  nbthread 1
  maxconn {connections}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  option forwardfor
  {no_delay}
  http-reuse always
frontend in
  bind 127.0.0.1:{port} backlog 4096
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend app if {{ hdr(host) -i {HOST} }}
backend app
  server app 127.0.0.1:{upstream}
"
        )
    }
}

/// Connections of a proxy beyond those of the load: listening, control, signal pipes.
const SPARE_CONNECTIONS: u64 = 64;

/// With less than a sixteenth of its connections free, nginx closes those that have not sent a request yet.
const NGINX_SPARE_IN_8: u64 = 9;

/// Starts an upstream that answers `/small` with 100 bytes and `/large` with 64 KB, from files, as nginx does it best.
pub(super) fn static_upstream(folder: &Path) -> Result<Server> {
    let port = free_port()?;
    let folder = folder.join("upstream");
    let files = folder.join("files");
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join("small"), "s".repeat(100))?;
    std::fs::write(files.join("large"), "l".repeat(64 * 1024))?;
    let root = files.display();
    let server = format!(
        "sendfile on; tcp_nopush on; open_file_cache max=8; open_file_cache_valid 1h;
         server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}"
    );
    let mut command = pinned(REST_CPU);
    nginx(&mut command, &folder, 1024, &server)?;
    Server::spawn("upstream", command, &folder, port, "/small")
}

/// Starts a contestant on a folder of files, on the processor of the proxies.
pub(super) fn serve_files(kind: Kind, folder: &Path, files: &Path, path: &str) -> Result<Server> {
    let port = free_port()?;
    let folder = folder.join(kind.name());
    std::fs::create_dir_all(&folder)?;
    let (mut command, root) = (pinned(PROXY_CPU), files.display());
    if kind == Kind::Trackbed {
        command.arg(target_dir().join("release/examples/edge-standalone"));
        command.arg(format!("127.0.0.1:{port}")).arg(&folder).arg("1");
        command.arg(format!("{HOST}=files:404:{root}"));
    } else {
        let server = format!(
            "sendfile on; tcp_nopush on; open_file_cache max=8; open_file_cache_valid 1h;
             server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}"
        );
        nginx(&mut command, &folder, 1024, &server)?;
    }
    Server::spawn(kind.name(), command, &folder, port, &format!("/{path}"))
}

fn nginx(command: &mut Command, folder: &Path, connections: u64, server: &str) -> Result<()> {
    let place = folder.display();
    // Started as root, nginx would give its worker to a user that may not read our folder.
    let user = if is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {place}/{kind}; "))
        .concat();
    let config = folder.join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            "{user} daemon off; pid {place}/pid; error_log {place}/error.log crit; worker_processes 1;
             events {{ worker_connections {connections}; }}
             http {{
               access_log off; default_type text/plain; {temporary}
               keepalive_requests 1000000000; keepalive_timeout 1h;
               {server}
             }}\n"
        ),
    )?;
    let log = format!("{place}/error.log");
    command.args(["nginx", "-e", &log, "-c"]).arg(config);
    Ok(())
}

impl Server {
    fn spawn(
        name: &'static str,
        mut command: Command,
        folder: &Path,
        port: u16,
        path: &str,
    ) -> Result<Server> {
        let log = std::fs::File::create(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut server = Server { name, port, child };
        let deadline = Instant::now() + START_LIMIT;
        while !server.answers(path) {
            if let Some(status) = server.child.try_wait()? {
                let said = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("{name} ended ({status}): {said}");
            }
            ensure!(
                Instant::now() < deadline,
                "{name} does not answer; its files are in {}",
                folder.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn answers(&self, path: &str) -> bool {
        let address = format!("127.0.0.1:{}", self.port);
        http::call_at(&address, "GET", HOST, path, None).is_ok_and(|(status, _)| status == 200)
    }

    /// Returns the process and its children: nginx is a master and a worker.
    fn processes(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|word| word.parse().ok());
        std::iter::once(id).chain(children).collect()
    }

    /// Processor time so far, in nanoseconds.
    pub(super) fn cpu_ns(&self) -> Result<u64> {
        self.processes().into_iter().map(load::cpu_ns).sum()
    }

    /// Resident memory, in bytes; what master and worker share counts twice, before and after alike.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        self.processes().into_iter().map(load::resident_bytes).sum()
    }

    /// Body of a GET, as text.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        let (status, body) = http::call_at(&format!("127.0.0.1:{}", self.port), "GET", HOST, path, None)?;
        ensure!(status == 200, "{}: GET {path} answered {status}", self.name);
        Ok(body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that nginx ends its worker too.
        let id = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(id, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} did not end in {} s and is killed", self.name, STOP_LIMIT.as_secs());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that will run on one processor only.
pub(super) fn pinned(processor: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", processor]);
    command
}

/// Returns a port that nobody has at this moment.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Says which versions take part.
pub(super) fn versions() -> String {
    // nginx says it on standard error.
    let nginx = read("sh", &["-c", "nginx -v 2>&1"]).unwrap_or_default();
    let haproxy = read("haproxy", &["-v"]).unwrap_or_default();
    let haproxy = haproxy.split_whitespace().nth(2).unwrap_or("?");
    format!("{}, haproxy {haproxy}", nginx.trim().trim_start_matches("nginx version: "))
}
