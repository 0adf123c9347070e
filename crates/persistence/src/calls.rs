//! Calls, live and ended.

use async_trait::async_trait;
use callq_domain::{
    Call, CallId, CallStore, CallTransition, Page, PageRequest, StoreError, UserId,
};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::cursor::{IdPage, List};
use crate::rows::call::TransitionRow;
use crate::{Failure, PostgresStore};

pub(crate) use crate::rows::call::CallRow;

#[async_trait]
impl CallStore for PostgresStore {
    /// Calls that are up or ended. One that went back to the queue is not listed while it waits
    /// there, but [`CallStore::call`] finds it.
    async fn calls(&self, user: UserId, page: PageRequest) -> Result<Page<Call>, StoreError> {
        let page = IdPage::new(List::Calls, &page)?;
        self.database
            .run(move |conn| {
                let rows: Vec<CallRow> = sql_query(format!(
                    "{} WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                    CallRow::SELECT
                ))
                .bind::<SqlUuid, _>(user.as_uuid())
                .bind::<SqlUuid, _>(page.before)
                .bind::<BigInt, _>(page.fetch())
                .load(conn)?;
                page.of(rows, |row| row.id, CallRow::into_call)
            })
            .await
    }

    /// A call whose attempt reached nobody and whose item waits again is `reserved` still, since
    /// its slot will be the next thing it has, with the reason why it came back. If the item was
    /// withdrawn or expired while it waited, the call is `cancelled`.
    async fn call(
        &self,
        user: UserId,
        id: CallId,
    ) -> Result<Option<(Call, Vec<CallTransition>)>, StoreError> {
        let default_provider = self.default_provider.clone();
        self.database
            .run_long_read(move |conn| {
                let (user, id) = (user.as_uuid(), id.as_uuid());
                let Some(row) = find(conn, user, id, default_provider.as_str())? else {
                    return Ok(None);
                };
                let history = history(conn, row.item_id, id)?;
                Ok(Some((row.into_call()?, history)))
            })
            .await
    }

    async fn active_calls(&self) -> Result<Vec<Call>, StoreError> {
        self.database
            .run(|conn| {
                let rows: Vec<CallRow> = sql_query(format!(
                    "{} WHERE ended_at IS NULL ORDER BY reserved_at, id",
                    CallRow::SELECT
                ))
                .load(conn)?;
                rows.into_iter().map(CallRow::into_call).collect()
            })
            .await
    }
}

fn find(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
    default_provider: &str,
) -> QueryResult<Option<CallRow>> {
    let recorded: Option<CallRow> = sql_query(format!(
        "{} WHERE id = $1 AND user_id = $2",
        CallRow::SELECT
    ))
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(user)
    .get_result(conn)
    .optional()?;
    match recorded {
        Some(row) => Ok(Some(row)),
        None => find_returned(conn, user, id, default_provider),
    }
}

/// A call that has no record of its own: its item went back to the queue, and waits there or was
/// withdrawn from there.
fn find_returned(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
    default_provider: &str,
) -> QueryResult<Option<CallRow>> {
    let columns = "call_id, id, user_id, agent_id, contact_id, call_type, campaign_id, \
        phone_number, contact_name, reason, attempts, due_since, finished_at";
    sql_query(format!(
        "SELECT q.call_id AS id, q.id AS item_id, q.user_id, q.agent_id, q.contact_id, \
             q.call_type::text AS call_type, q.campaign_id, q.phone_number, q.contact_name, \
             coalesce((SELECT provider FROM agents WHERE id = q.agent_id), $3) AS provider, \
             NULL::text AS execution_id, \
             CASE WHEN q.finished_at IS NULL THEN 'reserved' ELSE 'cancelled' END AS status, \
             q.reason, q.attempts, \
             coalesce((SELECT max(e.at) FROM call_events e WHERE e.item_id = q.id \
                 AND e.call_id = q.call_id AND e.status = 'reserved'), q.due_since) AS reserved_at, \
             NULL::timestamptz AS answered_at, q.finished_at AS ended_at, \
             NULL::integer AS duration_seconds \
         FROM ( \
             SELECT {columns} FROM call_queue \
             WHERE call_id = $1 AND user_id = $2 AND status = 'queued' \
             UNION ALL \
             SELECT {columns} FROM call_queue_history \
             WHERE call_id = $1 AND user_id = $2 AND started_at IS NULL \
         ) q"
    ))
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(user)
    .bind::<Text, _>(default_provider)
    .get_result(conn)
    .optional()
}

/// What happened to a call, from the acceptance of its item on.
fn history(
    conn: &mut PgConnection,
    item_id: Uuid,
    call_id: Uuid,
) -> Result<Vec<CallTransition>, Failure> {
    let rows: Vec<TransitionRow> = sql_query(
        "SELECT status, at, reason, attempt, server FROM call_events \
         WHERE item_id = $1 AND (call_id = $2 OR call_id IS NULL) ORDER BY id",
    )
    .bind::<SqlUuid, _>(item_id)
    .bind::<SqlUuid, _>(call_id)
    .load(conn)?;
    rows.into_iter()
        .map(TransitionRow::into_transition)
        .collect()
}
