//! Sources that bring a Dockerfile, or name an image: when they are meant, and what can be read from a Dockerfile without
//! building it. The engine of the box does the rest.
//!
//! Instructions: docs.docker.com/reference/dockerfile. As on Railway, a Dockerfile goes before detection, and variables
//! that it declares by `ARG` are given to its build (docs.railway.com/builds/dockerfiles).

use std::collections::{BTreeSet, VecDeque};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::{BuildLog, BuildRequest, Dockerfile, Images, PortError};
use trackbed_core::settings::Origin;

use crate::builder::Made;
use crate::config::draft::{Draft, Given};
use crate::config::keys::{Key, Setting};
use crate::provider::{Decided, Found};

/// The provider's name.
pub(crate) const PROVIDER: &str = "docker";
/// Where a Dockerfile is when nobody says otherwise.
const USUAL: &str = "Dockerfile";
/// Builders that are something else, although a Dockerfile is there.
const OTHER_BUILDERS: [&str; 2] = ["RAILPACK", "NIXPACKS"];
/// Flags of instructions that only BuildKit knows.
const OF_BUILDKIT: [&str; 9] =
    ["mount", "network", "security", "link", "chmod", "parents", "exclude", "checksum", "keep-git-dir"];
/// Variables that only BuildKit sets by itself.
const ARGS_OF_BUILDKIT: [&str; 8] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];
/// Longest Dockerfile that is looked into.
const LIMIT_BYTES: u64 = 1 << 20;

/// What the build must remember.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Recipe {
    /// Build this Dockerfile.
    File {
        /// Relative to the source.
        path: String,
        /// Variables that it declares.
        args: Vec<String>,
        /// The stage to build; empty means the last.
        #[serde(default)]
        target: String,
        /// Values of some of them; the service's own win.
        #[serde(default)]
        given: Vec<(String, String)>,
        /// Whether it uses what Docker's older builder does not know.
        #[serde(default)]
        wants_buildkit: bool,
    },
    /// Fetch this image.
    Image {
        /// Its name, as a registry has it.
        reference: String,
    },
}

/// What a source asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// An image by its name.
    Image { reference: String, place: String, origin: Origin },
    /// A Dockerfile; the place is none where nobody named it.
    File { path: String, place: Option<(String, Origin)> },
}

/// Finds what a source asks of a container engine.
pub(crate) fn find_wish(folder: &Path, draft: &Draft) -> Option<Wish> {
    let told = |key: Key| {
        draft.find(key).map(|given| (given.setting.to_string(), given.place.clone(), given.origin))
    };
    let builder = told(Key::Builder);
    let is_other = builder.as_ref().is_some_and(|(name, ..)| OTHER_BUILDERS.contains(&name.as_str()));
    if let Some((reference, place, origin)) = told(Key::Image) {
        return Some(Wish::Image { reference, place, origin });
    }
    if is_other {
        return None;
    }
    if let Some((path, place, origin)) = told(Key::Dockerfile) {
        let path = path.trim_start_matches("./").trim_start_matches('/').to_owned();
        return Some(Wish::File { path, place: Some((place, origin)) });
    }
    match builder.filter(|(name, ..)| name == "DOCKERFILE") {
        Some((_, place, origin)) => Some(Wish::File { path: USUAL.to_owned(), place: Some((place, origin)) }),
        None => folder.join(USUAL).is_file().then(|| Wish::File { path: USUAL.to_owned(), place: None }),
    }
}

/// Decides for an engine, or says why there is none and leaves the source to detection.
///
/// # Errors
/// When what is named is not in the source, or an image is named by our own settings and there is no engine.
pub(crate) fn decide(
    folder: &Path,
    wish: &Wish,
    engine: &Result<String, PortError>,
    draft: &mut Draft,
) -> Result<Found, PortError> {
    let engine = match engine {
        Ok(engine) => engine,
        Err(error) => return refuse(wish, error, draft),
    };
    draft.leave_to_image(match wish {
        Wish::Image { reference, .. } => reference,
        Wish::File { path, .. } => path,
    });
    if let Some(given) = draft.find(Key::BuildCommand) {
        let place = given.place.clone();
        draft.warn(
            "",
            None,
            format!("{place}: the build command is not run: the image is made by its Dockerfile"),
        );
    }
    match wish {
        Wish::Image { reference, place, .. } => {
            let recipe = Recipe::Image { reference: reference.clone() };
            let settings = own_start(draft, place);
            Decided::of(PROVIDER, format!("image {reference}, run by {engine}"), &recipe, settings)
        }
        Wish::File { path, place } => {
            let text = read(folder, path, place.as_ref().map(|(place, _)| place.as_str()))?;
            let said = Said::of(&text);
            give_port(draft, path, &said);
            warn(draft, path, &said);
            let given = draft.build_args.iter().filter(|arg| said.args.contains(arg.name.as_str()));
            let recipe = Recipe::File {
                path: path.clone(),
                args: said.args.iter().cloned().collect(),
                target: draft.text(Key::DockerfileTarget).unwrap_or_default(),
                given: given.clone().map(|arg| (arg.name.to_string(), arg.value.clone())).collect(),
                wants_buildkit: said.wants_buildkit,
            };
            let args = given.map(|arg| PlannedSetting {
                key: format!("build.args.{}", arg.name),
                value: arg.value.clone(),
                origin: arg.origin,
                place: arg.place.clone(),
            });
            let settings = own_start(draft, path).into_iter().chain(args).collect();
            Decided::of(PROVIDER, format!("{path}, built and run by {engine}"), &recipe, settings)
        }
    }
}

fn refuse(wish: &Wish, error: &PortError, draft: &mut Draft) -> Result<Found, PortError> {
    let going_on = "is not used (neither Docker nor Podman answers on this box); going on with detection";
    let (place, what) = match wish {
        Wish::Image { reference, place, origin } if *origin <= Origin::TrackbedToml => {
            let message = format!("{place}: image {reference} needs a container engine: {}", error.message);
            return Err(PortError { message, hint: error.hint.clone() });
        }
        Wish::Image { reference, place, .. } => (place.clone(), format!("image {reference} {going_on}")),
        Wish::File { path, place: Some((place, _)) } => (place.clone(), format!("{path} {going_on}")),
        Wish::File { path, place: None } => (path.clone(), format!("{path} {going_on}")),
    };
    let (file, line) = place.split_once(':').unwrap_or((&place, ""));
    draft.warn(file, line.parse().ok(), what);
    Ok(Found::No)
}

/// The command of the image is not known before it is there.
fn own_start(draft: &Draft, place: &str) -> Vec<PlannedSetting> {
    if draft.find(Key::StartCommand).is_some() {
        return Vec::new();
    }
    vec![PlannedSetting {
        key: "image.start".to_owned(),
        value: "the image's own ENTRYPOINT and CMD".to_owned(),
        origin: Origin::Detection,
        place: place.to_owned(),
    }]
}

fn read(folder: &Path, path: &str, place: Option<&str>) -> Result<String, PortError> {
    let at = place.map(|place| format!("{place}: ")).unwrap_or_default();
    let failed = |why: &str| {
        PortError::new(format!("{at}cannot build {path}: {why}"))
            .hint("paths of Dockerfiles begin at the root of what is deployed")
    };
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(failed("the path leaves the source"));
    }
    let file = folder.join(path);
    // A link may lead anywhere on the box.
    let metadata = file.symlink_metadata().map_err(|_| failed("there is no such file in the source"))?;
    if !metadata.is_file() || metadata.len() > LIMIT_BYTES {
        return Err(failed("it is no file, or larger than a MiB"));
    }
    let bytes = std::fs::read(&file).map_err(|error| failed(&error.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One port that is exposed is the one to listen on, unless somebody says otherwise.
fn give_port(draft: &mut Draft, path: &str, said: &Said) {
    let ports: BTreeSet<u16> = said.ports.iter().map(|(_, port)| *port).collect();
    if let ([(line, port), ..], 1, None) = (said.ports.as_slice(), ports.len(), draft.find(Key::Port)) {
        let setting = Setting::Number(u64::from(*port));
        let place = format!("{path}:{line}");
        draft.give(Given { key: Key::Port, setting, origin: Origin::Detection, place });
    }
}

fn warn(draft: &mut Draft, path: &str, said: &Said) {
    if let Some(line) = said.health {
        let message = "HEALTHCHECK is not used: `healthcheckPath` says when a release is healthy";
        draft.warn(path, Some(line), message);
    }
    for (line, volume) in &said.volumes {
        let is_there = draft.volumes.iter().any(|(request, ..)| request.mount.as_str() == volume);
        if !is_there {
            let message = format!(
                "VOLUME {volume}: unless a volume of the service is mounted there, what is written there is lost with \
                 each release; trackbed volume add data {volume}"
            );
            draft.warn(path, Some(*line), message);
        }
    }
}

/// What a Dockerfile says about itself. Lines count from 1.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    args: BTreeSet<String>,
    ports: Vec<(u32, u16)>,
    volumes: Vec<(u32, String)>,
    health: Option<u32>,
    wants_buildkit: bool,
}

impl Said {
    fn of(text: &str) -> Said {
        let mut said = Said::default();
        for (line, instruction) in instructions(text) {
            let (name, rest) = instruction.split_once(char::is_whitespace).unwrap_or((&instruction, ""));
            let words = || rest.split_whitespace();
            match name.to_ascii_uppercase().as_str() {
                "ARG" => {
                    let named = words().map(|word| word.split('=').next().unwrap_or(word));
                    said.args.extend(named.map(str::to_owned));
                    said.wants_buildkit |= ARGS_OF_BUILDKIT.iter().any(|arg| said.args.contains(*arg));
                }
                "EXPOSE" => {
                    let ports = words().filter(|word| !word.ends_with("/udp"));
                    let ports = ports.filter_map(|word| word.trim_end_matches("/tcp").parse().ok());
                    said.ports.extend(ports.map(|port| (line, port)));
                }
                // An earlier stage may have exposed what is not there any more.
                "FROM" => {
                    said.ports.clear();
                    said.volumes.clear();
                    said.health = None;
                    let is_named = |arg: &str| rest.replace("${", "$").contains(&format!("${arg}"));
                    said.wants_buildkit |= ARGS_OF_BUILDKIT.iter().any(|arg| is_named(arg));
                }
                "HEALTHCHECK" if !rest.trim().eq_ignore_ascii_case("NONE") => said.health = Some(line),
                "VOLUME" => {
                    let list = serde_json::from_str::<Vec<String>>(rest.trim());
                    let list = list.unwrap_or_else(|_| words().map(str::to_owned).collect());
                    said.volumes.extend(list.into_iter().map(|volume| (line, volume)));
                }
                "RUN" | "COPY" | "ADD" => {
                    let mut flags = words().map_while(|word| word.strip_prefix("--"));
                    said.wants_buildkit |= words().any(|word| here_document(word).is_some())
                        || flags.any(|flag| OF_BUILDKIT.contains(&flag.split('=').next().unwrap_or(flag)));
                }
                _ => {}
            }
        }
        said
    }
}

/// Returns the word with which a here-document ends that this word begins: `<<EOF`, `<<-'EOF'`.
fn here_document(word: &str) -> Option<&str> {
    let end = word.strip_prefix("<<")?.trim_start_matches('-').trim_matches(['\'', '"']);
    end.starts_with(|letter: char| letter.is_alphabetic() || letter == '_').then_some(end)
}

/// Splits a Dockerfile into instructions: comments and the bodies of here-documents are left out, lines that end in a backslash
/// are joined.
fn instructions(text: &str) -> Vec<(u32, String)> {
    let mut found: Vec<(u32, String)> = Vec::new();
    let mut is_open = false;
    let mut ends: VecDeque<String> = VecDeque::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(end) = ends.front() {
            if line == end {
                ends.pop_front();
            }
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (line, goes_on) = line.strip_suffix('\\').map_or((line, false), |line| (line.trim_end(), true));
        match found.last_mut().filter(|_| is_open) {
            Some((_, instruction)) => {
                instruction.push(' ');
                instruction.push_str(line);
            }
            None => found.push((number, line.to_owned())),
        }
        is_open = goes_on;
        let done = found.last().filter(|_| !is_open).map(|(_, instruction)| instruction.as_str());
        let takes = ["RUN ", "COPY ", "ADD "];
        let done = done.filter(|done| {
            let upper = done.get(..5).unwrap_or(done).to_ascii_uppercase();
            takes.iter().any(|name| upper.starts_with(name))
        });
        let words = done.into_iter().flat_map(str::split_whitespace);
        ends.extend(words.filter_map(here_document).map(str::to_owned));
    }
    found
}

/// Has the engine make the image.
///
/// # Errors
/// When it cannot.
pub(crate) async fn build(
    images: &dyn Images,
    request: &BuildRequest,
    log: &dyn BuildLog,
) -> Result<Made, PortError> {
    let recipe = serde_json::from_value::<Recipe>(request.plan.recipe.clone());
    let recipe = recipe.map_err(|error| PortError::new(format!("cannot read the plan: {error}")))?;
    let container = match recipe {
        Recipe::Image { reference } => images.pull(&reference, log).await?,
        Recipe::File { path, args, target, given, wants_buildkit } => {
            let set = request.variables.iter().filter(|(name, _)| args.contains(name));
            let args = set.map(|(name, value)| (name.clone(), value.expose().clone())).collect();
            let context = request.source.path.clone();
            let file = Dockerfile { context, path, target, args, given, wants_buildkit };
            images.build(file, log).await?
        }
    };
    Ok(Made {
        provider: PROVIDER.to_owned(),
        layers: Vec::new(),
        host_paths: Vec::new(),
        env: container.env.clone(),
        site: None,
        container: Some(container),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_says_what_it_needs() {
        let said = Said::of(
            "# syntax=x\nFROM a AS b\nEXPOSE 1\nFROM b\nARG ONE=1 TWO\narg three\nRUN a \\\n # no\n  && b\nEXPOSE 3000/tcp \\\n 53/udp\n\
             VOLUME [\"/data\"]\nHEALTHCHECK CMD true\n",
        );
        assert_eq!(said.args, ["ONE", "TWO", "three"].map(str::to_owned).into());
        assert_eq!(said.ports, [(10, 3000)]);
        assert_eq!(said.volumes, [(12, "/data".to_owned())]);
        assert_eq!((said.health, said.wants_buildkit), (Some(13), false));
    }

    #[test]
    fn the_body_of_a_here_document_is_no_instruction() {
        let said = Said::of(
            "FROM a\nEXPOSE 3000\nRUN python3 - <<'EOF' && cat <<-END\nfrom pathlib import Path\nEOF\nEXPOSE 1\n\tEND\nVOLUME /x\n",
        );
        assert_eq!(said.ports, [(2, 3000)]);
        assert_eq!(said.volumes, [(8, "/x".to_owned())]);
    }

    #[test]
    fn what_only_buildkit_knows_is_seen() {
        for line in [
            "RUN --mount=type=cache,target=/x y",
            "run --network=none --mount=type=bind,target=. y",
            "COPY --from=x --chmod=755 a b",
            "COPY --link a b",
            "RUN <<EOF",
            "RUN python3 - <<'EOF'",
            "ARG TARGETARCH",
            "FROM --platform=$BUILDPLATFORM x",
            "FROM --platform=${BUILDPLATFORM:-linux/amd64} x",
            "ARG TARGETOS",
        ] {
            assert!(Said::of(&format!("FROM a\n{line}\n")).wants_buildkit, "{line}");
        }
        for line in ["RUN npm --link x", "COPY --from=x --chown=1 a b", "RUN echo $((1 << 2))", "ARG ARCH"] {
            assert!(!Said::of(&format!("FROM a\n{line}\n")).wants_buildkit, "{line}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
    fn what_is_said_for_detection_alone_does_not_reach_a_container() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("Dockerfile", "FROM scratch\n");
        write("Procfile", "web: a\nworker: b\n");
        write("railway.json", "{\"deploy\": {\"healthcheckPath\": \"/up\"}}");
        let mut draft = crate::config::read(folder.path(), &[], &[], &[]).unwrap();
        let wish = find_wish(folder.path(), &draft).unwrap();
        decide(folder.path(), &wish, &Ok("Docker".to_owned()), &mut draft).unwrap();
        assert!(draft.find(Key::StartCommand).is_none() && draft.processes.is_empty());
        assert_eq!(draft.text(Key::HealthPath).as_deref(), Some("/up"));
        let told: Vec<_> =
            draft.warnings.iter().map(|warning| (warning.file.as_deref(), warning.line)).collect();
        assert_eq!(told, [(Some("Procfile"), Some(1)), (Some("Procfile"), Some(2))]);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
    fn stage_and_values_that_files_of_others_name_reach_the_build() {
        let compose = "services:\n  web:\n    build:\n      context: .\n      target: live\n      args:\n        \
                       - ONE=1\n        - KEY=${KEY}\n        - OTHER=2\n";
        let fly = "app = \"x\"\n[build]\nbuild-target = \"live\"\n[build.args]\nONE = 1\nOTHER = \"2\"\n";
        let own = "[build]\ntarget = \"live\"\nargs.ONE = \"1\"\n";
        for (name, text, given, notes) in [
            ("docker-compose.yml", compose, serde_json::json!([["ONE", "1"]]), 1),
            ("fly.toml", fly, serde_json::json!([["ONE", "1"]]), 0),
            ("trackbed.toml", own, serde_json::json!([["ONE", "1"]]), 0),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("Dockerfile"), "FROM scratch AS live\nARG ONE\nARG KEY\n")
                .unwrap();
            std::fs::write(folder.path().join(name), text).unwrap();
            let mut draft = crate::config::read(folder.path(), &[], &[], &[]).unwrap();
            let wish = find_wish(folder.path(), &draft).unwrap();
            let found = decide(folder.path(), &wish, &Ok("Docker".to_owned()), &mut draft).unwrap();
            let Found::Yes(decided) = found else { panic!("{name} is decided") };
            let recipe = &decided.recipe["file"];
            assert_eq!((&recipe["target"], &recipe["given"]), (&"live".into(), &given), "{name}");
            assert_eq!(draft.warnings.len(), notes, "{:?}", draft.warnings);
            assert!(
                decided.settings.iter().any(|setting| setting.key == "build.args.ONE"),
                "for `trackbed import`"
            );
        }
    }

    #[test]
    fn a_path_that_leaves_the_source_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../Dockerfile", "/etc/passwd", "missing"] {
            assert!(read(folder.path(), path, Some("railway.json:2")).is_err(), "{path}");
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("Dockerfile")).unwrap();
        assert!(read(folder.path(), "Dockerfile", None).is_err());
    }
}
