//! Programs that tests use beside the box.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The folder that holds uv, fetched once by pip into the target folder, so that not every box fetches its own; none
/// when this machine has no pip.
pub fn uv_folder() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| pip_folder("uv", "uv", "bin/uv").map(|folder| folder.join("bin"))).clone()
}

/// Says what a log in SARIF has against the schema of the standard; none when it is as it should be. The schema comes in
/// an npm package of Microsoft, whose standard it was; that it cannot be had is said loudly, and counts as nothing said.
pub fn sarif_faults(log: &str) -> Option<String> {
    const CHECK: &str = "import json, sys, jsonschema as j; s = json.load(open(sys.argv[1])); \
                         print(*[e.message for e in j.Draft4Validator(s).iter_errors(json.load(sys.stdin))], sep='\\n')";
    let package = "node_modules/@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json";
    let fetched = pip_folder("jsonschema", "jsonschema", "jsonschema/__init__.py").zip(tool_folder(
        "sarif",
        package,
        |aside| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
            npm.arg(aside).arg("@microsoft/jest-sarif@1.0.0-beta.0");
            npm
        },
    ));
    let Some((jsonschema, sarif)) = fetched else {
        eprintln!("NOT TESTED (needs pip, npm and their registries): SARIF against its schema");
        return None;
    };
    let mut python = Command::new("python3");
    python.args(["-c", CHECK]).arg(sarif.join(package)).env("PYTHONPATH", jsonschema);
    let mut checking = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is there");
    let mut stdin = checking.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut stdin, log.as_bytes()).expect("the checker reads it");
    drop(stdin);
    let output = checking.wait_with_output().expect("the checker ends");
    assert!(output.status.success(), "the checker failed");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!said.is_empty()).then_some(said)
}

/// An S3 server of this test's own: moto, fetched once by pip into the target folder. It forgets everything when dropped.
pub struct S3Server {
    process: Child,
    /// Where it listens.
    pub port: u16,
}

impl S3Server {
    /// Starts one with an empty bucket `copies`; none when this machine has no pip, which is said loudly.
    pub fn start() -> Option<S3Server> {
        let server = S3Server::spawn(&[])?;
        let port = server.port;
        crate::wait_for("the S3 server answers", Duration::from_secs(60), || {
            crate::request(port, "127.0.0.1", "PUT", "/copies", "").is_ok_and(|answer| answer.status == 200)
        });
        Some(server)
    }

    /// The same behind TLS, with a certificate and its key.
    pub fn start_tls(certificate: &Path, key: &Path) -> Option<S3Server> {
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        let server = S3Server::spawn(&["-c", &certificate, "-k", &key])?;
        let make = "import ssl, sys, urllib.request as u; \
                    u.urlopen(u.Request(sys.argv[1], method='PUT'), context=ssl._create_unverified_context())";
        let bucket = format!("https://127.0.0.1:{}/copies", server.port);
        crate::wait_for("the S3 server answers", Duration::from_secs(60), || {
            let mut python = Command::new("python3");
            python.args(["-c", make, &bucket]).stderr(Stdio::null());
            python.status().is_ok_and(|status| status.success())
        });
        Some(server)
    }

    fn spawn(more: &[&str]) -> Option<S3Server> {
        let Some(folder) = moto_folder() else {
            eprintln!("NOT TESTED (needs pip and moto): copies at an S3 server");
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut python = Command::new("python3");
        python.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]).args(more);
        python.env("PYTHONPATH", folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(S3Server { process: python.spawn().expect("python3 runs"), port })
    }

    /// Returns the address of a prefix as a target.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://copies/{prefix}?region=us-east-1&endpoint=http://127.0.0.1:{}", self.port)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn moto_folder() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| pip_folder("moto", "moto[server]", "moto/server.py")).clone()
}

/// Fetches a package by pip into a folder of its own.
fn pip_folder(name: &str, package: &str, proof: &str) -> Option<PathBuf> {
    tool_folder(name, proof, |aside| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(aside).arg(package);
        pip
    })
}

/// Makes a folder once for all tests. Test programs may run beside each other: it is made aside, then moved into place by
/// whoever is first.
fn tool_folder(name: &str, proof: &str, fetch: impl FnOnce(&Path) -> Command) -> Option<PathBuf> {
    let folder = crate::testbox::target_folder().join("test-tools").join(name);
    if !folder.join(proof).exists() {
        let aside = folder.with_extension(std::process::id().to_string());
        if fetch(&aside).output().is_ok_and(|output| output.status.success()) {
            let _ = std::fs::rename(&aside, &folder);
        }
        let _ = std::fs::remove_dir_all(&aside);
    }
    folder.join(proof).exists().then_some(folder)
}
