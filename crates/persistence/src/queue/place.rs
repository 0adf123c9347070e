//! Where a waiting item stands, and why it waits.

use std::time::Duration;

use callq_domain::{
    CallType, Pace, PacedBy, PlacedItem, QueueItem, QueuePlace, QueueReason, SlotUse,
};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{
    BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::Failure;
use crate::rows::system::slot_use;
use crate::rows::{count, small_count, unreadable};

/// What is to be said of a waiting item's place, all from one snapshot.
#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = BigInt)]
    total: i64,
    #[diesel(sql_type = Integer)]
    user_limit: i32,
    #[diesel(sql_type = Integer)]
    user_active: i32,
    #[diesel(sql_type = Integer)]
    direct_reserved_slots: i32,
    #[diesel(sql_type = Integer)]
    system_limit: i32,
    #[diesel(sql_type = Integer)]
    system_active: i32,
    #[diesel(sql_type = Bool)]
    dispatch_paused: bool,
    #[diesel(sql_type = Integer)]
    due_direct: i32,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    held_until: Option<DateTime<Utc>>,
    #[diesel(sql_type = Bool)]
    open: bool,
    #[diesel(sql_type = Nullable<Text>)]
    campaign_status: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    opens_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Integer>)]
    campaign_limit: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    campaign_active: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    paced_by: Option<String>,
    #[diesel(sql_type = Integer)]
    hold_samples: i32,
    #[diesel(sql_type = Double)]
    mean_hold_ms: f64,
}

/// An item with its place and the reason why it waits, if it does.
pub(crate) fn placed(conn: &mut PgConnection, item: QueueItem) -> Result<PlacedItem, Failure> {
    let (place, waiting_reason) = match load(conn, item.id.as_uuid())? {
        None => (None, None),
        Some(row) => (Some(row.place()?), row.reason(&item)?),
    };
    Ok(PlacedItem {
        item,
        place,
        waiting_reason,
    })
}

fn load(conn: &mut PgConnection, item_id: Uuid) -> QueryResult<Option<PlaceRow>> {
    sql_query(
        "SELECT get_call_queue_position(q.id) AS position, \
             CASE q.call_type WHEN 'direct' THEN s.due_direct::bigint + s.later_direct ELSE ( \
                 SELECT sum(l.due::bigint + l.later) \
                 FROM campaigns c JOIN campaign_counts l ON l.campaign_id = c.id \
                 WHERE c.user_id = q.user_id AND (c.status <> 'draft' OR c.id = q.campaign_id) \
             ) END::bigint AS total, \
             u.concurrent_calls_limit AS user_limit, \
             (s.active_direct + s.active_campaign)::integer AS user_active, u.direct_reserved_slots, \
             y.concurrent_calls_limit AS system_limit, y.active::integer AS system_active, \
             y.dispatch_paused, s.due_direct::integer AS due_direct, \
             CASE q.call_type WHEN 'direct' THEN s.held_direct ELSE s.held_campaign END \
                 AS held_until, \
             coalesce(o.open, true) AND (q.zone IS NULL OR EXISTS (SELECT FROM campaign_windows w \
                 WHERE w.campaign_id = q.campaign_id AND w.zone = q.zone AND w.opened)) AS open, \
             c.status AS campaign_status, \
             (SELECT min(w.opens_at) FROM campaign_windows w \
                 WHERE w.campaign_id = q.campaign_id AND w.zone = coalesce(q.zone, '') \
                     AND NOT w.opened) AS opens_at, \
             c.max_concurrent_calls AS campaign_limit, \
             CASE WHEN c.max_concurrent_calls IS NOT NULL THEN ( \
                 SELECT count(*)::integer FROM active_calls a \
                 WHERE a.user_id = q.user_id AND a.campaign_id = q.campaign_id) END AS campaign_active, \
             CASE WHEN provider_next_at(q.agent_id) > engine_now() THEN 'provider' \
                 WHEN o.next_at > engine_now() THEN 'campaign' \
                 WHEN q.call_type = 'campaign' AND s.next_at > engine_now() THEN 'user' \
             END AS paced_by, s.hold_samples, s.mean_hold_ms \
         FROM call_queue q \
         JOIN users u ON u.id = q.user_id \
         JOIN user_slots s ON s.user_id = q.user_id \
         CROSS JOIN system_state y \
         LEFT JOIN campaign_slots o ON o.campaign_id = q.campaign_id \
         LEFT JOIN campaigns c ON c.id = q.campaign_id \
         WHERE q.id = $1",
    )
    .bind::<SqlUuid, _>(item_id)
    .get_result(conn)
    .optional()
}

impl PlaceRow {
    fn place(&self) -> Result<QueuePlace, Failure> {
        let slots = self.user_limit.min(self.system_limit);
        Ok(QueuePlace {
            position: count("get_call_queue_position", self.position)?,
            total_in_queue: count("total_in_queue", self.total)?,
            pace: Pace {
                slots: small_count("concurrent_calls_limit", slots)?,
                samples: small_count("user_slots.hold_samples", self.hold_samples)?,
                mean_hold: Duration::try_from_secs_f64(self.mean_hold_ms / 1_000.0)
                    .map_err(|_| unreadable("user_slots.mean_hold_ms", self.mean_hold_ms))?,
            },
        })
    }

    /// The first thing that would have to change for the item to start. None if that is the start
    /// of its campaign, or only its turn.
    fn reason(&self, item: &QueueItem) -> Result<Option<QueueReason>, Failure> {
        let system = slot_use(self.system_limit, self.system_active)?;
        let user = self.user_slots(item.origin.call_type())?;
        let ahead = self.direct_calls_ahead(item.origin.call_type())?;
        let held = self.held_until.is_some();
        Ok(match item.wakes_at {
            _ if !self.open => match self.campaign_status.as_deref() {
                Some("paused") => Some(QueueReason::CampaignPaused),
                Some("active") => Some(QueueReason::OutsideHours(self.opens_at)),
                _ => None,
            },
            Some(at) => Some(match &item.reason {
                Some(words) => QueueReason::Provider(words.clone()),
                None => QueueReason::Scheduled(at),
            }),
            None if self.dispatch_paused => Some(QueueReason::DispatchPaused),
            None if held => Some(QueueReason::Provider(match &item.reason {
                Some(words) => words.clone(),
                None => "The provider asked to wait".into(),
            })),
            None if user.available() == 0 => Some(QueueReason::UserLimit(user)),
            None if system.available() == 0 => Some(QueueReason::SystemLimit(system)),
            None if ahead > 0 => Some(QueueReason::EarlierDirectCalls { ahead }),
            None => self.held_back()?,
        })
    }

    /// What else than slots and direct calls keeps it from going, were it its turn.
    fn held_back(&self) -> Result<Option<QueueReason>, Failure> {
        if let (Some(limit), Some(active)) = (self.campaign_limit, self.campaign_active)
            && active >= limit
        {
            return Ok(Some(QueueReason::CampaignLimit(slot_use(limit, active)?)));
        }
        let by = match self.paced_by.as_deref() {
            None => return Ok(None),
            Some("provider") => PacedBy::Provider,
            Some("campaign") => PacedBy::Campaign,
            Some("user") => PacedBy::User,
            Some(other) => return Err(unreadable("paced_by", other)),
        };
        Ok(Some(QueueReason::Paced(by)))
    }

    /// The slots that calls of this type may use.
    fn user_slots(&self, call_type: CallType) -> Result<SlotUse, Failure> {
        let limit = match call_type {
            CallType::Direct => self.user_limit,
            CallType::Campaign => (self.user_limit - self.direct_reserved_slots).max(0),
        };
        slot_use(limit, self.user_active)
    }

    fn direct_calls_ahead(&self, call_type: CallType) -> Result<u64, Failure> {
        match call_type {
            CallType::Direct => count("get_call_queue_position", self.position - 1),
            CallType::Campaign => count("user_slots.due_direct", i64::from(self.due_direct)),
        }
    }
}
