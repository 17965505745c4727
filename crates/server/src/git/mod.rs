//! Takes pushes of git: a listener of its own that knows nothing but repositories, which it opens to a token, and the
//! addresses of webhooks ([`hooks`]).
//!
//! It is not open before the first token is made or the first repository is followed, and on loopback unless `serve` was told otherwise. It answers pushes
//! only: nobody can fetch from the box. The work is done by the real `git` ([`repository`], [`receive`]); whether a push
//! becomes live is decided by its hook, which is a client of the box like `trackbed up` (`cli::push`).

pub(crate) mod hooks;
mod listen;
mod receive;
mod repository;
mod request;

pub(crate) use request::read as read_request;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use trackbed_control::{Control, ControlError};
use trackbed_core::service::Service;
use trackbed_core::{Host, ServiceId};
use trackbed_stdx::tasks::Tasks;

/// Where pushes are taken when nobody said otherwise; a free port when another process, such as another box, has it.
const USUAL_ADDRESS: &str = "127.0.0.1:8079";
/// Pushes that are received or deployed at once, on the whole box. Each holds a few processes of git.
const PUSHES_AT_ONCE: usize = 8;

/// The listener for pushes. Clones share it.
#[derive(Clone)]
pub(crate) struct GitDoor {
    inner: Arc<Inner>,
}

struct Inner {
    control: Control,
    /// Takes deliveries at the same address.
    hooks: hooks::Hooks,
    data_dir: PathBuf,
    domain: Host,
    tasks: Tasks,
    /// What `serve` was told.
    wanted: Option<SocketAddr>,
    /// Where it listens, once it does. Held while it is being opened.
    open: tokio::sync::Mutex<Option<SocketAddr>>,
    /// Services with a push under way: git takes one at a time.
    busy: Mutex<HashSet<ServiceId>>,
    places: Arc<Semaphore>,
}

impl GitDoor {
    /// Makes the door, closed.
    pub(crate) fn new(
        control: Control,
        hooks: hooks::Hooks,
        data_dir: PathBuf,
        domain: Host,
        wanted: Option<SocketAddr>,
        tasks: Tasks,
    ) -> Self {
        let places = Arc::new(Semaphore::new(PUSHES_AT_ONCE));
        let (open, busy) = (tokio::sync::Mutex::default(), Mutex::default());
        Self {
            inner: Arc::new(Inner { control, hooks, data_dir, domain, tasks, wanted, open, busy, places }),
        }
    }

    /// Opens the door when `serve` was told to, or when somebody has a token already. What keeps it shut is logged, and
    /// told to whoever wants a token next; apps come first.
    pub(crate) async fn open_if_wanted(&self) {
        let control = &self.inner.control;
        let is_wanted = match (control.has_git_tokens().await, control.has_remotes().await) {
            (Ok(has_tokens), Ok(has_remotes)) => has_tokens || has_remotes || self.inner.wanted.is_some(),
            (Err(_), _) | (_, Err(_)) => true,
        };
        if is_wanted && let Err(error) = self.ensure_open().await {
            tracing::error!(%error, "pushes are not taken");
        }
    }

    /// Opens the door unless it is open, and returns where.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) async fn ensure_open(&self) -> Result<SocketAddr, ControlError> {
        let mut open = self.inner.open.lock().await;
        if let Some(address) = *open {
            return Ok(address);
        }
        let listener = self.listener().await?;
        let address = listener
            .local_addr()
            .map_err(|error| ControlError::Invalid(format!("cannot listen for pushes: {error}")))?;
        self.inner.control.set_git_address(address.to_string()).await?;
        listen::serve(self, listener);
        tracing::info!(%address, "takes pushes of git");
        *open = Some(address);
        Ok(address)
    }

    async fn listener(&self) -> Result<tokio::net::TcpListener, ControlError> {
        let bind = async |address: &str| tokio::net::TcpListener::bind(address).await;
        let refused = |address: &str, error: std::io::Error| ControlError::Conflict {
            message: format!("cannot listen for pushes on {address}: {error}"),
            hint: Some("free the address, or give another: trackbed serve --git-listen ADDR".into()),
        };
        let remembered = self.inner.control.git_address().await?;
        // Remotes have the address written down: it is not changed silently.
        let named = self.inner.wanted.map(|wanted| wanted.to_string()).or(remembered);
        if let Some(address) = named {
            return bind(&address).await.map_err(|error| refused(&address, error));
        }
        match bind(USUAL_ADDRESS).await {
            Ok(listener) => Ok(listener),
            Err(_) => bind("127.0.0.1:0").await.map_err(|error| refused("127.0.0.1", error)),
        }
    }

    /// Returns the address of a service's repository, or none while the door is closed.
    pub(crate) async fn url(&self, service: &Service) -> Option<String> {
        Some(format!("http://{}/{}.git", self.host().await?, path_of(service)))
    }

    /// Returns the address for a service's webhook, or none while the door is closed.
    pub(crate) async fn hook_url(&self, service: &Service) -> Option<String> {
        Some(format!("http://{}/hooks/{}", self.host().await?, path_of(service)))
    }

    async fn host(&self) -> Option<String> {
        let address = (*self.inner.open.lock().await)?;
        Some(match address.ip().is_unspecified() {
            true => format!("{}:{}", self.inner.domain, address.port()),
            false => address.to_string(),
        })
    }

    /// Begins a push to a service; none when another one is under way.
    fn begin(&self, service: &ServiceId) -> Option<UnderWay> {
        let mut busy = self.inner.busy.lock().expect("no holder of this lock panics");
        busy.insert(service.clone()).then(|| UnderWay { door: self.clone(), service: service.clone() })
    }
}

fn path_of(service: &Service) -> String {
    match service.project_name == service.name {
        true => service.name.to_string(),
        false => format!("{}/{}", service.project_name, service.name),
    }
}

/// A push that is under way; dropping it lets the next one begin.
struct UnderWay {
    door: GitDoor,
    service: ServiceId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Ok(mut busy) = self.door.inner.busy.lock() {
            busy.remove(&self.service);
        }
    }
}
