//! A call's whole life played through and rolled back, so that a connection has its plans ready.
//!
//! PostgreSQL plans the statements of a PL/pgSQL function when a connection first runs them, which
//! takes tens of milliseconds for the engine's: longer than a hand-off may take in all.

use diesel::connection::SimpleConnection;
use diesel::{PgConnection, QueryResult, RunQueryDsl, sql_query};
use uuid::Uuid;

use crate::functions::{self, AdmissionColumns, EndingColumns};

/// Plays a call through and leaves nothing behind but plans.
pub(crate) fn rehearse(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute("BEGIN; SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '5s'")?;
    let played = play(conn);
    conn.batch_execute("ROLLBACK")?;
    played
}

fn play(conn: &mut PgConnection) -> QueryResult<()> {
    let (user, agent, server) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let now = functions::lock_engine(conn)?;
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
    functions::admit_direct_calls(conn, server, "rehearsal", calls, now)?;
    end_started(conn, server, &both, now)?;
    functions::wake_and_expire(conn, server, now)?;
    let started = functions::reserve_direct_calls(conn, server, "rehearsal", 1, now)?;
    functions::reserve_campaign_calls(conn, server, "rehearsal", 1, now)?;
    end_started(conn, server, &started, now)?;
    functions::engine_outlook(conn, now)?;
    Ok(())
}

/// Dials, places, hears of and ends those of these items that have a slot.
fn end_started(
    conn: &mut PgConnection,
    server: Uuid,
    items: &[Uuid],
    now: chrono::DateTime<chrono::Utc>,
) -> QueryResult<()> {
    let calls: Vec<Uuid> = functions::reserved_calls(conn, items)?
        .into_iter()
        .map(|row| row.call_id)
        .collect();
    let count = calls.len();
    functions::mark_dialing(conn, server, calls.clone(), vec![1; count])?;
    functions::record_placed(
        conn,
        server,
        calls.clone(),
        vec![1; count],
        vec!["rehearsal".into(); count],
    )?;
    functions::record_events(
        conn,
        server,
        calls.clone(),
        vec!["ringing"; count],
        vec![None; count],
        vec![None; count],
    )?;
    let endings = EndingColumns {
        attempts: vec![None; count],
        outcomes: vec!["completed"; count],
        executions: vec![None; count],
        reasons: vec![None; count],
        durations: vec![None; count],
        calls,
    };
    functions::end_calls(conn, server, endings, now)?;
    Ok(())
}
