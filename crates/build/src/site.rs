//! The provider of static sites, Railpack's `staticfile`: a folder of files, as it is pushed or as a build leaves it. It
//! has no start command: the edge serves the files.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, fsetxattr};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trackbed_core::image::{Site, SiteFallback};
use trackbed_core::instance::LogStream;
use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::{BuildLog, BuildRequest, PortError};
use trackbed_core::settings::Origin;

use crate::builder::{Made, Workshop, blocking};
use crate::config;
use crate::config::draft::{Draft, Given};
use crate::config::keys::{Key, Setting};
use crate::layers::{self, disk, key};
use crate::provider::{Decided, Found, Look};
use crate::steps::{self, RECIPE_VERSION, Recipe, pairs};

/// How the provider is called.
pub(crate) const PROVIDER: &str = "static";
/// Raised when the way of making the layer changes.
const FORMAT: &[u8] = b"site 1";
/// Where a site answers whatever is in it, as Railway's own do.
const HEALTH_PATH: &str = "/health";
/// The attribute of a file that holds the digest of its content, by which the edge tells files apart.
const DIGEST: &str = "user.trackbed.digest";
/// Hexadecimal digits of it: half of a SHA-256, which nobody meets by chance.
const DIGEST_DIGITS: usize = 32;
/// Read and written at once.
const PIECE_BYTES: usize = 64 * 1024;
/// The one folder with a dot that is public.
const WELL_KNOWN: &str = ".well-known";

/// What the provider remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SiteRecipe {
    version: u32,
    /// The folder, relative to the source or to what is built of it.
    root: String,
    fallback: SiteFallback,
    /// Makes the files; none when they are pushed.
    pub(crate) steps: Option<Recipe>,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// The folder, relative to the source.
    pub(crate) root: String,
    /// Whether the site is one page that knows paths of its own.
    pub(crate) is_one_page: bool,
    /// Whether its beginning is known to be there.
    has_index: bool,
    place: String,
    steps: Option<Recipe>,
}

/// Returns whether somebody has said in so many words that the source is a site.
pub(crate) fn is_asked_for(draft: &Draft) -> bool {
    let own = |given: &Given| matches!(given.origin, Origin::Flag | Origin::TrackbedToml);
    draft.find(Key::StaticRoot).is_some_and(own)
}

/// Returns the folder that somebody has named. It wins over a start command that is no stronger.
pub(crate) fn asked(draft: &mut Draft) -> Option<Output> {
    let root = draft.text(Key::StaticRoot)?;
    let given = draft.find(Key::StaticRoot)?.clone();
    if let Some(start) = draft.find(Key::StartCommand).cloned() {
        let (root_place, start_place) = (&given.place, &start.place);
        if start.origin < given.origin {
            let message = format!(
                "{root_place}: the folder of a static site is not used: {start_place} starts a process"
            );
            draft.warn("", None, message);
            return None;
        }
        let message =
            format!("{start_place}: the start command is not used: by {root_place} this is a static site");
        draft.warn("", None, message);
        draft.forget(Key::StartCommand);
    }
    let is_one_page =
        matches!(draft.find(Key::StaticSpa).map(|given| &given.setting), Some(Setting::Flag(true)));
    Some(Output { root, is_one_page, has_index: false, place: given.place, steps: None })
}

/// Takes a folder that was found; what somebody has said of it wins.
pub(crate) fn detected(
    draft: &mut Draft,
    root: String,
    is_one_page: bool,
    has_index: bool,
    place: String,
) -> Output {
    let root = match Key::StaticRoot.parse(&root) {
        Ok(Setting::Text(root)) => root,
        _ => root,
    };
    let setting = Setting::Text(root.clone());
    draft.give(Given { key: Key::StaticRoot, setting, origin: Origin::Detection, place: place.clone() });
    Output { root, is_one_page, has_index, place, steps: None }
}

/// Finds a site that needs no tool: `public/`, `index.html`, or a folder that somebody names.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let build = draft.text(Key::BuildCommand);
    let asked = asked(draft);
    let mut output = match asked {
        Some(output) => output,
        // Who says how the source starts wants a process.
        None if draft.find(Key::StartCommand).is_some() => return Ok(Found::No),
        None if look.source.join("public").is_dir() => {
            detected(draft, "public".to_owned(), false, false, "public/".to_owned())
        }
        None if look.source.join("index.html").is_file() => {
            detected(draft, ".".to_owned(), false, false, "index.html".to_owned())
        }
        None => return Ok(Found::No),
    };
    let folder = look.source.join(&output.root);
    if build.is_none() && !folder.is_dir() {
        return Err(no_folder(&output));
    }
    output.has_index = folder.join("index.html").is_file();
    let summary = format!("static site, {} ({})", output.root, output.place);
    let output = match build {
        Some(build) => output.built_by(Recipe {
            version: RECIPE_VERSION,
            programs: Vec::new(),
            at_run: false,
            install: None,
            build: Some(build),
            after: None,
            drop: Vec::new(),
            secrets: Vec::new(),
            build_env: Vec::new(),
            env: pairs([("LANG", "C.UTF-8")]),
            path: Vec::new(),
        }),
        None => output,
    };
    output.decided(&summary, Vec::new(), draft)
}

/// The folder that was named is not there.
pub(crate) fn no_folder(output: &Output) -> PortError {
    let (root, place) = (&output.root, &output.place);
    PortError::new(format!("{place}: the files of the site are to be in `{root}`, and the source has no such folder"))
        .hint("name a folder of the source, or the command that makes it: buildCommand under [build] in trackbed.toml")
}

impl Output {
    /// The files are made by these steps.
    pub(crate) fn built_by(self, steps: Recipe) -> Self {
        Self { steps: Some(steps).filter(|steps| steps.build.is_some()), ..self }
    }

    /// Says that a source is a site.
    ///
    /// # Errors
    /// When the recipe cannot be written down.
    pub(crate) fn decided(
        self,
        summary: &str,
        settings: Vec<PlannedSetting>,
        draft: &mut Draft,
    ) -> Result<Found, PortError> {
        let is_one_page = match draft.find(Key::StaticSpa).map(|given| &given.setting) {
            Some(Setting::Flag(said)) => *said,
            _ => self.is_one_page,
        };
        let mut give = |key, setting| {
            if draft.find(key).is_none() {
                draft.give(Given { key, setting, origin: Origin::Detection, place: self.place.clone() });
            }
        };
        give(Key::StaticSpa, Setting::Flag(is_one_page));
        let health = if self.has_index { "/" } else { HEALTH_PATH };
        give(Key::HealthPath, Setting::Text(health.to_owned()));
        if !draft.volumes.is_empty() {
            draft.warn("", None, "a static site has no process that could use a volume");
        }
        let fallback = if is_one_page { SiteFallback::Index } else { SiteFallback::NotFound };
        let what = match (&self.steps, is_one_page) {
            (Some(_), _) => format!("; {} is served by the edge", self.root),
            (None, _) => ", served by the edge".to_owned(),
        };
        let recipe = SiteRecipe { version: RECIPE_VERSION, root: self.root, fallback, steps: self.steps };
        Decided::of(PROVIDER, format!("{summary}{what}"), &recipe, settings)
    }
}

/// Builds: the files in a layer of their own. What made them stays below it, so that the next build finds it.
pub(crate) async fn build(
    workshop: &Workshop,
    request: &BuildRequest,
    log: &dyn BuildLog,
) -> Result<Made, PortError> {
    let recipe: SiteRecipe = serde_json::from_value(request.plan.recipe.clone())
        .ok()
        .filter(|recipe: &SiteRecipe| recipe.version == RECIPE_VERSION)
        .ok_or_else(|| {
            PortError::new("the plan was made by another version of Trackbed").hint("plan and build again")
        })?;
    let say = |text: &str| log.line(LogStream::System, text);
    let mut made = match &recipe.steps {
        Some(steps) => steps::make(workshop, request, steps, PROVIDER, log).await?,
        None => Made {
            provider: PROVIDER.to_owned(),
            layers: Vec::new(),
            host_paths: Vec::new(),
            env: Vec::new(),
            site: None,
            container: None,
        },
    };
    made.site = Some(Site { fallback: recipe.fallback });
    let source = || layers::source_layer(&workshop.data_dir, request);
    let tree = made.layers.first().cloned().unwrap_or_else(source);
    let digest = key(&[
        ("format", FORMAT),
        ("tree", tree.digest.as_str().as_bytes()),
        ("root", recipe.root.as_bytes()),
    ]);
    let _turn = workshop.turn(&digest).await;
    if let Some((layer, record)) = workshop.layers.find(&digest) {
        say(&format!("site: reused layer {} ({})", digest.short(), record.summary));
        made.layers.insert(0, layer);
        return Ok(made);
    }
    let from = workshop.data_dir.join(&tree.path);
    let (layers, root, is_built) = (workshop.layers.clone(), recipe.root.clone(), recipe.steps.is_some());
    let (layer, record, has_index) = blocking(move || {
        let folder = folder_of(&from, &root, is_built)?;
        let staging = layers.stage()?;
        let files = copy(&folder, staging.path(), true)
            .map_err(|error| disk(&format!("cannot copy the files of `{root}`"), &error))?;
        if files == 0 {
            return Err(PortError::new(format!("`{root}` holds no file that could be served"))
                .hint("names that begin with a dot are not served, `.well-known` apart"));
        }
        let has_index = staging.path().join("index.html").is_file();
        let (layer, record) = layers.keep(&digest, staging.path(), &format!("{files} files"))?;
        Ok((layer, record, has_index))
    })
    .await?;
    let (short, kilobytes) = (layer.digest.short(), layer.size_bytes.div_ceil(1 << 10));
    say(&format!("site: {} of `{}`, {kilobytes} KB; layer {short}", record.summary, recipe.root));
    if !has_index {
        say(&format!("site: `{}` has no index.html, so / answers 404", recipe.root));
    }
    made.layers.insert(0, layer);
    Ok(made)
}

/// Finds the folder, which must lie in the tree itself: a link out of it is no site.
fn folder_of(tree: &Path, root: &str, is_built: bool) -> Result<PathBuf, PortError> {
    let hint = "say where the files are: root under [static] in trackbed.toml";
    let who = if is_built { "the build made" } else { "the source has" };
    let missing = || {
        let folders = folders_of(tree);
        PortError::new(format!("{who} no folder `{root}`; it has {folders}")).hint(hint)
    };
    let (Ok(whole), Ok(folder)) = (tree.canonicalize(), tree.join(root).canonicalize()) else {
        return Err(missing());
    };
    if !folder.starts_with(&whole) {
        return Err(PortError::new(format!("`{root}` is a link that leads out of the source")).hint(hint));
    }
    if folder.is_dir() { Ok(folder) } else { Err(missing()) }
}

/// Folders that are told at most.
const FOLDERS_TOLD_MAX: usize = 12;

fn folders_of(tree: &Path) -> String {
    let entries = fs::read_dir(tree).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir() && entry.file_name() != "node_modules")
        .map(|entry| format!("`{}`", entry.file_name().to_string_lossy()))
        .collect();
    names.sort();
    let more = names.len().saturating_sub(FOLDERS_TOLD_MAX);
    names.truncate(FOLDERS_TOLD_MAX);
    match (names.is_empty(), more) {
        (true, _) => "no folder at all".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// Copies what may be served, each file with the digest of its content; returns how many files.
fn copy(from: &Path, to: &Path, is_top: bool) -> io::Result<u64> {
    let mut files = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        let is_hidden = shown.starts_with('.') && !(is_top && shown == WELL_KNOWN);
        // What tells Trackbed and others how to deploy is nobody's business who visits the site.
        let is_settings = is_top && config::is_settings(&shown);
        if is_hidden || is_settings || shown == "node_modules" {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            // It leads where it led; the edge follows it only within the site.
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            files += copy(&source, &target, false)?;
        } else if kind.is_file() {
            copy_file(&source, &target)?;
            files += 1;
        }
    }
    Ok(files)
}

fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    let mut from = File::open(source)?;
    let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(target)?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hasher.update(&piece[..count]);
        to.write_all(&piece[..count])?;
    }
    let digest = trackbed_core::Digest::from_bytes(hasher.finalize().into());
    let digest = &digest.as_str()[..DIGEST_DIGITS];
    // Where the file system keeps no such attribute, the edge tells files apart by layer, time and size.
    let _ = fsetxattr(&to, DIGEST, digest.as_bytes(), XattrFlags::empty());
    to.set_modified(from.metadata()?.modified()?)
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
