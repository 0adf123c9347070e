//! Attempts belong to servers: who may act on them, and what becomes of them when one dies.

use std::time::Duration;

use callq_domain::{
    Attempt, CallStatus, CallStore, EndingEffect, EngineStore, Outcome, OwnershipStore,
    ProgressBatch, ReportedStatus, ServerId, SlotBatch, StoreError,
};

use crate::scene::Scene;

use crate::engine::{end, ending, event};

#[tokio::test]
async fn only_the_owner_of_the_current_attempt_may_record_end_or_return_it() {
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

    let placed = |attempt| ProgressBatch {
        placed: vec![(attempt, callq_domain::ExecutionId::new("x").unwrap())],
        ..ProgressBatch::default()
    };
    for (server, attempt) in [(stranger, attempt), (scene.server, later)] {
        let outcome = scene.store.record_progress(server, &placed(attempt)).await;
        assert_eq!(outcome.unwrap().placed, [false]);
    }
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
async fn a_server_whose_lease_is_over_starts_nothing_and_may_still_end_calls() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    scene.campaign(user, 1).await;
    scene.sql("UPDATE servers SET lease_until = clock_timestamp() - interval '1 millisecond'");

    let number = callq_domain::Target::Number("+14155550100".parse().unwrap());
    for batch in [
        SlotBatch {
            reserve: 1,
            ..SlotBatch::default()
        },
        SlotBatch {
            admissions: vec![crate::scene::direct_call(user, agent, number)],
            ..SlotBatch::default()
        },
    ] {
        let refused = scene.store.settle(scene.server, &batch).await;
        assert!(
            matches!(refused, Err(callq_domain::StoreError::Unavailable(_))),
            "{refused:?}"
        );
    }
    let ended = end(&scene, scene.server, vec![ending(attempt.call_id, None)]).await;

    assert_eq!(ended, [EndingEffect::Ended]);
    assert_eq!(scene.count("SELECT count(*) FROM active_calls"), 0);
    assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 1);
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
async fn orphans_of_a_dead_server_are_looked_up_or_adopted() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 2).await;
    let dialing = scene.started_call(user, agent).await.request.attempt;
    let placed = scene.started_call(user, agent).await.request.attempt;
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
    let doubtful = scene
        .store
        .doubtful_calls(heir, Duration::from_secs(3600))
        .await
        .unwrap();
    assert_eq!(
        doubtful.iter().map(|one| one.attempt).collect::<Vec<_>>(),
        [dialing]
    );
    let (_, history) = scene
        .store
        .call(user, placed.call_id)
        .await
        .unwrap()
        .unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|entry| (entry.status.as_str(), entry.server))
        .collect();
    let (first, heir_said) = (Some(scene.server), Some(heir));
    assert_eq!(
        told,
        [
            ("reserved", first),
            ("dialing", first),
            ("placed", first),
            ("dialing", heir_said)
        ],
        "who did what stays told"
    );
    let late = SlotBatch {
        reserve: 1,
        ..SlotBatch::default()
    };
    assert!(
        scene.store.settle(scene.server, &late).await.is_err(),
        "the dead start nothing"
    );
    assert_eq!(scene.count("SELECT count(*) FROM servers"), 1);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_reservation_whose_answer_was_lost_goes_back_and_not_one_in_use() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.campaign(user, 1).await;
    let in_use = scene.started_call(user, agent).await;
    let answered = scene.look().await.number;
    let lost = scene.dispatch(1).await.remove(0);

    let next = SlotBatch {
        answered: Some(answered),
        ..SlotBatch::default()
    };
    scene.store.settle(scene.server, &next).await.unwrap();

    let waiting = format!(
        "SELECT count(*) FROM call_queue WHERE id = '{}'",
        lost.item_id
    );
    let active = format!(
        "SELECT count(*) FROM active_calls WHERE item_id = '{}'",
        in_use.item_id
    );
    assert_eq!((scene.count(&waiting), scene.count(&active)), (1, 1));
    let again = scene.dispatch(1).await.remove(0);
    assert_eq!(
        (again.item_id, again.request.attempt.number),
        (lost.item_id, 2)
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_was_given_up_never_takes_effect_behind_the_next() {
    let scene = std::sync::Arc::new(Scene::new().await);
    let user = scene.user().await;
    scene.campaign(user, 2).await;
    let answered = scene.look().await.number;
    // Both wait for the engine's lock, and the second was sent because the first was given up.
    let mut other = scene.connection();
    diesel::connection::SimpleConnection::batch_execute(&mut other, "BEGIN; SELECT lock_engine()")
        .unwrap();
    let settle = |answered| {
        let scene = scene.clone();
        tokio::spawn(async move {
            let batch = SlotBatch {
                reserve: 1,
                answered,
                ..SlotBatch::default()
            };
            scene.store.settle(scene.server, &batch).await
        })
    };
    let given_up = settle(None);
    scene.until_waiting_for_lock(1).await;
    let next = settle(Some(answered));
    scene.until_waiting_for_lock(2).await;
    diesel::connection::SimpleConnection::batch_execute(&mut other, "COMMIT").unwrap();

    let (given_up, next) = (given_up.await.unwrap(), next.await.unwrap());
    // If the one before took effect only now, its calls are not locked yet: the next is sent again.
    let next = match next {
        Err(StoreError::Unavailable(cause)) => {
            assert!(cause.contains("took effect meanwhile"), "{cause}");
            settle(Some(answered)).await.unwrap().unwrap()
        }
        settled => settled.unwrap(),
    };

    // Whichever had the lock first, the one call that is up is the one that was answered for.
    assert_eq!(next.reserved.len(), 1);
    let up = format!(
        "SELECT count(*) FROM active_calls WHERE item_id = '{}'",
        next.reserved[0].item_id
    );
    assert_eq!(scene.count(&up), 1);
    assert_eq!(
        scene.count("SELECT count(*) FROM active_calls"),
        1,
        "{given_up:?}"
    );
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
        scene.count(
            "SELECT count(*) FROM call_records WHERE status = 'failed' AND reason = 'timed_out'"
        ),
        1
    );
}

#[tokio::test]
async fn proof_of_life_outweighs_an_older_proof_of_absence() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
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

/// A server that slept through its lease was taken over itself, its row is gone. What it took now
/// would be nobody's should it die before it has renewed.
#[tokio::test]
async fn a_server_whose_lease_is_over_takes_nothing_over_and_what_is_nobodys_is_found() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let call = scene.started_call(user, agent).await.request.attempt;
    scene.sql("UPDATE servers SET lease_until = clock_timestamp()");
    let sleeper = ServerId::new();

    assert_eq!(scene.store.adopt_orphans(sleeper).await.unwrap(), []);

    let owner = format!(
        "SELECT count(*) FROM active_calls WHERE owner = '{}'",
        scene.server
    );
    assert_eq!(scene.count(&owner), 1);
    // As servers of the versions before left it.
    scene.sql(&format!(
        "UPDATE active_calls SET owner = '{}'; DELETE FROM servers",
        ServerId::new()
    ));
    let heir = ServerId::new();
    let lease = Duration::from_secs(60);
    scene.store.renew_lease(heir, lease).await.unwrap();
    let adopted = scene.store.adopt_orphans(heir).await.unwrap();
    let adopted: Vec<_> = adopted.iter().map(|it| (it.id, it.status)).collect();
    assert_eq!(adopted, [(call.call_id, CallStatus::Unknown)]);
    assert_eq!(scene.store.adopt_orphans(heir).await.unwrap(), []);
}
