//! Which servers live, and what the dead ones left: leases by the database's clock.

use std::time::Duration;

use async_trait::async_trait;
use callq_domain::{Attempt, Call, DoubtfulCall, OwnershipStore, ServerId, StoreError};
use diesel::connection::SimpleConnection;
use diesel::sql_types::{Array, BigInt, Integer, Uuid as SqlUuid};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use uuid::Uuid;

use crate::calls::CallRow;
use crate::campaigns::withdraw_cancelled_campaigns_chunk;
use crate::{Failure, PostgresStore, functions};

#[async_trait]
impl OwnershipStore for PostgresStore {
    async fn renew_lease(&self, server: ServerId, lease: Duration) -> Result<(), StoreError> {
        let lease_ms = millis(lease);
        self.engine
            .run(move |conn| Ok(functions::renew_lease(conn, server.as_uuid(), lease_ms)?))
            .await
    }

    async fn retire(&self, server: ServerId) -> Result<(), StoreError> {
        self.database
            .run(move |conn| {
                // Its row stays until what it leaves behind has been taken over.
                sql_query("UPDATE servers SET lease_until = clock_timestamp() WHERE id = $1")
                    .bind::<SqlUuid, _>(server.as_uuid())
                    .execute(conn)?;
                Ok(())
            })
            .await
    }

    async fn retire_others(&self, server: ServerId) -> Result<u64, StoreError> {
        self.database
            .run(move |conn| {
                let retired = sql_query(
                    "UPDATE servers SET lease_until = clock_timestamp() \
                     WHERE id <> $1 AND lease_until > clock_timestamp()",
                )
                .bind::<SqlUuid, _>(server.as_uuid())
                .execute(conn)?;
                Ok(retired as u64)
            })
            .await
    }

    async fn adopt_orphans(&self, server: ServerId) -> Result<Vec<Call>, StoreError> {
        self.database
            .run(move |conn| {
                let adopted = functions::adopt_orphans(conn, server.as_uuid())?;
                if adopted.is_empty() {
                    return Ok(Vec::new());
                }
                let rows: Vec<CallRow> =
                    sql_query(format!("{} WHERE call_id = ANY ($1)", CallRow::SELECT_LIVE))
                        .bind::<Array<SqlUuid>, _>(adopted)
                        .load(conn)?;
                rows.into_iter().map(CallRow::into_call).collect()
            })
            .await
    }

    async fn doubtful_calls(
        &self,
        server: ServerId,
        max_age: Duration,
    ) -> Result<Vec<DoubtfulCall>, StoreError> {
        let max_age_ms = millis(max_age);
        self.database
            .run(move |conn| doubtful_calls_on_conn(conn, server.as_uuid(), max_age_ms))
            .await
    }

    async fn withdraw_left_over(&self) -> Result<(), StoreError> {
        while self
            .database
            .run(withdraw_cancelled_campaigns_chunk)
            .await?
        {}
        self.work_out_hours().await
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        self.database
            .run(|conn| {
                // Behind a long read this would make every settlement wait: rather next hour.
                conn.batch_execute("SET LOCAL lock_timeout = '2s'")?;
                functions::create_history_partitions(conn)?;
                sql_query(
                    "DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'",
                )
                .execute(conn)?;
                Ok(())
            })
            .await?;
        self.withdraw_left_over().await?;
        self.database
            .run(|conn| Ok(functions::forget_number_calls(conn)?))
            .await?;
        let mut lane = Some(Uuid::nil());
        while let Some(after) = lane {
            lane = self
                .database
                .run(move |conn| {
                    functions::lock_engine(conn)?;
                    Ok(functions::forget_gaps(conn, after)?)
                })
                .await?;
        }
        Ok(())
    }

    async fn mark_overdue(&self, server: ServerId, attempt: Attempt) -> Result<(), StoreError> {
        self.database
            .run(move |conn| {
                sql_query(
                    "UPDATE active_calls SET overdue = true \
                     WHERE call_id = $1 AND attempt = $2 AND owner = $3",
                )
                .bind::<SqlUuid, _>(attempt.call_id.as_uuid())
                .bind::<Integer, _>(i32::try_from(attempt.number).unwrap_or(i32::MAX))
                .bind::<SqlUuid, _>(server.as_uuid())
                .execute(conn)?;
                Ok(())
            })
            .await
    }
}

/// Older than this no call is, in milliseconds: some 300 years.
const EVER: i64 = 10_000_000_000_000;

/// A call and how long it has held its slot, both by the database's clock: this machine's may be
/// an hour off.
#[derive(QueryableByName)]
struct AgedRow {
    #[diesel(embed)]
    call: CallRow,
    #[diesel(sql_type = BigInt)]
    age_ms: i64,
}

fn doubtful_calls_on_conn(
    conn: &mut PgConnection,
    server: Uuid,
    max_age_ms: i64,
) -> Result<Vec<DoubtfulCall>, Failure> {
    let rows: Vec<AgedRow> = sql_query(format!(
        "SELECT a.*, \
             greatest(0, extract(epoch FROM clock_timestamp() - a.reserved_at) * 1000)::bigint AS age_ms \
         FROM ({live} WHERE owner = $1 AND unknown_since IS NOT NULL \
             UNION \
             {live} WHERE owner = $1 AND $2 < {EVER} \
                 AND reserved_at < clock_timestamp() - make_interval(secs => $2 / 1000.0)) a",
        live = CallRow::SELECT_LIVE
    ))
    .bind::<SqlUuid, _>(server)
    .bind::<BigInt, _>(max_age_ms)
    .load(conn)?;
    rows.into_iter()
        .map(|row| {
            let age = Duration::from_millis(u64::try_from(row.age_ms).unwrap_or(0));
            let call = row.call.into_call()?;
            Ok(DoubtfulCall {
                attempt: Attempt {
                    call_id: call.id,
                    number: call.attempts,
                },
                age,
                call,
            })
        })
        .collect()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
