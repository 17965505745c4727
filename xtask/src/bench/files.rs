//! Static files against nginx: processor time per request and requests per second, as ratios of pairs in one round.

use anyhow::{Result, ensure};

use super::load;
use super::options::Options;
use super::peers::{self, Kind, Server};
use super::rows::{Rows, Series, rotated};
use super::wrk;
use crate::shell::{self, say, target_dir};

/// Rounds when nothing else is asked.
const ROUNDS: u64 = 5;
/// Seconds of each measurement when nothing else is asked.
const SECONDS: u64 = 4;
/// Seconds for which both are loaded before anything counts: connections, caches, pages of the files.
const WARM_UP_SECONDS: u64 = 1;
const CONTESTANTS: [Kind; 2] = [Kind::Nginx, Kind::Trackbed];

/// A file, how large it is, and how many connections ask for it.
const SHAPES: [(&str, &str, usize, u64); 3] = [
    ("100 B, 64 connections", "small.css", 100, 64),
    ("64 KB, 64 connections", "large.js", 64 * 1024, 64),
    ("10 MB, 8 connections", "huge.bin", 10_000_000, 8),
];

pub(super) fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &["rounds", "seconds"])?;
    let (rounds, seconds) = (options.get("rounds", ROUNDS), options.get("seconds", SECONDS));
    shell::run(
        "cargo",
        &["build", "--release", "--package", "trackbed-edge", "--example", "edge-standalone"],
    )?;
    load::raise_open_files()?;
    let folder = target_dir().join("bench-files");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let files = folder.join("files");
    std::fs::create_dir_all(&files)?;
    for (_, name, bytes, _) in SHAPES {
        std::fs::write(files.join(name), "s".repeat(bytes))?;
    }
    let servers = CONTESTANTS.map(|kind| peers::serve_files(kind, &folder, &files, SHAPES[0].1));
    let servers = servers.into_iter().collect::<Result<Vec<Server>>>()?;
    for server in &servers {
        for (_, name, bytes, connections) in SHAPES {
            let path = format!("/{name}");
            ensure!(server.get(&path)?.len() == bytes, "{}: not the right body", server.name);
            wrk::run(server.port, &path, connections, WARM_UP_SECONDS)?;
        }
    }
    let columns = "shape\tround\tplace\tserver\trequests\tseconds\tcpu_ns\terrors";
    let mut rows = Rows::create("files", columns)?;
    let mut results = SHAPES.map(|_| (Series::default(), Series::default()));
    for round in 0..rounds as usize {
        say(&format!("round {} of {rounds}", round + 1));
        for ((title, name, _, connections), (cpu_us, per_second)) in SHAPES.iter().zip(&mut results) {
            let all: Vec<&Server> = servers.iter().collect();
            for (place, server) in rotated(&all, round).into_iter().enumerate() {
                let before = server.cpu_ns()?;
                let seen = wrk::run(server.port, &format!("/{name}"), *connections, seconds)?;
                let cpu = (server.cpu_ns()? - before) as f64;
                rows.add(&format!(
                    "{title}\t{}\t{place}\t{}\t{}\t{}\t{cpu}\t{}",
                    round + 1,
                    server.name,
                    seen.requests,
                    seen.seconds,
                    seen.errors
                ))?;
                ensure!(seen.errors == 0.0, "{}: {} errors ({title})", server.name, seen.errors);
                cpu_us.push(server.name, cpu / 1e3 / seen.requests);
                per_second.push(server.name, seen.requests / seen.seconds);
            }
        }
    }
    let (ours, theirs) = (Kind::Trackbed.name(), Kind::Nginx.name());
    println!("\nfiles over plain HTTP/1.1, one worker on one processor each; {}", peers::versions());
    println!("ratios of trackbed to nginx (sendfile, open_file_cache), of pairs in one round of {rounds}");
    println!("| | CPU per request | requests/s |");
    println!("|---|---|---|");
    for ((title, ..), (cpu_us, per_second)) in SHAPES.iter().zip(&results) {
        println!("| {title} | {} | {} |", cpu_us.ratio(ours, theirs), per_second.ratio(ours, theirs));
    }
    println!("\nraw rows: {}", rows.path.display());
    Ok(std::fs::remove_dir_all(&files)?)
}
