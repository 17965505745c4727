//! Requests of every kind while two services are deployed again and again: one without a volume (`overlap`), one with its
//! data on a volume (`held`). Counts what failed, what was lost, and how streams ended.

mod clients;
mod tally;
mod wire;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::options::Options;
use super::rows::Rows;
use super::{spread, until_healthy};
use crate::own_box::{OwnBox, stop_earlier};
use crate::shell::{read, say, target_dir};
use clients::Client;
use tally::Tally;

const REQUESTS: u64 = 1_000_000;
const HANDOVERS: u64 = 40;
/// Clients of each kind and service.
const SHORT_CLIENTS: usize = 12;
const SOCKET_CLIENTS: usize = 4;
const ENDLESS_CLIENTS: usize = 3;
const FINITE_CLIENTS: usize = 3;
/// POSTs among ten short requests.
const POSTS_OF_TEN: usize = 4;
/// How long the clients may go without any answer at all before the run is given up.
const STANDSTILL: Duration = Duration::from_secs(120);
/// Time for what was parked to be answered once a deployment says that it is done.
const SETTLE: Duration = Duration::from_millis(300);
const APP: &str = include_str!("app.py");

/// A service under load.
struct Subject {
    name: &'static str,
    source: PathBuf,
    tally: Arc<Tally>,
}

pub(super) fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words, &["requests", "handovers"])?;
    let (requests, handovers) = (options.get("requests", REQUESTS), options.get("handovers", HANDOVERS));
    let folder = target_dir().join("bench-handover");
    stop_earlier(&folder)?;
    say("starting a box with two services");
    let own = OwnBox::start(folder)?;
    let measured = with_box(&own, requests, handovers);
    match own.stop() {
        Ok(()) => measured,
        Err(error) => measured.and(Err(error)),
    }
}

fn with_box(own: &OwnBox, requests: u64, handovers: u64) -> Result<()> {
    let subjects = ["overlap", "held"].map(|name| Subject {
        name,
        source: own.data_dir.join("source").join(name),
        tally: Arc::default(),
    });
    for subject in &subjects {
        write_source(subject)?;
        own.json_lines(&["up", &subject.source.to_string_lossy(), "--json"])?;
        ensure!(
            until_healthy(&format!("{}/health", own.url(subject.name)?), Duration::from_secs(10)),
            "not healthy"
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    // One thread: the load shares two processors with box and apps.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut running = Vec::new();
    for subject in &subjects {
        let url = own.url(subject.name)?;
        let host = url.strip_prefix("http://").context("a URL")?.trim_end_matches('/').to_owned();
        let port = host.rsplit_once(':').context("a port")?.1.parse()?;
        let client = |number| Client {
            port,
            host: host.as_str().into(),
            tally: Arc::clone(&subject.tally),
            stop: Arc::clone(&stop),
            number,
        };
        running.extend(
            (0..SHORT_CLIENTS).map(|number| runtime.spawn(client(number).short_requests(POSTS_OF_TEN))),
        );
        running.extend((0..SOCKET_CLIENTS).map(|number| runtime.spawn(client(number).web_sockets())));
        running.extend((0..ENDLESS_CLIENTS).map(|number| runtime.spawn(client(number).event_streams(true))));
        running.extend((0..FINITE_CLIENTS).map(|number| runtime.spawn(client(number).event_streams(false))));
    }
    let mut rows = Rows::create("handover", "number\tservice\tup_ms\tlongest_wait_ms\tfailed_so_far")?;
    let began = Instant::now();
    let deployed = deploys(own, &subjects, requests, handovers, &mut rows);
    stop.store(true, Ordering::Relaxed);
    let ended = runtime.block_on(async {
        for client in running {
            client.await?;
        }
        Ok::<(), tokio::task::JoinError>(())
    });
    let took = began.elapsed();
    let waits = deployed?;
    ended?;
    let notes = notes_on_the_volume(own)?;
    report(&subjects, &waits, &notes, handovers, took);
    println!("\nraw rows: {}", rows.path.display());
    Ok(())
}

/// Deploys by turns, spread over the requests. Returns the longest wait of each deployment, in milliseconds.
fn deploys(
    own: &OwnBox,
    subjects: &[Subject; 2],
    requests: u64,
    handovers: u64,
    rows: &mut Rows,
) -> Result<[Vec<f64>; 2]> {
    let mut waits = [Vec::new(), Vec::new()];
    for number in 1..=handovers {
        until_answered(subjects, requests * number / (handovers + 1))?;
        let side = usize::try_from(number % 2)?;
        let subject = &subjects[side];
        set_version(subject, number)?;
        subject.tally.take_longest();
        let began = Instant::now();
        let said = own.json_lines(&["up", &subject.source.to_string_lossy(), "--json"])?;
        let took = began.elapsed();
        std::thread::sleep(SETTLE);
        let longest = subject.tally.take_longest().as_secs_f64() * 1000.0;
        waits[side].push(longest);
        let serves = crate::http::call("GET", &format!("{}/version", own.url(subject.name)?), None)?;
        ensure!(serves == (200, number.to_string()), "{}: {serves:?} after {said:?}", subject.name);
        let failed: u64 = subjects.iter().map(|subject| subject.tally.failed.load(Ordering::Relaxed)).sum();
        eprintln!(
            "handover {number} of {handovers}, {:<7} {:>6} ms, longest wait {longest:.0} ms, {failed} failed so far",
            subject.name,
            took.as_millis()
        );
        rows.add(&format!("{number}\t{}\t{}\t{longest:.1}\t{failed}", subject.name, took.as_millis()))?;
    }
    until_answered(subjects, requests)?;
    Ok(waits)
}

fn until_answered(subjects: &[Subject; 2], wanted: u64) -> Result<()> {
    let answered = || subjects.iter().map(|subject| subject.tally.answered()).sum::<u64>();
    let (mut last, mut since) = (answered(), Instant::now());
    while answered() < wanted {
        std::thread::sleep(Duration::from_millis(20));
        if answered() > last {
            (last, since) = (answered(), Instant::now());
        }
        ensure!(since.elapsed() < STANDSTILL, "no answer for {} s, after {last}", STANDSTILL.as_secs());
    }
    Ok(())
}

fn write_source(subject: &Subject) -> Result<()> {
    std::fs::create_dir_all(&subject.source)?;
    let write = |name: &str, text: &str| std::fs::write(subject.source.join(name), text);
    write("requirements.txt", "uvicorn\nhttptools\nwebsockets\n")?;
    write(
        "railway.json",
        r#"{ "deploy": {
  "startCommand": "uvicorn app:app --host 0.0.0.0 --port $PORT --no-access-log --timeout-graceful-shutdown 2",
  "healthcheckPath": "/health",
  "healthcheckTimeout": 60
} }
"#,
    )?;
    // A handover waits for open streams this long.
    let volume =
        if subject.name == "held" { "\n[[volumes]]\nname = \"data\"\nmount = \"/data\"\n" } else { "" };
    write("trackbed.toml", &format!("[deploy]\ndrainSeconds = 1\nstopGraceSeconds = 5\n{volume}"))?;
    set_version(subject, 0)
}

fn set_version(subject: &Subject, number: u64) -> Result<()> {
    let code = APP.replace("VERSION = \"0\"", &format!("VERSION = \"{number}\""));
    Ok(std::fs::write(subject.source.join("app.py"), code)?)
}

/// Stops the service with the volume and returns how often each note is in its database.
fn notes_on_the_volume(own: &OwnBox) -> Result<HashMap<String, u64>> {
    own.trackbed(&["down", "--service", "held", "--yes"])?;
    let found = find(&own.data_dir, "notes.db").context("no database on the volume")?;
    let rows = read(
        "sqlite3",
        &[&found.to_string_lossy(), "SELECT name || ' ' || count(*) FROM notes GROUP BY name"],
    )?;
    let pair = |line: &str| Some((line.split_once(' ')?.0.to_owned(), line.split_once(' ')?.1.parse().ok()?));
    Ok(rows.lines().filter_map(pair).collect())
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if entry.file_name() == name {
            return Some(path);
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(found) = find(&path, name)
        {
            return Some(found);
        }
    }
    None
}

fn report(
    subjects: &[Subject; 2],
    waits: &[Vec<f64>; 2],
    notes: &HashMap<String, u64>,
    handovers: u64,
    took: Duration,
) {
    let total: u64 = subjects.iter().map(|subject| subject.tally.answered()).sum();
    println!("\n{total} requests over {handovers} handovers in {} s, nothing retried", took.as_secs());
    println!("| | overlap (no volume) | held (SQLite on a volume) | goal |");
    println!("|---|---|---|---|");
    let row = |title: &str, goal: &str, of: &dyn Fn(&Tally) -> String| {
        println!("| {title} | {} | {} | {goal} |", of(&subjects[0].tally), of(&subjects[1].tally));
    };
    let number = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed).to_string();
    row("GET answered", "", &|tally| number(&tally.gets));
    row("POST acknowledged", "", &|tally| number(&tally.posts));
    row("WebSocket echoes", "", &|tally| number(&tally.echoes));
    row("event streams ended whole", "", &|tally| number(&tally.streams));
    row("events", "", &|tally| number(&tally.events));
    row("failed", "0", &|tally| number(&tally.failed));
    row("streams cut", "0", &|tally| number(&tally.cut));
    row("streams ended early, between events", "", &|tally| number(&tally.ended_politely));
    row("... of them with a `retry:` hint", "", &|tally| number(&tally.ended_with_hint));
    row("WebSockets torn", "0", &|tally| number(&tally.torn));
    row("WebSockets closed, of them with 1012", "", &|tally| {
        format!("{}, {}", number(&tally.closed_politely), number(&tally.closed_1012))
    });
    row("messages without echo at a close", "", &|tally| number(&tally.unanswered));
    row("idle connections closed by the platform", "", &|tally| number(&tally.reconnects));
    row("longest wait of a short request, ms", "", &|tally| {
        format!("{:.0}", tally.longest().as_secs_f64() * 1e3)
    });
    println!(
        "| longest wait per handover, ms, median [min-max] | {} | {} | |",
        spread(&waits[0], 0),
        spread(&waits[1], 0)
    );
    let acknowledged = subjects[1].tally.acknowledged();
    let lost = acknowledged.iter().filter(|name| !notes.contains_key(*name)).count();
    let doubled = notes.values().filter(|times| **times > 1).count();
    println!("| writes lost | | {lost} of {} | 0 |", acknowledged.len());
    println!("| writes doubled | | {doubled} | 0 |");
    println!("| writes there but not acknowledged | | {} | |", notes.len() + lost - acknowledged.len());
    for subject in subjects {
        for example in subject.tally.examples() {
            println!("  {example}");
        }
    }
}
