//! Calls as `active_calls` and `call_queue_history` tell them, and rows of `call_events`.

use callq_domain::{
    AgentId, Call, CallId, CallStatus, CallTransition, ContactId, ExecutionId, PhoneNumber,
    QueueItemId, ServerId, UserId,
};
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::{origin, provider, small_count, unreadable};
use crate::Failure;

/// A call, live or ended.
#[derive(QueryableByName)]
pub(crate) struct CallRow {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub(crate) item_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    agent_id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    contact_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    call_type: String,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    campaign_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = Nullable<Text>)]
    contact_name: Option<String>,
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = Nullable<Text>)]
    execution_id: Option<String>,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Timestamptz)]
    reserved_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    answered_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Integer>)]
    duration_seconds: Option<i32>,
}

impl CallRow {
    /// Calls that hold a slot.
    pub(crate) const SELECT_LIVE: &'static str = "SELECT call_id AS id, item_id, user_id, \
        agent_id, contact_id, call_type::text AS call_type, campaign_id, phone_number, \
        contact_name, provider, execution_id, status::text AS status, reason, \
        attempt::integer AS attempts, reserved_at, answered_at, NULL::timestamptz AS ended_at, \
        NULL::integer AS duration_seconds FROM active_calls";

    /// Calls that ended, if the condition that must follow asks for `was_call`.
    pub(crate) const SELECT_ENDED: &'static str = "SELECT call_id AS id, id AS item_id, user_id, \
        agent_id, contact_id, call_type::text AS call_type, campaign_id, phone_number, \
        contact_name, provider, execution_id, outcome AS status, reason, \
        attempts::integer AS attempts, reserved_at, answered_at, finished_at AS ended_at, \
        duration_seconds FROM call_queue_history";

    /// When the call began or, once it is over, ended: what lists are sorted by.
    pub(crate) fn listed_at(&self) -> DateTime<Utc> {
        self.ended_at.unwrap_or(self.reserved_at)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.ended_at.is_some()
    }

    pub(crate) fn into_call(self) -> Result<Call, Failure> {
        Ok(Call {
            id: CallId::from(self.id),
            item_id: QueueItemId::from(self.item_id),
            user_id: UserId::from(self.user_id),
            agent_id: AgentId::from(self.agent_id),
            contact_id: self.contact_id.map(ContactId::from),
            origin: origin("call_records.call_type", &self.call_type, self.campaign_id)?,
            phone_number: PhoneNumber::from_trusted(self.phone_number),
            contact_name: self.contact_name,
            provider: provider("call_records.provider", &self.provider)?,
            execution_id: self.execution_id.map(execution_id).transpose()?,
            status: CallStatus::from_name(&self.status)
                .ok_or_else(|| unreadable("call_records.status", &self.status))?,
            reason: self.reason,
            attempts: small_count("call_records.attempts", self.attempts)?,
            reserved_at: self.reserved_at,
            answered_at: self.answered_at,
            ended_at: self.ended_at,
            duration_seconds: self
                .duration_seconds
                .map(|seconds| small_count("call_records.duration_seconds", seconds))
                .transpose()?,
        })
    }
}

fn execution_id(text: String) -> Result<ExecutionId, Failure> {
    ExecutionId::new(text)
        .ok_or_else(|| unreadable("call_records.execution_id", "no provider's id"))
}

/// One entry of a call's history.
#[derive(QueryableByName)]
pub(crate) struct TransitionRow {
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Nullable<Integer>)]
    attempt: Option<i32>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    server: Option<Uuid>,
}

impl TransitionRow {
    pub(crate) fn into_transition(self) -> Result<CallTransition, Failure> {
        Ok(CallTransition {
            status: self.status,
            at: self.at,
            reason: self.reason,
            attempt: self
                .attempt
                .map(|attempt| small_count("call_events.attempt", attempt))
                .transpose()?,
            server: self.server.map(ServerId::from),
        })
    }
}
