//! One request: finds its service, waits while the service is parked, hands it to the target and brings the answer back.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::header::{ACCEPT, CONNECTION, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use trackbed_core::route::DownReason;

use crate::answer::{Answer, Exchange};
use crate::client_io::{Answering, RequestBody, Watch};
use crate::headers::{self, ClientFacts};
use crate::host;
use crate::limits::SEND_TRIES_MAX;
use crate::open_request::OpenRequest;
use crate::pages::Fault;
use crate::table::{Routes, Way};
use crate::target::TargetState;
use crate::tunnel;
use crate::upstream::Upstream;
use crate::worker::spawn;

/// What the requests of one client connection have in common.
pub(crate) struct Client {
    pub(crate) routes: Arc<Routes>,
    pub(crate) watch: Arc<Watch>,
    /// Which worker drives the connection; idle upstream connections are kept per worker.
    pub(crate) worker: usize,
}

/// Answers a request. Dropping the future forgets the request everywhere, whatever it was waiting for.
pub(crate) async fn handle(
    client: Arc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let answering = client.watch.begin_answer();
    let request_id = headers::request_id_of(request.headers()).unwrap_or_else(|| {
        // Hex digits are always a valid value.
        HeaderValue::try_from(client.routes.next_request_id()).unwrap_or(HeaderValue::from_static("-"))
    });
    let upgrade = headers::upgrade_of(request.headers());
    let on_client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    // Kept for a page of our own: the head itself goes to the target.
    let accept = request.headers().get(ACCEPT).cloned();
    let (mut parts, body) = request.into_parts();
    let page = |fault: &Fault, answering| refuse(&client, fault, accept.as_ref(), &request_id, answering);

    let authority = match check(&client, &parts) {
        Ok(authority) => authority,
        Err(fault) => return Ok(page(&fault, answering)),
    };
    let host = host::normalize(authority.to_str().unwrap_or_default());
    let (mut open, target) = match find_target(&client.routes, &host).await {
        Found::Target(open, target) => (open, target),
        Found::Nothing(fault, open) => {
            let answer = page(&fault, answering);
            if let Some(mut open) = open {
                open.answer(answer.status());
                open.complete();
            }
            return Ok(answer);
        }
    };
    let service = || open.service_name().to_owned();
    rewrite(&mut parts);
    headers::prepare_request(
        &mut parts.headers,
        upgrade,
        &ClientFacts {
            peer: client.watch.peer(),
            authority: &authority,
            scheme: "http",
            started_ms: trackbed_stdx::clock::now_ms(),
            request_id: &request_id,
        },
    );
    let request = Request::from_parts(parts, RequestBody::new(body, Arc::clone(&client.watch)));
    let (upstream, answer) = match send(&target, client.worker, request).await {
        Ok(answered) => answered,
        Err(failure) => {
            let answer = page(&failure.fault(service()), answering);
            open.answer(answer.status());
            open.complete();
            return Ok(answer);
        }
    };
    open.answer(answer.status());
    if let (Some(on_client), StatusCode::SWITCHING_PROTOCOLS) = (on_client, answer.status()) {
        return Ok(switch(upstream, answer, open, on_client, request_id, answering));
    }
    Ok(pass_on(&client, upstream, answer, open, request_id, answering).await)
}

/// Looks at what must be right before anything else. Returns the host as the client wrote it.
fn check(client: &Client, parts: &Parts) -> Result<HeaderValue, Fault> {
    if client.watch.take_framing_conflict() {
        return Err(Fault::Framing);
    }
    if parts.method == Method::CONNECT {
        return Err(Fault::Connect);
    }
    let authority = host::authority_of(parts).map_err(|_| Fault::BadHost)?;
    HeaderValue::from_str(authority).map_err(|_| Fault::BadHost)
}

enum Found {
    Target(OpenRequest, Arc<TargetState>),
    Nothing(Fault, Option<OpenRequest>),
}

/// Finds where requests for a host go now; waits for as long as they are parked.
async fn find_target(routes: &Routes, host: &str) -> Found {
    let arrived = Instant::now();
    let mut open: Option<OpenRequest> = None;
    let mut parked = None;
    loop {
        let (service, limit) = {
            let table = routes.load();
            let Some(entry) = table.find(host) else {
                return Found::Nothing(Fault::UnknownHost { host: host.to_owned() }, open);
            };
            let request = open.get_or_insert_with(|| OpenRequest::new(Arc::clone(&entry.service)));
            let service = entry.service.name.clone();
            match &entry.way {
                Way::Serving(target) if request.enter(target) => {
                    let target = Arc::clone(target);
                    return match open {
                        Some(open) => Found::Target(open, target),
                        None => Found::Nothing(Fault::NoAnswer { service }, None),
                    };
                }
                // It has just left: the next look sees another table.
                Way::Serving(_) => continue,
                Way::Down(reason) => {
                    let fault = match reason {
                        DownReason::Starting => Fault::Starting { service },
                        DownReason::Undeployed => Fault::Undeployed { service },
                        DownReason::Stopped => Fault::Stopped { service },
                        DownReason::Crashed => Fault::Crashed { service },
                    };
                    return Found::Nothing(fault, open);
                }
                Way::Parked(limit) => (Arc::clone(&entry.service), *limit),
            }
        };
        if parked.is_none() {
            parked = service.park();
            if parked.is_none() {
                return Found::Nothing(Fault::TooManyParked { service: service.name.clone() }, open);
            }
        }
        let mut changed = pin!(service.changed.notified());
        changed.as_mut().enable();
        // A table that came between the look and the wait would otherwise be slept through.
        let still_parked = routes.load().find(host).is_some_and(|entry| matches!(entry.way, Way::Parked(_)));
        if still_parked && tokio::time::timeout_at(arrived + limit, changed).await.is_err() {
            return Found::Nothing(Fault::ParkedTooLong { service: service.name.clone() }, open);
        }
    }
}

/// Makes the request line one for an origin server (RFC 9112 §3.2.1).
fn rewrite(parts: &mut Parts) {
    parts.version = Version::HTTP_11;
    if parts.uri.authority().is_some() {
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        parts.uri = Uri::from(path);
    }
}

enum Failure {
    Unreachable,
    NoAnswer,
}

impl Failure {
    fn fault(&self, service: String) -> Fault {
        match self {
            Failure::Unreachable => Fault::Unreachable { service },
            Failure::NoAnswer => Fault::NoAnswer { service },
        }
    }
}

/// Hands the request to the target. It is sent a second time only when nothing of it was written the first time.
async fn send(
    target: &TargetState,
    worker: usize,
    mut request: Request<RequestBody>,
) -> Result<(Box<Upstream>, Response<Incoming>), Failure> {
    for attempt in 1..=SEND_TRIES_MAX {
        let idle = if attempt == 1 { target.take_idle(worker) } else { None };
        let mut upstream = match idle {
            Some(upstream) => upstream,
            None => target.dial().await.map_err(|error| {
                tracing::debug!(instance = %target.target().instance, %error, "cannot connect to target");
                Failure::Unreachable
            })?,
        };
        match upstream.send(request).await {
            Ok(answer) => return Ok((upstream, answer)),
            Err(mut error) => {
                let Some(unsent) = error.take_message() else {
                    tracing::debug!(instance = %target.target().instance, error = %error.error(), "no answer");
                    return Err(Failure::NoAnswer);
                };
                request = unsent;
            }
        }
    }
    Err(Failure::NoAnswer)
}

/// Brings a target's answer to the client, body and all.
async fn pass_on(
    client: &Client,
    upstream: Box<Upstream>,
    answer: Response<Incoming>,
    mut open: OpenRequest,
    request_id: HeaderValue,
    answering: Answering,
) -> Response<Answer> {
    let (mut parts, incoming) = answer.into_parts();
    if headers::is_event_stream(&parts.headers) {
        open.become_stream();
    }
    parts.version = Version::HTTP_11;
    headers::prepare_answer(&mut parts.headers, request_id, client.routes.is_closing());
    let ended = incoming.is_end_stream();
    let mut exchange = Exchange::new(upstream, incoming, open, client.worker);
    let body = if ended {
        poll_fn(|cx| {
            exchange.complete(cx);
            Poll::Ready(())
        })
        .await;
        Answer::empty(answering)
    } else {
        Answer::upstream(exchange, answering)
    };
    Response::from_parts(parts, body)
}

/// Lets both sides talk without us: the answer goes to the client, and a tunnel takes over once it has.
fn switch(
    upstream: Box<Upstream>,
    answer: Response<Incoming>,
    mut open: OpenRequest,
    on_client: OnUpgrade,
    request_id: HeaderValue,
    answering: Answering,
) -> Response<Answer> {
    open.become_stream();
    let (mut parts, _) = answer.into_parts();
    let protocol = parts.headers.get(UPGRADE).cloned();
    headers::prepare_answer(&mut parts.headers, request_id, false);
    if let Some(protocol) = protocol {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol);
    }
    spawn(tunnel::run(on_client, upstream, open, answering.watch()));
    Response::from_parts(parts, Answer::empty(answering))
}

/// Answers with a page of our own.
fn refuse(
    client: &Client,
    fault: &Fault,
    accept: Option<&HeaderValue>,
    request_id: &HeaderValue,
    answering: Answering,
) -> Response<Answer> {
    let (mut parts, page) = fault.answer(accept, request_id).into_parts();
    let closing = client.routes.is_closing() || *fault == Fault::Framing;
    headers::prepare_answer(&mut parts.headers, request_id.clone(), closing);
    Response::from_parts(parts, Answer::page(page, answering))
}
