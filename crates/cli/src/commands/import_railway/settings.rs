//! What a service is set to on Railway, in the dashboard or by `.railway/railway.ts`, as the `railway.json` that says the same.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use trackbed_stdx::files::write_atomic;

use super::program::Railway;
use crate::human::plain;
use crate::session::Session;

/// The file, whose keys are those of Railway's own settings (docs.railway.com/config-as-code/reference).
const FILE: &str = "railway.json";
/// Files in which a folder says such things itself. There and here they are stronger than the dashboard.
const OWN: [&str; 3] = ["trackbed.toml", FILE, "railway.toml"];
/// Where and with what Railway runs a service: nothing of it would hold here. Credentials belong into no file.
const LEFT_OUT: [&str; 11] = [
    "buildEnvironment",
    "railpackVersion",
    "nixpacksVersion",
    "region",
    "multiRegionConfig",
    "numReplicas",
    "registryCredentials",
    "ipv6EgressEnabled",
    "runtime",
    "useLegacyStacker",
    "overlapSeconds",
];

/// An environment, as `railway environment config --json` tells it.
#[derive(Debug, Deserialize)]
struct Environment {
    #[serde(default)]
    services: BTreeMap<String, Service>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Service {
    source: Option<Source>,
    build: Option<Map<String, Value>>,
    deploy: Option<Map<String, Value>>,
    config_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Source {
    image: Option<String>,
    root_directory: Option<String>,
}

/// Fetches the settings of a service. None when they cannot be had, which is said: an older `railway` does not tell them.
pub(super) async fn fetch(
    session: &Session,
    railway: &Railway<'_>,
    environment: &str,
    id: &str,
) -> Option<Settings> {
    let asked = railway.ask(&["environment", "config", "--environment", environment, "--json"]).await;
    let told = asked.and_then(|answer| {
        serde_json::from_str::<Environment>(&answer).context("`railway environment config` gave no settings")
    });
    match told {
        Ok(mut environment) => environment.services.remove(id).map(Settings::of),
        Err(error) => {
            session
                .output
                .talk(format!("the settings of the service were not fetched: {}", plain(&error.to_string())));
            None
        }
    }
}

/// The settings, as a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// None when Railway says nothing that would be needed.
    text: Option<String>,
    /// The folder of its repository that Railway builds.
    root: Option<PathBuf>,
    /// The file that Railway reads settings from instead.
    file: Option<String>,
}

impl Settings {
    fn of(service: Service) -> Self {
        let source = service.source.unwrap_or_default();
        let mut build = said(service.build);
        if let Some(image) = source.image.filter(|image| !image.is_empty()) {
            build.insert("image".to_owned(), Value::String(image));
        }
        let schema = json!("https://railway.com/railway.schema.json");
        let mut file = Map::from_iter([("$schema".to_owned(), schema)]);
        for (name, table) in [("build", build), ("deploy", said(service.deploy))] {
            if !table.is_empty() {
                file.insert(name.to_owned(), Value::Object(table));
            }
        }
        let text = (file.len() > 1).then(|| format!("{:#}\n", Value::Object(file)));
        let root = source.root_directory.map(|path| {
            // What would lead out of the repository leads nowhere.
            let parts = Path::new(&path).components().filter(|part| matches!(part, Component::Normal(_)));
            parts.collect::<PathBuf>()
        });
        Self { text, root: root.filter(|path| !path.as_os_str().is_empty()), file: service.config_file }
    }

    /// Writes the file into a folder, or into the one in it that Railway builds, unless that says such things itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, session: &Session, folder: &Path) -> Result<()> {
        let output = &session.output;
        let below = self.root.as_ref().map(|root| folder.join(root)).filter(|path| path.is_dir());
        let folder = below.as_deref().unwrap_or(folder);
        if let Some(root) = &self.root {
            let root = plain(&root.to_string_lossy());
            output.talk(format!(
                "Railway builds the folder {root} of its repository: deploy that one here, too"
            ));
        }
        if let Some(file) = &self.file {
            output.talk(format!("Railway reads settings from {}; here such a file is {FILE}", plain(file)));
        }
        let Some(text) = &self.text else { return Ok(()) };
        if let Some(own) = OWN.iter().find(|name| folder.join(name).symlink_metadata().is_ok()) {
            let path = folder.join(own);
            output.talk(format!(
                "{} is there, so what Railway has set was not written. It is:\n{}",
                path.display(),
                plain_lines(text)
            ));
            return Ok(());
        }
        let path = folder.join(FILE);
        write_atomic(&path, text.as_bytes(), 0o644)
            .with_context(|| format!("cannot write {}", path.display()))?;
        output.talk(format!("{} written: what Railway has set for the service", path.display()));
        Ok(())
    }
}

/// Returns what a table says: of null, nothing and none there is no word in a file.
fn said(table: Option<Map<String, Value>>) -> Map<String, Value> {
    let is_said = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(table) => !table.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    let table = table.unwrap_or_default().into_iter();
    table.filter(|(key, value)| !LEFT_OUT.contains(&key.as_str()) && is_said(value)).collect()
}

fn plain_lines(text: &str) -> String {
    text.trim_end().lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(service: Value) -> Settings {
        Settings::of(serde_json::from_value(service).unwrap())
    }

    #[test]
    fn what_is_set_is_in_the_file_and_what_is_railways_own_is_not() {
        let told = settings(json!({
            "source": { "repo": "me/shop", "rootDirectory": "/apps/../backend/" },
            "networking": { "serviceDomains": { "shop.up.railway.app": { "port": 8000 } } },
            "build": { "builder": "RAILPACK", "buildCommand": null, "watchPatterns": [], "buildEnvironment": "V3" },
            "deploy": {
                "startCommand": "gunicorn main:app", "healthcheckPath": "/health", "healthcheckTimeout": 120,
                "multiRegionConfig": { "europe-west4": { "numReplicas": 1 } }, "preDeployCommand": ["alembic upgrade head"],
                "registryCredentials": { "username": "u", "password": "p" }, "sleepApplication": false,
            },
        }));
        let text = told.text.unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(file["build"], json!({ "builder": "RAILPACK" }));
        let deploy = json!({
            "startCommand": "gunicorn main:app", "healthcheckPath": "/health", "healthcheckTimeout": 120,
            "preDeployCommand": ["alembic upgrade head"], "sleepApplication": false,
        });
        assert_eq!(file["deploy"], deploy);
        assert!(!text.contains("password"), "{text}");
        assert_eq!(told.root.as_deref(), Some(Path::new("apps/backend")));
    }

    #[test]
    fn an_image_is_built_by_nobody_and_nothing_set_is_no_file() {
        let image = settings(json!({ "source": { "image": "chromadb/chroma:1.0" }, "deploy": null }));
        let file: Value = serde_json::from_str(&image.text.unwrap()).unwrap();
        assert_eq!(file["build"]["image"], "chromadb/chroma:1.0");
        let none = settings(json!({ "deploy": { "runtime": "V2" }, "source": { "rootDirectory": "/" } }));
        assert_eq!(none, Settings { text: None, root: None, file: None });
    }
}
