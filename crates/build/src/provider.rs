//! What a provider is: it looks whether a source is one of its language, and decides how that is built and started.

use std::path::Path;

use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::python::interpreters::Interpreter;
use crate::python::wanted::Wanted;
use crate::toolchain::Programs;

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

type Finder = fn(Look<'_>, &mut Draft) -> Result<Found, PortError>;

/// Every provider in the order in which they are asked: Railpack's (core/providers/provider.go), so that a source with
/// signs of several languages becomes here what it is there. The first that knows the source has it.
pub(crate) const PROVIDERS: [(&str, Finder); 5] = [
    ("go", crate::go::find),
    ("rust", crate::rust::find),
    ("python", crate::python::plan::find),
    ("node", crate::node::find),
    ("shell", crate::shell::find),
];
