//! Queues have an end: who would wait beyond it is refused, and nothing is written. And calls that
//! name no expiry give up after a time of the system's own.

use callq_domain::{
    Admission, CallType, CampaignContactStore, CampaignStatus, CampaignStore, ContactSelection,
    ContactStatus, EngineStore, IdempotencyKey, ItemStatus, OperatorStore, Outcome, QueueDefaults,
    QueueFull, QueueStore, Refusal, Repeat, SlotBatch, StoreError, Target, UserChange, UserId,
};
use callq_persistence::{Database, PostgresStore};
use chrono::{TimeDelta, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;

use crate::scene::{Scene, direct_call, new_campaign, parsed, phone_number};

fn full(admission: &Admission) -> Option<QueueFull> {
    match admission {
        Admission::Refused(Refusal::QueueFull(full)) => Some(*full),
        _ => None,
    }
}

impl Scene {
    async fn caps(&self, direct: u32, campaign: u32) {
        let defaults = QueueDefaults {
            max_queued_direct_calls: Some(direct),
            max_queued_campaign_calls: Some(campaign),
            ..QueueDefaults::default()
        };
        self.store.adopt_queue_defaults(defaults).await.unwrap();
    }

    async fn lives(&self, direct: Option<u64>, campaign: Option<u64>) {
        let defaults = QueueDefaults {
            direct_call_ttl: direct.map(Duration::from_secs),
            campaign_call_ttl: campaign.map(Duration::from_secs),
            ..QueueDefaults::default()
        };
        self.store.adopt_queue_defaults(defaults).await.unwrap();
    }

    async fn own_cap(&self, user: UserId, direct: Option<u32>, campaign: Option<u32>) {
        let change = UserChange {
            max_queued_direct_calls: Some(direct),
            max_queued_campaign_calls: Some(campaign),
            ..UserChange::default()
        };
        let user = self.store.update_user(user, change).await.unwrap();
        assert_eq!(user.max_queued_direct_calls, direct);
        assert_eq!(user.max_queued_campaign_calls, campaign);
    }
}

#[tokio::test]
async fn a_direct_call_that_would_wait_in_a_full_queue_is_refused_and_leaves_no_trace() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    scene.caps(2, 100).await;
    let up = scene.started_call(user, agent).await;
    scene.waiting_call(user, agent).await;
    let mut later = direct_call(user, agent, Target::Number(parsed("+14155550100")));
    later.scheduled_for = Some(Utc::now() + TimeDelta::days(1));
    assert!(matches!(scene.admit(later).await, Admission::Queued(_)));
    let mut refused = direct_call(user, agent, Target::Number(parsed("+14155550101")));
    refused.idempotency = Some(IdempotencyKey {
        key: "one".into(),
        request_hash: [7; 32],
    });

    let said = full(&scene.admit(refused.clone()).await).unwrap();

    assert_eq!(said.call_type, CallType::Direct);
    assert_eq!((said.limit, said.waiting, said.asked), (2, 2, 1));
    assert_eq!(said.pace.slots, 1);
    assert_eq!(scene.count("SELECT count(*) FROM idempotency_keys"), 0);
    assert_eq!(scene.count("SELECT count(*) FROM queue_items"), 3);
    scene.assert_counters_equal_rows().await;
    // Another user's queue is its own, and once there is room the same request, key and all, waits.
    let others = scene.agent(other).await;
    scene.started_call(other, others).await;
    scene
        .end(up.request.attempt.call_id, Outcome::Completed)
        .await;
    assert_eq!(scene.dispatch(9).await.len(), 1);
    let again = scene.admit(refused).await;
    assert!(matches!(again, Admission::Queued(_)), "{again:?}");
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_call_that_can_start_at_once_is_not_refused_though_nothing_may_wait() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.caps(0, 0).await;

    scene.started_call(user, agent).await;
    let up = scene.started_call(user, agent).await;
    let third = scene.direct_call(user, agent).await;

    assert_eq!(full(&third).map(|full| full.waiting), Some(0));
    // What comes back was accepted, and waits beyond the cap.
    scene.give_back(up.request.attempt).await;
    assert_eq!(
        scene.count("SELECT count(*) FROM call_queue"),
        1,
        "accepted calls are kept"
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn of_one_batch_the_first_have_the_room_and_a_key_that_is_not_used_is_free() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    scene.caps(2, 100).await;
    let call = |nth: u32| {
        let mut call = direct_call(
            user,
            agent,
            Target::Number(phone_number(nth).parse().unwrap()),
        );
        call.idempotency = Some(IdempotencyKey {
            key: format!("key {}", nth.min(4)),
            request_hash: [1; 32],
        });
        call
    };
    let batch = SlotBatch {
        admissions: (0..6).map(call).collect(),
        ..SlotBatch::default()
    };

    let settled = scene.store.settle(scene.server, &batch).await.unwrap();

    let told = settled.admissions.iter().map(|admission| match admission {
        Admission::Started(_) => "starts",
        Admission::Queued(_) => "waits",
        Admission::Refused(Refusal::QueueFull(_)) => "full",
        Admission::Repeated(Repeat::InProgress) => "asked before",
        _ => "?",
    });
    let told: Vec<_> = told.collect();
    assert_eq!(
        told,
        ["starts", "waits", "waits", "full", "full", "asked before"]
    );
    assert_eq!(scene.count("SELECT count(*) FROM idempotency_keys"), 3);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_users_own_cap_goes_before_the_default() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let (agent, others) = (scene.agent(user).await, scene.agent(other).await);
    scene.limit(user, 0).await;
    scene.limit(other, 0).await;
    scene.caps(1, 1).await;
    scene.own_cap(user, Some(2), Some(0)).await;

    for _ in 0..2 {
        scene.waiting_call(user, agent).await;
    }
    assert_eq!(
        full(&scene.direct_call(user, agent).await).map(|full| full.limit),
        Some(2)
    );
    scene.waiting_call(other, others).await;
    assert_eq!(
        full(&scene.direct_call(other, others).await).map(|full| full.limit),
        Some(1)
    );
    scene.own_cap(user, None, None).await;
    let beyond = full(&scene.direct_call(user, agent).await).unwrap();
    assert_eq!((beyond.limit, beyond.waiting), (1, 2));
    assert_eq!(beyond.room_after(), Some(2));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_door_does_not_overshoot_a_cap() {
    let scene = Arc::new(Scene::new().await);
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    scene.caps(5, 5).await;
    let pool = Database::new(scene.database.url(), 10).unwrap();
    let store = PostgresStore::new(pool, callq_domain::ProviderName::new("simulator").unwrap());
    let barrier = Arc::new(Barrier::new(10));
    let crowd: Vec<_> = (0..10_u32)
        .map(|nth| {
            let (scene, store, barrier) = (Arc::clone(&scene), store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                let mut waits = 0;
                for more in 0..3 {
                    let number = phone_number(100 + nth * 3 + more).parse().unwrap();
                    let batch = SlotBatch {
                        admissions: vec![direct_call(user, agent, Target::Number(number))],
                        ..SlotBatch::default()
                    };
                    let settled = store.settle(scene.server, &batch).await.unwrap();
                    waits += usize::from(matches!(settled.admissions[0], Admission::Queued(_)));
                }
                waits
            })
        })
        .collect();
    let mut waiting = 0;
    for one in crowd {
        waiting += one.await.unwrap();
    }
    assert_eq!(waiting, 5);
    assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 5);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_that_a_full_queue_has_no_room_for_is_not_started_and_nothing_changes() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.caps(100, 5).await;
    scene.campaign(user, 3).await;
    let draft = scene.draft(user, 3).await;

    let active = CampaignStatus::Active;
    let refused = scene.store.set_campaign_status(user, draft, active).await;

    let Err(StoreError::QueueFull(said)) = refused else {
        panic!("it has room: {refused:?}");
    };
    assert_eq!(said.call_type, CallType::Campaign);
    assert_eq!((said.limit, said.waiting, said.asked), (5, 3, 3));
    assert_eq!(said.room_after(), Some(1));
    let found = scene.store.campaign(user, draft).await.unwrap().unwrap();
    assert_eq!(
        (found.status, found.started_at, found.window),
        (CampaignStatus::Draft, None, None)
    );
    scene.assert_counters_equal_rows().await;
    // As soon as one has gone, there is room; a draft takes none.
    assert_eq!(scene.dispatch(1).await.len(), 1);
    scene.draft(user, 50).await;
    scene.set_status(user, draft, active).await;
    // One under way that is paused and resumed asks for none.
    scene.set_status(user, draft, CampaignStatus::Paused).await;
    scene.own_cap(user, None, Some(1)).await;
    scene.set_status(user, draft, active).await;
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn contacts_that_a_full_queue_has_no_room_for_are_neither_added_nor_queued_again() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.limit(user, 4).await;
    scene.caps(100, 4).await;
    let id = scene.campaign(user, 4).await;
    for call in scene.dispatch(4).await {
        scene.end(call.request.attempt.call_id, Outcome::Busy).await;
    }
    let over = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(over.status, CampaignStatus::Completed);
    scene.campaign(user, 1).await;
    let all = || ContactSelection::All;
    let ended = || vec![ContactStatus::Failed];

    let requeued = scene
        .store
        .requeue_campaign_contacts(user, id, all(), ended());
    assert!(matches!(requeued.await, Err(StoreError::QueueFull(_))));
    let unchanged = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(unchanged, over);
    scene.own_cap(user, None, Some(5)).await;
    let requeued = scene
        .store
        .requeue_campaign_contacts(user, id, all(), ended());
    assert_eq!(requeued.await, Ok(4));
    let more = scene.contacts(user, 2).await;
    let added = scene.store.add_campaign_contacts(user, id, more).await;
    let Err(StoreError::QueueFull(said)) = added else {
        panic!("it has room: {added:?}");
    };
    assert_eq!((said.waiting, said.asked), (5, 2));
    assert_eq!(scene.progress(user, id).await.total, 4);
    scene.assert_each_contact_counts_once(user, id).await;
    // A draft may grow: it has to ask when it starts.
    let draft = scene.draft(user, 1).await;
    let more = scene.contacts(user, 9).await;
    scene
        .store
        .add_campaign_contacts(user, draft, more)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_direct_call_that_names_no_expiry_has_the_systems_counted_from_when_it_may_start() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 0).await;
    let ask = |scheduled_for, expires_in| {
        let mut call = direct_call(user, agent, Target::Number(parsed("+14155550100")));
        (call.scheduled_for, call.expires_in) = (scheduled_for, expires_in);
        call
    };
    let expiry = |admission: Admission| match admission {
        Admission::Queued(queued) => queued.expires_at,
        other => panic!("it waits: {other:?}"),
    };
    assert_eq!(expiry(scene.admit(ask(None, None)).await), None);
    scene.lives(Some(3_600), None).await;
    let before = Utc::now();

    let by_default = expiry(scene.admit(ask(None, None)).await).unwrap();
    let named = expiry(scene.admit(ask(None, Some(Duration::from_secs(7)))).await).unwrap();
    let start = before + TimeDelta::days(3);
    let scheduled = expiry(scene.admit(ask(Some(start), None)).await).unwrap();

    let minute = TimeDelta::minutes(1);
    let about = |at, from: chrono::DateTime<Utc>, seconds| {
        let off: TimeDelta = at - (from + TimeDelta::seconds(seconds));
        assert!(off > -minute && off < minute, "{off}");
    };
    about(by_default, before, 3_600);
    about(named, before, 7);
    about(scheduled, start, 3_600);
    scene.lives(None, None).await;
    assert_eq!(expiry(scene.admit(ask(None, None)).await), None);
}

#[tokio::test]
async fn campaign_calls_give_up_so_long_after_they_were_laid_out_or_the_next_hours_begin() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let expiries = "SELECT count(*) FROM call_queue WHERE expires_at BETWEEN \
        clock_timestamp() + interval '59 minutes' AND clock_timestamp() + interval '61 minutes'";
    let id = scene.campaign(user, 2).await;
    assert_eq!(scene.count(expiries), 0);
    scene.lives(None, Some(3_600)).await;

    let more = scene.contacts(user, 2).await;
    scene
        .store
        .add_campaign_contacts(user, id, more)
        .await
        .unwrap();
    assert_eq!(scene.count(expiries), 2);
    scene.campaign(user, 3).await;
    assert_eq!(scene.count(expiries), 5);
    // One whose hours begin in a week expires no earlier than an hour after that.
    let contacts = scene.contacts(user, 4).await;
    let mut later = new_campaign(user, agent, contacts);
    later.fields.start_date = (Utc::now() + TimeDelta::days(7)).date_naive();
    scene.store.create_campaign(later).await.unwrap();
    assert_eq!(scene.count(expiries), 5);
    let later = "SELECT count(*) FROM call_queue WHERE expires_at > now() + interval '5 days'";
    assert_eq!(scene.count(later), 4);

    scene.sql(
        "UPDATE call_queue SET expires_at = now() WHERE expires_at < now() + interval '1 day'",
    );
    scene.look().await;
    let progress = scene.progress(user, id).await;
    assert_eq!((progress.queued, progress.expired), (2, 2));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_expired_call_of_a_full_queue_makes_room() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 0).await;
    scene.caps(1, 1).await;
    let item = scene.waiting_call(user, agent).await;
    scene.sql("UPDATE call_queue SET expires_at = clock_timestamp()");

    scene.waiting_call(user, agent).await;

    let gone = scene.store.item(user, item).await.unwrap().unwrap();
    assert_eq!(gone.item.status, ItemStatus::Expired);
}
