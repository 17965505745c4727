//! One delivery from its commit to its end: fetched, handed to the box as a push is, followed, and told to the forge.
//!
//! What has been reached is stored, so that another `serve` goes on: a delivery without a deployment is fetched again, one
//! with a deployment is followed. The newest wins: an earlier one that was not fetched yet is given up when the next comes,
//! and a deployment under way is superseded as any other.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use trackbed_control::ControlError;
use trackbed_core::DeploymentId;
use trackbed_core::deployment::{Deployment, DeploymentState, Withdrawal};
use trackbed_core::git::{Commit, Via};
use trackbed_core::ports::PortError;
use trackbed_core::remote::{Delivery, DeliveryEnd, Remote, RemoteSecrets};
use trackbed_core::service::Service;

use super::Hooks;
use super::fetch::{Fetch, Fetched};
use super::status::{Board, State};
use crate::error::chain;
use crate::git::repository::PACK_MAX_BYTES;

/// How long handing a fetched commit to the box may take: looking at it, packing and unpacking it.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Characters of an error that are kept.
const WORDS_MAX_CHARS: usize = 1000;

/// How a delivery ended, and more in words.
type End = (DeliveryEnd, String);

/// What the box made of a commit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Made {
    /// What is live has the same files and variables: this release.
    Live(String),
    /// This deployment.
    Deployment(String),
}

/// How far a delivery came before somebody has to wait.
enum Begun {
    /// This deployment came of it.
    Deploys(DeploymentId),
    /// It has ended.
    Ended(End),
    /// Its service follows nothing any more.
    Gone,
}

impl Hooks {
    /// Goes on with what an earlier `serve` has left under way.
    pub(crate) async fn go_on(&self) {
        match self.inner.control.deliveries_under_way().await {
            Ok(deliveries) => deliveries.into_iter().for_each(|delivery| self.start(delivery)),
            Err(error) => tracing::error!(%error, "deliveries under way cannot be gone on with"),
        }
    }

    /// Sees a delivery through, in a task of its own.
    pub(crate) fn start(&self, delivery: Delivery) {
        let (hooks, mut shutdown) = (self.clone(), self.inner.tasks.shutdown());
        self.inner.tasks.spawn(format!("delivery {}", delivery.number), async move {
            tokio::select! {
                seen = Box::pin(hooks.see_through(&delivery)) => if let Err(error) = seen {
                    let (number, error) = (delivery.number, &error as &dyn std::error::Error);
                    tracing::error!(number, error, "a delivery is left for the next start of the box");
                },
                () = shutdown.wait() => {}
            }
        });
    }

    async fn see_through(&self, delivery: &Delivery) -> Result<(), ControlError> {
        let control = &self.inner.control;
        let service = control.service_by_id(delivery.service.clone()).await?;
        let (remote, secrets, _) = control.remote_to_fetch(&service).await?;
        let teller = Teller { hooks: self, service: &service, remote: &remote, secrets: &secrets };
        let mut commit = delivery.commit.clone();
        let begun = match delivery.deployment.clone() {
            Some(id) => Begun::Deploys(id),
            None => {
                teller.tell(commit.as_ref(), State::Pending, "fetched and deployed").await;
                let begun = self.begin(delivery.number, &service, &mut commit).await?;
                if delivery.commit.is_none() {
                    teller.tell(commit.as_ref(), State::Pending, "deployed").await;
                }
                begun
            }
        };
        let end = match begun {
            Begun::Deploys(id) => self.follow(&id).await?,
            Begun::Ended(end) => end,
            Begun::Gone => return Ok(()),
        };
        self.end(delivery.number, &teller, commit.as_ref(), end).await
    }

    /// Fetches a commit and hands it to the box, when its turn has come and nothing newer has.
    async fn begin(
        &self,
        number: i64,
        service: &Service,
        commit: &mut Option<Commit>,
    ) -> Result<Begun, ControlError> {
        let control = &self.inner.control;
        let turn = self.turn(&service.id);
        let _turn = turn.lock().await;
        match control.delivery(number).await? {
            None => return Ok(Begun::Gone),
            Some(Delivery { end: Some(end), .. }) => return Ok(Begun::Ended(end)),
            Some(_) => {}
        }
        // Now, because it may have been connected anew meanwhile.
        let (remote, secrets, known_hosts) = control.remote_to_fetch(service).await?;
        let fetched = match self.fetch(service, &remote, &secrets, known_hosts, commit).await? {
            Ok(fetched) => fetched,
            Err(error) => return Ok(Begun::Ended((DeliveryEnd::Unfetched, in_words(&error)))),
        };
        if let Some(commit) = commit {
            control.set_delivery_commit(number, commit.clone()).await?;
        }
        let made = self.hand_over(service, number, &fetched, &remote).await;
        // What is in the store counts: the answer may have been lost, and a newer delivery may have come.
        let Some(now) = control.delivery(number).await? else { return Ok(Begun::Gone) };
        Ok(match (now.deployment, now.end, made) {
            (Some(id), _, _) => Begun::Deploys(id),
            (None, Some(end), _) => Begun::Ended(end),
            (None, None, Ok(Made::Live(release))) => {
                Begun::Ended((DeliveryEnd::Already, format!("{release} has just these files and variables")))
            }
            (None, None, Ok(Made::Deployment(id))) => {
                Begun::Ended((DeliveryEnd::Unfetched, format!("deployment {id} was not noted; see its log")))
            }
            (None, None, Err(error)) => Begun::Ended((DeliveryEnd::Unfetched, in_words(&error))),
        })
    }

    async fn end(
        &self,
        number: i64,
        teller: &Teller<'_>,
        commit: Option<&Commit>,
        (end, words): End,
    ) -> Result<(), ControlError> {
        if end == DeliveryEnd::Unfetched {
            tracing::warn!(service = %teller.service.name, words, "a commit could not be fetched");
        }
        self.inner.control.end_delivery(number, end, words.clone()).await?;
        let (state, text) = match end {
            DeliveryEnd::Live => (State::Success, words),
            DeliveryEnd::Already => (State::Success, format!("already live: {words}")),
            DeliveryEnd::Skipped => (State::Success, format!("skipped: {words}")),
            DeliveryEnd::Failed | DeliveryEnd::Unfetched => (State::Failure, words),
            DeliveryEnd::Superseded | DeliveryEnd::Cancelled => (State::GivenUp, words),
        };
        teller.tell(commit, state, &text).await;
        Ok(())
    }

    /// Fetches the commit, and finds out which one it is when that was not known.
    async fn fetch(
        &self,
        service: &Service,
        remote: &Remote,
        secrets: &RemoteSecrets,
        known_hosts: String,
        commit: &mut Option<Commit>,
    ) -> Result<Result<Fetched, PortError>, ControlError> {
        let Ok(_place) = self.inner.fetches.acquire().await else { return std::future::pending().await };
        let room_bytes = self.inner.control.room().await.unwrap_or(PACK_MAX_BYTES);
        if room_bytes == 0 {
            let error = PortError::new("the disk of the box is full but for the reserve of its volumes");
            return Ok(Err(error.hint("trackbed status says more")));
        }
        let wanted = commit.as_ref().map(|commit| commit.id.clone());
        let fetch = Fetch {
            data_dir: &self.inner.data_dir,
            environment: &self.inner.environment,
            service: &service.id,
            remote,
            secrets,
            known_hosts: &known_hosts,
            wanted: wanted.as_deref(),
            room_bytes,
        };
        let (fetched, learnt) = fetch.run().await;
        if let Some(learnt) = learnt {
            self.inner.control.set_known_hosts(service.id.clone(), learnt).await?;
        }
        if let (None, Ok(fetched)) = (&wanted, &fetched) {
            *commit = Commit::new(Via::Remote, &fetched.commit, remote.branch.as_str(), "").ok();
        }
        Ok(fetched)
    }

    /// Hands a fetched commit to the box, as a push is: by this program as its client.
    async fn hand_over(
        &self,
        service: &Service,
        number: i64,
        fetched: &Fetched,
        remote: &Remote,
    ) -> Result<Made, PortError> {
        let failed = |why: String| PortError::new(format!("the commit cannot be handed to the box: {why}"));
        let program = crate::git::repository::own_program().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.arg0(trackbed_stdx::program::FETCHED_ROLE);
        fetched.repository.surround(&mut command);
        command
            .env("GIT_DIR", fetched.repository.path())
            .env("TRACKBED_DATA_DIR", &self.inner.data_dir)
            .env("TRACKBED_PUSH_PROJECT", service.project_name.as_str())
            .env("TRACKBED_PUSH_SERVICE", service.name.as_str())
            .env("TRACKBED_FETCHED_COMMIT", &fetched.commit)
            .env("TRACKBED_FETCHED_BRANCH", remote.branch.as_str())
            .env("TRACKBED_FETCHED_DELIVERY", number.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = tokio::time::timeout(HAND_OVER_LIMIT, command.output()).await;
        let output = output.map_err(|_| failed("it takes too long".into()))?;
        let output = output.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
            let mut error = PortError::new("");
            for line in lines.by_ref() {
                match line.strip_prefix("hint: ") {
                    Some(hint) => error.hint = Some(hint.to_owned()),
                    None => error.message = line.strip_prefix("error: ").unwrap_or(line).to_owned(),
                }
            }
            return Err(error);
        }
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
    }

    /// Waits until a deployment has its outcome.
    async fn follow(&self, id: &DeploymentId) -> Result<End, ControlError> {
        let control = &self.inner.control;
        let mut news = control.news();
        loop {
            news.mark_unchanged();
            let deployment = control.deployment(id).await?;
            if deployment.told().is_terminal() {
                return self.outcome(&deployment).await;
            }
            if news.changed().await.is_err() {
                // The box ends, and this task with it.
                return std::future::pending().await;
            }
        }
    }

    async fn outcome(&self, deployment: &Deployment) -> Result<End, ControlError> {
        let (_, release) = self.inner.control.around(deployment).await?;
        let label = release.map_or_else(|| "the release".to_owned(), |release| release.label());
        let failed = || match &deployment.failure {
            Some(failure) => format!("failed at {}: {}", failure.stage.as_str(), failure.reason),
            None => "failed".to_owned(),
        };
        Ok(match (deployment.state, &deployment.withdrawal) {
            (DeploymentState::Success, _) => (DeliveryEnd::Live, format!("{label} is live")),
            (DeploymentState::Skipped, Some(Withdrawal::Skipped { reason })) => {
                (DeliveryEnd::Skipped, reason.clone())
            }
            (DeploymentState::Skipped, _) => (DeliveryEnd::Skipped, String::new()),
            (DeploymentState::Superseded, _) => {
                (DeliveryEnd::Superseded, "a newer deployment took its place".to_owned())
            }
            (DeploymentState::Cancelled, _) => (DeliveryEnd::Cancelled, "cancelled".to_owned()),
            (
                DeploymentState::Failed
                | DeploymentState::Queued
                | DeploymentState::Building
                | DeploymentState::Deploying,
                _,
            ) => (DeliveryEnd::Failed, failed()),
        })
    }

    fn turn(&self, service: &trackbed_core::ServiceId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.inner.turns.lock().expect("no holder of this lock panics");
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(service.clone()).or_default())
    }
}

/// Tells the forge, when it shall be told.
struct Teller<'a> {
    hooks: &'a Hooks,
    service: &'a Service,
    remote: &'a Remote,
    secrets: &'a RemoteSecrets,
}

impl Teller<'_> {
    async fn tell(&self, commit: Option<&Commit>, state: State, words: &str) {
        let (Some(commit), Some(forge), Some(token)) =
            (commit, self.remote.forge, &self.secrets.status_token)
        else {
            return;
        };
        let own = forge.api(&self.remote.url);
        let board = Board {
            forge,
            api: self.remote.api.as_deref().unwrap_or(&own),
            repository: &self.remote.url,
            token,
            context: &context(self.service),
        };
        let target = self.hooks.inner.control.url(&self.service.host);
        let words = words.lines().next().unwrap_or_default();
        if let Err(error) = board.post(&commit.id, state, words, &target).await {
            let (service, commit) = (&self.service.name, commit.short());
            tracing::warn!(%service, commit, error, "the forge was not told how a commit fares");
        }
    }
}

fn context(service: &Service) -> String {
    match service.project_name == service.name {
        true => format!("trackbed/{}", service.name),
        false => format!("trackbed/{}/{}", service.project_name, service.name),
    }
}

fn in_words(error: &PortError) -> String {
    let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}{hint}", chain(error)).chars().take(WORDS_MAX_CHARS).collect()
}
