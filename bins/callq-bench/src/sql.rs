//! Every statement the bench sends itself, in one place: what it seeds beside callq's own paths,
//! what it reads off the server, and what it asks the records afterwards. Here is what to change
//! when the schema does.

use callq_domain::{CallType, UserId};
use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Double, Integer, Text, Uuid as SqlUuid};
use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_query};
use uuid::Uuid;

use crate::numbering::{AGENT, CONTACT, USER, id_sql, phone_sql};

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = Double)]
    number: f64,
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

fn number(conn: &mut PgConnection, query: &str) -> QueryResult<f64> {
    sql_query(query)
        .get_result::<NumberRow>(conn)
        .map(|row| row.number)
}

fn count(conn: &mut PgConnection, query: &str) -> QueryResult<i64> {
    sql_query(query)
        .get_result::<CountRow>(conn)
        .map(|row| row.count)
}

// What is seeded ---------------------------------------------------------------------------------

/// Users from 0 on, each with an agent of the same number.
pub(crate) fn insert_users(conn: &mut PgConnection, users: u32, limit: u32) -> QueryResult<()> {
    sql_query(format!(
        "INSERT INTO users (id, email, concurrent_calls_limit) \
         SELECT {}, 'user' || n || '@bench.invalid', $2 FROM generate_series(0, $1 - 1) n",
        id_sql(USER, "n")
    ))
    .bind::<Integer, _>(users.cast_signed())
    .bind::<Integer, _>(limit.cast_signed())
    .execute(conn)?;
    sql_query(format!(
        "INSERT INTO agents (id, user_id, name) SELECT {}, {}, 'agent ' || n \
         FROM generate_series(0, $1 - 1) n",
        id_sql(AGENT, "n"),
        id_sql(USER, "n")
    ))
    .bind::<Integer, _>(users.cast_signed())
    .execute(conn)
    .map(drop)
}

/// Contacts `from` to `until`, dealt out to the users in turn.
pub(crate) fn insert_contacts(
    conn: &mut PgConnection,
    from: u32,
    until: u32,
    users: u32,
) -> QueryResult<()> {
    sql_query(format!(
        "INSERT INTO contacts (id, user_id, phone_number, name) \
         SELECT {}, {}, {}, 'Person ' || n FROM generate_series($1, $2 - 1) n",
        id_sql(CONTACT, "n"),
        id_sql(USER, "(n - $1) % $3"),
        phone_sql("n")
    ))
    .bind::<Integer, _>(from.cast_signed())
    .bind::<Integer, _>(until.cast_signed())
    .bind::<Integer, _>(users.cast_signed())
    .execute(conn)
    .map(drop)
}

/// Lays the waiting calls out in the heap in random order. A campaign's calls are stored side by
/// side otherwise, and so are a user's.
pub(crate) fn shuffle_queue(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute(
        "BEGIN; \
         SELECT setseed(0.5); \
         SET LOCAL session_replication_role = replica; \
         CREATE TEMPORARY TABLE shuffled ON COMMIT DROP AS SELECT * FROM call_queue; \
         TRUNCATE call_queue CASCADE; \
         INSERT INTO call_queue SELECT * FROM shuffled ORDER BY random(); \
         COMMIT",
    )
}

/// What autovacuum would have done by itself between a campaign's making and its start.
pub(crate) fn vacuum(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute("VACUUM ANALYZE")
}

// What the server says ---------------------------------------------------------------------------

/// Bytes of WAL written since the cluster was made.
pub(crate) fn wal_position(conn: &mut PgConnection) -> QueryResult<f64> {
    number(
        conn,
        "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::double precision AS number",
    )
}

pub(crate) fn transactions(conn: &mut PgConnection) -> QueryResult<f64> {
    number(
        conn,
        "SELECT xact_commit::double precision AS number FROM pg_stat_database \
         WHERE datname = current_database()",
    )
}

// What the records say ---------------------------------------------------------------------------

/// Rows of the view that is empty always.
pub(crate) fn priority_violations(conn: &mut PgConnection) -> QueryResult<i64> {
    count(conn, "SELECT count(*) AS count FROM priority_violations")
}

/// Campaign calls that were given a slot while a direct call of the same user waited. A decision is
/// made at one instant, which all it decides bears as its time, so times alone tell.
pub(crate) fn inversions(conn: &mut PgConnection) -> QueryResult<i64> {
    count(
        conn,
        "SELECT count(*) AS count FROM ( \
             SELECT at, ends, max(ends) OVER (PARTITION BY user_id ORDER BY at \
                 RANGE BETWEEN UNBOUNDED PRECEDING AND '1 microsecond' PRECEDING) AS waits_until \
             FROM ( \
                 SELECT user_id, coalesce(scheduled_for, queued_at) AS at, \
                     coalesce(started_at, finished_at, 'infinity') AS ends \
                 FROM queue_items WHERE call_type = 'direct' \
                 UNION ALL \
                 SELECT user_id, started_at, NULL FROM queue_items \
                 WHERE call_type = 'campaign' AND started_at IS NOT NULL \
             ) i \
         ) c \
         WHERE ends IS NULL AND waits_until > at",
    )
}

/// Starts on record that took more slots than there were: of a user, and in all. A slot is held from
/// the decision that gave it to the decision that freed it; one decision frees before it gives.
pub(crate) fn starts_over_limits(
    conn: &mut PgConnection,
    user_limit: u32,
    system_limit: u32,
) -> QueryResult<(i64, i64)> {
    #[derive(QueryableByName)]
    struct OverRow {
        #[diesel(sql_type = BigInt)]
        of_user: i64,
        #[diesel(sql_type = BigInt)]
        of_all: i64,
    }
    let row: OverRow = sql_query(
        "SELECT count(*) FILTER (WHERE of_user > $1) AS of_user, \
             count(*) FILTER (WHERE of_all > $2) AS of_all \
         FROM ( \
             SELECT step, sum(step) OVER (PARTITION BY user_id ORDER BY at, step \
                     ROWS UNBOUNDED PRECEDING) AS of_user, \
                 sum(step) OVER (ORDER BY at, step ROWS UNBOUNDED PRECEDING) AS of_all \
             FROM ( \
                 SELECT user_id, reserved_at AS at, 1 AS step FROM call_records \
                 UNION ALL \
                 SELECT user_id, ended_at, -1 FROM call_records WHERE ended_at IS NOT NULL \
             ) moves \
         ) held \
         WHERE step = 1",
    )
    .bind::<Integer, _>(user_limit.cast_signed())
    .bind::<Integer, _>(system_limit.cast_signed())
    .get_result(conn)?;
    Ok((row.of_user, row.of_all))
}

/// Calls on record that ended as completed.
pub(crate) fn completed_calls(conn: &mut PgConnection) -> QueryResult<i64> {
    count(
        conn,
        "SELECT count(*) AS count FROM call_records WHERE status = 'completed'",
    )
}

/// Items that wait.
pub(crate) fn waiting(conn: &mut PgConnection) -> QueryResult<i64> {
    count(
        conn,
        "SELECT count(*) AS count FROM queue_items WHERE status = 'queued'",
    )
}

/// About `samples` waiting items of a user and type, spread over its queue, each with its place.
pub(crate) fn places(
    conn: &mut PgConnection,
    user: UserId,
    call_type: CallType,
    samples: u32,
) -> QueryResult<Vec<(Uuid, u64)>> {
    #[derive(QueryableByName)]
    struct PlaceRow {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
        #[diesel(sql_type = BigInt)]
        nth: i64,
    }
    let rows: Vec<PlaceRow> = sql_query(
        "SELECT id, nth FROM ( \
             SELECT id, row_number() OVER w AS nth, count(*) OVER () AS total FROM queue_items \
             WHERE user_id = $1 AND call_type = $2::call_type AND status = 'queued' \
             WINDOW w AS (ORDER BY priority DESC, position) \
         ) i \
         WHERE (nth - 1) % greatest(1, total / $3) = 0 ORDER BY md5(id::text)",
    )
    .bind::<SqlUuid, _>(user.as_uuid())
    .bind::<Text, _>(call_type.as_str())
    .bind::<Integer, _>(samples.cast_signed())
    .load(conn)?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, row.nth.unsigned_abs()))
        .collect())
}

/// Items by whether they are over.
pub(crate) fn items(conn: &mut PgConnection, over: bool) -> QueryResult<i64> {
    let compare = if over { "NOT IN" } else { "IN" };
    count(
        conn,
        &format!(
            "SELECT count(*) AS count FROM queue_items \
             WHERE status {compare} ('queued', 'processing')"
        ),
    )
}

// What grows --------------------------------------------------------------------------------------

/// The tables that every call changes; the others only grow.
const HOT_TABLES: &str = "'system_state', 'user_slots', 'campaign_slots', 'campaign_tallies', \
    'ready_lanes', 'lane_gaps', 'call_queue', 'active_calls'";

/// How large the hot tables are, and what lies dead in them.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub(crate) struct Sizes {
    #[diesel(sql_type = Double)]
    pub table_bytes: f64,
    #[diesel(sql_type = Double)]
    pub index_bytes: f64,
    #[diesel(sql_type = Double)]
    pub dead_rows: f64,
    /// Of everything in the database.
    #[diesel(sql_type = Double)]
    pub database_bytes: f64,
    #[diesel(sql_type = Double)]
    pub oldest_snapshot_seconds: f64,
}

pub(crate) fn sizes(conn: &mut PgConnection) -> QueryResult<Sizes> {
    sql_query(format!(
        "SELECT coalesce(sum(pg_table_size(relid)), 0)::double precision AS table_bytes, \
             coalesce(sum(pg_indexes_size(relid)), 0)::double precision AS index_bytes, \
             coalesce(sum(n_dead_tup), 0)::double precision AS dead_rows, \
             pg_database_size(current_database())::double precision AS database_bytes, \
             (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) \
                 FROM pg_stat_activity WHERE backend_xmin IS NOT NULL \
                     AND datname = current_database() AND pid <> pg_backend_pid() \
             )::double precision AS oldest_snapshot_seconds \
         FROM pg_stat_user_tables WHERE relname IN ({HOT_TABLES})"
    ))
    .get_result(conn)
}
