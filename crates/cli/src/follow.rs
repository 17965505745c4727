//! Follows a deployment to its end, through restarts of the box.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::Result;
use trackbed_api::{Deployment, EventPage};
use trackbed_client::{Client, ClientError};

use crate::progress::Progress;
use crate::session::Refusal;

/// How long the box may be gone before we give up; the deployment itself goes on when the box is back.
const BOX_GONE_MAX: Duration = Duration::from_secs(30);
/// How long to wait before asking again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// How long to wait for the rest of a build log when the deployment has ended.
const LAST_LINES_WAIT: Duration = Duration::from_secs(2);
/// How long to wait for what callers saw of a handover, when the deployment is live or has failed: a moment, or until
/// the old release has started again. What comes later is shown by `deployments`.
const PAUSE_WAIT: Duration = Duration::from_secs(10);
/// How often the spinner moves.
const TICK_EVERY: Duration = Duration::from_millis(100);

/// Shows a deployment until it ends, and returns it as it ended.
pub(crate) async fn follow(client: &Client, id: &str, progress: &Progress<'_>) -> Result<Deployment> {
    let log = BuildLog { client, id, progress, next: RefCell::new(None) };
    let ticking = async {
        loop {
            tokio::time::sleep(TICK_EVERY).await;
            progress.tick();
        }
    };
    let logging = async {
        log.show_until_ended().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = follow_events(client, id, progress, &log) => ended,
        () = logging => unreachable!("the log waits for the events"),
        () = ticking => unreachable!("ticking never ends"),
    }
}

async fn follow_events(
    client: &Client,
    id: &str,
    progress: &Progress<'_>,
    log: &BuildLog<'_>,
) -> Result<Deployment> {
    let mut after = 0;
    let mut patience = Patience::default();
    let mut live: Option<(Instant, Deployment)> = None;
    loop {
        let lost = || progress.note("lost the box; waiting for it …");
        let asked = next_page(client, id, after, &mut patience, lost);
        let page = match &live {
            None => asked.await?,
            Some((since, deployment)) => {
                let left = PAUSE_WAIT.saturating_sub(since.elapsed());
                match tokio::time::timeout(left, asked).await {
                    Ok(page) => page?,
                    Err(_) => return Ok(deployment.clone()),
                }
            }
        };
        let Some(page) = page else { continue };
        for event in page.events {
            if event.kind == "done" && event.step == "build" {
                let _ = tokio::time::timeout(LAST_LINES_WAIT, log.show_what_there_is()).await;
            }
            progress.event(&event)?;
            after = after.max(event.sequence);
        }
        let deployment = page.deployment;
        if !has_ended(&deployment) {
            continue;
        }
        // A handover that held callers has something to tell when the last of them was let go.
        let is_told = deployment.handover.as_deref() != Some("held") || deployment.finished_at.is_some();
        if is_told {
            return Ok(deployment);
        }
        let since = live.map_or_else(Instant::now, |(since, _)| since);
        live = Some((since, deployment));
    }
}

/// Waits a while for what callers saw of a handover that was undone, which is known when the old release is back.
pub(crate) async fn await_pause(client: &Client, failed: Deployment) -> Deployment {
    let parked = matches!(failed.step.as_str(), "park" | "stop" | "pin" | "swap" | "start" | "health");
    let undone = matches!(failed.status.as_str(), "failed" | "cancelled");
    if !undone || failed.hold_window_ms.is_none() || !parked {
        return failed;
    }
    let began = Instant::now();
    let mut known = failed;
    while known.pause.is_none() && began.elapsed() < PAUSE_WAIT {
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
        known = client.deployment(&known.id).await.unwrap_or(known);
    }
    known
}

/// Waits until a deployment ends, showing nothing, and returns it as it ended.
pub(crate) async fn until_ended(client: &Client, id: &str) -> Result<Deployment> {
    let mut after = 0;
    let mut patience = Patience::default();
    loop {
        let Some(page) = next_page(client, id, after, &mut patience, || {}).await? else { continue };
        after = page.events.last().map_or(after, |event| event.sequence);
        if has_ended(&page.deployment) {
            return Ok(page.deployment);
        }
    }
}

fn has_ended(deployment: &Deployment) -> bool {
    matches!(deployment.status.as_str(), "success" | "failed" | "superseded" | "cancelled" | "skipped")
}

/// Returns the next events, or none when the box did not answer and may be asked again.
async fn next_page(
    client: &Client,
    id: &str,
    after: u64,
    patience: &mut Patience,
    lost: impl FnOnce(),
) -> Result<Option<EventPage>> {
    let error = match client.events(id, after).await {
        Ok(page) => {
            *patience = Patience::default();
            return Ok(Some(page));
        }
        Err(error) => error,
    };
    if patience.lose(&error, lost).is_err() {
        let hint = "look by `trackbed deployments`; it goes on when the box is back";
        return Err(Refusal::with_hint(format!("cannot follow {id}: {error}"), hint));
    }
    tokio::time::sleep(ASK_AGAIN_AFTER).await;
    Ok(None)
}

/// How long we have been without the box.
#[derive(Default)]
pub(crate) struct Patience {
    lost_at: Option<Instant>,
}

impl Patience {
    /// Bears one failed attempt; an error when it will not pass, or has lasted too long.
    pub(crate) fn lose(&mut self, error: &ClientError, say: impl FnOnce()) -> Result<(), ()> {
        if self.lost_at.is_none() && error.is_passing() {
            say();
        }
        let lost_at = *self.lost_at.get_or_insert_with(Instant::now);
        if error.is_passing() && lost_at.elapsed() < BOX_GONE_MAX { Ok(()) } else { Err(()) }
    }
}

/// What the build says. A log that is not there is no reason to stop following.
struct BuildLog<'a> {
    client: &'a Client,
    id: &'a str,
    progress: &'a Progress<'a>,
    next: RefCell<Option<String>>,
}

impl BuildLog<'_> {
    async fn show_until_ended(&self) {
        while self.show_page().await != Page::Last {
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }

    async fn show_what_there_is(&self) {
        while self.show_page().await == Page::More {}
    }

    async fn show_page(&self) -> Page {
        let from = self.next.borrow().clone();
        let Ok(page) = self.client.build_log(self.id, from.as_deref()).await else {
            return Page::Empty;
        };
        // The other reader may have been faster.
        if *self.next.borrow() != from {
            return Page::More;
        }
        for line in &page.lines {
            self.progress.build_line(line);
        }
        self.next.replace(Some(page.next));
        match (page.ended, page.lines.is_empty()) {
            (true, true) => Page::Last,
            (_, false) => Page::More,
            (false, true) => Page::Empty,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Page {
    /// Lines came; there may be more.
    More,
    /// Nothing now.
    Empty,
    /// Nothing ever again.
    Last,
}
