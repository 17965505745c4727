//! A request on its way, and the counters that it holds up.

use std::sync::Arc;

use crate::table::ServiceState;
use crate::target::TargetState;
use crate::upstream::Upstream;

/// A request of a service, from the moment its host was found. However it ends, the counters go down: dropped before
/// [`OpenRequest::complete`] or [`OpenRequest::fail`] means that the client left (499 in nginx's words).
pub(crate) struct OpenRequest {
    service: Arc<ServiceState>,
    target: Option<Arc<TargetState>>,
    is_stream: bool,
    class: usize,
    ended: bool,
}

impl OpenRequest {
    pub(crate) fn new(service: Arc<ServiceState>) -> Self {
        Self { service, target: None, is_stream: false, class: 0, ended: false }
    }

    /// Counts the request in at a target. Returns false when the target has just left the table: look again.
    pub(crate) fn enter(&mut self, target: &Arc<TargetState>) -> bool {
        let begun = target.begin_request();
        if begun {
            self.target = Some(Arc::clone(target));
        }
        begun
    }

    pub(crate) fn service_name(&self) -> &str {
        &self.service.name
    }

    /// Notes the status of the answer.
    pub(crate) fn answer(&mut self, status: http::StatusCode) {
        self.class = usize::from(status.as_u16() / 100).min(5);
    }

    /// Counts the request as a stream.
    pub(crate) fn become_stream(&mut self) {
        if let Some(target) = &self.target
            && !self.is_stream
        {
            target.begin_stream();
            self.is_stream = true;
        }
    }

    pub(crate) fn keep_idle(&self, worker: usize, upstream: Box<Upstream>) {
        if let Some(target) = &self.target {
            target.keep_idle(worker, upstream);
        }
    }

    /// Ends a request that was answered to the end.
    pub(crate) fn complete(mut self) {
        self.ended = true;
    }

    /// Ends a request whose target failed it in the middle of the answer.
    pub(crate) fn fail(mut self) {
        self.class = 5;
        self.ended = true;
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let class = if self.ended { self.class } else { 0 };
        self.service.count_answer(class);
        if let Some(target) = &self.target {
            if self.is_stream {
                target.end_stream();
            }
            target.end_request();
        }
    }
}
