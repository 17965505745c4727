//! Data that a failed deployment may have changed and that could not be put back: what may be deployed all the same.

use trackbed_core::deployment::{DataWish, DeploymentKind};
use trackbed_core::service::{Live, Service};
use trackbed_store::{Db, StoreError};

use crate::resolve::{Answer, Resolved, conflict};

/// Why a release is not started by itself whose owner has taken the data as it is, until it has started once.
const ACCEPTED: &str = "its data could not be put back after a deployment that failed; trackbed restart, asked for since, \
                        takes the data as it is";

/// Lets a wish settle such data, or refuses it: a restart takes the data as it is, a restore brings all of it back.
pub(crate) fn settle(db: &Db<'_>, service: &Service, is_restart: bool, wanted: &mut Resolved) -> Answer<()> {
    let Some(live) = service.live.clone().filter(|live| !live.unsettled.is_empty()) else {
        return Ok(Ok(()));
    };
    if is_restart {
        // Asked for by name, and after the failure: the data as it is counts from now on.
        let given_up = live.given_up.as_ref().map(|_| ACCEPTED.to_owned());
        db.set_live(&service.id, &Live { unsettled: Vec::new(), given_up, ..live })?;
    } else if wanted.kind == DeploymentKind::Restore {
        // The owner named one volume; the others go back to where they could not be put.
        for before in live.unsettled {
            if wanted.restore.iter().all(|wish| wish.volume != before.volume) {
                wanted.restore.push(before);
            }
        }
    } else if let Some((message, hint)) = refuse_unsettled(db, service, &wanted.restore)? {
        return Ok(Err(conflict(message, &hint)));
    }
    Ok(Ok(()))
}

/// Says why nothing is deployed on data that a failed deployment may have changed, and the ways out. None when all of it
/// goes back with the wishes.
pub(crate) fn refuse_unsettled(
    db: &Db<'_>,
    service: &Service,
    wishes: &[DataWish],
) -> Result<Option<(String, String)>, StoreError> {
    let unsettled = service.live.iter().flat_map(|live| &live.unsettled);
    let mut left = unsettled.filter(|before| wishes.iter().all(|wish| wish.volume != before.volume));
    let Some(first) = left.next() else { return Ok(None) };
    let volumes = db.list_volumes(&service.id)?;
    let Some(volume) = volumes.iter().find(|volume| volume.id == first.volume) else { return Ok(None) };
    let name = &volume.name;
    Ok(Some((
        format!(
            "volume `{name}` holds what a failed deployment may have left, because its data could not be put back"
        ),
        format!(
            "go back to the data from before: trackbed volume restore {name} --at {}, or to another restore point; \
             or take the data as it is: trackbed restart",
            first.point
        ),
    )))
}
