//! Many at once on many connections: limits hold at every write, places are told once, counters
//! equal rows when the dust has settled. Everyone starts at a barrier.

use std::collections::BTreeSet;
use std::sync::Arc;

use callq_domain::{
    Admission, CampaignStatus, CampaignStore, ConcurrencyLimit, EngineStore, ExecutionId,
    OperatorStore, Outcome, ProgressBatch, QueueStore, SlotBatch, StoreError, Target, UserChange,
};
use callq_persistence::{Database, PostgresStore};
use diesel::connection::SimpleConnection;
use diesel::{RunQueryDsl, sql_query};
use tokio::sync::Barrier;

use crate::scene::{Scene, direct_call, phone_number};

/// Connections of the crowd.
const CROWD: u32 = 20;

/// Makes the database refuse any write that takes a slot beyond a limit.
fn guard_limits(scene: &Scene) {
    scene.sql(
        "CREATE FUNCTION guard_system() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           IF NEW.active > OLD.active AND NEW.active > NEW.concurrent_calls_limit THEN \
             RAISE EXCEPTION 'system limit exceeded: %/%', NEW.active, NEW.concurrent_calls_limit; END IF; \
           RETURN NEW; END $$; \
         CREATE TRIGGER guard BEFORE UPDATE ON system_state FOR EACH ROW EXECUTE FUNCTION guard_system(); \
         CREATE FUNCTION guard_user() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           IF NEW.active_direct + NEW.active_campaign > OLD.active_direct + OLD.active_campaign \
             AND NEW.active_direct + NEW.active_campaign > (SELECT concurrent_calls_limit FROM users WHERE id = NEW.user_id) THEN \
             RAISE EXCEPTION 'user limit exceeded'; END IF; \
           RETURN NEW; END $$; \
         CREATE TRIGGER guard BEFORE UPDATE ON user_slots FOR EACH ROW EXECUTE FUNCTION guard_user()",
    );
}

fn crowd(scene: &Scene) -> PostgresStore {
    let pool = Database::new(scene.database.url(), CROWD).unwrap();
    PostgresStore::new(pool, callq_domain::ProviderName::new("simulator").unwrap())
}

async fn admit_one(
    store: &PostgresStore,
    scene: &Scene,
    call: callq_domain::NewDirectCall,
) -> Admission {
    let batch = SlotBatch {
        admissions: vec![call],
        ..SlotBatch::default()
    };
    store
        .settle(scene.server, &batch)
        .await
        .unwrap()
        .admissions
        .remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_admissions_at_once_for_a_limit_of_2_two_start_and_the_rest_have_each_place_once() {
    let scene = Arc::new(Scene::new().await);
    guard_limits(&scene);
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let store = crowd(&scene);
    let barrier = Arc::new(Barrier::new(200));

    let admissions: Vec<_> = (0..200)
        .map(|n| {
            let (scene, store, barrier) = (scene.clone(), store.clone(), barrier.clone());
            tokio::spawn(async move {
                let call = direct_call(
                    user,
                    agent,
                    Target::Number(phone_number(n).parse().unwrap()),
                );
                barrier.wait().await;
                admit_one(&store, &scene, call).await
            })
        })
        .collect();
    let (mut started, mut places) = (0, BTreeSet::new());
    for admission in admissions {
        match admission.await.unwrap() {
            Admission::Started(_) => started += 1,
            Admission::Queued(queued) => assert!(places.insert(queued.place.position)),
            other => panic!("{other:?}"),
        }
    }

    assert_eq!((started, places), (2, (1..=198).collect()));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_users_at_once_exactly_ten_start_under_a_system_limit_of_ten() {
    let scene = Arc::new(Scene::new().await);
    guard_limits(&scene);
    scene.sql("UPDATE system_state SET concurrent_calls_limit = 10");
    let mut users = Vec::new();
    for _ in 0..200 {
        let user = scene.user().await;
        users.push((user, scene.agent(user).await));
    }
    let store = crowd(&scene);
    let barrier = Arc::new(Barrier::new(200));

    let admissions: Vec<_> = users
        .into_iter()
        .map(|(user, agent)| {
            let (scene, store, barrier) = (scene.clone(), store.clone(), barrier.clone());
            tokio::spawn(async move {
                let call = direct_call(
                    user,
                    agent,
                    Target::Number(phone_number(1).parse().unwrap()),
                );
                barrier.wait().await;
                admit_one(&store, &scene, call).await
            })
        })
        .collect();
    let mut started = 0;
    for admission in admissions {
        started += usize::from(matches!(admission.await.unwrap(), Admission::Started(_)));
    }

    assert_eq!(started, 10);
    scene.assert_counters_equal_rows().await;
}

/// A small generator of numbers: which operation comes next need not be good randomness.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_every_operation_breaks_no_limit_and_leaves_counters_equal_to_rows() {
    let scene = Arc::new(Scene::new().await);
    guard_limits(&scene);
    scene.sql("UPDATE system_state SET concurrent_calls_limit = 7");
    let mut users = Vec::new();
    for _ in 0..6 {
        let user = scene.user().await;
        users.push((
            user,
            scene.agent(user).await,
            scene.campaign(user, 30).await,
        ));
    }
    let store = crowd(&scene);
    let barrier = Arc::new(Barrier::new(CROWD as usize));

    let workers: Vec<_> = (0..u64::from(CROWD))
        .map(|seed| {
            let (scene, store, barrier, users) =
                (scene.clone(), store.clone(), barrier.clone(), users.clone());
            tokio::spawn(async move {
                let mut dice = Dice(seed);
                let mut mine = Vec::new();
                let mut waiting = Vec::new();
                barrier.wait().await;
                for step in 0..40_u32 {
                    let (user, agent, campaign) = users[dice.roll(6) as usize];
                    match dice.roll(9) {
                        0..=2 => {
                            let number = Target::Number(phone_number(step).parse().unwrap());
                            match admit_one(&store, &scene, direct_call(user, agent, number)).await
                            {
                                Admission::Started(call) => mine.push(call.request.attempt),
                                Admission::Queued(queued) => waiting.push((user, queued.item_id)),
                                other => panic!("{other:?}"),
                            }
                        }
                        3 | 4 => {
                            let batch = SlotBatch {
                                reserve: 3,
                                ..SlotBatch::default()
                            };
                            let reserved =
                                store.settle(scene.server, &batch).await.unwrap().reserved;
                            mine.extend(reserved.iter().map(|call| call.request.attempt));
                        }
                        5 => {
                            if let Some(attempt) = mine.pop() {
                                let placed = ProgressBatch {
                                    placed: vec![(attempt, ExecutionId::new("x").unwrap())],
                                    ..ProgressBatch::default()
                                };
                                store.record_progress(scene.server, &placed).await.unwrap();
                                scene.end(attempt.call_id, Outcome::Completed).await;
                            }
                        }
                        6 => {
                            if let Some((user, item)) = waiting.pop() {
                                // It may have started meanwhile: either answer is right.
                                let _ = store.cancel_item(user, item).await.unwrap();
                            }
                        }
                        7 => {
                            let limit = ConcurrencyLimit::new(dice.roll(5) as i64).unwrap();
                            let change = UserChange {
                                concurrent_calls_limit: Some(limit),
                                ..UserChange::default()
                            };
                            store.update_user(user, change).await.unwrap();
                        }
                        _ => {
                            let status = [CampaignStatus::Paused, CampaignStatus::Active]
                                [dice.roll(2) as usize];
                            // Already so, or over: a conflict, and nothing changes.
                            let _ = store.set_campaign_status(user, campaign, status).await;
                        }
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }

    scene.assert_counters_equal_rows().await;
    assert_eq!(scene.count("SELECT count(*) FROM priority_violations"), 0);
    let accepted = "SELECT (SELECT count(*) FROM call_queue) + (SELECT count(*) FROM active_calls) \
         + (SELECT count(*) FROM call_queue_history)";
    let logged = "SELECT count(DISTINCT item_id) FROM call_events";
    assert_eq!(
        scene.count(accepted),
        scene.count(logged),
        "no item was lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_endings_of_the_same_calls_never_deadlock() {
    let scene = Arc::new(Scene::new().await);
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 100).await;
    scene.sql("UPDATE system_state SET concurrent_calls_limit = 100");
    let store = crowd(&scene);
    for _ in 0..10 {
        let mut attempts = Vec::new();
        for _ in 0..20 {
            attempts.push(scene.started_call(user, agent).await.request.attempt);
        }
        let (some, others) = attempts.split_at(10);
        // Placements of the later calls, events of the earlier ones: out of order if not locked together.
        let progress = ProgressBatch {
            placed: others
                .iter()
                .map(|a| (*a, ExecutionId::new("x").unwrap()))
                .collect(),
            events: some.iter().map(|a| ringing(a.call_id)).collect(),
            ..ProgressBatch::default()
        };
        let endings = SlotBatch {
            endings: attempts.iter().map(|a| ended(a.call_id)).collect(),
            ..SlotBatch::default()
        };
        let barrier = Arc::new(Barrier::new(2));
        let (one, two) = (store.clone(), store.clone());
        let (first, second) = (barrier.clone(), barrier);
        let server = scene.server;
        let progress = tokio::spawn(async move {
            first.wait().await;
            one.record_progress(server, &progress).await
        });
        let endings = tokio::spawn(async move {
            second.wait().await;
            two.settle(server, &endings).await
        });
        progress.await.unwrap().unwrap();
        endings.await.unwrap().unwrap();
    }
    scene.assert_counters_equal_rows().await;
}

fn ringing(call_id: callq_domain::CallId) -> callq_domain::StatusEvent {
    callq_domain::StatusEvent {
        event_id: "e".into(),
        call_id,
        execution_id: None,
        status: callq_domain::ReportedStatus::Ringing,
        occurred_at: chrono::Utc::now(),
        duration_seconds: None,
        reason: None,
    }
}

fn ended(call_id: callq_domain::CallId) -> callq_domain::Ending {
    callq_domain::Ending {
        call_id,
        attempt: None,
        outcome: Outcome::Completed,
        execution_id: None,
        reason: None,
        duration_seconds: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_agent_or_contact_is_deleted_as_it_starts_is_refused_and_counts_nowhere() {
    for deleted in ["agents", "contacts"] {
        let scene = Arc::new(Scene::new().await);
        let user = scene.user().await;
        let (agent, contact) = (scene.agent(user).await, scene.contact(user).await);
        let mut deleting = scene.connection();
        deleting
            .batch_execute(&format!(
                "BEGIN; DELETE FROM {deleted} WHERE user_id = '{user}'"
            ))
            .unwrap();
        let starting = tokio::spawn({
            let scene = scene.clone();
            async move {
                let batch = SlotBatch {
                    admissions: vec![direct_call(user, agent, Target::Contact(contact))],
                    ..SlotBatch::default()
                };
                let first = scene.store.settle(scene.server, &batch).await;
                let again = SlotBatch {
                    answered: Some(0),
                    ..batch
                };
                (first, scene.store.settle(scene.server, &again).await)
            }
        });
        scene.until_waiting_for_lock(1).await;
        deleting.batch_execute("COMMIT").unwrap();

        let (first, again) = starting.await.unwrap();

        assert!(
            matches!(first, Err(callq_domain::StoreError::Unavailable(_))),
            "{first:?}"
        );
        assert!(
            matches!(again.unwrap().admissions[0], Admission::Refused(_)),
            "{deleted}"
        );
        assert_eq!(scene.count("SELECT count(*) FROM queue_items"), 0);
        scene.assert_counters_equal_rows().await;
    }
}

/// As a server that is put to sleep between two statements, or whose network breaks.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stops_while_it_holds_the_engines_lock_stops_the_others_for_two_seconds()
{
    let scene = Scene::new().await;
    let database = Database::new(scene.database.url(), 2).unwrap();
    let (asleep, is_asleep) = tokio::sync::oneshot::channel();
    let (wake, is_woken) = std::sync::mpsc::channel::<()>();
    let sleeper = tokio::spawn({
        let database = database.clone();
        async move {
            database
                .run(move |conn| {
                    sql_query("SELECT lock_engine()").execute(conn)?;
                    asleep.send(()).unwrap();
                    is_woken.recv().unwrap();
                    sql_query("UPDATE system_state SET dispatch_paused = true").execute(conn)?;
                    Ok(())
                })
                .await
        }
    });
    is_asleep.await.unwrap();

    let other = database
        .run(|conn| Ok(sql_query("SELECT lock_engine()").execute(conn)?))
        .await;
    wake.send(()).unwrap();

    assert_eq!(other, Ok(1));
    let told = sleeper.await.unwrap();
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    assert_eq!(
        scene.count("SELECT count(*) FROM system_state WHERE dispatch_paused"),
        0
    );
}
