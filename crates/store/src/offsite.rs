//! Where copies of the box go: one target, sealed as a whole.

use serde::{Deserialize, Serialize};
use trackbed_core::Secret;
use trackbed_core::offsite::OffsiteTarget;

use crate::database::{Db, StoreError, optional};
use crate::seal::SealError;

const SETTING: &str = "offsite_target";

/// The target in the clear, before it is sealed.
#[derive(Serialize, Deserialize)]
struct Plain {
    url: String,
    options: Vec<(String, String)>,
    identity: String,
    bandwidth_bytes: Option<u64>,
}

impl Db<'_> {
    /// Returns the target, or none.
    ///
    /// # Errors
    /// When it does not open with this box's key.
    pub fn find_offsite_target(&self) -> Result<Option<OffsiteTarget>, StoreError> {
        let found: Option<String> =
            optional(
                self.sql.query_row("SELECT value FROM settings WHERE key = ?1", [SETTING], |row| row.get(0)),
            )?;
        let Some(hex) = found else { return Ok(None) };
        let sealed = from_hex(&hex).ok_or(SealError::WrongKey)?;
        let plain: Plain = serde_json::from_slice(&self.key.open_sealed(SETTING, &sealed)?)?;
        Ok(Some(OffsiteTarget {
            url: plain.url,
            options: plain.options.into_iter().map(|(key, value)| (key, Secret::new(value))).collect(),
            identity: Secret::new(plain.identity),
            bandwidth_bytes: plain.bandwidth_bytes,
        }))
    }

    /// Stores the target; an earlier one is forgotten.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_offsite_target(&self, target: &OffsiteTarget) -> Result<(), StoreError> {
        let options = target.options.iter().map(|(key, value)| (key.clone(), value.expose().clone()));
        let plain = Plain {
            url: target.url.clone(),
            options: options.collect(),
            identity: target.identity.expose().clone(),
            bandwidth_bytes: target.bandwidth_bytes,
        };
        let sealed = self.key.seal(SETTING, serde_json::to_string(&plain)?.as_bytes());
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        self.sql.execute(
            "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [SETTING, &hex],
        )?;
        Ok(())
    }

    /// Forgets the target. Returns whether there was one.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remove_offsite_target(&self) -> Result<bool, StoreError> {
        Ok(self.sql.execute("DELETE FROM settings WHERE key = ?1", [SETTING])? > 0)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks_exact(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Store};

    #[tokio::test]
    async fn the_target_is_kept_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = Store::open(&path, Key::for_tests()).unwrap();
        let target = OffsiteTarget {
            url: "s3://bucket/box".into(),
            options: vec![("secret_access_key".into(), Secret::new("hunter2".into()))],
            identity: Secret::new("AGE-SECRET-KEY-1XYZ".into()),
            bandwidth_bytes: Some(1000),
        };
        let set = target.clone();
        store.with(move |db| db.set_offsite_target(&set)).await.unwrap();
        assert_eq!(store.with(|db| db.find_offsite_target()).await.unwrap(), Some(target));
        let copy = folder.path().join("copy.db");
        store.copy_to(&copy).await.unwrap();
        let bytes = std::fs::read(copy).unwrap();
        for secret in ["hunter2", "AGE-SECRET-KEY"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
        assert!(store.with(|db| db.remove_offsite_target()).await.unwrap());
        assert_eq!(store.with(|db| db.find_offsite_target()).await.unwrap(), None);
    }
}
