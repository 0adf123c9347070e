//! Single calls as an operator sees and settles them: any user's, by the call's id or its item's.

#[cfg(test)]
mod plan_tests;

use callq_domain::{
    CallOwner, CallStatus, CallStory, HandEffect, HandRefusal, HandSettlement, HeldCall, HeldCalls,
    OperatorWord, QueueItem, ServerId,
};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::engine::{impossible, stored};
use crate::functions::{self, HandSettlementColumns, SettledByHandRow};
use crate::rows::call::{CallRow, TransitionRow};
use crate::rows::{count, small_count};
use crate::{Failure, calls, queue};

/// Who holds a call, for a select list over `active_calls` and its owner's row `v` of `servers`.
const OWNER_COLUMNS: &str =
    "v.lease_until, coalesce(v.lease_until > clock_timestamp(), false) AS is_alive";

#[derive(QueryableByName)]
struct OwnerRow {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    owner: Option<Uuid>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    lease_until: Option<DateTime<Utc>>,
    #[diesel(sql_type = Bool)]
    is_alive: bool,
}

impl OwnerRow {
    fn into_owner(self) -> Option<CallOwner> {
        self.owner.map(|server| CallOwner {
            server: ServerId::from(server),
            lease_until: self.lease_until,
            is_alive: self.is_alive,
        })
    }
}

#[derive(QueryableByName)]
struct HeldCallRow {
    #[diesel(embed)]
    call: CallRow,
    #[diesel(embed)]
    owner: OwnerRow,
    #[diesel(sql_type = Text)]
    user_email: String,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    placed_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    unknown_since: Option<DateTime<Utc>>,
    #[diesel(sql_type = BigInt)]
    total: i64,
}

impl HeldCallRow {
    fn into_held(self) -> Result<HeldCall, Failure> {
        let nobody = || impossible("a call that nobody holds");
        Ok(HeldCall {
            call: self.call.into_call()?,
            user_email: self.user_email,
            placed_at: self.placed_at,
            unknown_since: self.unknown_since,
            owner: self.owner.into_owner().ok_or_else(nobody)?,
        })
    }
}

pub(crate) fn held_calls_on_conn(
    conn: &mut PgConnection,
    status: Option<CallStatus>,
    limit: Option<u32>,
) -> Result<HeldCalls, Failure> {
    let rows: Vec<HeldCallRow> = sql_query(held_sql(status))
        .bind::<Nullable<Text>, _>(status.map(CallStatus::as_str))
        .bind::<Nullable<BigInt>, _>(limit.map(i64::from))
        .load(conn)?;
    let total = rows.first().map_or(0, |row| row.total);
    Ok(HeldCalls {
        items: rows
            .into_iter()
            .map(HeldCallRow::into_held)
            .collect::<Result<_, _>>()?,
        total: count("active_calls", total)?,
    })
}

/// Calls that hold a slot and are of status `$1`, if it is not null; at most `$2`.
fn held_sql(status: Option<CallStatus>) -> String {
    // Those in doubt are few, and have an index of their own.
    let (only, since) = match status {
        Some(CallStatus::Unknown) => (" WHERE unknown_since IS NOT NULL", "a.unknown_since"),
        _ => ("", "a.reserved_at"),
    };
    format!(
        "SELECT c.*, a.owner, a.placed_at, a.unknown_since, u.email AS user_email, {OWNER_COLUMNS}, \
             count(*) OVER () AS total \
         FROM ({live}{only}) c \
         JOIN active_calls a ON a.call_id = c.id \
         JOIN users u ON u.id = c.user_id \
         LEFT JOIN servers v ON v.id = a.owner \
         WHERE $1::text IS NULL OR c.status = $1 \
         ORDER BY {since}, c.id LIMIT $2",
        live = CallRow::SELECT_LIVE,
    )
}

/// Where an item is, and what its own row does not say.
#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = SqlUuid)]
    item_id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    call_id: Option<Uuid>,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(embed)]
    owner: OwnerRow,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    placed_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    unknown_since: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    user_email: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    agent_name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    campaign_name: Option<String>,
}

/// Finds the item or call of id `$1`, wherever it is, by keys of each table.
fn find_sql() -> String {
    let waiting = "SELECT id AS item_id, call_id, user_id, agent_id, campaign_id, NULL::uuid AS owner, \
        NULL::timestamptz AS placed_at, NULL::timestamptz AS unknown_since FROM call_queue";
    let held = "SELECT item_id, call_id, user_id, agent_id, campaign_id, owner, placed_at, \
        unknown_since FROM active_calls";
    let over = "SELECT id, call_id, user_id, agent_id, campaign_id, NULL, placed_at, NULL \
        FROM call_queue_history";
    format!(
        "SELECT i.item_id, i.call_id, i.user_id, i.owner, i.placed_at, i.unknown_since, \
             u.email AS user_email, g.name AS agent_name, c.name AS campaign_name, {OWNER_COLUMNS} \
         FROM ( \
             {waiting} WHERE id = $1 \
             UNION ALL {waiting} WHERE call_id = $1 AND call_id <> id \
             UNION ALL {held} WHERE call_id = $1 \
             UNION ALL {held} WHERE item_id = $1 AND item_id <> call_id \
             UNION ALL {over} WHERE id = $1 AND NOT retried \
             UNION ALL {over} WHERE call_id = $1 AND call_id <> id \
         ) i \
         LEFT JOIN users u ON u.id = i.user_id \
         LEFT JOIN agents g ON g.id = i.agent_id \
         LEFT JOIN campaigns c ON c.id = i.campaign_id \
         LEFT JOIN servers v ON v.id = i.owner \
         LIMIT 1"
    )
}

/// Needs one snapshot over all of its statements.
pub(crate) fn call_story_on_conn(
    conn: &mut PgConnection,
    id: Uuid,
    default_provider: &str,
) -> Result<Option<CallStory>, Failure> {
    let found: Option<FoundRow> = sql_query(find_sql())
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .optional()?;
    let Some(found) = found else {
        return Ok(None);
    };
    let Some(item) = queue::find(conn, found.user_id, found.item_id)? else {
        return Err(impossible("an item that is not there"));
    };
    let placed = queue::placed(conn, item.into_item()?)?;
    let call = match found.call_id {
        Some(call) => calls::find(conn, found.user_id, call, default_provider)?,
        None => None,
    };
    Ok(Some(CallStory {
        history: history(conn, &placed.item)?
            .into_iter()
            .map(TransitionRow::into_transition)
            .collect::<Result<_, _>>()?,
        item: placed.item,
        call: call.map(CallRow::into_call).transpose()?,
        user_email: found.user_email,
        agent_name: found.agent_name,
        campaign_name: found.campaign_name,
        placed_at: found.placed_at,
        unknown_since: found.unknown_since,
        owner: found.owner.into_owner(),
        place: placed.place,
        waiting_reason: placed.waiting_reason,
    }))
}

/// Every change of an item whose call has this id, if it has had one. With the item's id alone
/// `active_calls` would be read from end to end.
const HISTORY_OF_CALL: &str = "SELECT status, at, reason, attempt, server FROM call_events \
    WHERE item_id = $1 AND call_id = $2 ORDER BY nth";
const HISTORY_WITHOUT_CALL: &str = "SELECT status, at, reason, attempt, server FROM call_events \
    WHERE item_id = $1 AND call_id IS NULL ORDER BY nth";

fn history(conn: &mut PgConnection, item: &QueueItem) -> QueryResult<Vec<TransitionRow>> {
    let item_id = item.id.as_uuid();
    match item.call_id {
        Some(call) => sql_query(HISTORY_OF_CALL)
            .bind::<SqlUuid, _>(item_id)
            .bind::<SqlUuid, _>(call.as_uuid())
            .load(conn),
        None => sql_query(HISTORY_WITHOUT_CALL)
            .bind::<SqlUuid, _>(item_id)
            .load(conn),
    }
}

pub(crate) fn settle_by_hand_on_conn(
    conn: &mut PgConnection,
    id: Uuid,
    settlement: &HandSettlement,
) -> Result<HandEffect, Failure> {
    let (outcome, force) = match settlement.word {
        OperatorWord::Ended { outcome, force } => (Some(outcome.as_str()), force),
        OperatorWord::NotPlaced => (None, false),
    };
    let row = functions::settle_by_hand(
        conn,
        HandSettlementColumns {
            id,
            attempt: settlement.attempt.map(stored),
            outcome,
            reason: settlement.reason.as_ref().map(|reason| reason.as_str()),
            force,
        },
    )?;
    hand_effect(row)
}

fn hand_effect(row: SettledByHandRow) -> Result<HandEffect, Failure> {
    let SettledByHandRow {
        effect,
        was,
        at_attempt,
    } = row;
    let was = was.unwrap_or_default();
    let live = |was: &str| {
        let status = CallStatus::from_name(was);
        status.ok_or_else(|| impossible(&format!("the status {was:?}")))
    };
    Ok(match effect.as_str() {
        "ended" => HandEffect::Ended,
        "returned" => HandEffect::Returned,
        "no_call" => HandEffect::UnknownCall,
        "over" => HandEffect::Refused(HandRefusal::Over { status: was }),
        "waits" => HandEffect::Refused(HandRefusal::Waits { status: was }),
        "other_attempt" => HandEffect::Refused(HandRefusal::OtherAttempt {
            status: live(&was)?,
            attempt: small_count("active_calls.attempt", at_attempt.unwrap_or(0))?,
        }),
        "not_unknown" => HandEffect::Refused(HandRefusal::NotUnknown {
            status: live(&was)?,
        }),
        "needs_force" => HandEffect::Refused(HandRefusal::NeedsForce {
            status: live(&was)?,
        }),
        other => return Err(impossible(&format!("the effect {other:?}"))),
    })
}
