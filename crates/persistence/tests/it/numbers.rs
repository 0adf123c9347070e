//! So many campaign calls to one number within 24 hours: what would be one too many is put off, and
//! goes once the oldest is that old.

use std::sync::Arc;
use std::time::Duration;

use callq_domain::{
    Admission, CallStore, CampaignContactStore, CampaignId, CampaignStatus, CampaignStore,
    ContactId, ContactSelection, ContactStatus, EngineStore, ItemFilter, ItemStatus, NumberLimit,
    OperatorStore, Outcome, OwnershipStore, ProviderName, QueueItem, QueueItemId, QueueReason,
    QueueStore, ReservedCall, RetryPolicy, SlotBatch, SlotOutcome, Target, UserChange, UserId,
};
use callq_persistence::{Database, PostgresStore};
use tokio::sync::Barrier;

use crate::model::database_clock::DatabaseClock;
use crate::scene::{Scene, direct_call, first_page, new_campaign};

mod ledger;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
const START: i64 = 1_900_000_000_000;

/// One user's campaigns over shared numbers, and the time in the test's hands.
struct Play {
    scene: Scene,
    clock: DatabaseClock,
    now: i64,
    user: UserId,
    contacts: Vec<ContactId>,
}

fn limit(calls: i64) -> Option<NumberLimit> {
    Some(NumberLimit::new(calls).unwrap())
}

impl Play {
    async fn new(contacts: usize) -> Self {
        let scene = Scene::new().await;
        let user = scene.user().await;
        scene.limit(user, 3).await;
        let contacts = scene.contacts(user, contacts).await;
        let mut clock = DatabaseClock::take(scene.database.url());
        clock.set(START);
        Self {
            scene,
            clock,
            now: START,
            user,
            contacts,
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        self.clock.set(self.now);
    }

    async fn user_limit(&self, limit: Option<NumberLimit>) {
        let change = UserChange {
            max_calls_per_number_per_day: Some(limit),
            ..UserChange::default()
        };
        let user = self.scene.store.update_user(self.user, change).await;
        assert_eq!(user.unwrap().max_calls_per_number_per_day, limit);
    }

    /// A campaign under way over some of the contacts, by their numbers.
    async fn campaign(
        &self,
        contacts: &[usize],
        limit: Option<NumberLimit>,
        max_retries: u32,
    ) -> CampaignId {
        let agent = self.scene.agent(self.user).await;
        let contacts = contacts.iter().map(|nth| self.contacts[*nth]).collect();
        let mut campaign = new_campaign(self.user, agent, contacts);
        campaign.fields.max_calls_per_number_per_day = limit;
        campaign.fields.retries = RetryPolicy {
            max_retries,
            interval_minutes: 5,
            rules: Default::default(),
        };
        let made = self.scene.store.create_campaign(campaign).await.unwrap();
        assert_eq!(made.fields.max_calls_per_number_per_day, limit);
        let active = CampaignStatus::Active;
        self.scene.set_status(self.user, made.id, active).await;
        made.id
    }

    async fn settle(&self, reserve: u32) -> SlotOutcome {
        let batch = SlotBatch {
            reserve,
            ..SlotBatch::default()
        };
        self.scene
            .store
            .settle(self.scene.server, &batch)
            .await
            .unwrap()
    }

    async fn one(&self) -> ReservedCall {
        let mut calls = self.scene.dispatch(9).await;
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    async fn item(&self, id: QueueItemId) -> QueueItem {
        let found = self.scene.store.item(self.user, id).await;
        found.unwrap().unwrap().item
    }

    async fn end(&mut self, call: &ReservedCall, outcome: Outcome) {
        self.pass(1);
        self.scene.end(call.request.attempt.call_id, outcome).await;
    }
}

#[tokio::test]
async fn of_two_calls_to_one_number_that_are_due_together_one_starts_and_one_waits_for_24_hours() {
    let mut play = Play::new(2).await;
    play.user_limit(limit(1)).await;
    let first = play.campaign(&[0], None, 0).await;
    let second = play.campaign(&[0, 1], None, 0).await;

    let settled = play.settle(9).await;

    // The slot of the one that was put off went to another number, at once.
    let numbers: Vec<_> = settled
        .reserved
        .iter()
        .map(|call| &call.request.to)
        .collect();
    assert_eq!(numbers.len(), 2);
    assert_ne!(numbers[0], numbers[1]);
    assert_eq!(settled.next_timer, Some(Duration::from_secs(24 * 3_600)));
    play.scene.assert_counters_equal_rows().await;
    let waiting = play
        .scene
        .store
        .campaign_contacts(
            play.user,
            second,
            Some(ContactStatus::Queued),
            first_page(9),
        )
        .await
        .unwrap();
    assert_eq!(waiting.items.len(), 1);
    let items = play.scene.store.items(
        play.user,
        ItemFilter {
            status: Some(ItemStatus::Queued),
            ..ItemFilter::default()
        },
        first_page(9),
    );
    let item = items.await.unwrap().items.remove(0);
    assert_eq!((item.attempts, item.call_id), (0, None));
    assert_eq!(item.wakes_at.unwrap().timestamp_millis(), START + DAY);
    let placed = play
        .scene
        .store
        .item(play.user, item.id)
        .await
        .unwrap()
        .unwrap();
    let words = "its number may be called once in 24 hours, and was";
    assert_eq!(
        placed.waiting_reason,
        Some(QueueReason::Provider(words.into()))
    );
    for call in &settled.reserved {
        play.end(call, Outcome::Completed).await;
    }
    let over = play.scene.store.campaign(play.user, first).await;
    assert_eq!(over.unwrap().unwrap().status, CampaignStatus::Completed);

    play.pass(DAY - 3);
    assert_eq!(play.scene.dispatch(9).await.len(), 0);
    play.pass(1);
    assert_eq!(play.now, START + DAY);
    let call = play.one().await;
    assert_eq!(call.item_id, item.id);
    play.end(&call, Outcome::Completed).await;
    let over = play.scene.store.campaign(play.user, second).await;
    assert_eq!(over.unwrap().unwrap().status, CampaignStatus::Completed);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_retry_and_a_contact_queued_again_wait_for_their_number_and_are_not_lost() {
    let mut play = Play::new(1).await;
    play.user_limit(limit(2)).await;
    let id = play.campaign(&[0], None, 2).await;
    let mut first = None;
    for _ in 0..2 {
        let call = play.one().await;
        first = Some(call.item_id);
        play.end(&call, Outcome::Busy).await;
        play.pass(5 * MINUTE);
    }

    // The third is due, and the number has been called twice.
    assert_eq!(play.scene.dispatch(9).await.len(), 0);
    play.scene.assert_counters_equal_rows().await;
    let progress = play.scene.progress(play.user, id).await;
    assert_eq!((progress.queued, progress.failed), (1, 0));
    let item = play.item(first.unwrap()).await;
    assert_eq!((item.attempts, item.call_id), (2, None));
    play.pass(START + DAY - play.now);
    let third = play.one().await;
    assert_eq!(third.request.attempt.number, 3);
    let call = third.request.attempt.call_id;
    play.end(&third, Outcome::Busy).await;
    let (_, history) = play
        .scene
        .store
        .call(play.user, call)
        .await
        .unwrap()
        .unwrap();
    let put_off = history.iter().filter(|step| {
        step.reason
            .as_deref()
            .is_some_and(|why| why.contains("24 hours"))
    });
    assert_eq!(put_off.count(), 1);

    let all = ContactSelection::All;
    let failed = vec![ContactStatus::Failed];
    let store = &play.scene.store;
    let requeued = store.requeue_campaign_contacts(play.user, id, all, failed);
    assert_eq!(requeued.await, Ok(1));
    assert_eq!(play.scene.dispatch(9).await.len(), 0);
    // The second call of the day before is the next to be a day old.
    play.pass(5 * MINUTE);
    assert_eq!(play.scene.dispatch(9).await.len(), 1);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_attempt_that_reached_nobody_does_not_count_and_its_call_goes_on() {
    let mut play = Play::new(1).await;
    play.user_limit(limit(1)).await;
    let id = play.campaign(&[0], None, 0).await;
    let first = play.one().await;
    play.scene.give_back(first.request.attempt).await;
    play.pass(11 * MINUTE);

    let again = play.one().await;

    assert_eq!(again.request.attempt.call_id, first.request.attempt.call_id);
    assert_eq!(play.scene.count("SELECT count(*) FROM number_calls"), 1);
    // One that comes back, and is then put off, is still the call it was.
    play.scene.give_back(again.request.attempt).await;
    play.scene
        .set_status(play.user, id, CampaignStatus::Paused)
        .await;
    play.pass(11 * MINUTE);
    play.campaign(&[0], None, 0).await;
    let other = play.one().await;
    play.end(&other, Outcome::Completed).await;
    play.scene
        .set_status(play.user, id, CampaignStatus::Active)
        .await;
    assert_eq!(play.scene.dispatch(9).await.len(), 0);
    let item = play.item(again.item_id).await;
    assert_eq!(item.attempts, 2);
    assert_eq!(item.call_id, Some(again.request.attempt.call_id));
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn direct_calls_neither_count_nor_wait() {
    let play = Play::new(1).await;
    play.user_limit(limit(1)).await;
    let agent = play.scene.agent(play.user).await;
    let direct = || direct_call(play.user, agent, Target::Contact(play.contacts[0]));
    let admitted = play.scene.admit(direct()).await;
    assert!(matches!(admitted, Admission::Started(_)));

    play.campaign(&[0], None, 0).await;
    play.one().await;

    let admitted = play.scene.admit(direct()).await;
    assert!(matches!(admitted, Admission::Started(_)));
}

#[tokio::test]
async fn a_limit_counts_what_was_called_before_it_and_a_campaigns_own_counts_the_others() {
    let mut play = Play::new(2).await;
    // Nobody counts yet. One is over, one is up.
    play.campaign(&[0, 1], None, 0).await;
    let calls = play.scene.dispatch(9).await;
    assert_eq!(calls.len(), 2);
    play.end(&calls[0], Outcome::NoAnswer).await;
    assert_eq!(play.scene.count("SELECT count(*) FROM number_calls"), 0);

    play.campaign(&[0, 1], limit(1), 0).await;
    assert_eq!(play.scene.count("SELECT count(*) FROM number_calls"), 2);
    assert_eq!(play.scene.dispatch(9).await.len(), 0);
    play.end(&calls[1], Outcome::Completed).await;

    // A campaign without a limit of its own goes on, and counts.
    play.campaign(&[0], None, 0).await;
    let call = play.one().await;
    play.end(&call, Outcome::Completed).await;
    assert_eq!(play.scene.count("SELECT count(*) FROM number_calls"), 3);
    // The user's limit and the campaign's: the smaller holds.
    play.user_limit(limit(2)).await;
    play.campaign(&[0], limit(9), 0).await;
    assert_eq!(play.scene.dispatch(9).await.len(), 0);
    play.scene.assert_counters_equal_rows().await;
    play.pass(START + DAY - play.now);
    let numbers = play.scene.dispatch(9).await;
    assert_eq!(numbers.len(), 2, "{numbers:?}");
}

#[tokio::test]
async fn what_counts_no_more_is_forgotten_and_counted_anew_when_it_does_again() {
    let mut play = Play::new(1).await;
    play.user_limit(limit(1)).await;
    play.campaign(&[0], None, 0).await;
    let call = play.one().await;
    play.end(&call, Outcome::Completed).await;
    let counted = "SELECT count(*) FROM number_calls";
    play.scene.store.maintain().await.unwrap();
    assert_eq!(play.scene.count(counted), 1);

    play.user_limit(None).await;
    play.scene.store.maintain().await.unwrap();
    assert_eq!(play.scene.count("SELECT count(*) FROM sparing_users"), 0);
    play.campaign(&[0], None, 0).await;
    let call = play.one().await;
    play.end(&call, Outcome::Completed).await;
    play.user_limit(limit(2)).await;
    assert_eq!(play.scene.count(counted), 2);

    play.pass(DAY);
    play.scene.store.maintain().await.unwrap();
    assert_eq!(play.scene.count(counted), 0);
}

#[tokio::test]
async fn behind_many_that_are_put_off_the_next_that_may_is_found_without_a_pause() {
    let mut play = Play::new(61).await;
    play.user_limit(limit(1)).await;
    let before: Vec<usize> = (0..60).collect();
    play.campaign(&before, None, 0).await;
    let mut called = 0;
    loop {
        let calls = play.scene.dispatch(9).await;
        if calls.is_empty() {
            break;
        }
        called += calls.len();
        for call in &calls {
            play.end(call, Outcome::Completed).await;
        }
    }
    assert_eq!(called, 60);
    let all: Vec<usize> = (0..61).collect();
    play.campaign(&all, None, 0).await;

    let mut settlements = 0;
    let found = loop {
        let settled = play.settle(9).await;
        settlements += 1;
        if let Some(call) = settled.reserved.into_iter().next() {
            break call;
        }
        assert_eq!(settled.next_timer, Some(Duration::ZERO));
    };

    // Three slots and sixteen rounds: a settlement puts off 48.
    assert_eq!(settlements, 2);
    play.scene.assert_counters_equal_rows().await;
    play.end(&found, Outcome::Completed).await;
    assert_eq!(play.scene.count("SELECT count(*) FROM call_queue"), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_settlements_calls_a_number_no_more_often_than_it_may_be() {
    let scene = Arc::new(Scene::new().await);
    let user = scene.user().await;
    scene.limit(user, 10).await;
    let change = UserChange {
        max_calls_per_number_per_day: Some(limit(2)),
        ..UserChange::default()
    };
    scene.store.update_user(user, change).await.unwrap();
    let agent = scene.agent(user).await;
    let contacts = scene.contacts(user, 3).await;
    scene.sql("UPDATE contacts SET phone_number = '+14155550100'");
    for _ in 0..4 {
        let campaign = new_campaign(user, agent, contacts.clone());
        let id = scene.store.create_campaign(campaign).await.unwrap().id;
        scene.set_status(user, id, CampaignStatus::Active).await;
    }
    let pool = Database::new(scene.database.url(), 8).unwrap();
    let store = PostgresStore::new(pool, ProviderName::new("simulator").unwrap());
    let barrier = Arc::new(Barrier::new(8));
    let crowd: Vec<_> = (0..8)
        .map(|_| {
            let (scene, store, barrier) = (Arc::clone(&scene), store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                let batch = SlotBatch {
                    reserve: 4,
                    ..SlotBatch::default()
                };
                let settled = store.settle(scene.server, &batch).await.unwrap();
                settled.reserved.len()
            })
        })
        .collect();
    let mut started = 0;
    for one in crowd {
        started += one.await.unwrap();
    }

    assert_eq!(started, 2);
    assert_eq!(scene.count("SELECT count(*) FROM active_calls"), 2);
    let asleep = "SELECT count(*) FROM call_queue WHERE wakes_at > now() + interval '23 hours'";
    assert_eq!(scene.count(asleep), 10);
    scene.assert_counters_equal_rows().await;
}
