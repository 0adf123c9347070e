//! The queue as its owner sees it: at a glance, item by item, in figures.
//!
//! A draft's calls are laid out already but are not in the queue: nothing here counts or lists
//! them until the campaign is started.

mod items;
mod place;
mod statistics;

use async_trait::async_trait;
use callq_domain::{
    Concurrency, ItemFilter, ItemStatus, Page, PageRequest, PlacedItem, QueueItem, QueueItemId,
    QueueStatistics, QueueStatus, QueueStore, StoreError, UserId,
};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Uuid as SqlUuid;
use uuid::Uuid;

use crate::rows::item::ItemRow;
use crate::rows::system::ConcurrencyRow;
use crate::rows::user::LoadRow;
use crate::{Failure, PostgresStore, functions};

pub(crate) use place::placed;

/// Waiting and running calls of one user `s` of `user_slots`, for a select list.
pub(crate) const LOAD_COLUMNS: &str = "s.due_direct::bigint + s.later_direct AS direct_queued, \
    s.active_direct::bigint AS direct_processing, \
    (SELECT coalesce(sum(l.due::bigint + l.later), 0)::bigint \
        FROM campaigns c JOIN campaign_counts l ON l.campaign_id = c.id \
        WHERE c.user_id = s.user_id AND c.status <> 'draft') AS campaign_queued, \
    s.active_campaign::bigint AS campaign_processing";

#[async_trait]
impl QueueStore for PostgresStore {
    async fn queue_status(&self, user: UserId) -> Result<QueueStatus, StoreError> {
        self.database
            .run_long_read(move |conn| queue_status_on_conn(conn, user.as_uuid()))
            .await
    }

    async fn concurrency(&self, user: UserId) -> Result<Concurrency, StoreError> {
        self.database
            .run(move |conn| concurrency_on_conn(conn, user.as_uuid()))
            .await
    }

    async fn items(
        &self,
        user: UserId,
        filter: ItemFilter,
        page: PageRequest,
    ) -> Result<Page<QueueItem>, StoreError> {
        let page = items::ItemPage::new(filter, &page)?;
        self.database
            .run(move |conn| page.load(conn, user.as_uuid()))
            .await
    }

    async fn item(&self, user: UserId, id: QueueItemId) -> Result<Option<PlacedItem>, StoreError> {
        self.database
            .run_long_read(move |conn| {
                let Some(row) = find(conn, user.as_uuid(), id.as_uuid())? else {
                    return Ok(None);
                };
                placed(conn, row.into_item()?).map(Some)
            })
            .await
    }

    async fn queue_statistics(&self, user: UserId) -> Result<QueueStatistics, StoreError> {
        self.database
            .run_long_read(move |conn| statistics::queue_statistics_on_conn(conn, user.as_uuid()))
            .await
    }

    async fn cancel_item(
        &self,
        user: UserId,
        id: QueueItemId,
    ) -> Result<Result<QueueItem, ItemStatus>, StoreError> {
        self.database
            .run(move |conn| cancel_item_on_conn(conn, user.as_uuid(), id.as_uuid()))
            .await
    }
}

fn queue_status_on_conn(conn: &mut PgConnection, user: Uuid) -> Result<QueueStatus, Failure> {
    let load = load_of(conn, user)?;
    let next_direct: Option<ItemRow> = sql_query(format!(
        "SELECT {} FROM get_next_direct_call_queued($1)",
        ItemRow::WAITING
    ))
    .bind::<SqlUuid, _>(user)
    .get_result(conn)
    .optional()?;
    Ok(QueueStatus {
        direct: load.direct()?,
        campaign: load.campaign()?,
        next_direct: next_direct.map(ItemRow::into_item).transpose()?,
        concurrency: concurrency_on_conn(conn, user)?,
    })
}

fn load_of(conn: &mut PgConnection, user: Uuid) -> QueryResult<LoadRow> {
    sql_query(format!(
        "SELECT {LOAD_COLUMNS} FROM user_slots s WHERE s.user_id = $1"
    ))
    .bind::<SqlUuid, _>(user)
    .get_result(conn)
}

fn concurrency_on_conn(conn: &mut PgConnection, user: Uuid) -> Result<Concurrency, Failure> {
    sql_query(
        "SELECT u.concurrent_calls_limit AS user_limit, \
             s.active_direct + s.active_campaign AS user_active, u.direct_reserved_slots, \
             y.concurrent_calls_limit AS system_limit, y.active AS system_active \
         FROM users u JOIN user_slots s ON s.user_id = u.id CROSS JOIN system_state y \
         WHERE u.id = $1",
    )
    .bind::<SqlUuid, _>(user)
    .get_result::<ConcurrencyRow>(conn)?
    .into_concurrency()
}

pub(crate) fn find(conn: &mut PgConnection, user: Uuid, id: Uuid) -> QueryResult<Option<ItemRow>> {
    sql_query(ItemRow::by_id())
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(user)
        .get_result(conn)
        .optional()
}

fn cancel_item_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
) -> Result<Result<QueueItem, ItemStatus>, Failure> {
    // Looked at first without the lock that everyone shares: most of what cannot be cancelled
    // shows here.
    let seen = status_of(conn, user, id)?;
    if seen != ItemStatus::Queued {
        return Ok(Err(seen));
    }
    let at = functions::lock_engine(conn)?;
    let gone = functions::withdraw_items(conn, &[id], "cancelled", "cancelled by its owner", at)?;
    if gone.is_empty() {
        return Ok(Err(status_of(conn, user, id)?));
    }
    let row = find(conn, user, id)?.ok_or(StoreError::NotFound)?;
    row.into_item().map(Ok)
}

fn status_of(conn: &mut PgConnection, user: Uuid, id: Uuid) -> Result<ItemStatus, Failure> {
    let row = find(conn, user, id)?.ok_or(StoreError::NotFound)?;
    Ok(row.into_item()?.status)
}
