//! Single calls for operators: who holds a slot, the whole story of one call, and settling one whose
//! end will never come. Any user's. Role admin only.

mod story;

use actix_web::{get, post, web};
use callq_domain::{
    CallStatus, CallStory, HandEffect, HandSettlement, HeldCall, HeldCalls, OperatorReason,
    OperatorWord, Outcome,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::Api;
use crate::auth::Admin;
use crate::calls::CallResponse;
use crate::fields;
use crate::json::JsonBody;
use crate::params::{PathId, Query};
use crate::problem::Problem;

use self::story::{CallStoryResponse, OwnerResponse};

/// The statuses of calls that hold a slot.
const HELD: [CallStatus; 4] = [
    CallStatus::Dialing,
    CallStatus::Ringing,
    CallStatus::InProgress,
    CallStatus::Unknown,
];

/// A call that holds a slot.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeldCallResponse {
    #[serde(flatten)]
    call: CallResponse,
    /// Its owner's name.
    user_email: String,
    /// When its provider took it.
    placed_at: Option<DateTime<Utc>>,
    /// Since when it is `unknown`.
    unknown_since: Option<DateTime<Utc>>,
    /// The server that holds it.
    owner: OwnerResponse,
}

impl From<HeldCall> for HeldCallResponse {
    fn from(held: HeldCall) -> Self {
        Self {
            call: held.call.into(),
            user_email: held.user_email,
            placed_at: held.placed_at,
            unknown_since: held.unknown_since,
            owner: held.owner.into(),
        }
    }
}

/// Calls that hold a slot.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeldCallsResponse {
    /// Oldest first; those that are `unknown` are as old as their doubt.
    items: Vec<HeldCallResponse>,
    /// How many there are in all.
    total: u64,
}

impl From<HeldCalls> for HeldCallsResponse {
    fn from(held: HeldCalls) -> Self {
        Self {
            items: held.items.into_iter().map(Into::into).collect(),
            total: held.total,
        }
    }
}

/// A story as `GET /api/admin/calls/{id}` tells it.
#[must_use]
pub fn call_story_json(story: CallStory) -> Value {
    // A struct of strings, numbers and times always has a JSON form.
    serde_json::to_value(CallStoryResponse::from(story)).unwrap_or_default()
}

/// Calls as `GET /api/admin/calls` lists them.
#[must_use]
pub fn held_calls_json(held: HeldCalls) -> Value {
    serde_json::to_value(HeldCallsResponse::from(held)).unwrap_or_default()
}

/// An operator's word on a call: one of `outcome` and `not_placed`.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SettleRequest {
    /// It is over: `completed`, `busy`, `no-answer`, `failed` or `cancelled`.
    outcome: Option<String>,
    /// True: its carrier never dialled it; it goes back to its place in the queue. Only while it is
    /// `unknown`.
    #[serde(default)]
    not_placed: bool,
    /// How you know, in at most 200 characters; kept in its history.
    reason: Option<String>,
    /// To end a call that is not `unknown`.
    #[serde(default)]
    force: bool,
    /// The attempt you mean; a later one is then left alone.
    attempt: Option<i64>,
}

impl SettleRequest {
    fn into_settlement(self) -> Result<HandSettlement, Problem> {
        let word = match (self.outcome, self.not_placed) {
            (Some(name), false) => {
                let outcomes = Outcome::ALL.map(Outcome::as_str).join(", ");
                let fault = || Problem::invalid("outcome", format!("must be one of {outcomes}"));
                OperatorWord::Ended {
                    outcome: Outcome::from_name(&name).ok_or_else(fault)?,
                    force: self.force,
                }
            }
            (None, true) => OperatorWord::NotPlaced,
            (None, false) => {
                let fault = "is missing; give it, or `not_placed` as true";
                return Err(Problem::invalid("outcome", fault));
            }
            (Some(_), true) => {
                let fault = "says that it was dialled and `not_placed` that it was not; give one";
                return Err(Problem::invalid("outcome", fault));
            }
        };
        let reason = self.reason.map(|text| text.parse::<OperatorReason>());
        let attempt = |n| fields::whole_number("attempt", n, 1, u32::MAX);
        Ok(HandSettlement {
            word,
            reason: reason
                .transpose()
                .map_err(|fault| Problem::invalid("reason", fault))?,
            attempt: self.attempt.map(attempt).transpose()?,
        })
    }
}

/// Every call that holds a slot, all users, oldest first.
#[utoipa::path(
    tag = "admin",
    responses((status = 200, description = "Now", body = HeldCallsResponse))
)]
#[get("/api/admin/calls/active")]
pub(crate) async fn list_active_calls(
    api: web::Data<Api>,
    _admin: Admin,
) -> Result<web::Json<HeldCallsResponse>, Problem> {
    let held = api.ports.operators.held_calls(None, None).await?;
    Ok(web::Json(held.into()))
}

/// Which calls.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `list_held_calls` reads")]
pub(crate) struct HeldCallParams {
    /// Only `dialing`, `ringing`, `in-progress` or `unknown`.
    status: Option<String>,
    /// At most so many, 1 to 200; 50 unless given.
    limit: Option<u16>,
}

/// The first calls that hold a slot, of one status or all, oldest first. Those that are `unknown` are
/// parked: their provider was asked and has not answered clearly.
#[utoipa::path(
    tag = "admin",
    params(HeldCallParams),
    responses(
        (status = 200, description = "Now", body = HeldCallsResponse),
        (status = 400, description = "`status` or `limit` is not as it must be"),
    )
)]
#[get("/api/admin/calls")]
pub(crate) async fn list_held_calls(
    api: web::Data<Api>,
    _admin: Admin,
    query: Query,
) -> Result<web::Json<HeldCallsResponse>, Problem> {
    let must_be = format!("one of {}", HELD.map(CallStatus::as_str).join(", "));
    let held = |name: &str| HELD.into_iter().find(|status| status.as_str() == name);
    let status = query.filter("status", &must_be, held)?;
    let limit = u32::from(query.page()?.limit);
    let held = api.ports.operators.held_calls(status, Some(limit)).await?;
    Ok(web::Json(held.into()))
}

/// The whole story of any user's call, named by its id or its queue item's.
#[utoipa::path(
    tag = "admin",
    params(("id" = Uuid, Path, description = "The call, or its queue item")),
    responses(
        (status = 200, description = "It", body = CallStoryResponse),
        (status = 404, description = "No such call and no such queue item"),
    )
)]
#[get("/api/admin/calls/{id}")]
pub(crate) async fn show_any_call(
    api: web::Data<Api>,
    _admin: Admin,
    id: PathId<Uuid>,
) -> Result<web::Json<CallStoryResponse>, Problem> {
    let story = api.ports.operators.call_story(id.0).await?;
    let story = story.ok_or_else(|| Problem::not_found("call"))?;
    Ok(web::Json(story.into()))
}

/// Settles a call by an operator's word: ends it, which frees its slot, or puts it back into its
/// place in the queue. Hangs nothing up.
#[utoipa::path(
    tag = "admin",
    params(("id" = Uuid, Path, description = "The call, or its queue item")),
    request_body = SettleRequest,
    responses(
        (status = 200, description = "As it is now", body = CallStoryResponse),
        (status = 404, description = "No such call and no such queue item"),
        (status = 409, description = "It is over, waits, or is in a state that does not allow it; \
            see `current_status`"),
    )
)]
#[post("/api/admin/calls/{id}/settle")]
pub(crate) async fn settle_call(
    api: web::Data<Api>,
    admin: Admin,
    id: PathId<Uuid>,
    body: JsonBody<SettleRequest>,
) -> Result<web::Json<CallStoryResponse>, Problem> {
    let settlement = body.value.into_settlement()?;
    // The reason may name a number, which no log holds.
    let told = format!("settled by hand: {:?}", settlement.word);
    let operators = &api.ports.operators;
    match operators.settle_by_hand(id.0, settlement).await? {
        HandEffect::Ended | HandEffect::Returned => {}
        HandEffect::UnknownCall => return Err(Problem::not_found("call")),
        HandEffect::Refused(refusal) => {
            let problem = Problem::conflict(fields::sentence(&refusal));
            return Err(problem.with_current_status(refusal.status()));
        }
    }
    // The slot is given on by this server's next settlement: now.
    api.ports.door.wake();
    admin.log(&id.0.to_string(), &told);
    let unread = "The call is settled; its record could not be read.";
    match operators.call_story(id.0).await {
        Ok(Some(story)) => Ok(web::Json(story.into())),
        Ok(None) => Err(Problem::unavailable(unread, "it is not there")),
        Err(cause) => Err(Problem::unavailable(unread, cause.to_string())),
    }
}
