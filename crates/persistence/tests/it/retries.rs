//! Campaign calls that did not get through, and are made again.

use std::collections::BTreeMap;
use std::time::Duration;

use callq_domain::{
    CallStore, CampaignId, CampaignProgress, CampaignStatus, CampaignStore, Ending, EngineStore,
    HandEffect, HandSettlement, ItemStatus, OperatorStore, OperatorWord, Outcome, ProgressBatch,
    QueueItemId, QueueStore, ReportedStatus, ReservedCall, RetryCause, RetryPolicy, RetryRule,
    Return, SlotBatch, StatusEvent, UserId,
};

use crate::model::database_clock::DatabaseClock;
use crate::scene::{Scene, new_campaign, texts};

mod ledger;

const MINUTE: i64 = 60_000;
const START: i64 = 1_900_000_000_000;

/// A user's campaign under way, and the time in the test's hands.
struct Play {
    scene: Scene,
    clock: DatabaseClock,
    now: i64,
    user: UserId,
    campaign: CampaignId,
}

fn policy(max_retries: u32, rules: &[(RetryCause, u32, &[u32])]) -> RetryPolicy {
    let rule = |(cause, times, after): &(RetryCause, u32, &[u32])| {
        (*cause, RetryRule::new(*times, after.to_vec()).unwrap())
    };
    RetryPolicy {
        max_retries,
        interval_minutes: 60,
        rules: rules.iter().map(rule).collect(),
    }
}

impl Play {
    async fn new(contacts: usize, retries: RetryPolicy) -> Self {
        let scene = Scene::new().await;
        let user = scene.user().await;
        scene.limit(user, 3).await;
        let agent = scene.agent(user).await;
        let contacts = scene.contacts(user, contacts).await;
        let mut campaign = new_campaign(user, agent, contacts);
        campaign.fields.retries = retries;
        let campaign = scene.store.create_campaign(campaign).await.unwrap().id;
        let mut clock = DatabaseClock::take(scene.database.url());
        clock.set(START);
        scene.sql(
            "UPDATE call_queue SET due_since = to_timestamp(1900000000), queued_at = to_timestamp(1900000000)",
        );
        scene
            .set_status(user, campaign, CampaignStatus::Active)
            .await;
        Self {
            scene,
            clock,
            now: START,
            user,
            campaign,
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        self.clock.set(self.now);
    }

    async fn one(&self) -> ReservedCall {
        let mut calls = self.scene.dispatch(1).await;
        assert_eq!(calls.len(), 1);
        calls.remove(0)
    }

    async fn end(&mut self, call: &ReservedCall, outcome: Outcome) {
        self.pass(1);
        let id = call.request.attempt.call_id;
        self.scene.end(id, outcome).await;
    }

    async fn progress(&self) -> (CampaignStatus, CampaignProgress) {
        let found = self.scene.store.campaign(self.user, self.campaign).await;
        let found = found.unwrap().unwrap();
        (found.status, found.progress)
    }

    async fn item_status(&self, id: QueueItemId) -> ItemStatus {
        let found = self.scene.store.item(self.user, id).await;
        found.unwrap().unwrap().item.status
    }
}

#[tokio::test]
async fn a_call_that_found_the_line_busy_is_made_again_as_the_same_item_and_another_call() {
    let rules: &[(RetryCause, u32, &[u32])] = &[(RetryCause::Busy, 2, &[5, 15])];
    let mut play = Play::new(3, policy(2, rules)).await;
    let first = play.one().await;

    play.end(&first, Outcome::Busy).await;

    let (status, progress) = play.progress().await;
    assert_eq!(status, CampaignStatus::Active);
    assert_eq!((progress.queued, progress.failed), (3, 0));
    let item = play.scene.store.item(play.user, first.item_id).await;
    let item = item.unwrap().unwrap().item;
    assert_eq!(item.status, ItemStatus::Queued);
    assert_eq!(item.reason.as_deref(), Some("retry 1 of 2, after busy"));
    let wakes_at = item.wakes_at.unwrap().timestamp_millis();
    assert_eq!(wakes_at, play.now + 5 * MINUTE);
    play.scene.assert_counters_equal_rows().await;

    // Others go meanwhile. Once it is due, its old place puts it before them.
    let second = play.one().await;
    assert_ne!(second.item_id, first.item_id);
    play.end(&second, Outcome::Completed).await;
    play.pass(5 * MINUTE);
    let again = play.one().await;
    assert_eq!(again.item_id, first.item_id);
    let (was, is) = (first.request.attempt, again.request.attempt);
    assert_ne!(is.call_id, was.call_id);
    assert_eq!((was.number, is.number), (1, 2));

    // What is still told of the first call changes nothing.
    play.end(&first, Outcome::Completed).await;
    assert_eq!(
        play.item_status(first.item_id).await,
        ItemStatus::Processing
    );
    play.end(&again, Outcome::Busy).await;
    play.pass(15 * MINUTE);
    let third = play.one().await;
    assert_eq!(third.item_id, first.item_id);
    play.end(&third, Outcome::Busy).await;
    assert_eq!(play.item_status(first.item_id).await, ItemStatus::Failed);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn every_call_of_an_item_is_on_record_and_its_story_is_told_whole() {
    let mut play = Play::new(1, policy(1, &[])).await;
    play.pass(1);
    let first = play.one().await;
    play.end(&first, Outcome::NoAnswer).await;
    play.pass(60 * MINUTE);
    let again = play.one().await;
    play.scene.place(again.request.attempt).await;
    play.end(&again, Outcome::Completed).await;

    let store = &play.scene.store;
    for (call, outcome) in [(&first, Outcome::NoAnswer), (&again, Outcome::Completed)] {
        let id = call.request.attempt.call_id;
        let (record, _) = store.call(play.user, id).await.unwrap().unwrap();
        assert_eq!(record.item_id, first.item_id);
        assert_eq!(record.status.as_str(), outcome.as_str());
    }
    let story = store.call_story(again.request.attempt.call_id.as_uuid());
    let story = story.await.unwrap().unwrap();
    let told: Vec<_> = story.history.iter().map(|step| &*step.status).collect();
    assert_eq!(
        told,
        [
            "queued",
            "reserved",
            "dialing",
            "no-answer",
            "queued",
            "reserved",
            "dialing",
            "placed",
            "completed"
        ]
    );
    let listed = "SELECT status FROM queue_items";
    assert_eq!(texts(&mut play.scene.connection(), listed), ["completed"]);
    let (status, progress) = play.progress().await;
    assert_eq!(status, CampaignStatus::Completed);
    assert_eq!((progress.total, progress.completed), (1, 1));
}

#[tokio::test]
async fn who_must_not_be_called_again_is_not() {
    let play = Play::new(6, policy(3, &[])).await;
    play.scene.limit(play.user, 6).await;
    let calls = play.scene.dispatch(6).await;
    let taken = |nth: usize| calls[nth].request.attempt;
    for nth in [1, 2, 3, 4, 5] {
        play.scene.place(taken(nth)).await;
    }
    let scene = &play.scene;
    // The first was refused before any carrier had it.
    scene.end(taken(0).call_id, Outcome::Failed).await;
    for (nth, outcome, reason) in [
        (1, Outcome::Failed, "invalid-number"),
        (2, Outcome::Busy, "do-not-call"),
        (3, Outcome::Completed, "machine"),
        (4, Outcome::Cancelled, "hung up"),
        // Given up for its length: it may still be up.
        (5, Outcome::Failed, "timed_out"),
    ] {
        scene
            .end_because(taken(nth).call_id, outcome, Some(reason))
            .await;
    }

    let (status, progress) = play.progress().await;
    assert_eq!(status, CampaignStatus::Completed);
    let ended = (progress.completed, progress.failed, progress.cancelled);
    assert_eq!((progress.total, ended), (6, (1, 4, 1)));
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_retry_that_waits_is_withdrawn_with_its_campaign() {
    let mut play = Play::new(1, policy(3, &[])).await;
    let call = play.one().await;
    play.end(&call, Outcome::Busy).await;
    play.pass(1);

    play.scene
        .set_status(play.user, play.campaign, CampaignStatus::Cancelled)
        .await;

    let (_, progress) = play.progress().await;
    assert_eq!((progress.total, progress.cancelled), (1, 1));
    assert_eq!(play.item_status(call.item_id).await, ItemStatus::Cancelled);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_call_whose_campaign_was_cancelled_meanwhile_is_not_made_again() {
    let mut play = Play::new(1, policy(3, &[])).await;
    let call = play.one().await;
    play.scene
        .set_status(play.user, play.campaign, CampaignStatus::Cancelled)
        .await;

    play.end(&call, Outcome::Busy).await;

    assert_eq!(play.item_status(call.item_id).await, ItemStatus::Failed);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_retry_is_a_timer_and_its_turn_comes_by_itself() {
    let mut play = Play::new(1, policy(1, &[])).await;
    let call = play.one().await;
    play.end(&call, Outcome::Busy).await;

    let next = play.scene.look().await.next_timer;

    assert_eq!(next, Some(Duration::from_secs(3_600)));
    play.pass(60 * MINUTE - 1);
    assert_eq!(play.scene.dispatch(1).await.len(), 0);
    play.pass(1);
    assert_eq!(play.one().await.item_id, call.item_id);
}

#[tokio::test]
async fn rules_are_kept_as_they_were_given() {
    let rules: &[(RetryCause, u32, &[u32])] = &[
        (RetryCause::Busy, 2, &[5, 15]),
        (RetryCause::Machine, 0, &[1]),
    ];
    let play = Play::new(1, policy(7, rules)).await;

    let found = play.scene.store.campaign(play.user, play.campaign).await;

    assert_eq!(found.unwrap().unwrap().fields.retries, policy(7, rules));
    let none: BTreeMap<RetryCause, RetryRule> = BTreeMap::new();
    let other = Play::new(1, policy(0, &[])).await;
    let found = other.scene.store.campaign(other.user, other.campaign).await;
    assert_eq!(found.unwrap().unwrap().fields.retries.rules, none);
}

#[tokio::test]
async fn an_operators_word_that_a_call_was_busy_has_it_made_again() {
    let play = Play::new(1, policy(1, &[])).await;
    let call = play.one().await;
    let settlement = HandSettlement {
        attempt: None,
        word: OperatorWord::Ended {
            outcome: Outcome::Busy,
            force: true,
        },
        reason: None,
    };
    let id = call.item_id.as_uuid();
    play.scene
        .store
        .settle_by_hand(id, settlement)
        .await
        .unwrap();

    assert_eq!(play.item_status(call.item_id).await, ItemStatus::Queued);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn whose_number_was_put_on_a_list_meanwhile_is_not_called_again() {
    let mut play = Play::new(2, policy(3, &[])).await;
    let (first, second) = (play.one().await, play.one().await);
    play.scene.sql(
        "SELECT list_do_not_call(NULL, ARRAY(SELECT phone_number FROM active_calls), 'asked', 100)",
    );

    play.end(&first, Outcome::Busy).await;
    play.pass(1);
    play.scene.give_back(second.request.attempt).await;

    assert_eq!(play.item_status(first.item_id).await, ItemStatus::Failed);
    let item = play.scene.store.item(play.user, second.item_id).await;
    let item = item.unwrap().unwrap().item;
    assert_eq!(item.status, ItemStatus::Cancelled);
    assert_eq!(item.reason.as_deref(), Some("do-not-call"));
    let (status, progress) = play.progress().await;
    assert_eq!(status, CampaignStatus::Completed);
    assert_eq!((progress.failed, progress.cancelled), (1, 1));
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_call_that_is_withdrawn_beside_one_to_be_retried_does_not_complete_their_campaign() {
    let mut play = Play::new(2, policy(1, &[])).await;
    let (first, second) = (play.one().await, play.one().await);
    play.scene.sql(
        "SELECT list_do_not_call(NULL, ARRAY(SELECT phone_number FROM active_calls ORDER BY position DESC LIMIT 1), \
         'asked', 100)",
    );
    play.pass(1);
    let batch = SlotBatch {
        endings: vec![Ending {
            call_id: first.request.attempt.call_id,
            attempt: None,
            outcome: Outcome::Busy,
            execution_id: None,
            reason: None,
            duration_seconds: None,
        }],
        returns: vec![Return {
            attempt: second.request.attempt,
            delay: Duration::ZERO,
            reason: "provider is busy".into(),
            if_unknown: false,
        }],
        ..SlotBatch::default()
    };

    let settled = play.scene.store.settle(play.scene.server, &batch).await;

    assert!(settled.unwrap().returns[0].is_none());
    let (status, progress) = play.progress().await;
    assert_eq!(status, CampaignStatus::Active);
    assert_eq!((progress.queued, progress.cancelled), (1, 1));
    play.pass(60 * MINUTE);
    assert_eq!(play.one().await.item_id, first.item_id);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_operator_who_puts_a_call_back_to_a_listed_number_is_told_that_it_was_done() {
    let play = Play::new(1, policy(1, &[])).await;
    let call = play.one().await;
    let lost = ProgressBatch {
        unknown: vec![(call.request.attempt, "no answer".into())],
        ..ProgressBatch::default()
    };
    let (store, server) = (&play.scene.store, play.scene.server);
    store.record_progress(server, &lost).await.unwrap();
    play.scene.sql(
        "SELECT list_do_not_call(NULL, ARRAY(SELECT phone_number FROM active_calls), 'asked', 100)",
    );
    let settlement = HandSettlement {
        attempt: None,
        word: OperatorWord::NotPlaced,
        reason: None,
    };

    let effect = store
        .settle_by_hand(call.item_id.as_uuid(), settlement)
        .await;

    assert!(matches!(effect, Ok(HandEffect::Returned)), "{effect:?}");
    assert_eq!(play.item_status(call.item_id).await, ItemStatus::Cancelled);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_call_that_rang_and_failed_was_with_a_carrier_though_nobody_said_its_name() {
    let play = Play::new(1, policy(1, &[])).await;
    let call = play.one().await;
    let id = call.request.attempt.call_id;
    let ringing = ProgressBatch {
        events: vec![StatusEvent {
            event_id: "ringing".into(),
            call_id: id,
            execution_id: None,
            status: ReportedStatus::Ringing,
            occurred_at: chrono::Utc::now(),
            duration_seconds: None,
            reason: None,
        }],
        ..ProgressBatch::default()
    };
    let (store, server) = (&play.scene.store, play.scene.server);
    store.record_progress(server, &ringing).await.unwrap();

    play.scene.end(id, Outcome::Failed).await;

    assert_eq!(play.item_status(call.item_id).await, ItemStatus::Queued);
}
