//! Calls, live and ended.

use async_trait::async_trait;
use callq_domain::{
    Call, CallId, CallStore, CallTransition, Page, PageRequest, StoreError, UserId,
};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::cursor::{CallCursor, fetch, page_size};
use crate::rows::call::TransitionRow;
use crate::{Failure, PostgresStore};

pub(crate) use crate::rows::call::CallRow;

#[async_trait]
impl CallStore for PostgresStore {
    /// Calls that are up, the last to start first, then those that ended, the last to end first.
    /// One that went back to the queue is not listed while it waits there, but
    /// [`CallStore::call`] finds it.
    async fn calls(&self, user: UserId, page: PageRequest) -> Result<Page<Call>, StoreError> {
        let page = CallPage::new(&page)?;
        self.database
            .run(move |conn| page.load(conn, user.as_uuid()))
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
}

/// Which calls make a page.
struct CallPage {
    after: Option<CallCursor>,
    limit: usize,
}

impl CallPage {
    fn new(page: &PageRequest) -> Result<Self, StoreError> {
        Ok(Self {
            after: page.cursor.as_deref().map(CallCursor::read).transpose()?,
            limit: page_size(page),
        })
    }

    fn load(&self, conn: &mut PgConnection, user: Uuid) -> Result<Page<Call>, Failure> {
        let mut rows: Vec<CallRow> = match self.after {
            Some(after) if after.is_over => Vec::new(),
            after => self.select(
                conn,
                user,
                CallRow::SELECT_LIVE,
                ("reserved_at", "call_id"),
                after,
            )?,
        };
        if rows.len() <= self.limit {
            let after = self.after.filter(|after| after.is_over);
            let ended = format!("{} WHERE was_call AND", CallRow::SELECT_ENDED);
            rows.extend(self.select(conn, user, &ended, ("finished_at", "id"), after)?);
        }
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| {
            let cursor = CallCursor {
                is_over: last.is_over(),
                at: last.listed_at(),
                id: if last.is_over() {
                    last.item_id
                } else {
                    last.id
                },
            };
            cursor.write()
        });
        let items = rows
            .into_iter()
            .map(CallRow::into_call)
            .collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor })
    }

    fn select(
        &self,
        conn: &mut PgConnection,
        user: Uuid,
        select: &str,
        (at, id): (&str, &str),
        after: Option<CallCursor>,
    ) -> QueryResult<Vec<CallRow>> {
        let glue = if select.ends_with("AND") { "" } else { "WHERE" };
        sql_query(format!(
            "{select} {glue} user_id = $1 AND ({at}, {id}) < (coalesce($2, 'infinity'), $3) \
             ORDER BY {at} DESC, {id} DESC LIMIT $4"
        ))
        .bind::<SqlUuid, _>(user)
        .bind::<Nullable<Timestamptz>, _>(after.map(|after| after.at))
        .bind::<SqlUuid, _>(after.map_or(Uuid::max(), |after| after.id))
        .bind::<BigInt, _>(fetch(self.limit))
        .load(conn)
    }
}

pub(crate) fn find(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
    default_provider: &str,
) -> QueryResult<Option<CallRow>> {
    let recorded: Option<CallRow> = sql_query(format!(
        "{live} WHERE call_id = $1 AND user_id = $2 \
         UNION ALL \
         {ended} WHERE id = $1 AND call_id = $1 AND user_id = $2 AND was_call \
         UNION ALL \
         {ended} WHERE call_id = $1 AND call_id <> id AND user_id = $2 AND was_call",
        live = CallRow::SELECT_LIVE,
        ended = CallRow::SELECT_ENDED,
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
        phone_number, contact_name, reason, attempts::integer AS attempts, due_since, trail";
    let withdrawn = format!("SELECT {columns}, finished_at FROM call_queue_history");
    sql_query(format!(
        "SELECT q.call_id AS id, q.id AS item_id, q.user_id, q.agent_id, q.contact_id, \
             q.call_type::text AS call_type, q.campaign_id, q.phone_number, q.contact_name, \
             coalesce((SELECT provider FROM agents WHERE id = q.agent_id), $3) AS provider, \
             NULL::text AS execution_id, \
             CASE WHEN q.finished_at IS NULL THEN 'reserved' ELSE 'cancelled' END AS status, \
             q.reason, q.attempts, \
             coalesce((SELECT max(t.at) FROM unnest(q.trail) t WHERE t.status = 'reserved'), \
                 q.due_since) AS reserved_at, \
             NULL::timestamptz AS answered_at, q.finished_at AS ended_at, \
             NULL::integer AS duration_seconds \
         FROM ( \
             SELECT {columns}, NULL::timestamptz AS finished_at FROM call_queue \
             WHERE call_id = $1 AND user_id = $2 \
             UNION ALL \
             {withdrawn} WHERE id = $1 AND call_id = $1 AND user_id = $2 AND NOT was_call \
             UNION ALL \
             {withdrawn} WHERE call_id = $1 AND call_id <> id AND user_id = $2 AND NOT was_call \
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
         WHERE item_id = $1 AND call_id = $2 ORDER BY nth",
    )
    .bind::<SqlUuid, _>(item_id)
    .bind::<SqlUuid, _>(call_id)
    .load(conn)?;
    rows.into_iter()
        .map(TransitionRow::into_transition)
        .collect()
}
