//! Pushes by git: who may push to a service, which branch of it is deployed, and whether a source is live already.

use sha2::{Digest as _, Sha256};
use trackbed_core::git::GitToken;
use trackbed_core::ids::ID_BYTES;
use trackbed_core::release::Release;
use trackbed_core::service::{Service, Wanted};
use trackbed_core::{Branch, Digest, GitTokenId, Name, Secret};
use trackbed_stdx::random;

use crate::control::{Control, ControlError};
use crate::environment::owner_variables;
use crate::scale;

/// What every token begins with, so that people and scanners of secrets know what they have found.
const TOKEN_PREFIX: &str = "tbg_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 20;
/// Deployments of a service that are looked through for the one that made its live release.
const LOOKED_THROUGH: u32 = 200;

/// How a service takes pushes.
#[derive(Debug, Clone)]
pub struct GitAccess {
    /// The branch that is deployed; none until the first push decides.
    pub branch: Option<Branch>,
    /// Who may push.
    pub tokens: Vec<GitToken>,
}

impl Control {
    /// Returns how a service takes pushes.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn git_access(&self, project: &Name, service: &Name) -> Result<GitAccess, ControlError> {
        let id = self.service(project, service).await?.id;
        let read = self.inner.store.with(move |db| {
            Ok(GitAccess { branch: db.find_git_branch(&id)?, tokens: db.list_git_tokens(&id)? })
        });
        Ok(read.await?)
    }

    /// Makes a token that may push to a service, and the service when it is new. The token is known to the caller alone.
    ///
    /// # Errors
    /// When the service has too many.
    pub async fn add_git_token(
        &self,
        project: &Name,
        service: &Name,
        name: Name,
    ) -> Result<(GitToken, Secret<String>), ControlError> {
        let (project, service, domain, now) =
            (project.clone(), service.clone(), self.inner.config.domain.clone(), self.now());
        let drawn: String = random::bytes::<TOKEN_BYTES>().iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{TOKEN_PREFIX}{drawn}");
        let hash = hash_of(&text);
        let added = self.inner.store.with(move |db| {
            let service = db.ensure_service(&project, &service, &domain, now)?.id;
            let id = GitTokenId::from_random(random::bytes::<ID_BYTES>());
            let token = GitToken { id, service, name, created_at: now, used_at: None };
            db.add_git_token(&token, &hash)?;
            Ok(token)
        });
        let token = added.await?;
        // The service may be new, and the edge must know its name.
        self.owe_routes();
        self.announce();
        Ok((token, Secret::new(text)))
    }

    /// Removes a token: it opens nothing from then on.
    ///
    /// # Errors
    /// When the service or the token is unknown.
    pub async fn remove_git_token(
        &self,
        project: &Name,
        service: &Name,
        token: &GitTokenId,
    ) -> Result<(), ControlError> {
        let (id, wanted) = (self.service(project, service).await?.id, token.clone());
        match self.inner.store.with(move |db| db.remove_git_token(&id, &wanted)).await? {
            true => Ok(()),
            false => Err(ControlError::NotFound(format!("`{service}` has no token `{token}`"))),
        }
    }

    /// Chooses the branch of a service that is deployed.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn set_git_branch(
        &self,
        project: &Name,
        service: &Name,
        branch: Branch,
    ) -> Result<(), ControlError> {
        let id = self.service(project, service).await?.id;
        Ok(self.inner.store.with(move |db| db.set_git_branch(&id, &branch)).await?)
    }

    /// Returns the service that a token may push to, or none when the token opens nothing. Looking it up by its hash tells
    /// a stranger nothing by the time it takes.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn service_of_git_token(
        &self,
        token: &Secret<String>,
    ) -> Result<Option<Service>, ControlError> {
        let is_one = token.expose().strip_prefix(TOKEN_PREFIX).is_some_and(|rest| {
            rest.len() == 2 * TOKEN_BYTES && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if !is_one {
            return Ok(None);
        }
        let (hash, now) = (hash_of(token.expose()), self.now());
        let found = self.inner.store.with(move |db| {
            let Some(token) = db.find_git_token(&hash)? else { return Ok(None) };
            db.set_git_token_used(&token.id, now)?;
            db.load_service(&token.service).map(Some)
        });
        Ok(found.await?)
    }

    /// Returns the live release when a deployment of this source would only make it once more: it has the same files,
    /// variables, volumes and counts of processes, it shall run, and nothing else is under way.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn live_release_of(
        &self,
        project: &Name,
        service: &Name,
        source: Digest,
    ) -> Result<Option<Release>, ControlError> {
        let service = self.service(project, service).await?;
        let live = service.clone();
        let read = self.inner.store.with(move |db| {
            let Some(live) = &service.live else { return Ok(None) };
            let release = db.load_release(&live.release)?;
            let is_settled = service.wanted == Wanted::Running
                && live.given_up.is_none()
                && db.list_unfinished(&service.id)?.iter().all(|other| other.told().is_terminal());
            // Flags of `up` made it something else than its files say.
            let deployments = db.list_deployments(&service.id, LOOKED_THROUGH)?;
            let by_flags = deployments
                .iter()
                .any(|other| other.release.as_ref() == Some(&release.id) && !other.overrides.is_empty());
            if !is_settled || by_flags || release.source != source {
                return Ok(None);
            }
            let mut made_with = db.load_release_variables(&release.id)?;
            let mut wanted = owner_variables(db, &service)?;
            for variables in [&mut made_with, &mut wanted] {
                variables.sort_by(|one, other| one.0.cmp(&other.0));
            }
            let is_same = made_with == wanted
                && scale::is_as_wanted(&release.config, &db.list_process_counts(&service.id)?);
            Ok(is_same.then_some(release))
        });
        match read.await? {
            // Of a site nothing is mounted.
            Some(release) if release.image.site.is_some() || self.has_its_volumes(&live).await? => {
                Ok(Some(release))
            }
            _ => Ok(None),
        }
    }

    /// Returns whether the live instance has all volumes of its service: one that was added since waits for a deployment.
    /// While none lives the next one will have them.
    async fn has_its_volumes(&self, service: &Service) -> Result<bool, ControlError> {
        let Some(instance) = service.live.as_ref().and_then(|live| live.instance.as_ref()) else {
            return Ok(true);
        };
        for volume in self.volumes(service).await? {
            let holders = self.lease(service, &volume).await?.holders;
            if !holders.iter().any(|holder| holder.instance.as_ref() == Some(instance)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether anybody may push to any service.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn has_git_tokens(&self) -> Result<bool, ControlError> {
        Ok(self.inner.store.with(|db| db.has_git_tokens()).await?)
    }

    /// Returns the address at which pushes were taken last.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn git_address(&self) -> Result<Option<String>, ControlError> {
        Ok(self.inner.store.with(|db| db.find_git_address()).await?)
    }

    /// Remembers the address at which pushes are taken: remotes have it written down.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn set_git_address(&self, address: String) -> Result<(), ControlError> {
        Ok(self.inner.store.with(move |db| db.set_git_address(&address)).await?)
    }
}

fn hash_of(token: &str) -> Digest {
    Digest::from_bytes(Sha256::digest(token.as_bytes()).into())
}
