//! What a look at the source finds, told with the deployment. It never fails one: what is certain to fail fails by itself.

use std::time::Duration;

use trackbed_core::deployment::{Deployment, EventKind, Step};
use trackbed_core::finding::Level;
use trackbed_core::plan::Plan;
use trackbed_core::ports::CheckRequest;
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;

use super::StepError;
use crate::control::Control;

/// A look ends by itself well before; this one catches a disk that hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// Findings that are told; a deployment is no place to read more.
const TOLD_MAX: usize = 5;

impl Control {
    /// Tells errors and warnings about the source, the worst first. Notes are left to `trackbed check`.
    pub(super) async fn tell_findings(
        &self,
        service: &Service,
        deployment: &Deployment,
        plan: &Plan,
        volumes: &[Volume],
    ) -> Result<(), StepError> {
        let request = CheckRequest {
            source: self.source_of(deployment)?,
            plan: plan.clone(),
            variables: self.owner_variables(service, Step::Plan).await?,
            mounts: volumes.iter().map(|volume| volume.mount.clone()).collect(),
        };
        let findings = match tokio::time::timeout(LIMIT, self.inner.builder.check(request)).await {
            Ok(Ok(findings)) => findings.list,
            Ok(Err(error)) => {
                tracing::warn!(service = %service.name, %error, "the source could not be looked at");
                return Ok(());
            }
            Err(_) => {
                tracing::warn!(service = %service.name, "looking at the source takes too long");
                return Ok(());
            }
        };
        let bad: Vec<_> = findings.iter().filter(|finding| finding.level != Level::Note).collect();
        for finding in bad.iter().take(TOLD_MAX) {
            self.event(deployment, EventKind::Warning, &finding.to_string()).await?;
        }
        if bad.len() > TOLD_MAX {
            let text = format!("{} more: trackbed check", bad.len() - TOLD_MAX);
            self.event(deployment, EventKind::Warning, &text).await?;
        }
        Ok(())
    }
}
