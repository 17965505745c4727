//! Who is killed.

use std::time::Instant;

use trackbed_tests::Instance;

use super::{ABSENCE, Chaos, Killed, Victim, Window};

impl Chaos {
    pub(super) fn choose(&mut self) -> Victim {
        match self.random.below(10) {
            0..2 => Victim::Serve,
            2..4 => Victim::Edge,
            4..6 => Victim::Shim,
            6..7 => Victim::Init,
            _ => Victim::App,
        }
    }

    /// Kills a process of the box, now and then another one while `serve` is away, and says which and of which instance.
    pub(super) fn kill(&mut self, victim: Victim) -> Vec<Killed> {
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
}
