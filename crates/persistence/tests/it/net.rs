//! The net of the races must hold: with the engine's lock taken away, and with a reservation that
//! locks and counts in one statement, the witness sees what must never be.

use std::sync::Arc;

use callq_domain::{EngineStore, SlotBatch, Target};
use diesel::connection::SimpleConnection;

use crate::scene::{Scene, direct_call, phone_number};

/// Calls that take a slot stop at a gate once they have decided to.
const GATE: &str = "
    CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(42);
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER gate AFTER INSERT ON active_calls FOR EACH ROW EXECUTE FUNCTION gate();";

/// A scene with a witness, whose user may have one call up.
async fn watched() -> (Arc<Scene>, callq_domain::UserId, callq_domain::AgentId) {
    let scene = Arc::new(Scene::new().await);
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    scene.watch();
    (scene, user, agent)
}

/// What is witnessed when two calls at the door both decide before either commits, if they can.
async fn two_at_the_door(mutation: &str) -> Vec<String> {
    let (scene, user, agent) = watched().await;
    scene.sql(GATE);
    scene.sql(mutation);
    let mut keeper = scene.connection();
    let mut gate = |sql: &str| keeper.batch_execute(sql).unwrap();
    gate("SELECT pg_advisory_lock(42)");
    let calls: Vec<_> = (0..2)
        .map(|nth| {
            let scene = scene.clone();
            tokio::spawn(async move {
                let number = Target::Number(phone_number(nth).parse().unwrap());
                let batch = SlotBatch {
                    admissions: vec![direct_call(user, agent, number)],
                    ..SlotBatch::default()
                };
                scene.store.settle(scene.server, &batch).await
            })
        })
        .collect();
    // One at the gate, and the other there too or at the engine's lock.
    scene.until_waiting_for_lock(2).await;
    gate("SELECT pg_advisory_unlock(42)");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    scene.witnessed()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_the_door_at_once_take_one_slot_and_without_the_lock_the_witness_sees_two() {
    let sound = two_at_the_door("SELECT").await;
    let broken = two_at_the_door(
        "CREATE OR REPLACE FUNCTION lock_engine() RETURNS timestamptz LANGUAGE sql AS \
         $$ SELECT engine_now() $$",
    )
    .await;

    assert_eq!(sound, Vec::<String>::new());
    assert_eq!(broken, ["a user has 2 calls up, 1 are allowed"]);
}

/// A reservation that locks and counts in one statement: what it counts is as it was before it had
/// to wait for the lock.
const IN_ONE_STATEMENT: &str = "
    CREATE FUNCTION reserve_in_one_statement(p_server uuid) RETURNS void LANGUAGE sql AS $$
        WITH locked AS MATERIALIZED (
            SELECT s.user_id, s.slots FROM user_slots s CROSS JOIN system_state y
            FOR UPDATE
        ), free AS (
            SELECT l.user_id, greatest(0, l.slots - (SELECT count(*) FROM active_calls a WHERE a.user_id = l.user_id)) AS slots
            FROM locked l
        ), next AS (
            SELECT q.id FROM free f CROSS JOIN LATERAL (
                SELECT c.id FROM call_queue c WHERE c.user_id = f.user_id
                ORDER BY c.priority DESC, c.position LIMIT f.slots FOR UPDATE SKIP LOCKED
            ) q
        ), moved AS (
            DELETE FROM call_queue q USING next n WHERE q.id = n.id RETURNING q.*
        )
        INSERT INTO active_calls (call_id, item_id, user_id, agent_id, call_type, priority, position, phone_number, due_at,
            due_since, queued_at, provider, attempt, owner, batch, reserved_at)
        SELECT id, id, user_id, agent_id, call_type, priority, position, phone_number, due_at, due_since, queued_at,
            'simulator', 1, p_server, 1, now()
        FROM moved
    $$;";

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_locks_and_counts_in_one_statement_is_caught() {
    let (scene, user, agent) = watched().await;
    scene.sql("UPDATE system_state SET dispatch_paused = true");
    for _ in 0..20 {
        scene.waiting_call(user, agent).await;
    }
    scene.sql(IN_ONE_STATEMENT);
    let mut keeper = scene.connection();
    let mut lock = |sql: &str| keeper.batch_execute(sql).unwrap();
    lock("BEGIN");
    lock("SELECT lock_engine()");
    let crowd: Vec<_> = (0..5)
        .map(|_| {
            let scene = scene.clone();
            let reserve = format!("SELECT reserve_in_one_statement('{}')", scene.server);
            tokio::task::spawn_blocking(move || scene.sql(&reserve))
        })
        .collect();
    scene.until_waiting_for_lock(5).await;
    lock("COMMIT");
    for one in crowd {
        one.await.unwrap();
    }

    let seen = scene.witnessed();
    assert!(
        seen.contains(&"a user has 5 calls up, 1 are allowed".to_owned()),
        "{seen:?}"
    );
}
