//! A user's items, waiting, processing and ended, in one order: direct before campaign, newest
//! due first. An item keeps its place in that order for life, so pages stay whole while items move
//! from the queue to its history.

use callq_domain::{CallType, ItemFilter, ItemStatus, Page, PageRequest, QueueItem, StoreError};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::Failure;
use crate::cursor::{ItemCursor, fetch, page_size};
use crate::rows::item::ItemRow;

/// Which items of a user make a page.
pub(super) struct ItemPage {
    filter: ItemFilter,
    after: Option<ItemCursor>,
    limit: usize,
}

impl ItemPage {
    /// Reads what a client asked.
    pub(super) fn new(filter: ItemFilter, page: &PageRequest) -> Result<Self, StoreError> {
        let after = page.cursor.as_deref().map(ItemCursor::read).transpose()?;
        Ok(Self {
            filter,
            after,
            limit: page_size(page),
        })
    }

    pub(super) fn load(
        &self,
        conn: &mut PgConnection,
        user: Uuid,
    ) -> Result<Page<QueueItem>, Failure> {
        let mut rows: Vec<ItemRow> = Vec::new();
        for call_type in CallType::ALL {
            let passed = self.after.is_some_and(|after| after.call_type > call_type);
            let wanted = self.filter.call_type.is_none_or(|only| only == call_type);
            if wanted && !passed && rows.len() <= self.limit {
                let left = fetch(self.limit - rows.len());
                rows.extend(self.load_type(conn, user, call_type, left)?);
            }
        }
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next_cursor = match rows.last().filter(|_| more) {
            None => None,
            Some(last) => {
                let cursor = ItemCursor {
                    call_type: last.call_type()?,
                    due_at: last.due_at,
                    id: last.id,
                };
                Some(cursor.write())
            }
        };
        let items = rows
            .into_iter()
            .map(ItemRow::into_item)
            .collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor })
    }

    /// The first `limit` items of one type, from the edges of an index of each table.
    fn load_type(
        &self,
        conn: &mut PgConnection,
        user: Uuid,
        call_type: CallType,
        limit: i64,
    ) -> QueryResult<Vec<ItemRow>> {
        let after = self.after.filter(|after| after.call_type == call_type);
        let tables: &[(&str, &str)] = match self.filter.status {
            None => &[QUEUE, ACTIVE, HISTORY],
            Some(ItemStatus::Queued) => &[QUEUE],
            Some(ItemStatus::Processing) => &[ACTIVE],
            Some(_) => &[HISTORY],
        };
        let parts: Vec<String> = tables
            .iter()
            .map(|(table, columns)| select_type(table, columns, call_type, after.is_some()))
            .collect();
        sql_query(format!(
            "SELECT * FROM ({}) q ORDER BY due_at DESC, id DESC LIMIT $4",
            parts.join(" UNION ALL ")
        ))
        .bind::<SqlUuid, _>(user)
        .bind::<Nullable<Text>, _>(self.filter.status.map(|status| status.as_str()))
        .bind::<Nullable<SqlUuid>, _>(self.filter.campaign_id.map(Uuid::from))
        .bind::<BigInt, _>(limit)
        .bind::<Timestamptz, _>(after.map_or(DateTime::<Utc>::UNIX_EPOCH, |after| after.due_at))
        .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), |after| after.id))
        .load(conn)
    }
}

/// A table an item may be in, and what to select of it.
const QUEUE: (&str, &str) = ("call_queue", ItemRow::WAITING);
const ACTIVE: (&str, &str) = ("active_calls", ItemRow::PROCESSING);
const HISTORY: (&str, &str) = ("call_queue_history", ItemRow::ENDED);

fn select_type(table: &str, columns: &str, call_type: CallType, is_later_page: bool) -> String {
    let id = if table == ACTIVE.0 { "item_id" } else { "id" };
    let after = if is_later_page {
        format!("(due_at, {id}) < ($5, $6)")
    } else {
        // Names the parameters all the same, so that their types are known.
        "($5::timestamptz IS NOT NULL AND $6::uuid IS NOT NULL)".into()
    };
    // The other tables each hold items of one status.
    let status = if table == HISTORY.0 {
        "NOT retried AND ($2::text IS NULL OR status = $2)"
    } else {
        "($2::text IS NULL OR true)"
    };
    // What is laid out for a campaign that is not started is not in the queue.
    let drafts = match call_type {
        CallType::Direct => "",
        CallType::Campaign => {
            "AND campaign_id <> ALL (ARRAY( \
                SELECT c.id FROM campaigns c WHERE c.user_id = $1 AND c.status = 'draft'))"
        }
    };
    format!(
        "(SELECT {columns} FROM {table} WHERE user_id = $1 AND call_type = '{call_type}' \
         AND {status} AND ($3::uuid IS NULL OR campaign_id = $3) \
         AND {after} {drafts} ORDER BY due_at DESC, {id} DESC LIMIT $4)"
    )
}
