//! Many event streams at once, against nginx and haproxy set for streams: resident memory of each stream, added latency of
//! each event, whether any is held back, and processor time. Upstream and client are threads of this process on the
//! second processor, so that sent and received are told by one clock.

mod client;
mod upstream;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Runtime};

use super::load::{self, Load};
use super::options::Options;
use super::peers::{self, Bench, Kind, REST_CPU, Server};
use super::rows::{Rows, Series, rotated};
use crate::shell::{self, say, target_dir};
use client::Watch;

const CONTESTANTS: [Kind; 3] = [Kind::NginxUnbuffered, Kind::HaproxyNoDelay, Kind::Trackbed];
/// Name of the rounds without any proxy.
const DIRECT: &str = "direct";
/// Rounds, streams and seconds of the measurement of latency when nothing else is asked.
const ROUNDS: u64 = 5;
const STREAMS: u64 = 2000;
const SECONDS: u64 = 10;
/// Streams of the measurement of memory; fewer where the limit of open files is lower.
const MEMORY_STREAMS: u64 = 9900;
const MEMORY_ROUNDS: u64 = 1;
/// Descriptors that are not streams. Each stream takes two: in a proxy, and in this process with its two ends.
const DESCRIPTORS_KEPT: u64 = 150;
/// Streams that are opened at a time, so that no queue of the kernel runs over.
const OPENED_AT_ONCE: u64 = 100;
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Time between the last opening and the first count.
const SETTLE: Duration = Duration::from_secs(3);
/// An event that takes longer than this was held back by something.
const LATE: Duration = Duration::from_millis(50);

/// What one measurement found.
struct Found {
    kilobytes_per_stream: f64,
    resident_megabytes: f64,
    p50_us: f64,
    p99_us: f64,
    late: usize,
    coalesced: u64,
    events: usize,
    cpu_us_per_event: f64,
}

pub(super) fn run(words: &[&str]) -> Result<()> {
    let options =
        Options::parse(words, &["rounds", "streams", "seconds", "memory-streams", "memory-rounds"])?;
    shell::run(
        "cargo",
        &["build", "--release", "--package", "trackbed-edge", "--example", "edge-standalone"],
    )?;
    let files = load::raise_open_files()?;
    let most = files.saturating_sub(DESCRIPTORS_KEPT) / 2;
    let (rounds, seconds) = (options.get("rounds", ROUNDS), options.get("seconds", SECONDS));
    let streams = options.get("streams", STREAMS).min(most);
    let memory_rounds = options.get("memory-rounds", MEMORY_ROUNDS);
    let memory_streams = options.get("memory-streams", MEMORY_STREAMS).min(most);
    println!("at most {files} open files: {memory_streams} streams for memory, {streams} for latency");

    let world = World::start(memory_streams.max(streams))?;
    let mut rows = Rows::create(
        "sse",
        "kind\tround\tplace\tproxy\tstreams\tevents\tkb_per_stream\tresident_mb\tp50_us\tp99_us\tlate\tcoalesced\tcpu_us_per_event\tpsi_percent\tothers_percent\tstolen_percent",
    )?;
    let mut latency = Figures::default();
    for round in 0..rounds as usize {
        say(&format!("latency, round {} of {rounds}", round + 1));
        let mut all = vec![None];
        all.extend(CONTESTANTS.map(Some));
        for (place, kind) in rotated(&all, round).into_iter().enumerate() {
            let what = format!("latency\t{}\t{place}", round + 1);
            latency.book(kind, &world.measure(kind, streams, seconds, &what, &mut rows)?);
        }
    }
    let mut memory = Figures::default();
    for round in 0..memory_rounds as usize {
        say(&format!("memory, round {} of {memory_rounds}", round + 1));
        for (place, kind) in rotated(&CONTESTANTS, round).into_iter().enumerate() {
            let what = format!("memory\t{}\t{place}", round + 1);
            memory.book(Some(kind), &world.measure(Some(kind), memory_streams, seconds, &what, &mut rows)?);
        }
    }
    println!(
        "\nevent streams, one event a second each; {}; one worker on one processor; median [min-max]",
        peers::versions()
    );
    report_latency(&mut latency, streams, rounds);
    report_memory(&memory, memory_streams, memory_rounds);
    println!("\nraw rows: {}", rows.path.display());
    Ok(())
}

/// Upstream and client, on the processor that no proxy has.
struct World {
    bench: Bench,
    clock: Instant,
    runtime: Runtime,
    _upstream: Runtime,
}

impl World {
    fn start(connections: u64) -> Result<World> {
        // Threads inherit it; proxies are pinned anew when they start.
        let mut rest = CpuSet::new();
        rest.set(REST_CPU.parse()?)?;
        sched_setaffinity(Pid::from_raw(0), &rest)?;
        let folder = target_dir().join("bench-sse");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let one = || Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, behind) = (one()?, one()?);
        let clock = Instant::now();
        let listener = behind.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind("127.0.0.1:0".parse().map_err(std::io::Error::other)?)?;
            socket.listen(4096)
        })?;
        let upstream_port = listener.local_addr()?.port();
        behind.spawn(upstream::serve(listener, clock));
        // Half of it are the proxy's own connections to the upstream; haproxy counts clients only.
        let bench = Bench { folder, upstream_port, connections: connections + 16 };
        Ok(World { bench, clock, runtime, _upstream: behind })
    }

    fn measure(
        &self,
        kind: Option<Kind>,
        streams: u64,
        seconds: u64,
        what: &str,
        rows: &mut Rows,
    ) -> Result<Found> {
        // A fresh process each time: what an earlier measurement left in it is not this one's.
        let server = kind.map(|kind| self.bench.start(kind, upstream::READY)).transpose()?;
        let name = kind.map_or(DIRECT, Kind::name);
        let port = server.as_ref().map_or(self.bench.upstream_port, |server| server.port);
        let of = |read: fn(&Server) -> Result<u64>| server.as_ref().map_or(Ok(0), read);
        std::thread::sleep(Duration::from_millis(200));
        let resident_before = of(Server::resident_bytes)?;
        let watch = Watch::new(self.clock);
        let mut open = Vec::new();
        let deadline = Instant::now() + OPEN_LIMIT;
        while (open.len() as u64) < streams {
            let more = OPENED_AT_ONCE.min(streams - open.len() as u64);
            open.extend((0..more).map(|_| self.runtime.spawn(client::stream(port, watch.clone()))));
            while watch.open.load(Ordering::Relaxed) < open.len() as u64 {
                let lost = watch.lost.load(Ordering::Relaxed);
                let so_far = watch.open.load(Ordering::Relaxed);
                ensure!(lost == 0, "{name}: {lost} streams could not be opened, after {so_far}");
                ensure!(Instant::now() < deadline, "{name}: only {so_far} of {streams} streams opened");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        std::thread::sleep(SETTLE);
        let (load, own) = (Load::now()?, load::own_cpu_s()?);
        let cpu = of(Server::cpu_ns)?;
        let latencies = self.runtime.block_on(watch.count_for(Duration::from_secs(seconds)));
        let cpu = of(Server::cpu_ns)? - cpu;
        let resident = of(Server::resident_bytes)?;
        let noise = load.noise_since(cpu as f64 / 1e9 + load::own_cpu_s()? - own)?;
        let lost = watch.lost.load(Ordering::Relaxed);
        ensure!(lost == 0, "{name}: {lost} streams ended by themselves");
        for stream in open {
            stream.abort();
        }
        let at = |share: f64| {
            let place = (latencies.len() as f64 * share) as usize;
            latencies.get(place.min(latencies.len().saturating_sub(1))).map(|ns| *ns as f64 / 1e3)
        };
        let found = Found {
            kilobytes_per_stream: resident.saturating_sub(resident_before) as f64 / 1024.0 / streams as f64,
            resident_megabytes: resident as f64 / 1e6,
            p50_us: at(0.5).context("no event came")?,
            p99_us: at(0.99).context("no event came")?,
            late: latencies.iter().filter(|ns| u128::from(**ns) > LATE.as_nanos()).count(),
            coalesced: watch.coalesced.load(Ordering::Relaxed),
            events: latencies.len(),
            cpu_us_per_event: cpu as f64 / 1e3 / latencies.len() as f64,
        };
        eprintln!(
            "{name:<9} {streams} streams, {:.1} KB each, p50 {:.0} us, p99 {:.0} us, {:.1} us CPU an event  {noise}",
            found.kilobytes_per_stream, found.p50_us, found.p99_us, found.cpu_us_per_event
        );
        rows.add(&format!(
            "{what}\t{name}\t{streams}\t{}\t{:.2}\t{:.1}\t{}\t{}\t{}\t{}\t{:.2}\t{:.1}\t{:.1}\t{:.1}",
            found.events,
            found.kilobytes_per_stream,
            found.resident_megabytes,
            found.p50_us,
            found.p99_us,
            found.late,
            found.coalesced,
            found.cpu_us_per_event,
            noise.waiting_percent,
            noise.foreign_percent,
            noise.stolen_percent
        ))?;
        Ok(found)
    }
}

/// All figures, by contestant and round.
#[derive(Default)]
struct Figures {
    kilobytes: Series,
    resident: Series,
    p50: Series,
    p99: Series,
    added_p50: Series,
    added_p99: Series,
    late: Series,
    coalesced: Series,
    cpu: Series,
    events: Series,
}

impl Figures {
    fn book(&mut self, kind: Option<Kind>, found: &Found) {
        let name = kind.map_or(DIRECT, Kind::name);
        self.kilobytes.push(name, found.kilobytes_per_stream);
        self.resident.push(name, found.resident_megabytes);
        self.p50.push(name, found.p50_us);
        self.p99.push(name, found.p99_us);
        self.late.push(name, found.late as f64);
        self.coalesced.push(name, found.coalesced as f64);
        self.cpu.push(name, found.cpu_us_per_event);
        self.events.push(name, found.events as f64);
    }

    /// Fills in what each proxy adds to the direct way, once all rounds are there.
    fn add_up(&mut self) {
        for kind in CONTESTANTS {
            let name = kind.name();
            for (all, added) in [(&self.p50, &mut self.added_p50), (&self.p99, &mut self.added_p99)] {
                let pairs = all.of(name).iter().zip(all.of(DIRECT));
                for more in pairs.map(|(through, direct)| through - direct).collect::<Vec<_>>() {
                    added.push(name, more);
                }
            }
        }
    }
}

fn report_latency(figures: &mut Figures, streams: u64, rounds: u64) {
    figures.add_up();
    println!(
        "\n{streams} streams, {rounds} interleaved rounds; added = through the proxy minus direct in the same round"
    );
    println!("goal: added p50 <= 1.2x nginx, nothing coalesced");
    println!(
        "| | p50 us | p99 us | added p50 us | to nginx | added p99 us | events later than {} ms | reads with two events | events | CPU us/event |",
        LATE.as_millis()
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for name in [DIRECT].into_iter().chain(CONTESTANTS.map(Kind::name)) {
        let added = match name {
            DIRECT => "| | | ".to_owned(),
            name => format!(
                "| {} | {} | {} ",
                figures.added_p50.spread(name, 0),
                figures.added_p50.ratio(name, "nginx"),
                figures.added_p99.spread(name, 0)
            ),
        };
        println!(
            "| {name} | {} | {} {added}| {} | {} | {} | {} |",
            figures.p50.spread(name, 0),
            figures.p99.spread(name, 0),
            figures.late.spread(name, 0),
            figures.coalesced.spread(name, 0),
            figures.events.spread(name, 0),
            figures.cpu.spread(name, 1)
        );
    }
}

fn report_memory(figures: &Figures, streams: u64, rounds: u64) {
    println!("\n{streams} streams, {rounds} rounds; goal: <= 16 KB resident a stream");
    println!("| | KB/stream | resident MB | p50 us | p99 us | CPU us/event |");
    println!("|---|---|---|---|---|---|");
    for name in CONTESTANTS.map(Kind::name) {
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            figures.kilobytes.spread(name, 1),
            figures.resident.spread(name, 0),
            figures.p50.spread(name, 0),
            figures.p99.spread(name, 0),
            figures.cpu.spread(name, 1)
        );
    }
}
