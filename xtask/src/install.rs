//! Installs what is missing, through the ordinary package clients, and says what.

use anyhow::{Result, bail};

use crate::shell::{has, is_root, read, run, say};

/// A program that is needed, and the Debian packages that bring it and what it cannot do without.
pub struct Need {
    pub program: &'static str,
    pub package: &'static str,
    /// An ordinary user can go on without it.
    pub root_only: bool,
}

/// What a box needs to build and run Python apps, and to give them a network of their own.
pub const BOX: &[Need] = &[
    Need { program: "python3", package: "python3", root_only: false },
    Need { program: "pip3", package: "python3-pip", root_only: false },
    Need { program: "ip", package: "iproute2", root_only: true },
    Need { program: "nft", package: "nftables", root_only: true },
];

/// What the tests need beyond that.
pub const TESTS: &[Need] = &[
    Need { program: "git", package: "git", root_only: false },
    Need { program: "ps", package: "procps", root_only: false },
    Need { program: "sqlite3", package: "sqlite3", root_only: false },
    Need { program: "age", package: "age", root_only: false },
    Need { program: "openssl", package: "openssl", root_only: false },
    Need { program: "su", package: "util-linux", root_only: true },
    Need { program: "npm", package: "npm", root_only: true },
    Need { program: "go", package: "golang-go", root_only: true },
    Need { program: "dockerd", package: "docker.io", root_only: true },
    Need { program: "podman", package: "podman netavark catatonit", root_only: true },
];

/// What the benchmarks need beyond that. Peers are Debian's.
pub const BENCHES: &[Need] = &[
    Need { program: "dockerd", package: "docker.io", root_only: true },
    Need { program: "debootstrap", package: "debootstrap", root_only: true },
];

/// What the benchmarks of the edge need: Debian's proxies, and Debian's load generator.
pub const PROXIES: &[Need] = &[
    Need { program: "nginx", package: "nginx-light", root_only: false },
    Need { program: "haproxy", package: "haproxy", root_only: false },
    Need { program: "wrk", package: "wrk", root_only: false },
    Need { program: "taskset", package: "util-linux", root_only: false },
];

/// What a file system that shares blocks between files needs.
pub const XFS: &[Need] = &[Need { program: "mkfs.xfs", package: "xfsprogs", root_only: true }];

/// Installs the packages whose programs are missing. As an ordinary user it can only say what to ask root for.
pub fn ensure(needs: &[&[Need]]) -> Result<()> {
    let root = is_root();
    let wanted = needs.iter().flat_map(|list| list.iter());
    let missing: Vec<&Need> = wanted.filter(|need| !has(need.program) && (root || !need.root_only)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().flat_map(|need| need.package.split(' ')).collect();
    packages.dedup();
    if !root {
        let hard: Vec<&str> = missing
            .iter()
            .filter(|need| need.program != "pip3" || !has_uv())
            .map(|need| need.package)
            .collect();
        if hard.is_empty() {
            return Ok(());
        }
        bail!("missing: {}; install it with `sudo apt-get install {}`", hard.join(", "), hard.join(" "));
    }
    if !has("apt-get") {
        bail!("missing: {}; install it with this system's package client", packages.join(", "));
    }
    say(&format!("installing {}", packages.join(", ")));
    run("apt-get", &["update", "-q"])?;
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(&packages);
    run("apt-get", &arguments)
}

/// Returns whether there is an `uv` already; otherwise the box fetches its own with pip.
pub fn has_uv() -> bool {
    let home = std::env::var("HOME").unwrap_or_default();
    has("uv")
        || [".local/bin/uv", ".cargo/bin/uv"]
            .iter()
            .any(|path| std::path::Path::new(&home).join(path).is_file())
}

/// Says with what this runs: the first line of every report.
pub fn machine() -> String {
    let kernel = read("uname", &["-r"]).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let commit = read("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    format!("commit {}, Linux {}, {cores} cores", commit.trim(), kernel.trim())
}
