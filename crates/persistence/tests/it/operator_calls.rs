//! Single calls as operators see and settle them: the word counts once, with every counter, and what
//! it is not meant for is left alone.

use std::sync::Arc;

use callq_domain::{
    Attempt, CallStatus, CallStory, CallType, CampaignStatus, CampaignStore, Ending, EndingEffect,
    EngineStore, HandEffect, HandRefusal, HandSettlement, ItemStatus, OperatorStore, OperatorWord,
    Outcome, OwnershipStore, ProgressBatch, QueueReason, QueueStore, ReportedStatus, SlotBatch,
    StatusEvent,
};
use callq_domain::{CallId, ExecutionId};
use diesel::connection::SimpleConnection;
use uuid::Uuid;

use crate::scene::{Scene, texts};

impl Scene {
    /// The answer to this attempt is lost.
    async fn lose(&self, attempt: Attempt) {
        let lost = ProgressBatch {
            unknown: vec![(attempt, "no answer in time".into())],
            ..ProgressBatch::default()
        };
        let outcome = self.store.record_progress(self.server, &lost).await;
        assert_eq!(outcome.unwrap().unknown, [true]);
    }

    async fn by_hand(&self, id: impl Into<Uuid>, word: OperatorWord) -> HandEffect {
        let settled = self.store.settle_by_hand(id.into(), saying(word));
        settled.await.unwrap()
    }

    async fn story(&self, id: impl Into<Uuid>) -> CallStory {
        self.store.call_story(id.into()).await.unwrap().unwrap()
    }
}

fn saying(word: OperatorWord) -> HandSettlement {
    HandSettlement {
        word,
        reason: Some("their console says so".parse().unwrap()),
        attempt: None,
    }
}

const fn over(outcome: Outcome) -> OperatorWord {
    OperatorWord::Ended {
        outcome,
        force: false,
    }
}

const fn forced(outcome: Outcome) -> OperatorWord {
    OperatorWord::Ended {
        outcome,
        force: true,
    }
}

fn words(story: &CallStory) -> Vec<&str> {
    let history = story.history.iter();
    history.map(|change| change.status.as_str()).collect()
}

#[tokio::test]
async fn calls_in_doubt_are_listed_oldest_doubt_first_with_whose_and_which_servers_they_are() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let (agent, foreign) = (scene.agent(user).await, scene.agent(other).await);
    let first = scene.started_call(user, agent).await.request.attempt;
    let second = scene.started_call(other, foreign).await.request.attempt;
    let placed = scene.started_call(user, agent).await.request.attempt;
    scene.place(placed).await;
    scene.lose(second).await;
    scene.lose(first).await;
    scene.sql(&format!(
        "UPDATE active_calls SET owner = uuid_v7() WHERE call_id = '{}'",
        first.call_id
    ));
    let held = |status, limit| scene.store.held_calls(status, limit);

    let parked = held(Some(CallStatus::Unknown), None).await.unwrap();

    let ids: Vec<CallId> = parked.items.iter().map(|held| held.call.id).collect();
    assert_eq!(ids, [second.call_id, first.call_id]);
    assert_eq!(parked.total, 2);
    let [one, two] = &parked.items[..] else {
        panic!("{parked:?}");
    };
    assert!(one.unknown_since < two.unknown_since && one.unknown_since.is_some());
    assert_eq!(
        (one.owner.server, one.owner.is_alive, two.owner.is_alive),
        (scene.server, true, false)
    );
    assert!(one.owner.lease_until.is_some() && two.owner.lease_until.is_none());
    assert_eq!(one.call.user_id, other);
    let emails = "SELECT email FROM users ORDER BY id";
    let emails = texts(&mut scene.connection(), emails);
    assert_eq!([&two.user_email, &one.user_email], [&emails[0], &emails[1]]);
    let all = held(None, Some(2)).await.unwrap();
    let ids: Vec<CallId> = all.items.iter().map(|held| held.call.id).collect();
    assert_eq!((ids, all.total), (vec![first.call_id, second.call_id], 3));
    let dialing = held(Some(CallStatus::Dialing), None).await.unwrap();
    assert_eq!(dialing.items[0].call.id, placed.call_id);
    assert!(dialing.items[0].placed_at.is_some());
    let ringing = held(Some(CallStatus::Ringing), None).await.unwrap();
    assert_eq!((ringing.items.len(), ringing.total), (0, 0));
}

#[tokio::test]
async fn an_operator_ends_calls_in_doubt_and_the_next_take_their_slots() {
    for outcome in Outcome::ALL {
        let scene = Scene::new().await;
        let user = scene.user().await;
        let agent = scene.agent(user).await;
        scene.limit(user, 1).await;
        let call = scene.started_call(user, agent).await.request.attempt;
        let next = scene.waiting_call(user, agent).await;
        scene.lose(call).await;
        assert_eq!(scene.dispatch(9).await.len(), 0);

        assert_eq!(
            scene.by_hand(call.call_id, over(outcome)).await,
            HandEffect::Ended
        );

        scene.assert_counters_equal_rows().await;
        assert_eq!(scene.count("SELECT active FROM system_state"), 0);
        let story = scene.story(call.call_id).await;
        assert_eq!(
            story.call.as_ref().unwrap().status,
            CallStatus::Ended(outcome)
        );
        assert_eq!(
            words(&story),
            ["reserved", "dialing", "unknown", outcome.as_str()]
        );
        let last = story.history.last().unwrap();
        assert_eq!(
            (last.reason.as_deref(), last.server, last.attempt),
            (
                Some("settled by an operator: their console says so"),
                None,
                Some(1)
            )
        );
        assert!(!story.holds_slot());
        let taken = scene.dispatch(9).await;
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].item_id, next);
        scene.assert_counters_equal_rows().await;
    }
}

#[tokio::test]
async fn a_call_that_was_never_dialled_goes_back_to_its_place_and_is_tried_again() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    let call = scene.started_call(user, agent).await;
    let attempt = call.request.attempt;
    scene.waiting_call(user, agent).await;
    scene.lose(attempt).await;

    let effect = scene
        .by_hand(attempt.call_id, OperatorWord::NotPlaced)
        .await;

    assert_eq!(effect, HandEffect::Returned);
    scene.assert_counters_equal_rows().await;
    let story = scene.story(attempt.call_id).await;
    assert_eq!(
        (story.status(), story.item.status),
        ("reserved", ItemStatus::Queued)
    );
    assert_eq!(story.place.as_ref().unwrap().position, 1);
    assert_eq!(words(&story), ["reserved", "dialing", "unknown", "queued"]);
    let last = story.history.last().unwrap();
    assert_eq!(
        (last.reason.as_deref(), last.server, last.attempt),
        (
            Some("an operator says that it was never dialled: their console says so"),
            None,
            Some(1)
        )
    );
    let again = scene.dispatch(9).await;
    assert_eq!(again.len(), 1);
    assert_eq!(
        (again[0].request.attempt, again[0].item_id),
        (
            Attempt {
                call_id: attempt.call_id,
                number: 2
            },
            call.item_id
        )
    );
    let story = scene.story(call.item_id).await;
    assert_eq!(
        words(&story),
        [
            "reserved", "dialing", "unknown", "queued", "reserved", "dialing"
        ]
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn what_an_operators_word_is_not_meant_for_is_refused_and_left_alone() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let busy = scene.started_call(user, agent).await.request.attempt;
    scene.end(busy.call_id, Outcome::Busy).await;
    let dialing = scene.started_call(user, agent).await.request.attempt;
    let unknown = scene.started_call(user, agent).await.request.attempt;
    scene.lose(unknown).await;
    let waiting = scene.waiting_call(user, agent).await;
    let rows = || {
        let all = "SELECT c::text FROM active_calls c UNION ALL SELECT q::text FROM call_queue q \
            UNION ALL SELECT h::text FROM call_queue_history h ORDER BY 1";
        texts(&mut scene.connection(), all)
    };
    let before = rows();
    let refused = |refusal| HandEffect::Refused(refusal);
    let (failed, back) = (over(Outcome::Failed), OperatorWord::NotPlaced);
    let (busy, queued) = ("busy".to_owned(), "queued".to_owned());
    let busy_call = scene.store.held_calls(None, None).await.unwrap();
    assert_eq!(busy_call.total, 2);
    let ended = texts(
        &mut scene.connection(),
        "SELECT id::text FROM call_queue_history",
    );
    let ended: Uuid = ended[0].parse().unwrap();

    for (id, word, effect) in [
        (Uuid::now_v7(), failed, HandEffect::UnknownCall),
        (Uuid::now_v7(), back, HandEffect::UnknownCall),
        (
            ended,
            failed,
            refused(HandRefusal::Over {
                status: busy.clone(),
            }),
        ),
        (ended, back, refused(HandRefusal::Over { status: busy })),
        (
            waiting.as_uuid(),
            forced(Outcome::Failed),
            refused(HandRefusal::Waits {
                status: queued.clone(),
            }),
        ),
        (
            waiting.as_uuid(),
            back,
            refused(HandRefusal::Waits { status: queued }),
        ),
        (
            dialing.call_id.as_uuid(),
            failed,
            refused(HandRefusal::NeedsForce {
                status: CallStatus::Dialing,
            }),
        ),
        (
            dialing.call_id.as_uuid(),
            back,
            refused(HandRefusal::NotUnknown {
                status: CallStatus::Dialing,
            }),
        ),
    ] {
        assert_eq!(scene.by_hand(id, word).await, effect, "{id} {word:?}");
    }
    for word in [failed, back] {
        let settlement = HandSettlement {
            attempt: Some(2),
            ..saying(word)
        };
        let settled = scene
            .store
            .settle_by_hand(unknown.call_id.as_uuid(), settlement);
        let other = HandRefusal::OtherAttempt {
            status: CallStatus::Unknown,
            attempt: 1,
        };
        assert_eq!(settled.await.unwrap(), refused(other));
    }
    assert_eq!(rows(), before);
}

#[tokio::test]
async fn a_call_that_came_back_waits_and_cannot_be_settled() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let call = scene.started_call(user, agent).await.request.attempt;
    scene.give_back(call).await;

    let effect = scene.by_hand(call.call_id, forced(Outcome::Failed)).await;

    let status = "reserved".to_owned();
    assert_eq!(effect, HandEffect::Refused(HandRefusal::Waits { status }));
    let story = scene.story(call.call_id).await;
    let busy = QueueReason::Provider("provider is busy".into());
    assert_eq!(story.waiting_reason, Some(busy));
}

#[tokio::test]
async fn force_ends_a_call_in_progress_and_its_late_events_change_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let call = scene.started_call(user, agent).await.request.attempt;
    scene.place(call).await;
    scene.sql("UPDATE active_calls SET overdue = true");

    let effect = scene
        .by_hand(call.call_id, forced(Outcome::Completed))
        .await;

    assert_eq!(effect, HandEffect::Ended);
    let told = scene.story(call.call_id).await;
    assert_eq!(
        told.call.as_ref().unwrap().status,
        CallStatus::Ended(Outcome::Completed),
        "though it was given up for its length"
    );
    let event = StatusEvent {
        event_id: "e".into(),
        call_id: call.call_id,
        execution_id: ExecutionId::new("execution"),
        status: ReportedStatus::Ringing,
        occurred_at: chrono::Utc::now(),
        duration_seconds: None,
        reason: None,
    };
    let late = ProgressBatch {
        events: vec![event],
        placed: vec![(call, ExecutionId::new("execution").unwrap())],
        unknown: vec![(call, "late".into())],
        ..ProgressBatch::default()
    };
    let late = scene
        .store
        .record_progress(scene.server, &late)
        .await
        .unwrap();
    assert_eq!(
        (late.events, late.placed, late.unknown),
        (vec![EndingEffect::Ignored], vec![false], vec![false])
    );
    let settled = scene
        .store
        .settle(scene.server, &ending(call.call_id))
        .await;
    assert_eq!(settled.unwrap().endings, [EndingEffect::Ignored]);
    assert_eq!(scene.story(call.call_id).await, told);
    scene.assert_counters_equal_rows().await;
}

fn ending(call_id: CallId) -> SlotBatch {
    SlotBatch {
        endings: vec![Ending {
            call_id,
            attempt: None,
            outcome: Outcome::NoAnswer,
            execution_id: None,
            reason: None,
            duration_seconds: None,
        }],
        ..SlotBatch::default()
    }
}

#[tokio::test]
async fn an_operators_word_counts_in_its_campaign_and_completes_it_with_its_last_call() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 3).await;
    let calls = scene.dispatch(2).await;
    for call in &calls {
        scene.lose(call.request.attempt).await;
    }
    let [one, two] = [0, 1].map(|n| calls[n].request.attempt.call_id);

    scene.by_hand(one, OperatorWord::NotPlaced).await;
    scene.by_hand(two, over(Outcome::Busy)).await;
    scene.assert_counters_equal_rows().await;
    let again = scene.dispatch(9).await;
    let numbers: Vec<_> = again
        .iter()
        .map(|call| {
            (
                call.request.attempt.call_id == one,
                call.request.attempt.number,
            )
        })
        .collect();
    assert_eq!(
        numbers,
        [(true, 2), (false, 1)],
        "in its place, before the third"
    );
    let store = &scene.store;
    let read = || async { store.campaign(user, campaign).await.unwrap().unwrap() };
    assert_eq!(read().await.status, CampaignStatus::Active);
    for (call, outcome) in again.iter().zip([Outcome::Completed, Outcome::Cancelled]) {
        let id = call.request.attempt.call_id;
        scene.by_hand(id, forced(outcome)).await;
    }

    let campaign = read().await;
    let progress = campaign.progress;
    assert_eq!(campaign.status, CampaignStatus::Completed);
    assert_eq!(
        (
            progress.completed,
            progress.failed,
            progress.cancelled,
            progress.queued
        ),
        (1, 1, 1, 0)
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_word_and_the_calls_own_end_at_once_free_its_slot_once() {
    for operator_first in [true, false] {
        let scene = Arc::new(Scene::new().await);
        let user = scene.user().await;
        let agent = scene.agent(user).await;
        let call = scene.started_call(user, agent).await.request.attempt;
        scene.started_call(user, agent).await;
        scene.lose(call).await;
        // Both stand in line for the call, in this order.
        let mut keeper = scene.connection();
        let lock = format!("BEGIN; SELECT lock_calls(ARRAY['{}'::uuid])", call.call_id);
        keeper.batch_execute(&lock).unwrap();
        let by_hand = {
            let scene = scene.clone();
            async move { scene.by_hand(call.call_id, over(Outcome::Busy)).await }
        };
        let by_itself = {
            let scene = scene.clone();
            async move {
                let settled = scene
                    .store
                    .settle(scene.server, &ending(call.call_id))
                    .await;
                settled.unwrap().endings[0]
            }
        };
        let (word, end) = if operator_first {
            let word = tokio::spawn(by_hand);
            scene.until_waiting_for_lock(1).await;
            let end = tokio::spawn(by_itself);
            (word, end)
        } else {
            let end = tokio::spawn(by_itself);
            scene.until_waiting_for_lock(1).await;
            (tokio::spawn(by_hand), end)
        };
        scene.until_waiting_for_lock(2).await;
        keeper.batch_execute("COMMIT").unwrap();
        let (word, end) = (word.await.unwrap(), end.await.unwrap());

        let status = "no-answer".to_owned();
        let (expected, outcome) = if operator_first {
            ((HandEffect::Ended, EndingEffect::Ignored), "busy")
        } else {
            let late = HandEffect::Refused(HandRefusal::Over { status });
            ((late, EndingEffect::Ended), "no-answer")
        };
        assert_eq!((word, end), expected);
        assert_eq!(scene.count("SELECT active FROM system_state"), 1);
        let told = "SELECT outcome FROM call_queue_history";
        assert_eq!(texts(&mut scene.connection(), told), [outcome]);
        scene.assert_counters_equal_rows().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_proved_at_the_last_moment_is_not_put_back() {
    let scene = Arc::new(Scene::new().await);
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let call = scene.started_call(user, agent).await.request.attempt;
    scene.lose(call).await;
    let mut proof = scene.connection();
    proof
        .batch_execute(&format!(
            "BEGIN; SELECT record_progress('{}', '{{}}', '{{}}', '{{}}', ARRAY['{}'::uuid], '{{ringing}}', \
             '{{execution}}', '{{NULL}}', '{{}}', '{{}}', '{{}}')",
            scene.server, call.call_id
        ))
        .unwrap();
    let word = {
        let scene = scene.clone();
        tokio::spawn(async move { scene.by_hand(call.call_id, OperatorWord::NotPlaced).await })
    };
    scene.until_waiting_for_lock(1).await;
    proof.batch_execute("COMMIT").unwrap();

    let status = CallStatus::Ringing;
    let refused = HandEffect::Refused(HandRefusal::NotUnknown { status });
    assert_eq!(word.await.unwrap(), refused);
    assert_eq!(scene.story(call.call_id).await.status(), "ringing");
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_server_that_is_gone_does_not_keep_an_operator_from_settling_its_calls() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let one = scene.started_call(user, agent).await.request.attempt;
    let two = scene.started_call(user, agent).await.request.attempt;
    scene.lose(one).await;
    scene.lose(two).await;
    scene.store.retire(scene.server).await.unwrap();
    let story = scene.story(one.call_id).await;
    assert!(!story.owner.unwrap().is_alive);

    let ended = scene.by_hand(one.call_id, over(Outcome::Failed)).await;
    let back = scene.by_hand(two.call_id, OperatorWord::NotPlaced).await;

    assert_eq!((ended, back), (HandEffect::Ended, HandEffect::Returned));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_story_is_found_by_call_and_by_item_at_each_stage_and_says_why_it_waits() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 0).await;
    let item = scene.waiting_call(user, agent).await;
    let waiting = scene.story(item).await;
    assert_eq!((waiting.status(), waiting.holds_slot()), ("queued", false));
    assert_eq!(waiting.place.unwrap().position, 1);
    assert!(matches!(
        waiting.waiting_reason,
        Some(QueueReason::UserLimit(_))
    ));
    assert_eq!((waiting.call, waiting.item.call_id), (None, None));
    assert_eq!(waiting.item.origin.call_type(), CallType::Direct);
    assert_eq!(waiting.agent_name.as_deref(), Some("Ada"));
    assert!(waiting.user_email.is_some_and(|email| email.contains('@')));
    scene.limit(user, 1).await;
    scene.dispatch(1).await;
    // As calls were before they had their item's id.
    let own = Uuid::now_v7();
    scene.sql(&format!("UPDATE active_calls SET call_id = '{own}'"));

    let by_item = scene.story(item).await;

    assert_eq!(by_item, scene.story(own).await);
    assert_eq!(by_item.call.as_ref().unwrap().id.as_uuid(), own);
    assert_eq!(words(&by_item), ["queued", "reserved", "dialing"]);
    assert_eq!(by_item.owner.unwrap().server, scene.server);
    assert_eq!(by_item.place, None);
    let ended = scene.by_hand(item, forced(Outcome::Completed)).await;
    assert_eq!(ended, HandEffect::Ended);
    let over = scene.story(item).await;
    assert_eq!(over, scene.story(own).await);
    assert_eq!((over.status(), over.owner), ("completed", None));
    let again = scene.by_hand(own, forced(Outcome::Completed)).await;
    let status = "completed".to_owned();
    assert_eq!(again, HandEffect::Refused(HandRefusal::Over { status }));

    scene.limit(user, 0).await;
    let withdrawn = scene.waiting_call(user, agent).await;
    scene
        .store
        .cancel_item(user, withdrawn)
        .await
        .unwrap()
        .unwrap();
    let withdrawn = scene.story(withdrawn).await;
    assert_eq!(
        (withdrawn.status(), words(&withdrawn)),
        ("cancelled", vec!["queued", "cancelled"])
    );
    let nothing = scene.store.call_story(Uuid::now_v7()).await;
    assert_eq!(nothing, Ok(None));
}
