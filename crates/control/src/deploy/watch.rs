//! Whether a pushed commit changes anything that the service watches (`watchPatterns`).
//!
//! Files are compared, not histories: what is live may come from elsewhere, from a rewritten branch or a shallow clone. So
//! a commit that follows several skipped ones is measured by all that has changed since what is live.

use trackbed_core::deployment::{Deployment, DeploymentKind, EventKind};
use trackbed_core::plan::Plan;
use trackbed_core::ports::Source;
use trackbed_core::service::{Service, Wanted};

use super::StepError;
use crate::control::Control;

impl Control {
    /// Returns why a pushed commit is not deployed, or none when it is. What is not live, does not run or cannot be
    /// compared is no reason to skip.
    pub(super) async fn reason_to_skip(
        &self,
        service: &Service,
        deployment: &Deployment,
        plan: &Plan,
    ) -> Result<Option<String>, StepError> {
        let patterns = &plan.config.watch_patterns;
        let is_pushed = deployment.kind == DeploymentKind::Up && deployment.commit.is_some();
        let Some(live) = service.live.as_ref().filter(|live| live.given_up.is_none()) else {
            return Ok(None);
        };
        if !is_pushed || patterns.is_empty() || service.wanted != Wanted::Running {
            return Ok(None);
        }
        let release = live.release.clone();
        let digest = self.inner.store.with(move |db| db.load_release(&release)).await?.source;
        let path = self.inner.config.data_dir.join("sources").join(digest.as_str());
        let (from, to) = (Source { digest, path }, self.source_of(deployment)?);
        let changes = match self.inner.builder.changes(&from, &to, patterns).await {
            Ok(changes) => changes,
            Err(error) => {
                let text = format!("`build.watchPatterns` cannot be asked, so it is deployed: {error}");
                self.event(deployment, EventKind::Warning, &text).await?;
                return Ok(None);
            }
        };
        let patterns = patterns.join(", ");
        Ok(match (changes.files, changes.watched) {
            (0, _) => Some("no file has changed since what is live".to_owned()),
            (files, 0) => {
                let count =
                    if files == 1 { "the changed file does not match" } else { "no changed file matches" };
                Some(format!(
                    "{count} `build.watchPatterns` ({patterns}); {files} changed since what is live"
                ))
            }
            (_, _) => None,
        })
    }
}
