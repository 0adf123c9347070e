//! Rows of `call_queue` and `call_queue_history`, which share their columns.

use callq_domain::{
    AgentId, CallId, CallType, ContactId, ItemStatus, PhoneNumber, Priority, QueueItem,
    QueueItemId, UserId,
};
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::{origin, small_count, unreadable};
use crate::Failure;

/// An item, selected with [`ItemRow::COLUMNS`].
#[derive(QueryableByName)]
pub(crate) struct ItemRow {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    agent_id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    contact_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    campaign_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    call_type: String,
    #[diesel(sql_type = Integer)]
    priority: i32,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = Nullable<Text>)]
    contact_name: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    scheduled_for: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    wakes_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) due_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    call_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    queued_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    finished_at: Option<DateTime<Utc>>,
}

impl ItemRow {
    /// The columns this row is made of, in a query over one table.
    pub(crate) const COLUMNS: &'static str = "id, user_id, agent_id, contact_id, campaign_id, \
        call_type::text AS call_type, priority, position, status, phone_number, contact_name, \
        scheduled_for, wakes_at, due_at, expires_at, attempts, call_id, reason, queued_at, \
        started_at, finished_at";

    pub(crate) fn call_type(&self) -> Result<CallType, Failure> {
        CallType::from_name(&self.call_type)
            .ok_or_else(|| unreadable("call_queue.call_type", &self.call_type))
    }

    pub(crate) fn into_item(self) -> Result<QueueItem, Failure> {
        Ok(QueueItem {
            id: QueueItemId::from(self.id),
            user_id: UserId::from(self.user_id),
            agent_id: AgentId::from(self.agent_id),
            contact_id: self.contact_id.map(ContactId::from),
            origin: origin("call_queue.call_type", &self.call_type, self.campaign_id)?,
            priority: Priority::new(self.priority),
            position: self.position,
            status: item_status(&self.status)?,
            phone_number: PhoneNumber::from_trusted(self.phone_number),
            contact_name: self.contact_name,
            scheduled_for: self.scheduled_for,
            wakes_at: self.wakes_at,
            expires_at: self.expires_at,
            attempts: small_count("call_queue.attempts", self.attempts)?,
            call_id: self.call_id.map(CallId::from),
            reason: self.reason,
            queued_at: self.queued_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        })
    }
}

/// The status of an item.
pub(crate) fn item_status(name: &str) -> Result<ItemStatus, Failure> {
    ItemStatus::from_name(name).ok_or_else(|| unreadable("call_queue.status", name))
}
