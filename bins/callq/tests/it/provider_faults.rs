//! A provider that is slow, breaks down after it has dialled, answers twice, reports late, never or
//! by a wrong clock, cannot say what it has, or does not hang up.

use std::time::Duration;

use callq_testing::{Behaviour, Deed, LookUps};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Answer, PATIENCE, Server, User, World};

/// A world with one user, who may have one call up.
async fn one_caller(world: &World) -> (Server, User) {
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    (server, ada)
}

fn call_id(answer: &Answer) -> String {
    answer.body["callId"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_waited_for() {
    let world = World::new(10);
    let (_server, ada) = one_caller(&world).await;
    let slow = Behaviour::SlowAccept(Duration::from_millis(700));
    world.dialer.next(slow);

    let answer = ada.call(1).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(world.dialer.ledger().count(Deed::LookUp), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_dialled_and_then_broke_down_is_asked_and_not_dialled_again() {
    let behaviours = [
        Behaviour::AcceptThenFail(500),
        Behaviour::AcceptThenFail(408),
        Behaviour::SlowAccept(Duration::from_millis(900)),
    ];
    join_all(behaviours.map(|behaviour| async move {
        let world = World::new(10).with("PROVIDER_TIMEOUT_MS", "300");
        let (_server, ada) = one_caller(&world).await;
        world.dialer.next(behaviour.clone());

        let answer = ada.call(1).await;

        assert_eq!(
            (answer.status, &answer.body["status"]),
            (202, &json!("unknown")),
            "{behaviour:?}: {answer:?}"
        );
        world
            .until_count(
                "SELECT count(*) FROM active_calls WHERE execution_id = 'exec-1'",
                1,
            )
            .await;
        assert_eq!(world.dialer.ledger().count(Deed::Dial), 1, "{behaviour:?}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_given_twice_is_not_taken_for_the_next_calls() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 3).await;
    world.dialer.next(Behaviour::AcceptTwice);

    let mut executions = Vec::new();
    for n in 1..=3 {
        let answer = ada.call(n).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        executions.push(answer.body["executionId"].clone());
    }

    assert_eq!(
        executions,
        [json!("exec-1"), json!("exec-2"), json!("exec-3")]
    );
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 3);
}

/// An event about the first call that was dialled, with some fields of its own.
fn event(world: &World, fields: Value) -> Value {
    let call = &world.dialer.dials()[0];
    let mut event = json!({"event_id": "e1", "call_id": call.call_id, "execution_id": call.execution_id,
        "status": "completed", "occurred_at": chrono::Utc::now().to_rfc3339()});
    if let (Some(event), Some(fields)) = (event.as_object_mut(), fields.as_object()) {
        event.extend(fields.clone());
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_about_another_execution_of_the_call_ends_nothing() {
    let world = World::new(10);
    let (server, ada) = one_caller(&world).await;
    ada.call(1).await;

    let other = event(&world, json!({"execution_id": "exec-77"}));
    assert_eq!(world.signed_event(&server, other).await, 200);
    assert_eq!(world.count("SELECT active FROM system_state"), 1);

    let own = event(&world, json!({}));
    assert_eq!(world.signed_event(&server, own).await, 200);
    assert_eq!(world.count("SELECT active FROM system_state"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_an_hour_off_is_named_in_the_401_and_harmless_in_the_event() {
    let world = World::new(10);
    let (server, ada) = one_caller(&world).await;
    let id = call_id(&ada.call(1).await);
    let now = chrono::Utc::now();

    for (off, said) in [(-3600, "behind"), (3600, "ahead of")] {
        let told = world
            .event_signed_at(&server, event(&world, json!({})), now.timestamp() + off)
            .await;
        assert_eq!(told.status, 401, "{told:?}");
        let message = told.body["message"].as_str().expect("a message");
        assert!(message.contains("webhook-timestamp is 3"), "{message}");
        assert!(message.contains(said), "{message}");
    }
    assert_eq!(world.count("SELECT active FROM system_state"), 1);

    for (off, status) in [(-1, "in-progress"), (1, "completed")] {
        let at = (now + chrono::TimeDelta::hours(off)).to_rfc3339();
        let told = event(&world, json!({"status": status, "occurred_at": at}));
        assert_eq!(world.signed_event(&server, told).await, 200);
    }
    let call = ada.get(&format!("/api/calls/{id}")).await;
    assert_eq!(call.body["status"], "completed");
    let ended = call.body["ended_at"].as_str().expect("a time");
    let ended = chrono::DateTime::parse_from_rfc3339(ended).expect("a time");
    assert!((ended.to_utc() - now).abs() < chrono::TimeDelta::minutes(10));
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_proves_nothing_keeps_the_slot_and_dials_nothing() {
    let ways = [LookUps::Status(500), LookUps::Garbage, LookUps::Mute];
    join_all(ways.map(|what| async move {
        let world = World::new(10).with("PROVIDER_TIMEOUT_MS", "300");
        let (_server, ada) = one_caller(&world).await;
        world.dialer.do_with_look_ups(what);
        world.dialer.next(Behaviour::AcceptThenReset);

        ada.call(1).await;

        let asked = |ledger: &callq_testing::Ledger| ledger.count(Deed::LookUp) >= 2;
        let dialer = world.dialer.clone();
        let waited = tokio::task::spawn_blocking(move || dialer.wait_until(PATIENCE, asked));
        let _ = waited.await.expect("asked twice");
        assert_eq!(
            world.count("SELECT count(*) FROM active_calls WHERE status = 'unknown'"),
            1,
            "{what:?}"
        );
        world.dialer.do_with_look_ups(LookUps::Truth);
        world
            .until_count(
                "SELECT count(*) FROM active_calls WHERE execution_id IS NOT NULL",
                1,
            )
            .await;
        assert_eq!(world.dialer.ledger().count(Deed::Dial), 1, "{what:?}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_that_fails_is_502_and_leaves_the_call_as_it_is() {
    let world = World::new(10);
    let (_server, ada) = one_caller(&world).await;
    let id = call_id(&ada.call(1).await);
    let path = format!("/api/calls/{id}/hangup");
    world.dialer.answer_hang_ups_with(Some(500));

    let failed = ada.post(&path, json!({})).await;

    assert_eq!(failed.status, 502, "{failed:?}");
    assert_eq!(failed.body["callId"], json!(id));
    assert_eq!(world.count("SELECT active FROM system_state"), 1);
    world.dialer.answer_hang_ups_with(None);
    assert_eq!(ada.post(&path, json!({})).await.status, 202);
    world
        .until_count("SELECT active FROM system_state", 0)
        .await;
}
