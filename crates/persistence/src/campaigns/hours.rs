//! The hours of campaigns, worked out ahead: `campaign_windows` holds the instants at which the
//! engine opens and closes a campaign by itself. Here alone they are made from days, times and
//! zones: of a campaign that goes by its contacts' clocks for each zone that it has calls in.

use callq_domain::{CallingHours, Campaign, CampaignStatus, OpenWindow, StoreError};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{PgConnection, sql_query};
use uuid::Uuid;

use super::{find, withdraw_chunk, zones};
use crate::functions::{self, IdRow};
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

/// Windows of the calls that go by one zone.
struct ZoneWindows {
    zone: String,
    windows: Vec<OpenWindow>,
}

impl ZoneWindows {
    /// Those that end after `from`, as many as are worked out at once. One of which no end is in
    /// sight is the last.
    fn of(campaign: &Campaign, zone: String, from: DateTime<Utc>) -> Result<Self, Failure> {
        let hours = campaign
            .fields
            .hours()
            .map_err(|error| StoreError::Internal(format!("a campaign's hours: {error}")))?;
        // Its own is told by none, and one that nobody knows any more is as good as none.
        let clock = zone.parse().unwrap_or(campaign.zone);
        let mut windows = Vec::with_capacity(AHEAD);
        let mut next = Some(from);
        while let Some(at) = next.filter(|_| windows.len() < AHEAD) {
            let window = hours.next_window(clock, at);
            windows.extend(window);
            next = window.and_then(|window| window.closes_at);
        }
        Ok(Self { zone, windows })
    }
}

/// Lays out a campaign's windows from now on in place of what there was, and opens or closes it by
/// them. Needs the engine's lock.
///
/// # Errors
/// `Conflict` if there is none: its last hours are over, in all zones of its calls.
pub(super) fn lay_out_anew(
    conn: &mut PgConnection,
    campaign: &Campaign,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    let found: Vec<ZoneWindows> = zones::of_campaign(conn, campaign.id.as_uuid())?
        .into_iter()
        .map(|zone| ZoneWindows::of(campaign, zone, at))
        .collect::<Result<_, _>>()?;
    if found.iter().all(|zone| zone.windows.is_empty()) {
        let sentence = "campaign has no hours left in which it may call; change its dates or hours";
        return Err(StoreError::Conflict(sentence.into()).into());
    }
    lay_out(conn, campaign, &found, None, at)?;
    Ok(())
}

/// Lays out the windows of zones in which a campaign under way has calls since just now. Needs the
/// engine's lock.
pub(super) fn lay_out_missing(
    conn: &mut PgConnection,
    campaign: Uuid,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    if let Some(found) = to_do(conn, campaign)? {
        lay_out(conn, &found.campaign, &found.more, Some(&found.anew), at)?;
    }
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

/// Adds these windows, after taking away those of the zones `anew`, or all if there are none.
fn lay_out(
    conn: &mut PgConnection,
    campaign: &Campaign,
    found: &[ZoneWindows],
    anew: Option<&[String]>,
    at: DateTime<Utc>,
) -> QueryResult<()> {
    let each = || {
        let of = |zone: &'_ ZoneWindows| zone.windows.len();
        found
            .iter()
            .flat_map(move |zone| std::iter::repeat_n(zone, of(zone)))
    };
    let zones: Vec<&str> = each().map(|zone| zone.zone.as_str()).collect();
    let windows = || found.iter().flat_map(|zone| &zone.windows);
    let opens: Vec<DateTime<Utc>> = windows().map(|window| window.opens_at).collect();
    let closes: Vec<Option<DateTime<Utc>>> = windows().map(|window| window.closes_at).collect();
    sql_query("SELECT lay_out_windows($1, $2, $3, $4, array_replace($5, NULL, 'infinity'), $6)")
        .bind::<SqlUuid, _>(campaign.id.as_uuid())
        .bind::<Nullable<Array<Text>>, _>(anew)
        .bind::<Array<Text>, _>(zones)
        .bind::<Array<Timestamptz>, _>(opens)
        .bind::<Array<Nullable<Timestamptz>>, _>(closes)
        .bind::<Timestamptz, _>(at)
        .execute(conn)
        .map(drop)
}

/// The calls of campaigns `c` under way by zones `z`, with what is known of their hours `w`.
const BY_ZONE: &str = "campaigns c \
    CROSS JOIN LATERAL ( \
        SELECT '' AS zone WHERE NOT c.use_contact_timezone \
        UNION ALL \
        SELECT k.zone FROM campaign_zones k WHERE k.campaign_id = c.id AND c.use_contact_timezone \
    ) z \
    CROSS JOIN LATERAL ( \
        SELECT count(*) AS known, max(closes_at) AS known_until, max(opens_at) AS opens_at \
        FROM campaign_windows WHERE campaign_id = c.id AND zone = z.zone \
    ) w";

/// That few of their hours are left. Binds [`ENOUGH`] and [`OLD_DAYS`].
const SHORT: &str = "c.status IN ('active', 'paused') AND w.known < $2 \
    AND (w.known_until IS NULL OR w.known_until < 'infinity' \
        OR w.opens_at < engine_now() - make_interval(days => $3))";

/// Campaigns with calls of which few hours are left, in the order of their ids.
fn short_campaigns(conn: &mut PgConnection, after: Uuid) -> QueryResult<Vec<IdRow>> {
    sql_query(format!(
        "SELECT DISTINCT c.id FROM {BY_ZONE} WHERE {SHORT} AND c.id > $1 ORDER BY c.id LIMIT $4"
    ))
    .bind::<SqlUuid, _>(after)
    .bind::<BigInt, _>(ENOUGH)
    .bind::<Integer, _>(OLD_DAYS)
    .bind::<BigInt, _>(CHUNK)
    .load(conn)
}

/// What is known of the hours of the calls of a campaign in a zone that has few of them left.
#[derive(QueryableByName)]
struct ShortRow {
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Text)]
    zone: String,
    /// Whether a window of which no end was in sight is old.
    #[diesel(sql_type = Bool)]
    anew: bool,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    known_until: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    /// Whether some of the calls wait.
    #[diesel(sql_type = Bool)]
    waits: bool,
}

impl ShortRow {
    fn select(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<Vec<Self>> {
        sql_query(format!(
            "SELECT c.user_id, z.zone, engine_now() AS now, \
                 nullif(w.known_until, 'infinity') AS known_until, \
                 coalesce(w.known_until = 'infinity', false) AS anew, \
                 NOT c.use_contact_timezone \
                     OR EXISTS (SELECT FROM call_queue q WHERE q.campaign_id = c.id \
                         AND q.zone = z.zone AND q.call_type = 'campaign' AND q.wakes_at IS NULL) \
                     OR EXISTS (SELECT FROM call_queue q WHERE q.campaign_id = c.id \
                         AND q.zone = z.zone AND q.call_type = 'campaign' AND q.wakes_at IS NOT NULL) \
                     AS waits \
             FROM {BY_ZONE} WHERE {SHORT} AND c.id = $1 ORDER BY z.zone"
        ))
        .bind::<SqlUuid, _>(campaign)
        .bind::<BigInt, _>(ENOUGH)
        .bind::<Integer, _>(OLD_DAYS)
        .load(conn)
    }
}

/// What there is to do about the hours of a campaign.
struct ToDo {
    campaign: Campaign,
    /// Windows to be added.
    more: Vec<ZoneWindows>,
    /// The zones whose old ones these replace.
    anew: Vec<String>,
    /// Zones without hours left, whose waiting calls are to end.
    over: Vec<String>,
}

/// What there is to do about a campaign, as things stand; none if its hours are seen to.
fn to_do(conn: &mut PgConnection, id: Uuid) -> Result<Option<ToDo>, Failure> {
    let short = ShortRow::select(conn, id)?;
    let Some(user) = short.first().map(|short| short.user_id) else {
        return Ok(None);
    };
    let Some(row) = find(conn, user, id)? else {
        return Ok(None);
    };
    let campaign = row.into_campaign()?;
    let (mut more, mut anew, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for short in short {
        let from = short.known_until.unwrap_or(short.now).max(short.now);
        let found = ZoneWindows::of(&campaign, short.zone, from)?;
        if !found.windows.is_empty() {
            anew.extend(short.anew.then(|| found.zone.clone()));
            more.push(found);
            continue;
        }
        // The last window may still be open. Of a paused campaign the dates may yet be changed.
        let may_wait = short.known_until.is_some() || campaign.status == CampaignStatus::Paused;
        if !may_wait && short.waits {
            over.push(found.zone);
        }
    }
    Ok((!more.is_empty() || !over.is_empty()).then_some(ToDo {
        campaign,
        more,
        anew,
        over,
    }))
}

/// Works out more hours of a campaign, and ends some of its waiting calls for which none are left.
/// Answers whether there is more of the latter to do.
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
    lay_out(conn, &found.campaign, &found.more, Some(&found.anew), at)?;
    let Some(zone) = found.over.first() else {
        return Ok(false);
    };
    let zone = found
        .campaign
        .fields
        .use_contact_timezone
        .then_some(zone.as_str());
    let words = "its campaign's last hours were over";
    let more = withdraw_chunk(conn, id, zone, "expired", words, at)?;
    Ok(more || found.over.len() > 1)
}

impl PostgresStore {
    /// Works out more hours of campaigns under way that have few left, and ends the waiting calls
    /// of those that have none. Any server may, at any time.
    pub(crate) async fn work_out_hours(&self) -> Result<(), StoreError> {
        let mut after = Some(Uuid::nil());
        while let Some(last) = after {
            let find = move |conn: &mut PgConnection| Ok(short_campaigns(conn, last)?);
            let found = self.database.run(find).await?;
            after = found.last().map(|short| short.id);
            for IdRow { id } in found {
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
