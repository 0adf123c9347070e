//! How fast each provider may be sent calls. Role admin only.

use actix_web::{get, put, web};
use callq_domain::{CallRate, ProviderName, ProviderPace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::auth::Admin;
use crate::fields;
use crate::json::JsonBody;
use crate::problem::Problem;

/// A provider's pace.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProviderPaceResponse {
    /// Which.
    provider: String,
    /// Calls a second, direct and campaign, by all servers together; null for any number.
    calls_per_second: Option<f64>,
}

impl From<ProviderPace> for ProviderPaceResponse {
    fn from(pace: ProviderPace) -> Self {
        Self {
            provider: pace.provider.to_string(),
            calls_per_second: Some(pace.calls_per_second.get()),
        }
    }
}

/// Those that keep one.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProviderPacesResponse {
    /// By name.
    items: Vec<ProviderPaceResponse>,
}

/// A pace to keep.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ProviderPaceRequest {
    /// Calls a second, 0.001 to 1,000; null for any number. Must be there.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true)]
    calls_per_second: Option<f64>,
}

/// The providers that keep a pace.
#[utoipa::path(
    tag = "admin",
    responses((status = 200, description = "By name", body = ProviderPacesResponse))
)]
#[get("/api/admin/providers")]
pub(crate) async fn list_provider_paces(
    api: web::Data<Api>,
    _admin: Admin,
) -> Result<web::Json<ProviderPacesResponse>, Problem> {
    let paces = api.ports.operators.provider_paces().await?;
    let items = paces.into_iter().map(Into::into).collect();
    Ok(web::Json(ProviderPacesResponse { items }))
}

/// Has a provider sent at most so many calls in a second, by all servers together. It holds at once,
/// and for calls that wait already.
#[utoipa::path(
    tag = "admin",
    params(("provider" = String, Path, description = "Its name, as agents and `CALL_PROVIDER` have it")),
    request_body = ProviderPaceRequest,
    responses(
        (status = 200, description = "As it is now", body = ProviderPaceResponse),
        (status = 400, description = "`provider` or `calls_per_second` is not as it must be"),
    )
)]
#[put("/api/admin/providers/{provider}")]
pub(crate) async fn set_provider_pace(
    api: web::Data<Api>,
    admin: Admin,
    provider: web::Path<String>,
    body: JsonBody<ProviderPaceRequest>,
) -> Result<web::Json<ProviderPaceResponse>, Problem> {
    let name = ProviderName::new(&provider)
        .ok_or_else(|| Problem::invalid("provider", "must be 1 to 32 of a-z, 0-9, - and _"))?;
    let pace = body.value.calls_per_second;
    let pace = pace
        .map(|calls| fields::call_rate("calls_per_second", calls))
        .transpose()?;
    let operators = &api.ports.operators;
    operators.set_provider_pace(name.clone(), pace).await?;
    api.ports.door.wake();
    let calls_per_second = pace.map(CallRate::get);
    admin.log(
        &format!("provider {name}"),
        &format!("calls per second {calls_per_second:?}"),
    );
    Ok(web::Json(ProviderPaceResponse {
        provider: name.to_string(),
        calls_per_second,
    }))
}
