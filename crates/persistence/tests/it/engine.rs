//! The engine's batches: each thing happens once, for its owner only, and in the right order.

use std::time::Duration;

use callq_domain::{
    Admission, Attempt, CallId, CampaignStatus, Ending, EndingEffect, EngineStore, ExecutionId,
    OperatorStore, Outcome, OwnershipStore, ProgressBatch, QueueReason, ReportedStatus, ServerId,
    SlotBatch, StatusEvent, Target, UserChange, Weight,
};

use crate::scene::{Scene, direct_call, phone_number};

fn ending(call_id: CallId, attempt: Option<u32>) -> Ending {
    Ending {
        call_id,
        attempt,
        outcome: Outcome::Completed,
        execution_id: ExecutionId::new("x"),
        reason: None,
        duration_seconds: None,
    }
}

async fn end(scene: &Scene, server: ServerId, endings: Vec<Ending>) -> Vec<EndingEffect> {
    let batch = SlotBatch {
        endings,
        ..SlotBatch::default()
    };
    scene.store.settle(server, &batch).await.unwrap().endings
}

async fn mark(scene: &Scene, server: ServerId, attempt: Attempt) -> bool {
    let batch = ProgressBatch {
        dialing: vec![attempt],
        ..ProgressBatch::default()
    };
    scene
        .store
        .record_progress(server, &batch)
        .await
        .unwrap()
        .dialing[0]
}

fn event(call_id: CallId, status: ReportedStatus) -> StatusEvent {
    StatusEvent {
        event_id: "e".into(),
        call_id,
        execution_id: ExecutionId::new("from-the-event"),
        status,
        occurred_at: chrono::Utc::now(),
        duration_seconds: None,
        reason: None,
    }
}

#[tokio::test]
async fn a_call_ends_once_however_often_it_is_said() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let call = scene
        .started_call(user, agent)
        .await
        .request
        .attempt
        .call_id;

    let both = end(
        &scene,
        scene.server,
        vec![ending(call, None), ending(call, None)],
    )
    .await;
    let late = end(
        &scene,
        scene.server,
        vec![ending(call, None), ending(CallId::new(), None)],
    )
    .await;

    assert_eq!(both, [EndingEffect::Ended, EndingEffect::Ignored]);
    assert_eq!(late, [EndingEffect::Ignored, EndingEffect::UnknownCall]);
    assert_eq!(scene.count("SELECT count(*) FROM calls"), 1);
    scene.assert_counters_equal_rows().await;
}

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
    let again = scene.store.settle(scene.server, &batch).await.unwrap();

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
    assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 2);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn statuses_only_move_forward_and_an_event_may_name_the_call_first() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    assert!(mark(&scene, scene.server, attempt).await);
    let told = |status| {
        let batch = ProgressBatch {
            events: vec![event(attempt.call_id, status)],
            ..ProgressBatch::default()
        };
        let scene = &scene;
        async move {
            scene
                .store
                .record_progress(scene.server, &batch)
                .await
                .unwrap()
                .events[0]
        }
    };

    assert_eq!(told(ReportedStatus::InProgress).await, EndingEffect::Ended);
    assert_eq!(told(ReportedStatus::Ringing).await, EndingEffect::Ignored);
    let late = ProgressBatch {
        placed: vec![(attempt, ExecutionId::new("from-the-answer").unwrap())],
        unknown: vec![(attempt, "late".into())],
        ..ProgressBatch::default()
    };
    let outcome = scene
        .store
        .record_progress(scene.server, &late)
        .await
        .unwrap();

    assert_eq!(
        (outcome.placed, outcome.unknown),
        (vec![false], vec![false])
    );
    assert_eq!(
        scene.count("SELECT count(*) FROM active_calls WHERE status = 'in-progress' AND execution_id = 'from-the-event'"),
        1
    );
}

#[tokio::test]
async fn campaigns_leave_the_reserved_slots_to_direct_calls() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 3).await;
    let change = UserChange {
        direct_reserved_slots: Some(2),
        ..UserChange::default()
    };
    scene.store.update_user(user, change).await.unwrap();
    scene.campaign(user, 5).await;

    assert_eq!(
        scene.dispatch(10).await.len(),
        1,
        "two of three slots are kept from it"
    );
    scene.started_call(user, agent).await;
    assert_eq!(scene.dispatch(10).await.len(), 0);
    scene.started_call(user, agent).await;
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn weights_give_turns_in_proportion() {
    let scene = Scene::new().await;
    let (one, two) = (scene.user().await, scene.user().await);
    for user in [one, two] {
        scene.limit(user, 100).await;
        scene.campaign(user, 60).await;
    }
    let change = UserChange {
        weight: Weight::new(2),
        ..UserChange::default()
    };
    scene.store.update_user(two, change).await.unwrap();
    scene.sql("UPDATE system_state SET concurrent_calls_limit = 1000");

    let mut started = Vec::new();
    for _ in 0..6 {
        started.extend(scene.dispatch(10).await);
    }

    let of_two = started
        .iter()
        .filter(|call| call.request.user_id == two)
        .count();
    assert_eq!((started.len(), of_two), (60, 40));
}

#[tokio::test]
async fn one_batch_gives_turns_as_many_small_ones_would() {
    let orders: Vec<Vec<usize>> = {
        let mut orders = Vec::new();
        for budget in [1, 3, 50] {
            let scene = Scene::new().await;
            let mut users = Vec::new();
            for backlog in [1, 7, 20] {
                let user = scene.user().await;
                scene.limit(user, 100).await;
                scene.campaign(user, backlog).await;
                users.push(user);
            }
            scene.sql("UPDATE system_state SET concurrent_calls_limit = 1000");
            let mut order = Vec::new();
            loop {
                let started = scene.dispatch(budget).await;
                if started.is_empty() {
                    break;
                }
                order.extend(started.iter().map(|call| {
                    users
                        .iter()
                        .position(|user| *user == call.request.user_id)
                        .unwrap()
                }));
            }
            orders.push(order);
        }
        orders
    };
    assert_eq!(orders[0].len(), 28);
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[0], orders[2]);
    assert_eq!(orders[0][..5], [0, 1, 2, 1, 2]);
}

#[tokio::test]
async fn the_order_within_a_campaign_is_that_of_its_contacts_and_positions_never_repeat() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.limit(user, 1).await;
    scene.campaign(user, 20).await;
    let mut positions = Vec::new();
    for _ in 0..20 {
        let started = scene.dispatch(10).await;
        let id = started[0].item_id;
        positions.push(scene.count(&format!(
            "SELECT position FROM call_queue WHERE id = '{id}'"
        )));
        scene
            .end(started[0].request.attempt.call_id, Outcome::NoAnswer)
            .await;
    }
    assert!(
        positions.windows(2).all(|pair| pair[0] < pair[1]),
        "{positions:?}"
    );
    assert_eq!(scene.count("SELECT failed FROM campaign_slots"), 20);
    assert_eq!(
        scene.count("SELECT count(*) FROM campaigns WHERE status = 'completed'"),
        1
    );
}

#[tokio::test]
async fn a_call_that_keeps_being_turned_away_steps_aside_after_the_fourth_attempt() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    let mut attempt = scene.started_call(user, agent).await.request.attempt;
    let second = scene.waiting_call(user, agent).await;
    for number in 1..=4 {
        assert_eq!(attempt.number, number);
        scene.give_back(attempt).await;
        assert_eq!(scene.dispatch(1).await.len(), 0, "the lane is held");
        scene.sql("UPDATE user_slots SET held_direct = clock_timestamp()");
        let next = scene.dispatch(1).await.remove(0);
        if number < 4 {
            attempt = next.request.attempt;
        } else {
            assert_eq!(next.item_id, second, "the one behind it goes");
        }
    }
    scene.assert_counters_equal_rows().await;
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
async fn a_returned_call_is_no_priority_violation_and_a_real_one_shows() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let direct = scene.started_call(user, agent).await.request.attempt;
    scene.campaign(user, 1).await;
    assert_eq!(scene.dispatch(1).await.len(), 1);
    scene.give_back(direct).await;
    assert_eq!(scene.count("SELECT count(*) FROM priority_violations"), 0);

    // What no function of ours would do.
    scene.sql("UPDATE call_queue SET due_since = due_since - interval '1 hour' WHERE call_type = 'direct'");
    assert_eq!(scene.count("SELECT count(*) FROM priority_violations"), 1);
}

#[tokio::test]
async fn an_audit_names_a_counter_that_differs_from_its_rows() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.started_call(user, agent).await;
    scene.sql("UPDATE system_state SET active = 7");

    let differences = scene.store.audit().await.unwrap();

    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(
        (
            differences[0].counter.as_str(),
            differences[0].kept,
            differences[0].counted
        ),
        ("system_state.active", 7, 1)
    );
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
async fn a_user_at_its_limit_is_told_so_and_a_full_system_comes_second() {
    let scene = Scene::new().await;
    let (one, two) = (scene.user().await, scene.user().await);
    let (agent, other) = (scene.agent(one).await, scene.agent(two).await);
    scene.sql("UPDATE system_state SET concurrent_calls_limit = 3");
    for _ in 0..2 {
        scene.started_call(one, agent).await;
    }
    scene.started_call(two, other).await;
    let reason = |admission: Admission| match admission {
        Admission::Queued(queued) => queued.reason.to_string(),
        other => panic!("{other:?}"),
    };

    assert_eq!(
        reason(scene.direct_call(one, agent).await),
        "User has reached concurrency limit (2/2 active calls)"
    );
    assert_eq!(
        reason(scene.direct_call(two, other).await),
        "System has reached concurrency limit (3/3 active calls)"
    );
    scene.sql("UPDATE system_state SET concurrent_calls_limit = 9");
    assert_eq!(
        reason(scene.direct_call(two, other).await),
        "Earlier direct calls are waiting (1 ahead)"
    );
    assert!(matches!(
        scene.direct_call(one, agent).await,
        Admission::Queued(queued) if matches!(queued.reason, QueueReason::UserLimit(_))
    ));
}

#[tokio::test]
async fn a_closed_campaign_holds_all_its_calls_and_an_open_one_lets_them_go() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.limit(user, 10).await;
    let campaign = scene.campaign(user, 500).await;
    assert_eq!(scene.dispatch(3).await.len(), 3);

    scene
        .set_status(user, campaign, CampaignStatus::Paused)
        .await;
    assert_eq!(scene.dispatch(10).await.len(), 0);
    scene
        .set_status(user, campaign, CampaignStatus::Active)
        .await;
    assert_eq!(scene.dispatch(10).await.len(), 7);

    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_admission_whose_caller_was_told_no_is_cancelled_if_it_was_kept() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    let started = scene.started_call(user, agent).await.item_id;
    let waiting = scene.waiting_call(user, agent).await;
    let never_kept = callq_domain::QueueItemId::new();

    let batch = SlotBatch {
        disowned: vec![started, waiting, never_kept],
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
    assert!(matches!(
        scene
            .store
            .settle(scene.server, &batch)
            .await
            .unwrap()
            .admissions[0],
        Admission::Queued(_)
    ));
    scene.sql("UPDATE system_state SET dispatch_paused = false");

    let resent = SlotBatch {
        resent: true,
        ..batch
    };
    let outcome = scene.store.settle(scene.server, &resent).await.unwrap();

    let Admission::Started(call) = &outcome.admissions[0] else {
        panic!("{outcome:?}");
    };
    assert_eq!(outcome.reserved.len(), 0, "it is its caller's to place");
    let twice = ProgressBatch {
        dialing: vec![call.request.attempt; 2],
        ..ProgressBatch::default()
    };
    let leave = scene
        .store
        .record_progress(scene.server, &twice)
        .await
        .unwrap()
        .dialing;
    assert_eq!(leave, [true, false]);
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
        resent: true,
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
    let calls: Vec<_> = (0..1_500)
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
    assert_eq!(second.len(), 0);
    assert_eq!(
        scene.count("SELECT count(*) FROM call_queue_history WHERE status = 'expired'"),
        1_500
    );
    scene.assert_counters_equal_rows().await;
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

#[tokio::test]
async fn a_row_inserted_by_hand_has_the_priority_of_its_type_and_must_match_it() {
    use diesel::connection::SimpleConnection;
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let insert = |call_type: &str| {
        format!(
            "INSERT INTO call_queue (user_id, agent_id, phone_number, call_type) \
             VALUES ('{user}', '{agent}', '+14155552671', '{call_type}')"
        )
    };

    scene.sql(&insert("direct"));
    let refused = scene
        .connection()
        .batch_execute(&insert("campaign"))
        .unwrap_err();

    assert_eq!(scene.count("SELECT priority FROM call_queue"), 100);
    assert!(
        refused
            .to_string()
            .contains("call_queue_campaign_matches_type"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_event_of_another_execution_changes_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    scene.place(attempt).await;

    let told = ProgressBatch {
        events: vec![event(attempt.call_id, ReportedStatus::Ringing)],
        ..ProgressBatch::default()
    };
    let effect = scene
        .store
        .record_progress(scene.server, &told)
        .await
        .unwrap()
        .events[0];
    let end_of_another = end(&scene, scene.server, vec![ending(attempt.call_id, None)]).await;

    assert_eq!(
        (effect, end_of_another[0]),
        (EndingEffect::Ignored, EndingEffect::Ignored)
    );
    assert_eq!(scene.count("SELECT active FROM system_state"), 1);
}
