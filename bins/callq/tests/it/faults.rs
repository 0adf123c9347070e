//! A provider that refuses, is busy, is mute, resets, answers garbage, or tells things out of
//! order: slot, place and record end as they should, and nobody is dialled twice.

use callq_testing::{Behaviour, Deed};
use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{PATIENCE, World, number};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_is_recorded_as_failed_and_its_slot_is_free() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    world.dialer.next(Behaviour::Refuse(422));

    let refused = ada.call(1).await;
    let next = ada.call(2).await;

    assert_eq!((refused.status, next.status), (502, 200), "{refused:?}");
    let call_id = refused.body["callId"]
        .as_str()
        .expect("the failed call's id");
    let call = ada.get(&format!("/api/calls/{call_id}")).await;
    assert_eq!(call.body["status"], "failed", "{call:?}");
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_turned_away_waits_at_the_head_and_goes_when_the_provider_said() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    world.dialer.next(Behaviour::Busy {
        status: 429,
        retry_after: Some("1".into()),
    });

    let turned_away = ada.call(1).await;
    let second = ada.call(2).await;

    assert_eq!(turned_away.status, 202, "{turned_away:?}");
    assert_eq!(turned_away.body["queue"]["position"], json!(1));
    assert!(
        turned_away.body["reason"]
            .as_str()
            .expect("a reason")
            .starts_with("Provider is busy")
    );
    assert_eq!(
        (second.status, &second.body["reason"]),
        (202, &json!("Earlier direct calls are waiting (1 ahead)"))
    );
    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    assert_eq!((&dials[1].to, dials[1].attempt), (&number(1), 2));
    assert_eq!(
        dials[1].call_id, dials[0].call_id,
        "a call keeps its id while it is tried again"
    );
    world.dialer.end(dials[1].call_id).expect("delivered");
    assert_eq!(world.dialer.wait_for_dials(3, PATIENCE)[2].to, number(2));
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_provider_leaves_the_call_in_line_until_it_is_back() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", gone.local_addr().expect("bound"));
    drop(gone);
    let world = World::new(10).with("HTTP_PROVIDER_URL", &address);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;

    let answer = ada.call(1).await;

    assert_eq!(answer.status, 202, "{answer:?}");
    assert!(
        answer.body["reason"]
            .as_str()
            .expect("a reason")
            .starts_with("Provider is unreachable")
    );
    assert_eq!(answer.body["queue"]["position"], json!(1));
    assert_eq!(world.count("SELECT active FROM system_state"), 0);
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_keeps_the_slot_until_the_provider_proves_it_has_the_call() {
    for behaviour in [Behaviour::AcceptThenReset, Behaviour::AcceptThenMute] {
        let world = World::new(10).with("PROVIDER_TIMEOUT_MS", "500");
        let server = world.serve();
        let ada = world.user(&server, "ada", 1).await;
        world.dialer.next(behaviour.clone());

        let answer = ada.call(1).await;

        assert_eq!(
            (answer.status, &answer.body["status"]),
            (202, &json!("unknown")),
            "{behaviour:?}: {answer:?}"
        );
        let call_id = answer.body["callId"].as_str().expect("an id").to_owned();
        assert_eq!(ada.call(2).await.status, 202, "its slot is taken");
        world
            .until_count(
                "SELECT count(*) FROM active_calls WHERE execution_id IS NOT NULL",
                1,
            )
            .await;
        let call = ada.get(&format!("/api/calls/{call_id}")).await;
        assert!(
            call.body["executionId"].is_string() || call.body["execution_id"].is_string(),
            "{call:?}"
        );
        assert_eq!(world.dialer.ledger().count(Deed::Dial), 1);
        world
            .dialer
            .end(world.dialer.dials()[0].call_id)
            .expect("delivered");
        assert_eq!(world.dialer.wait_for_dials(2, PATIENCE)[1].to, number(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_the_provider_proves_it_never_had_is_tried_again() {
    for behaviour in [
        Behaviour::Reset,
        Behaviour::Mute,
        Behaviour::Refuse(500),
        Behaviour::Garbage,
    ] {
        let world = World::new(10).with("PROVIDER_TIMEOUT_MS", "500");
        let server = world.serve();
        let ada = world.user(&server, "ada", 1).await;
        world.dialer.next(behaviour.clone());

        let answer = ada.call(1).await;

        assert_eq!(
            (answer.status, &answer.body["status"]),
            (202, &json!("unknown")),
            "{behaviour:?}"
        );
        let dials = world.dialer.wait_for_dials(2, PATIENCE);
        assert_eq!((dials[1].attempt, dials[1].call_id), (2, dials[0].call_id));
        let ledger = world.dialer.ledger();
        assert!(
            ledger.count(Deed::LookUp) >= 2,
            "asked before it was dialled again"
        );
        assert!(ledger.starts_per_call().values().all(|starts| *starts == 1));
        assert!(ledger.dials_per_attempt().values().all(|dials| *dials == 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_proof_a_call_is_never_dialled_again() {
    let world = World::new(10).with("PROVIDER_TIMEOUT_MS", "300");
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    world.dialer.answer_look_ups_with(Some(500));
    world.dialer.next(Behaviour::AcceptThenReset);

    ada.call(1).await;

    let asked_often = |ledger: &callq_testing::Ledger| ledger.count(Deed::LookUp) >= 3;
    let ledger = world.dialer.wait_until(PATIENCE, asked_often);
    assert_eq!(ledger.count(Deed::Dial), 1);
    assert_eq!(world.count("SELECT active FROM system_state"), 1);
    assert_eq!(
        world.count("SELECT count(*) FROM active_calls WHERE status = 'unknown'"),
        1
    );
    world.dialer.answer_look_ups_with(None);
    world
        .until_count(
            "SELECT count(*) FROM active_calls WHERE execution_id IS NOT NULL",
            1,
        )
        .await;
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_comes_before_the_answer_frees_the_slot_once() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    world.dialer.next(Behaviour::EventFirst { status: "busy" });

    let answer = ada.call(1).await;

    assert!([200, 202].contains(&answer.status), "{answer:?}");
    assert_eq!(world.count("SELECT active FROM system_state"), 0);
    assert_eq!(
        world.count("SELECT count(*) FROM call_records WHERE status = 'busy'"),
        1
    );
    assert_eq!(ada.call(2).await.status, 200);
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlong_call_is_asked_about_and_ended_whether_or_not_it_can_be_hung_up() {
    join_all([None, Some(500)].map(|hang_ups| async move {
        let world = World::new(10).with("MAX_CALL_SECONDS", "1");
        let server = world.serve();
        let ada = world.user(&server, "ada", 1).await;
        world.dialer.answer_hang_ups_with(hang_ups);
        assert_eq!(ada.call(1).await.status, 200);
        assert_eq!(ada.call(2).await.status, 202);

        let ended =
            "SELECT count(*) FROM call_records WHERE status = 'failed' AND reason = 'timed_out'";
        let counted = format!("{ended} AND phone_number = '{}'", number(1));
        world.until_count(&counted, 1).await;

        let dials = world.dialer.wait_for_dials(2, PATIENCE);
        assert_eq!(dials[1].to, number(2));
        let ledger = world.dialer.ledger();
        assert!(ledger.count(Deed::LookUp) >= 1 && ledger.count(Deed::HangUp) >= 1);
        // An end that comes after all changes nothing.
        assert_eq!(world.dialer.end(dials[0].call_id).expect("delivered"), 200);
        assert_eq!(world.count(&counted), 1);
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_asks_the_provider_and_its_event_frees_the_slot() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let eve = world.user(&server, "eve", 1).await;
    let call_id = ada.call(1).await.body["callId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/api/calls/{call_id}/hangup");

    assert_eq!(eve.post(&path, json!({})).await.status, 404);
    let answer = ada.post(&path, json!({})).await;

    assert!((200..300).contains(&answer.status), "{answer:?}");
    assert_eq!(world.dialer.ledger().count(Deed::HangUp), 1);
    world
        .until_count("SELECT active FROM system_state", 0)
        .await;
    let again = ada.post(&path, json!({})).await;
    assert_eq!(again.status, 409, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_or_stale_event_changes_nothing() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let call_id = ada.call(1).await.body["callId"].clone();
    let event = json!({"event_id": "e1", "call_id": call_id, "execution_id": "exec-1", "status": "completed",
        "occurred_at": "2026-11-22T00:00:00Z"});

    let unsigned = ada.post("/api/webhooks/http", event.clone()).await;
    let headers = [
        ("webhook-id", "e1"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", "v1,aaaa"),
    ];
    let forged = ada
        .send(
            reqwest::Method::POST,
            "/api/webhooks/http",
            Some(event.to_string()),
            &headers,
        )
        .await;

    assert_eq!((unsigned.status, forged.status), (401, 401));
    assert_eq!(world.count("SELECT active FROM system_state"), 1);
}
