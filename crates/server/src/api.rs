//! The API: paths, and what every handler needs.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, patch, post, put};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use trackbed_control::Control;
use trackbed_core::Host;
use trackbed_core::ports::Engine;
use trackbed_edge::EdgeClient;
use trackbed_stdx::tasks::Tasks;
use trackbed_volume::LocalVolumes;

use crate::git::GitDoor;
use crate::git::hooks::Hooks;
use crate::given::unknown;
use crate::peer::OwnUserListener;
use crate::routes::{
    backup, boxes, databases, deployments, files, git, logs, points, remotes, run, scale, services, sources,
    variables, volumes,
};

/// Largest JSON body: a change of variables may carry many long values. Sources are streams and have limits of their own.
const JSON_BODY_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) control: Control,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) edge: Arc<EdgeClient>,
    pub(crate) volumes: Arc<LocalVolumes>,
    pub(crate) git: GitDoor,
    pub(crate) hooks: Hooks,
    pub(crate) data_dir: PathBuf,
    pub(crate) domain: Host,
    /// Ends `serve`; carries whether instances shall end too.
    pub(crate) stop: mpsc::Sender<bool>,
}

/// Answers on the socket until the tasks' owner asks them to end.
pub(crate) fn serve(tasks: &Tasks, api: Api, listener: UnixListener) {
    let mut shutdown = tasks.shutdown();
    let router = router(api);
    tasks.spawn("api", async move {
        let serving = axum::serve(OwnUserListener(listener), router);
        tokio::select! {
            served = serving => if let Err(error) = served { tracing::error!(%error, "the API ended") },
            () = shutdown.wait() => {}
        }
    });
}

fn router(api: Api) -> Router {
    let service = Router::new()
        .route("/", get(services::show))
        .route("/deployments", get(deployments::list))
        .route("/stop", post(services::stop))
        .route("/cancel", post(deployments::cancel_all))
        .route("/logs", get(logs::service))
        .route("/variables", get(variables::list).patch(variables::change))
        .route("/scale", get(scale::show).patch(scale::change))
        .route("/volumes", get(volumes::list).post(volumes::add))
        .route("/volumes/{name}", patch(volumes::change).delete(volumes::remove))
        .route("/volumes/{name}/undelete", post(volumes::undelete))
        .route("/volumes/{name}/clones", post(volumes::clone))
        .route("/volumes/{name}/files", get(files::files))
        .route("/volumes/{name}/file", get(files::get).put(files::put).layer(DefaultBodyLimit::disable()))
        .route("/volumes/{name}/usage", get(files::measure))
        .route("/volumes/{name}/points", get(points::list))
        .route("/volumes/{name}/points/{point}", delete(points::forget))
        .route("/volumes/{name}/difference", get(points::difference))
        .route("/volumes/{name}/restore", post(points::restore))
        .route("/volumes/{name}/drills", post(points::drill))
        .route("/volumes/{name}/queries", post(databases::query))
        .route("/points", post(points::take))
        .route("/adoptions", post(points::adopt))
        .route("/databases", get(databases::list))
        .route("/rollback", get(points::preview_rollback))
        .route("/git", get(git::show).patch(git::change))
        .route("/git/tokens", post(git::add_token))
        .route("/git/tokens/{id}", delete(git::remove_token))
        .route("/remote", get(remotes::show).put(remotes::connect).delete(remotes::disconnect))
        .route("/remote/deliveries", post(remotes::deploy))
        .route("/live", get(git::live))
        .route("/run", post(run::run));
    let v1 = Router::new()
        .route("/box", get(boxes::show))
        .route("/box/stop", post(boxes::stop))
        .route("/backup", get(backup::show))
        .route("/backup/target", put(backup::set_target).delete(backup::remove_target))
        .route("/backup/now", post(backup::now))
        .route("/backup/key", get(backup::key))
        .route("/sources", post(sources::receive).layer(DefaultBodyLimit::disable()))
        .route("/sources/{digest}", post(sources::find))
        .route("/plans", post(sources::plan))
        .route("/deployments", post(deployments::request))
        .route("/deployments/{id}", get(deployments::show))
        .route("/deployments/{id}/cancel", post(deployments::cancel))
        .route("/deployments/{id}/events", get(deployments::events))
        .route("/deployments/{id}/log", get(logs::build))
        .route("/services", get(services::list))
        .nest("/services/{project}/{service}", service);
    Router::new()
        .nest("/v1", v1)
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(JSON_BODY_MAX_BYTES))
        .with_state(api)
}
