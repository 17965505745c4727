//! The server: settings checked, routes wired, and an end that lets replies finish.

mod answers;
mod anthropic;
mod auth;
mod chat;
mod database;
mod health;
mod model;
mod pages;
mod session;
mod settings;
mod sign_in;
mod threads;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::database::{Database, DatabaseUnavailable};
use crate::model::Model;
use crate::session::Sessions;
use crate::settings::{Settings, SettingsError};
use crate::sign_in::Provider;

/// The status of a process that could not start, as of the Python edition.
const EXIT_CANNOT_BOOT: u8 = 3;
/// A reply under way at shutdown may finish; platforms' own patience is often 30 seconds.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);
/// After that: for storing replies that were cut short, and for clients to take the rest.
const SHUTDOWN_REST: Duration = Duration::from_secs(5);

/// What every request may use.
pub struct App {
    settings: Settings,
    database: Database,
    model: Model,
    providers: Vec<Provider>,
    sessions: Sessions,
    /// The replies under way.
    replies: TaskTracker,
    /// Tells them that the time for finishing is over.
    stopping: CancellationToken,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_CANNOT_BOOT)
        }
    }
}

fn start() -> Result<(), Box<dyn Error>> {
    let settings = Settings::load().map_err(|SettingsError(text)| text)?;
    let database = Database::open(&settings.database).map_err(|DatabaseUnavailable(reason)| reason)?;
    let app = Arc::new(App {
        database,
        model: Model::choose(&settings)?,
        providers: Provider::of(&settings)?,
        sessions: Sessions::new(&settings),
        replies: TaskTracker::new(),
        stopping: CancellationToken::new(),
        settings,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(app))
}

async fn serve(app: Arc<App>) -> Result<(), Box<dyn Error>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let address = (app.settings.host, app.settings.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {}:{}: {error}", address.0, address.1))?;
    eprintln!("assistant listens on http://{}", listener.local_addr()?);
    let asked_to_stop = CancellationToken::new();
    let server = axum::serve(listener, router(Arc::clone(&app)))
        .with_graceful_shutdown(asked_to_stop.clone().cancelled_owned());
    let server = app.replies.spawn(server.into_future());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    eprintln!("stopping; replies under way may finish");
    asked_to_stop.cancel();
    app.replies.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, app.replies.wait()).await.is_err() {
        app.stopping.cancel();
        if tokio::time::timeout(SHUTDOWN_REST, app.replies.wait()).await.is_err() {
            server.abort();
        }
    }
    Ok(())
}

fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/", get(pages::chat))
        .route("/health", get(health::health))
        .route("/threads", post(threads::create).get(threads::list))
        .route("/threads/{id}", get(threads::read))
        .route("/threads/{id}/chat", post(chat::chat))
        .route("/auth/me", get(auth::me))
        .route("/auth/logout", post(auth::logout))
        .route("/auth/{provider}/login", get(auth::login))
        .route("/auth/{provider}/callback", get(auth::callback))
        .method_not_allowed_fallback(answers::method_not_allowed)
        .fallback(answers::not_found);
    if !app.settings.is_production {
        router = router.route("/docs", get(pages::docs)).route("/openapi.json", get(pages::openapi));
    }
    if !app.settings.frontend_origins.is_empty() {
        router = router.layer(cors(&app.settings.frontend_origins));
    }
    router.with_state(app)
}

fn cors(origins: &[String]) -> CorsLayer {
    let cors =
        CorsLayer::new().allow_methods([Method::GET, Method::POST]).allow_headers([header::CONTENT_TYPE]);
    if origins.iter().any(|origin| origin == "*") {
        return cors.allow_origin(AllowOrigin::any());
    }
    let listed = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    cors.allow_origin(AllowOrigin::list(listed)).allow_credentials(true)
}
