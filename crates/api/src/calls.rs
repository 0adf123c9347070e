//! Call records, and hanging up.

use std::time::Duration;

use actix_web::{HttpResponse, get, post, web};
use callq_domain::{Call, CallId, CallStatus, CallTransition, ExecutionId, HangUpError};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::Api;
use crate::auth::Caller;
use crate::params::{PageParams, PageResponse, PathId, Query};
use crate::problem::Problem;

/// The longest wait for a provider to agree to end a call.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// A call, live or ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct CallResponse {
    /// Its identifier.
    id: Uuid,
    /// The queue item it serves.
    queue_id: Uuid,
    /// Its owner.
    user_id: Uuid,
    /// Who talks.
    agent_id: Uuid,
    /// Who is called, when it is a stored contact.
    contact_id: Option<Uuid>,
    /// `direct` or `campaign`.
    call_type: &'static str,
    /// The campaign that asked for it; null for a direct call.
    campaign_id: Option<Uuid>,
    /// The number dialled.
    phone_number: String,
    /// The name of the person called.
    contact_name: Option<String>,
    /// Who carries it.
    provider: String,
    /// The provider's name for it, once known.
    execution_id: Option<String>,
    /// `reserved`, `dialing`, `ringing`, `in-progress`, `unknown`, or how it ended: `completed`,
    /// `busy`, `no-answer`, `failed` or `cancelled`.
    status: &'static str,
    /// Why it ended, or why it waits.
    reason: Option<String>,
    /// Placements attempted.
    attempts: u32,
    /// When its slot was reserved.
    reserved_at: DateTime<Utc>,
    /// When it was answered.
    answered_at: Option<DateTime<Utc>>,
    /// When its slot was freed.
    ended_at: Option<DateTime<Utc>>,
    /// Talk time in whole seconds, where known.
    duration_seconds: Option<u32>,
    /// Where to read it.
    status_url: String,
}

impl From<Call> for CallResponse {
    fn from(call: Call) -> Self {
        Self {
            id: call.id.into(),
            queue_id: call.item_id.into(),
            user_id: call.user_id.into(),
            agent_id: call.agent_id.into(),
            contact_id: call.contact_id.map(Uuid::from),
            call_type: call.origin.call_type().as_str(),
            campaign_id: call.origin.campaign_id().map(Uuid::from),
            phone_number: call.phone_number.to_string(),
            contact_name: call.contact_name,
            provider: call.provider.to_string(),
            execution_id: call.execution_id.map(|id| id.to_string()),
            status: call.status.as_str(),
            reason: call.reason,
            attempts: call.attempts,
            reserved_at: call.reserved_at,
            answered_at: call.answered_at,
            ended_at: call.ended_at,
            duration_seconds: call.duration_seconds,
            status_url: status_url(call.id),
        }
    }
}

/// Where a call's record is read.
pub(crate) fn status_url(id: CallId) -> String {
    format!("/api/calls/{id}")
}

/// One entry of a call's history.
#[derive(Serialize, ToSchema)]
pub(crate) struct TransitionResponse {
    /// What it became.
    status: String,
    /// When.
    at: DateTime<Utc>,
    /// Why.
    reason: Option<String>,
    /// Which attempt, once there was one.
    attempt: Option<u32>,
}

impl From<CallTransition> for TransitionResponse {
    fn from(transition: CallTransition) -> Self {
        Self {
            status: transition.status,
            at: transition.at,
            reason: transition.reason,
            attempt: transition.attempt,
        }
    }
}

/// A call with its history.
#[derive(Serialize, ToSchema)]
pub(crate) struct CallHistoryResponse {
    #[serde(flatten)]
    call: CallResponse,
    /// Every status change, oldest first.
    history: Vec<TransitionResponse>,
}

/// The answer to a hang-up.
#[derive(Serialize, ToSchema)]
pub(crate) struct HangUpResponse {
    /// What happens now.
    message: &'static str,
    /// The call.
    #[serde(rename = "callId")]
    call_id: Uuid,
    /// Where it stood when it was asked for. Its end follows as an event.
    status: &'static str,
    /// Where to see it end.
    status_url: String,
}

/// Your calls, newest first.
#[utoipa::path(
    tag = "calls",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<CallResponse>),
        (status = 400, description = "`limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/calls")]
pub(crate) async fn list_calls(
    api: web::Data<Api>,
    caller: Caller,
    query: Query,
) -> Result<web::Json<PageResponse<CallResponse>>, Problem> {
    let page = query.page()?;
    let page = api.ports.calls.calls(caller.user(), page).await?;
    Ok(web::Json(PageResponse::of(page, CallResponse::from)))
}

/// One call with its history.
#[utoipa::path(
    tag = "calls",
    params(("id" = Uuid, Path, description = "The call")),
    responses(
        (status = 200, description = "It", body = CallHistoryResponse),
        (status = 404, description = "No such call, or another user's"),
    )
)]
#[get("/api/calls/{id}")]
pub(crate) async fn show_call(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CallId>,
) -> Result<web::Json<CallHistoryResponse>, Problem> {
    let (call, history) = find(&api, caller, id.0).await?;
    Ok(web::Json(CallHistoryResponse {
        call: call.into(),
        history: history.into_iter().map(TransitionResponse::from).collect(),
    }))
}

/// Asks the provider to end a call. The slot is freed when the provider reports the end.
#[utoipa::path(
    tag = "calls",
    params(("id" = Uuid, Path, description = "The call")),
    responses(
        (status = 202, description = "The provider agreed; its end follows", body = HangUpResponse),
        (status = 404, description = "No such call, or another user's"),
        (status = 409, description = "It is over, or not up yet; see `current_status`"),
        (status = 502, description = "The provider could not be asked, or did not agree"),
    )
)]
#[post("/api/calls/{id}/hangup")]
pub(crate) async fn hang_up_call(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CallId>,
) -> Result<HttpResponse, Problem> {
    let (call, _) = find(&api, caller, id.0).await?;
    let execution_id = execution_of(&call)?;
    let provider = api.ports.providers.get(&call.provider).ok_or_else(|| {
        let cause = format!("the provider {} is not configured", call.provider);
        Problem::provider_failed(call.id, cause)
    })?;
    let asked = tokio::time::timeout(HANG_UP_TIMEOUT, provider.hang_up(execution_id)).await;
    match asked {
        Ok(Ok(())) => Ok(HttpResponse::Accepted().json(HangUpResponse {
            message: "The provider was asked to end the call",
            call_id: call.id.into(),
            status: call.status.as_str(),
            status_url: status_url(call.id),
        })),
        Ok(Err(HangUpError::NotFound)) => {
            let message = "The provider has no such call up; its end will be recorded.";
            Err(Problem::conflict(message).with_current_status(call.status.as_str()))
        }
        Ok(Err(HangUpError::Failed(cause))) => Err(Problem::provider_failed(call.id, cause)),
        Err(_) => Err(Problem::provider_failed(call.id, "no answer in time")),
    }
}

async fn find(
    api: &Api,
    caller: Caller,
    id: CallId,
) -> Result<(Call, Vec<CallTransition>), Problem> {
    let found = api.ports.calls.call(caller.user(), id).await?;
    found.ok_or_else(|| Problem::not_found("call"))
}

/// The provider's name for a call that is up.
fn execution_of(call: &Call) -> Result<&ExecutionId, Problem> {
    let message = match (call.status, &call.execution_id) {
        (CallStatus::Ended(outcome), _) => format!("The call is over: {}.", outcome.as_str()),
        (_, Some(execution_id)) => return Ok(execution_id),
        (CallStatus::Unknown, None) => {
            "The provider's answer was lost and is being looked up; try again.".to_owned()
        }
        (_, None) => "The provider has not taken the call yet; try again.".to_owned(),
    };
    Err(Problem::conflict(message).with_current_status(call.status.as_str()))
}
