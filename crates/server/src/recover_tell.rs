//! What `trackbed recover` says of the copies that it finds, takes and passes over.

use std::collections::BTreeSet;

use trackbed_core::ports::PortError;
use trackbed_core::{RestorePointId, Timestamp};
use trackbed_offsite::{Copies, Found, Lost, RemoteFault};
use trackbed_stdx::clock;

use crate::remote_drill::point_of;

/// Objects that are named one by one.
const NAMED_MAX: usize = 20;

pub(crate) fn tell_found(copies: &Copies) {
    tracing::info!(
        from = copies.box_id(),
        number = copies.sequence(),
        taken = ago(copies.taken_at()),
        bytes = copies.size_bytes(),
        "copies found"
    );
}

/// Says which newer copies are not used, why, and what is newer there.
pub(crate) fn tell_passed_over(copies: &Copies, passed: &[Found]) {
    let here: BTreeSet<_> = copies.paths().filter_map(point_of).map(|data| data.point).collect();
    for found in passed {
        let newer = points_of(found).difference(&here).count();
        let faults = found.faults.join("; ");
        match (found.number, found.taken_at) {
            (Some(number), Some(at)) => tracing::error!(
                taken = ago(at),
                newer_restore_points = newer,
                "number {number} is not whole and is passed over: {faults}; to have what is left of it: `--at {number}`"
            ),
            _ => tracing::error!(head = found.head, "it cannot be read and is passed over: {faults}"),
        }
    }
    if !passed.is_empty() {
        tracing::warn!(
            "taking number {} instead, of {}: what changed after it is not in it",
            copies.sequence(),
            ago(copies.taken_at())
        );
    }
}

/// Says what cannot be had.
pub(crate) fn tell_lost(lost: &[Lost]) {
    for lost in lost.iter().take(NAMED_MAX) {
        tracing::error!(path = lost.path, "{}", lost.reason);
    }
    if lost.len() > NAMED_MAX {
        tracing::error!("and {} more", lost.len() - NAMED_MAX);
    }
}

/// Returns the restore points among some copies.
pub(crate) fn points_of(found: &Found) -> BTreeSet<RestorePointId> {
    found.paths.iter().filter_map(|path| point_of(path)).map(|data| data.point).collect()
}

pub(crate) fn now() -> Timestamp {
    Timestamp(clock::now_ms())
}

pub(crate) fn ago(at: Timestamp) -> String {
    let seconds = now().since(at).as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} minutes ago", seconds / 60),
        7200..172_800 => format!("{} hours ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Turns a refusal into what is printed, with its way out.
pub(crate) fn told(error: trackbed_offsite::OffsiteError) -> anyhow::Error {
    let may_pass = error.fault() == Some(RemoteFault::Passing);
    let PortError { message, hint } = error.into();
    match hint.or_else(|| may_pass.then(|| "the same command goes on where this one stopped".into())) {
        Some(hint) => anyhow::anyhow!("{message}; {hint}"),
        None => anyhow::anyhow!("{message}"),
    }
}
