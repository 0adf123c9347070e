//! Rows of the three tables an item lives in, one after the other: `call_queue`, `active_calls` and
//! `call_queue_history`.

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

/// An item, selected with the column list of its table.
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
    /// What to select of `call_queue`.
    pub(crate) const WAITING: &'static str = "id, user_id, agent_id, contact_id, campaign_id, \
        call_type::text AS call_type, priority, position, status, phone_number, contact_name, \
        scheduled_for, wakes_at, due_at, expires_at, attempts, call_id, reason, queued_at, \
        NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at";

    /// What to select of `active_calls`.
    pub(crate) const PROCESSING: &'static str = "item_id AS id, user_id, agent_id, contact_id, \
        campaign_id, call_type::text AS call_type, priority, position, 'processing' AS status, \
        phone_number, contact_name, scheduled_for, NULL::timestamptz AS wakes_at, due_at, \
        expires_at, attempt::integer AS attempts, call_id, NULL AS reason, queued_at, \
        reserved_at AS started_at, NULL::timestamptz AS finished_at";

    /// What to select of `call_queue_history`.
    pub(crate) const ENDED: &'static str = "id, user_id, agent_id, contact_id, campaign_id, \
        call_type::text AS call_type, priority, position, status, phone_number, contact_name, \
        scheduled_for, wakes_at, due_at, expires_at, attempts::integer AS attempts, call_id, \
        coalesce(reason, outcome) AS reason, queued_at, \
        reserved_at AS started_at, finished_at";

    /// The item of id `$1`, if it is of user `$2`, wherever it is.
    pub(crate) fn by_id() -> String {
        format!(
            "SELECT {} FROM call_queue WHERE id = $1 AND user_id = $2 \
             UNION ALL \
             SELECT {processing} FROM active_calls \
             WHERE item_id = $1 AND call_id = $1 AND user_id = $2 \
             UNION ALL \
             SELECT {processing} FROM active_calls \
             WHERE item_id = $1 AND item_id <> call_id AND user_id = $2 \
             UNION ALL \
             SELECT {} FROM call_queue_history WHERE id = $1 AND user_id = $2 AND NOT retried",
            Self::WAITING,
            Self::ENDED,
            processing = Self::PROCESSING,
        )
    }

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
