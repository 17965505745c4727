//! Plain proxying against nginx and haproxy: processor time per request, requests per second, latency.

use anyhow::{Result, ensure};

use super::load::{self, Load};
use super::options::Options;
use super::peers::{self, Bench, Kind, Server};
use super::rows::{Rows, Series, rotated};
use super::wrk;
use crate::shell::{self, say, target_dir};

/// Rounds when nothing else is asked.
const ROUNDS: u64 = 5;
/// Seconds of each measurement when nothing else is asked.
const SECONDS: u64 = 4;
/// Seconds for which every proxy is loaded before anything counts: connections, caches, allocators.
const WARM_UP_SECONDS: u64 = 1;
const CONTESTANTS: [Kind; 4] = [Kind::Nginx, Kind::NginxDefault, Kind::Haproxy, Kind::Trackbed];

/// What is asked of a proxy.
struct Shape {
    title: &'static str,
    path: &'static str,
    bytes: usize,
    connections: u64,
    goal: &'static str,
}

const SHAPES: [Shape; 3] = [
    Shape {
        title: "100 B, 64 connections",
        path: "/small",
        bytes: 100,
        connections: 64,
        goal: "CPU <= 1.0x nginx, requests/s >= 1.0x",
    },
    Shape {
        title: "64 KB, 64 connections",
        path: "/large",
        bytes: 64 * 1024,
        connections: 64,
        goal: "CPU <= 0.5x nginx",
    },
    Shape {
        title: "100 B, 1 connection",
        path: "/small",
        bytes: 100,
        connections: 1,
        goal: "CPU <= 1.0x nginx",
    },
];

/// What came of one shape.
#[derive(Default)]
struct Results {
    cpu_us: Series,
    per_second: Series,
    p50_us: Series,
    p99_us: Series,
    busy_percent: Series,
}

pub(super) fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &["rounds", "seconds"])?;
    let (rounds, seconds) = (options.get("rounds", ROUNDS), options.get("seconds", SECONDS));
    shell::run(
        "cargo",
        &["build", "--release", "--package", "trackbed-edge", "--example", "edge-standalone"],
    )?;
    load::raise_open_files()?;
    let folder = target_dir().join("bench-edge");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let upstream = peers::static_upstream(&folder)?;
    let bench = Bench { folder, upstream_port: upstream.port, connections: 1024 };
    let proxies = CONTESTANTS.map(|kind| bench.start(kind, "/small"));
    let proxies = proxies.into_iter().collect::<Result<Vec<Server>>>()?;
    for proxy in &proxies {
        for shape in &SHAPES {
            ensure!(proxy.get(shape.path)?.len() == shape.bytes, "{}: not the right body", proxy.name);
            wrk::run(proxy.port, shape.path, shape.connections, WARM_UP_SECONDS)?;
        }
    }
    let mut rows = Rows::create(
        "edge",
        "shape\tround\tplace\tproxy\trequests\tseconds\tcpu_ns\tp50_us\tp99_us\terrors\tpsi_percent\tothers_percent\tstolen_percent",
    )?;
    let mut results = SHAPES.map(|_| Results::default());
    for round in 0..rounds as usize {
        say(&format!("round {} of {rounds}", round + 1));
        for (shape, results) in SHAPES.iter().zip(&mut results) {
            let all: Vec<&Server> = proxies.iter().collect();
            for (place, proxy) in rotated(&all, round).into_iter().enumerate() {
                measure(
                    proxy,
                    &upstream,
                    shape,
                    seconds,
                    &format!("{}\t{place}", round + 1),
                    &mut rows,
                    results,
                )?;
            }
        }
    }
    println!(
        "\nplain HTTP/1.1 through one worker on one processor; {}; median [min-max] of {rounds} interleaved",
        peers::versions()
    );
    println!("rounds of {seconds} s; ratios to nginx are of pairs in one round");
    for (shape, results) in SHAPES.iter().zip(&results) {
        report(shape, results);
    }
    println!("\nraw rows: {}", rows.path.display());
    Ok(())
}

fn measure(
    proxy: &Server,
    upstream: &Server,
    shape: &Shape,
    seconds: u64,
    place: &str,
    rows: &mut Rows,
    results: &mut Results,
) -> Result<()> {
    let (load, cpu, others) = (Load::now()?, proxy.cpu_ns()?, upstream.cpu_ns()?);
    let wrk_cpu = load::children_cpu_s()?;
    let seen = wrk::run(proxy.port, shape.path, shape.connections, seconds)?;
    let cpu = (proxy.cpu_ns()? - cpu) as f64;
    let own = (cpu + (upstream.cpu_ns()? - others) as f64) / 1e9 + load::children_cpu_s()? - wrk_cpu;
    let noise = load.noise_since(own)?;
    let (name, wrk::Seen { requests, seconds, p50_us, p99_us, errors }) = (proxy.name, seen);
    eprintln!(
        "{:<22} {name:<14} {:>7.2} us CPU {:>7.0}/s  {noise}",
        shape.title,
        cpu / 1e3 / requests,
        requests / seconds
    );
    rows.add(&format!(
        "{}\t{place}\t{name}\t{requests}\t{seconds}\t{cpu}\t{p50_us}\t{p99_us}\t{errors}\t{:.1}\t{:.1}\t{:.1}",
        shape.title, noise.waiting_percent, noise.foreign_percent, noise.stolen_percent
    ))?;
    ensure!(errors == 0.0, "{name}: {errors} errors in {requests} requests ({})", shape.title);
    results.cpu_us.push(name, cpu / 1e3 / requests);
    results.per_second.push(name, requests / seconds);
    results.p50_us.push(name, p50_us);
    results.p99_us.push(name, p99_us);
    results.busy_percent.push(name, cpu / 1e7 / seconds);
    Ok(())
}

fn report(shape: &Shape, results: &Results) {
    println!("\n{}; goal: {}", shape.title, shape.goal);
    println!(
        "| proxy | CPU us/request | to nginx | requests/s | to nginx | p50 us | to nginx | p99 us | to nginx | busy % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for kind in CONTESTANTS {
        let name = kind.name();
        let figure = |series: &Series, digits| {
            format!("{} | {}", series.spread(name, digits), series.ratio(name, "nginx"))
        };
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            figure(&results.cpu_us, 2),
            figure(&results.per_second, 0),
            figure(&results.p50_us, 0),
            figure(&results.p99_us, 0),
            results.busy_percent.spread(name, 0)
        );
    }
    let (ours, theirs) = (Kind::Trackbed.name(), Kind::NginxDefault.name());
    println!(
        "trackbed to {theirs}: CPU {}, requests/s {}",
        results.cpu_us.ratio(ours, theirs),
        results.per_second.ratio(ours, theirs)
    );
}
