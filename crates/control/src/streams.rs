//! Faults of event streams that the edge notices: told once to the deployment that brought the live release, with the
//! likely cause, and shown by `status` for as long as that release is live.

use std::collections::HashMap;
use std::sync::Mutex;

use trackbed_core::deployment::{Deployment, DeploymentState, Event, EventKind, Step};
use trackbed_core::ports::{Source, Suspect};
use trackbed_core::route::{EdgeStats, StreamFault, StreamNotice};
use trackbed_core::service::Service;
use trackbed_core::{Digest, ServiceId};
use trackbed_store::{Db, StoreError};

use crate::control::{Control, ControlError};

/// Deployments that are looked through for the one that brought the live release.
const NEWEST: u32 = 20;

/// How often each fault had been noticed when it was looked at last. The edge counts over releases; what grew while a
/// release is live is that release's.
#[derive(Debug, Default)]
pub(crate) struct NoticesSeen {
    counts: Mutex<Option<HashMap<(String, StreamFault), u64>>>,
}

impl NoticesSeen {
    /// Returns what has grown since the last look. What was there at the first look is nobody's.
    fn grown(&self, stats: &EdgeStats) -> Vec<(String, StreamNotice)> {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        let is_first = counts.is_none();
        let counts = counts.get_or_insert_default();
        let mut grown = Vec::new();
        for (service, notices) in &stats.notices {
            for notice in notices {
                let before = counts.insert((service.clone(), notice.fault), notice.count).unwrap_or(0);
                // An edge that was started anew counts from zero again.
                if !is_first && notice.count != before && notice.count > 0 {
                    grown.push((service.clone(), notice.clone()));
                }
            }
        }
        grown
    }
}

impl Control {
    /// Tells the live deployments what the edge has noticed since the last call.
    pub(crate) async fn heed_notices(&self, stats: &EdgeStats) -> Result<(), ControlError> {
        for (service, notice) in self.inner.notices_seen.grown(stats) {
            let Ok(id) = service.parse::<ServiceId>() else { continue };
            self.tell_of_fault(id, &notice).await?;
        }
        Ok(())
    }

    async fn tell_of_fault(&self, service: ServiceId, notice: &StreamNotice) -> Result<(), ControlError> {
        let (id, fault) = (service.clone(), notice.fault);
        let found = self.inner.store.with(move |db| untold(db, &id, fault)).await?;
        let Some(source) = found.and_then(|deployment| deployment.source) else { return Ok(()) };
        let message = warning(notice, &self.suspects(source, fault).await);
        let now = self.now();
        self.inner
            .store
            .with(move |db| {
                let Some(deployment) = untold(db, &service, fault)? else { return Ok(()) };
                let kind = EventKind::Warning;
                db.add_event(
                    &deployment.id,
                    Event { sequence: 0, at: now, step: Step::Retire, kind, message },
                )?;
                Ok(())
            })
            .await?;
        self.announce();
        Ok(())
    }

    async fn suspects(&self, digest: Digest, fault: StreamFault) -> Vec<Suspect> {
        let path = self.inner.config.data_dir.join("sources").join(digest.as_str());
        self.inner.builder.suspects(&Source { digest, path }, fault).await.unwrap_or_default()
    }

    /// Returns what was told of the streams of the live release.
    pub(crate) async fn stream_warnings(&self, service: &Service) -> Result<Vec<String>, ControlError> {
        let id = service.id.clone();
        Ok(self
            .inner
            .store
            .with(move |db| {
                let Some(deployment) = live_deployment(db, &id)? else { return Ok(Vec::new()) };
                let events = db.list_events(&deployment.id, 0)?;
                let told = events
                    .into_iter()
                    .filter(|event| StreamFault::ALL.iter().any(|fault| is_about(event, *fault)));
                Ok(told.map(|event| event.message).collect())
            })
            .await?)
    }
}

/// Finds the deployment that brought the live release.
fn live_deployment(db: &Db<'_>, service: &ServiceId) -> Result<Option<Deployment>, StoreError> {
    let Some(live) = db.load_service(service)?.live else { return Ok(None) };
    let brought = |deployment: &Deployment| {
        deployment.state == DeploymentState::Success && deployment.release.as_ref() == Some(&live.release)
    };
    Ok(db.list_deployments(service, NEWEST)?.into_iter().find(brought))
}

/// Finds the deployment that brought the live release, unless it knows of a fault.
fn untold(db: &Db<'_>, service: &ServiceId, fault: StreamFault) -> Result<Option<Deployment>, StoreError> {
    let Some(deployment) = live_deployment(db, service)? else { return Ok(None) };
    let is_told = db.list_events(&deployment.id, 0)?.iter().any(|event| is_about(event, fault));
    Ok((!is_told).then_some(deployment))
}

fn is_about(event: &Event, fault: StreamFault) -> bool {
    event.kind == EventKind::Warning && event.message.starts_with(fault.symptom())
}

fn warning(notice: &StreamNotice, suspects: &[Suspect]) -> String {
    let fault = notice.fault.symptom();
    let cause = match suspects {
        [] => format!("usual causes: {}", usual(notice.fault)),
        [first, rest @ ..] => {
            let others: Vec<&str> = rest.iter().map(|suspect| suspect.place.as_str()).collect();
            let others = match others.is_empty() {
                true => String::new(),
                false => format!(" (see also {})", others.join(", ")),
            };
            format!("likely cause: {} `{}`{others}; {}", first.place, first.what, first.mend)
        }
    };
    format!("{fault} (last at {}); {cause}", notice.path)
}

/// What does it in most apps, where the code does not show it.
fn usual(fault: StreamFault) -> &'static str {
    match fault {
        StreamFault::Compressed => {
            "a middleware that compresses every answer; let it leave `text/event-stream` alone"
        }
        StreamFault::Sized => {
            "an answer that is made whole before it is sent; return a streaming response over a generator"
        }
        StreamFault::Buffered => {
            "a middleware that reads whole answers, or a generator that blocks the event loop; pass each event on as it is made"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(count: u64) -> EdgeStats {
        let notice = StreamNotice { fault: StreamFault::Buffered, path: "/chat".into(), count };
        EdgeStats { notices: [("svc".to_owned(), vec![notice])].into(), ..EdgeStats::default() }
    }

    #[test]
    fn what_an_earlier_serve_saw_is_not_told_again_and_growth_is() {
        let seen = NoticesSeen::default();
        assert_eq!(seen.grown(&stats(3)).len(), 0);
        assert_eq!(seen.grown(&stats(3)).len(), 0);
        assert_eq!(seen.grown(&stats(4)).len(), 1);
        assert_eq!(seen.grown(&stats(1)).len(), 1, "the edge was started anew");
        let seen = NoticesSeen::default();
        assert_eq!(seen.grown(&EdgeStats::default()).len(), 0);
        assert_eq!(seen.grown(&stats(1)).len(), 1);
    }

    #[test]
    fn a_warning_names_place_cause_and_mend() {
        let notice = StreamNotice { fault: StreamFault::Compressed, path: "/chat".into(), count: 1 };
        let suspect = |place: &str| Suspect {
            place: place.into(),
            what: "app.add_middleware(GZipMiddleware)".into(),
            mend: "take it out".into(),
        };
        let text = warning(&notice, &[suspect("main.py:9"), suspect("api.py:2")]);
        assert!(text.starts_with(StreamFault::Compressed.symptom()), "{text}");
        assert!(text.contains("last at /chat") && text.contains("main.py:9 `app.add"), "{text}");
        assert!(text.contains("see also api.py:2") && text.ends_with("take it out"), "{text}");
        assert!(warning(&notice, &[]).contains("usual causes"));
    }
}
