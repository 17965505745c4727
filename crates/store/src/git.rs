//! Pushes by git: the deployed branch of a service, the tokens that may push, and where pushes are taken.

use rusqlite::{Row, params};
use trackbed_core::git::GitToken;
use trackbed_core::{Branch, Digest, GitTokenId, ServiceId, Timestamp};

use crate::database::{Db, StoreError, optional};

/// Most tokens of a service: one for each person and machine that pushes, and some that were forgotten.
pub const TOKENS_MAX: u32 = 100;

const ADDRESS: &str = "git_address";
const SELECT: &str = "SELECT id, service, name, created_at, used_at FROM git_tokens";

impl Db<'_> {
    /// Returns the branch of a service that is deployed, or none while that is open.
    ///
    /// # Errors
    /// When the service is unknown.
    pub fn find_git_branch(&self, service: &ServiceId) -> Result<Option<Branch>, StoreError> {
        let sql = "SELECT git_branch FROM services WHERE id = ?1";
        let found: Option<String> = self.sql.query_row(sql, [service.as_str()], |row| row.get(0))?;
        Ok(found.map(|branch| branch.parse()).transpose()?)
    }

    /// Stores the branch of a service that is deployed.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_git_branch(&self, service: &ServiceId, branch: &Branch) -> Result<(), StoreError> {
        let sql = "UPDATE services SET git_branch = ?2 WHERE id = ?1";
        self.sql.execute(sql, [service.as_str(), branch.as_str()])?;
        Ok(())
    }

    /// Stores a token by its hash.
    ///
    /// # Errors
    /// When the service has [`TOKENS_MAX`] already.
    pub fn add_git_token(&self, token: &GitToken, hash: &Digest) -> Result<(), StoreError> {
        let sql = "SELECT count(*) FROM git_tokens WHERE service = ?1";
        let count: u32 = self.sql.query_row(sql, [token.service.as_str()], |row| row.get(0))?;
        if count >= TOKENS_MAX {
            return Err(StoreError::Conflict(format!(
                "the service has {TOKENS_MAX} tokens already; revoke one by `trackbed git revoke`"
            )));
        }
        self.sql.execute(
            "INSERT INTO git_tokens (id, service, name, hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                token.id.as_str(),
                token.service.as_str(),
                token.name.as_str(),
                hash.as_str(),
                token.created_at.0
            ],
        )?;
        Ok(())
    }

    /// Returns the tokens of a service, oldest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_git_tokens(&self, service: &ServiceId) -> Result<Vec<GitToken>, StoreError> {
        let mut query = self.sql.prepare(&format!("{SELECT} WHERE service = ?1 ORDER BY created_at, id"))?;
        let rows = query.query_map([service.as_str()], RawToken::from_row)?;
        rows.map(|row| row?.parse()).collect()
    }

    /// Returns the token of a hash, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_git_token(&self, hash: &Digest) -> Result<Option<GitToken>, StoreError> {
        let sql = format!("{SELECT} WHERE hash = ?1");
        let row = optional(self.sql.query_row(&sql, [hash.as_str()], RawToken::from_row))?;
        row.map(RawToken::parse).transpose()
    }

    /// Stores that a token was used.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_git_token_used(&self, token: &GitTokenId, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE git_tokens SET used_at = ?2 WHERE id = ?1";
        self.sql.execute(sql, params![token.as_str(), now.0])?;
        Ok(())
    }

    /// Removes a token of a service. Returns whether there was one.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remove_git_token(&self, service: &ServiceId, token: &GitTokenId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM git_tokens WHERE service = ?1 AND id = ?2";
        Ok(self.sql.execute(sql, [service.as_str(), token.as_str()])? > 0)
    }

    /// Returns whether anybody may push to any service.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn has_git_tokens(&self) -> Result<bool, StoreError> {
        Ok(self.sql.query_row("SELECT EXISTS (SELECT 1 FROM git_tokens)", [], |row| row.get(0))?)
    }

    /// Returns the address at which pushes were taken last, which remotes have written down.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_git_address(&self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value FROM settings WHERE key = ?1";
        optional(self.sql.query_row(sql, [ADDRESS], |row| row.get(0)))
    }

    /// Stores the address at which pushes are taken.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_git_address(&self, address: &str) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [ADDRESS, address],
        )?;
        Ok(())
    }
}

/// A row before its texts are parsed.
struct RawToken {
    texts: [String; 3],
    created_at: i64,
    used_at: Option<i64>,
}

impl RawToken {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let texts = [row.get(0)?, row.get(1)?, row.get(2)?];
        Ok(Self { texts, created_at: row.get(3)?, used_at: row.get(4)? })
    }

    fn parse(self) -> Result<GitToken, StoreError> {
        let [id, service, name] = self.texts;
        Ok(GitToken {
            id: id.parse()?,
            service: service.parse()?,
            name: name.parse()?,
            created_at: Timestamp(self.created_at),
            used_at: self.used_at.map(Timestamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Key, Store};

    use super::*;

    #[tokio::test]
    async fn a_token_opens_its_service_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db"), Key::for_tests()).unwrap();
        store
            .with(|db| {
                let (name, domain) = ("web".parse()?, "localhost".parse()?);
                let service = db.ensure_service(&name, &name, &domain, Timestamp(1))?.id;
                assert!(db.find_git_branch(&service)?.is_none() && !db.has_git_tokens()?);
                db.set_git_branch(&service, &"trunk".parse()?)?;
                assert_eq!(db.find_git_branch(&service)?.unwrap().as_str(), "trunk");

                let hash = Digest::from_bytes([7; 32]);
                let id = GitTokenId::from_random([1; 10]);
                let (owner, created_at) = (service.clone(), Timestamp(2));
                let token = GitToken { id: id.clone(), service: owner, name, created_at, used_at: None };
                db.add_git_token(&token, &hash)?;
                db.set_git_token_used(&id, Timestamp(3))?;
                let used = GitToken { used_at: Some(Timestamp(3)), ..token };
                assert_eq!(db.find_git_token(&hash)?, Some(used.clone()));
                assert_eq!(db.list_git_tokens(&service)?, [used]);
                assert!(db.find_git_token(&Digest::from_bytes([8; 32]))?.is_none() && db.has_git_tokens()?);

                assert!(db.remove_git_token(&service, &id)? && !db.remove_git_token(&service, &id)?);
                assert!(db.find_git_token(&hash)?.is_none());
                db.set_git_address("127.0.0.1:1")?;
                db.set_git_address("127.0.0.1:2")?;
                assert_eq!(db.find_git_address()?.as_deref(), Some("127.0.0.1:2"));
                Ok(())
            })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_service_has_a_bounded_number_of_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db"), Key::for_tests()).unwrap();
        let refused = store
            .with(|db| {
                let (name, domain) = ("web".parse()?, "localhost".parse()?);
                let service = db.ensure_service(&name, &name, &domain, Timestamp(1))?.id;
                for number in 0..=u8::try_from(TOKENS_MAX).unwrap() {
                    let id = GitTokenId::from_random([number; 10]);
                    let (service, name) = (service.clone(), name.clone());
                    let token = GitToken { id, service, name, created_at: Timestamp(1), used_at: None };
                    db.add_git_token(&token, &Digest::from_bytes([number; 32]))?;
                }
                Ok(())
            })
            .await;
        assert!(refused.unwrap_err().to_string().contains("trackbed git revoke"));
    }
}
