//! Status events from providers. Signed, so without a token; answered only once durable.

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, post, web};
use callq_domain::{CallProvider, EventError, EventHeaders, EventRejection, ProviderName};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::json::RawBody;
use crate::problem::Problem;

/// The answer to an event that is stored.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventResponse {
    /// Always true.
    received: bool,
}

/// A status event, as the contract's `http` provider sends it. Other providers have their own form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what a provider reads by itself")]
pub(crate) struct EventRequest {
    /// The provider's id for this event. A repeat changes nothing.
    event_id: String,
    /// The call it is about.
    call_id: uuid::Uuid,
    /// The provider's name for the call.
    execution_id: Option<String>,
    /// `initiated`, `ringing`, `in-progress`, `completed`, `busy`, `no-answer`, `failed` or
    /// `cancelled`.
    status: String,
    /// When it happened, RFC 3339.
    occurred_at: chrono::DateTime<chrono::Utc>,
    /// Talk time in whole seconds.
    duration_seconds: Option<u32>,
    /// The provider's words for why.
    reason: Option<String>,
}

struct Headers<'a>(&'a HeaderMap);

impl EventHeaders for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }
}

/// Takes a provider's event. 200 means that it is durable.
#[utoipa::path(
    tag = "webhooks",
    params(("provider" = String, Path, description = "The provider's name")),
    request_body = EventRequest,
    responses(
        (status = 200, description = "The event is stored, or was before", body = EventResponse),
        (status = 401, description = "The signature is missing, wrong or stale"),
        (status = 404, description = "No such provider, or no such call"),
    )
)]
#[post("/api/webhooks/{provider}")]
pub(crate) async fn receive_event(
    api: web::Data<Api>,
    request: HttpRequest,
    body: RawBody,
) -> Result<web::Json<EventResponse>, Problem> {
    let provider = provider_of(&api, &request)?;
    let event = provider
        .read_event(&Headers(request.headers()), &body.0)
        .map_err(|rejection| match rejection {
            EventRejection::Unauthentic(cause) => Problem::bad_signature(cause),
            EventRejection::Malformed(fault) => {
                Problem::malformed(format!("The event cannot be read: {fault}."))
            }
        })?;
    match api.ports.door.accept(event).await {
        Ok(_) => Ok(web::Json(EventResponse { received: true })),
        Err(EventError::UnknownCall(_)) => Err(Problem::not_found("call")),
        Err(EventError::Unavailable(cause)) => Err(Problem::unavailable(
            "The event could not be stored; send it again.",
            cause,
        )),
    }
}

fn provider_of<'a>(
    api: &'a Api,
    request: &HttpRequest,
) -> Result<&'a std::sync::Arc<dyn CallProvider>, Problem> {
    ProviderName::new(request.match_info().query("provider"))
        .and_then(|name| api.ports.providers.get(&name))
        .ok_or_else(|| Problem::not_found("provider"))
}
