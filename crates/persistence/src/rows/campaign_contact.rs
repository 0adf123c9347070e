//! A campaign's contacts, as the list names them and the table tells them in which their item is.

use callq_domain::{
    CallId, CampaignContact, ContactId, ContactStatus, Outcome, PhoneNumber, QueueItemId,
};
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::{small_count, unreadable};
use crate::Failure;

/// A contact of a campaign with its item, selected with the column list of its table.
#[derive(QueryableByName)]
pub(crate) struct CampaignContactRow {
    #[diesel(sql_type = SqlUuid)]
    contact_id: Uuid,
    /// Whether this item is the last word on the contact.
    #[diesel(sql_type = Bool)]
    pub(crate) is_last: bool,
    #[diesel(sql_type = Integer)]
    earlier_attempts: i32,
    #[diesel(sql_type = SqlUuid)]
    pub(crate) item_id: Uuid,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = Nullable<Text>)]
    contact_name: Option<String>,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Nullable<Text>)]
    outcome: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub(crate) call_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) wakes_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) finished_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Integer)]
    pub(crate) priority: i32,
    #[diesel(sql_type = BigInt)]
    pub(crate) position: i64,
}

impl CampaignContactRow {
    /// What to select of `call_queue`.
    pub(crate) const WAITING: &'static str = "q.id AS item_id, q.phone_number, q.contact_name, \
        'queued' AS status, q.attempts::integer AS attempts, NULL::text AS outcome, q.reason, \
        q.call_id, q.wakes_at, NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at, \
        q.priority, q.position, q.contact_id AS of_contact";

    /// What to select of `active_calls`.
    pub(crate) const UP: &'static str = "a.item_id, a.phone_number, a.contact_name, \
        'processing' AS status, a.attempt::integer AS attempts, NULL::text AS outcome, a.reason, \
        a.call_id, NULL::timestamptz AS wakes_at, a.reserved_at AS started_at, \
        NULL::timestamptz AS finished_at, a.priority, a.position, a.contact_id AS of_contact";

    /// What to select of `call_queue_history`.
    pub(crate) const OVER: &'static str = "h.id AS item_id, h.phone_number, h.contact_name, \
        h.status, h.attempts::integer AS attempts, h.outcome, h.reason, h.call_id, \
        NULL::timestamptz AS wakes_at, h.reserved_at AS started_at, h.finished_at, h.priority, \
        h.position, h.contact_id AS of_contact";

    /// A contact of a campaign that `is_draft` or not.
    pub(crate) fn into_contact(self, is_draft: bool) -> Result<CampaignContact, Failure> {
        let status = ContactStatus::from_name(&self.status)
            .ok_or_else(|| unreadable("call_queue.status", &self.status))?;
        let status = match status {
            // Laid out, but not in the queue yet.
            ContactStatus::Queued if is_draft => ContactStatus::Pending,
            other => other,
        };
        let outcome = match self.outcome {
            None => None,
            Some(name) => Some(
                Outcome::from_name(&name)
                    .ok_or_else(|| unreadable("call_queue_history.outcome", &name))?,
            ),
        };
        let earlier = small_count("campaign_contacts.earlier_attempts", self.earlier_attempts)?;
        let attempts = small_count("call_queue.attempts", self.attempts)?;
        Ok(CampaignContact {
            contact_id: ContactId::from(self.contact_id),
            item_id: QueueItemId::from(self.item_id),
            phone_number: PhoneNumber::from_trusted(self.phone_number),
            name: self.contact_name,
            status,
            attempts: earlier.saturating_add(attempts),
            outcome,
            reason: self.reason,
            call_id: self.call_id.map(CallId::from),
            next_attempt_at: self.wakes_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        })
    }
}
