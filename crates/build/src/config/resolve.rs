//! Turns what was read into the configuration of a release: the strongest value of each key, defaults for the rest.

use std::time::Duration;

use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::PortError;
use trackbed_core::settings::{
    DRAIN_TIMEOUT_DEFAULT, HEALTH_TIMEOUT_DEFAULT, Handover, HealthCheck, Limits, MAX_RETRIES_DEFAULT,
    Origin, RestartMode, RestartPolicy, STOP_GRACE_DEFAULT, ServiceConfig, VolumeRequest,
};
use trackbed_core::volume::MountPath;

use crate::config::draft::Draft;
use crate::config::formation;
use crate::config::keys::{Key, Setting};

/// Decides everything but the start command, which must be there by now.
///
/// # Errors
/// When there are too many processes.
pub(crate) fn resolve(draft: &mut Draft) -> Result<(ServiceConfig, Vec<PlannedSetting>), PortError> {
    let formation = formation::resolve(draft)?;
    // Railway's one figure is the time between SIGTERM and SIGKILL, too: nobody gets less of it here than there. Its
    // default of 0 would lose writes, so ours is the least.
    let stop_grace = time(draft, Key::DrainTimeout, Duration::ZERO).max(STOP_GRACE_DEFAULT);
    let volumes = volumes(draft);
    let is_set = |key| matches!(draft.find(key).map(|given| &given.setting), Some(Setting::Flag(true)));
    let config = ServiceConfig {
        start_command: draft.text(Key::StartCommand).unwrap_or_default(),
        main: formation.main,
        processes: formation.others,
        health: HealthCheck {
            path: draft.text(Key::HealthPath),
            timeout: time(draft, Key::HealthTimeout, HEALTH_TIMEOUT_DEFAULT),
        },
        restart: RestartPolicy {
            mode: match draft.find(Key::RestartMode).map(|given| &given.setting) {
                Some(Setting::Restart(mode)) => *mode,
                _ => RestartMode::OnFailure,
            },
            max_retries: number(draft, Key::MaxRetries)
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(MAX_RETRIES_DEFAULT),
        },
        limits: Limits {
            memory_bytes: number(draft, Key::Memory),
            cpu_millis: number(draft, Key::Cpu).and_then(|millis| u32::try_from(millis).ok()),
            pids: None,
        },
        port: number(draft, Key::Port).and_then(|port| u16::try_from(port).ok()),
        volumes,
        required_mount: mount(draft),
        stop_grace: time(draft, Key::StopGrace, stop_grace),
        drain_timeout: time(draft, Key::DrainTimeout, DRAIN_TIMEOUT_DEFAULT),
        hold_window: draft.find(Key::HoldWindow).and_then(|given| match given.setting {
            Setting::Time(time) => Some(time),
            _ => None,
        }),
        handover: draft.find(Key::Handover).and_then(|given| match given.setting {
            Setting::Handover(handover) => Some(handover),
            _ => None,
        }),
        shared: is_set(Key::Shared),
        rehearse: is_set(Key::Rehearse),
        pre_deploy: draft.text(Key::PreDeploy),
        pre_deploy_untried: matches!(
            draft.find(Key::PreDeployTrial).map(|given| &given.setting),
            Some(Setting::Flag(false))
        ),
        cron: match draft.find(Key::Cron).map(|given| &given.setting) {
            Some(Setting::Cron(schedule)) => Some(schedule.clone()),
            _ => None,
        },
        watch_patterns: match draft.find(Key::WatchPatterns).map(|given| &given.setting) {
            Some(Setting::List(patterns)) => patterns.clone(),
            _ => Vec::new(),
        },
        variables: variables(draft),
    };
    warn_of_sharing(draft, &config);
    let mut settings = planned(draft, &config);
    settings.extend(formation.settings);
    Ok((config, settings))
}

/// Says what an owner takes upon himself who lets two releases write to a volume.
fn warn_of_sharing(draft: &mut Draft, config: &ServiceConfig) {
    let Some(given) = draft.find(Key::Shared).filter(|_| config.shared) else { return };
    let place = given.place.clone();
    let message = match config.handover {
        Some(Handover::Held) => {
            format!(
                "{place}: `shared` does nothing with `handover = \"held\"`: there is one writer at a time"
            )
        }
        Some(Handover::Overlap) | None => format!(
            "{place}: `shared`: during a deploy two releases write to the volume at once, and the app must cope with \
             that: SQLite in WAL mode does, as long as both understand the schema; files that are replaced whole \
             and embedded stores such as ChromaDB do not"
        ),
    };
    draft.warn("", None, message);
}

fn variables(draft: &Draft) -> Vec<(String, String)> {
    let declared = draft.variables.iter();
    declared.map(|declared| (declared.name.to_string(), declared.value.clone())).collect()
}

fn time(draft: &Draft, key: Key, default: Duration) -> Duration {
    match draft.find(key).map(|given| &given.setting) {
        Some(Setting::Time(time)) => *time,
        _ => default,
    }
}

fn number(draft: &Draft, key: Key) -> Option<u64> {
    match draft.find(key).map(|given| &given.setting) {
        Some(Setting::Number(number)) => Some(*number),
        _ => None,
    }
}

fn mount(draft: &Draft) -> Option<MountPath> {
    match draft.find(Key::RequiredMount).map(|given| &given.setting) {
        Some(Setting::Mount(path)) => Some(path.clone()),
        _ => None,
    }
}

/// Keeps the stronger of two volumes that share a name or a place, and says so.
fn volumes(draft: &mut Draft) -> Vec<VolumeRequest> {
    let mut kept: Vec<(VolumeRequest, Origin, String)> = Vec::new();
    let mut asked = std::mem::take(&mut draft.volumes);
    asked.sort_by_key(|(_, origin, _)| *origin);
    for (volume, origin, place) in asked {
        match kept.iter().find(|(other, ..)| other.name == volume.name || other.mount == volume.mount) {
            Some((other, _, first)) if *other != volume => {
                let message = format!(
                    "{place}: volume `{}` at {} is ignored, {first} asks for `{}` at {}",
                    volume.name, volume.mount, other.name, other.mount
                );
                draft.warn("", None, message);
            }
            Some(_) => {}
            None => kept.push((volume, origin, place)),
        }
    }
    draft.volumes.clone_from(&kept);
    kept.into_iter().map(|(volume, ..)| volume).collect()
}

fn planned(draft: &Draft, config: &ServiceConfig) -> Vec<PlannedSetting> {
    let mut settings = Vec::new();
    for key in Key::all() {
        let default = match key {
            Key::HealthTimeout => Some(Setting::Time(config.health.timeout)),
            Key::RestartMode => Some(Setting::Restart(config.restart.mode)),
            Key::MaxRetries => Some(Setting::Number(u64::from(config.restart.max_retries))),
            Key::StopGrace => Some(Setting::Time(config.stop_grace)),
            Key::DrainTimeout => Some(Setting::Time(config.drain_timeout)),
            Key::Builder
            | Key::BuildCommand
            | Key::StartCommand
            | Key::HealthPath
            | Key::HoldWindow
            | Key::Handover
            | Key::Shared
            | Key::Rehearse
            | Key::PreDeploy
            | Key::PreDeployTrial
            | Key::Cron
            | Key::WatchPatterns
            | Key::Port
            | Key::RequiredMount
            | Key::Memory
            | Key::Cpu
            | Key::StaticRoot
            | Key::StaticSpa
            | Key::Dockerfile
            | Key::DockerfileTarget
            | Key::Image => None,
        };
        // A grace that follows from the drain limit comes from where that does.
        let follows = key == Key::StopGrace && config.stop_grace > STOP_GRACE_DEFAULT;
        let found = draft.find(key);
        if let Some(given) = draft.find(Key::DrainTimeout).filter(|_| follows && found.is_none()) {
            settings.push(PlannedSetting {
                key: key.name().to_owned(),
                value: key.show(&Setting::Time(config.stop_grace)),
                origin: given.origin,
                place: given.place.clone(),
            });
            continue;
        }
        let (setting, origin, place) = match (found, default) {
            (Some(given), _) => (given.setting.clone(), given.origin, given.place.clone()),
            (None, Some(setting)) => (setting, Origin::Default, "default".to_owned()),
            (None, None) => continue,
        };
        settings.push(PlannedSetting {
            key: key.name().to_owned(),
            value: key.show(&setting),
            origin,
            place,
        });
    }
    for (volume, origin, place) in &draft.volumes {
        settings.push(PlannedSetting {
            key: format!("volumes.{}", volume.name),
            value: volume.mount.to_string(),
            origin: *origin,
            place: place.clone(),
        });
    }
    for declared in &draft.variables {
        settings.push(PlannedSetting {
            key: format!("variables.{}", declared.name),
            value: declared.value.clone(),
            origin: declared.origin,
            place: declared.place.clone(),
        });
    }
    settings
}
