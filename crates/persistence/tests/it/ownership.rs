//! Attempts belong to servers: who may act on them, and what becomes of them when one dies.

use std::time::Duration;

use callq_domain::{
    Attempt, EndingEffect, EngineStore, Outcome, OwnershipStore, ProgressBatch, ReportedStatus,
    ServerId, SlotBatch,
};

use crate::scene::Scene;

use crate::engine::{end, ending, event, mark};

#[tokio::test]
async fn only_the_owner_of_the_current_attempt_may_mark_end_or_return_it() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    let stranger = ServerId::new();
    scene
        .store
        .renew_lease(stranger, Duration::from_secs(60))
        .await
        .unwrap();
    let later = Attempt {
        number: attempt.number + 1,
        ..attempt
    };
    let back = |attempt| SlotBatch {
        returns: vec![callq_domain::Return {
            attempt,
            delay: Duration::ZERO,
            reason: "no".into(),
            if_unknown: false,
        }],
        ..SlotBatch::default()
    };

    assert!(!mark(&scene, stranger, attempt).await);
    assert!(!mark(&scene, scene.server, later).await);
    let number = attempt.number;
    assert_eq!(
        end(
            &scene,
            stranger,
            vec![ending(attempt.call_id, Some(number))]
        )
        .await,
        [EndingEffect::Ignored]
    );
    assert_eq!(
        end(
            &scene,
            scene.server,
            vec![ending(attempt.call_id, Some(number + 1))]
        )
        .await,
        [EndingEffect::Ignored]
    );
    assert_eq!(
        scene
            .store
            .settle(stranger, &back(attempt))
            .await
            .unwrap()
            .returns,
        [None]
    );
    assert_eq!(
        scene
            .store
            .settle(scene.server, &back(later))
            .await
            .unwrap()
            .returns,
        [None]
    );

    assert!(mark(&scene, scene.server, attempt).await);
    assert!(
        !mark(&scene, scene.server, attempt).await,
        "an attempt is sent once in its life"
    );
    assert_eq!(
        end(
            &scene,
            scene.server,
            vec![ending(attempt.call_id, Some(number))]
        )
        .await,
        [EndingEffect::Ended]
    );
}

#[tokio::test]
async fn a_server_whose_lease_is_over_may_send_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    scene.sql("UPDATE servers SET lease_until = clock_timestamp() - interval '1 millisecond'");

    assert!(!mark(&scene, scene.server, attempt).await);
}

#[tokio::test]
async fn a_placed_call_is_not_put_back_whoever_asks() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    scene.place(attempt).await;

    let batch = SlotBatch {
        returns: vec![callq_domain::Return {
            attempt,
            delay: Duration::ZERO,
            reason: "no".into(),
            if_unknown: false,
        }],
        ..SlotBatch::default()
    };
    assert_eq!(
        scene
            .store
            .settle(scene.server, &batch)
            .await
            .unwrap()
            .returns,
        [None]
    );
    assert_eq!(scene.count("SELECT active FROM system_state"), 1);
}

#[tokio::test]
async fn orphans_of_a_dead_server_are_put_back_looked_up_or_adopted() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 3).await;
    let reserved = scene.started_call(user, agent).await;
    let dialing = scene.started_call(user, agent).await.request.attempt;
    let placed = scene.started_call(user, agent).await.request.attempt;
    assert!(mark(&scene, scene.server, dialing).await);
    scene.place(placed).await;
    let heir = ServerId::new();
    scene
        .store
        .renew_lease(heir, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(
        scene.store.adopt_orphans(heir).await.unwrap(),
        [],
        "its server lives"
    );

    scene.sql(&format!(
        "UPDATE servers SET lease_until = clock_timestamp() WHERE id = '{}'",
        scene.server
    ));
    let adopted = scene.store.adopt_orphans(heir).await.unwrap();

    let mut adopted: Vec<_> = adopted
        .iter()
        .map(|call| (call.id, call.status.as_str()))
        .collect();
    adopted.sort();
    let mut expected = vec![(dialing.call_id, "unknown"), (placed.call_id, "dialing")];
    expected.sort();
    assert_eq!(adopted, expected);
    let waiting = format!(
        "SELECT count(*) FROM call_queue WHERE id = '{}' AND status = 'queued'",
        reserved.item_id
    );
    assert_eq!(scene.count(&waiting), 1);
    assert!(
        !mark(&scene, scene.server, reserved.request.attempt).await,
        "the dead send nothing"
    );
    let doubtful = scene
        .store
        .doubtful_calls(heir, Duration::from_secs(3600))
        .await
        .unwrap();
    assert_eq!(
        doubtful.iter().map(|one| one.attempt).collect::<Vec<_>>(),
        [dialing]
    );
    let batch = SlotBatch {
        reserve: 5,
        ..SlotBatch::default()
    };
    let again = scene.store.settle(heir, &batch).await.unwrap().reserved;
    assert_eq!(
        (again[0].item_id, again[0].request.attempt.number),
        (reserved.item_id, 2)
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_reservation_whose_answer_was_lost_is_put_back_and_not_one_in_use() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let lost = scene.started_call(user, agent).await.item_id;
    let fresh = scene.started_call(user, agent).await.item_id;
    scene.sql(&format!(
        "UPDATE active_calls SET reserved_at = reserved_at - interval '11 seconds' WHERE item_id = '{lost}'"
    ));

    scene
        .store
        .return_stale_reservations(scene.server)
        .await
        .unwrap();

    let of = |id| {
        scene.count(&format!(
            "SELECT count(*) FROM call_queue WHERE id = '{id}' AND status = 'queued'"
        ))
    };
    assert_eq!((of(lost), of(fresh)), (1, 0));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_overdue_call_ends_as_timed_out_whatever_its_hang_up_is_reported_as() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    scene.place(attempt).await;
    scene
        .store
        .mark_overdue(scene.server, attempt)
        .await
        .unwrap();

    scene.end(attempt.call_id, Outcome::Completed).await;

    assert_eq!(
        scene.count("SELECT count(*) FROM calls WHERE status = 'failed' AND reason = 'timed_out'"),
        1
    );
}

#[tokio::test]
async fn proof_of_life_outweighs_an_older_proof_of_absence() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    assert!(mark(&scene, scene.server, attempt).await);
    let lost = ProgressBatch {
        unknown: vec![(attempt, "lost".into())],
        ..ProgressBatch::default()
    };
    scene
        .store
        .record_progress(scene.server, &lost)
        .await
        .unwrap();
    let mut alive = event(attempt.call_id, ReportedStatus::Initiated);
    alive.execution_id = None;
    let alive = ProgressBatch {
        events: vec![alive],
        ..ProgressBatch::default()
    };
    scene
        .store
        .record_progress(scene.server, &alive)
        .await
        .unwrap();

    let batch = SlotBatch {
        returns: vec![callq_domain::Return {
            attempt,
            delay: Duration::ZERO,
            reason: "the provider does not have it".into(),
            if_unknown: true,
        }],
        ..SlotBatch::default()
    };
    assert_eq!(
        scene
            .store
            .settle(scene.server, &batch)
            .await
            .unwrap()
            .returns,
        [None]
    );
}
