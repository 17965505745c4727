//! Golden plans: each folder in `tests/golden` is a source, and its `expected.txt` the plan or the error it gets.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use trackbed_core::ports::Source;
use trackbed_core::{Digest, Secret};

use super::*;
use crate::python::version::Version;
use crate::toolchain::{Program, Tool};

fn pythons() -> Vec<Interpreter> {
    [
        ("3.8.18", "/opt/py38"),
        ("3.11.2", "/usr"),
        ("3.11.7", "/opt/py311"),
        ("3.12.1", "/opt/py312"),
        ("3.13.0", "/opt/py313"),
    ]
    .map(|(version, prefix)| Interpreter {
        version: Version::parse(version).unwrap(),
        program: PathBuf::from(prefix).join("bin/python3"),
        prefix: PathBuf::from(prefix),
        sqlite: "3.40.1".to_owned(),
        libc: "glibc 2.36".to_owned(),
    })
    .to_vec()
}

/// The programs of a box that has more than most.
struct Box;

impl Programs for Box {
    fn list(&self, tool: Tool) -> Vec<Program> {
        let versions: &[(&str, &str)] = match tool {
            Tool::Node => {
                &[("18.19.0", "/usr/bin"), ("20.20.2", "/opt/node20/bin"), ("22.1.0", "/opt/node22/bin")]
            }
            Tool::Npm => {
                &[("9.2.0", "/usr/bin"), ("10.8.2", "/opt/node20/bin"), ("10.9.0", "/opt/node22/bin")]
            }
            Tool::Pnpm => &[("9.1.0", "/usr/local/bin")],
            Tool::Yarn => &[("1.22.22", "/usr/local/bin")],
            Tool::Bun => &[],
            Tool::Go => &[("1.19.8", "/usr/lib/go/bin"), ("1.22.1", "/usr/local/go/bin")],
            Tool::Cargo => &[("1.63.0", "/usr/bin"), ("1.95.0", "/opt/rust/bin")],
            Tool::Deno => &[("2.1.4", "/opt/deno/bin")],
            Tool::Ruby => &[("3.1.2", "/usr/bin"), ("3.3.6", "/opt/ruby33/bin")],
            Tool::Bundler => &[("2.3.15", "/usr/bin"), ("2.5.22", "/opt/ruby33/bin")],
            Tool::Php => &[("8.2.29", "/usr/bin")],
            Tool::Composer => &[("2.5.5", "/usr/bin")],
            Tool::Java => &[("17.0.16", "/usr/lib/jvm/java-17/bin"), ("21.0.8", "/usr/lib/jvm/java-21/bin")],
            Tool::Maven => &[("3.8.7", "/usr/share/maven/bin")],
            Tool::Gradle => &[],
            Tool::Elixir => &[("1.14.0", "/usr/bin")],
        };
        let found = versions.iter().map(|(version, folder)| Program {
            tool,
            version: Version::parse(version).unwrap(),
            path: PathBuf::from(folder).join(tool.program()),
            preview: false,
        });
        found.collect()
    }

    fn fetch(&self, _: Tool, _: Option<&str>) -> Result<(), String> {
        Err("the box is offline".to_owned())
    }
}

/// A box without a container engine.
fn none() -> Result<String, PortError> {
    Err(PortError::new("neither Docker nor Podman is on this box"))
}

fn request(folder: PathBuf) -> PlanRequest {
    PlanRequest {
        source: Source { digest: Digest::from_bytes([0; 32]), path: folder },
        overrides: Vec::new(),
        stored: Vec::new(),
        variables: Vec::new(),
    }
}

fn show(outcome: Result<Outcome, PortError>) -> String {
    let mut text = String::new();
    let error = match outcome {
        Ok(Outcome::Ready(plan)) => {
            writeln!(text, "{}: {}", plan.provider, plan.summary).unwrap();
            if plan.provider != "python" {
                let steps = match plan.provider.as_str() {
                    crate::site::PROVIDER => plan.recipe.get("steps").filter(|steps| !steps.is_null()),
                    _ => Some(&plan.recipe),
                };
                let steps =
                    steps.map(|steps| serde_json::from_value::<crate::steps::Recipe>(steps.clone()).unwrap());
                let (build, install) = steps.map_or((None, None), |steps| (steps.build, steps.install));
                let install = install.map(|install| format!("{} reads {:?}", install.command, install.reads));
                for (step, what) in [("install", install), ("build", build)] {
                    if let Some(what) = what {
                        writeln!(text, "  {step}: {}", what.replace('\n', "; ")).unwrap();
                    }
                }
            }
            for setting in plan.settings {
                let place =
                    if setting.place == "default" { String::new() } else { format!(" ({})", setting.place) };
                writeln!(text, "  {} = {} [{:?}{place}]", setting.key, setting.value, setting.origin)
                    .unwrap();
            }
            for warning in plan.warnings {
                let line = warning.line.map(|line| format!(":{line}")).unwrap_or_default();
                let place = warning.file.map(|file| format!("{file}{line}: ")).unwrap_or_default();
                writeln!(text, "warning: {place}{}", warning.message).unwrap();
            }
            return text;
        }
        Ok(Outcome::NoPython { error, .. }) | Err(error) => error,
        Ok(Outcome::AsksEngine) => PortError::new("nobody was asked for an engine"),
    };
    writeln!(text, "error: {}", error.message).unwrap();
    if let Some(hint) = error.hint {
        writeln!(text, "hint: {hint}").unwrap();
    }
    text
}

/// Run with `GOLDEN=write` to take what comes out as right, and read the difference.
#[test]
fn golden_plans_stay_as_they_are() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&golden).unwrap() {
        let folder = entry.unwrap().path();
        let plan = show(super::plan(&request(folder.clone()), &pythons(), &Box, Some(&none())));
        let expected = folder.join("expected.txt");
        if std::env::var("GOLDEN").is_ok() {
            trackbed_stdx::files::write_atomic(&expected, plan.as_bytes(), 0o644).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != plan {
            wrong.push(format!("{}:\n{plan}", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn flags_win_and_stored_values_lose() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/assistant");
    let mut request = request(golden);
    request.overrides = vec![("deploy.startCommand".to_owned(), "python x.py".to_owned())];
    request.stored = vec![
        ("deploy.healthcheckPath".to_owned(), "/stored".to_owned()),
        ("limits.memory".to_owned(), "1GB".to_owned()),
    ];
    request.variables = vec![
        ("PORT".to_owned(), Secret::new("9000".to_owned())),
        ("RAILWAY_HEALTHCHECK_TIMEOUT_SEC".to_owned(), Secret::new("soon".to_owned())),
    ];
    let Ok(Outcome::Ready(plan)) = super::plan(&request, &pythons(), &Box, Some(&none())) else {
        panic!("a plan")
    };
    assert_eq!(plan.config.start_command, "python x.py");
    assert_eq!(plan.config.health.path.as_deref(), Some("/health"));
    assert_eq!(plan.config.limits.memory_bytes, Some(1 << 30));
    assert_eq!(plan.config.port, Some(9000));
    assert!(plan.warnings.iter().any(|warning| warning.message.contains("RAILWAY_HEALTHCHECK_TIMEOUT_SEC")));
    request.overrides = vec![("deploy.healthcheckTimeout".to_owned(), "0".to_owned())];
    let error = super::plan(&request, &pythons(), &Box, Some(&none())).err().map(|error| error.message);
    assert!(
        error.is_some_and(|message| message.starts_with("--health-timeout: `0` is not a number of seconds"))
    );
    request.overrides = vec![("deploy.start".to_owned(), "x".to_owned())];
    assert!(super::plan(&request, &pythons(), &Box, Some(&none())).is_err());
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn on_the_wire(plan: &Plan) -> trackbed_api::Plan {
    let origin = |origin| serde_json::to_value(origin).unwrap().as_str().unwrap().to_owned();
    let setting = |setting: &trackbed_core::plan::PlannedSetting| trackbed_api::PlannedSetting {
        key: setting.key.clone(),
        value: setting.value.clone(),
        place: setting.place.clone(),
        origin: origin(setting.origin),
    };
    let warning = |warning: &trackbed_core::plan::Warning| trackbed_api::Warning {
        file: warning.file.clone(),
        line: warning.line,
        message: warning.message.clone(),
    };
    trackbed_api::Plan {
        provider: plan.provider.clone(),
        summary: plan.summary.clone(),
        settings: plan.settings.iter().map(setting).collect(),
        warnings: plan.warnings.iter().map(warning).collect(),
    }
}

#[test]
fn an_imported_source_has_the_same_plan_with_and_without_the_files_it_was_made_from() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let ready =
        |folder: &Path| match super::plan(&request(folder.to_owned()), &pythons(), &Box, Some(&none())) {
            Ok(Outcome::Ready(plan)) => Some(*plan),
            _ => None,
        };
    let values = |plan: &Plan| -> Vec<(String, String)> {
        plan.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    let mut imported = 0;
    for entry in fs::read_dir(&golden).unwrap() {
        let from = entry.unwrap().path();
        let Some(before) = ready(&from) else { continue };
        let folder = tempfile::tempdir().unwrap();
        copy_tree(&from, folder.path());
        let text = trackbed_api::settings_file(&on_the_wire(&before));
        trackbed_stdx::files::write_atomic(&folder.path().join("trackbed.toml"), text.as_bytes(), 0o644)
            .unwrap();
        for is_alone in [false, true] {
            if is_alone {
                for file in config::files().filter(|file| *file != "trackbed.toml") {
                    let _ = fs::remove_file(folder.path().join(file));
                }
            }
            let what = format!("{}, alone: {is_alone}:\n{text}", from.display());
            let after = ready(folder.path()).unwrap_or_else(|| panic!("no plan: {what}"));
            assert_eq!(after.config, before.config, "{what}");
            assert_eq!(values(&after), values(&before), "{what}");
            assert_eq!(
                (after.provider, after.recipe),
                (before.provider.clone(), before.recipe.clone()),
                "{what}"
            );
        }
        imported += 1;
    }
    assert!(imported >= 35, "{imported}");
}

/// Plans a source of these files on a box with Docker.
fn with_docker(files: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Plan, PortError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        trackbed_stdx::files::write_atomic(&folder.path().join(name), text.as_bytes(), 0o644).unwrap();
    }
    let mut request = request(folder.path().to_owned());
    request.overrides = overrides.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    assert!(matches!(super::plan(&request, &pythons(), &Box, None), Ok(Outcome::AsksEngine)));
    match super::plan(&request, &pythons(), &Box, Some(&Ok("Docker 28.2.2".to_owned())))? {
        Outcome::Ready(plan) => Ok(*plan),
        Outcome::NoPython { error, .. } => Err(error),
        Outcome::AsksEngine => panic!("it was told"),
    }
}

#[test]
fn a_dockerfile_goes_before_detection_where_an_engine_is() {
    let dockerfile = "FROM debian\nARG VERSION\nEXPOSE 3000\nHEALTHCHECK CMD true\nVOLUME /data\n";
    let plan = with_docker(&[("Dockerfile", dockerfile), ("package.json", "{}")], &[]).unwrap();
    assert_eq!((plan.provider.as_str(), plan.config.start_command.as_str()), ("docker", ""));
    assert_eq!(plan.config.port, Some(3000));
    assert_eq!(plan.summary, "Dockerfile, built and run by Docker 28.2.2");
    assert_eq!(
        plan.recipe,
        serde_json::json!({"file": {"path": "Dockerfile", "args": ["VERSION"], "target": "", "given": [], "wants_buildkit": false}})
    );
    let warned: Vec<Option<u32>> = plan.warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(warned, [Some(4), Some(5)]);
    let railway = r#"{"build": {"builder": "DOCKERFILE", "dockerfilePath": "app.docker"}, "deploy": {"startCommand": "run"}}"#;
    let plan =
        with_docker(&[("app.docker", dockerfile), ("railway.json", railway)], &[("deploy.port", "80")])
            .unwrap();
    assert_eq!((plan.config.port, plan.config.start_command.as_str()), (Some(80), "run"));
    let error = with_docker(&[("railway.json", railway)], &[]).unwrap_err();
    assert!(error.message.starts_with("railway.json:1: cannot build app.docker"), "{error}");
}

#[test]
fn an_image_by_name_needs_an_engine_and_another_builder_none() {
    let plan = with_docker(&[], &[("build.image", "redis:7")]).unwrap();
    assert_eq!(plan.recipe, serde_json::json!({"image": {"reference": "redis:7"}}));
    let folder = tempfile::tempdir().unwrap();
    let mut request = request(folder.path().to_owned());
    request.overrides = vec![("build.image".to_owned(), "redis:7".to_owned())];
    let refused = super::plan(&request, &pythons(), &Box, Some(&none())).err().unwrap();
    assert!(refused.message.contains("redis:7 needs a container engine"), "{refused}");
    request.overrides = vec![("build.builder".to_owned(), "nixpacks".to_owned())];
    trackbed_stdx::files::write_atomic(&folder.path().join("Dockerfile"), b"FROM x", 0o644).unwrap();
    trackbed_stdx::files::write_atomic(&folder.path().join("start.sh"), b"exec true", 0o644).unwrap();
    let Ok(Outcome::Ready(plan)) = super::plan(&request, &pythons(), &Box, None) else { panic!("a plan") };
    assert_eq!(plan.provider, "shell");
}
