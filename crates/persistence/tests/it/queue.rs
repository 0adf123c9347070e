//! The queue as its owner sees it.

use std::time::Duration;

use callq_domain::{
    Admission, CallType, CampaignStatus, ItemFilter, ItemStatus, OperatorStore, Outcome,
    PageRequest, QueueItemId, QueueReason, QueueStore, SlotUse, StoreError, Target, TypeCount,
    UserChange,
};
use chrono::{TimeDelta, Utc};

use crate::scene::{Scene, direct_call, first_page, page_after, parsed};

#[tokio::test]
async fn the_status_counts_what_waits_and_runs_and_names_the_next() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let agent = scene.agent(user).await;
    scene.campaign(user, 4).await;
    scene.campaign(other, 2).await;
    scene.dispatch(1).await;
    scene.started_call(user, agent).await;
    let next = scene.waiting_call(user, agent).await;
    scene.waiting_call(user, agent).await;
    let mut later = direct_call(user, agent, Target::Number(parsed("+14155552671")));
    later.scheduled_for = Some(Utc::now() + TimeDelta::hours(1));
    scene.admit(later).await;

    let status = scene.store.queue_status(user).await.unwrap();

    let count = |queued, processing| TypeCount { queued, processing };
    let campaigns = scene.store.queue_status(other).await.unwrap().campaign;
    assert_eq!(status.campaign.processing + campaigns.processing, 1);
    assert_eq!(status.campaign.queued + status.campaign.processing, 4);
    assert_eq!(status.direct, count(3, 1));
    assert_eq!(status.next_direct.unwrap().id, next);
    assert_eq!(
        status.concurrency,
        scene.store.concurrency(user).await.unwrap()
    );
    assert_eq!(
        status.concurrency.system,
        SlotUse {
            limit: 10,
            active: 2
        }
    );
    let of_other = scene.store.queue_status(other).await.unwrap();
    assert_eq!((of_other.direct, of_other.next_direct), (count(0, 0), None));
}

#[tokio::test]
async fn concurrency_names_limits_use_and_reserve() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.started_call(user, agent).await;
    let change = UserChange {
        direct_reserved_slots: Some(1),
        ..UserChange::default()
    };
    scene.store.update_user(user, change).await.unwrap();

    let concurrency = scene.store.concurrency(user).await.unwrap();

    assert_eq!(
        concurrency.user,
        SlotUse {
            limit: 2,
            active: 1
        }
    );
    assert_eq!(
        concurrency.system,
        SlotUse {
            limit: 10,
            active: 1
        }
    );
    assert_eq!(concurrency.direct_reserved_slots, 1);
    let nobody = scene.store.concurrency(callq_domain::UserId::new()).await;
    assert_eq!(nobody, Err(StoreError::NotFound));
}

/// Two campaign items ended, one running; two direct calls running, three waiting, one withdrawn.
async fn busy_scene() -> (Scene, callq_domain::UserId) {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 3).await;
    scene.campaign(user, 3).await;
    for call in &scene.dispatch(3).await[..2] {
        scene
            .end(call.request.attempt.call_id, Outcome::Completed)
            .await;
    }
    scene.started_call(user, agent).await;
    scene.started_call(user, agent).await;
    for _ in 0..3 {
        scene.waiting_call(user, agent).await;
    }
    let withdrawn = scene.waiting_call(user, agent).await;
    scene
        .store
        .cancel_item(user, withdrawn)
        .await
        .unwrap()
        .unwrap();
    scene.waiting_call_of_another().await;
    (scene, user)
}

impl Scene {
    async fn waiting_call_of_another(&self) {
        let other = self.user().await;
        let agent = self.agent(other).await;
        self.limit(other, 0).await;
        self.waiting_call(other, agent).await;
    }
}

#[tokio::test]
async fn pages_run_through_live_and_ended_items_once_direct_first_newest_due_first() {
    let (scene, user) = busy_scene().await;
    let all = scene
        .store
        .items(user, ItemFilter::default(), first_page(200))
        .await
        .unwrap();
    assert_eq!((all.items.len(), all.next_cursor), (9, None));
    let order = |item: &callq_domain::QueueItem| {
        let due = item.scheduled_for.unwrap_or(item.queued_at);
        let call_type = item.origin.call_type();
        (call_type, std::cmp::Reverse((due, item.id)))
    };
    assert!(all.items.is_sorted_by_key(order));
    assert_eq!(all.items[0].status, ItemStatus::Cancelled);

    for limit in 1..=9 {
        let mut seen = Vec::new();
        let mut request = first_page(limit);
        loop {
            let page = scene
                .store
                .items(user, ItemFilter::default(), request)
                .await
                .unwrap();
            assert!(page.items.len() <= usize::from(limit) && !page.items.is_empty());
            seen.extend(page.items);
            assert!(seen.len() <= all.items.len(), "pages of {limit} repeat");
            match page.next_cursor {
                Some(cursor) => request = page_after(limit, Some(cursor)),
                None => break,
            }
        }
        assert_eq!(seen, all.items, "pages of {limit}");
    }
}

#[tokio::test]
async fn an_item_that_ends_between_two_pages_is_seen_once() {
    let (scene, user) = busy_scene().await;
    let all = scene
        .store
        .items(user, ItemFilter::default(), first_page(200))
        .await
        .unwrap();
    let first = scene
        .store
        .items(user, ItemFilter::default(), first_page(3))
        .await
        .unwrap();

    let waiting = all
        .items
        .iter()
        .filter(|item| item.status == ItemStatus::Queued);
    for item in waiting {
        scene
            .store
            .cancel_item(user, item.id)
            .await
            .unwrap()
            .unwrap();
    }
    let rest = page_after(200, first.next_cursor);
    let rest = scene
        .store
        .items(user, ItemFilter::default(), rest)
        .await
        .unwrap();

    let ids =
        |items: &[callq_domain::QueueItem]| items.iter().map(|item| item.id).collect::<Vec<_>>();
    assert_eq!(
        [ids(&first.items), ids(&rest.items)].concat(),
        ids(&all.items)
    );
}

#[tokio::test]
async fn filters_keep_what_they_name() {
    let (scene, user) = busy_scene().await;
    let store = &scene.store;
    let count = async |filter: ItemFilter| {
        store
            .items(user, filter, first_page(200))
            .await
            .unwrap()
            .items
            .len()
    };
    let of_status = |status| ItemFilter {
        status: Some(status),
        ..ItemFilter::default()
    };

    for (status, expected) in [
        (ItemStatus::Queued, 3),
        (ItemStatus::Processing, 3),
        (ItemStatus::Completed, 2),
        (ItemStatus::Cancelled, 1),
        (ItemStatus::Failed, 0),
        (ItemStatus::Expired, 0),
    ] {
        assert_eq!(count(of_status(status)).await, expected, "{status}");
    }
    for (call_type, expected) in [(CallType::Direct, 6), (CallType::Campaign, 3)] {
        let filter = ItemFilter {
            call_type: Some(call_type),
            ..ItemFilter::default()
        };
        assert_eq!(count(filter).await, expected, "{call_type}");
    }
    let other = scene.campaign(user, 2).await;
    let filter = ItemFilter {
        campaign_id: Some(other),
        ..ItemFilter::default()
    };
    assert_eq!(count(filter.clone()).await, 2);
    let filter = ItemFilter {
        status: Some(ItemStatus::Completed),
        ..filter
    };
    assert_eq!(count(filter).await, 0);
    let request = PageRequest {
        limit: 5,
        cursor: Some("06".into()),
    };
    let refused = store.items(user, ItemFilter::default(), request).await;
    assert_eq!(refused, Err(StoreError::BadCursor));
}

#[tokio::test]
async fn a_waiting_item_knows_its_place_its_pace_and_its_reason() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let first = scene.started_call(user, agent).await;
    scene.place(first.request.attempt).await;
    scene
        .end(first.request.attempt.call_id, Outcome::Completed)
        .await;
    let running = scene.started_call(user, agent).await;
    scene.started_call(user, agent).await;
    scene.waiting_call(user, agent).await;
    let second = scene.waiting_call(user, agent).await;

    let placed = scene.store.item(user, second).await.unwrap().unwrap();

    assert_eq!(
        (placed.item.id, placed.item.status),
        (second, ItemStatus::Queued)
    );
    let place = placed.place.unwrap();
    assert_eq!((place.position, place.total_in_queue), (2, 2));
    assert_eq!((place.pace.slots, place.pace.samples), (2, 1));
    assert!(place.pace.mean_hold > Duration::ZERO);
    let full = SlotUse {
        limit: 2,
        active: 2,
    };
    assert_eq!(placed.waiting_reason, Some(QueueReason::UserLimit(full)));

    let placed = scene
        .store
        .item(user, running.item_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(placed.item.status, ItemStatus::Processing);
    assert_eq!(placed.item.call_id, Some(running.request.attempt.call_id));
    assert_eq!((placed.place, placed.waiting_reason), (None, None));
}

#[tokio::test]
async fn an_ended_item_is_found_and_another_users_is_not() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let call = scene.started_call(user, agent).await;
    scene.end(call.request.attempt.call_id, Outcome::Busy).await;

    let found = scene.store.item(user, call.item_id).await.unwrap().unwrap();

    assert_eq!(found.item.status, ItemStatus::Failed);
    assert_eq!(found.item.reason.as_deref(), Some("busy"));
    assert!(found.item.finished_at.is_some() && found.place.is_none());
    let other = scene.user().await;
    assert_eq!(scene.store.item(other, call.item_id).await, Ok(None));
    assert_eq!(scene.store.item(user, QueueItemId::new()).await, Ok(None));
}

#[tokio::test]
async fn each_reason_to_wait_is_told_apart() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let reason = async |id| {
        scene
            .store
            .item(user, id)
            .await
            .unwrap()
            .unwrap()
            .waiting_reason
    };
    let system_limit = async |calls| {
        let limit = callq_domain::ConcurrencyLimit::new(calls).unwrap();
        scene.store.set_system_limit(limit).await.unwrap();
    };

    let at = Utc::now() + TimeDelta::hours(1);
    let mut later = direct_call(user, agent, Target::Number(parsed("+14155552671")));
    later.scheduled_for = Some(at);
    let scheduled = later.item_id;
    scene.admit(later).await;
    let Some(QueueReason::Scheduled(told)) = reason(scheduled).await else {
        panic!("a scheduled call waits for its time");
    };
    assert_eq!(told.timestamp_micros(), at.timestamp_micros());

    system_limit(0).await;
    let first = scene.waiting_call(user, agent).await;
    let second = scene.waiting_call(user, agent).await;
    let none = SlotUse {
        limit: 0,
        active: 0,
    };
    assert_eq!(reason(first).await, Some(QueueReason::SystemLimit(none)));

    scene.store.set_dispatch_paused(true).await.unwrap();
    assert_eq!(reason(first).await, Some(QueueReason::DispatchPaused));
    scene.store.set_dispatch_paused(false).await.unwrap();

    system_limit(5).await;
    assert_eq!(reason(first).await, None);
    assert_eq!(
        reason(second).await,
        Some(QueueReason::EarlierDirectCalls { ahead: 1 })
    );

    let call = scene.dispatch(1).await.remove(0);
    scene.give_back(call.request.attempt).await;
    assert_eq!(
        reason(first).await,
        Some(QueueReason::Provider("provider is busy".into()))
    );
    let behind = QueueReason::Provider("The provider asked to wait".into());
    assert_eq!(reason(second).await, Some(behind));
}

#[tokio::test]
async fn a_campaigns_item_waits_for_direct_calls_and_keeps_out_of_the_reserve() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let campaign = scene.campaign(user, 2).await;
    let filter = ItemFilter {
        campaign_id: Some(campaign),
        ..ItemFilter::default()
    };
    let items = scene
        .store
        .items(user, filter, first_page(1))
        .await
        .unwrap()
        .items;
    let placed = async || scene.store.item(user, items[0].id).await.unwrap().unwrap();

    assert_eq!(placed().await.waiting_reason, None);
    assert_eq!(placed().await.place.unwrap().total_in_queue, 2);

    let change = UserChange {
        direct_reserved_slots: Some(2),
        ..UserChange::default()
    };
    scene.store.update_user(user, change).await.unwrap();
    let none = SlotUse {
        limit: 0,
        active: 0,
    };
    assert_eq!(
        placed().await.waiting_reason,
        Some(QueueReason::UserLimit(none))
    );

    let change = UserChange {
        direct_reserved_slots: Some(0),
        ..UserChange::default()
    };
    scene.store.update_user(user, change).await.unwrap();
    scene.store.set_dispatch_paused(true).await.unwrap();
    scene.waiting_call(user, agent).await;
    scene.store.set_dispatch_paused(false).await.unwrap();
    let ahead = QueueReason::EarlierDirectCalls { ahead: 1 };
    assert_eq!(placed().await.waiting_reason, Some(ahead));

    scene
        .set_status(user, campaign, CampaignStatus::Paused)
        .await;
    let paused = Some(QueueReason::CampaignPaused);
    assert_eq!(placed().await.waiting_reason, paused);
}

#[tokio::test]
async fn the_statistics_count_the_day_and_measure_the_hour() {
    let (scene, user) = busy_scene().await;
    scene.sql(
        "UPDATE campaigns SET started_at = started_at - interval '1 hour'; \
         UPDATE active_calls SET due_since = reserved_at - interval '8 s'; \
         UPDATE call_queue_history SET due_since = coalesce(reserved_at, now()) - interval '8 s'",
    );

    let statistics = scene.store.queue_statistics(user).await.unwrap();

    let of = |call_type, status| {
        let mut counts = statistics.counts.iter();
        let found = counts.find(|count| (count.0, count.1) == (call_type, status));
        found.unwrap().2
    };
    assert_eq!(statistics.counts.len(), 12);
    assert_eq!(of(CallType::Direct, ItemStatus::Queued), 3);
    assert_eq!(of(CallType::Direct, ItemStatus::Processing), 2);
    assert_eq!(of(CallType::Direct, ItemStatus::Cancelled), 1);
    assert_eq!(of(CallType::Campaign, ItemStatus::Processing), 1);
    assert_eq!(of(CallType::Campaign, ItemStatus::Completed), 2);
    assert_eq!(of(CallType::Campaign, ItemStatus::Expired), 0);
    assert_eq!(statistics.wait_seconds, Some([8.0, 8.0, 8.0]));
    assert_eq!(statistics.started_per_minute, 5.0 / 60.0);
    assert_eq!(statistics.finished_per_minute, 2.0 / 60.0);

    scene.sql("UPDATE call_queue_history SET finished_at = finished_at - interval '25 hours'");
    let statistics = scene.store.queue_statistics(user).await.unwrap();
    let ended = statistics
        .counts
        .iter()
        .filter(|count| count.1.is_terminal());
    assert_eq!(ended.map(|count| count.2).sum::<u64>(), 0);
    assert_eq!(statistics.finished_per_minute, 0.0);
    let idle = scene
        .store
        .queue_statistics(scene.user().await)
        .await
        .unwrap();
    assert_eq!((idle.wait_seconds, idle.started_per_minute), (None, 0.0));
}

#[tokio::test]
async fn a_campaigns_call_waits_from_the_start_of_its_campaign() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let draft = scene.draft(user, 1).await;
    scene.sql("UPDATE call_queue SET due_since = due_since - interval '3 days'");
    scene.set_status(user, draft, CampaignStatus::Active).await;
    scene.dispatch(1).await;

    let waits = scene
        .store
        .queue_statistics(user)
        .await
        .unwrap()
        .wait_seconds
        .unwrap();

    assert!(waits[2] < 3_600.0, "{waits:?}");
}

#[tokio::test]
async fn a_waiting_item_is_withdrawn_once() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 1).await;
    let running = scene.started_call(user, agent).await;
    let waiting = scene.waiting_call(user, agent).await;
    let behind = scene.waiting_call(user, agent).await;

    let gone = scene
        .store
        .cancel_item(user, waiting)
        .await
        .unwrap()
        .unwrap();

    assert_eq!((gone.id, gone.status), (waiting, ItemStatus::Cancelled));
    assert_eq!(gone.reason.as_deref(), Some("cancelled by its owner"));
    assert!(gone.finished_at.is_some());
    let again = scene.store.cancel_item(user, waiting).await;
    assert_eq!(again, Ok(Err(ItemStatus::Cancelled)));
    let started = scene.store.cancel_item(user, running.item_id).await;
    assert_eq!(started, Ok(Err(ItemStatus::Processing)));
    let place = scene
        .store
        .item(user, behind)
        .await
        .unwrap()
        .unwrap()
        .place
        .unwrap();
    assert_eq!((place.position, place.total_in_queue), (1, 1));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn another_users_item_cannot_be_withdrawn() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let agent = scene.agent(user).await;
    scene.limit(user, 0).await;
    let waiting = scene.waiting_call(user, agent).await;

    let refused = scene.store.cancel_item(other, waiting).await;

    assert_eq!(refused, Err(StoreError::NotFound));
    let unknown = scene.store.cancel_item(user, QueueItemId::new()).await;
    assert_eq!(unknown, Err(StoreError::NotFound));
    let item = scene.store.item(user, waiting).await.unwrap().unwrap().item;
    assert_eq!(item.status, ItemStatus::Queued);
}

#[tokio::test]
async fn a_withdrawal_that_meets_a_start_has_one_winner() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    for _ in 0..10 {
        scene.store.set_dispatch_paused(true).await.unwrap();
        let Admission::Queued(queued) = scene.direct_call(user, agent).await else {
            panic!("nothing starts while dispatch is paused");
        };
        scene.store.set_dispatch_paused(false).await.unwrap();

        let (started, withdrawn) = tokio::join!(
            scene.dispatch(1),
            scene.store.cancel_item(user, queued.item_id)
        );

        match withdrawn.unwrap() {
            Ok(_) => assert_eq!(started.len(), 0),
            Err(status) => {
                assert_eq!((started.len(), status), (1, ItemStatus::Processing));
                scene
                    .end(started[0].request.attempt.call_id, Outcome::Completed)
                    .await;
            }
        }
        scene.assert_counters_equal_rows().await;
    }
}
