//! A campaign's contacts, page by page, each read from the edge of an index: all of them along the
//! campaign's list, those of one status along the table that holds it.

use callq_domain::{CampaignContact, CampaignStatus, ContactStatus, Page, PageRequest, StoreError};
use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::find;
use crate::Failure;
use crate::cursor::{ContactCursor, fetch, page_size};
use crate::rows::campaign_contact::CampaignContactRow as Row;

/// How often a page that is not full looks on, past items of contacts that were queued again since.
const LOOKS: usize = 5;

/// A page is looked up row by row, whatever the planner believes of tables that have just filled.
const ROW_BY_ROW: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

/// Which contacts of a campaign make a page.
#[derive(Clone, Copy)]
pub(super) struct ContactPage {
    status: Option<ContactStatus>,
    after: Option<ContactCursor>,
    limit: usize,
}

/// A campaign, and so much of it as a page needs.
struct Shown {
    id: Uuid,
    user: Uuid,
    created_at: DateTime<Utc>,
}

impl ContactPage {
    /// Reads what a client asked.
    pub(super) fn new(
        status: Option<ContactStatus>,
        page: &PageRequest,
    ) -> Result<Self, StoreError> {
        use ContactCursor as C;
        use ContactStatus as S;
        let after = page.cursor.as_deref().map(C::read).transpose()?;
        let is_of_this_list = match status {
            None => matches!(after, None | Some(C::Listed(_))),
            Some(S::Pending | S::Queued) => {
                matches!(after, None | Some(C::Due(..) | C::Asleep(..)))
            }
            Some(S::Processing) => matches!(after, None | Some(C::Up(..))),
            Some(S::Completed | S::Failed | S::Cancelled | S::Expired) => {
                matches!(after, None | Some(C::Over(..)))
            }
        };
        if !is_of_this_list {
            return Err(StoreError::BadCursor);
        }
        Ok(Self {
            status,
            after,
            limit: page_size(page),
        })
    }

    pub(super) fn load(
        &self,
        conn: &mut PgConnection,
        user: Uuid,
        campaign: Uuid,
    ) -> Result<Page<CampaignContact>, Failure> {
        let row = find(conn, user, campaign)?.ok_or(StoreError::NotFound)?;
        let campaign = row.into_campaign()?;
        conn.batch_execute(ROW_BY_ROW)?;
        let is_draft = campaign.status == CampaignStatus::Draft;
        let of = Shown {
            id: campaign.id.as_uuid(),
            user,
            created_at: campaign.created_at,
        };
        let (rows, next) = match self.status {
            None => self.listed(conn, &of)?,
            Some(ContactStatus::Pending) if !is_draft => (Vec::new(), None),
            Some(ContactStatus::Queued) if is_draft => (Vec::new(), None),
            Some(ContactStatus::Pending | ContactStatus::Queued) => self.waiting(conn, &of)?,
            Some(ContactStatus::Processing) => self.up(conn, &of)?,
            Some(ended) => self.over(conn, &of, ended)?,
        };
        let items = rows
            .into_iter()
            .map(|row| row.into_contact(is_draft))
            .collect::<Result<_, _>>()?;
        Ok(Page {
            items,
            next_cursor: next.map(ContactCursor::write),
        })
    }

    /// Along the list, whatever became of each.
    fn listed(&self, conn: &mut PgConnection, of: &Shown) -> QueryResult<Found> {
        let after = match self.after {
            Some(ContactCursor::Listed(ordinal)) => ordinal,
            _ => 0,
        };
        let listed: Vec<OrdinalRow> = sql_query(
            "SELECT m.ordinal::bigint AS ordinal FROM campaign_contacts m \
             WHERE m.campaign_id = $1 AND m.ordinal > $2 ORDER BY m.ordinal LIMIT $3",
        )
        .bind::<SqlUuid, _>(of.id)
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(fetch(self.limit))
        .load(conn)?;
        let more = listed.len() > self.limit;
        let Some(last) = listed.get(..self.limit).unwrap_or(&listed).last() else {
            return Ok((Vec::new(), None));
        };
        let rows = sql_query(format!(
            "SELECT {COLUMNS}, true AS is_last FROM campaign_contacts m CROSS JOIN LATERAL ( \
                 SELECT * FROM ( \
                     SELECT 0 AS stage, {waiting} FROM call_queue q WHERE q.id = m.item_id \
                     UNION ALL \
                     SELECT 1, {up} FROM active_calls a \
                         WHERE a.call_id = m.item_id AND a.item_id = m.item_id \
                     UNION ALL \
                     SELECT 1, {up} FROM active_calls a \
                         WHERE a.item_id = m.item_id AND a.item_id <> a.call_id \
                     UNION ALL \
                     SELECT 2, {over} FROM call_queue_history h \
                         WHERE h.id = m.item_id AND h.finished_at >= $4 \
                 ) u ORDER BY u.stage, u.finished_at DESC LIMIT 1 \
             ) i {EARLIER} \
             WHERE m.campaign_id = $1 AND m.ordinal > $2 AND m.ordinal <= $3 ORDER BY m.ordinal",
            waiting = Row::WAITING,
            up = Row::UP,
            over = Row::OVER,
        ))
        .bind::<SqlUuid, _>(of.id)
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(last.ordinal)
        .bind::<Timestamptz, _>(of.created_at)
        .load(conn)?;
        let next = more.then_some(ContactCursor::Listed(last.ordinal));
        Ok((rows, next))
    }

    /// Those that are due in the order in which they go, then those that sleep as they wake.
    fn waiting(&self, conn: &mut PgConnection, of: &Shown) -> QueryResult<Found> {
        let mut rows: Vec<Row> = Vec::new();
        if !matches!(self.after, Some(ContactCursor::Asleep(..))) {
            // The rest of a priority, then those below it: two ranges of one index.
            let (priority, position) = match self.after {
                Some(ContactCursor::Due(priority, position)) => (priority, position),
                _ => (i32::MAX, i64::MAX),
            };
            let part = |which: &str| {
                format!(
                    "(SELECT {} FROM call_queue q WHERE q.campaign_id = $1 \
                         AND q.call_type = 'campaign' AND q.wakes_at IS NULL AND {which} \
                     ORDER BY q.priority DESC, q.position LIMIT $2)",
                    Row::WAITING
                )
            };
            rows = sql_query(of_list(
                &[
                    part("q.priority = $3 AND q.position > $4"),
                    part("q.priority < $3"),
                ]
                .join(" UNION ALL "),
                "i.priority DESC, i.position",
            ))
            .bind::<SqlUuid, _>(of.id)
            .bind::<BigInt, _>(fetch(self.limit))
            .bind::<Integer, _>(priority)
            .bind::<BigInt, _>(position)
            .load(conn)?;
        }
        if rows.len() <= self.limit {
            let (at, position) = match self.after {
                Some(ContactCursor::Asleep(at, position)) => (at, position),
                _ => (DateTime::<Utc>::UNIX_EPOCH, 0),
            };
            let asleep: Vec<Row> = sql_query(of_list(
                &format!(
                    "SELECT {} FROM call_queue q WHERE q.campaign_id = $1 \
                         AND q.call_type = 'campaign' AND q.wakes_at IS NOT NULL \
                         AND (q.wakes_at, q.position) > ($3, $4) \
                     ORDER BY q.wakes_at, q.position LIMIT $2",
                    Row::WAITING
                ),
                "i.wakes_at, i.position",
            ))
            .bind::<SqlUuid, _>(of.id)
            .bind::<BigInt, _>(fetch(self.limit - rows.len()))
            .bind::<Timestamptz, _>(at)
            .bind::<BigInt, _>(position)
            .load(conn)?;
            rows.extend(asleep);
        }
        Ok(self.cut(rows, |row| match row.wakes_at {
            None => ContactCursor::Due(row.priority, row.position),
            Some(at) => ContactCursor::Asleep(at, row.position),
        }))
    }

    /// A user's few slots.
    fn up(&self, conn: &mut PgConnection, of: &Shown) -> QueryResult<Found> {
        let (since, call) = match self.after {
            Some(ContactCursor::Up(since, call)) => (since, call),
            _ => (DateTime::<Utc>::UNIX_EPOCH, Uuid::nil()),
        };
        let rows: Vec<Row> = sql_query(of_list(
            &format!(
                "SELECT {} FROM active_calls a WHERE a.user_id = $2 AND a.campaign_id = $1 \
                     AND (a.reserved_at, a.call_id) > ($4, $5) \
                 ORDER BY a.reserved_at, a.call_id LIMIT $3",
                Row::UP
            ),
            "i.started_at, i.call_id",
        ))
        .bind::<SqlUuid, _>(of.id)
        .bind::<SqlUuid, _>(of.user)
        .bind::<BigInt, _>(fetch(self.limit))
        .bind::<Timestamptz, _>(since)
        .bind::<SqlUuid, _>(call)
        .load(conn)?;
        Ok(self.cut(rows, |row| {
            let since = row.started_at.unwrap_or(DateTime::UNIX_EPOCH);
            ContactCursor::Up(since, row.call_id.unwrap_or_default())
        }))
    }

    /// The last to end first. Contacts that were queued again are passed over, a few pages of them
    /// at most: then the page is short, and leads on.
    fn over(
        &self,
        conn: &mut PgConnection,
        of: &Shown,
        status: ContactStatus,
    ) -> QueryResult<Found> {
        let mut after = match self.after {
            Some(ContactCursor::Over(at, item)) => (at, item),
            _ => (DateTime::<Utc>::MAX_UTC, Uuid::max()),
        };
        let mut found: Vec<Row> = Vec::new();
        for _ in 0..LOOKS {
            let seen = over_chunk(conn, of, status, after, fetch(self.limit))?;
            let is_end = seen.len() <= self.limit;
            for row in seen {
                let at = row.finished_at.unwrap_or(DateTime::UNIX_EPOCH);
                if row.is_last && found.len() == self.limit {
                    return Ok((found, Some(ContactCursor::Over(after.0, after.1))));
                }
                after = (at, row.item_id);
                if row.is_last {
                    found.push(row);
                }
            }
            if is_end {
                return Ok((found, None));
            }
        }
        Ok((found, Some(ContactCursor::Over(after.0, after.1))))
    }

    /// The page, and where the next begins.
    fn cut(&self, mut rows: Vec<Row>, cursor: impl Fn(&Row) -> ContactCursor) -> Found {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(cursor);
        (rows, next)
    }
}

/// The contacts of a page, and where the next begins.
type Found = (Vec<Row>, Option<ContactCursor>);

#[derive(QueryableByName)]
struct OrdinalRow {
    #[diesel(sql_type = BigInt)]
    ordinal: i64,
}

/// What to select of an item `i`, of what the list says of its contact, `m`, and of what came before
/// it, `e`.
const COLUMNS: &str = "coalesce(i.of_contact, '00000000-0000-0000-0000-000000000000') AS contact_id, \
    coalesce(m.earlier_attempts, 0)::integer AS earlier_attempts, i.item_id, i.phone_number, \
    i.contact_name, i.status, i.attempts, coalesce(i.outcome, e.outcome) AS outcome, \
    coalesce(i.reason, e.reason) AS reason, i.call_id, i.wakes_at, i.started_at, i.finished_at, \
    i.priority, i.position";

/// What the list says of the contact of an item `i`: looked up for each, however few there seem to be.
const LISTED: &str = "LEFT JOIN LATERAL (SELECT k.* FROM campaign_contacts k \
    WHERE k.campaign_id = $1 AND k.contact_id = i.of_contact OFFSET 0) m ON true";

/// How a contact's last call ended, of this item or the one before, while the present one has not.
const EARLIER: &str = "LEFT JOIN LATERAL (SELECT b.outcome, b.reason FROM call_queue_history b \
    WHERE b.id IN (i.item_id, m.earlier_item_id) AND i.finished_at IS NULL \
    ORDER BY b.finished_at DESC LIMIT 1) e ON true";

/// Items of a campaign `$1` with what the list says of their contacts.
fn of_list(items: &str, order: &str) -> String {
    format!(
        "SELECT {COLUMNS}, true AS is_last FROM ({items}) i \
         {LISTED} \
         {EARLIER} ORDER BY {order}"
    )
}

/// Items of a campaign that ended as `status`, before `after`, and whether each is the last of its
/// contact.
fn over_chunk(
    conn: &mut PgConnection,
    of: &Shown,
    status: ContactStatus,
    after: (DateTime<Utc>, Uuid),
    limit: i64,
) -> QueryResult<Vec<Row>> {
    sql_query(format!(
        "SELECT {COLUMNS}, i.item_id IS NOT DISTINCT FROM m.item_id \
             AND NOT EXISTS (SELECT FROM call_queue q WHERE q.id = i.item_id) \
             AND NOT EXISTS (SELECT FROM active_calls a WHERE a.call_id = i.item_id) \
             AND NOT EXISTS (SELECT FROM active_calls a \
                 WHERE a.item_id = i.item_id AND a.item_id <> a.call_id) \
             AND NOT EXISTS (SELECT FROM call_queue_history l \
                 WHERE l.id = i.item_id AND l.finished_at > i.finished_at) AS is_last \
         FROM (SELECT {over} FROM call_queue_history h \
             WHERE h.campaign_id = $1 AND h.status = $2 AND h.finished_at >= $3 \
                 AND (h.finished_at, h.id) < ($4, $5) \
             ORDER BY h.finished_at DESC, h.id DESC LIMIT $6) i \
         {LISTED} \
         {EARLIER} ORDER BY i.finished_at DESC, i.item_id DESC",
        over = Row::OVER,
    ))
    .bind::<SqlUuid, _>(of.id)
    .bind::<Text, _>(status.as_str())
    .bind::<Timestamptz, _>(of.created_at)
    .bind::<Timestamptz, _>(after.0)
    .bind::<SqlUuid, _>(after.1)
    .bind::<BigInt, _>(limit)
    .load(conn)
}
