//! What a pass does about what is at the target already: reads some of it back, and removes what nobody needs any more.

use std::collections::{BTreeMap, HashSet};

use trackbed_core::offsite::MirrorReport;

use crate::error::{OffsiteError, RemoteFault};
use crate::formats::{self, CATALOGUES, HEADS, Head, STATES};
use crate::ledger::{Held, Ledger, Published};
use crate::mirror::{Pass, measure};
use crate::seal::Measured;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

impl Pass<'_> {
    /// Reads back those objects whose last look is the longest ago. What is damaged is forgotten, so that the next pass
    /// sends it again.
    pub(crate) async fn read_back_sample(
        &self,
        ledger: &mut Ledger,
        now: i64,
        report: &mut MirrorReport,
    ) -> Result<(), OffsiteError> {
        let limits = self.remote.limits();
        let rest = i64::try_from(limits.sample_rest.as_millis()).unwrap_or(i64::MAX);
        let mut due: Vec<(String, Held)> = ledger
            .held
            .iter()
            .filter(|(_, held)| now.saturating_sub(held.read_at) >= rest)
            .map(|(path, held)| (path.clone(), held.clone()))
            .collect();
        due.sort_by_key(|(_, held)| held.read_at);
        let mut bytes = 0;
        for (path, held) in due.into_iter().take(limits.sample_objects) {
            if bytes > 0 && bytes + held.bytes > limits.sample_bytes {
                break;
            }
            bytes += held.bytes;
            report.read_back += 1;
            let expected = Measured { bytes: held.bytes, digest: held.digest.clone() };
            let wrong = match measure(self.remote, self.keys, &held.object).await {
                Ok(there) if there == expected => None,
                Ok(_) => Some("what came back is not what was sent".to_owned()),
                Err(error) => match error.fault() {
                    Some(RemoteFault::Damaged | RemoteFault::Missing) => Some(error.to_string()),
                    _ => return Err(error),
                },
            };
            let noted = match wrong {
                None => ledger.note_held(&path, Held { read_at: now, ..held }),
                Some(wrong) => {
                    report.damaged.push(format!("{}: {wrong}", held.object));
                    ledger.note_lost(&path)
                }
            };
            noted.map_err(OffsiteError::disk("write down what was read back"))?;
        }
        Ok(())
    }

    /// Removes what the box has not had for long enough, and heads, with their states and catalogues, that are older than
    /// that or stand too close together: all of the last hour stay, one an hour of the last day, one a day before.
    pub(crate) async fn prune(
        &self,
        ledger: &mut Ledger,
        current: Option<&Head>,
        now: i64,
        report: &mut MirrorReport,
    ) -> Result<(), OffsiteError> {
        let kept = i64::try_from(self.remote.limits().kept.as_millis()).unwrap_or(i64::MAX);
        let in_use: HashSet<&str> = ledger.held.values().map(|held| held.object.as_str()).collect();
        let old: Vec<String> = ledger
            .gone
            .iter()
            .filter(|(object, since)| now - **since >= kept && !in_use.contains(object.as_str()))
            .map(|(object, _)| object.clone())
            .collect();
        for object in old {
            self.remote.remove(&object).await?;
            ledger.note_removed(&object).map_err(OffsiteError::disk("write down what was removed"))?;
            report.removed += 1;
        }
        let mut heads = self.remote.list(HEADS).await?;
        heads.sort_by(|a, b| b.location.cmp(&a.location));
        let all: Vec<i64> = heads.iter().map(|meta| meta.last_modified.timestamp_millis()).collect();
        let superfluous: HashSet<usize> = superfluous(&all, now, kept).into_iter().collect();
        let mut stay = HashSet::new();
        for (index, meta) in heads.iter().enumerate() {
            if superfluous.contains(&index) {
                self.remote.remove(meta.location.as_ref()).await?;
                report.removed += 1;
            } else {
                stay.extend(formats::stem_of(HEADS, meta.location.as_ref()));
            }
        }
        for folder in [CATALOGUES, STATES] {
            let listed = self.remote.list(folder).await?;
            let listed: BTreeMap<&str, i64> = listed
                .iter()
                .map(|meta| (meta.location.as_ref(), meta.last_modified.timestamp_millis()))
                .collect();
            let named = current.map(|head| match folder {
                CATALOGUES => head.catalogue.object.as_str(),
                _ => head.state.object.as_str(),
            });
            for (object, at) in &listed {
                let Some(stem) = formats::stem_of(folder, object) else { continue };
                // One without a head may be of a pass that was interrupted, or is under way elsewhere.
                let is_young = now - at < HOUR_MS;
                if stay.contains(stem) || named == Some(*object) || is_young {
                    continue;
                }
                // A list may lose an entry: the head itself has the last word.
                if self.remote.look(&formats::object_of(HEADS, stem)).await?.is_none() {
                    self.remote.remove(object).await?;
                    report.removed += 1;
                }
            }
            let Some(named) = named.filter(|named| !listed.contains_key(named)) else { continue };
            if self.remote.look(named).await?.is_none() {
                report.damaged.push(format!("{named}: is missing"));
                self.publish_anew(ledger)?;
            }
        }
        Ok(())
    }

    /// Has the next pass write a head, also when nothing is new.
    fn publish_anew(&self, ledger: &mut Ledger) -> Result<(), OffsiteError> {
        let Some(published) = ledger.published.clone() else { return Ok(()) };
        ledger
            .note_published(Published { at: 0, ..published })
            .map_err(OffsiteError::disk("write down what was read back"))
    }
}

/// Returns which of some stamps, the newest first, need not stay. The newest always stays.
fn superfluous(stamps: &[i64], now: i64, kept: i64) -> Vec<usize> {
    let mut spans = HashSet::new();
    let mut superfluous = Vec::new();
    for (index, at) in stamps.iter().enumerate() {
        let age = now - at;
        let stays = if index == 0 || age < HOUR_MS {
            true
        } else if age >= kept {
            false
        } else if age < DAY_MS {
            spans.insert((HOUR_MS, at.div_euclid(HOUR_MS)))
        } else {
            spans.insert((DAY_MS, at.div_euclid(DAY_MS)))
        };
        if !stays {
            superfluous.push(index);
        }
    }
    superfluous
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_states_stand_further_apart_and_the_newest_always_stays() {
        const MINUTE: i64 = 60 * 1000;
        let now = 100 * DAY_MS + HOUR_MS / 2;
        // One every five minutes for ten days.
        let stamps: Vec<i64> = (0..10 * 288).map(|count| now - count * 5 * MINUTE).collect();
        let gone: HashSet<usize> = superfluous(&stamps, now, 7 * DAY_MS).into_iter().collect();
        let stay: Vec<i64> = (0..stamps.len())
            .filter(|index| !gone.contains(index))
            .map(|index| now - stamps[index])
            .collect();
        assert_eq!(stay.iter().filter(|age| **age < HOUR_MS).count(), 12);
        let (hours, days) = (22..=24, 6..=8);
        assert!(hours.contains(&stay.iter().filter(|age| (HOUR_MS..DAY_MS).contains(*age)).count()));
        assert!(days.contains(&stay.iter().filter(|age| **age >= DAY_MS).count()), "{stay:?}");
        assert!(stay.iter().all(|age| *age < 7 * DAY_MS));
        assert!(superfluous(&[now - 30 * DAY_MS], now, 7 * DAY_MS).is_empty(), "the only one stays");
    }
}
