//! A user's queue in figures. What waits and runs is read from kept counters, what ended from the
//! history of one day, so the cost grows with the day and not with the years.

use callq_domain::{CallType, ItemStatus, QueueStatistics};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use super::load_of;
use crate::Failure;
use crate::rows::{count, unreadable};

#[derive(QueryableByName)]
struct EndedRow {
    #[diesel(sql_type = Text)]
    call_type: String,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = BigInt)]
    items: i64,
}

#[derive(QueryableByName)]
struct LastHourRow {
    #[diesel(sql_type = BigInt)]
    started: i64,
    #[diesel(sql_type = BigInt)]
    finished: i64,
    #[diesel(sql_type = Nullable<Array<Double>>)]
    wait_seconds: Option<Vec<f64>>,
}

pub(super) fn queue_statistics_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
) -> Result<QueueStatistics, Failure> {
    let counts = counts(conn, user)?;
    let hour = last_hour(conn, user)?;
    let wait_seconds = match hour.wait_seconds.as_deref() {
        None => None,
        Some(&[p50, p90, p99]) => Some([p50, p90, p99]),
        Some(other) => return Err(unreadable("wait_seconds", other.len())),
    };
    Ok(QueueStatistics {
        counts,
        wait_seconds,
        started_per_minute: per_minute(hour.started),
        finished_per_minute: per_minute(hour.finished),
    })
}

/// Every type with every status, the empty ones too.
fn counts(
    conn: &mut PgConnection,
    user: Uuid,
) -> Result<Vec<(CallType, ItemStatus, u64)>, Failure> {
    let load = load_of(conn, user)?;
    let ended: Vec<EndedRow> = sql_query(
        "SELECT call_type::text AS call_type, status, count(*) AS items FROM call_queue_history \
         WHERE user_id = $1 AND was_call IN (true, false) AND NOT retried \
             AND finished_at > now() - interval '24 hours' \
         GROUP BY call_type, status",
    )
    .bind::<SqlUuid, _>(user)
    .load(conn)?;
    let mut counts = Vec::with_capacity(CallType::ALL.len() * ItemStatus::ALL.len());
    for call_type in CallType::ALL {
        let live = match call_type {
            CallType::Direct => load.direct()?,
            CallType::Campaign => load.campaign()?,
        };
        for status in ItemStatus::ALL {
            let items = match status {
                ItemStatus::Queued => live.queued,
                ItemStatus::Processing => live.processing,
                ended_status => {
                    let row = ended.iter().find(|row| {
                        row.call_type == call_type.as_str() && row.status == ended_status.as_str()
                    });
                    row.map_or(Ok(0), |row| count("call_queue_history", row.items))?
                }
            };
            counts.push((call_type, status, items));
        }
    }
    Ok(counts)
}

/// What started within the hour either still runs or ended within the hour. A campaign's call
/// waits from the campaign's start at the earliest.
fn last_hour(conn: &mut PgConnection, user: Uuid) -> QueryResult<LastHourRow> {
    sql_query(
        "WITH items AS ( \
             SELECT campaign_id, due_since, reserved_at AS started_at, \
                 NULL::timestamptz AS finished_at \
             FROM active_calls WHERE user_id = $1 \
             UNION ALL \
             SELECT campaign_id, due_since, reserved_at, finished_at FROM call_queue_history \
             WHERE user_id = $1 AND finished_at > now() - interval '1 hour' \
                 AND was_call \
         ), started AS ( \
             SELECT extract(epoch FROM i.started_at - greatest(i.due_since, c.started_at)) AS waited \
             FROM items i LEFT JOIN campaigns c ON c.id = i.campaign_id \
             WHERE i.started_at > now() - interval '1 hour' \
         ) \
         SELECT count(*) AS started, (SELECT count(finished_at) FROM items) AS finished, \
             percentile_cont(ARRAY[0.5, 0.9, 0.99]) \
                 WITHIN GROUP (ORDER BY greatest(waited, 0)::double precision) AS wait_seconds \
         FROM started",
    )
    .bind::<SqlUuid, _>(user)
    .get_result(conn)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of one hour, far below 2^52"
)]
fn per_minute(of_an_hour: i64) -> f64 {
    of_an_hour as f64 / 60.0
}
