//! Copies of the whole database.

use std::path::Path;

use crate::database::{Store, StoreError};

impl Store {
    /// Writes a copy of the database, from one instant, to a file that does not exist yet. No transaction runs meanwhile.
    ///
    /// # Errors
    /// When the file exists or the disk refuses.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_string_lossy().into_owned();
        let opened = self.opened.clone().lock_owned().await;
        let call = tokio::task::spawn_blocking(move || {
            opened.connection.execute("VACUUM INTO ?1", [path]).map(drop).map_err(StoreError::from)
        });
        call.await.unwrap_or(Err(StoreError::Closed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    #[tokio::test]
    async fn a_copy_is_whole_and_the_same_state_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db"), Key::for_tests()).unwrap();
        let (project, name) = ("shop".parse().unwrap(), "web".parse().unwrap());
        let (domain, now) = ("localhost".parse().unwrap(), trackbed_core::Timestamp(1));
        store.with(move |db| db.ensure_service(&project, &name, &domain, now)).await.unwrap();
        let (one, two) = (folder.path().join("one.db"), folder.path().join("two.db"));
        store.copy_to(&one).await.unwrap();
        store.copy_to(&two).await.unwrap();
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());
        assert!(store.copy_to(&two).await.is_err(), "it never writes over a file");
        let copy = Store::open(&one, Key::for_tests()).unwrap();
        let services = copy.with(|db| db.list_services()).await.unwrap();
        assert_eq!(services[0].name.as_str(), "web");
    }
}
