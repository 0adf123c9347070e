//! Is the process alive, and can it do its work? For load balancers and supervisors, so without a
//! token.

use actix_web::{get, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::problem::Problem;

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthResponse {
    /// `ok` or `ready`.
    status: &'static str,
}

/// Whether the process answers at all.
#[utoipa::path(
    tag = "operation",
    responses((status = 200, description = "It does", body = HealthResponse))
)]
#[get("/healthz")]
pub(crate) async fn show_liveness() -> web::Json<HealthResponse> {
    web::Json(HealthResponse { status: "ok" })
}

/// Whether a call could be accepted: the database is reachable, takes changes and has the schema that
/// this server needs; the engine runs, can prove that its server lives, and its last settlement got
/// through.
#[utoipa::path(
    tag = "operation",
    responses(
        (status = 200, description = "It could", body = HealthResponse),
        (status = 503, description = "It could not; see `Retry-After`"),
    )
)]
#[get("/readyz")]
pub(crate) async fn show_readiness(
    api: web::Data<Api>,
) -> Result<web::Json<HealthResponse>, Problem> {
    api.ports.door.ready().map_err(|error| {
        let message = "The engine cannot admit calls now.";
        Problem::unavailable(message, error.to_string())
    })?;
    match api.ports.operators.ready().await {
        Ok(()) => Ok(web::Json(HealthResponse { status: "ready" })),
        Err(error) => Err(Problem::unavailable(
            "The database cannot be reached, takes no changes, or its schema is not the one this server needs.",
            error.to_string(),
        )),
    }
}
