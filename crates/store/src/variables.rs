//! Variables, sealed at rest.

use rusqlite::params;
use trackbed_core::{EnvironmentId, Secret, ServiceId, Timestamp, VariableName};

use crate::database::{Db, StoreError};
use crate::seal::SealError;

/// Whose variables.
#[derive(Debug, Clone)]
pub enum VariableScope {
    /// Shared by all services of an environment.
    Shared(EnvironmentId),
    /// One service's own.
    Service(ServiceId),
}

impl VariableScope {
    fn as_str(&self) -> &str {
        match self {
            VariableScope::Shared(environment) => environment.as_str(),
            VariableScope::Service(service) => service.as_str(),
        }
    }
}

/// A variable as it was set, references unresolved.
#[derive(Debug, Clone)]
pub struct StoredVariable {
    /// Its name.
    pub name: VariableName,
    /// Its value, byte for byte.
    pub value: Secret<String>,
    /// When it was last set.
    pub updated_at: Timestamp,
}

impl Db<'_> {
    /// Returns the variables of a scope, by name.
    ///
    /// # Errors
    /// When one does not open with this box's key.
    pub fn list_variables(&self, scope: &VariableScope) -> Result<Vec<StoredVariable>, StoreError> {
        let mut query = self
            .sql
            .prepare("SELECT name, sealed, updated_at FROM variables WHERE scope = ?1 ORDER BY name")?;
        let rows = query.query_map([scope.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?))
        })?;
        rows.map(|row| {
            let (name, sealed, updated_at) = row?;
            let value = self.key.open_sealed(&place(scope, &name), &sealed)?;
            let value = String::from_utf8(value).map_err(|_| SealError::WrongKey)?;
            Ok(StoredVariable {
                name: name.parse()?,
                value: Secret::new(value),
                updated_at: Timestamp(updated_at),
            })
        })
        .collect()
    }

    /// Sets a variable.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_variable(
        &self,
        scope: &VariableScope,
        name: &VariableName,
        value: &Secret<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sealed = self.key.seal(&place(scope, name.as_str()), value.expose().as_bytes());
        self.sql.execute(
            "INSERT INTO variables VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (scope, name) DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at",
            params![scope.as_str(), name.as_str(), sealed, now.0],
        )?;
        Ok(())
    }

    /// Removes a variable. Returns whether there was one.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn unset_variable(&self, scope: &VariableScope, name: &VariableName) -> Result<bool, StoreError> {
        let removed = self.sql.execute(
            "DELETE FROM variables WHERE scope = ?1 AND name = ?2",
            [scope.as_str(), name.as_str()],
        )?;
        Ok(removed > 0)
    }
}

fn place(scope: &VariableScope, name: &str) -> String {
    format!("variable {}/{name}", scope.as_str())
}
