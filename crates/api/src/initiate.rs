//! `POST /api/calls/initiate`: a direct call asked for, from its JSON to its answer.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, post, web};
use callq_concurrency::Initiated;
use callq_domain::{
    IdempotencyKey, KeptAnswer, NewDirectCall, QueueItemId, Refusal, Repeat, Target, UserId,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::answer::{AcceptedResponse, Answer, StartedResponse};
use crate::api::Api;
use crate::auth::Caller;
use crate::fields;
use crate::front::RequestId;
use crate::json::JsonBody;
use crate::problem::Problem;
use crate::recall::answer_from_state;

const KEY_HEADER: &str = "Idempotency-Key";

/// A year, in days and in seconds.
const YEAR_DAYS: i64 = 365;
const YEAR_SECONDS: u32 = 31_536_000;

/// A direct call that is asked for. Exactly one of `contactId` and `phoneNumber` says whom to call.
#[derive(Deserialize, ToSchema)]
pub(crate) struct InitiateRequest {
    /// Who will talk.
    #[serde(rename = "agentId")]
    agent_id: Uuid,
    /// A contact of yours.
    #[serde(rename = "contactId")]
    contact_id: Option<Uuid>,
    /// A number, E.164.
    #[serde(rename = "phoneNumber")]
    #[schema(example = "+14155552671")]
    phone_number: Option<String>,
    /// A name for the person called, at most 200 characters; the contact's own unless given.
    contact_name: Option<String>,
    /// Passed to the provider; at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    user_data: Option<Box<RawValue>>,
    /// The caller id to show, at most 64 characters; the agent's own unless given.
    #[serde(rename = "callerPhoneNumberId")]
    caller_phone_number_id: Option<String>,
    /// Not before this: RFC 3339, at most a year ahead. What is past means at once.
    #[schema(value_type = Option<String>, format = DateTime)]
    scheduled_for: Option<String>,
    /// Becomes `expired` if it has not started so many seconds after its acceptance;
    /// 1 to 31,536,000.
    expires_in: Option<i64>,
}

impl InitiateRequest {
    fn into_call(
        self,
        user_id: UserId,
        idempotency: Option<IdempotencyKey>,
        now: DateTime<Utc>,
    ) -> Result<NewDirectCall, Problem> {
        let expires_in = self
            .expires_in
            .map(|seconds| fields::whole_number("expires_in", seconds, 1, YEAR_SECONDS))
            .transpose()?;
        Ok(NewDirectCall {
            item_id: QueueItemId::new(),
            user_id,
            agent_id: self.agent_id.into(),
            target: target_of(self.contact_id, self.phone_number.as_deref())?,
            contact_name: fields::optional_text("contact_name", self.contact_name, 200)?,
            user_data: fields::object("user_data", self.user_data)?,
            caller_id: self
                .caller_phone_number_id
                .map(|id| fields::required_text("callerPhoneNumberId", id, 64))
                .transpose()?,
            scheduled_for: self
                .scheduled_for
                .map(|text| start_of(&text, now))
                .transpose()?
                .flatten(),
            expires_in: expires_in.map(|seconds| Duration::from_secs(seconds.into())),
            idempotency,
        })
    }
}

fn target_of(contact: Option<Uuid>, number: Option<&str>) -> Result<Target, Problem> {
    match (contact, number) {
        (Some(id), None) => Ok(Target::Contact(id.into())),
        (None, Some(text)) => fields::phone_number("phoneNumber", text).map(Target::Number),
        (None, None) => Err(Problem::invalid(
            "phoneNumber",
            "is required, unless `contactId` says whom to call",
        )),
        (Some(_), Some(_)) => Err(Problem::invalid(
            "phoneNumber",
            "and `contactId` exclude each other; give one of them",
        )),
    }
}

/// When to start; none for a moment that is past.
fn start_of(text: &str, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Problem> {
    let start = fields::moment("scheduled_for", text)?;
    if start - now > TimeDelta::days(YEAR_DAYS) {
        return Err(Problem::invalid(
            "scheduled_for",
            "may be at most a year ahead",
        ));
    }
    Ok((start > now).then_some(start))
}

fn key_of(request: &HttpRequest, body: &[u8]) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = request.headers().get(KEY_HEADER) else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=255).contains(&key.len()))
        .ok_or_else(|| {
            Problem::invalid(
                KEY_HEADER,
                "must be 1 to 255 visible ASCII characters or spaces",
            )
        })?;
    Ok(Some(IdempotencyKey {
        key: key.to_owned(),
        request_hash: Sha256::digest(body).into(),
    }))
}

/// Places a direct call at once if a slot is free, and queues it otherwise.
#[utoipa::path(
    tag = "calls",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters; a \
            repeat within 24 hours gets the first answer again, with `Idempotent-Replayed: true`"),
    ),
    request_body = InitiateRequest,
    responses(
        (status = 200, description = "The provider took the call", body = StartedResponse),
        (status = 202, description = "It waits, or its placement is being looked up; queued calls \
            come with `Location` and `Retry-After`", body = AcceptedResponse),
        (status = 402, description = "No credits left"),
        (status = 403, description = "The number is on a do-not-call list; `list` says on which"),
        (status = 404, description = "Agent or contact unknown, or another user's"),
        (status = 409, description = "The first request with this key is still running"),
        (status = 422, description = "This key was used with another body"),
        (status = 502, description = "The provider refused the call for good; it is recorded"),
        (status = 503, description = "It would have to wait and the queue is full, by `limit` and \
            `waiting`; or the database is away. Nothing was accepted"),
    )
)]
#[post("/api/calls/initiate")]
pub(crate) async fn initiate_call(
    api: web::Data<Api>,
    caller: Caller,
    request: HttpRequest,
    request_id: RequestId,
    body: JsonBody<InitiateRequest>,
) -> Result<HttpResponse, Problem> {
    let key = key_of(&request, &body.bytes)?;
    let call = body.value.into_call(caller.user(), key, api.now())?;
    // A client that hangs up must not stop its call half way, nor its answer from being kept.
    let answered = tokio::spawn(admit(api.clone(), call, request_id)).await;
    answered
        .map_err(|error| Problem::internal(error.to_string()))?
        .map(Answer::into_response)
}

/// Brings the call to the engine and its outcome into words, and keeps these for repeats.
async fn admit(
    api: web::Data<Api>,
    call: NewDirectCall,
    request_id: RequestId,
) -> Result<Answer, Problem> {
    let (user_id, item_id) = (call.user_id, call.item_id);
    let key = call.idempotency.clone().map(|it| it.key);
    let answer = match api.ports.door.initiate(call).await {
        Ok(initiated) => answer_to(&api, user_id, initiated).await,
        Err(error) => {
            api.metrics.count_admission("unavailable");
            Err(error.into())
        }
    }?;
    let item = item_id.to_string();
    log::info!(
        request_id = request_id.as_str(),
        item_id = item.as_str(),
        status = answer.status.as_u16(),
        replayed = answer.replayed;
        "answered a direct call"
    );
    if let Some(key) = key.filter(|_| !answer.is_kept) {
        keep(&api, user_id, key, &answer, &request_id).await;
    }
    Ok(answer)
}

async fn answer_to(api: &Api, user_id: UserId, initiated: Initiated) -> Result<Answer, Problem> {
    let now = api.now();
    let (label, answer) = match initiated {
        Initiated::Started(report) => Answer::to_placement(&report, now),
        Initiated::Queued(queued) => ("queued", Answer::queued(&queued, now)),
        Initiated::Refused(refusal) => {
            let (label, problem) = refuse(refusal);
            (label, Err(problem))
        }
        Initiated::Repeated(repeat) => ("repeated", recall(api, user_id, repeat).await),
    };
    api.metrics.count_admission(label);
    answer
}

fn refuse(refusal: Refusal) -> (&'static str, Problem) {
    match refusal {
        Refusal::UnknownUser => (
            "unknown",
            Problem::unauthorized("The token's user is no longer there."),
        ),
        Refusal::UnknownAgent => ("unknown", Problem::not_found("agent").with_field("agentId")),
        Refusal::UnknownContact => (
            "unknown",
            Problem::not_found("contact").with_field("contactId"),
        ),
        Refusal::DoNotCall(list) => ("do_not_call", Problem::do_not_call(list)),
        Refusal::NoCredits { credits } => ("no_credits", Problem::no_credits(credits)),
        Refusal::QueueFull(full) => ("queue_full", Problem::queue_full(&full)),
    }
}

async fn recall(api: &Api, user_id: UserId, repeat: Repeat) -> Result<Answer, Problem> {
    match repeat {
        Repeat::InProgress => Err(Problem::still_running()),
        Repeat::Mismatch => Err(Problem::key_reused()),
        Repeat::Answered(saved) => Answer::replayed(saved),
        Repeat::Unanswered(item_id) => answer_from_state(api, user_id, item_id).await,
    }
}

/// Keeps the answer. The call is accepted whether or not that works: a repeat that finds no
/// answer is told the item's present state instead.
async fn keep(api: &Api, user_id: UserId, key: String, answer: &Answer, request_id: &RequestId) {
    let kept = KeptAnswer {
        user_id,
        key,
        answer: answer.saved(),
    };
    if let Err(error) = api.ports.door.keep_answer(kept).await {
        let (request_id, cause) = (request_id.as_str(), error.to_string());
        log::warn!(request_id, cause = cause.as_str(); "an answer could not be kept for repeats");
    }
}
