//! Where a container engine listens, and who it is. Looked for anew each time: it may be installed, or restarted, any time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use trackbed_core::ports::PortError;

/// Longest wait for an answer that needs no work.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the first byte of any answer, in seconds: a container is made, or removed, on a slow disk.
const WORK_LIMIT_S: u64 = 60;

/// How often, and how far apart, a container is looked at that Podman tidies up.
const TIDY_LOOKS: u32 = 100;
const TIDY_LOOK: Duration = Duration::from_millis(50);

/// A daemon that answered just now.
#[derive(Clone)]
pub(crate) struct Daemon {
    /// Its API.
    pub(crate) api: bollard::Docker,
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// `Docker 28.2.2`.
    pub(crate) title: String,
}

impl Daemon {
    pub(crate) fn is_podman(&self) -> bool {
        self.title.starts_with("Podman")
    }

    /// Looks at a container. Podman says of one that has just ended that it has `stopped`, a word that Docker does not have and
    /// nobody can read; it becomes `exited` when Podman has tidied up.
    pub(crate) async fn inspect(&self, name: &str) -> Result<ContainerInspectResponse, Error> {
        let mut looks = 0;
        loop {
            match self.api.inspect_container(name, None).await {
                Err(Error::JsonDataError { .. }) if self.is_podman() && looks < TIDY_LOOKS => {
                    looks += 1;
                    tokio::time::sleep(TIDY_LOOK).await;
                }
                seen => return seen,
            }
        }
    }
}

/// Returns where an engine may listen, the likeliest first: what the environment says, else the usual places of Docker and
/// Podman, of the box and of this user.
///
/// # Errors
/// When the environment names something that is no socket of this box.
pub(crate) fn places(environment: &[(String, String)]) -> Result<Vec<PathBuf>, PortError> {
    let value = |name: &str| {
        let found = environment.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    for name in ["DOCKER_HOST", "CONTAINER_HOST"] {
        let Some(host) = value(name) else { continue };
        return match host.strip_prefix("unix://").or_else(|| host.starts_with('/').then_some(host)) {
            Some(path) => Ok(vec![path.into()]),
            None => Err(PortError::new(format!(
                "{name} is `{host}`, and Trackbed uses the engine of its own box only: containers must reach its volumes"
            ))
            .hint(format!("unset it, or name a socket: {name}=unix:///run/docker.sock"))),
        };
    }
    let mut places = vec!["/run/docker.sock".into(), "/var/run/docker.sock".into()];
    places.push(PathBuf::from("/run/podman/podman.sock"));
    if let Some(own) = value("XDG_RUNTIME_DIR") {
        places.push(Path::new(own).join("docker.sock"));
        places.push(Path::new(own).join("podman/podman.sock"));
    }
    Ok(places)
}

/// Connects to the first engine that answers.
///
/// # Errors
/// When none does; says where it was looked for.
pub(crate) async fn find(environment: &[(String, String)]) -> Result<Daemon, PortError> {
    let places = places(environment)?;
    let mut silent = None;
    for place in places.iter().filter(|place| place.exists()) {
        match connect(place).await {
            Ok(daemon) => return Ok(daemon),
            Err(error) => silent = silent.or(Some(error)),
        }
    }
    Err(silent.unwrap_or_else(|| {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        PortError::new(format!("neither Docker nor Podman is on this box (looked for {})", places.join(", ")))
            .hint("install one (`apt install docker.io`), or start it; DOCKER_HOST names another socket")
    }))
}

/// Connects to the engine that listens here.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn connect(socket: &Path) -> Result<Daemon, PortError> {
    let failed = |error: &dyn std::fmt::Display| {
        PortError::new(format!("the container engine at {} does not answer: {error}", socket.display()))
            .hint("look at its service (`systemctl status docker`), and whether this user may use the socket")
    };
    let path = socket.to_string_lossy();
    let asked = async {
        let api = bollard::Docker::connect_with_unix(&path, WORK_LIMIT_S, bollard::API_DEFAULT_VERSION)?;
        let api = api.negotiate_version().await?;
        let version = api.version().await?;
        Ok::<_, Error>((api, version))
    };
    let (api, version) = match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(asked) => asked.map_err(|error| failed(&error))?,
        Err(_) => return Err(failed(&format!("nothing within {} s", ANSWER_LIMIT.as_secs()))),
    };
    let parts = version.components.unwrap_or_default();
    let is_podman = parts.iter().any(|part| part.name.contains("Podman"));
    let name = if is_podman { "Podman" } else { "Docker" };
    let title = format!("{name} {}", version.version.unwrap_or_default());
    Ok(Daemon { api, socket: socket.to_owned(), title })
}

/// Returns whether the engine says that it has no such thing.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// Says an engine's error in its own words.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_elsewhere_is_refused_and_a_socket_that_is_named_is_the_only_one() {
        let given = |host: &str| vec![("DOCKER_HOST".to_owned(), host.to_owned())];
        assert_eq!(places(&given("unix:///x/d.sock")).unwrap(), [PathBuf::from("/x/d.sock")]);
        assert!(places(&given("tcp://10.0.0.1:2375")).unwrap_err().message.contains("tcp://10.0.0.1:2375"));
        assert!(places(&given("")).unwrap().len() > 2);
    }
}
