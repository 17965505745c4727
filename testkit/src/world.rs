//! The world outside the control plane: sources, instances, the edge's table, and a journal of what happened to them.
//!
//! Nothing here runs by itself: what an instance does is computed from its script and the clock whenever it is asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use trackbed_core::instance::{Exit, InstanceKind, InstanceSpec, LogLine, LogStream, VolumeMount};
use trackbed_core::ports::Suspect;
use trackbed_core::route::{RouteTable, StreamFault, StreamNotice, TargetStats, UpstreamState};
use trackbed_core::{Digest, Host, InstanceId, ServiceId, Timestamp};

use crate::app::App;
use crate::callers::Callers;
use crate::clock;
use crate::disk::Disk;

/// Something that happened, for tests that ask for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// A source was built.
    Built(Digest),
    /// An instance began.
    Started(InstanceId),
    /// An instance was told to end.
    Stopping(InstanceId),
    /// The engine said that nothing of an instance lives any more.
    Stopped(InstanceId),
    /// An instance was made to stand still.
    Frozen(InstanceId),
    /// It was let go again: by whoever froze it, at its limit, or by an order to end it.
    Thawed(InstanceId),
    /// The builder kept these images and sources, and let go of all others.
    Collected {
        /// The images.
        images: Vec<Digest>,
        /// The sources.
        sources: Vec<Digest>,
    },
    /// The builder let go of what only makes builds faster.
    CachesDropped,
    /// A table came into force.
    Applied(RouteTable),
    /// The requests of an instance were cut.
    Cut(InstanceId),
    /// The streams of an instance were asked to end, spread over this time.
    StreamsEnded(InstanceId, std::time::Duration),
}

/// The world. Clones share it.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
}

pub(crate) struct State {
    pub(crate) apps: HashMap<Digest, App>,
    pub(crate) starts: HashMap<Digest, u32>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    /// Instances that stand still: the number of the hold, and until when at the latest.
    pub(crate) frozen: BTreeMap<InstanceId, (u64, Timestamp)>,
    pub(crate) holds: u64,
    pub(crate) next_port: u16,
    pub(crate) table: RouteTable,
    pub(crate) traffic: BTreeMap<InstanceId, TargetStats>,
    /// Streams that were asked to end: since when, and over which time.
    pub(crate) ending: BTreeMap<InstanceId, (Timestamp, Duration)>,
    pub(crate) journal: Vec<(Timestamp, Happening)>,
    pub(crate) violations: Vec<String>,
    pub(crate) callers: Callers,
    pub(crate) notices: BTreeMap<ServiceId, Vec<StreamNotice>>,
    pub(crate) suspects: Vec<Suspect>,
    pub(crate) disk: Disk,
}

/// A run of an app.
#[derive(Debug, Clone)]
pub struct Instance {
    /// What it was started with.
    pub spec: InstanceSpec,
    /// Its script.
    pub app: App,
    /// When it began.
    pub started_at: Timestamp,
    pub(crate) end: Option<(Timestamp, Exit)>,
    pub(crate) lines: Vec<LogLine>,
}

impl Instance {
    /// Returns how and when it ended, or none while it lives.
    pub fn ended(&self, now: Timestamp) -> Option<(Timestamp, Exit)> {
        self.end.clone().filter(|(at, _)| *at <= now)
    }

    /// Returns whether it lives.
    pub fn lives(&self, now: Timestamp) -> bool {
        self.ended(now).is_none()
    }

    /// Ends it at a time, unless it ends earlier.
    pub(crate) fn end_by(&mut self, at: Timestamp, exit: Exit) {
        if self.end.as_ref().is_none_or(|(earlier, _)| *earlier > at) {
            self.end = Some((at, exit));
        }
    }

    /// Returns the ports that it listens on.
    pub fn ports(&self, now: Timestamp) -> Vec<u16> {
        let listens = self.app.listens_after.is_some_and(|after| now.since(self.started_at) >= after);
        match (listens && self.lives(now), self.app.other_ports.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => self.spec.port.into_iter().collect(),
            (true, false) => self.app.other_ports.clone(),
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Makes an empty world and sets the clock to its beginning.
    pub fn new() -> Self {
        clock::restart();
        let state = State {
            apps: HashMap::new(),
            starts: HashMap::new(),
            instances: BTreeMap::new(),
            frozen: BTreeMap::new(),
            holds: 0,
            next_port: 20_000,
            table: RouteTable::default(),
            traffic: BTreeMap::new(),
            ending: BTreeMap::new(),
            journal: Vec::new(),
            violations: Vec::new(),
            callers: Callers::default(),
            notices: BTreeMap::new(),
            suspects: Vec::new(),
            disk: Disk::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Puts a source on the box, or changes what it does. Returns its digest.
    pub fn push(&self, app: &App) -> Digest {
        let digest = digest_of(&app.name);
        self.lock().apps.insert(digest.clone(), app.clone());
        digest
    }

    /// Returns an instance.
    pub fn instance(&self, id: &InstanceId) -> Option<Instance> {
        self.lock().instances.get(id).cloned()
    }

    /// Returns the service instances that live now.
    pub fn living(&self) -> Vec<Instance> {
        let now = clock::now();
        let state = self.lock();
        let services =
            state.instances.values().filter(|instance| instance.spec.kind == InstanceKind::Service);
        services.filter(|instance| instance.lives(now)).cloned().collect()
    }

    /// Returns whether an instance stands still now.
    pub fn is_frozen(&self, id: &InstanceId) -> bool {
        self.lock().is_frozen(id)
    }

    /// Puts a running instance there that the control plane did not ask for, such as the job of a build.
    pub fn add_instance(&self, spec: InstanceSpec) {
        let app = App::new("a job");
        self.lock().begin(spec, app);
    }

    /// Ends an instance now, as a crash does.
    pub fn kill(&self, id: &InstanceId, exit: Exit) {
        let now = clock::now();
        if let Some(instance) = self.lock().instances.get_mut(id) {
            instance.end_by(now, exit);
        }
    }

    /// Ends everything that runs, without a record, as a power cut does.
    pub fn lose_power(&self) {
        let now = clock::now();
        for instance in self.lock().instances.values_mut() {
            instance.end_by(now, Exit::Lost);
        }
    }

    /// Gives the edge another table behind the control plane's back: an empty one is a restart without a snapshot.
    pub fn set_table(&self, table: RouteTable) {
        self.lock().table = table;
    }

    /// Sets the requests that are open to an instance.
    pub fn set_traffic(&self, id: &InstanceId, in_flight: u64, streams: u64) {
        let mut state = self.lock();
        state.ending.remove(id);
        state.traffic.insert(id.clone(), TargetStats { in_flight, streams, ..TargetStats::default() });
    }

    /// Lets the edge notice a fault of a service's streams once more.
    pub fn notice(&self, service: &ServiceId, fault: StreamFault, path: &str) {
        let mut state = self.lock();
        let notices = state.notices.entry(service.clone()).or_default();
        let count = notices.iter().find(|notice| notice.fault == fault).map_or(0, |notice| notice.count);
        notices.retain(|notice| notice.fault != fault);
        notices.push(StreamNotice { fault, path: path.to_owned(), count: count + 1 });
    }

    /// Says what a look into any source finds.
    pub fn set_suspects(&self, suspects: Vec<Suspect>) {
        self.lock().suspects = suspects;
    }

    /// Returns how many instances have held a lock so far.
    pub(crate) fn fence(&self, lock: &str) -> u64 {
        let state = self.lock();
        let holds = |instance: &&Instance| instance.spec.volumes.iter().any(|mount| mount.lock_path == lock);
        state.instances.values().filter(holds).count() as u64
    }

    /// Returns the table in force.
    pub fn table(&self) -> RouteTable {
        self.lock().table.clone()
    }

    /// Returns where the requests of a host go, or none when the edge does not know it.
    pub fn upstream(&self, host: &Host) -> Option<UpstreamState> {
        self.lock().table.routes.get(host).map(|route| route.upstream.clone())
    }

    /// Returns what happened, in its order.
    pub fn journal(&self) -> Vec<(Timestamp, Happening)> {
        self.lock().journal.clone()
    }

    /// Returns what must never have happened: two writers on a volume, a served instance stopped, a dead target.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }
}

/// How long an app takes to see that it cannot use its data.
const FAILS_AFTER: Duration = Duration::from_millis(20);

impl State {
    pub(crate) fn note(&mut self, happening: Happening) {
        self.journal.push((clock::now(), happening));
    }

    /// Returns whether an instance stands still, and lets it go when its limit is over.
    pub(crate) fn is_frozen(&mut self, id: &InstanceId) -> bool {
        let Some((_, until)) = self.frozen.get(id) else { return false };
        if *until > clock::now() {
            return true;
        }
        self.thaw(id);
        false
    }

    /// Makes an instance stand still. Returns the number of the hold.
    pub(crate) fn freeze(&mut self, id: InstanceId, until: Timestamp) -> u64 {
        self.holds += 1;
        self.frozen.insert(id.clone(), (self.holds, until));
        self.note(Happening::Frozen(id));
        self.holds
    }

    /// Lets an instance go.
    pub(crate) fn thaw(&mut self, id: &InstanceId) {
        if self.frozen.remove(id).is_some() {
            self.note(Happening::Thawed(id.clone()));
        }
    }

    /// Lets an instance go that one hold keeps still. Returns whether it did until now.
    pub(crate) fn thaw_hold(&mut self, id: &InstanceId, number: u64) -> bool {
        let held = self.is_frozen(id) && self.frozen.get(id).is_some_and(|(held, _)| *held == number);
        if held {
            self.thaw(id);
        }
        held
    }

    /// Returns the requests that are open to instances now: streams that were asked to end do so one after the other,
    /// evenly, the last at the end of the time they were given.
    pub(crate) fn traffic_now(&self, now: Timestamp) -> BTreeMap<InstanceId, TargetStats> {
        let mut traffic = self.traffic.clone();
        for (id, (since, over)) in &self.ending {
            let Some(stats) = traffic.get_mut(id) else { continue };
            let left = over.saturating_sub(now.since(*since)).as_millis();
            let share = u128::from(stats.streams) * left;
            let open = u64::try_from(share.div_ceil(over.as_millis().max(1))).unwrap_or(u64::MAX);
            stats.in_flight -= stats.streams - open;
            stats.websockets = stats.websockets.min(open);
            stats.streams = open;
        }
        traffic
    }

    /// Returns a living instance other than `asker` that holds a volume and does not share it with it.
    pub(crate) fn holder(&self, wanted: &VolumeMount, asker: &InstanceId) -> Option<InstanceId> {
        let now = clock::now();
        let excludes =
            |held: &VolumeMount| held.lock_path == wanted.lock_path && !(held.shared && wanted.shared);
        let holds = |instance: &&Instance| instance.spec.volumes.iter().any(excludes);
        let mut living = self.instances.values().filter(|instance| instance.lives(now)).filter(holds);
        living.find(|instance| instance.spec.id != *asker).map(|instance| instance.spec.id.clone())
    }

    pub(crate) fn begin(&mut self, spec: InstanceSpec, app: App) {
        let now = clock::now();
        let starts = self.starts.entry(digest_of(&app.name)).or_default();
        *starts += 1;
        let mut end = None;
        if let Some(ending) = &app.ending
            && ending.starts.is_none_or(|first| *starts <= first)
        {
            end = Some((later(now, ending.after), ending.exit.clone()));
        }
        if app.config.pre_deploy.as_ref() == Some(&spec.command) {
            let exit = if spec.offline { &app.pre_deploy.on_a_copy } else { &app.pre_deploy.in_earnest };
            end = Some((later(now, app.pre_deploy.takes), exit.clone()));
        }
        let line =
            |text: &String| LogLine { at: now, stream: LogStream::Out, process: None, text: text.clone() };
        let lines = app.prints.iter().map(line).collect();
        let id = spec.id.clone();
        let directories: Vec<String> = spec.volumes.iter().map(|mount| mount.host_path.clone()).collect();
        let found = self.use_data(&id, &app, &directories, spec.offline);
        if found < app.needs_writes {
            end = Some((later(now, FAILS_AFTER), Exit::Code { code: 1 }));
        }
        self.instances.insert(id.clone(), Instance { spec, app, started_at: now, end, lines });
        self.note(Happening::Started(id));
    }
}

/// Returns the time so much later.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

/// Returns the digest of the source of a name.
pub(crate) fn digest_of(name: &str) -> Digest {
    // FNV-1a, four times with another seed: not secret, only different for different names.
    let mut bytes = [0; 32];
    for (seed, chunk) in bytes.chunks_mut(8).enumerate() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ (seed as u64);
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        chunk.copy_from_slice(&hash.to_be_bytes());
    }
    Digest::from_bytes(bytes)
}
