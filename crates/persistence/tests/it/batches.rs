//! Batches: sent again, after a pause, with nothing to do.

use std::time::Duration;

use callq_domain::{
    Admission, Ending, EngineStore, IdempotencyKey, NewDirectCall, Outcome, OwnershipStore,
    QueueItemId, Repeat, ServerId, SlotBatch, Target,
};

use crate::scene::{Scene, direct_call, phone_number};

#[tokio::test]
async fn the_same_batch_sent_again_after_a_lost_answer_decides_nothing_anew() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    let calls: Vec<_> = (0..2)
        .map(|n| {
            direct_call(
                user,
                agent,
                Target::Number(phone_number(n).parse().unwrap()),
            )
        })
        .collect();
    let batch = SlotBatch {
        admissions: calls,
        ..SlotBatch::default()
    };

    let first = scene.store.settle(scene.server, &batch).await.unwrap();
    let resent = SlotBatch {
        answered: Some(first.number - 1),
        ..batch
    };
    let again = scene.store.settle(scene.server, &resent).await.unwrap();

    let (Admission::Started(one), Admission::Started(other)) =
        (&first.admissions[0], &again.admissions[0])
    else {
        panic!("{first:?}\n{again:?}");
    };
    assert_eq!(one.request.attempt, other.request.attempt);
    let (Admission::Queued(one), Admission::Queued(other)) =
        (&first.admissions[1], &again.admissions[1])
    else {
        panic!("{first:?}\n{again:?}");
    };
    assert_eq!(
        (one.item_id, one.place.position),
        (other.item_id, other.place.position)
    );
    assert_eq!(scene.count("SELECT count(*) FROM queue_items"), 2);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_admission_whose_caller_was_told_no_is_cancelled_if_it_was_kept() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    let before = scene.look().await.number;
    let started = scene.started_call(user, agent).await.item_id;
    let waiting = scene.waiting_call(user, agent).await;
    let never_kept = callq_domain::QueueItemId::new();

    let batch = SlotBatch {
        disowned: vec![started, waiting, never_kept],
        answered: Some(before),
        reserve: 5,
        ..SlotBatch::default()
    };
    let outcome = scene.store.settle(scene.server, &batch).await.unwrap();

    assert_eq!(outcome.reserved.len(), 0);
    assert_eq!(
        scene.count("SELECT count(*) FROM call_queue_history WHERE status = 'cancelled'"),
        2
    );
    assert_eq!(scene.count("SELECT count(*) FROM active_calls"), 0);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_idle_engine_has_no_timer_and_one_with_something_to_come_has() {
    let scene = Scene::new().await;
    let look = || async {
        scene
            .store
            .settle(scene.server, &SlotBatch::default())
            .await
            .unwrap()
    };
    assert_eq!(look().await.next_timer, None);

    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let mut later = direct_call(
        user,
        agent,
        Target::Number(phone_number(1).parse().unwrap()),
    );
    later.scheduled_for = Some(chrono::Utc::now() + chrono::Duration::hours(1));
    scene.admit(later).await;

    let timer = look().await.next_timer.unwrap();
    assert!(
        timer > Duration::from_secs(3_590) && timer <= Duration::from_secs(3_600),
        "{timer:?}"
    );
}

#[tokio::test]
async fn a_resent_call_that_is_reserved_by_the_same_batch_is_given_out_once() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.sql("UPDATE system_state SET dispatch_paused = true");
    let number = Target::Number(phone_number(1).parse().unwrap());
    let batch = SlotBatch {
        admissions: vec![direct_call(user, agent, number)],
        reserve: 5,
        ..SlotBatch::default()
    };
    let first = scene.store.settle(scene.server, &batch).await.unwrap();
    assert!(matches!(first.admissions[0], Admission::Queued(_)));
    scene.sql("UPDATE system_state SET dispatch_paused = false");

    let resent = SlotBatch {
        answered: Some(first.number - 1),
        ..batch
    };
    let outcome = scene.store.settle(scene.server, &resent).await.unwrap();

    let Admission::Started(call) = &outcome.admissions[0] else {
        panic!("{outcome:?}");
    };
    assert_eq!(outcome.reserved.len(), 0, "it is its caller's to place");
    assert_eq!(call.request.attempt.number, 1);
}

#[tokio::test]
async fn a_resent_call_that_is_over_is_not_admitted_again() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let number = Target::Number(phone_number(1).parse().unwrap());
    let batch = SlotBatch {
        admissions: vec![direct_call(user, agent, number)],
        ..SlotBatch::default()
    };
    let first = scene.store.settle(scene.server, &batch).await.unwrap();
    let Admission::Started(call) = &first.admissions[0] else {
        panic!("{first:?}");
    };
    scene
        .end(call.request.attempt.call_id, Outcome::Completed)
        .await;

    let resent = SlotBatch {
        answered: Some(first.number - 1),
        ..batch
    };
    let again = scene.store.settle(scene.server, &resent).await.unwrap();

    assert!(matches!(
        again.admissions[0],
        Admission::Repeated(callq_domain::Repeat::Unanswered(item)) if item == call.item_id
    ));
    assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 0);
}

#[tokio::test]
async fn nothing_starts_while_calls_that_should_have_expired_are_left() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.sql("UPDATE system_state SET dispatch_paused = true");
    let mut calls: Vec<_> = (0..2_000)
        .map(|_| {
            let mut call = direct_call(
                user,
                agent,
                Target::Number(phone_number(1).parse().unwrap()),
            );
            call.expires_in = Some(Duration::from_secs(60));
            call
        })
        .collect();
    let number = Target::Number(phone_number(2).parse().unwrap());
    calls.push(direct_call(user, agent, number));
    let batch = SlotBatch {
        admissions: calls,
        ..SlotBatch::default()
    };
    scene.store.settle(scene.server, &batch).await.unwrap();
    // The server was down for an hour.
    scene.sql("UPDATE call_queue SET expires_at = expires_at - interval '1 hour'; UPDATE system_state SET dispatch_paused = false");

    let look = SlotBatch {
        reserve: 5,
        ..SlotBatch::default()
    };
    let first = scene.store.settle(scene.server, &look).await.unwrap();
    let second = scene.dispatch(5).await;

    assert_eq!(
        (first.reserved.len(), first.next_timer),
        (0, Some(Duration::ZERO))
    );
    assert_eq!(
        second.len(),
        1,
        "the one that has not expired waits no longer"
    );
    assert_eq!(
        scene.count("SELECT count(*) FROM call_queue_history WHERE status = 'expired'"),
        2_000
    );
    scene.assert_counters_equal_rows().await;
}

/// The caller was told that nothing was accepted, and another server has begun the call since: the
/// repeat of the request must get that call.
#[tokio::test]
async fn a_call_that_was_disowned_when_another_server_had_begun_it_keeps_its_key() {
    let scene = Scene::new().await;
    let other = ServerId::new();
    let lease = Duration::from_secs(60);
    scene.store.renew_lease(other, lease).await.unwrap();
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    let up = scene.started_call(user, agent).await;
    let mut keyed = direct_call(
        user,
        agent,
        Target::Number(phone_number(7).parse().unwrap()),
    );
    keyed.idempotency = Some(IdempotencyKey {
        key: "once".into(),
        request_hash: [7; 32],
    });
    let lost = SlotBatch {
        admissions: vec![keyed.clone()],
        ..SlotBatch::default()
    };
    let lost = scene.store.settle(scene.server, &lost).await.unwrap();
    let ends = SlotBatch {
        endings: vec![Ending {
            call_id: up.request.attempt.call_id,
            attempt: None,
            outcome: Outcome::Completed,
            execution_id: None,
            reason: None,
            duration_seconds: None,
        }],
        reserve: 1,
        ..SlotBatch::default()
    };
    let taken = scene.store.settle(other, &ends).await.unwrap().reserved;
    assert_eq!(taken[0].item_id, keyed.item_id);

    let disowned = SlotBatch {
        answered: Some(lost.number - 1),
        disowned: vec![keyed.item_id],
        ..SlotBatch::default()
    };
    scene.store.settle(scene.server, &disowned).await.unwrap();

    let again = SlotBatch {
        admissions: vec![NewDirectCall {
            item_id: QueueItemId::new(),
            ..keyed.clone()
        }],
        ..SlotBatch::default()
    };
    let again = scene.store.settle(scene.server, &again).await.unwrap();
    let told = &again.admissions[0];
    assert!(
        matches!(told, Admission::Repeated(Repeat::Unanswered(item)) if *item == keyed.item_id),
        "{told:?}"
    );
    assert_eq!(scene.count("SELECT count(*) FROM queue_items"), 2);
    scene.assert_counters_equal_rows().await;
}
