//! Repositories that services follow, and the deliveries of their webhooks.

use rusqlite::{Row, params};
use trackbed_core::git::Commit;
use trackbed_core::remote::{Delivery, DeliveryEnd, Remote, RemoteSecrets};
use trackbed_core::{DeploymentId, Digest, Secret, ServiceId, Timestamp};

use crate::database::{Db, StoreError, optional};
use crate::seal::SealError;
use crate::services::word;

/// Deliveries of a service that are remembered: a forge sends one again within hours, and a replay of one that is older than
/// a thousand pushes is one that its sender can no longer sign, unless he has the secret.
const DELIVERIES_KEPT: u32 = 1000;

const SELECT: &str = "SELECT number, service, commit_of, at, deployment, ended_as, words FROM deliveries";

impl Db<'_> {
    /// Returns what a service follows, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_remote(&self, service: &ServiceId) -> Result<Option<Remote>, StoreError> {
        let sql = "SELECT body FROM remotes WHERE service = ?1";
        let body: Option<String> = optional(self.sql.query_row(sql, [service.as_str()], |row| row.get(0)))?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    /// Stores what a service follows, in place of what it followed. What was learnt of the host is forgotten.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_remote(
        &self,
        service: &ServiceId,
        remote: &Remote,
        secrets: &RemoteSecrets,
    ) -> Result<(), StoreError> {
        let seal = |kind: &str, secret: &Secret<String>| {
            self.key.seal(&place(service, kind), secret.expose().as_bytes())
        };
        self.sql.execute(
            "INSERT INTO remotes (service, body, hook, deploy_key, status_token) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (service) DO UPDATE SET body = excluded.body, hook = excluded.hook,
                 deploy_key = excluded.deploy_key, status_token = excluded.status_token, known_hosts = ''",
            params![
                service.as_str(),
                serde_json::to_string(remote)?,
                seal("hook", &secrets.hook),
                secrets.deploy_key.as_ref().map(|key| seal("deploy key", key)),
                secrets.status_token.as_ref().map(|token| seal("status token", token)),
            ],
        )?;
        Ok(())
    }

    /// Returns the secrets of what a service follows, or none.
    ///
    /// # Errors
    /// When one does not open with this box's key.
    pub fn find_remote_secrets(&self, service: &ServiceId) -> Result<Option<RemoteSecrets>, StoreError> {
        let sql = "SELECT hook, deploy_key, status_token FROM remotes WHERE service = ?1";
        let row = optional(self.sql.query_row(sql, [service.as_str()], |row| {
            Ok((
                row.get::<_, Vec<u8>>(0)?,
                row.get::<_, Option<Vec<u8>>>(1)?,
                row.get::<_, Option<Vec<u8>>>(2)?,
            ))
        }))?;
        let Some((hook, deploy_key, status_token)) = row else { return Ok(None) };
        let open = |kind: &str, sealed: Vec<u8>| {
            let value = self.key.open_sealed(&place(service, kind), &sealed)?;
            String::from_utf8(value).map(Secret::new).map_err(|_| SealError::WrongKey)
        };
        Ok(Some(RemoteSecrets {
            hook: open("hook", hook)?,
            deploy_key: deploy_key.map(|sealed| open("deploy key", sealed)).transpose()?,
            status_token: status_token.map(|sealed| open("status token", sealed)).transpose()?,
        }))
    }

    /// Returns what ssh has learnt of the host, empty at first.
    ///
    /// # Errors
    /// When the service follows nothing.
    pub fn load_known_hosts(&self, service: &ServiceId) -> Result<String, StoreError> {
        let sql = "SELECT known_hosts FROM remotes WHERE service = ?1";
        Ok(self.sql.query_row(sql, [service.as_str()], |row| row.get(0))?)
    }

    /// Stores what ssh has learnt of the host.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_known_hosts(&self, service: &ServiceId, known: &str) -> Result<(), StoreError> {
        let sql = "UPDATE remotes SET known_hosts = ?2 WHERE service = ?1";
        self.sql.execute(sql, [service.as_str(), known])?;
        Ok(())
    }

    /// Removes what a service follows, with its deliveries. Returns whether there was something.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remove_remote(&self, service: &ServiceId) -> Result<bool, StoreError> {
        self.sql.execute("DELETE FROM deliveries WHERE service = ?1", [service.as_str()])?;
        Ok(self.sql.execute("DELETE FROM remotes WHERE service = ?1", [service.as_str()])? > 0)
    }

    /// Returns whether any service follows a repository.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn has_remotes(&self) -> Result<bool, StoreError> {
        Ok(self.sql.query_row("SELECT EXISTS (SELECT 1 FROM remotes)", [], |row| row.get(0))?)
    }

    /// Stores a delivery, unless it is a replay: one of that name or of that signed body is known. One that could not be
    /// fetched is none, and is forgotten for the new one. Earlier deliveries that still wait are superseded.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn add_delivery(
        &self,
        service: &ServiceId,
        name: &str,
        digest: Option<&Digest>,
        commit: Option<&Commit>,
        now: Timestamp,
    ) -> Result<Option<Delivery>, StoreError> {
        let digest = digest.map(Digest::as_str);
        let same = "service = ?1 AND (name = ?2 OR digest = ?3)";
        self.sql.execute(
            &format!("DELETE FROM deliveries WHERE {same} AND ended_as = ?4"),
            params![service.as_str(), name, digest, word(&DeliveryEnd::Unfetched)?],
        )?;
        let sql = format!("SELECT EXISTS (SELECT 1 FROM deliveries WHERE {same})");
        if self.sql.query_row(&sql, params![service.as_str(), name, digest], |row| row.get(0))? {
            return Ok(None);
        }
        self.sql.execute(
            "UPDATE deliveries SET ended_as = ?2, words = 'a newer push came before it was fetched'
             WHERE service = ?1 AND ended_as IS NULL AND deployment IS NULL",
            params![service.as_str(), word(&DeliveryEnd::Superseded)?],
        )?;
        let commit = commit.map(serde_json::to_string).transpose()?;
        self.sql.execute(
            "INSERT INTO deliveries (service, name, digest, commit_of, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![service.as_str(), name, digest, commit, now.0],
        )?;
        let number = self.sql.last_insert_rowid();
        self.sql.execute(
            "DELETE FROM deliveries WHERE service = ?1 AND ended_as IS NOT NULL AND number <=
                 (SELECT number FROM deliveries WHERE service = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            params![service.as_str(), DELIVERIES_KEPT],
        )?;
        self.find_delivery(number)
    }

    /// Returns a delivery, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_delivery(&self, number: i64) -> Result<Option<Delivery>, StoreError> {
        let sql = format!("{SELECT} WHERE number = ?1");
        optional(self.sql.query_row(&sql, [number], RawDelivery::from_row))?
            .map(RawDelivery::parse)
            .transpose()
    }

    /// Returns the newest deliveries of a service, newest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_deliveries(&self, service: &ServiceId, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let mut query =
            self.sql.prepare(&format!("{SELECT} WHERE service = ?1 ORDER BY number DESC LIMIT ?2"))?;
        let rows = query.query_map(params![service.as_str(), limit], RawDelivery::from_row)?;
        rows.map(|row| row?.parse()).collect()
    }

    /// Returns the deliveries of all services that are under way, oldest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_deliveries_under_way(&self) -> Result<Vec<Delivery>, StoreError> {
        let mut query = self.sql.prepare(&format!("{SELECT} WHERE ended_as IS NULL ORDER BY number"))?;
        let rows = query.query_map([], RawDelivery::from_row)?;
        rows.map(|row| row?.parse()).collect()
    }

    /// Stores which commit a delivery turned out to be.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_delivery_commit(&self, number: i64, commit: &Commit) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET commit_of = ?2 WHERE number = ?1";
        self.sql.execute(sql, params![number, serde_json::to_string(commit)?])?;
        Ok(())
    }

    /// Stores which deployment came of a delivery.
    ///
    /// # Errors
    /// When it has ended, so that nothing shall come of it.
    pub fn set_delivery_deployment(&self, number: i64, deployment: &DeploymentId) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET deployment = ?2 WHERE number = ?1 AND ended_as IS NULL";
        match self.sql.execute(sql, params![number, deployment.as_str()])? {
            0 => Err(StoreError::Conflict("a newer push took the place of this one".into())),
            _ => Ok(()),
        }
    }

    /// Stores how a delivery ended, unless it has ended already.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn end_delivery(&self, number: i64, end: DeliveryEnd, words: &str) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET ended_as = ?2, words = ?3 WHERE number = ?1 AND ended_as IS NULL";
        self.sql.execute(sql, params![number, word(&end)?, words])?;
        Ok(())
    }
}

fn place(service: &ServiceId, kind: &str) -> String {
    format!("remote {service}/{kind}")
}

/// A row before its texts are parsed.
struct RawDelivery {
    number: i64,
    service: String,
    commit: Option<String>,
    at: i64,
    deployment: Option<String>,
    end: Option<String>,
    words: Option<String>,
}

impl RawDelivery {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            service: row.get(1)?,
            commit: row.get(2)?,
            at: row.get(3)?,
            deployment: row.get(4)?,
            end: row.get(5)?,
            words: row.get(6)?,
        })
    }

    fn parse(self) -> Result<Delivery, StoreError> {
        let end = self.end.map(|end| serde_json::from_value(serde_json::Value::String(end))).transpose()?;
        Ok(Delivery {
            number: self.number,
            service: self.service.parse()?,
            commit: self.commit.map(|commit| serde_json::from_str(&commit)).transpose()?,
            at: Timestamp(self.at),
            deployment: self.deployment.map(|id| id.parse()).transpose()?,
            end: end.map(|end| (end, self.words.unwrap_or_default())),
        })
    }
}

#[cfg(test)]
mod tests {
    use trackbed_core::git::Via;

    use super::*;
    use crate::{Key, Store};

    async fn on_service<T: Send + 'static>(
        work: impl FnOnce(&Db<'_>, ServiceId) -> Result<T, StoreError> + Send + 'static,
    ) -> (tempfile::TempDir, T) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db"), Key::for_tests()).unwrap();
        let done = store.with(move |db| {
            let (name, domain) = ("web".parse()?, "localhost".parse()?);
            let service = db.ensure_service(&name, &name, &domain, Timestamp(1))?.id;
            work(db, service)
        });
        let done = done.await.unwrap();
        (folder, done)
    }

    fn commit() -> Commit {
        Commit::new(Via::Remote, &"a".repeat(40), "main", "words\nmore").unwrap()
    }

    #[tokio::test]
    async fn what_is_followed_comes_back_and_its_secrets_are_sealed() {
        let (folder, ()) = on_service(|db, service| {
            assert!(db.find_remote(&service)?.is_none() && !db.has_remotes()?);
            let remote = Remote {
                url: "git@github.com:me/web.git".parse()?,
                branch: "main".parse()?,
                forge: None,
                api: None,
                public_key: Some("ssh-ed25519 AAAA".into()),
                created_at: Timestamp(2),
            };
            let secret = |text: &str| Secret::new(text.to_owned());
            let secrets = RemoteSecrets {
                hook: secret("the-hook-secret"),
                deploy_key: Some(secret("the-private-key")),
                status_token: None,
            };
            db.set_remote(&service, &remote, &secrets)?;
            db.set_known_hosts(&service, "github.com ssh-ed25519 BBBB\n")?;
            assert_eq!(db.find_remote(&service)?, Some(remote.clone()));
            let found = db.find_remote_secrets(&service)?.unwrap();
            assert_eq!(found.hook.expose(), "the-hook-secret");
            assert_eq!(found.deploy_key.unwrap().expose(), "the-private-key");
            assert!(found.status_token.is_none() && db.has_remotes()?);
            assert!(db.load_known_hosts(&service)?.starts_with("github.com"));
            // Connected anew: what was learnt of the host may be what was wrong.
            db.set_remote(&service, &remote, &secrets)?;
            assert_eq!(db.load_known_hosts(&service)?, "");
            Ok(())
        })
        .await;
        for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
            let bytes = std::fs::read(file.path()).unwrap();
            for secret in [b"the-hook-secret".as_slice(), b"the-private-key"] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret));
            }
        }
    }

    #[tokio::test]
    async fn a_delivery_counts_once_by_its_name_and_by_its_body() {
        on_service(|db, service| {
            let digest = Digest::from_bytes([1; 32]);
            let add = |name: &str, digest: Option<&Digest>| {
                db.add_delivery(&service, name, digest, Some(&commit()), Timestamp(5))
            };
            let first = add("one", Some(&digest))?.unwrap();
            assert_eq!(first.commit.as_ref().map(|commit| commit.subject.as_str()), Some("words"));
            assert!(add("one", None)?.is_none() && add("two", Some(&digest))?.is_none());
            // What could not be fetched may come again, by the same name.
            db.end_delivery(first.number, DeliveryEnd::Unfetched, "no route")?;
            let again = add("one", Some(&digest))?.unwrap();
            assert!(again.number > first.number && db.find_delivery(first.number)?.is_none());
            // A newer one takes its place, and nothing comes of it any more.
            let newer = add("three", None)?.unwrap();
            let (end, _) = db.find_delivery(again.number)?.unwrap().end.unwrap();
            assert_eq!(end, DeliveryEnd::Superseded);
            let deployment = DeploymentId::from_random([7; 10]);
            assert!(db.set_delivery_deployment(again.number, &deployment).is_err());
            db.set_delivery_deployment(newer.number, &deployment)?;
            assert_eq!(db.list_deliveries_under_way()?.len(), 1);
            db.end_delivery(newer.number, DeliveryEnd::Live, "v1")?;
            db.end_delivery(newer.number, DeliveryEnd::Failed, "an outcome never changes")?;
            let known = db.list_deliveries(&service, 10)?;
            assert_eq!(known[0].end, Some((DeliveryEnd::Live, "v1".to_owned())));
            assert!(db.list_deliveries_under_way()?.is_empty());
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_bounded_number_of_deliveries_is_remembered() {
        on_service(|db, service| {
            for number in 0..DELIVERIES_KEPT + 10 {
                let made = db.add_delivery(&service, &number.to_string(), None, None, Timestamp(1))?.unwrap();
                db.end_delivery(made.number, DeliveryEnd::Live, "")?;
            }
            assert_eq!(db.list_deliveries(&service, u32::MAX)?.len(), DELIVERIES_KEPT as usize);
            assert!(db.add_delivery(&service, "20", None, None, Timestamp(1))?.is_none());
            Ok(())
        })
        .await;
    }
}
