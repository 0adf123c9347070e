//! The hours of campaigns, worked out ahead: `campaign_windows` holds the instants at which the
//! engine opens and closes a campaign by itself. Here alone they are made from days, times and
//! zones.

use callq_domain::{CallingHours, Campaign, CampaignStatus, OpenWindow, StoreError};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel::{PgConnection, sql_query};
use uuid::Uuid;

use super::{find, withdraw_chunk};
use crate::functions;
use crate::{Failure, PostgresStore};

/// So many windows are known ahead, the present one among them.
const AHEAD: usize = 6;

/// With fewer than this known, more are worked out.
const ENOUGH: i64 = 3;

/// A window of which no end was in sight is looked at again after so many days, long before the
/// [`CallingHours::HORIZON_DAYS`] that were seen are over.
const OLD_DAYS: i32 = 200;
const _: () = assert!((OLD_DAYS as i64) < CallingHours::HORIZON_DAYS);

/// How many campaigns one look takes.
const CHUNK: i64 = 50;

/// The windows of a campaign that end after `from`, as many as are worked out at once. One of which
/// no end is in sight is the last.
fn windows(campaign: &Campaign, from: DateTime<Utc>) -> Result<Vec<OpenWindow>, Failure> {
    let hours = campaign
        .fields
        .hours()
        .map_err(|error| StoreError::Internal(format!("a campaign's hours: {error}")))?;
    let mut found = Vec::with_capacity(AHEAD);
    let mut next = Some(from);
    while let Some(at) = next.filter(|_| found.len() < AHEAD) {
        let window = hours.next_window(campaign.zone, at);
        found.extend(window);
        next = window.and_then(|window| window.closes_at);
    }
    Ok(found)
}

/// Lays out a campaign's windows from now on in place of what there was, and opens or closes it by
/// them. Needs the engine's lock.
///
/// # Errors
/// `Conflict` if there is none: its last hours are over.
pub(super) fn lay_out_anew(
    conn: &mut PgConnection,
    campaign: &Campaign,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    let windows = windows(campaign, at)?;
    if windows.is_empty() {
        let sentence = "campaign has no hours left in which it may call; change its dates or hours";
        return Err(StoreError::Conflict(sentence.into()).into());
    }
    lay_out(conn, campaign, &windows, true, at)?;
    Ok(())
}

/// Forgets the windows of a paused campaign whose hours have changed: resuming it, or housekeeping,
/// works out others. Needs the engine's lock.
pub(super) fn forget(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<()> {
    sql_query("DELETE FROM campaign_windows WHERE campaign_id = $1")
        .bind::<SqlUuid, _>(campaign)
        .execute(conn)
        .map(drop)
}

fn lay_out(
    conn: &mut PgConnection,
    campaign: &Campaign,
    windows: &[OpenWindow],
    anew: bool,
    at: DateTime<Utc>,
) -> QueryResult<()> {
    let opens: Vec<DateTime<Utc>> = windows.iter().map(|window| window.opens_at).collect();
    let closes: Vec<Option<DateTime<Utc>>> = windows.iter().map(|w| w.closes_at).collect();
    sql_query("SELECT lay_out_windows($1, $2, array_replace($3, NULL, 'infinity'), $4, $5)")
        .bind::<SqlUuid, _>(campaign.id.as_uuid())
        .bind::<Array<Timestamptz>, _>(opens)
        .bind::<Array<Nullable<Timestamptz>>, _>(closes)
        .bind::<Bool, _>(anew)
        .bind::<Timestamptz, _>(at)
        .execute(conn)
        .map(drop)
}

/// What is known of the hours of a campaign under way that has few of them left.
#[derive(QueryableByName)]
struct ShortRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    /// Whether a window of which no end was in sight is old.
    #[diesel(sql_type = Bool)]
    anew: bool,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    known_until: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

impl ShortRow {
    /// In the order of their ids, of campaigns `c`.
    fn select(conn: &mut PgConnection, which: &str, id: Uuid) -> QueryResult<Vec<Self>> {
        sql_query(format!(
            "SELECT c.id, c.user_id, engine_now() AS now, \
                 nullif(w.known_until, 'infinity') AS known_until, \
                 coalesce(w.known_until = 'infinity', false) AS anew FROM campaigns c \
             CROSS JOIN LATERAL ( \
                 SELECT count(*) AS known, max(closes_at) AS known_until, max(opens_at) AS opens_at \
                 FROM campaign_windows WHERE campaign_id = c.id \
             ) w \
             WHERE c.status IN ('active', 'paused') AND {which} AND w.known < $2 \
                 AND (w.known_until IS NULL OR w.known_until < 'infinity' \
                     OR w.opens_at < engine_now() - make_interval(days => $4)) \
             ORDER BY c.id LIMIT $3"
        ))
        .bind::<SqlUuid, _>(id)
        .bind::<BigInt, _>(ENOUGH)
        .bind::<BigInt, _>(CHUNK)
        .bind::<Integer, _>(OLD_DAYS)
        .load(conn)
    }
}

/// What there is to do about the hours of a campaign.
struct ToDo {
    campaign: Campaign,
    /// Whether these windows are put in the place of the old ones.
    anew: bool,
    windows: Vec<OpenWindow>,
}

/// What there is to do about a campaign, as things stand; none if its hours are seen to.
fn to_do(conn: &mut PgConnection, id: Uuid) -> Result<Option<ToDo>, Failure> {
    let Some(short) = ShortRow::select(conn, "c.id = $1", id)?.pop() else {
        return Ok(None);
    };
    let Some(row) = find(conn, short.user_id, id)? else {
        return Ok(None);
    };
    let campaign = row.into_campaign()?;
    let from = short.known_until.unwrap_or(short.now).max(short.now);
    let windows = windows(&campaign, from)?;
    // The last window may still be open. Of a paused campaign the dates may yet be changed.
    let may_wait = short.known_until.is_some() || campaign.status == CampaignStatus::Paused;
    Ok((!windows.is_empty() || !may_wait).then_some(ToDo {
        campaign,
        anew: short.anew,
        windows,
    }))
}

/// Works out more hours of a campaign, or ends some of its waiting calls if none are left. Answers
/// whether there is more of the latter to do.
fn keep_hours_of(conn: &mut PgConnection, id: Uuid) -> Result<bool, Failure> {
    // Most looks find nothing to do, and need no lock. What there is is looked at again under it:
    // somebody may have changed the hours meanwhile.
    if to_do(conn, id)?.is_none() {
        return Ok(false);
    }
    let at = functions::lock_engine(conn)?;
    let Some(found) = to_do(conn, id)? else {
        return Ok(false);
    };
    lay_out(conn, &found.campaign, &found.windows, found.anew, at)?;
    if !found.windows.is_empty() {
        return Ok(false);
    }
    let words = "its campaign's last hours were over";
    withdraw_chunk(conn, id, "expired", words, at)
}

impl PostgresStore {
    /// Works out more hours of campaigns under way that have few left, and ends the waiting calls
    /// of those that have none. Any server may, at any time.
    pub(crate) async fn work_out_hours(&self) -> Result<(), StoreError> {
        let mut after = Some(Uuid::nil());
        while let Some(last) = after {
            let find =
                move |conn: &mut PgConnection| Ok(ShortRow::select(conn, "c.id > $1", last)?);
            let found = self.database.run(find).await?;
            after = found.last().map(|short| short.id);
            for ShortRow { id, .. } in found {
                let keep = move |conn: &mut PgConnection| keep_hours_of(conn, id);
                // One that cannot be read must not keep the others from their hours.
                while match self.database.run(keep).await {
                    Err(StoreError::Internal(cause)) => {
                        log::error!(campaign_id:% = id; "the hours of a campaign cannot be worked out: {cause}");
                        false
                    }
                    more => more?,
                } {}
            }
        }
        Ok(())
    }
}
