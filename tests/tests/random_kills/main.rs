//! At least a hundred random `kill -9` of serve, edge, supervisors and apps, during deployments under load.
//!
//! Each round asks for a deployment of one service or both, kills one process or two at a random moment, starts `serve`
//! again if it was among them (as systemd would), and waits until everything has settled. What must then be true is
//! checked in [`Chaos::settle`]; what was true all the while, in [`Chaos::end`].

mod kills;
mod releases;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;
use std::time::{Duration, Instant};

use trackbed_tests::{App, Failed, Instance, Load, Random, TestBox, User, Writers};

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
