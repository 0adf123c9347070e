//! The whole story of a call, as an operator reads it.

use callq_domain::{CallOwner, CallStory, CallTransition};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The server that holds a call.
#[derive(Serialize, ToSchema)]
pub(crate) struct OwnerResponse {
    /// The server.
    server_id: Uuid,
    /// Whether its lease holds. If not, another server takes the call over soon.
    alive: bool,
    /// The end of its lease.
    lease_until: Option<DateTime<Utc>>,
}

impl From<CallOwner> for OwnerResponse {
    fn from(owner: CallOwner) -> Self {
        Self {
            server_id: owner.server.into(),
            alive: owner.is_alive,
            lease_until: owner.lease_until,
        }
    }
}

/// One change in the story of a call.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangeResponse {
    /// What it became.
    status: String,
    /// When.
    at: DateTime<Utc>,
    /// Why.
    reason: Option<String>,
    /// Which attempt, once there was one.
    attempt: Option<u32>,
    /// The server that noted it; null for what a person did.
    server_id: Option<Uuid>,
}

impl From<CallTransition> for ChangeResponse {
    fn from(change: CallTransition) -> Self {
        Self {
            status: change.status,
            at: change.at,
            reason: change.reason,
            attempt: change.attempt,
            server_id: change.server.map(Uuid::from),
        }
    }
}

/// The whole story of a call and its queue item.
#[derive(Serialize, ToSchema)]
pub(crate) struct CallStoryResponse {
    /// The call, or the item before it has had a slot: they share one id.
    id: Uuid,
    /// The queue item.
    queue_id: Uuid,
    /// Its owner.
    user_id: Uuid,
    /// Its owner's name.
    user_email: Option<String>,
    /// Who talks.
    agent_id: Uuid,
    /// That agent's name.
    agent_name: Option<String>,
    /// Who is called, when it is a stored contact.
    contact_id: Option<Uuid>,
    /// `direct` or `campaign`.
    call_type: &'static str,
    /// The campaign that asked for it; null for a direct call.
    campaign_id: Option<Uuid>,
    /// That campaign's name.
    campaign_name: Option<String>,
    /// The number.
    phone_number: String,
    /// The name of the person called.
    contact_name: Option<String>,
    /// Who carries it, once it has had a slot.
    provider: Option<String>,
    /// The provider's name for it, once known.
    execution_id: Option<String>,
    /// The call's status, or the item's if it never had a slot.
    status: &'static str,
    /// The item's status.
    item_status: &'static str,
    /// Why it ended, or why it waits again.
    reason: Option<String>,
    /// Placements attempted.
    attempts: u32,
    /// Whether it holds a slot.
    holds_slot: bool,
    /// The server that holds it, while it holds a slot.
    owner: Option<OwnerResponse>,
    /// When it was accepted.
    queued_at: DateTime<Utc>,
    /// When it was asked to start; null for at once.
    scheduled_for: Option<DateTime<Utc>>,
    /// Not tried before this, while it waits for a time.
    wakes_at: Option<DateTime<Utc>>,
    /// Becomes `expired` if it has not started by then.
    expires_at: Option<DateTime<Utc>>,
    /// When its slot was last reserved.
    reserved_at: Option<DateTime<Utc>>,
    /// When its provider took it.
    placed_at: Option<DateTime<Utc>>,
    /// When it was answered.
    answered_at: Option<DateTime<Utc>>,
    /// Since when it is `unknown`, while it is.
    unknown_since: Option<DateTime<Utc>>,
    /// When it ended.
    ended_at: Option<DateTime<Utc>>,
    /// Talk time in whole seconds, where known.
    duration_seconds: Option<u32>,
    /// While it waits: 1 for the next to go among its user's waiting calls of the same type.
    position: Option<u64>,
    /// How many of these wait, this one included.
    total_in_queue: Option<u64>,
    /// Why it waits, where that is known.
    waiting_reason: Option<String>,
    /// Every change, oldest first.
    history: Vec<ChangeResponse>,
}

impl From<CallStory> for CallStoryResponse {
    fn from(story: CallStory) -> Self {
        let (status, holds_slot) = (story.status(), story.holds_slot());
        let (item, call) = (story.item, story.call.as_ref());
        let place = story.place.as_ref();
        Self {
            id: call.map_or(item.id.into(), |call| call.id.into()),
            queue_id: item.id.into(),
            user_id: item.user_id.into(),
            user_email: story.user_email,
            agent_id: item.agent_id.into(),
            agent_name: story.agent_name,
            contact_id: item.contact_id.map(Uuid::from),
            call_type: item.origin.call_type().as_str(),
            campaign_id: item.origin.campaign_id().map(Uuid::from),
            campaign_name: story.campaign_name,
            phone_number: item.phone_number.to_string(),
            contact_name: item.contact_name,
            provider: call.map(|call| call.provider.to_string()),
            execution_id: call.and_then(|call| call.execution_id.as_ref().map(ToString::to_string)),
            status,
            item_status: item.status.as_str(),
            reason: call.map_or(item.reason, |call| call.reason.clone()),
            attempts: item.attempts,
            holds_slot,
            owner: story.owner.map(Into::into),
            queued_at: item.queued_at,
            scheduled_for: item.scheduled_for,
            wakes_at: item.wakes_at,
            expires_at: item.expires_at,
            reserved_at: call.map(|call| call.reserved_at),
            placed_at: story.placed_at,
            answered_at: call.and_then(|call| call.answered_at),
            unknown_since: story.unknown_since,
            ended_at: item.finished_at,
            duration_seconds: call.and_then(|call| call.duration_seconds),
            position: place.map(|place| place.position),
            total_in_queue: place.map(|place| place.total_in_queue),
            waiting_reason: story.waiting_reason.map(|reason| reason.to_string()),
            history: story.history.into_iter().map(Into::into).collect(),
        }
    }
}
