//! What a provider is: it looks whether a source is one of its language, and decides how that is built and started.

use std::path::Path;

use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, Given};
use crate::config::keys::{Key, Setting};
use crate::python::interpreters::Interpreter;
use crate::python::wanted::Wanted;
use crate::toolchain::{Asks, Program, Programs};

/// What providers may look at.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    /// The source.
    pub(crate) source: &'a Path,
    /// The Pythons of the box.
    pub(crate) pythons: &'a [Interpreter],
    /// Its other toolchains.
    pub(crate) programs: &'a dyn Programs,
}

/// What came of looking.
pub(crate) enum Found {
    /// Not a source of this language.
    No,
    /// One, and everything is decided.
    Yes(Box<Decided>),
    /// One, but nothing on this box satisfies what it asks for; a Python can be fetched.
    NoPython {
        /// What it asks for.
        wanted: Wanted,
        /// The error, if nothing can be fetched.
        error: PortError,
    },
}

/// What was decided. The start command and warnings are in the draft.
pub(crate) struct Decided {
    /// Which provider, such as `node`.
    pub(crate) provider: &'static str,
    /// For people.
    pub(crate) summary: String,
    /// For the build; only the provider reads it.
    pub(crate) recipe: serde_json::Value,
    /// Settings of the provider's own.
    pub(crate) settings: Vec<PlannedSetting>,
}

impl Decided {
    /// Says that a source is one of the provider's.
    ///
    /// # Errors
    /// When the recipe cannot be written down.
    pub(crate) fn of(
        provider: &'static str,
        summary: String,
        recipe: &impl serde::Serialize,
        settings: Vec<PlannedSetting>,
    ) -> Result<Found, PortError> {
        let recipe = serde_json::to_value(recipe)
            .map_err(|error| PortError::new(format!("cannot keep the recipe: {error}")))?;
        Ok(Found::Yes(Box::new(Self { provider, summary, recipe, settings })))
    }
}

/// Says how the source is started, unless somebody said it already. `place` is what it was told by.
pub(crate) fn give_start(draft: &mut Draft, command: impl Into<String>, place: impl Into<String>) {
    if draft.find(Key::StartCommand).is_none() {
        draft.give(Given {
            key: Key::StartCommand,
            setting: Setting::Text(command.into()),
            origin: Origin::Detection,
            place: place.into(),
        });
    }
}

/// The version that was chosen, as a setting.
pub(crate) fn version_setting(key: &str, program: &Program, asks: Option<&Asks>) -> PlannedSetting {
    PlannedSetting {
        key: format!("{key}.version"),
        value: format!("{} ({})", program.version, program.path.display()),
        origin: if asks.is_some() { Origin::Detection } else { Origin::Default },
        place: place_of(asks).to_owned(),
    }
}

/// Where the version is asked for.
pub(crate) fn place_of(asks: Option<&Asks>) -> &str {
    asks.map_or("default", |asks| asks.place.as_str())
}

type Finder = fn(Look<'_>, &mut Draft) -> Result<Found, PortError>;

/// Every provider in the order in which they are asked: Railpack's (core/providers/provider.go), so that a source with
/// signs of several languages becomes here what it is there. The first that knows the source has it.
pub(crate) const PROVIDERS: [(&str, Finder); 11] = [
    ("php", crate::php::find),
    ("go", crate::go::find),
    ("java", crate::java::find),
    ("rust", crate::rust::find),
    ("ruby", crate::ruby::find),
    ("elixir", crate::elixir::find),
    ("python", crate::python::plan::find),
    ("deno", crate::deno::find),
    ("node", crate::node::find),
    ("static", crate::site::find),
    ("shell", crate::shell::find),
];
