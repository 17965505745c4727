//! Repositories that services follow: connecting them, and what becomes of the deliveries of their webhooks.

use trackbed_core::git::Commit;
use trackbed_core::remote::{Delivery, DeliveryEnd, Forge, Remote, RemoteSecrets, RepositoryUrl};
use trackbed_core::service::Service;
use trackbed_core::{Branch, Digest, Name, Secret, ServiceId};
use trackbed_stdx::random;

use crate::control::{Control, ControlError};

/// What every secret of a webhook begins with, so that people and scanners of secrets know what they have found.
const SECRET_PREFIX: &str = "tbh_";
/// Random bytes of it.
const SECRET_BYTES: usize = 20;
/// Deliveries that are shown.
const SHOWN: u32 = 10;

/// A key of ssh.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The half that stays here.
    pub private: Secret<String>,
    /// The half that the forge gets, as one line.
    pub public: String,
}

/// What a service shall follow.
#[derive(Debug, Clone)]
pub struct RemoteWish {
    /// Where the repository is.
    pub url: RepositoryUrl,
    /// The branch that is deployed; none keeps the one that is known, or takes the first of the usual ones.
    pub branch: Option<Branch>,
    /// What kind of forge it is; none guesses by the host.
    pub forge: Option<Forge>,
    /// Where its API is; none is where its kind has it.
    pub api: Option<String>,
    /// Opens the API to the status of commits; none keeps the one that is known.
    pub status_token: Option<Secret<String>>,
    /// The secret of the webhook, where its forge made it; none keeps the one that is known, or draws one.
    pub hook: Option<Secret<String>>,
    /// A new deploy key, for a service that has none.
    pub key: Option<KeyPair>,
}

/// What a service follows, and what came of it lately.
#[derive(Debug, Clone)]
pub struct Followed {
    /// What it follows.
    pub remote: Remote,
    /// Whether the forge hears how commits fare.
    pub has_status_token: bool,
    /// The newest deliveries, newest first.
    pub deliveries: Vec<Delivery>,
}

impl Control {
    /// Returns what a service follows, or none.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn followed(&self, project: &Name, service: &Name) -> Result<Option<Followed>, ControlError> {
        let id = self.service(project, service).await?.id;
        let read = self.inner.store.with(move |db| {
            let Some(remote) = db.find_remote(&id)? else { return Ok(None) };
            let has_status_token =
                db.find_remote_secrets(&id)?.is_some_and(|secrets| secrets.status_token.is_some());
            let deliveries = db.list_deliveries(&id, SHOWN)?;
            Ok(Some(Followed { remote, has_status_token, deliveries }))
        });
        Ok(read.await?)
    }

    /// Lets a service follow a repository, and makes the service when it is new. One that follows another already keeps
    /// its deploy key and, unless one is given, the secret of its webhook, which is returned. What ssh had learnt of the host is forgotten.
    ///
    /// # Errors
    /// When a token for the status of commits is given for a forge that nobody knows.
    pub async fn connect_remote(
        &self,
        project: &Name,
        service: &Name,
        wish: RemoteWish,
    ) -> Result<Secret<String>, ControlError> {
        let forge = wish.forge.or_else(|| Forge::of_host(wish.url.host()));
        if wish.status_token.is_some() && forge.is_none() {
            return Err(ControlError::Conflict {
                message: format!("cannot tell what kind of forge `{}` is", wish.url.host()),
                hint: Some("name it: --forge github, gitlab or gitea".into()),
            });
        }
        let (project, service) = (project.clone(), service.clone());
        let (domain, now) = (self.inner.config.domain.clone(), self.now());
        let drawn: String =
            random::bytes::<SECRET_BYTES>().iter().map(|byte| format!("{byte:02x}")).collect();
        let fresh = Secret::new(format!("{SECRET_PREFIX}{drawn}"));
        let connected = self.inner.store.with(move |db| {
            let id = db.ensure_service(&project, &service, &domain, now)?.id;
            let known = db.find_remote(&id)?;
            let old = db.find_remote_secrets(&id)?;
            let hook = wish.hook.or_else(|| Some(old.as_ref()?.hook.clone())).unwrap_or(fresh);
            let old_key = old.as_ref().and_then(|old| old.deploy_key.clone());
            let old_public = known.as_ref().and_then(|known| known.public_key.clone());
            let (deploy_key, public_key) = match (old_key, wish.key) {
                (Some(key), _) => (Some(key), old_public),
                (None, Some(pair)) => (Some(pair.private), Some(pair.public)),
                (None, None) => (None, None),
            };
            // A token is for one forge: it is not shown to another.
            let same_host = known.as_ref().is_some_and(|known| known.url.host() == wish.url.host());
            let old_token = old.and_then(|old| old.status_token).filter(|_| same_host && forge.is_some());
            let branch = match (wish.branch, &known) {
                (Some(branch), _) => branch,
                (None, Some(known)) => known.branch.clone(),
                (None, None) => match db.find_git_branch(&id)? {
                    Some(branch) => branch,
                    None => Branch::USUAL[0].parse()?,
                },
            };
            let created_at = known.as_ref().map_or(now, |known| known.created_at);
            let api = wish.api.or_else(|| known.and_then(|known| known.api).filter(|_| same_host));
            let remote = Remote { url: wish.url, branch, forge, api, public_key, created_at };
            let status_token = wish.status_token.or(old_token);
            let secrets = RemoteSecrets { hook: hook.clone(), deploy_key, status_token };
            db.set_remote(&id, &remote, &secrets)?;
            Ok(hook)
        });
        let hook = connected.await?;
        // The service may be new, and the edge must know its name.
        self.owe_routes();
        self.announce();
        Ok(hook)
    }

    /// Lets a service follow nothing; its deploy key and its secrets are gone.
    ///
    /// # Errors
    /// When there is no such service, or it follows nothing.
    pub async fn disconnect_remote(&self, project: &Name, service: &Name) -> Result<(), ControlError> {
        let found = self.service(project, service).await?;
        let id = found.id.clone();
        match self.inner.store.with(move |db| db.remove_remote(&id)).await? {
            true => Ok(()),
            false => Err(follows_nothing(&found)),
        }
    }

    /// Returns what a service follows, its secrets, and what ssh has learnt of the host.
    ///
    /// # Errors
    /// When it follows nothing.
    pub async fn remote_to_fetch(
        &self,
        service: &Service,
    ) -> Result<(Remote, RemoteSecrets, String), ControlError> {
        let id = service.id.clone();
        let read = self.inner.store.with(move |db| {
            let (remote, secrets) = (db.find_remote(&id)?, db.find_remote_secrets(&id)?);
            let (Some(remote), Some(secrets)) = (remote, secrets) else { return Ok(None) };
            Ok(Some((remote, secrets, db.load_known_hosts(&id)?)))
        });
        read.await?.ok_or_else(|| follows_nothing(service))
    }

    /// Stores what ssh has learnt of the host of a service's repository.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn set_known_hosts(&self, service: ServiceId, known: String) -> Result<(), ControlError> {
        Ok(self.inner.store.with(move |db| db.set_known_hosts(&service, &known)).await?)
    }

    /// Returns whether any service follows a repository.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn has_remotes(&self) -> Result<bool, ControlError> {
        Ok(self.inner.store.with(|db| db.has_remotes()).await?)
    }

    /// Takes a delivery, or returns none for a replay. `digest` is that of its body, where that is signed.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn take_delivery(
        &self,
        service: ServiceId,
        name: String,
        digest: Option<Digest>,
        commit: Option<Commit>,
    ) -> Result<Option<Delivery>, ControlError> {
        let now = self.now();
        let add = move |db: &trackbed_store::Db<'_>| {
            db.add_delivery(&service, &name, digest.as_ref(), commit.as_ref(), now)
        };
        let taken = self.inner.store.with(add).await?;
        self.announce();
        Ok(taken)
    }

    /// Returns a delivery, or none once it is forgotten.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn delivery(&self, number: i64) -> Result<Option<Delivery>, ControlError> {
        Ok(self.inner.store.with(move |db| db.find_delivery(number)).await?)
    }

    /// Returns the deliveries that are under way, oldest first.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn deliveries_under_way(&self) -> Result<Vec<Delivery>, ControlError> {
        Ok(self.inner.store.with(|db| db.list_deliveries_under_way()).await?)
    }

    /// Stores which commit a delivery turned out to be.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn set_delivery_commit(&self, number: i64, commit: Commit) -> Result<(), ControlError> {
        Ok(self.inner.store.with(move |db| db.set_delivery_commit(number, &commit)).await?)
    }

    /// Stores how a delivery ended, unless it has ended already.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn end_delivery(
        &self,
        number: i64,
        end: DeliveryEnd,
        words: String,
    ) -> Result<(), ControlError> {
        self.inner.store.with(move |db| db.end_delivery(number, end, &words)).await?;
        self.announce();
        Ok(())
    }

    /// Returns a service by its id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn service_by_id(&self, id: ServiceId) -> Result<Service, ControlError> {
        Ok(self.inner.store.with(move |db| db.load_service(&id)).await?)
    }
}

fn follows_nothing(service: &Service) -> ControlError {
    ControlError::Conflict {
        message: format!("service `{}` follows no repository", service.name),
        hint: Some(format!("connect one: trackbed source connect URL --service {}", service.name)),
    }
}
