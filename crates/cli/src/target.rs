//! Which service a command is about.

use anyhow::Result;
use trackbed_api::{DeploymentRequest, Service};
use trackbed_client::{Client, ServiceClient};

use crate::names;
use crate::session::{Refusal, Session};

/// The flags that name a service.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Target {
    /// The service [default: the name of the current folder, else the only service of the box]
    #[arg(long, short, value_name = "NAME", value_parser = names::parse_name)]
    pub(crate) service: Option<String>,
    /// The project that the service belongs to [default: the name of the service]
    #[arg(long, short, value_name = "NAME", value_parser = names::parse_name)]
    pub(crate) project: Option<String>,
}

/// The names of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) project: String,
    pub(crate) service: String,
}

impl Names {
    /// Returns the calls about the service.
    pub(crate) fn of<'a>(&self, client: &'a Client) -> ServiceClient<'a> {
        client.service(&self.project, &self.service)
    }

    /// Returns a wish for a deployment of the service, to which its caller adds what the kind needs.
    pub(crate) fn deployment(&self, kind: &str) -> DeploymentRequest {
        DeploymentRequest {
            project: self.project.clone(),
            service: self.service.clone(),
            kind: kind.to_owned(),
            source: None,
            version: None,
            with_data: false,
            overrides: Vec::new(),
            commit: None,
            delivery: None,
        }
    }
}

impl From<&Service> for Names {
    fn from(service: &Service) -> Self {
        Self { project: service.project.clone(), service: service.service.clone() }
    }
}

impl std::fmt::Display for Names {
    /// The service's name, with the project in front when that is another.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.project == self.service {
            f.write_str(&self.service)
        } else {
            write!(f, "{}/{}", self.project, self.service)
        }
    }
}

impl Target {
    /// Returns the names as flags and folder give them, whether there is such a service or not.
    pub(crate) fn named(&self, folder: &std::path::Path) -> Result<Names> {
        let service = match &self.service {
            Some(service) => service.clone(),
            None => names::of_folder(folder)?,
        };
        Ok(Names { project: self.project.clone().unwrap_or_else(|| service.clone()), service })
    }

    /// Finds a service that exists. Without flags, the only service of the box stands in for the folder's.
    pub(crate) async fn find(&self, session: &Session, client: &Client) -> Result<Names> {
        let services = client.services().await?;
        let folder = names::of_folder(&session.folder).ok();
        let (names, stands_in) = self.choose(folder.as_deref(), &services)?;
        if stands_in {
            session.output.talk(format!("using {names}, the only service of the box"));
        }
        Ok(names)
    }

    /// Finds a service to be changed, or takes the name for a new one and says so. The folder's name is not replaced by
    /// a guess here: settings that were meant for an app before its first deploy must not land in another one.
    pub(crate) async fn find_or_new(&self, session: &Session, client: &Client) -> Result<Names> {
        let named = self.named(&session.folder)?;
        let services = client.services().await?;
        let found = self.by_name(&named, &services)?;
        if found.is_none() {
            session.output.talk(format!("service {named} is new; it is made now"));
        }
        Ok(found.unwrap_or(named))
    }

    /// Finds a service to be changed that must be there; the folder's name is not replaced by a guess.
    pub(crate) async fn find_exact(&self, session: &Session, client: &Client) -> Result<Names> {
        let named = self.named(&session.folder)?;
        let services = client.services().await?;
        match self.by_name(&named, &services)? {
            Some(found) => Ok(found),
            None => Err(Target { service: Some(named.service), ..self.clone() }.unknown(&services)),
        }
    }

    /// Finds the one service of this name; none when there is no such service, an error when there are several.
    fn by_name(&self, named: &Names, services: &[Service]) -> Result<Option<Names>> {
        let is_meant = |service: &&Service| {
            service.service == named.service
                && self.project.as_ref().is_none_or(|name| *name == service.project)
        };
        if !services.iter().any(|service| is_meant(&service)) {
            return Ok(None);
        }
        let exact = Target { service: Some(named.service.clone()), project: self.project.clone() };
        exact.choose(None, services).map(|(names, _)| Some(names))
    }

    /// Refuses what the flags name, because the box has no such service.
    pub(crate) fn unknown(&self, services: &[Service]) -> anyhow::Error {
        let service = self.service.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let project = self.project.as_ref().map(|name| format!(" in project {name}")).unwrap_or_default();
        Refusal::with_hint(format!("there is no service{service}{project}"), box_has(services))
    }

    /// Chooses among the services of a box, and tells whether the choice is a guess to be said aloud.
    fn choose(&self, folder: Option<&str>, services: &[Service]) -> Result<(Names, bool)> {
        let wanted = self.service.as_deref().or(folder);
        let in_project =
            |service: &&Service| self.project.as_ref().is_none_or(|name| *name == service.project);
        let reachable: Vec<_> = services.iter().filter(in_project).collect();
        let same: Vec<_> =
            reachable.iter().filter(|service| Some(service.service.as_str()) == wanted).collect();
        if let [one] = same.as_slice() {
            return Ok((Names::from(**one), false));
        }
        if let Some(own) = same.iter().find(|service| service.project == service.service) {
            return Ok((Names::from(**own), false));
        }
        if let (None, [only]) = (&self.service, reachable.as_slice()) {
            return Ok((Names::from(*only), true));
        }
        let hint = box_has(services);
        if services.is_empty() {
            return Err(Refusal::with_hint("the box has no service yet", hint));
        }
        Err(match (same.is_empty(), wanted) {
            (false, Some(wanted)) => Refusal::with_hint(
                format!("several projects have a service {wanted}; say which by --project"),
                hint,
            ),
            (true, Some(wanted)) if self.service.is_some() || self.project.is_some() => {
                Target { service: Some(wanted.to_owned()), ..self.clone() }.unknown(services)
            }
            _ => Refusal::with_hint("which service? say it by --service, or stand in its folder", hint),
        })
    }
}

/// Says which services there are, or how to make the first.
fn box_has(services: &[Service]) -> String {
    if services.is_empty() {
        return "`trackbed up` in the folder of an app makes the first one".to_owned();
    }
    let known: Vec<_> = services.iter().map(|service| Names::from(service).to_string()).collect();
    format!("the box has: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::service;

    fn chosen(flags: (Option<&str>, Option<&str>), folder: &str, box_has: &[(&str, &str)]) -> String {
        let (service_flag, project_flag) = flags;
        let target =
            Target { service: service_flag.map(str::to_owned), project: project_flag.map(str::to_owned) };
        let services: Vec<_> = box_has.iter().map(|(project, name)| service(project, name)).collect();
        match target.choose(Some(folder), &services) {
            Ok((names, guess)) => format!("{names}{}", if guess { " (guess)" } else { "" }),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_folder_names_the_service_and_the_only_one_stands_in() {
        let two = [("web", "web"), ("shop", "api")];
        assert_eq!(chosen((None, None), "api", &two), "shop/api");
        assert_eq!(chosen((None, None), "other", &two[..1]), "web (guess)");
        assert!(chosen((None, None), "other", &two).starts_with("which service?"));
        assert!(chosen((None, None), "other", &[]).contains("no service yet"));
    }

    #[test]
    fn a_service_that_was_named_is_never_guessed() {
        assert_eq!(chosen((Some("api"), None), "web", &[("web", "web")]), "there is no service api");
        let several = [("a", "api"), ("b", "api")];
        assert!(chosen((Some("api"), None), "web", &several).contains("--project"));
        assert_eq!(chosen((Some("api"), Some("b")), "web", &several), "b/api");
        assert_eq!(chosen((Some("api"), None), "web", &[("a", "api"), ("api", "api")]), "api");
    }
}
