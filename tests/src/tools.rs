//! Programs that tests use beside the box.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The folder that holds uv, fetched once by pip into the target folder, so that not every box fetches its own; none
/// when this machine has no pip.
pub fn uv_folder() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = crate::testbox::target_folder().join("test-tools/uv");
            let bin = folder.join("bin");
            // Test programs may run beside each other: made aside, then moved into place by whoever is first.
            if !bin.join("uv").exists() {
                let aside = folder.with_extension(std::process::id().to_string());
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&aside).arg("uv");
                let fetched = pip.output().is_ok_and(|output| output.status.success());
                if fetched {
                    let _ = std::fs::rename(&aside, &folder);
                }
                let _ = std::fs::remove_dir_all(&aside);
            }
            bin.join("uv").exists().then_some(bin)
        })
        .clone()
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

/// Fetches a package into a folder of its own, once for all tests. Test programs may run beside each other: it is made
/// aside, then moved into place by whoever is first.
fn pip_folder(name: &str, package: &str, proof: &str) -> Option<PathBuf> {
    let folder = crate::testbox::target_folder().join("test-tools").join(name);
    if !folder.join(proof).exists() {
        let aside = folder.with_extension(std::process::id().to_string());
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&aside).arg(package);
        if pip.output().is_ok_and(|output| output.status.success()) {
            let _ = std::fs::rename(&aside, &folder);
        }
        let _ = std::fs::remove_dir_all(&aside);
    }
    folder.join(proof).exists().then_some(folder)
}
