//! One request: finds its service, waits while the service is parked, hands it to the target and brings the answer back.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::buffers::Kept;
use crate::exchange::{Ended, Exchange};
use crate::host;
use crate::limits::SEND_TRIES_MAX;
use crate::open_request::OpenRequest;
use crate::pages::{Fault, Form};
use crate::request::{Refusal, Request, hex};
use crate::service::ServiceState;
use crate::table::{Entry, Routes, Way};
use crate::target::TargetState;
use crate::tunnel::{Switched, Tunnel};
use crate::upstream::Upstream;
use crate::watch::Watch;

/// What the connections of one worker have in common.
pub(crate) struct Client {
    pub(crate) routes: Arc<Routes>,
    /// Which worker drives them; idle upstream connections are kept per worker.
    pub(crate) worker: usize,
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another request may come.
    Request,
    /// It ends, once the client has seen the answer.
    Linger,
    /// It ends.
    Close,
}

/// A client's connection and its buffers.
pub(crate) struct Side<'a> {
    pub(crate) client: &'a Client,
    pub(crate) watch: &'a Arc<Watch>,
    /// Bytes read and not used yet.
    pub(crate) inbuf: Vec<u8>,
    /// The head for the target.
    pub(crate) head: Vec<u8>,
}

impl Side<'_> {
    /// Answers a request whose head is written. Dropping the future forgets the request everywhere, whatever it was
    /// waiting for.
    pub(crate) async fn answer(&mut self, request: &Request) -> Next {
        let authority = String::from_utf8_lossy(&self.head[request.authority.clone()]);
        match self.find(&host::normalize(&authority)).await {
            Found::Target(open, target) if target.site().is_some() => {
                // Boxed, because every connection has room for it and only those of static sites need it.
                Box::pin(self.serve_file(request, open, &target)).await
            }
            Found::Target(open, target) => self.forward(request, open, &target).await,
            Found::Nothing(fault, open) => self.refuse(request, &fault, open).await,
            // Nothing was sent, nothing is answered.
            Found::ClientLeft => Next::Close,
        }
    }

    /// Finds where requests for a host go now; waits for as long as they are parked.
    async fn find(&self, host: &str) -> Found {
        let routes = &self.client.routes;
        let mut open: Option<OpenRequest> = None;
        let mut place = None;
        loop {
            let (service, deadline) = {
                let table = routes.load();
                let Some(entry) = table.find(host) else {
                    return Found::Nothing(Fault::UnknownHost { host: host.to_owned() }, open);
                };
                let new = || OpenRequest::new(Arc::clone(&entry.service), self.client.worker);
                let mut request = open.take().unwrap_or_else(new);
                match &entry.way {
                    Way::Serving(target) if request.enter(target) => {
                        return Found::Target(request, Arc::clone(target));
                    }
                    Way::Down(reason) => {
                        let fault = Fault::of_service(*reason, entry.service.name.clone());
                        return Found::Nothing(fault, Some(request));
                    }
                    // It has just left: the next look sees another table.
                    Way::Serving(_) => {
                        open = Some(request);
                        continue;
                    }
                    Way::Parked(limit) => {
                        let deadline = request.began() + *limit;
                        open = Some(request);
                        (Arc::clone(&entry.service), deadline)
                    }
                }
            };
            if place.is_none() {
                place = service.park(self.head.len() + self.inbuf.len());
            }
            let Some(parked) = &place else {
                return Found::Nothing(Fault::TooManyParked { service: service.name.clone() }, open);
            };
            // Boxed, because every connection has room for this wait and few ever wait.
            match Box::pin(self.wait_parked(host, &service, deadline)).await {
                Waited::Changed => {
                    if let Some(open) = &mut open {
                        open.resume();
                    }
                }
                Waited::TooLong => {
                    parked.refuse();
                    return Found::Nothing(Fault::ParkedTooLong { service: service.name.clone() }, open);
                }
                Waited::ClientLeft => return Found::ClientLeft,
            }
        }
    }

    /// Waits for another table while the requests of a host are parked.
    async fn wait_parked(&self, host: &str, service: &ServiceState, deadline: Instant) -> Waited {
        let mut changed = pin!(service.changed.notified());
        changed.as_mut().enable();
        // A table that came between the look and the wait would otherwise be slept through.
        let is_parked = |entry: &Entry| matches!(entry.way, Way::Parked(_));
        if !self.client.routes.load().find(host).is_some_and(is_parked) {
            return Waited::Changed;
        }
        tokio::select! {
            biased;
            () = changed => Waited::Changed,
            () = tokio::time::sleep_until(deadline.into()) => Waited::TooLong,
            () = poll_fn(|cx| self.watch.link.poll_closed(cx)) => Waited::ClientLeft,
        }
    }

    /// Hands the request to the target. It is sent a second time only when nothing of it can have been done.
    async fn forward(&mut self, request: &Request, mut open: OpenRequest, target: &TargetState) -> Next {
        let worker = self.client.worker;
        let mut attempt = 0;
        let fault = loop {
            attempt += 1;
            let idle = if attempt == 1 { target.take_idle(worker, request.is_repeatable) } else { None };
            let upstream = match idle {
                Some(upstream) => upstream,
                None => match Box::pin(target.dial()).await {
                    Ok(upstream) => upstream,
                    Err(error) => {
                        tracing::debug!(instance = %target.target().instance, %error, "cannot connect to target");
                        break Fault::Unreachable { service: open.service_name().to_owned() };
                    }
                },
            };
            let (ended, switched) = {
                let Side { client, watch, inbuf, head } = self;
                let mut exchange =
                    Exchange::new(&client.routes, watch, &upstream, request, &mut open, inbuf, head);
                let ended = poll_fn(|cx| exchange.poll(cx)).await;
                (ended, exchange.into_switched())
            };
            if let Some(switched) = switched {
                return self.tunnel(&upstream, open, switched).await;
            }
            let service = || open.service_name().to_owned();
            let fault = match ended {
                Ended::Answered { reusable, keeps_client, unread } => {
                    if reusable {
                        open.keep_idle(upstream);
                    }
                    open.complete();
                    return match (keeps_client, unread) {
                        (true, _) => Next::Request,
                        (false, true) => Next::Linger,
                        (false, false) => Next::Close,
                    };
                }
                Ended::Switched | Ended::ClientLeft => return Next::Close,
                Ended::Broken { unnoticed } => {
                    open.fail();
                    if unnoticed {
                        self.watch.link.end_badly();
                    }
                    return Next::Close;
                }
                Ended::NoAnswer { untouched: true } if attempt < SEND_TRIES_MAX => continue,
                Ended::NoAnswer { .. } => Fault::NoAnswer { service: service() },
                Ended::BadAnswer => Fault::BadAnswer { service: service() },
                Ended::BadBody => Fault::BadChunks,
            };
            tracing::debug!(instance = %target.target().instance, ?ended, "no answer to pass on");
            break fault;
        };
        self.refuse(request, &fault, Some(open)).await
    }

    /// Lets both sides talk without us.
    async fn tunnel(&mut self, upstream: &Arc<Upstream>, open: OpenRequest, switched: Switched) -> Next {
        self.head = Vec::new();
        let early = std::mem::take(&mut self.inbuf);
        let mut tunnel = Tunnel::new(self.watch, upstream, switched, &early);
        drop(early);
        poll_fn(|cx| tunnel.poll(cx)).await;
        open.complete();
        Next::Close
    }

    /// Answers with a page of our own.
    pub(crate) async fn refuse(
        &mut self,
        request: &Request,
        fault: &Fault,
        open: Option<OpenRequest>,
    ) -> Next {
        let next = if matches!(fault, Fault::BadChunks) { Next::Linger } else { self.next_after(request) };
        let id = String::from_utf8_lossy(&self.head[request.id.clone()]).into_owned();
        let form = Form {
            wants_page: request.wants_page,
            is_head: request.is_head,
            closes: next != Next::Request,
            id: &id,
        };
        let mut page = Vec::new();
        let status = fault.write(&form, &mut page);
        if let Some(mut open) = open {
            open.answer(status);
            open.complete();
        }
        if self.say(&page).await { next } else { Next::Close }
    }

    /// Answers a request that is none, or that must not be forwarded.
    pub(crate) async fn refuse_head(&mut self, refusal: &Refusal) {
        let id = hex(self.client.routes.next_request_id());
        let id = String::from_utf8_lossy(&id);
        let form = Form { wants_page: refusal.wants_page, is_head: refusal.is_head, closes: true, id: &id };
        let mut page = Vec::new();
        refusal.fault.write(&form, &mut page);
        self.say(&page).await;
    }

    /// Writes all of it, or finds that the client has gone.
    async fn say(&mut self, bytes: &[u8]) -> bool {
        let mut kept = Kept::default();
        let mut begun = false;
        let link = &self.watch.link;
        poll_fn(|cx| {
            if !begun {
                begun = true;
                if kept.write(link, cx, &[IoSlice::new(bytes)]).is_err() {
                    return Poll::Ready(false);
                }
            }
            let left = kept.left();
            let flushed = kept.poll_flush(link, cx);
            self.watch.note_progress(left, kept.left());
            flushed.map(|flushed| flushed.is_ok())
        })
        .await
    }
}

enum Found {
    Target(OpenRequest, Arc<TargetState>),
    Nothing(Fault, Option<OpenRequest>),
    ClientLeft,
}

/// How the wait of a parked request ended.
enum Waited {
    /// There is another table.
    Changed,
    TooLong,
    ClientLeft,
}
