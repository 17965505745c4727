//! The settings of one process, read from the environment and checked once.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

const DEVELOPMENT_SECRET_KEY: &str = "development-only-and-known-to-everyone";
const SECRET_KEY_MIN_LENGTH: usize = 32;
const TOKEN_DELAY_MAX_MS: u64 = 10_000;
const HOW_AN_ADDRESS_LOOKS: &str = "should be an SQLite address, such as sqlite:////data/assistant.db";

/// Why the process cannot start with the variables it was given, as a text for people.
#[derive(Debug, PartialEq)]
pub struct SettingsError(pub String);

/// A sign-in provider that is switched on.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderSettings {
    /// `google` or `microsoft`.
    pub name: &'static str,
    pub client_id: String,
    pub client_secret: String,
}

/// What the process goes by. Every value is checked.
#[derive(Debug)]
pub struct Settings {
    pub host: IpAddr,
    pub port: u16,
    pub is_production: bool,
    pub database: PathBuf,
    pub secret_key: String,
    /// Public address without a slash at its end, to which sign-in returns.
    pub backend_url: Option<String>,
    pub frontend_origins: Vec<String>,
    pub anthropic_api_key: Option<String>,
    pub anthropic_model: String,
    pub anthropic_base_url: String,
    /// None means that everyone is a guest.
    pub providers: Vec<ProviderSettings>,
    pub microsoft_tenant: String,
    pub token_delay_ms: u64,
}

impl Settings {
    /// Reads the variables of the process, and those of `.env` that it does not have.
    pub fn load() -> Result<Self, SettingsError> {
        let mut variables: HashMap<String, String> =
            dotenvy::from_filename_iter(".env").into_iter().flatten().flatten().collect();
        // Of the process itself, what is set to nothing is not set.
        variables.extend(std::env::vars_os().filter_map(|(name, value)| {
            let pair = (name.into_string().ok()?, value.into_string().ok()?);
            (!pair.1.is_empty()).then_some(pair)
        }));
        Self::read(&variables)
    }

    /// Reads settings out of variables; the error names everything that is wrong, not the first thing.
    pub fn read(variables: &HashMap<String, String>) -> Result<Self, SettingsError> {
        let mut reader = Reader { variables, unreadable: Vec::new() };
        let is_production = match reader.text("ENVIRONMENT").as_deref() {
            None | Some("development") => false,
            Some("production") => true,
            Some(_) => reader.refuse("ENVIRONMENT", "Input should be 'development' or 'production'", false),
        };
        let auth_disabled = reader.boolean("AUTH_DISABLED");
        let providers: Vec<ProviderSettings> = [("google", "GOOGLE"), ("microsoft", "MICROSOFT")]
            .into_iter()
            .filter(|_| !auth_disabled)
            .filter_map(|(name, prefix)| {
                let client_id = reader.text(&format!("{prefix}_CLIENT_ID"))?;
                let client_secret = reader.text(&format!("{prefix}_CLIENT_SECRET")).unwrap_or_default();
                Some(ProviderSettings { name, client_id, client_secret })
            })
            .collect();
        let database = reader.database(is_production);
        let secret_key = reader.text("SECRET_KEY").unwrap_or_default();
        let backend_url = reader.text("BACKEND_URL").map(|url| url.trim_end_matches('/').to_owned());
        let settings = Self {
            host: reader.parsed("HOST", IpAddr::from([0, 0, 0, 0]), "Input should be an IP address"),
            port: reader.parsed("PORT", 8000, "Input should be a port, from 0 to 65535"),
            is_production,
            database: database.clone().unwrap_or_default(),
            secret_key,
            backend_url,
            frontend_origins: reader.origins(),
            anthropic_api_key: reader.text("ANTHROPIC_API_KEY"),
            anthropic_model: reader.text_or("ANTHROPIC_MODEL", "claude-sonnet-4-5"),
            anthropic_base_url: reader.text_or("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
            providers,
            microsoft_tenant: reader.text_or("MICROSOFT_TENANT", "common"),
            token_delay_ms: reader.token_delay(),
        };
        if !reader.unreadable.is_empty() {
            return Err(SettingsError(format!("cannot read the settings\n{}", reader.unreadable.join("\n"))));
        }
        settings.require(database.is_some(), auth_disabled)
    }

    /// Fills in what development does without, and refuses what production must have.
    fn require(mut self, has_database: bool, auth_disabled: bool) -> Result<Self, SettingsError> {
        let mut missing: Vec<(String, String)> = Vec::new();
        let mut miss = |name: &str, hint: String| missing.push((name.to_owned(), hint));
        if self.is_production {
            if !has_database {
                miss("DATABASE_URL", "where the data lives, such as sqlite:////data/assistant.db".to_owned());
            }
            let key = &self.secret_key;
            if key.chars().count() < SECRET_KEY_MIN_LENGTH || key == DEVELOPMENT_SECRET_KEY {
                let what =
                    format!("signs session cookies, at least {SECRET_KEY_MIN_LENGTH} random characters");
                miss("SECRET_KEY", format!("{what}: openssl rand -base64 36"));
            }
            if self.backend_url.is_none() {
                let hint = "the public address of this service, such as https://assistant.example.com";
                miss("BACKEND_URL", hint.to_owned());
            }
            if self.providers.is_empty() && !auth_disabled {
                let ways = "(or MICROSOFT_CLIENT_ID, or AUTH_DISABLED=true to let anyone in)";
                miss("GOOGLE_CLIENT_ID", format!("a sign-in provider {ways}"));
            }
        } else if self.secret_key.is_empty() || self.secret_key == DEVELOPMENT_SECRET_KEY {
            eprintln!("warning: SECRET_KEY is not set: session cookies are signed with a public value");
            self.secret_key = DEVELOPMENT_SECRET_KEY.to_owned();
        }
        for provider in self.providers.iter().filter(|provider| provider.client_secret.is_empty()) {
            let prefix = provider.name.to_uppercase();
            miss(&format!("{prefix}_CLIENT_SECRET"), format!("belongs to {prefix}_CLIENT_ID"));
        }
        if missing.is_empty() {
            return Ok(self);
        }
        let width = missing.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let environment = if self.is_production { "production" } else { "development" };
        let mut text = format!("cannot start in {environment}: required variables are missing or unfit");
        for (name, hint) in missing {
            let _ = write!(text, "\n  {name:<width$}  {hint}");
        }
        Err(SettingsError(text))
    }
}

/// Reads one variable after the other and collects what cannot be read.
struct Reader<'a> {
    variables: &'a HashMap<String, String>,
    unreadable: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn text_or(&self, name: &str, default: &str) -> String {
        self.text(name).unwrap_or_else(|| default.to_owned())
    }

    fn refuse<T>(&mut self, name: &str, why: &str, instead: T) -> T {
        self.unreadable.push(format!("  {name}: {why}"));
        instead
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, default: T, why: &str) -> T {
        match self.text(name).map(|value| value.trim().parse()) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => self.refuse(name, why, default),
        }
    }

    fn boolean(&mut self, name: &str) -> bool {
        match self.text(name).map(|value| value.to_lowercase()).as_deref() {
            None | Some("false" | "0" | "no" | "off" | "f" | "n") => false,
            Some("true" | "1" | "yes" | "on" | "t" | "y") => true,
            Some(_) => self.refuse(name, "Input should be a valid boolean", false),
        }
    }

    fn token_delay(&mut self) -> u64 {
        let delay = self.parsed("TOKEN_DELAY_MS", 30, "Input should be a valid integer from 0 on");
        if delay > TOKEN_DELAY_MAX_MS {
            let why = format!("Input should be less than or equal to {TOKEN_DELAY_MAX_MS}");
            return self.refuse("TOKEN_DELAY_MS", &why, 30);
        }
        delay
    }

    fn origins(&self) -> Vec<String> {
        let listed = self.text("FRONTEND_ORIGINS").unwrap_or_default();
        let origins = listed.split(',').map(|origin| origin.trim().trim_end_matches('/'));
        origins.filter(|origin| !origin.is_empty()).map(str::to_owned).collect()
    }

    /// Returns the file of the database. Without an address, development keeps it on the volume if there is one.
    fn database(&mut self, is_production: bool) -> Option<PathBuf> {
        let Some(url) = self.text("DATABASE_URL") else {
            let mount = ["TRACKBED_VOLUME_MOUNT_PATH", "RAILWAY_VOLUME_MOUNT_PATH"];
            let mount = mount.into_iter().find_map(|name| self.text(name));
            let folder = mount.unwrap_or_else(|| ".".to_owned());
            return (!is_production).then(|| PathBuf::from(folder).join("assistant.db"));
        };
        match sqlite_file(&url) {
            Some(file) => Some(file),
            None => self.refuse("DATABASE_URL", HOW_AN_ADDRESS_LOOKS, Some(PathBuf::new())),
        }
    }
}

/// Returns the file that an address names: `sqlite:///relative` or `sqlite:////absolute`. The driver that the Python
/// edition names (`sqlite+aiosqlite`) is passed over, so that both editions take the same value.
fn sqlite_file(url: &str) -> Option<PathBuf> {
    let (scheme, rest) = url.split_once("://")?;
    let dialect = scheme.split_once('+').map_or(scheme, |(dialect, _driver)| dialect);
    let file = rest.strip_prefix('/')?.split('?').next()?;
    (dialect == "sqlite" && !file.is_empty() && file != ":memory:").then(|| PathBuf::from(file))
}
