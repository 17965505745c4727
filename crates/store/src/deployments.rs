//! Deployments and their events.

use rusqlite::params;
use trackbed_core::deployment::{Deployment, Event};
use trackbed_core::{DeploymentId, ServiceId};

use crate::database::{Db, StoreError, optional};
use crate::services::word;

impl Db<'_> {
    /// Adds a deployment.
    ///
    /// # Errors
    /// When its id is taken.
    pub fn add_deployment(&self, deployment: &Deployment) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO deployments (id, service, state, body, created_at, number)
             VALUES (?1, ?2, ?3, ?4, ?5, (SELECT coalesce(max(number), 0) + 1 FROM deployments))",
            params![
                deployment.id.as_str(),
                deployment.service.as_str(),
                word(&deployment.state)?,
                serde_json::to_string(deployment)?,
                deployment.created_at.0
            ],
        )?;
        Ok(())
    }

    /// Stores a deployment as it is now.
    ///
    /// # Errors
    /// When a terminal state would be left: an outcome never changes.
    pub fn update_deployment(&self, deployment: &Deployment) -> Result<(), StoreError> {
        let before = self.load_deployment(&deployment.id)?;
        if before.state.is_terminal() && before.state != deployment.state {
            return Err(StoreError::Conflict(format!(
                "deployment {} ended as {:?} and cannot become {:?}",
                deployment.id, before.state, deployment.state
            )));
        }
        self.sql.execute(
            "UPDATE deployments SET state = ?2, body = ?3, finished = ?4 WHERE id = ?1",
            params![
                deployment.id.as_str(),
                word(&deployment.state)?,
                serde_json::to_string(deployment)?,
                deployment.finished_at.is_some()
            ],
        )?;
        Ok(())
    }

    /// Returns a deployment.
    ///
    /// # Errors
    /// When there is none.
    pub fn load_deployment(&self, id: &DeploymentId) -> Result<Deployment, StoreError> {
        self.find_deployment(id)?.ok_or_else(|| StoreError::Conflict(format!("there is no deployment {id}")))
    }

    /// Returns a deployment, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_deployment(&self, id: &DeploymentId) -> Result<Option<Deployment>, StoreError> {
        let body: Option<String> = optional(self.sql.query_row(
            "SELECT body FROM deployments WHERE id = ?1",
            [id.as_str()],
            |row| row.get(0),
        ))?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    /// Returns the newest deployments of a service, newest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_deployments(&self, service: &ServiceId, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        self.deployments(
            "SELECT body FROM deployments WHERE service = ?1 ORDER BY number DESC LIMIT ?2",
            params![service.as_str(), limit],
        )
    }

    /// Returns the deployments of a service that are not finished, oldest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_unfinished(&self, service: &ServiceId) -> Result<Vec<Deployment>, StoreError> {
        self.deployments(
            "SELECT body FROM deployments WHERE service = ?1 AND finished = 0 ORDER BY number",
            params![service.as_str()],
        )
    }

    /// Returns the deployments of all services that are not finished, oldest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_all_unfinished(&self) -> Result<Vec<Deployment>, StoreError> {
        self.deployments("SELECT body FROM deployments WHERE finished = 0 ORDER BY number", [])
    }

    /// Returns the deployments of which stages may lie beside the volumes, oldest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_with_stages(&self) -> Result<Vec<Deployment>, StoreError> {
        self.deployments("SELECT body FROM deployments WHERE stages = 1 ORDER BY number", [])
    }

    /// Stores that no stage of a finished deployment is left.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_stages_discarded(&self, id: &DeploymentId) -> Result<(), StoreError> {
        let sql = "UPDATE deployments SET stages = 0 WHERE id = ?1 AND finished = 1";
        self.sql.execute(sql, [id.as_str()])?;
        Ok(())
    }

    /// Returns the newest deployment of the same service that was asked for after this one and may still become live.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_newer(&self, id: &DeploymentId) -> Result<Option<Deployment>, StoreError> {
        let newer = self.deployments(
            "SELECT newer.body FROM deployments newer JOIN deployments this ON this.service = newer.service
             WHERE this.id = ?1 AND newer.number > this.number AND newer.finished = 0 AND newer.cancelled = 0
             ORDER BY newer.number DESC",
            params![id.as_str()],
        )?;
        Ok(newer.into_iter().find(|newer| !newer.is_given_up()))
    }

    /// Stores that a deployment shall be cancelled.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn ask_cancel(&self, id: &DeploymentId) -> Result<(), StoreError> {
        self.sql.execute("UPDATE deployments SET cancelled = 1 WHERE id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// Returns whether a deployment shall be cancelled.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn is_cancel_asked(&self, id: &DeploymentId) -> Result<bool, StoreError> {
        Ok(self.sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM deployments WHERE id = ?1 AND cancelled = 1)",
            [id.as_str()],
            |row| row.get(0),
        )?)
    }

    fn deployments(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Deployment>, StoreError> {
        let mut query = self.sql.prepare(sql)?;
        let rows = query.query_map(params, |row| row.get::<_, String>(0))?;
        rows.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }

    /// Adds an event to a deployment; its sequence is given by the store. Returns it as stored.
    ///
    /// # Errors
    /// When the deployment is unknown.
    pub fn add_event(&self, deployment: &DeploymentId, mut event: Event) -> Result<Event, StoreError> {
        let last: i64 = self.sql.query_row(
            "SELECT coalesce(max(sequence), 0) FROM events WHERE deployment = ?1",
            [deployment.as_str()],
            |row| row.get(0),
        )?;
        event.sequence = u64::try_from(last).unwrap_or(0) + 1;
        self.sql.execute(
            "INSERT INTO events VALUES (?1, ?2, ?3)",
            params![deployment.as_str(), last + 1, serde_json::to_string(&event)?],
        )?;
        Ok(event)
    }

    /// Returns the events of a deployment after a sequence, oldest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_events(&self, deployment: &DeploymentId, after: u64) -> Result<Vec<Event>, StoreError> {
        let mut query = self
            .sql
            .prepare("SELECT body FROM events WHERE deployment = ?1 AND sequence > ?2 ORDER BY sequence")?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows = query.query_map(params![deployment.as_str(), after], |row| row.get::<_, String>(0))?;
        rows.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }
}
