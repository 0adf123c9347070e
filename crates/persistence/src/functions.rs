//! The one catalogue of the engine's SQL functions: a Rust function for each, of the same name.
//!
//! What each guarantees is said where it is defined, in `COMMENT ON FUNCTION`. Nothing here opens
//! a transaction. Statements are sent unnamed, parameters and all in one round trip, so that they
//! work through PgBouncer in transaction mode.

use chrono::{DateTime, Utc};
use diesel::pg::sql_types::Record;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_query};
use uuid::Uuid;

#[derive(QueryableByName)]
struct AtRow {
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
}

/// A row that is an id.
#[derive(QueryableByName)]
pub(crate) struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
}

/// A call with a slot, as the SQL type `reserved_call` tells it.
pub(crate) type ReservedCallRow = (
    Uuid,
    Uuid,
    i32,
    Uuid,
    Uuid,
    Option<Uuid>,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

type ReservedCallSql = Record<(
    SqlUuid,
    SqlUuid,
    Integer,
    SqlUuid,
    SqlUuid,
    Nullable<SqlUuid>,
    Text,
    Text,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<Text>,
)>;

/// What became of a direct call, as the SQL type `verdict` tells it: the number in its batch, the
/// verdict, the item, a number and a limit that go with it, how many stand ahead and in all, the
/// slots, the number and mean of calls known, when it wakes and expires, an answer kept.
pub(crate) type VerdictRow = (
    i64,
    Option<String>,
    Option<Uuid>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i32>,
    Option<i32>,
    Option<f64>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    Option<String>,
);

type VerdictSql = Record<(
    BigInt,
    Nullable<Text>,
    Nullable<SqlUuid>,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Nullable<Integer>,
    Nullable<Integer>,
    Nullable<Double>,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
    Nullable<Text>,
)>;

/// What `settle` answers.
#[derive(QueryableByName)]
pub(crate) struct SettledRow {
    #[diesel(sql_type = Nullable<Array<Text>>)]
    pub effects: Option<Vec<String>>,
    #[diesel(sql_type = Nullable<Array<VerdictSql>>)]
    pub returned: Option<Vec<VerdictRow>>,
    #[diesel(sql_type = Nullable<Array<VerdictSql>>)]
    pub verdicts: Option<Vec<VerdictRow>>,
    #[diesel(sql_type = Nullable<Array<ReservedCallSql>>)]
    pub door: Option<Vec<ReservedCallRow>>,
    #[diesel(sql_type = Nullable<Array<ReservedCallSql>>)]
    pub reserved: Option<Vec<ReservedCallRow>>,
    #[diesel(sql_type = Bool)]
    pub more: bool,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub next_timer_ms: Option<i64>,
    #[diesel(sql_type = Bool)]
    pub durable: bool,
    /// Unless it is durable: the [`Run`] of PostgreSQL that must flush it.
    #[diesel(sql_type = Nullable<Text>)]
    pub run: Option<String>,
}

/// What `settle_by_hand` answers.
#[derive(QueryableByName)]
pub(crate) struct SettledByHandRow {
    #[diesel(sql_type = Text)]
    pub effect: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub was: Option<String>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub at_attempt: Option<i32>,
}

/// What `list_do_not_call` answers.
#[derive(QueryableByName)]
pub(crate) struct ListedRow {
    #[diesel(sql_type = BigInt)]
    pub added: i64,
    #[diesel(sql_type = BigInt)]
    pub withdrawn: i64,
    #[diesel(sql_type = Bool)]
    pub more: bool,
}

/// What `record_progress` answers.
#[derive(QueryableByName)]
pub(crate) struct ProgressRow {
    #[diesel(sql_type = Nullable<Array<BigInt>>)]
    pub placed: Option<Vec<i64>>,
    #[diesel(sql_type = Nullable<Array<Text>>)]
    pub effects: Option<Vec<String>>,
    #[diesel(sql_type = Nullable<Array<BigInt>>)]
    pub lost: Option<Vec<i64>>,
}

/// One server's settlement, apart from its columns.
pub(crate) struct Settlement<'a> {
    pub server: Uuid,
    pub number: i64,
    pub answered: Option<i64>,
    pub provider: &'a str,
    pub limit: i32,
    pub disowned: Vec<Uuid>,
    pub endings: EndingColumns,
    pub returns: ReturnColumns,
    pub admissions: AdmissionColumns,
}

/// Direct calls at the door, column by column.
#[derive(Default)]
pub(crate) struct AdmissionColumns {
    pub items: Vec<Uuid>,
    pub users: Vec<Uuid>,
    pub agents: Vec<Uuid>,
    pub contacts: Vec<Option<Uuid>>,
    pub numbers: Vec<Option<String>>,
    pub names: Vec<Option<String>>,
    pub user_data: Vec<Option<String>>,
    pub caller_ids: Vec<Option<String>>,
    pub scheduled: Vec<Option<DateTime<Utc>>>,
    pub expires_ms: Vec<Option<i64>>,
    pub keys: Vec<Option<String>>,
    pub hashes: Vec<Option<Vec<u8>>>,
}

/// Calls that are over, column by column.
#[derive(Default)]
pub(crate) struct EndingColumns {
    pub calls: Vec<Uuid>,
    pub attempts: Vec<Option<i32>>,
    pub outcomes: Vec<&'static str>,
    pub executions: Vec<Option<String>>,
    pub reasons: Vec<Option<String>>,
    pub durations: Vec<Option<i32>>,
}

/// Attempts that reached nobody, column by column.
#[derive(Default)]
pub(crate) struct ReturnColumns {
    pub calls: Vec<Uuid>,
    pub attempts: Vec<i32>,
    pub delays_ms: Vec<i64>,
    pub reasons: Vec<String>,
    pub if_unknown: Vec<bool>,
}

/// An operator's word on one call; without an outcome it was never dialled.
pub(crate) struct HandSettlementColumns<'a> {
    pub id: Uuid,
    pub attempt: Option<i32>,
    pub outcome: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub force: bool,
}

/// Calls a provider took, column by column.
#[derive(Default)]
pub(crate) struct PlacedColumns {
    pub calls: Vec<Uuid>,
    pub attempts: Vec<i32>,
    pub executions: Vec<String>,
}

/// Status events, column by column.
#[derive(Default)]
pub(crate) struct EventColumns {
    pub calls: Vec<Uuid>,
    pub statuses: Vec<&'static str>,
    pub executions: Vec<Option<String>>,
    pub reasons: Vec<Option<String>>,
}

/// Attempts whose answer was lost, column by column.
#[derive(Default)]
pub(crate) struct UnknownColumns {
    pub calls: Vec<Uuid>,
    pub attempts: Vec<i32>,
    pub reasons: Vec<String>,
}

pub(crate) fn lock_engine(conn: &mut PgConnection) -> QueryResult<DateTime<Utc>> {
    sql_query("SELECT lock_engine() AS at")
        .get_result::<AtRow>(conn)
        .map(|row| row.at)
}

/// One statement, and a transaction by itself: the engine's lock is held no longer than it takes.
pub(crate) fn settle(
    conn: &mut PgConnection,
    it: Settlement<'_>,
    run: Run,
) -> QueryResult<SettledRow> {
    let (ends, returns, calls) = (it.endings, it.returns, it.admissions);
    sql_query(format!(
        "SELECT s.*, CASE WHEN NOT s.durable THEN {} END AS run \
         FROM settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
         $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29) s",
        run.sql()
    ))
    .bind::<SqlUuid, _>(it.server)
    .bind::<BigInt, _>(it.number)
    .bind::<Nullable<BigInt>, _>(it.answered)
    .bind::<Text, _>(it.provider)
    .bind::<Integer, _>(it.limit)
    .bind::<Array<SqlUuid>, _>(it.disowned)
    .bind::<Array<SqlUuid>, _>(ends.calls)
    .bind::<Array<Nullable<Integer>>, _>(ends.attempts)
    .bind::<Array<Text>, _>(ends.outcomes)
    .bind::<Array<Nullable<Text>>, _>(ends.executions)
    .bind::<Array<Nullable<Text>>, _>(ends.reasons)
    .bind::<Array<Nullable<Integer>>, _>(ends.durations)
    .bind::<Array<SqlUuid>, _>(returns.calls)
    .bind::<Array<Integer>, _>(returns.attempts)
    .bind::<Array<BigInt>, _>(returns.delays_ms)
    .bind::<Array<Text>, _>(returns.reasons)
    .bind::<Array<Bool>, _>(returns.if_unknown)
    .bind::<Array<SqlUuid>, _>(calls.items)
    .bind::<Array<SqlUuid>, _>(calls.users)
    .bind::<Array<SqlUuid>, _>(calls.agents)
    .bind::<Array<Nullable<SqlUuid>>, _>(calls.contacts)
    .bind::<Array<Nullable<Text>>, _>(calls.numbers)
    .bind::<Array<Nullable<Text>>, _>(calls.names)
    .bind::<Array<Nullable<Text>>, _>(calls.user_data)
    .bind::<Array<Nullable<Text>>, _>(calls.caller_ids)
    .bind::<Array<Nullable<Timestamptz>>, _>(calls.scheduled)
    .bind::<Array<Nullable<BigInt>>, _>(calls.expires_ms)
    .bind::<Array<Nullable<Text>>, _>(calls.keys)
    .bind::<Array<Nullable<Binary>>, _>(calls.hashes)
    .get_result(conn)
}

/// By what a settlement and its flush are known to be of one run of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// The backend: on a connection of our own it is the same, or the connection is broken.
    Backend,
    /// The node since its start, or its recovery from a crash, which ends with a checkpoint: behind
    /// a pooler, where each statement may get another backend. Any checkpoint counts as another
    /// run, which does no harm. It is read from a file, at a tenth of a settlement's cost.
    Node,
}

impl Run {
    /// An expression for it.
    const fn sql(self) -> &'static str {
        match self {
            Self::Backend => "pg_postmaster_start_time() || ' ' || pg_backend_pid()",
            Self::Node => {
                "pg_postmaster_start_time() || ' ' \
                 || (SELECT checkpoint_lsn FROM pg_control_checkpoint())"
            }
        }
    }
}

/// Waits until all that was committed before is on disk, and wherever else a commit has to be: a
/// synchronous standby is waited for too. Answers whether this is still the run of PostgreSQL that
/// made the commits: a pooler between us may have gone on to another, which never saw them.
pub(crate) fn flush(conn: &mut PgConnection, run: Run, told: Option<&str>) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct FlushedRow {
        #[diesel(sql_type = Bool)]
        same_run: bool,
    }
    // A transaction with nothing but a word in the log: its own commit waits for the log.
    let flushed: FlushedRow = sql_query(format!(
        "SELECT pg_logical_emit_message(true, 'callq', '') IS NOT NULL \
             AND coalesce($1 = {}, false) AS same_run",
        run.sql()
    ))
    .bind::<Nullable<Text>, _>(told)
    .get_result(conn)?;
    Ok(flushed.same_run)
}

/// One statement, and a transaction by itself.
pub(crate) fn record_progress(
    conn: &mut PgConnection,
    server: Uuid,
    placed: PlacedColumns,
    events: EventColumns,
    unknown: UnknownColumns,
) -> QueryResult<ProgressRow> {
    sql_query("SELECT * FROM record_progress($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
        .bind::<SqlUuid, _>(server)
        .bind::<Array<SqlUuid>, _>(placed.calls)
        .bind::<Array<Integer>, _>(placed.attempts)
        .bind::<Array<Text>, _>(placed.executions)
        .bind::<Array<SqlUuid>, _>(events.calls)
        .bind::<Array<Text>, _>(events.statuses)
        .bind::<Array<Nullable<Text>>, _>(events.executions)
        .bind::<Array<Nullable<Text>>, _>(events.reasons)
        .bind::<Array<SqlUuid>, _>(unknown.calls)
        .bind::<Array<Integer>, _>(unknown.attempts)
        .bind::<Array<Text>, _>(unknown.reasons)
        .get_result(conn)
}

pub(crate) fn settle_by_hand(
    conn: &mut PgConnection,
    it: HandSettlementColumns<'_>,
) -> QueryResult<SettledByHandRow> {
    sql_query("SELECT * FROM settle_by_hand($1, $2, $3, $4, $5)")
        .bind::<SqlUuid, _>(it.id)
        .bind::<Nullable<Integer>, _>(it.attempt)
        .bind::<Nullable<Text>, _>(it.outcome)
        .bind::<Nullable<Text>, _>(it.reason)
        .bind::<Bool, _>(it.force)
        .get_result(conn)
}

pub(crate) fn renew_lease(conn: &mut PgConnection, server: Uuid, lease_ms: i64) -> QueryResult<()> {
    sql_query("SELECT renew_lease($1, $2)")
        .bind::<SqlUuid, _>(server)
        .bind::<BigInt, _>(lease_ms)
        .execute(conn)
        .map(drop)
}

pub(crate) fn adopt_orphans(conn: &mut PgConnection, server: Uuid) -> QueryResult<Vec<Uuid>> {
    let rows: Vec<IdRow> = sql_query("SELECT adopt_orphans($1) AS id")
        .bind::<SqlUuid, _>(server)
        .load(conn)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

pub(crate) fn create_history_partitions(conn: &mut PgConnection) -> QueryResult<()> {
    sql_query("SELECT create_history_partitions()")
        .execute(conn)
        .map(drop)
}

/// From which lane to go on, if there may be more.
pub(crate) fn forget_gaps(conn: &mut PgConnection, after: Uuid) -> QueryResult<Option<Uuid>> {
    #[derive(QueryableByName)]
    struct LaneRow {
        #[diesel(sql_type = Nullable<SqlUuid>)]
        lane: Option<Uuid>,
    }
    sql_query("SELECT forget_gaps($1) AS lane")
        .bind::<SqlUuid, _>(after)
        .get_result::<LaneRow>(conn)
        .map(|row| row.lane)
}

pub(crate) fn forget_number_calls(conn: &mut PgConnection) -> QueryResult<()> {
    sql_query("SELECT forget_number_calls()")
        .execute(conn)
        .map(drop)
}

pub(crate) fn reopen_campaign(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<()> {
    sql_query("SELECT reopen_campaigns(ARRAY[$1])")
        .bind::<SqlUuid, _>(campaign)
        .execute(conn)
        .map(drop)
}

/// Calls laid out behind a campaign's tail, and how those of them had ended that are queued again.
/// Below zero: so many are over as they are laid out.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LaidOut {
    pub calls: i32,
    pub failed: i32,
    pub cancelled: i32,
    pub expired: i32,
}

pub(crate) fn count_laid_out(
    conn: &mut PgConnection,
    campaign: Uuid,
    it: LaidOut,
) -> QueryResult<()> {
    sql_query("SELECT count_laid_out($1, $2, $3, $4, $5)")
        .bind::<SqlUuid, _>(campaign)
        .bind::<Integer, _>(it.calls)
        .bind::<Integer, _>(it.failed)
        .bind::<Integer, _>(it.cancelled)
        .bind::<Integer, _>(it.expired)
        .execute(conn)
        .map(drop)
}

/// What `count_queued_campaign_calls` answers.
#[derive(QueryableByName)]
pub(crate) struct QueuedCampaignCallsRow {
    /// None if any number may wait.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub waiting: Option<i64>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub most: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub slots: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub samples: Option<i32>,
    #[diesel(sql_type = Nullable<Double>)]
    pub mean_hold_ms: Option<f64>,
}

pub(crate) fn count_queued_campaign_calls(
    conn: &mut PgConnection,
    user: Uuid,
) -> QueryResult<QueuedCampaignCallsRow> {
    sql_query("SELECT * FROM count_queued_campaign_calls($1)")
        .bind::<SqlUuid, _>(user)
        .get_result(conn)
}

pub(crate) fn name_listed_items(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<()> {
    sql_query("SELECT name_listed_items($1)")
        .bind::<SqlUuid, _>(campaign)
        .execute(conn)
        .map(drop)
}

pub(crate) fn complete_campaigns(
    conn: &mut PgConnection,
    campaigns: &[Uuid],
    now: DateTime<Utc>,
) -> QueryResult<()> {
    sql_query("SELECT complete_campaigns($1, $2)")
        .bind::<Array<SqlUuid>, _>(campaigns)
        .bind::<Timestamptz, _>(now)
        .execute(conn)
        .map(drop)
}

pub(crate) fn withdraw_items(
    conn: &mut PgConnection,
    items: &[Uuid],
    status: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> QueryResult<Vec<Uuid>> {
    let rows: Vec<IdRow> = sql_query("SELECT withdraw_items($1, $2, $3, NULL, $4) AS id")
        .bind::<Array<SqlUuid>, _>(items)
        .bind::<Text, _>(status)
        .bind::<Text, _>(reason)
        .bind::<Timestamptz, _>(now)
        .load(conn)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Answers how many it withdrew.
pub(crate) fn withdraw_listed(
    conn: &mut PgConnection,
    items: &[Uuid],
    now: DateTime<Utc>,
) -> QueryResult<i32> {
    #[derive(QueryableByName)]
    struct WithdrawnRow {
        #[diesel(sql_type = Integer)]
        withdrawn: i32,
    }
    sql_query("SELECT withdraw_listed($1, NULL, $2) AS withdrawn")
        .bind::<Array<SqlUuid>, _>(items)
        .bind::<Timestamptz, _>(now)
        .get_result::<WithdrawnRow>(conn)
        .map(|row| row.withdrawn)
}

/// One statement, and a transaction by itself.
pub(crate) fn list_do_not_call(
    conn: &mut PgConnection,
    owner: Option<Uuid>,
    numbers: &[String],
    reason: Option<&str>,
    limit: i32,
) -> QueryResult<ListedRow> {
    sql_query("SELECT * FROM list_do_not_call($1, $2, $3, $4)")
        .bind::<Nullable<SqlUuid>, _>(owner)
        .bind::<Array<Text>, _>(numbers)
        .bind::<Nullable<Text>, _>(reason)
        .bind::<Integer, _>(limit)
        .get_result(conn)
}

#[cfg(test)]
mod tests {
    use callq_testing::TestDatabase;
    use diesel::Connection;
    use diesel::connection::SimpleConnection;

    use super::*;

    #[derive(QueryableByName)]
    struct RunRow {
        #[diesel(sql_type = Text)]
        run: String,
    }

    fn told(conn: &mut PgConnection, run: Run) -> String {
        let row: RunRow = sql_query(format!("SELECT {} AS run", run.sql()))
            .get_result(conn)
            .unwrap();
        row.run
    }

    #[test]
    fn a_flush_by_another_run_of_postgresql_is_none() {
        let database = TestDatabase::new();
        let mut conn = PgConnection::establish(database.url()).unwrap();
        let mut other = PgConnection::establish(database.url()).unwrap();
        let backend = told(&mut conn, Run::Backend);
        // A database that another test drops at this moment brings a checkpoint with it.
        let mut any_backend_of_this_node = || {
            let node = told(&mut conn, Run::Node);
            flush(&mut other, Run::Node, Some(&node)).unwrap()
        };
        assert!((0..100).any(|_| any_backend_of_this_node()));

        assert!(flush(&mut conn, Run::Backend, Some(&backend)).unwrap());
        assert!(!flush(&mut other, Run::Backend, Some(&backend)).unwrap());
        assert!(!flush(&mut conn, Run::Node, Some("2026-11-24 12:00:00+00 0/1")).unwrap());
        assert!(!flush(&mut conn, Run::Node, None).unwrap());
    }

    #[test]
    fn a_checkpoint_counts_as_another_run() {
        // As does, with it, recovery from a crash, which ends with one.
        let database = TestDatabase::new();
        let mut conn = PgConnection::establish(database.url()).unwrap();
        let node = told(&mut conn, Run::Node);

        conn.batch_execute("CHECKPOINT").unwrap();

        assert!(!flush(&mut conn, Run::Node, Some(&node)).unwrap());
    }
}
