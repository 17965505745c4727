//! At least a hundred random `kill -9` of serve, edge, supervisors and apps, during deployments under load.
//!
//! Each round asks for a deployment of one service or both, kills one process or two at a random moment, starts `serve`
//! again if it was among them (as systemd would), and waits until everything has settled. What must then be true is
//! checked in [`Chaos::settle`]; what was true all the while, in [`Chaos::end`].

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;
use trackbed_tests::{App, Failed, Instance, Load, Random, TestBox, User, Writers, get};

/// Kills of each of the two large runs.
const KILLS: usize = 55;
/// Kills of the run of an ordinary user.
const KILLS_ORDINARY: usize = 15;
/// Without a volume: the new release begins beside the old one.
const OVERLAP: &str = "swift";
/// With a volume: the old release ends first.
const HELD: &str = "ledger";
const SERVICES: [&str; 2] = [OVERLAP, HELD];
/// A deployment takes about as long, so that kills fall before, into and behind it.
const KILL_WITHIN: Duration = Duration::from_millis(1800);
/// Longest absence of a killed `serve`.
const ABSENCE: Duration = Duration::from_millis(400);
/// From the last kill of a round to the end of all its deployments, restarts after crashes in a row included.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Serve,
    Edge,
    Shim,
    Init,
    App,
}

/// What was killed, and of which instance.
type Killed = (Victim, Option<Instance>);

/// When requests may fail, of one service or of all.
struct Window {
    victim: Victim,
    service: Option<String>,
    from: Instant,
    to: Instant,
}

impl Window {
    fn explains(&self, failed: &Failed) -> bool {
        let same = self.service.as_ref().is_none_or(|service| *service == failed.service);
        same && failed.began <= self.to && failed.ended >= self.from
    }
}

struct Chaos {
    name: String,
    town: TestBox,
    random: Random,
    apps: BTreeMap<&'static str, App>,
    port: u16,
    round: usize,
    /// Deployments whose end was seen, by id.
    known: BTreeSet<String>,
    /// What each release of a service answers.
    texts: BTreeMap<(&'static str, String), String>,
    /// The text of the source that was pushed last.
    pushed: BTreeMap<&'static str, String>,
    kills: BTreeMap<Victim, usize>,
    windows: Vec<Window>,
    failed_deployments: usize,
    began: Instant,
}

impl Chaos {
    fn start(name: &str, user: User) -> Chaos {
        let random = Random::seeded(name);
        let town = TestBox::start_with(user, &[], &[]);
        let mut chaos = Chaos {
            name: name.to_owned(),
            port: town.port(),
            town,
            random,
            apps: BTreeMap::new(),
            round: 0,
            known: BTreeSet::new(),
            texts: BTreeMap::new(),
            pushed: BTreeMap::new(),
            kills: BTreeMap::new(),
            windows: Vec::new(),
            failed_deployments: 0,
            began: Instant::now(),
        };
        for service in SERVICES {
            let app = App::writer(service);
            if service == HELD {
                app.with_volume("/data");
            }
            chaos.town.up_ok(&app.path());
            chaos.apps.insert(service, app);
            chaos.learn(service, &[("up".to_owned(), "one".to_owned())]);
        }
        chaos
    }

    fn killed(&self) -> usize {
        self.kills.values().sum()
    }

    /// Deploys, kills and waits, once.
    fn go_round(&mut self) {
        self.round += 1;
        let mut deeds: BTreeMap<&'static str, (String, String, Child)> = BTreeMap::new();
        let both = self.random.percent(60);
        let one = self.random.below(SERVICES.len());
        for (number, service) in SERVICES.into_iter().enumerate() {
            if both || number == one {
                deeds.insert(service, self.deploy(service));
            }
        }
        let mut victims = Vec::new();
        for _ in 0..1 + usize::from(self.random.percent(25)) {
            std::thread::sleep(self.random.time_below(KILL_WITHIN));
            let victim = self.choose();
            victims.extend(self.kill(victim));
        }
        let asked = self.await_commands(&mut deeds);
        self.settle(&victims, &asked);
        let now = Instant::now();
        let of_this_round = victims.iter().filter(|(victim, _)| *victim != Victim::Serve).count();
        for window in self.windows.iter_mut().rev().take(of_this_round) {
            window.to = now;
        }
    }

    /// Asks for a deployment and returns its kind, its text if it is new, and the command, which goes on.
    fn deploy(&mut self, service: &'static str) -> (String, String, Child) {
        let child = match self.random.below(10) {
            0..4 => {
                let text = format!("{}-round{}", self.name, self.round);
                let path = self.apps[service].version(&text).path();
                let child = self.town.spawn(&["up", &path.to_string_lossy(), "--json"]);
                return ("up".to_owned(), text, child);
            }
            4..6 => ("redeploy", self.town.spawn(&["redeploy", "--service", service, "--json"])),
            6..8 => ("rollback", self.town.spawn(&["rollback", "--service", service, "--json"])),
            _ => ("restart", self.town.spawn(&["restart", "--service", service, "--json"])),
        };
        (child.0.to_owned(), String::new(), child.1)
    }

    fn choose(&mut self) -> Victim {
        match self.random.below(10) {
            0..2 => Victim::Serve,
            2..4 => Victim::Edge,
            4..6 => Victim::Shim,
            6..7 => Victim::Init,
            _ => Victim::App,
        }
    }

    /// Kills a process of the box, now and then another one while `serve` is away, and says which and of which instance.
    fn kill(&mut self, victim: Victim) -> Vec<Killed> {
        if victim != Victim::Serve {
            let edge = self.town.edge_pid();
            return vec![self.kill_beside(victim, edge)];
        }
        let edge = self.town.edge_pid();
        self.town.kill_serve();
        *self.kills.entry(victim).or_default() += 1;
        let mut killed = vec![(victim, None)];
        std::thread::sleep(self.random.time_below(ABSENCE));
        let other = self.choose();
        if other != Victim::Serve && self.random.percent(30) {
            killed.push(self.kill_beside(other, edge));
            std::thread::sleep(self.random.time_below(ABSENCE));
        }
        self.town.start_serve();
        killed
    }

    /// Kills any process but `serve`: the edge when no app lives.
    fn kill_beside(&mut self, victim: Victim, edge: u64) -> Killed {
        let from = Instant::now();
        let mut living = Instance::all(&self.town.data_dir());
        living.retain(Instance::is_alive);
        let at = self.random.below(living.len().max(1));
        let of = living.into_iter().nth(at).filter(|_| victim != Victim::Edge);
        let victim = match &of {
            None => {
                self.town.kill_pid(edge);
                Victim::Edge
            }
            Some(instance) => {
                let app = instance.app();
                match (victim, instance.init) {
                    (Victim::App, _) if !app.is_empty() => {
                        app.into_iter().for_each(|process| self.town.kill_process(process));
                        Victim::App
                    }
                    // Its app has not begun yet.
                    (Victim::App | Victim::Init, Some(init)) => {
                        self.town.kill_process(init);
                        Victim::Init
                    }
                    _ => {
                        self.town.kill_process(instance.shim);
                        Victim::Shim
                    }
                }
            }
        };
        *self.kills.entry(victim).or_default() += 1;
        let service = of.as_ref().map(|instance| instance.service.clone());
        self.windows.push(Window { victim, service, from, to: from });
        (victim, of)
    }

    /// Waits until each command has ended by itself: well or badly, but it must. Returns the kind and text of each.
    fn await_commands(
        &self,
        deeds: &mut BTreeMap<&'static str, (String, String, Child)>,
    ) -> BTreeMap<&'static str, (String, String)> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let mut asked = BTreeMap::new();
        for (service, (kind, text, child)) in deeds.iter_mut() {
            while child.try_wait().expect("our child").is_none() {
                if Instant::now() > deadline {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("`{kind}` of {service} does not end\n{}", self.report());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            asked.insert(*service, (kind.clone(), text.clone()));
        }
        asked
    }

    fn deployments(&self, service: &str) -> Vec<Value> {
        let all = self.town.json(&["deployments", "--json", "--service", service]);
        all.as_array().cloned().unwrap_or_default()
    }

    /// Waits until no deployment is unfinished and exactly the right release of each service serves.
    fn settle(&mut self, victims: &[Killed], asked: &BTreeMap<&'static str, (String, String)>) {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let mut why = String::new();
        loop {
            assert!(Instant::now() < deadline, "{victims:?}: not settled: {why}\n{}", self.report());
            std::thread::sleep(Duration::from_millis(20));
            // What lost its supervisor ends a moment later.
            if victims.iter().any(|(_, of)| of.as_ref().is_some_and(Instance::is_alive)) {
                why = "what was killed lives".to_owned();
                continue;
            }
            match SERVICES.iter().try_for_each(|service| self.is_settled(service)) {
                Ok(()) => break,
                Err(reason) => why = reason,
            }
        }
        for (service, asked) in asked {
            let failed = self.learn(service, std::slice::from_ref(asked));
            let harmed = victims.iter().any(|(_, of)| of.as_ref().is_some_and(|of| of.service == *service));
            assert!(
                failed.is_empty() || harmed,
                "{victims:?}: nothing of {service} was killed: {failed:#?}\n{}",
                self.report()
            );
            self.failed_deployments += failed.len();
        }
        for service in SERVICES {
            let (release, answer) = self.served(service).unwrap_or_else(|why| panic!("{why}"));
            let text = &self.texts[&(service, release.clone())];
            let expected = format!("{service} {release} {text} ins_");
            assert!(answer.starts_with(&expected), "{answer}, not {expected}\n{}", self.report());
        }
    }

    /// Returns the release that should serve and what answers.
    fn served(&self, service: &str) -> Result<(String, String), String> {
        let deployments = self.deployments(service);
        let last = deployments.iter().find(|deployment| deployment["status"] == "success");
        let last = last.ok_or_else(|| format!("{service} has no successful deployment"))?;
        let release = last["release"].as_str().unwrap_or_default().to_owned();
        let answer = get(self.port, &format!("{service}.localhost:{}", self.port), "/identity");
        let answer = answer.map_err(|error| format!("{service}: {error}"))?;
        if answer.status != 200 {
            return Err(format!("{service}: {} {}", answer.status, answer.body));
        }
        Ok((release, answer.body))
    }

    fn is_settled(&self, service: &str) -> Result<(), String> {
        let unfinished = self.deployments(service).into_iter();
        let unfinished: Vec<Value> =
            unfinished.filter(|deployment| deployment["finished_at"].is_null()).collect();
        if !unfinished.is_empty() {
            return Err(format!("{unfinished:#?}"));
        }
        let status = self.town.service(service);
        if status["state"] != "running" {
            return Err(format!("{status:#}"));
        }
        let (_, answer) = self.served(service)?;
        // Only the instance that is on record as the live one may answer.
        match answer.ends_with(status["instance"]["id"].as_str().unwrap_or("?")) {
            true => Ok(()),
            false => Err(format!("{answer} answers, but {}", status["instance"])),
        }
    }

    /// Notes what the new deployments of a service made, in order, and returns those that failed.
    fn learn(&mut self, service: &'static str, asked: &[(String, String)]) -> Vec<Value> {
        let mut new = self.deployments(service);
        new.retain(|deployment| !self.known.contains(deployment["id"].as_str().unwrap_or_default()));
        new.reverse();
        // One that was asked of a dying serve may never have been stored.
        assert!(new.len() <= asked.len(), "{asked:?} made {new:#?}");
        let mut failed = Vec::new();
        for (deployment, (kind, text)) in new.into_iter().zip(asked) {
            assert_eq!(deployment["kind"], **kind, "{deployment:#}");
            self.known.insert(deployment["id"].as_str().expect("an id").to_owned());
            if kind == "up" {
                self.pushed.insert(service, text.clone());
            }
            if let Some(release) = deployment["release"].as_str() {
                let release = (service, release.to_owned());
                // A redeploy builds what was pushed last; the others have a release that is known.
                let pushed = self.pushed[service].clone();
                self.texts.entry(release).or_insert(pushed);
            }
            if deployment["status"] != "success" {
                failed.push(deployment);
            }
        }
        failed
    }

    fn report(&self) -> String {
        let edge_log = std::fs::read_to_string(self.town.data_dir().join("edge.log")).unwrap_or_default();
        format!("round {} of {}; the edge said:\n{edge_log}", self.round, self.name)
    }

    /// Checks what must have been true all the while.
    fn end(mut self, load: Load, writers: Writers) {
        let seen = load.end();
        let watched = writers.end();
        eprintln!(
            "{}: {} kills {:?} in {} rounds, {} s; {} deployments, {} failed; {} requests, {} acknowledged, {} \
             failed; {} streams, {} messages; slowest answer {:?}; {} looks at writers, {} at two instances",
            self.name,
            self.killed(),
            self.kills,
            self.round,
            self.began.elapsed().as_secs(),
            self.known.len(),
            self.failed_deployments,
            seen.requests,
            seen.acknowledged.len(),
            seen.failures.len(),
            seen.streams,
            seen.messages,
            seen.slowest,
            watched.looks,
            watched.close,
        );
        let mut last = BTreeMap::new();
        for failed in &seen.failures {
            // The latest kill that explains it.
            if let Some(window) = self.windows.iter().rfind(|window| window.explains(failed)) {
                let after = failed.ended.saturating_duration_since(window.from);
                let longest = last.entry(window.victim).or_insert(after);
                *longest = after.max(*longest);
            }
        }
        eprintln!("{}: the last failures came so long after kills: {last:?}", self.name);
        let unexplained: Vec<String> = seen
            .failures
            .iter()
            .filter(|failed| !self.windows.iter().any(|window| window.explains(failed)))
            .map(|failed| {
                let ago = |at: Instant| at.saturating_duration_since(self.began).as_millis();
                format!(
                    "{} from {} to {} ms: {}",
                    failed.service,
                    ago(failed.began),
                    ago(failed.ended),
                    failed.what
                )
            })
            .collect();
        assert_eq!(unexplained, Vec::<String>::new(), "{}", self.report());
        assert_eq!(seen.wrong, Vec::<String>::new());
        assert_eq!(watched.violations, Vec::<String>::new());
        assert!(watched.looks > 100, "the writers were hardly looked at: {watched:?}");

        let through_app = self.town.get(HELD, "/keys");
        let mut through_app: Vec<String> = serde_json::from_str(&through_app.body).expect("JSON");
        let down = self.town.trackbed(&["down", "--service", HELD]);
        assert_eq!(down.code, 0, "{down:?}");
        let (mut on_disk, violations) = self.on_volume();
        assert_eq!(violations, "", "the apps saw each other");
        through_app.sort();
        on_disk.sort();
        assert_eq!(through_app, on_disk);
        let once: BTreeSet<&String> = on_disk.iter().collect();
        assert_eq!(once.len(), on_disk.len(), "a row was inserted twice");
        let acknowledged = seen.acknowledged.iter().filter(|(service, _)| service == HELD);
        let lost: Vec<&String> = acknowledged.map(|(_, key)| key).filter(|key| !once.contains(key)).collect();
        assert_eq!(lost, Vec::<&String>::new(), "acknowledged, and lost");
        let left = self.town.end();
        assert_eq!(left.0, Vec::<String>::new(), "the box left something behind");
    }

    /// What stands in the database and in the file of violations, read without the app.
    fn on_volume(&self) -> (Vec<String>, String) {
        let volumes = std::fs::read_dir(self.town.data_dir().join("volumes")).expect("volumes");
        let volumes: Vec<_> = volumes.map(|entry| entry.expect("a volume").path().join("data")).collect();
        let [volume] = &volumes[..] else { panic!("one volume, not {volumes:?}") };
        let code = "import sqlite3, sys\nassert sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchall() \
                    == [('ok',)]\nfor (key,) in sqlite3.connect(sys.argv[1]).execute('SELECT key FROM rows'): print(key)";
        let read = Command::new("python3").arg("-c").arg(code).arg(volume.join("app.db")).output();
        let read = read.expect("python3 runs");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let keys = String::from_utf8_lossy(&read.stdout).lines().map(str::to_owned).collect();
        (keys, std::fs::read_to_string(volume.join("violations")).unwrap_or_default())
    }
}

fn kill_at_random(name: &str, user: User, kills: usize) {
    let mut chaos = Chaos::start(name, user);
    let load = Load::start(chaos.port, &SERVICES);
    let writers = Writers::watch(&chaos.town.data_dir());
    while chaos.killed() < kills {
        chaos.go_round();
    }
    chaos.end(load, writers);
}

#[test]
fn whatever_is_killed_the_right_release_serves_and_no_acknowledged_write_is_lost() {
    kill_at_random("first", User::Own, KILLS);
}

#[test]
fn whatever_is_killed_once_more_the_right_release_serves_and_no_acknowledged_write_is_lost() {
    kill_at_random("second", User::Own, KILLS);
}

#[test]
fn whatever_an_ordinary_user_loses_the_right_release_serves() {
    if trackbed_tests::is_root("a box of an ordinary user, made by root") {
        kill_at_random("ordinary", User::Ordinary, KILLS_ORDINARY);
    }
}
