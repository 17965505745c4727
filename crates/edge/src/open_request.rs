//! A request on its way, and the counters that it holds up.

use std::sync::Arc;
use std::time::Instant;

use trackbed_core::route::StreamFault;

use crate::service::ServiceState;
use crate::streams::OpenStream;
use crate::target::TargetState;
use crate::upstream::Upstream;

/// A request of a service, from the moment its host was found. However it ends, the counters go down: dropped before
/// [`OpenRequest::complete`] or [`OpenRequest::fail`] means that the client left (499 in nginx's words).
pub(crate) struct OpenRequest {
    service: Arc<ServiceState>,
    worker: usize,
    began: Instant,
    /// When it was last on its way to a target, parking done.
    entered: Instant,
    target: Option<Arc<TargetState>>,
    class: usize,
    ended: bool,
}

impl OpenRequest {
    pub(crate) fn new(service: Arc<ServiceState>, worker: usize) -> Self {
        let began = Instant::now();
        Self { service, worker, began, entered: began, target: None, class: 0, ended: false }
    }

    /// The request has waited for a target until now.
    pub(crate) fn resume(&mut self) {
        self.entered = Instant::now();
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

    /// When the host was found.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// When it was on its way to its target, at the latest.
    pub(crate) fn entered(&self) -> Instant {
        self.entered
    }

    /// Notes the status of the answer, whose head has just come.
    pub(crate) fn answer(&mut self, status: u16) {
        self.class = usize::from(status / 100).min(5);
        self.service.counters(self.worker).count_first_byte(self.began.elapsed());
    }

    /// Counts the request as a stream, for as long as the returned value is held.
    pub(crate) fn become_stream(&self, upstream: &Arc<Upstream>, is_websocket: bool) -> Arc<OpenStream> {
        let stream = OpenStream::new(upstream, is_websocket);
        if let Some(target) = &self.target {
            target.streams.add(&stream);
        }
        stream
    }

    /// Notes what is wrong with a stream.
    pub(crate) fn notice(&self, fault: StreamFault, path: &str) {
        self.service.notice(fault, path);
    }

    pub(crate) fn keep_idle(&self, upstream: Arc<Upstream>) {
        if let Some(target) = &self.target {
            target.keep_idle(self.worker, upstream);
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
        self.service.counters(self.worker).count_answer(class);
        if let Some(target) = &self.target {
            target.end_request();
        }
    }
}
