//! How many copies of each process of a service run.

use axum::Json;
use axum::extract::{Path, State};
use trackbed_api as wire;
use trackbed_control::Scaled;

use crate::api::Api;
use crate::error::ApiError;
use crate::given::Given;

pub(crate) async fn show(
    State(api): State<Api>,
    Path(names): Path<(String, String)>,
) -> Result<Json<Vec<wire::ScaledProcess>>, ApiError> {
    Ok(Json(load(&api, &names).await?))
}

pub(crate) async fn change(
    State(api): State<Api>,
    Path(names): Path<(String, String)>,
    Given(change): Given<wire::ScaleChange>,
) -> Result<Json<Vec<wire::ScaledProcess>>, ApiError> {
    let mut set = std::collections::BTreeMap::new();
    for (name, count) in change.set {
        set.insert(name.parse()?, count);
    }
    api.control.change_scale(&names.0.parse()?, &names.1.parse()?, set).await?;
    Ok(Json(load(&api, &names).await?))
}

async fn load(api: &Api, names: &(String, String)) -> Result<Vec<wire::ScaledProcess>, ApiError> {
    let all = api.control.scale(&names.0.parse()?, &names.1.parse()?).await?;
    let to_wire = |process: Scaled| wire::ScaledProcess {
        name: process.name.to_string(),
        command: process.command,
        count: process.count,
        wanted: process.wanted,
    };
    Ok(all.into_iter().map(to_wire).collect())
}
