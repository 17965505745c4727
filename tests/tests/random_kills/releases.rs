//! What is deployed, and which release must serve afterwards.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;
use trackbed_tests::{Instance, get};

use super::{Chaos, Killed, SERVICES, SETTLE_LIMIT};

impl Chaos {
    /// Asks for a deployment and returns its kind, its text if it is new, and the command, which goes on.
    pub(super) fn deploy(&mut self, service: &'static str) -> (String, String, Child) {
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

    /// Waits until each command has ended by itself: well or badly, but it must. Returns the kind and text of each.
    pub(super) fn await_commands(
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
    pub(super) fn settle(&mut self, victims: &[Killed], asked: &BTreeMap<&'static str, (String, String)>) {
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
    pub(super) fn learn(&mut self, service: &'static str, asked: &[(String, String)]) -> Vec<Value> {
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
}
