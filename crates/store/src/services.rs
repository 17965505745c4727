//! Projects, environments and services.

use rusqlite::{OptionalExtension, Row, params};
use trackbed_core::ids::ID_BYTES;
use trackbed_core::service::{Live, Service, Wanted};
use trackbed_core::{DeploymentId, EnvironmentId, Host, Name, ProjectId, ServiceId, Timestamp};
use trackbed_stdx::random;

use crate::database::{Db, StoreError, optional};

/// The environment that every project has.
const PRODUCTION: &str = "production";

const SELECT: &str =
    "SELECT s.id, p.id, p.name, e.id, e.name, s.name, s.host, s.number, s.wanted, s.live, s.created_at
    FROM services s JOIN environments e ON e.id = s.environment JOIN projects p ON p.id = e.project";

impl Db<'_> {
    /// Returns a service by names, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_service(&self, project: &Name, name: &Name) -> Result<Option<Service>, StoreError> {
        let sql = format!("{SELECT} WHERE p.name = ?1 AND e.name = ?2 AND s.name = ?3");
        let row = optional(self.sql.query_row(
            &sql,
            params![project.as_str(), PRODUCTION, name.as_str()],
            RawService::from_row,
        ))?;
        row.map(RawService::parse).transpose()
    }

    /// Returns a service by id.
    ///
    /// # Errors
    /// When there is none.
    pub fn load_service(&self, id: &ServiceId) -> Result<Service, StoreError> {
        let sql = format!("{SELECT} WHERE s.id = ?1");
        self.sql.query_row(&sql, [id.as_str()], RawService::from_row)?.parse()
    }

    /// Returns all services, by project and name.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_services(&self) -> Result<Vec<Service>, StoreError> {
        let sql = format!("{SELECT} ORDER BY p.name, s.name");
        let mut query = self.sql.prepare(&sql)?;
        let rows = query.query_map([], RawService::from_row)?;
        rows.map(|row| row?.parse()).collect()
    }

    /// Returns a service, made with its project and production environment when they are new. Its host is
    /// `<service>.<domain>`, or `<service>-<project>.<domain>` when that is taken.
    ///
    /// # Errors
    /// When both hosts are taken.
    pub fn ensure_service(
        &self,
        project: &Name,
        name: &Name,
        domain: &Host,
        now: Timestamp,
    ) -> Result<Service, StoreError> {
        if let Some(service) = self.find_service(project, name)? {
            return Ok(service);
        }
        let project_id = self.ensure_project(project, now)?;
        let environment = self.ensure_environment(&project_id)?;
        let host = self.free_host(project, name, domain)?;
        let id = ServiceId::from_random(random::bytes::<ID_BYTES>());
        self.sql.execute(
            "INSERT INTO services (id, environment, name, host, number, wanted, created_at)
             VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(number), 0) + 1 FROM services), ?5, ?6)",
            params![
                id.as_str(),
                environment.as_str(),
                name.as_str(),
                host.as_str(),
                word(&Wanted::Running)?,
                now.0
            ],
        )?;
        self.load_service(&id)
    }

    fn ensure_project(&self, name: &Name, now: Timestamp) -> Result<ProjectId, StoreError> {
        let found: Option<String> = self
            .sql
            .query_row("SELECT id FROM projects WHERE name = ?1", [name.as_str()], |row| row.get(0))
            .optional()?;
        if let Some(id) = found {
            return Ok(id.parse()?);
        }
        let id = ProjectId::from_random(random::bytes::<ID_BYTES>());
        self.sql.execute(
            "INSERT INTO projects VALUES (?1, ?2, ?3)",
            params![id.as_str(), name.as_str(), now.0],
        )?;
        Ok(id)
    }

    fn ensure_environment(&self, project: &ProjectId) -> Result<EnvironmentId, StoreError> {
        let found: Option<String> = self
            .sql
            .query_row(
                "SELECT id FROM environments WHERE project = ?1 AND name = ?2",
                [project.as_str(), PRODUCTION],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(id) = found {
            return Ok(id.parse()?);
        }
        let id = EnvironmentId::from_random(random::bytes::<ID_BYTES>());
        self.sql.execute(
            "INSERT INTO environments VALUES (?1, ?2, ?3)",
            [id.as_str(), project.as_str(), PRODUCTION],
        )?;
        Ok(id)
    }

    fn free_host(&self, project: &Name, name: &Name, domain: &Host) -> Result<Host, StoreError> {
        for label in [name.to_string(), format!("{name}-{project}")] {
            let Ok(host) = format!("{label}.{domain}").parse::<Host>() else { continue };
            let taken: bool = self.sql.query_row(
                "SELECT EXISTS (SELECT 1 FROM services WHERE host = ?1)",
                [host.as_str()],
                |row| row.get(0),
            )?;
            if !taken {
                return Ok(host);
            }
        }
        Err(StoreError::Conflict(format!("no free host name for service `{name}` of project `{project}`")))
    }

    /// Stores what the owner wants of a service.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_wanted(&self, id: &ServiceId, wanted: Wanted) -> Result<(), StoreError> {
        self.sql
            .execute("UPDATE services SET wanted = ?2 WHERE id = ?1", params![id.as_str(), word(&wanted)?])?;
        Ok(())
    }

    /// Stores that the owner wants a service stopped, after every deployment asked for so far.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_stopped(&self, id: &ServiceId) -> Result<(), StoreError> {
        self.set_wanted(id, Wanted::Stopped)?;
        self.sql.execute(
            "UPDATE services SET stopped_after = (SELECT coalesce(max(number), 0) FROM deployments) WHERE id = ?1",
            [id.as_str()],
        )?;
        Ok(())
    }

    /// Returns whether the owner has stopped the service after asking for this deployment of it, and it shall be stopped
    /// still. By the order in which things were asked for, which no clock can change.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn was_stopped_after(&self, deployment: &DeploymentId) -> Result<bool, StoreError> {
        Ok(self.sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM deployments d JOIN services s ON s.id = d.service
             WHERE d.id = ?1 AND s.wanted = ?2 AND s.stopped_after >= d.number)",
            params![deployment.as_str(), word(&Wanted::Stopped)?],
            |row| row.get(0),
        )?)
    }

    /// Stores what is live.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_live(&self, id: &ServiceId, live: &Live) -> Result<(), StoreError> {
        let body = serde_json::to_string(live)?;
        self.sql.execute("UPDATE services SET live = ?2 WHERE id = ?1", params![id.as_str(), body])?;
        Ok(())
    }

    /// Returns the next sequence number for a route table, above `seen`, which the edge has had. Never the same twice,
    /// also across restarts, and also when this database was restored from an older copy.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn next_route_sequence(&self, seen: u64) -> Result<u64, StoreError> {
        let next: String = self.sql.query_row(
            "INSERT INTO settings VALUES ('route_sequence', CAST(?1 + 1 AS TEXT))
             ON CONFLICT (key) DO UPDATE SET value = CAST(max(CAST(value AS INTEGER), ?1) + 1 AS TEXT)
             RETURNING value",
            [i64::try_from(seen).unwrap_or(i64::MAX - 1)],
            |row| row.get(0),
        )?;
        next.parse().map_err(|_| StoreError::Conflict(format!("`{next}` is not a route sequence")))
    }
}

/// Returns a unit variant as its word.
pub(crate) fn word(value: &impl serde::Serialize) -> Result<String, StoreError> {
    match serde_json::to_value(value)? {
        serde_json::Value::String(word) => Ok(word),
        other => Err(StoreError::Conflict(format!("`{other}` is not a word"))),
    }
}

/// A row before its texts are parsed.
struct RawService {
    texts: [String; 8],
    live: Option<String>,
    number: u32,
    created_at: i64,
}

impl RawService {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            texts: [
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get(6)?,
                row.get(8)?,
            ],
            number: row.get(7)?,
            live: row.get(9)?,
            created_at: row.get(10)?,
        })
    }

    fn parse(self) -> Result<Service, StoreError> {
        let [id, project, project_name, environment, environment_name, name, host, wanted] = self.texts;
        Ok(Service {
            id: id.parse()?,
            project: project.parse()?,
            project_name: project_name.parse()?,
            environment: environment.parse()?,
            environment_name: environment_name.parse()?,
            name: name.parse()?,
            host: host.parse()?,
            number: self.number,
            wanted: serde_json::from_value(serde_json::Value::String(wanted))?,
            live: self.live.map(|body| serde_json::from_str(&body)).transpose()?,
            created_at: Timestamp(self.created_at),
        })
    }
}
