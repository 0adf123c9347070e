//! What operators see and change.

use callq_domain::{
    CampaignStatus, CampaignStore, ConcurrencyLimit, EngineStore, OperatorStore, ProgressBatch,
    QueueStore, SlotUse, StoreError, TypeCount, UserChange, UserId, Weight,
};
use callq_persistence::{Database, PostgresStore, migrations};
use callq_testing::TestDatabase;
use diesel::connection::SimpleConnection;

use crate::scene::{Scene, first_page, page_after, texts};

fn limit(calls: i64) -> ConcurrencyLimit {
    ConcurrencyLimit::new(calls).unwrap()
}

#[tokio::test]
async fn the_first_start_sets_the_systems_limit_and_no_later_one_does() {
    let scene = Scene::new().await;
    let store = &scene.store;

    let first = store.initialize_system_limit(limit(25)).await.unwrap();
    let second = store.initialize_system_limit(limit(50)).await.unwrap();
    assert_eq!((first.slots.limit, second.slots.limit), (25, 25));

    let set = store.set_system_limit(limit(3)).await.unwrap();
    assert_eq!(
        set.slots,
        SlotUse {
            limit: 3,
            active: 0
        }
    );
    assert_eq!(store.initialize_system_limit(limit(50)).await, Ok(set));
    assert_eq!(store.system_state().await, Ok(set));
}

#[tokio::test]
async fn a_limit_set_by_an_operator_first_is_kept_at_the_start() {
    let scene = Scene::new().await;
    let set = scene.store.set_system_limit(limit(0)).await.unwrap();

    let started = scene.store.initialize_system_limit(limit(50)).await;

    assert_eq!(started, Ok(set));
}

#[tokio::test]
async fn a_lowered_system_limit_stops_starts_and_ends_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 5).await;
    scene.started_call(user, agent).await;
    scene.started_call(user, agent).await;

    let lowered = scene.store.set_system_limit(limit(1)).await.unwrap();

    assert_eq!(
        lowered.slots,
        SlotUse {
            limit: 1,
            active: 2
        }
    );
    scene.waiting_call(user, agent).await;
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn paused_dispatch_starts_nothing_until_it_is_resumed() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;

    let paused = scene.store.set_dispatch_paused(true).await.unwrap();
    assert!(paused.dispatch_paused);
    scene.waiting_call(user, agent).await;
    assert_eq!(scene.dispatch(9).await.len(), 0);

    let resumed = scene.store.set_dispatch_paused(false).await.unwrap();
    assert!(!resumed.dispatch_paused);
    assert_eq!(scene.dispatch(9).await.len(), 1);
}

#[tokio::test]
async fn users_are_listed_with_their_load_newest_first() {
    let scene = Scene::new().await;
    let (idle, busy) = (scene.user().await, scene.user().await);
    let agent = scene.agent(busy).await;
    scene.campaign(busy, 3).await;
    scene.draft(busy, 5).await;
    scene.dispatch(1).await;
    scene.started_call(busy, agent).await;
    scene.waiting_call(busy, agent).await;

    let first = scene.store.user_loads(first_page(1)).await.unwrap();
    let second = page_after(1, first.next_cursor.clone());
    let second = scene.store.user_loads(second).await.unwrap();

    let load = &first.items[0];
    assert_eq!(load.user.id, busy);
    let both = TypeCount {
        queued: 1,
        processing: 1,
    };
    assert_eq!(load.direct, both);
    assert_eq!(
        load.campaign,
        TypeCount {
            queued: 2,
            processing: 1
        }
    );
    assert_eq!(scene.store.user_load(busy).await, Ok(Some(load.clone())));
    assert_eq!(second.items[0].user.id, idle);
    assert_eq!(second.items[0].direct, TypeCount::default());
    assert_eq!(second.next_cursor, None);
    assert_eq!(scene.store.user_load(UserId::new()).await, Ok(None));
}

#[tokio::test]
async fn a_change_to_a_user_touches_what_it_names_and_takes_effect_at_once() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 0).await;
    scene.waiting_call(user, agent).await;
    assert_eq!(scene.dispatch(9).await.len(), 0);
    let change = UserChange {
        weight: Weight::new(3),
        credits: Some(Some(5)),
        ..UserChange::default()
    };

    let first = scene.store.update_user(user, change).await.unwrap();
    assert_eq!((first.weight.get(), first.credits), (3, Some(5)));
    assert_eq!(first.concurrent_calls_limit, limit(0));

    let change = UserChange {
        concurrent_calls_limit: Some(limit(1)),
        direct_reserved_slots: Some(1),
        credits: Some(None),
        ..UserChange::default()
    };
    let second = scene.store.update_user(user, change).await.unwrap();
    assert_eq!((second.weight.get(), second.credits), (3, None));
    assert_eq!(
        (second.concurrent_calls_limit, second.direct_reserved_slots),
        (limit(1), 1)
    );

    assert_eq!(scene.dispatch(9).await.len(), 1);
    scene.assert_counters_equal_rows().await;
    let nobody = scene
        .store
        .update_user(UserId::new(), UserChange::default())
        .await;
    assert_eq!(nobody, Err(StoreError::NotFound));
}

#[tokio::test]
async fn whatever_moves_counters_waits_until_another_transaction_has_decided() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 0).await;
    let item = scene.waiting_call(user, agent).await;
    let draft = scene.draft(user, 1).await;
    let store = || scene.store.clone();
    let (one, two, three, four, five, six) = (store(), store(), store(), store(), store(), store());
    let changes: Vec<(&str, Change)> = vec![
        (
            "limit",
            Box::pin(async move { one.set_system_limit(limit(3)).await.is_ok() }),
        ),
        (
            "first limit",
            Box::pin(async move { two.initialize_system_limit(limit(3)).await.is_ok() }),
        ),
        (
            "pause",
            Box::pin(async move { three.set_dispatch_paused(true).await.is_ok() }),
        ),
        (
            "user",
            Box::pin(async move { four.update_user(user, UserChange::default()).await.is_ok() }),
        ),
        (
            "item",
            Box::pin(async move { matches!(five.cancel_item(user, item).await, Ok(Ok(_))) }),
        ),
        (
            "campaign",
            Box::pin(async move {
                let status = CampaignStatus::Active;
                six.set_campaign_status(user, draft, status).await.is_ok()
            }),
        ),
    ];
    let waiting = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";

    for (name, change) in changes {
        let mut deciding = scene.connection();
        deciding
            .batch_execute("BEGIN; SELECT lock_engine()")
            .unwrap();
        let change = tokio::spawn(change);
        while scene.count(waiting) == 0 {
            assert!(!change.is_finished(), "{name} did not wait");
            tokio::task::yield_now().await;
        }
        deciding.batch_execute("COMMIT").unwrap();

        assert!(change.await.unwrap(), "{name} failed");
    }
}

type Change = std::pin::Pin<Box<dyn Future<Output = bool> + Send>>;

#[tokio::test]
async fn the_audit_names_each_count_that_differs_from_its_rows() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.assert_counters_equal_rows().await;
    scene.sql("UPDATE user_slots SET active_direct = 3");

    let differences = scene.store.audit().await.unwrap();

    assert_eq!(differences.len(), 1);
    let found = &differences[0];
    assert_eq!(found.counter, "user_slots.active_direct");
    assert_eq!(found.subject, user.to_string());
    assert_eq!((found.kept, found.counted), (3, 0));
}

#[tokio::test]
async fn the_audit_names_what_would_make_places_wrong() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 0).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(scene.waiting_call(user, agent).await);
    }
    let withdrawn = scene.store.cancel_item(user, waiting[2]).await.unwrap();
    withdrawn.unwrap();
    scene.assert_counters_equal_rows().await;
    let found = |broken: &str| {
        let mut connection = scene.connection();
        connection
            .batch_execute(&format!("BEGIN; {broken}"))
            .unwrap();
        texts(
            &mut connection,
            "SELECT counter || ' ' || kept || ' ' || counted FROM audit_counters() ORDER BY 1",
        )
    };

    assert_eq!(
        found("UPDATE user_slots SET direct_tail = 4"),
        [
            "lane_gaps 1 0",
            "lane_gaps.places 2 -2",
            "user_slots.direct_tail 4 5"
        ]
    );
    assert_eq!(
        found("UPDATE lane_gaps SET block = 4 WHERE level = 0"),
        ["lane_gaps.places 3 2"]
    );
    assert_eq!(
        found("DELETE FROM lane_gaps WHERE level = 2"),
        ["lane_gaps.level 0 1"]
    );
    assert_eq!(
        found("DELETE FROM lane_gaps"),
        ["lane_gaps 0 1", "lane_gaps.places 0 2"]
    );
}

#[tokio::test]
async fn the_gauges_add_up_all_users() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let agent = scene.agent(user).await;
    scene.campaign(other, 4).await;
    scene.draft(other, 7).await;
    scene.dispatch(2).await;
    let call = scene.started_call(user, agent).await;
    scene.started_call(user, agent).await;
    scene.waiting_call(user, agent).await;
    let lost = ProgressBatch {
        unknown: vec![(call.request.attempt, "answer lost".into())],
        ..ProgressBatch::default()
    };
    scene
        .store
        .record_progress(scene.server, &lost)
        .await
        .unwrap();
    let mut old = scene.connection();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        .unwrap();

    let gauges = scene.store.gauges().await.unwrap();

    assert_eq!(
        gauges.slots,
        SlotUse {
            limit: 10,
            active: 4
        }
    );
    assert_eq!(
        gauges.direct,
        TypeCount {
            queued: 1,
            processing: 2
        }
    );
    assert_eq!(
        gauges.campaign,
        TypeCount {
            queued: 2,
            processing: 2
        }
    );
    assert_eq!((gauges.unknown, gauges.priority_violations), (1, 0));
    assert!(gauges.oldest_snapshot > std::time::Duration::ZERO);
    old.batch_execute("ROLLBACK").unwrap();
    let idle = scene.store.gauges().await.unwrap();
    assert_eq!(idle.oldest_snapshot, std::time::Duration::ZERO);
}

#[tokio::test]
async fn a_store_is_ready_only_on_the_schema_it_needs() {
    let scene = Scene::new().await;
    assert_eq!(scene.store.ready().await, Ok(()));

    scene.sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')");
    let newer = scene.store.ready().await.unwrap_err();
    assert!(newer.to_string().contains("29990101000000"), "{newer}");
    scene.sql("DELETE FROM __diesel_schema_migrations WHERE version = '29990101000000'");

    scene.sql("UPDATE servers SET lease_until = clock_timestamp()");
    migrations::down(scene.database.url()).unwrap();
    let older = scene.store.ready().await.unwrap_err();
    assert!(matches!(older, StoreError::Unavailable(_)));
    assert!(older.to_string().contains("keep_zones"), "{older}");
}

#[tokio::test]
async fn a_store_on_an_empty_or_missing_database_is_not_ready() {
    let empty = TestDatabase::empty();
    let missing = empty.url().replacen("/t_", "/missing_", 1);
    for url in [empty.url(), &missing, "postgresql:///x?host=/nowhere"] {
        let provider = callq_domain::ProviderName::new("simulator").unwrap();
        let store = PostgresStore::new(Database::new(url, 1).unwrap(), provider);

        let answer = store.ready().await;

        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{url}: {answer:?}"
        );
    }
}
