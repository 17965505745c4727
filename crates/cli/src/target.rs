//! Which service a command is about.

use anyhow::Result;
use trackbed_api::Service;
use trackbed_client::{Client, ServiceClient};

use crate::names;
use crate::session::{Refusal, Session};

/// The flags that name a service.
#[derive(Debug, Default, clap::Args)]
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

    /// Finds a service to be changed. The folder's name is not replaced by a guess here: settings that were meant for
    /// an app before its first deploy must not land in another one.
    pub(crate) async fn find_exact(&self, session: &Session, client: &Client) -> Result<Names> {
        if self.service.is_some() {
            let services = client.services().await?;
            return self
                .choose(None, &services)
                .map(|(names, _)| names)
                .or_else(|_| self.named(&session.folder));
        }
        self.named(&session.folder)
    }

    /// Chooses among the services of a box, and tells whether the choice is a guess to be said aloud.
    fn choose(&self, folder: Option<&str>, services: &[Service]) -> Result<(Names, bool)> {
        let names =
            |service: &Service| Names { project: service.project.clone(), service: service.service.clone() };
        let wanted = self.service.as_deref().or(folder);
        let in_project =
            |service: &&Service| self.project.as_ref().is_none_or(|name| *name == service.project);
        let reachable: Vec<_> = services.iter().filter(in_project).collect();
        let same: Vec<_> =
            reachable.iter().filter(|service| Some(service.service.as_str()) == wanted).collect();
        if let [one] = same.as_slice() {
            return Ok((names(one), false));
        }
        if let Some(own) = same.iter().find(|service| service.project == service.service) {
            return Ok((names(own), false));
        }
        if let (None, [only]) = (&self.service, reachable.as_slice()) {
            return Ok((names(only), true));
        }
        let known: Vec<_> = services.iter().map(|service| names(service).to_string()).collect();
        if known.is_empty() {
            let hint = "`trackbed up` in the folder of an app makes the first one";
            return Err(Refusal::with_hint("the box has no service yet", hint));
        }
        let hint = format!("the box has: {}", known.join(", "));
        Err(match (same.is_empty(), wanted) {
            (false, Some(wanted)) => Refusal::with_hint(
                format!("several projects have a service {wanted}; say which by --project"),
                hint,
            ),
            (true, Some(wanted)) if self.service.is_some() || self.project.is_some() => {
                let project =
                    self.project.as_ref().map(|name| format!(" in project {name}")).unwrap_or_default();
                Refusal::with_hint(format!("there is no service {wanted}{project}"), hint)
            }
            _ => Refusal::with_hint("which service? say it by --service, or stand in its folder", hint),
        })
    }
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
