//! The mirror of a data directory, as the control plane uses it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use trackbed_core::offsite::{MirrorReport, Missing, OffsiteTarget};
use trackbed_core::ports::{Conditional, Offsite, Ownership, PortError, StateCopy};
use trackbed_core::{Secret, Timestamp};
use trackbed_stdx::files;

use crate::error::OffsiteError;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::mirror::{Pass, blocking, ledger_path};
use crate::remote::Remote;
use crate::seal::{self, Keys};
use crate::target::Folder;
use crate::{items, owner, target};

/// How long each request of a claim is tried again: somebody waits for it.
const CLAIM_LIMIT: Duration = Duration::from_secs(20);

/// Mirrors a data directory.
#[derive(Debug)]
pub struct Mirror {
    data_dir: PathBuf,
    limits: Limits,
    /// Held by a pass: two would fight for the ledger.
    turn: Mutex<()>,
}

impl Mirror {
    /// Mirrors this data directory.
    pub fn new(data_dir: &Path, limits: Limits) -> Self {
        Self { data_dir: data_dir.to_owned(), limits, turn: Mutex::new(()) }
    }

    fn remote(&self, target: &OffsiteTarget, folder: Folder) -> Result<(Remote, Keys), OffsiteError> {
        let keys = Keys::parse(&target.identity)?;
        let store = target::open(target, &self.data_dir, folder)?;
        Ok((Remote::new(store, self.limits.clone(), target.bandwidth_bytes), keys))
    }

    /// A pass over an opened store.
    pub(crate) async fn pass(
        &self,
        remote: &Remote,
        keys: &Keys,
        url: &str,
        state: &dyn StateCopy,
        now: Timestamp,
    ) -> Result<MirrorReport, OffsiteError> {
        let _turn = self.turn.lock().await;
        let Some(box_id) = owner::find_box(&self.data_dir)? else {
            return Err(OffsiteError::refused(
                "the copies at the target belong to the box that this one was recovered from",
                "if that box is gone for good: `trackbed backup target set … --take-over`; else set another target",
            ));
        };
        let (path, url, by) = (ledger_path(&self.data_dir), url.to_owned(), box_id.clone());
        let ledger = blocking(move || Ledger::open(&path, &url, &by)).await;
        let mut ledger = ledger.map_err(OffsiteError::disk("read what was sent so far"))?;
        let pass = Pass { data_dir: &self.data_dir, remote, keys, box_id: &box_id, state, now };
        Box::pin(pass.run(&mut ledger)).await
    }
}

#[async_trait]
impl Offsite for Mirror {
    fn new_identity(&self) -> Secret<String> {
        seal::new_identity()
    }

    fn recipient(&self, identity: &Secret<String>) -> Result<String, PortError> {
        Ok(Keys::parse(identity)?.recipient())
    }

    async fn claim(
        &self,
        target: &OffsiteTarget,
        ownership: Ownership,
        conditional: Conditional,
        now: Timestamp,
    ) -> Result<(), PortError> {
        let _turn = self.turn.lock().await;
        let (remote, keys) = self.remote(target, Folder::MayBeMade)?;
        let remote = remote.impatient(CLAIM_LIMIT);
        let claimed = owner::claim(&remote, &keys, &self.data_dir, ownership, conditional, now).await;
        claimed.map(drop).map_err(|error| {
            let hint = error.hint().unwrap_or_else(|| {
                "the target was not set: check the address, and set it once more when its store answers"
                    .into()
            });
            PortError { message: error.to_string(), hint: Some(hint) }
        })
    }

    async fn missing(&self, target: &OffsiteTarget) -> Result<Missing, PortError> {
        let Some(box_id) = owner::find_box(&self.data_dir)? else { return Ok(Missing::default()) };
        let (data_dir, url) = (self.data_dir.clone(), target.url.clone());
        let missing = blocking(move || {
            let ledger = Ledger::read(&ledger_path(&data_dir), &url, &box_id)?;
            let mut missing = Missing::default();
            for item in items::list(&data_dir)? {
                if !ledger.held.get(&item.path).is_some_and(|held| held.is(&item)) {
                    missing.objects += 1;
                    missing.bytes += item.bytes;
                }
            }
            Ok(missing)
        });
        Ok(missing.await.map_err(OffsiteError::disk("compare the data directory with what was sent"))?)
    }

    async fn mirror(
        &self,
        target: &OffsiteTarget,
        state: &dyn StateCopy,
        now: Timestamp,
    ) -> Result<MirrorReport, PortError> {
        let (remote, keys) = self.remote(target, Folder::MustExist)?;
        Ok(self.pass(&remote, &keys, &target.url, state, now).await?)
    }

    async fn forget(&self) -> Result<(), PortError> {
        let _turn = self.turn.lock().await;
        owner::forget_box(&self.data_dir)?;
        files::remove_tree(&ledger_path(&self.data_dir))
            .map_err(OffsiteError::disk("forget what was sent"))?;
        Ok(())
    }
}
