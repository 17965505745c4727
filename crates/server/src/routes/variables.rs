//! Variables of a service.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use trackbed_api as wire;
use trackbed_core::Secret;
use trackbed_store::StoredVariable;

use crate::api::Api;
use crate::error::ApiError;
use crate::given::{Asked, Given};

#[derive(Deserialize)]
pub(crate) struct Show {
    #[serde(default)]
    show: bool,
}

pub(crate) async fn list(
    State(api): State<Api>,
    Path(names): Path<(String, String)>,
    Asked(Show { show }): Asked<Show>,
) -> Result<Json<Vec<wire::Variable>>, ApiError> {
    Ok(Json(load(&api, &names, show).await?))
}

pub(crate) async fn change(
    State(api): State<Api>,
    Path(names): Path<(String, String)>,
    Given(change): Given<wire::VariableChange>,
) -> Result<Json<Vec<wire::Variable>>, ApiError> {
    let mut set = std::collections::BTreeMap::new();
    for (name, value) in change.set {
        set.insert(name.parse()?, Secret::new(value));
    }
    let unset = change.unset.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
    let (project, service) = (names.0.parse()?, names.1.parse()?);
    api.control.change_variables(&project, &service, set, unset, change.shared).await?;
    Ok(Json(load(&api, &names, false).await?))
}

async fn load(api: &Api, names: &(String, String), show: bool) -> Result<Vec<wire::Variable>, ApiError> {
    let (shared, own) = api.control.variables(&names.0.parse()?, &names.1.parse()?).await?;
    let to_wire = |variable: StoredVariable, shared: bool| wire::Variable {
        name: variable.name.to_string(),
        value: show.then(|| variable.value.into_exposed()),
        shared,
        updated_at: variable.updated_at.0,
    };
    let shared = shared.into_iter().map(|variable| to_wire(variable, true));
    Ok(shared.chain(own.into_iter().map(|variable| to_wire(variable, false))).collect())
}
