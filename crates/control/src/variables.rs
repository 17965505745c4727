//! Variables of a service and of its project: read and changed; they take effect with the next deployment.

use std::collections::BTreeMap;

use trackbed_core::{Name, Secret, VariableName};
use trackbed_store::{StoredVariable, VariableScope};

use crate::control::{Control, ControlError};

/// Largest value of a variable in bytes. Linux refuses an environment string beyond 128 KiB (execve(2)).
const VARIABLE_MAX_BYTES: usize = 128 * 1024 - 512;

impl Control {
    /// Returns the variables of a service: shared ones first, then its own.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn variables(
        &self,
        project: &Name,
        service: &Name,
    ) -> Result<(Vec<StoredVariable>, Vec<StoredVariable>), ControlError> {
        let found = self.service(project, service).await?;
        Ok(self
            .inner
            .store
            .with(move |db| {
                let shared = db.list_variables(&VariableScope::Shared(found.environment))?;
                Ok((shared, db.list_variables(&VariableScope::Service(found.id))?))
            })
            .await?)
    }

    /// Changes variables, all or none. The service is made when it is new, so that variables can be set before the
    /// first deployment. They take effect with the next deployment.
    ///
    /// # Errors
    /// When a value is too long or holds a NUL byte, which no environment can.
    pub async fn change_variables(
        &self,
        project: &Name,
        service: &Name,
        set: BTreeMap<VariableName, Secret<String>>,
        unset: Vec<VariableName>,
        shared: bool,
    ) -> Result<(), ControlError> {
        for (name, value) in &set {
            let bytes = value.expose().len();
            if bytes > VARIABLE_MAX_BYTES {
                return Err(ControlError::Invalid(format!(
                    "variable `{name}` has {bytes} bytes; an environment takes at most {VARIABLE_MAX_BYTES}"
                )));
            }
            if value.expose().contains('\0') {
                return Err(ControlError::Invalid(format!(
                    "variable `{name}` holds a NUL byte, which no environment can"
                )));
            }
        }
        let (project, service, domain, now) =
            (project.clone(), service.clone(), self.inner.config.domain.clone(), self.now());
        self.inner
            .store
            .with(move |db| {
                let found = db.ensure_service(&project, &service, &domain, now)?;
                let scope = match shared {
                    true => VariableScope::Shared(found.environment),
                    false => VariableScope::Service(found.id),
                };
                for (name, value) in &set {
                    db.set_variable(&scope, name, value, now)?;
                }
                for name in &unset {
                    db.unset_variable(&scope, name)?;
                }
                Ok(())
            })
            .await?;
        // The service may be new, and the edge must know its name.
        self.owe_routes();
        self.announce();
        Ok(())
    }
}
