//! A queue item as its owner sees it.

use callq_domain::{PlacedItem, QueueItem};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::wait::{QuantilesResponse, Wait};

/// A queue item: one accepted wish for a call.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueItemResponse {
    /// Its identifier.
    id: Uuid,
    /// `direct` or `campaign`.
    call_type: &'static str,
    /// `queued`, `processing`, `completed`, `failed`, `cancelled` or `expired`.
    status: &'static str,
    /// Higher goes first among your calls of the same type.
    priority: i32,
    /// The campaign that asked for it; null for a direct call.
    campaign_id: Option<Uuid>,
    /// Who will talk.
    agent_id: Uuid,
    /// Who is called, when it is a stored contact.
    contact_id: Option<Uuid>,
    /// The number to dial.
    phone_number: String,
    /// The name of the person called.
    contact_name: Option<String>,
    /// When it was asked to start; null for at once.
    scheduled_for: Option<DateTime<Utc>>,
    /// Not tried before this, while it waits for a time.
    wakes_at: Option<DateTime<Utc>>,
    /// Becomes `expired` if it has not started by then.
    expires_at: Option<DateTime<Utc>>,
    /// Placements attempted so far.
    attempts: u32,
    /// Its call, once it has had a slot.
    call_id: Option<Uuid>,
    /// Why it ended, or why its last attempt was not placed.
    reason: Option<String>,
    /// When it was accepted.
    queued_at: DateTime<Utc>,
    /// When it last got a slot.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
    /// Where to read it.
    status_url: String,
}

impl From<QueueItem> for QueueItemResponse {
    fn from(item: QueueItem) -> Self {
        Self {
            id: item.id.into(),
            call_type: item.origin.call_type().as_str(),
            status: item.status.as_str(),
            priority: item.priority.get(),
            campaign_id: item.origin.campaign_id().map(Uuid::from),
            agent_id: item.agent_id.into(),
            contact_id: item.contact_id.map(Uuid::from),
            phone_number: item.phone_number.to_string(),
            contact_name: item.contact_name,
            scheduled_for: item.scheduled_for,
            wakes_at: item.wakes_at,
            expires_at: item.expires_at,
            attempts: item.attempts,
            call_id: item.call_id.map(Uuid::from),
            reason: item.reason,
            queued_at: item.queued_at,
            started_at: item.started_at,
            finished_at: item.finished_at,
            status_url: format!("/api/queue/{}", item.id),
        }
    }
}

/// A queue item with its place in line. The place is null unless it waits.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlacedItemResponse {
    #[serde(flatten)]
    item: QueueItemResponse,
    /// 1 for the next to go among your waiting calls of the same type.
    position: Option<u64>,
    /// How many of these wait, this one included.
    total_in_queue: Option<u64>,
    /// Why it waits, where that is known.
    waiting_reason: Option<String>,
    /// Whole minutes, at least 1.
    estimated_wait: Option<u64>,
    /// Learned from your own calls; null while there is too little to know.
    estimated_wait_seconds: Option<QuantilesResponse>,
}

impl PlacedItemResponse {
    pub(super) fn of(placed: PlacedItem, now: DateTime<Utc>) -> Self {
        let due = placed.item.wakes_at;
        let wait = placed.place.as_ref().map(|place| Wait::at(place, due, now));
        let (minutes, quantiles) = match wait {
            Some(wait) => (Some(wait.minutes), wait.quantiles),
            None => (None, None),
        };
        Self {
            position: placed.place.as_ref().map(|place| place.position),
            total_in_queue: placed.place.as_ref().map(|place| place.total_in_queue),
            waiting_reason: placed.waiting_reason.map(|reason| reason.to_string()),
            estimated_wait: minutes,
            estimated_wait_seconds: quantiles,
            item: placed.item.into(),
        }
    }
}
