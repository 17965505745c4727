//! Deploys what a forge says was pushed: webhooks of GitHub, GitLab, Gitea and Forgejo, on the listener of pushes.
//!
//! A delivery is checked and stored while its sender waits ([`answer`]), and seen through by a task of its own
//! ([`deliveries`]): the commit is fetched by the real `git` ([`fetch`]) into a repository of its own, and goes from there
//! through the same door as a push, by this program as a client of the box (`cli::push`). What another `serve` left in the
//! middle is gone on with.

mod answer;
mod aside;
mod deliveries;
mod explain;
mod fetch;
mod keys;
mod payload;
mod signature;
mod status;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use trackbed_control::{Control, ControlError, KeyPair};
use trackbed_core::{Name, Secret, ServiceId};
use trackbed_stdx::tasks::Tasks;

pub(super) use answer::{addressed, answer};

/// Commits that are fetched at once, on the whole box.
const FETCHES_AT_ONCE: usize = 4;
/// Bodies of deliveries that are read at once: each may be as large as a forge makes them.
const READERS_AT_ONCE: usize = 8;

/// Takes deliveries. Clones share it.
#[derive(Clone)]
pub(crate) struct Hooks {
    inner: Arc<Inner>,
}

struct Inner {
    control: Control,
    data_dir: PathBuf,
    /// The environment of the process, of which git gets proxies and certificates.
    environment: Vec<(String, String)>,
    tasks: Tasks,
    readers: Semaphore,
    fetches: Semaphore,
    /// Held while a commit of the service is fetched.
    turns: Mutex<HashMap<ServiceId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Hooks {
    /// Makes it, and removes what a crash has left of keys.
    pub(crate) fn new(
        control: Control,
        data_dir: PathBuf,
        environment: Vec<(String, String)>,
        tasks: Tasks,
    ) -> Self {
        if let Err(error) = aside::Aside::sweep(&data_dir) {
            tracing::error!(%error, "folders of an earlier fetch could not be removed");
        }
        let (readers, fetches) = (Semaphore::new(READERS_AT_ONCE), Semaphore::new(FETCHES_AT_ONCE));
        let turns = Mutex::default();
        Self { inner: Arc::new(Inner { control, data_dir, environment, tasks, readers, fetches, turns }) }
    }

    /// Checks a secret for a webhook that its forge made.
    ///
    /// # Errors
    /// When it is a broken signing token, or no word that is long enough.
    pub(crate) fn take_secret(secret: String) -> Result<Secret<String>, &'static str> {
        match signature::is_usable(&secret) {
            true => Ok(Secret::new(secret)),
            false => Err(
                "the secret for the webhook is neither a signing token as GitLab makes it (`whsec_` and base64) \
                          nor 16 to 200 characters of ASCII without spaces",
            ),
        }
    }

    /// Makes a deploy key for a service.
    ///
    /// # Errors
    /// When `ssh-keygen` is missing or fails.
    pub(crate) async fn make_key(&self, service: &Name) -> Result<KeyPair, ControlError> {
        keys::make(&self.inner.data_dir, service).await
    }
}
