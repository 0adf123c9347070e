//! The answers to a direct call: their bodies, their headers, and how one is sent again.

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use callq_domain::{CallId, ExecutionId, PlacementReport, Queued, SavedAnswer};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::calls::status_url;
use crate::problem::{PROBLEM_JSON, Problem};
use crate::wait::TicketResponse;

const REPLAYED: &str = "Idempotent-Replayed";

/// The provider took the call.
#[derive(Serialize, ToSchema)]
pub(crate) struct StartedResponse {
    /// Always true.
    success: bool,
    /// The call.
    #[serde(rename = "callId")]
    call_id: Uuid,
    /// The provider's name for it.
    #[serde(rename = "executionId")]
    execution_id: String,
    /// For people.
    message: &'static str,
}

/// The call was accepted and has not started yet.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the three shapes, each sent as itself")]
pub(crate) enum AcceptedResponse {
    /// It waits.
    Queued(QueuedResponse),
    /// It has a slot; what became of its placement is not known yet.
    Pending(PendingResponse),
    /// A repeat of a request whose call is over without having been placed.
    Over(OverResponse),
}

/// It waits.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueuedResponse {
    /// For people.
    message: &'static str,
    /// Why it could not start at once.
    reason: String,
    /// Where it stands.
    queue: TicketResponse,
}

/// It has a slot; what became of its placement is not known yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct PendingResponse {
    /// For people.
    message: &'static str,
    /// The call.
    #[serde(rename = "callId")]
    call_id: Uuid,
    /// `unknown` while a lost answer is being looked up.
    status: &'static str,
    /// Where to ask how it is.
    status_url: String,
}

/// A repeat of a request whose call is over without having been placed.
#[derive(Serialize, ToSchema)]
pub(crate) struct OverResponse {
    /// For people.
    message: &'static str,
    /// How it ended.
    status: &'static str,
    /// Where to read it.
    status_url: String,
}

/// An answer that was given, or is about to be.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    body: String,
    location: Option<String>,
    retry_after: Option<u64>,
    /// Whether it answers a repeat.
    pub(crate) replayed: bool,
    /// Whether it came from where answers are kept.
    pub(crate) is_kept: bool,
}

impl Answer {
    fn new(status: StatusCode, body: String) -> Self {
        Self {
            status,
            body,
            location: None,
            retry_after: None,
            replayed: false,
            is_kept: false,
        }
    }

    fn of(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        serde_json::to_string(body)
            .map(|body| Self::new(status, body))
            .map_err(|error| Problem::internal(error.to_string()))
    }

    /// 200: the provider took the call.
    pub(crate) fn started(call_id: CallId, execution: &ExecutionId) -> Result<Self, Problem> {
        Self::of(
            StatusCode::OK,
            &StartedResponse {
                success: true,
                call_id: call_id.into(),
                execution_id: execution.to_string(),
                message: "Call initiated successfully",
            },
        )
    }

    /// 202: it waits.
    pub(crate) fn queued(queued: &Queued, now: DateTime<Utc>) -> Result<Self, Problem> {
        let (queue, retry_after) = TicketResponse::of(queued, now);
        let location = format!("/api/queue/{}", queued.item_id);
        let body = QueuedResponse {
            message: "Call queued successfully",
            reason: queued.reason.to_string(),
            queue,
        };
        let mut answer = Self::of(StatusCode::ACCEPTED, &body)?;
        answer.location = Some(location);
        answer.retry_after = Some(retry_after);
        Ok(answer)
    }

    /// 202: it has a slot; what became of its placement is not known yet.
    pub(crate) fn pending(
        call_id: CallId,
        status: &'static str,
        message: &'static str,
    ) -> Result<Self, Problem> {
        Self::of(
            StatusCode::ACCEPTED,
            &PendingResponse {
                message,
                call_id: call_id.into(),
                status,
                status_url: status_url(call_id),
            },
        )
    }

    /// 202: it was accepted, and is over without having been placed.
    pub(crate) fn over(status: &'static str, status_url: String) -> Result<Self, Problem> {
        Self::of(
            StatusCode::ACCEPTED,
            &OverResponse {
                message: "The call was accepted before and is over",
                status,
                status_url,
            },
        )
    }

    /// 502: the provider refused it for good.
    pub(crate) fn refused(call_id: CallId, reason: &str) -> Self {
        let problem = Problem::provider_refused(call_id, reason);
        Self::new(StatusCode::BAD_GATEWAY, problem.body())
    }

    /// The answer to a call that got a slot at once, after its metrics label.
    pub(crate) fn to_placement(
        report: &PlacementReport,
        now: DateTime<Utc>,
    ) -> (&'static str, Result<Self, Problem>) {
        match report {
            PlacementReport::Placed {
                call_id,
                execution_id,
            } => ("started", Self::started(*call_id, execution_id)),
            PlacementReport::Refused { call_id, reason } => {
                ("provider_refused", Ok(Self::refused(*call_id, reason)))
            }
            PlacementReport::Returned(queued) => ("provider_busy", Self::queued(queued, now)),
            PlacementReport::Unknown { call_id, .. } => {
                let message = "The provider's answer was lost; the call is being looked up";
                ("provider_lost", Self::pending(*call_id, "unknown", message))
            }
        }
    }

    /// An answer that was kept, to be sent again.
    pub(crate) fn replayed(saved: SavedAnswer) -> Result<Self, Problem> {
        let status = StatusCode::from_u16(saved.status)
            .map_err(|_| Problem::internal(format!("a kept answer has status {}", saved.status)))?;
        let location = queue_url(&saved.body);
        let mut answer = Self::new(status, saved.body);
        answer.location = location;
        answer.replayed = true;
        answer.is_kept = true;
        Ok(answer)
    }

    pub(crate) fn saved(&self) -> SavedAnswer {
        SavedAnswer {
            status: self.status.as_u16(),
            body: self.body.clone(),
        }
    }

    pub(crate) fn into_response(self) -> HttpResponse {
        let content_type = if self.status.is_success() {
            "application/json"
        } else {
            PROBLEM_JSON
        };
        let mut builder = HttpResponse::build(self.status);
        builder.insert_header((header::CONTENT_TYPE, content_type));
        if let Some(location) = self.location {
            builder.insert_header((header::LOCATION, location));
        }
        if let Some(seconds) = self.retry_after {
            builder.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if self.replayed {
            builder.insert_header((REPLAYED, "true"));
        }
        builder.body(self.body)
    }
}

/// Where a kept answer's queue item is, so that a repeat carries `Location` like the first.
fn queue_url(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    body.get("queue")?
        .get("status_url")?
        .as_str()
        .map(str::to_owned)
}
