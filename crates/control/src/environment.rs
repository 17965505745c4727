//! The environment of an instance: the platform's variables, the image's, the source's, and the owner's, which win.

use std::collections::BTreeMap;

use trackbed_core::deployment::Deployment;
use trackbed_core::reference::{RawVariables, Scope, resolve};
use trackbed_core::release::Release;
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;
use trackbed_core::{InstanceId, Secret};
use trackbed_store::{Db, StoreError, VariableScope};

/// An environment in order; later entries never repeat an earlier name.
pub(crate) type Environment = Vec<(String, Secret<String>)>;

/// Returns the owner's variables of a service, shared ones included, references resolved.
///
/// # Errors
/// When a reference leads nowhere or in a circle.
pub(crate) fn owner_variables(db: &Db<'_>, service: &Service) -> Result<Environment, StoreError> {
    let mut raw = RawVariables::new();
    let mut add = |scope: Scope, stored: &VariableScope| -> Result<(), StoreError> {
        let values = raw.entry(scope).or_default();
        for variable in db.list_variables(stored)? {
            values.insert(variable.name.to_string(), variable.value.into_exposed());
        }
        Ok(())
    };
    add(Scope::Shared, &VariableScope::Shared(service.environment.clone()))?;
    let mut platform = Vec::new();
    for other in db.list_services()?.into_iter().filter(|other| other.environment == service.environment) {
        add(Scope::Service(other.name.to_string()), &VariableScope::Service(other.id.clone()))?;
        platform.push(other);
    }
    // Other services' platform variables can be referred to, but are injected only into their own.
    for other in &platform {
        let values = raw.entry(Scope::Service(other.name.to_string())).or_default();
        for (name, value) in identity(other) {
            values.entry(name).or_insert(value);
        }
    }
    let known: BTreeMap<String, String> = identity(service).into_iter().collect();
    let resolved =
        resolve(&raw, service.name.as_str()).map_err(|error| StoreError::Conflict(error.to_string()))?;
    let own = resolved.into_iter().filter(|(name, value)| known.get(name) != Some(value));
    Ok(own.map(|(name, value)| (name, Secret::new(value))).collect())
}

/// The variables that say who a service is; the same for every release of it.
fn identity(service: &Service) -> Vec<(String, String)> {
    let private = format!("{}.railway.internal", service.name);
    [
        ("RAILWAY_PUBLIC_DOMAIN", service.host.as_str()),
        ("RAILWAY_PRIVATE_DOMAIN", &private),
        ("RAILWAY_PROJECT_NAME", service.project_name.as_str()),
        ("RAILWAY_PROJECT_ID", service.project.as_str()),
        ("RAILWAY_ENVIRONMENT", service.environment_name.as_str()),
        ("RAILWAY_ENVIRONMENT_NAME", service.environment_name.as_str()),
        ("RAILWAY_ENVIRONMENT_ID", service.environment.as_str()),
        ("RAILWAY_SERVICE_NAME", service.name.as_str()),
        ("RAILWAY_SERVICE_ID", service.id.as_str()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Returns the variables that a build sees: who it is for, and the owner's.
pub(crate) fn for_build(service: &Service, deployment: &Deployment, owner: &Environment) -> Environment {
    let mut platform = identity(service);
    platform.push(("RAILWAY_DEPLOYMENT_ID".into(), deployment.id.to_string()));
    merge(platform, &[], &[], owner)
}

/// What an instance's environment is made from.
pub(crate) struct InstanceEnvironment<'a> {
    pub(crate) service: &'a Service,
    pub(crate) release: &'a Release,
    pub(crate) deployment: Option<&'a str>,
    pub(crate) instance: &'a InstanceId,
    pub(crate) volumes: &'a [Volume],
    pub(crate) url: &'a str,
    pub(crate) port: u16,
    pub(crate) owner: &'a Environment,
}

/// Returns the whole environment of an instance.
pub(crate) fn for_instance(parts: &InstanceEnvironment<'_>) -> Environment {
    let InstanceEnvironment { service, release, instance, .. } = parts;
    let mut platform = identity(service);
    let mut add = |name: &str, value: &str| platform.push((name.to_owned(), value.to_owned()));
    let deployment = parts.deployment.unwrap_or(release.id.as_str());
    add("RAILWAY_REPLICA_ID", instance.as_str());
    add("RAILWAY_REPLICA_REGION", "box");
    add("RAILWAY_DEPLOYMENT_ID", deployment);
    add("RAILWAY_SNAPSHOT_ID", release.source.as_str());
    add("TRACKBED_PROJECT", service.project_name.as_str());
    add("TRACKBED_ENVIRONMENT", service.environment_name.as_str());
    add("TRACKBED_SERVICE", service.name.as_str());
    add("TRACKBED_RELEASE", &release.label());
    add("TRACKBED_DEPLOYMENT_ID", deployment);
    add("TRACKBED_INSTANCE_ID", instance.as_str());
    add("TRACKBED_PUBLIC_DOMAIN", service.host.as_str());
    add("TRACKBED_PUBLIC_URL", parts.url);
    // Railway has one volume a service; with several, the oldest takes that place: one that is added later must not
    // send the app to another place for its data.
    if let Some(volume) = parts.volumes.iter().min_by_key(|volume| volume.created_at) {
        for prefix in ["RAILWAY", "TRACKBED"] {
            add(&format!("{prefix}_VOLUME_NAME"), volume.name.as_str());
            add(&format!("{prefix}_VOLUME_MOUNT_PATH"), volume.mount.as_str());
        }
    }
    let mut environment = merge(platform, &release.image.env, &release.config.variables, parts.owner);
    environment.retain(|(name, _)| name != "PORT");
    environment.push(("PORT".into(), Secret::new(parts.port.to_string())));
    environment
}

/// Puts weaker before stronger and keeps the strongest of each name: the platform's, the image's, those that files of the
/// source set, the owner's. A `PATH` that is set goes before the image's, so that it cannot lose the interpreter.
fn merge(
    platform: Vec<(String, String)>,
    image: &[(String, String)],
    source: &[(String, String)],
    owner: &Environment,
) -> Environment {
    let mut merged: BTreeMap<String, Secret<String>> = BTreeMap::new();
    for (name, value) in platform.into_iter().chain(image.iter().cloned()) {
        merged.insert(name, Secret::new(value));
    }
    let path = merged.get("PATH").cloned();
    let source = source.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone())));
    for (name, value) in source.chain(owner.iter().cloned()) {
        let value = match &path {
            Some(path) if name == "PATH" => Secret::new(format!("{}:{}", value.expose(), path.expose())),
            _ => value,
        };
        merged.insert(name, value);
    }
    merged.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, value: &str) -> (String, Secret<String>) {
        (name.to_owned(), Secret::new(value.to_owned()))
    }

    #[test]
    fn the_owners_value_wins_and_a_path_keeps_the_images_programs() {
        let image = vec![("PATH".to_owned(), "/app/.venv/bin".to_owned())];
        let source = ["A", "B", "C"].map(|name| (name.to_owned(), "file".to_owned()));
        let platform = vec![("A".to_owned(), "platform".to_owned()), ("B".to_owned(), "platform".to_owned())];
        let owner = vec![secret("A", "mine"), secret("PATH", "/opt/bin")];
        let merged = merge(platform, &image, &source, &owner);
        let value =
            |name: &str| merged.iter().find(|(key, _)| key == name).map(|(_, value)| value.expose().clone());
        assert_eq!(value("A").unwrap(), "mine");
        assert_eq!(value("B").unwrap(), "file");
        assert_eq!(value("C").unwrap(), "file");
        assert_eq!(value("PATH").unwrap(), "/opt/bin:/app/.venv/bin");
    }
}
