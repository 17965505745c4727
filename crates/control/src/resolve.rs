//! From a wish to what is deployed: which release, from which source, on which data.

use std::fmt::Write as _;

use trackbed_core::deployment::{Adoption, DataWish, Deployment, DeploymentKind, DeploymentState};
use trackbed_core::git::Commit;
use trackbed_core::release::Release;
use trackbed_core::restore_point::RestorePoint;
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;
use trackbed_core::{Digest, Name, RestorePointId, Timestamp};
use trackbed_store::{Db, StoreError};

use crate::adoptions::{adoptable, together};
use crate::control::ControlError;
use crate::requests::DeploymentWish;
use crate::unsettled::settle;

/// Deployments that are looked through.
const NEWEST: u32 = 1000;

/// Names a restore point of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointAt {
    /// This one.
    Id(RestorePointId),
    /// The newest of this time or before it that is not known to be broken.
    Time(Timestamp),
    /// The newest that is proven.
    Newest,
}

/// What a wish comes to.
pub(crate) struct Resolved {
    pub(crate) kind: DeploymentKind,
    pub(crate) commit: Option<Commit>,
    pub(crate) source: Option<Digest>,
    pub(crate) release: Option<Release>,
    pub(crate) overrides: Vec<(String, String)>,
    pub(crate) restore: Vec<DataWish>,
    pub(crate) adopt: Option<Adoption>,
}

impl Resolved {
    fn pushed(kind: DeploymentKind, source: Option<Digest>, overrides: Vec<(String, String)>) -> Self {
        Self { kind, commit: None, source, release: None, overrides, restore: Vec::new(), adopt: None }
    }

    fn known(kind: DeploymentKind, release: Release) -> Self {
        let source = Some(release.source.clone());
        let release = Some(release);
        Self { kind, commit: None, source, release, overrides: Vec::new(), restore: Vec::new(), adopt: None }
    }
}

/// A question of the state that may be refused.
pub(crate) type Answer<T> = Result<Result<T, ControlError>, StoreError>;

/// Returns the value, or hands the refusal on.
macro_rules! allowed {
    ($answer:expr) => {
        match $answer {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}

pub(crate) fn resolve(db: &Db<'_>, service: &Service, wish: DeploymentWish) -> Answer<Resolved> {
    let is_restart = matches!(wish, DeploymentWish::Restart);
    let mut wanted = allowed!(resolve_wish(db, service, wish)?);
    allowed!(settle(db, service, is_restart, &mut wanted)?);
    Ok(Ok(wanted))
}

fn resolve_wish(db: &Db<'_>, service: &Service, wish: DeploymentWish) -> Answer<Resolved> {
    let live = service.live.as_ref().map(|live| db.load_release(&live.release)).transpose()?;
    let live = live.ok_or_else(|| {
        let message = format!("service `{}` has no live release yet", service.name);
        conflict(message, "deploy it first: trackbed up")
    });
    Ok(Ok(match wish {
        DeploymentWish::Up { source, overrides } => {
            Resolved::pushed(DeploymentKind::Up, Some(source), overrides)
        }
        DeploymentWish::Pushed { source, commit, delivery: _ } => {
            let pushed = Resolved::pushed(DeploymentKind::Up, Some(source), Vec::new());
            Resolved { commit: Some(commit), ..pushed }
        }
        DeploymentWish::Redeploy => {
            let mut pushed = db.list_deployments(&service.id, 100)?;
            pushed.retain(|deployment| {
                matches!(deployment.kind, DeploymentKind::Up | DeploymentKind::Redeploy)
            });
            // A source or a flag that could not even be planned will not do better now.
            let planned = |deployment: &&Deployment| deployment.plan.is_some();
            let Some(newest) = pushed.iter().find(planned).or(pushed.first()).cloned() else {
                let source = allowed!(live).source;
                return Ok(Ok(Resolved::pushed(DeploymentKind::Redeploy, Some(source), Vec::new())));
            };
            let overrides = crate::stray::settings_among(&newest.overrides);
            Resolved::pushed(DeploymentKind::Redeploy, newest.source, overrides)
        }
        DeploymentWish::Rollback { version, with_data } => {
            let live = allowed!(live);
            let release = match version {
                Some(version) => db.find_release(&service.id, version)?,
                None => db.find_release_before(&service.id, live.version)?,
            };
            let Some(release) = release else {
                return Ok(Err(ControlError::NotFound(match version {
                    Some(version) => format!("service `{}` has no release v{version}", service.name),
                    None => format!("service `{}` has no release before {}", service.name, live.label()),
                })));
            };
            if db.is_collected(&release.id)? {
                return Ok(Err(ControlError::Conflict {
                    message: format!("the image of {} is no longer on the box", release.label()),
                    hint: Some(
                        "the newest releases are kept; push that version once more: trackbed up".into(),
                    ),
                }));
            }
            let restore = match with_data {
                true => allowed!(data_of(db, service, &live, &release)?),
                false => Vec::new(),
            };
            Resolved { restore, ..Resolved::known(DeploymentKind::Rollback, release) }
        }
        DeploymentWish::Restart => Resolved::known(DeploymentKind::Restart, allowed!(live)),
        DeploymentWish::Restore { volume, at } => {
            let live = allowed!(live);
            let point = allowed!(choose_point(db, service, volume.as_ref(), &at)?);
            let restore = vec![DataWish { volume: point.volume, point: point.id }];
            Resolved { restore, ..Resolved::known(DeploymentKind::Restore, live) }
        }
        DeploymentWish::Adopt { paths, volume } => {
            let live = allowed!(live);
            let volumes = db.list_volumes(&service.id)?;
            let paths = paths.iter().map(|path| adoptable(path, &volumes)).collect::<Result<Vec<_>, _>>();
            let paths = allowed!(paths.and_then(together));
            let volume = allowed!(choose_volume(service, &volumes, volume.as_ref())).id.clone();
            let links = db.list_app_links(&service.id)?;
            if let Some(path) = paths.iter().find(|path| links.iter().any(|link| link.at == **path)) {
                let message = format!("{path} is adopted already");
                return Ok(Err(ControlError::Conflict { message, hint: None }));
            }
            let adopt = Some(Adoption { paths, volume });
            Resolved { adopt, ..Resolved::known(DeploymentKind::Restart, live) }
        }
    }))
}

/// Returns the volume that is named, or the only one.
pub(crate) fn choose_volume<'a>(
    service: &Service,
    volumes: &'a [Volume],
    wanted: Option<&Name>,
) -> Result<&'a Volume, ControlError> {
    match (wanted, volumes) {
        (Some(wanted), _) => volumes.iter().find(|volume| volume.name == *wanted).ok_or_else(|| {
            ControlError::NotFound(format!("service `{}` has no volume `{wanted}`", service.name))
        }),
        (None, [only]) => Ok(only),
        (None, []) => Err(conflict(
            format!("service `{}` has no volume", service.name),
            "add one: trackbed volume add data /data",
        )),
        (None, several) => {
            let names: Vec<_> = several.iter().map(|volume| volume.name.as_str()).collect();
            let message = format!("service `{}` has several volumes: {}", service.name, names.join(", "));
            Err(conflict(message, "name the one that is meant"))
        }
    }
}

/// Returns the point that is named, when one can go back to it.
pub(crate) fn choose_point(
    db: &Db<'_>,
    service: &Service,
    volume: Option<&Name>,
    at: &PointAt,
) -> Answer<RestorePoint> {
    let volumes = db.list_volumes(&service.id)?;
    // An id says which volume is meant.
    if let PointAt::Id(id) = at {
        let found = db.find_restore_point(id)?;
        let owned = found.and_then(|point| {
            let volume = volumes.iter().find(|volume| volume.id == point.volume)?;
            Some((point, volume))
        });
        let Some((point, owner)) = owned else {
            let message = format!("service `{}` has no restore point `{id}`", service.name);
            return Ok(Err(ControlError::NotFound(message)));
        };
        if let Some(wanted) = volume.filter(|wanted| **wanted != owner.name) {
            let message = format!("restore point `{id}` is of volume `{}`, not of `{wanted}`", owner.name);
            return Ok(Err(ControlError::Conflict { message, hint: None }));
        }
        return Ok(match refuse_broken(db, &point)? {
            Some(refusal) => Err(refusal),
            None => Ok(point),
        });
    }
    let volume = allowed!(choose_volume(service, &volumes, volume));
    let points = db.list_restore_points(&volume.id)?;
    let found = match at {
        PointAt::Time(at) => db.find_point_at(&volume.id, *at)?,
        PointAt::Newest | PointAt::Id(_) => points.iter().find(|point| point.is_proven()).cloned(),
    };
    Ok(found.ok_or_else(|| match (at, points.last()) {
        (_, None) => {
            let hint = format!("take one: trackbed volume snapshot {}", volume.name);
            conflict(format!("volume `{}` has no restore point yet", volume.name), &hint)
        }
        (PointAt::Time(_), Some(oldest)) => {
            let message = format!("volume `{}` has no restore point of that time or before it", volume.name);
            conflict(message, &format!("the oldest is `{}`", oldest.id))
        }
        (PointAt::Newest | PointAt::Id(_), Some(_)) => {
            let count = points.len();
            let message = format!("none of the {count} restore points of volume `{}` is proven", volume.name);
            conflict(message, &format!("name one all the same; the newest is `{}`", points[0].id))
        }
    }))
}

/// Refuses a point that is known to be broken, and names the newest older one that is not.
pub(crate) fn refuse_broken(db: &Db<'_>, point: &RestorePoint) -> Result<Option<ControlError>, StoreError> {
    use trackbed_core::restore_point::ProofVerdict;
    let Some(ProofVerdict::Broken { reason }) = point.proof.as_ref().map(|proof| &proof.verdict) else {
        return Ok(None);
    };
    let points = db.list_restore_points(&point.volume)?;
    let place = points.iter().position(|other| other.id == point.id).unwrap_or_default();
    let older = points[place..].iter().find(|other| !other.is_broken());
    let hint = match older {
        Some(older) => format!("the newest older one that is not broken is `{}`", older.id),
        None => "no older one is left; a newer one may do: trackbed volume list".to_owned(),
    };
    Ok(Some(conflict(format!("restore point `{}` cannot be restored: {reason}", point.id), &hint)))
}

/// The data as it was when a release served last: what the deployment pinned that replaced it, just before its successor
/// started. A release that was live several times has several such moments; the last one is its newest state, and what
/// people mean by going back to it. Volumes that came later have no pin and stay as they are.
fn data_of(db: &Db<'_>, service: &Service, live: &Release, wanted: &Release) -> Answer<Vec<DataWish>> {
    if live.id == wanted.id {
        let message = format!("{} is live, so its data is the data of today", wanted.label());
        return Ok(Err(conflict(message, "to go back in time: trackbed volume restore VOLUME --at TIME")));
    }
    let volumes = db.list_volumes(&service.id)?;
    if volumes.is_empty() {
        let message = format!("service `{}` has no volume whose data could go back", service.name);
        return Ok(Err(conflict(message, "leave --with-data out")));
    }
    let replaced = db.list_deployments(&service.id, NEWEST)?.into_iter().find(|deployment| {
        deployment.state == DeploymentState::Success
            && deployment.previous.as_ref() == Some(&wanted.id)
            && deployment.release.as_ref() != Some(&wanted.id)
    });
    let without = "go back without its data (leave --with-data out), or to a point in time: \
                   trackbed volume restore VOLUME --at TIME";
    let Some(replaced) = replaced else {
        let message =
            format!("{} was never replaced while it was live, so its data was not pinned", wanted.label());
        return Ok(Err(conflict(message, without)));
    };
    let mut wishes = Vec::new();
    for pin in replaced.pins {
        let Some(volume) = volumes.iter().find(|volume| volume.id == pin.volume) else { continue };
        let Some(point) = db.find_restore_point(&pin.point)? else {
            let mut message = format!("the data of {} is no longer kept", wanted.label());
            let _ = write!(message, " for volume `{}`", volume.name);
            return Ok(Err(conflict(message, without)));
        };
        if let Some(refusal) = refuse_broken(db, &point)? {
            return Ok(Err(refusal));
        }
        wishes.push(DataWish { volume: pin.volume, point: pin.point });
    }
    if wishes.is_empty() {
        let message = format!("no data was pinned when {} was replaced", wanted.label());
        return Ok(Err(conflict(message, without)));
    }
    Ok(Ok(wishes))
}

pub(crate) fn conflict(message: String, hint: &str) -> ControlError {
    ControlError::Conflict { message, hint: Some(hint.to_owned()) }
}
