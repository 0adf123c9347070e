//! Whose turn it is, and why one waits.

use callq_domain::{
    Admission, CampaignStatus, OperatorStore, Outcome, QueueReason, UserChange, Weight,
};

use crate::scene::Scene;

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
            "SELECT position FROM active_calls WHERE item_id = '{id}'"
        )));
        scene
            .end(started[0].request.attempt.call_id, Outcome::NoAnswer)
            .await;
    }
    assert!(
        positions.windows(2).all(|pair| pair[0] < pair[1]),
        "{positions:?}"
    );
    let failed = "SELECT count(*) FROM call_queue_history WHERE status = 'failed'";
    assert_eq!(scene.count(failed), 20);
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
