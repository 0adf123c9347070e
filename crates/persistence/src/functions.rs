//! The one catalogue of the engine's SQL functions: a Rust function for each, of the same name.
//!
//! What each guarantees is said where it is defined, in `COMMENT ON FUNCTION`. Nothing here opens
//! a transaction. Statements are sent unnamed, parameters and all in one round trip, so that they
//! work through PgBouncer in transaction mode.

use callq_domain::Attempt;
use chrono::{DateTime, Utc};
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

#[derive(QueryableByName)]
struct MaybeIdRow {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    id: Option<Uuid>,
}

#[derive(QueryableByName)]
struct IdsRow {
    #[diesel(sql_type = Array<SqlUuid>)]
    ids: Vec<Uuid>,
}

#[derive(QueryableByName)]
struct AttemptRow {
    #[diesel(sql_type = SqlUuid)]
    of_call: Uuid,
    #[diesel(sql_type = Integer)]
    of_attempt: i32,
}

impl AttemptRow {
    fn into_attempt(self) -> Attempt {
        Attempt {
            call_id: self.of_call.into(),
            // A CHECK keeps it positive.
            number: self.of_attempt.unsigned_abs(),
        }
    }
}

#[derive(QueryableByName)]
struct YesRow {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

#[derive(QueryableByName)]
struct EffectRow {
    #[diesel(sql_type = Text)]
    effect: String,
}

/// A call with a slot, as `reserved_calls` tells it.
#[derive(QueryableByName)]
pub(crate) struct ReservedCallRow {
    #[diesel(sql_type = SqlUuid)]
    pub item_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub call_id: Uuid,
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    #[diesel(sql_type = SqlUuid)]
    pub user_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub agent_id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub campaign_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    pub provider: String,
    #[diesel(sql_type = Text)]
    pub phone_number: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub caller_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub provider_agent_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub settings: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub contact_name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub user_data: Option<String>,
}

/// A verdict at the door, as `admit_direct_calls` tells it.
#[derive(QueryableByName)]
pub(crate) struct AdmissionRow {
    #[diesel(sql_type = Text)]
    pub verdict: String,
    #[diesel(sql_type = SqlUuid)]
    pub item_id: Uuid,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub number: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub limit: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub ahead: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub total: Option<i64>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub slots: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub samples: Option<i32>,
    #[diesel(sql_type = Nullable<Double>)]
    pub mean_hold_ms: Option<f64>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub wakes_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    pub saved_body: Option<String>,
}

/// What comes next, as `engine_outlook` tells it.
#[derive(QueryableByName)]
pub(crate) struct OutlookRow {
    #[diesel(sql_type = Nullable<BigInt>)]
    pub next_timer_ms: Option<i64>,
    #[diesel(sql_type = Bool)]
    pub more: bool,
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

pub(crate) fn lock_engine(conn: &mut PgConnection) -> QueryResult<DateTime<Utc>> {
    sql_query("SELECT lock_engine() AS at")
        .get_result::<AtRow>(conn)
        .map(|row| row.at)
}

pub(crate) fn refile_lanes(conn: &mut PgConnection, users: &[Uuid]) -> QueryResult<()> {
    sql_query("SELECT refile_lanes($1)")
        .bind::<Array<SqlUuid>, _>(users)
        .execute(conn)
        .map(drop)
}

pub(crate) fn disown_items(
    conn: &mut PgConnection,
    server: Uuid,
    items: Vec<Uuid>,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    sql_query("SELECT disown_items($1, $2, $3)")
        .bind::<SqlUuid, _>(server)
        .bind::<Array<SqlUuid>, _>(items)
        .bind::<Timestamptz, _>(now)
        .execute(conn)
        .map(drop)
}

pub(crate) fn lock_calls(conn: &mut PgConnection, calls: &[Uuid]) -> QueryResult<()> {
    sql_query("SELECT lock_calls($1)")
        .bind::<Array<SqlUuid>, _>(calls)
        .execute(conn)
        .map(drop)
}

/// Whether everything that was to expire has.
pub(crate) fn wake_and_expire(
    conn: &mut PgConnection,
    server: Uuid,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    sql_query("SELECT wake_and_expire($1, $2) AS yes")
        .bind::<SqlUuid, _>(server)
        .bind::<Timestamptz, _>(now)
        .get_result::<YesRow>(conn)
        .map(|row| row.yes)
}

pub(crate) fn end_calls(
    conn: &mut PgConnection,
    server: Uuid,
    endings: EndingColumns,
    now: DateTime<Utc>,
) -> QueryResult<Vec<String>> {
    let rows: Vec<EffectRow> =
        sql_query("SELECT effect FROM end_calls($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind::<SqlUuid, _>(server)
            .bind::<Array<SqlUuid>, _>(endings.calls)
            .bind::<Array<Nullable<Integer>>, _>(endings.attempts)
            .bind::<Array<Text>, _>(endings.outcomes)
            .bind::<Array<Nullable<Text>>, _>(endings.executions)
            .bind::<Array<Nullable<Text>>, _>(endings.reasons)
            .bind::<Array<Nullable<Integer>>, _>(endings.durations)
            .bind::<Timestamptz, _>(now)
            .load(conn)?;
    Ok(rows.into_iter().map(|row| row.effect).collect())
}

pub(crate) fn return_calls(
    conn: &mut PgConnection,
    server: Uuid,
    returns: ReturnColumns,
    now: DateTime<Utc>,
) -> QueryResult<Vec<Option<Uuid>>> {
    let rows: Vec<MaybeIdRow> =
        sql_query("SELECT item_id AS id FROM return_calls($1, $2, $3, $4, $5, $6, $7)")
            .bind::<SqlUuid, _>(server)
            .bind::<Array<SqlUuid>, _>(returns.calls)
            .bind::<Array<Integer>, _>(returns.attempts)
            .bind::<Array<BigInt>, _>(returns.delays_ms)
            .bind::<Array<Text>, _>(returns.reasons)
            .bind::<Array<Bool>, _>(returns.if_unknown)
            .bind::<Timestamptz, _>(now)
            .load(conn)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

pub(crate) fn reserve_direct_calls(
    conn: &mut PgConnection,
    server: Uuid,
    default_provider: &str,
    limit: i32,
    now: DateTime<Utc>,
) -> QueryResult<Vec<Uuid>> {
    sql_query("SELECT reserve_direct_calls($1, $2, $3, $4) AS ids")
        .bind::<SqlUuid, _>(server)
        .bind::<Text, _>(default_provider)
        .bind::<Integer, _>(limit)
        .bind::<Timestamptz, _>(now)
        .get_result::<IdsRow>(conn)
        .map(|row| row.ids)
}

pub(crate) fn reserve_campaign_calls(
    conn: &mut PgConnection,
    server: Uuid,
    default_provider: &str,
    limit: i32,
    now: DateTime<Utc>,
) -> QueryResult<Vec<Uuid>> {
    sql_query("SELECT reserve_campaign_calls($1, $2, $3, $4) AS ids")
        .bind::<SqlUuid, _>(server)
        .bind::<Text, _>(default_provider)
        .bind::<Integer, _>(limit)
        .bind::<Timestamptz, _>(now)
        .get_result::<IdsRow>(conn)
        .map(|row| row.ids)
}

pub(crate) fn admit_direct_calls(
    conn: &mut PgConnection,
    server: Uuid,
    default_provider: &str,
    calls: AdmissionColumns,
    now: DateTime<Utc>,
) -> QueryResult<Vec<AdmissionRow>> {
    sql_query(
        "SELECT * FROM admit_direct_calls($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind::<SqlUuid, _>(server)
    .bind::<Text, _>(default_provider)
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
    .bind::<Timestamptz, _>(now)
    .load(conn)
}

pub(crate) fn reserved_calls(
    conn: &mut PgConnection,
    items: &[Uuid],
) -> QueryResult<Vec<ReservedCallRow>> {
    sql_query("SELECT * FROM reserved_calls($1)")
        .bind::<Array<SqlUuid>, _>(items)
        .load(conn)
}

pub(crate) fn engine_outlook(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
) -> QueryResult<OutlookRow> {
    sql_query("SELECT * FROM engine_outlook($1)")
        .bind::<Timestamptz, _>(now)
        .get_result(conn)
}

pub(crate) fn mark_dialing(
    conn: &mut PgConnection,
    server: Uuid,
    calls: Vec<Uuid>,
    attempts: Vec<i32>,
) -> QueryResult<Vec<Attempt>> {
    let rows: Vec<AttemptRow> = sql_query("SELECT * FROM mark_dialing($1, $2, $3)")
        .bind::<SqlUuid, _>(server)
        .bind::<Array<SqlUuid>, _>(calls)
        .bind::<Array<Integer>, _>(attempts)
        .load(conn)?;
    Ok(rows.into_iter().map(AttemptRow::into_attempt).collect())
}

pub(crate) fn record_placed(
    conn: &mut PgConnection,
    server: Uuid,
    calls: Vec<Uuid>,
    attempts: Vec<i32>,
    executions: Vec<String>,
) -> QueryResult<Vec<Attempt>> {
    let rows: Vec<AttemptRow> = sql_query("SELECT * FROM record_placed($1, $2, $3, $4)")
        .bind::<SqlUuid, _>(server)
        .bind::<Array<SqlUuid>, _>(calls)
        .bind::<Array<Integer>, _>(attempts)
        .bind::<Array<Text>, _>(executions)
        .load(conn)?;
    Ok(rows.into_iter().map(AttemptRow::into_attempt).collect())
}

pub(crate) fn record_unknown(
    conn: &mut PgConnection,
    server: Uuid,
    calls: Vec<Uuid>,
    attempts: Vec<i32>,
    reasons: Vec<String>,
) -> QueryResult<Vec<Attempt>> {
    let rows: Vec<AttemptRow> = sql_query("SELECT * FROM record_unknown($1, $2, $3, $4)")
        .bind::<SqlUuid, _>(server)
        .bind::<Array<SqlUuid>, _>(calls)
        .bind::<Array<Integer>, _>(attempts)
        .bind::<Array<Text>, _>(reasons)
        .load(conn)?;
    Ok(rows.into_iter().map(AttemptRow::into_attempt).collect())
}

pub(crate) fn record_events(
    conn: &mut PgConnection,
    server: Uuid,
    calls: Vec<Uuid>,
    statuses: Vec<&'static str>,
    executions: Vec<Option<String>>,
    reasons: Vec<Option<String>>,
) -> QueryResult<Vec<String>> {
    let rows: Vec<EffectRow> = sql_query("SELECT effect FROM record_events($1, $2, $3, $4, $5)")
        .bind::<SqlUuid, _>(server)
        .bind::<Array<SqlUuid>, _>(calls)
        .bind::<Array<Text>, _>(statuses)
        .bind::<Array<Nullable<Text>>, _>(executions)
        .bind::<Array<Nullable<Text>>, _>(reasons)
        .load(conn)?;
    Ok(rows.into_iter().map(|row| row.effect).collect())
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

pub(crate) fn return_stale_reservations(
    conn: &mut PgConnection,
    server: Uuid,
    age_ms: i64,
) -> QueryResult<()> {
    sql_query("SELECT return_stale_reservations($1, $2)")
        .bind::<SqlUuid, _>(server)
        .bind::<BigInt, _>(age_ms)
        .execute(conn)
        .map(drop)
}

pub(crate) fn create_history_partitions(conn: &mut PgConnection) -> QueryResult<()> {
    sql_query("SELECT create_history_partitions()")
        .execute(conn)
        .map(drop)
}

pub(crate) fn set_campaign_open(
    conn: &mut PgConnection,
    campaign: Uuid,
    open: bool,
) -> QueryResult<()> {
    sql_query("SELECT set_campaign_open($1, $2)")
        .bind::<SqlUuid, _>(campaign)
        .bind::<Bool, _>(open)
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
