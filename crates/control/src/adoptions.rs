//! What may move from outside the volumes into one.

use trackbed_core::Name;
use trackbed_core::volume::Volume;

use crate::control::{Control, ControlError};
use crate::requests::DeploymentWish;
use crate::resolve::conflict;

/// Files that are looked through for databases when all of them move in; databases come first.
const ADOPTED_AT_ONCE: usize = 1000;

impl Control {
    /// Names the databases that an adoption of all of them is about.
    ///
    /// # Errors
    /// When there is no such service, nothing of it runs, or it keeps none outside its volumes.
    pub(crate) async fn name_databases_outside(
        &self,
        project: &Name,
        service: &Name,
        wish: DeploymentWish,
    ) -> Result<DeploymentWish, ControlError> {
        let volume = match wish {
            DeploymentWish::Adopt { paths, volume } if paths.is_empty() => volume,
            other => return Ok(other),
        };
        let service = self.service(project, service).await?;
        let live = service.live.as_ref().and_then(|live| live.instance.clone());
        let Some(instance) = live else {
            return Err(ControlError::Conflict {
                message: format!(
                    "nothing of service `{}` runs that could keep data outside its volumes",
                    service.name
                ),
                hint: Some("start the service first: trackbed restart".into()),
            });
        };
        let mut files = self.inner.engine.stray_files(&instance, ADOPTED_AT_ONCE).await?;
        files.retain(|file| file.is_database);
        if files.is_empty() {
            return Err(ControlError::Conflict {
                message: format!("service `{}` keeps no database outside its volumes", service.name),
                hint: Some("other files move by their path: trackbed volume adopt /app/uploads".into()),
            });
        }
        let paths = files.into_iter().map(|file| file.path).collect();
        Ok(DeploymentWish::Adopt { paths, volume })
    }
}

/// Returns the path of what may be adopted, normalised.
pub(crate) fn adoptable(path: &str, volumes: &[Volume]) -> Result<String, ControlError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let is_plain = parts.iter().all(|part| *part != "." && *part != ".." && !part.contains('\0'));
    if !path.starts_with('/') || parts.first() != Some(&"app") || parts.len() < 2 || !is_plain {
        let wanted = "an absolute path of a file or a directory below /app, as the app sees it";
        return Err(ControlError::Invalid(format!("`{path}` cannot be adopted: it must be {wanted}")));
    }
    let path = format!("/{}", parts.join("/"));
    let is_below = |path: &str, mount: &str| {
        path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for volume in volumes {
        if is_below(&path, volume.mount.as_str()) {
            let message = format!("{path} lies in volume `{}` already", volume.name);
            return Err(ControlError::Conflict { message, hint: None });
        }
        if is_below(volume.mount.as_str(), &path) {
            let message = format!("volume `{}` is mounted inside {path}", volume.name);
            return Err(conflict(message, "adopt the files beside the volume one by one"));
        }
    }
    Ok(path)
}

/// Returns paths that can be adopted into one volume at once: none twice, none below another, no two of one name.
pub(crate) fn together(mut paths: Vec<String>) -> Result<Vec<String>, ControlError> {
    paths.sort();
    paths.dedup();
    for (index, path) in paths.iter().enumerate() {
        for other in &paths[index + 1..] {
            if other.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/')) {
                return Err(ControlError::Invalid(format!(
                    "{other} lies in {path}, which is adopted as a whole"
                )));
            }
            if base_name(path) == base_name(other) {
                let message = format!("{path} and {other} would have the same name in the volume");
                return Err(conflict(
                    message,
                    "adopt one of them, rename the other, or name another volume for it",
                ));
            }
        }
    }
    Ok(paths)
}

/// Returns the last part of a path: the name that something adopted has in its volume.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
