//! Measures captures: `measure-capture pause|incremental|many FOLDER`. The folder becomes a data directory and is where the
//! file system under test is; what is made in it is removed.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, reason = "a measurement")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trackbed_core::ports::{CaptureOrder, Freezer, Frozen, PortError, Volumes};
use trackbed_core::restore_point::Capture;
use trackbed_core::volume::Volume;
use trackbed_core::{RestorePointId, ServiceId, Timestamp, VolumeId};
use trackbed_stdx::random;
use trackbed_volume::LocalVolumes;

const MEGABYTE: usize = 1024 * 1024;
/// Of an incremental measurement.
const ROUNDS: u32 = 3;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, folder] = &arguments[..] else { panic!("measure-capture pause|incremental|many FOLDER") };
    let folder = tempfile::tempdir_in(folder).unwrap();
    let volumes = LocalVolumes::new(folder.path());
    let (id, service) = (VolumeId::from_random([1; 10]), ServiceId::from_random([2; 10]));
    let volume = Volume::new(id, service, "data".parse().unwrap(), "/data".parse().unwrap(), Timestamp(0));
    let data = volumes.ensure(&volume).await.unwrap().directory;
    match what.as_str() {
        "pause" => pause(&volumes, &volume, &data).await,
        "incremental" => incremental(&volumes, &volume, &data).await,
        "many" => many(&volumes, &volume, &data).await,
        _ => panic!("pause, incremental or many"),
    }
}

async fn capture(
    volumes: &LocalVolumes,
    volume: &Volume,
    freezer: Option<&dyn Freezer>,
) -> (Capture, Duration) {
    let order = CaptureOrder { volume: volume.clone(), point: RestorePointId::from_random(random::bytes()) };
    let began = Instant::now();
    let captured = volumes.capture(&[order], freezer).await.unwrap();
    (captured[0].clone(), began.elapsed())
}

/// 700 and 300 MB, of which 1 % of the pages change at random, while an app is there that does not write just then.
async fn incremental(volumes: &LocalVolumes, volume: &Volume, data: &Path) {
    let sizes = [("app.db", 700), ("binary.bin", 300)];
    let files = sizes.map(|(name, _)| fs::File::create_new(data.join(name)).unwrap());
    for round in 0..ROUNDS {
        for (file, (_, megabytes)) in files.iter().zip(sizes) {
            for at in 0..megabytes {
                file.write_all_at(&noise(random_number(), MEGABYTE), at * MEGABYTE as u64).unwrap();
            }
            file.sync_all().unwrap();
        }
        let mut full = None;
        for what in ["all new", "1 % changed", "unchanged"] {
            if what == "1 % changed" {
                for (file, (_, megabytes)) in files.iter().zip(sizes) {
                    for _ in 0..megabytes * 256 / 100 {
                        let page = random_number() % (megabytes * 256);
                        file.write_all_at(&noise(random_number(), 4096), page * 4096).unwrap();
                    }
                    file.sync_all().unwrap();
                }
            }
            // As long as a command takes to get there.
            std::thread::sleep(Duration::from_millis(100));
            let (captured, took) = capture(volumes, volume, Some(&Calm)).await;
            let full = *full.get_or_insert(took);
            println!(
                "{round}\t{what}\t{} ms\t{:.3} of the full one\tpause {} ms\t{} bytes stored",
                took.as_millis(),
                took.as_secs_f64() / full.as_secs_f64(),
                captured.pause_ms,
                captured.stored_bytes
            );
        }
    }
}

/// An app that rests: it stands still whenever it is asked to.
struct Calm;

#[async_trait]
impl Freezer for Calm {
    async fn freeze(&self) -> Result<Box<dyn Frozen>, PortError> {
        Ok(Box::new(Resting(Instant::now())))
    }
}

struct Resting(Instant);

#[async_trait]
impl Frozen for Resting {
    async fn thaw(self: Box<Self>) -> Result<Duration, PortError> {
        Ok(self.0.elapsed())
    }
}

fn random_number() -> u64 {
    u64::from_le_bytes(random::bytes())
}

/// 100,000 small files.
async fn many(volumes: &LocalVolumes, volume: &Volume, data: &Path) {
    for folder in 0..100 {
        fs::create_dir(data.join(folder.to_string())).unwrap();
        for file in 0..1000u32 {
            fs::write(data.join(format!("{folder}/{file}")), (folder * 1000 + file).to_le_bytes()).unwrap();
        }
    }
    for what in ["first", "second", "third"] {
        let (captured, took) = capture(volumes, volume, None).await;
        println!("{what}: {} bytes stored in {took:?}", captured.stored_bytes);
    }
}

/// A database of 120 MB under transactions, 70 MB of other data and 50 small files.
async fn pause(volumes: &LocalVolumes, volume: &Volume, data: &Path) {
    fs::write(data.join("index.bin"), noise(1, 70 * MEGABYTE)).unwrap();
    for file in 0..50u64 {
        fs::write(data.join(format!("small-{file}")), noise(file, 2000)).unwrap();
    }
    let writer = Writer::start(&data.join("app.db"));
    let mut pauses = Vec::new();
    for round in 0..7 {
        let (captured, took) = capture(volumes, volume, Some(&writer)).await;
        println!(
            "{round}: stood still {} ms, {} bytes stored in {took:?}",
            captured.pause_ms, captured.stored_bytes
        );
        pauses.push(captured.pause_ms);
        std::thread::sleep(Duration::from_secs(2));
    }
    pauses.sort_unstable();
    println!("pause: median {} ms ({}–{})", pauses[3], pauses[0], pauses[6]);
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

const WRITER: &str = "
import os, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma journal_mode=wal'); db.execute('pragma synchronous=normal')
db.execute('create table t (id integer primary key, body blob)')
db.execute('begin')
for n in range(30000): db.execute('insert into t(body) values (?)', (os.urandom(3900),))
db.execute('commit')
db.execute('pragma wal_checkpoint(truncate)')
print('ready', flush=True)
while True:
    db.execute('begin')
    db.execute('insert into t(body) values (?)', (os.urandom(300),))
    db.execute('update t set body=? where id=abs(random() % 30000)', (os.urandom(3900),))
    db.execute('commit')
    time.sleep(0.0023)
";

struct Writer(Child);

impl Writer {
    fn start(database: &PathBuf) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", WRITER])
            .arg(database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stopped(Pid, Instant);

#[async_trait]
impl Freezer for Writer {
    async fn freeze(&self) -> Result<Box<dyn Frozen>, PortError> {
        let began = Instant::now();
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        while !fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap().contains(") T") {
            std::thread::yield_now();
        }
        Ok(Box::new(Stopped(self.pid(), began)))
    }
}

#[async_trait]
impl Frozen for Stopped {
    async fn thaw(self: Box<Self>) -> Result<Duration, PortError> {
        kill(self.0, Signal::SIGCONT).unwrap();
        Ok(self.1.elapsed())
    }
}
