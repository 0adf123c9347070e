//! A call's whole life played through and rolled back, so that a connection has its plans ready.
//!
//! PostgreSQL plans the statements of a PL/pgSQL function when a connection first runs them, which
//! takes tens of milliseconds for the engine's: longer than a hand-off may take in all.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{PgConnection, QueryResult, RunQueryDsl, sql_query};
use uuid::Uuid;

use crate::engine::next_number;
use crate::functions::{
    self, AdmissionColumns, EndingColumns, EventColumns, PlacedColumns, ReservedCallRow,
    ReturnColumns, Run, Settlement, UnknownColumns,
};

/// No further step of a rehearsal begins later than this: on a machine so busy, others have waited for
/// the engine's lock long enough.
const LONGEST: Duration = Duration::from_secs(1);

/// A round trip longer than this is not made thirty times under the engine's lock.
const FAR_AWAY: Duration = Duration::from_millis(30);

/// Plays a call through and leaves nothing behind but plans.
///
/// It takes some thirty round trips, most of them under the engine's lock. Where one takes long, the
/// rehearsal would keep everybody waiting for longer than the planning that it saves.
pub(crate) fn rehearse(conn: &mut PgConnection) -> QueryResult<()> {
    let begun = Instant::now();
    conn.batch_execute("BEGIN; SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '2s'")?;
    let played = if begun.elapsed() < FAR_AWAY {
        play(conn, begun + LONGEST)
    } else {
        Ok(())
    };
    conn.batch_execute("ROLLBACK")?;
    played
}

fn play(conn: &mut PgConnection, end: Instant) -> QueryResult<()> {
    let (user, agent, server) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    functions::lock_engine(conn)?;
    conn.batch_execute(
        "UPDATE system_state SET concurrent_calls_limit = active + 1, dispatch_paused = false",
    )?;
    sql_query("INSERT INTO users (id, email) VALUES ($1, $1::text || '@rehearsal.invalid')")
        .bind::<diesel::sql_types::Uuid, _>(user)
        .execute(conn)?;
    sql_query("INSERT INTO agents (id, user_id, name) VALUES ($1, $2, 'rehearsal')")
        .bind::<diesel::sql_types::Uuid, _>(agent)
        .bind::<diesel::sql_types::Uuid, _>(user)
        .execute(conn)?;
    functions::renew_lease(conn, server, 60_000)?;
    // Two at the door, one slot: one starts, the other waits and is handed the slot; unless others
    // wait already: then one of theirs is, and all is rolled back all the same.
    let both: Vec<Uuid> = vec![Uuid::now_v7(), Uuid::now_v7()];
    let calls = AdmissionColumns {
        items: both.clone(),
        users: vec![user; 2],
        agents: vec![agent; 2],
        contacts: vec![None; 2],
        numbers: vec![Some("+14155550100".into()); 2],
        names: vec![None; 2],
        user_data: vec![None; 2],
        caller_ids: vec![None; 2],
        scheduled: vec![None; 2],
        expires_ms: vec![None; 2],
        keys: vec![None; 2],
        hashes: vec![None; 2],
    };
    let begun = settle(conn, server, EndingColumns::default(), calls)?;
    let mut up = begun;
    for _ in 0..2 {
        if Instant::now() >= end {
            return Ok(());
        }
        up = end_all(conn, server, up)?;
    }
    sql_query("SELECT tally_campaigns(ARRAY[$1], NULL, NULL, NULL), fold_campaign_tallies()")
        .bind::<diesel::sql_types::Uuid, _>(user)
        .execute(conn)?;
    Ok(())
}

fn settle(
    conn: &mut PgConnection,
    server: Uuid,
    endings: EndingColumns,
    admissions: AdmissionColumns,
) -> QueryResult<Vec<ReservedCallRow>> {
    let settlement = Settlement {
        server,
        number: next_number(),
        answered: None,
        provider: "rehearsal",
        limit: 1,
        disowned: Vec::new(),
        endings,
        returns: ReturnColumns::default(),
        admissions,
    };
    let row = functions::settle(conn, settlement, Run::Backend)?;
    let started = row.door.into_iter().chain(row.reserved);
    Ok(started.flatten().collect())
}

/// Places, hears of and ends these calls; returns those to whom their slots were handed on.
fn end_all(
    conn: &mut PgConnection,
    server: Uuid,
    calls: Vec<ReservedCallRow>,
) -> QueryResult<Vec<ReservedCallRow>> {
    let calls: Vec<Uuid> = calls.into_iter().map(|row| row.1).collect();
    let count = calls.len();
    let placed = PlacedColumns {
        calls: calls.clone(),
        attempts: vec![1; count],
        executions: vec!["rehearsal".into(); count],
    };
    let events = EventColumns {
        calls: calls.clone(),
        statuses: vec!["ringing"; count],
        executions: vec![None; count],
        reasons: vec![None; count],
    };
    functions::record_progress(
        conn,
        server,
        placed,
        EventColumns::default(),
        UnknownColumns::default(),
    )?;
    functions::record_progress(
        conn,
        server,
        PlacedColumns::default(),
        events,
        UnknownColumns::default(),
    )?;
    let endings = EndingColumns {
        attempts: vec![None; count],
        outcomes: vec!["completed"; count],
        executions: vec![None; count],
        reasons: vec![None; count],
        durations: vec![None; count],
        calls,
    };
    settle(conn, server, endings, AdmissionColumns::default())
}
