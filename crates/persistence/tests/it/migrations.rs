//! The migrations, up, down and up again on databases full of calls, and what the schema refuses.

use std::collections::BTreeSet;
use std::sync::Barrier;

use callq_domain::{Admission, Outcome, OwnershipStore, QueueStore, Target};
use callq_persistence::connect;
use callq_persistence::migrations::{self, MigrationError, MigrationStatus};
use callq_testing::TestDatabase;
use chrono::{TimeDelta, Utc};
use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::result::Error as DieselError;

use crate::scene::{Scene, count, direct_call, parsed, texts};

const FIRST: &str = "2026-11-20-000000_create_campaign_queue";
const DIRECT: &str = "2026-11-21-000000_add_direct_calls";
const ENGINE: &str = "2026-11-22-000000_create_engine";
const WHOLE: &str = "2026-11-24-000000_move_calls_whole";
const SETTLE: &str = "2026-11-24-000001_settle_in_one_call";
const TALLY: &str = "2026-11-24-000002_tally_campaigns";
const PLACES: &str = "2026-11-24-000003_exact_positions";
const TOKENS: &str = "2026-11-24-000004_find_tokens";
const ADDITIVE: &str = "2026-11-24-000005_mark_additive_migrations";
const HAND: &str = "2026-11-25-000000_settle_by_hand";
const OWN: &str = "2026-11-25-000001_own_what_can_be_owned";
const LISTS: &str = "2026-11-26-000000_list_do_not_call";
const CHANGE: &str = "2026-11-26-000002_change_campaigns";
const KEYS: &str = "2026-11-26-000003_answer_disowned_keys";
const RETRY: &str = "2026-11-26-000010_retry_calls";
const HOURS: &str = "2026-11-26-000011_keep_hours";
const IMPORT: &str = "2026-11-27-000000_import_lists";
const PACE: &str = "2026-11-27-000001_pace_campaigns";
const BOUND: &str = "2026-11-27-000002_bound_queues";
const SPARE: &str = "2026-11-27-000003_spare_numbers";
const ZONES: &str = "2026-11-27-000005_keep_zones";
const ALL: [&str; 21] = [
    FIRST, DIRECT, ENGINE, WHOLE, SETTLE, TALLY, PLACES, TOKENS, ADDITIVE, HAND, OWN, LISTS,
    CHANGE, KEYS, RETRY, HOURS, IMPORT, PACE, BOUND, SPARE, ZONES,
];
const NEWEST: &str = ZONES;

/// A deployment from before direct calls: 3 users, 6 campaigns, 6,000 calls in every status.
const OLD_DEPLOYMENT: &str = "
    INSERT INTO users (email, concurrent_calls_limit)
        SELECT 'user' || n || '@example.com', n FROM generate_series(1, 3) n;
    INSERT INTO agents (user_id, name) SELECT id, 'Ada' FROM users;
    INSERT INTO contacts (user_id, phone_number, name)
        SELECT u.id, '+1415555' || (1000 + n), 'contact ' || n FROM users u, generate_series(1, 1000) n;
    INSERT INTO campaigns (user_id, agent_id, name, next_action, first_call_time, last_call_time, start_date, status)
        SELECT a.user_id, a.id, s, 'remind', '09:00', '17:00', '2026-11-20', s
        FROM agents a, unnest(ARRAY['active', 'paused']) s;
    INSERT INTO call_queue (user_id, agent_id, contact_id, campaign_id, priority, position, status, scheduled_for,
            queued_at, started_at, finished_at)
        SELECT c.user_id, m.agent_id, c.id, m.id, n % 3, n, s.status,
            CASE WHEN n % 10 = 0 THEN now() + interval '1 hour' END, now() - interval '2 days',
            CASE WHEN s.status <> 'queued' THEN now() - interval '1 day' END,
            CASE WHEN s.status IN ('completed', 'failed') THEN now() - interval '1 day' END
        FROM (SELECT *, row_number() OVER () AS n FROM contacts) c
        JOIN campaigns m ON m.user_id = c.user_id
        CROSS JOIN LATERAL (SELECT (ARRAY['queued', 'processing', 'completed', 'failed', 'cancelled', 'expired'])
            [1 + c.n % 6] AS status) s";

/// As when every server has stopped.
const STOPPED: &str = "UPDATE servers SET lease_until = clock_timestamp()";

/// Every item with all that must survive, as sorted texts.
fn items(connection: &mut PgConnection, table: &str) -> BTreeSet<String> {
    let query = format!(
        "SELECT concat_ws(' ', id, user_id, agent_id, contact_id, campaign_id, priority, position, \
         CASE status WHEN 'processing' THEN 'failed' ELSE status END, scheduled_for, queued_at, started_at) \
         FROM {table}"
    );
    texts(connection, &query).into_iter().collect()
}

fn names(status: Vec<MigrationStatus>) -> Vec<(String, bool)> {
    let status = status.into_iter();
    status.map(|one| (one.name, one.applied)).collect()
}

/// Every migration, of which the first so many are applied.
fn all(applied: usize) -> Vec<(String, bool)> {
    let names = ALL.iter().map(|name| String::from(*name));
    names.zip((0..).map(|nth| nth < applied)).collect()
}

/// Takes back the newest migrations, `last` being the last of them.
fn down_to(url: &str, last: &str) {
    while migrations::down(url).unwrap() != last {}
}

/// A database as the campaign-only queue left it.
fn old_deployment() -> TestDatabase {
    let database = TestDatabase::empty();
    migrations::up(database.url()).unwrap();
    down_to(database.url(), DIRECT);
    let mut connection = connect(database.url()).unwrap();
    connection.batch_execute(OLD_DEPLOYMENT).unwrap();
    database
}

#[test]
fn each_step_is_named_and_told() {
    let database = TestDatabase::empty();
    let url = database.url();
    let applied = || names(migrations::status(url).unwrap());
    assert_eq!(applied(), all(0));
    let missing = ALL.map(String::from).to_vec();
    assert_eq!(
        migrations::check_current(url),
        Err(MigrationError::Older(missing.clone()))
    );
    assert_eq!(migrations::down(url), Err(MigrationError::NothingApplied));

    assert_eq!(migrations::up(url), Ok(missing));
    assert_eq!(applied(), all(ALL.len()));
    assert_eq!(migrations::check_current(url), Ok(()));
    assert_eq!(migrations::up(url), Ok(Vec::new()));

    assert_eq!(migrations::down(url), Ok(NEWEST.into()));
    assert_eq!(applied(), all(ALL.len() - 1));
    let missing = vec![NEWEST.to_owned()];
    assert_eq!(
        migrations::check_current(url),
        Err(MigrationError::Older(missing.clone()))
    );
    assert_eq!(migrations::up(url), Ok(missing));
}

#[test]
fn looking_at_an_empty_database_leaves_it_empty() {
    let database = TestDatabase::empty();

    migrations::status(database.url()).unwrap();
    migrations::check_current(database.url()).unwrap_err();

    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(count(&mut connect(database.url()).unwrap(), tables), 0);
}

#[test]
fn a_schema_from_the_future_is_named_and_left_alone() {
    let database = TestDatabase::new();
    let url = database.url();
    let mut connection = connect(url).unwrap();
    let future = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')";
    connection.batch_execute(future).unwrap();

    let unknown = MigrationError::Unknown(vec!["29990101000000".into()]);
    assert_eq!(migrations::check_current(url), Err(unknown.clone()));
    assert_eq!(migrations::up(url), Err(unknown));
    let status = migrations::status(url).unwrap();
    assert!(!status.last().unwrap().known && status.last().unwrap().applied);
}

#[test]
fn a_schema_from_the_future_that_only_adds_is_good_enough() {
    let database = TestDatabase::new();
    let url = database.url();
    let mut connection = connect(url).unwrap();
    let future = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000'); \
        INSERT INTO additive_migrations VALUES ('29990101000000'); \
        ALTER TABLE call_queue ADD COLUMN later_thought text; \
        ALTER TABLE active_calls ADD COLUMN later_thought text";
    connection.batch_execute(future).unwrap();

    assert_eq!(migrations::check_current(url), Ok(()));
    assert_eq!(migrations::up(url), Ok(Vec::new()));

    let further = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000001')";
    connection.batch_execute(further).unwrap();
    let unknown = MigrationError::Unknown(vec!["29990101000001".into()]);
    assert_eq!(migrations::check_current(url), Err(unknown));
}

#[test]
fn an_unreachable_database_is_said_to_be() {
    let failed = migrations::up("postgresql:///x?host=/nowhere").unwrap_err();

    assert!(matches!(failed, MigrationError::Connection(_)), "{failed}");
}

#[test]
fn a_queue_full_of_campaign_calls_survives_up_down_and_up_again() {
    let database = old_deployment();
    let url = database.url();
    let mut connection = connect(url).unwrap();
    let old = items(&mut connection, "call_queue");
    assert_eq!(old.len(), 6_000);
    let dialling = "SELECT count(*) FROM call_queue WHERE status = 'processing'";
    let dialling = count(&mut connection, dialling);

    migrations::up(url).unwrap();

    assert_eq!(items(&mut connection, "queue_items"), old);
    let live = "SELECT count(*) FROM call_queue WHERE status <> 'queued'";
    assert_eq!(count(&mut connection, live), 0);
    let cut_off =
        "SELECT count(*) FROM call_queue_history WHERE reason = 'in progress during an upgrade'";
    assert_eq!(count(&mut connection, cut_off), dialling);
    assert_eq!(differences(&mut connection), Vec::<String>::new());
    let unnamed = "SELECT count(*) FROM queue_items q JOIN contacts c ON c.id = q.contact_id \
        WHERE (q.phone_number, q.contact_name) IS DISTINCT FROM (c.phone_number, c.name)";
    assert_eq!(count(&mut connection, unnamed), 0);
    let listed = "SELECT count(*) FROM campaign_contacts";
    assert_eq!(count(&mut connection, listed), 6_000);

    down_to(url, DIRECT);
    assert_eq!(items(&mut connection, "call_queue"), old);

    migrations::up(url).unwrap();
    assert_eq!(items(&mut connection, "queue_items"), old);
    assert_eq!(differences(&mut connection), Vec::<String>::new());
}

#[tokio::test]
async fn calls_in_every_state_survive_the_way_to_the_engine_before_and_back() {
    let scene = Scene::new().await;
    let url = scene.database.url();
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 4).await;
    scene.campaign(user, 3).await;
    let ended = scene.started_call(user, agent).await.request.attempt;
    scene.place(ended).await;
    scene.end(ended.call_id, Outcome::Busy).await;
    let returned = scene.started_call(user, agent).await.request.attempt;
    let placed = scene.started_call(user, agent).await.request.attempt;
    scene.place(placed).await;
    scene.started_call(user, agent).await;
    scene.dispatch(1).await;
    scene.give_back(returned).await;
    scene.sql(STOPPED);
    let told = |connection: &mut PgConnection| {
        let calls = "SELECT concat_ws(' ', id, item_id, provider, execution_id, status, reason, attempts, reserved_at, \
            ended_at, duration_seconds) FROM call_records ORDER BY id";
        let events = "SELECT concat_ws(' ', at, item_id, call_id, attempt, status, reason, server) FROM call_events \
            WHERE attempt IS NOT NULL ORDER BY item_id, at, status";
        let items = "SELECT concat_ws(' ', id, status, priority, position, attempts, call_id) FROM queue_items ORDER BY id";
        [calls, events, items].map(|query| texts(connection, query))
    };
    let mut connection = scene.connection();
    let before = told(&mut connection);
    assert_eq!(before.each_ref().map(Vec::len), [4, 14, 7], "{before:?}");

    down_to(url, WHOLE);
    assert_eq!(differences(&mut connection), Vec::<String>::new());
    assert_eq!(told(&mut connection), before);
    // A server of that version that stops leaves no row behind.
    scene.sql("DELETE FROM servers");
    migrations::up(url).unwrap();

    assert_eq!(differences(&mut connection), Vec::<String>::new());
    assert_eq!(told(&mut connection), before);
    let heir = callq_domain::ServerId::new();
    let lease = std::time::Duration::from_secs(60);
    scene.store.renew_lease(heir, lease).await.unwrap();
    let adopted = scene.store.adopt_orphans(heir).await.unwrap();
    assert_eq!(adopted.len(), 3, "every call that is up has an owner again");
}

#[tokio::test]
async fn places_are_the_same_counted_and_derived_and_stay_so_when_calls_come_back() {
    let scene = Scene::new().await;
    let url = scene.database.url();
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 4).await;
    let up = scene.started_call(user, agent).await.request.attempt;
    let returned = scene.started_call(user, agent).await.request.attempt;
    let also_up = scene.started_call(user, agent).await.request.attempt;
    scene.limit(user, 0).await;
    scene.campaign(user, 20).await;
    // Whose campaigns take turns stands elsewhere since they do.
    let other = scene.user().await;
    scene.limit(other, 0).await;
    scene.campaign(other, 5).await;
    let mut waiting = Vec::new();
    for nth in 0..12 {
        let mut call = direct_call(user, agent, Target::Number(parsed("+14155552671")));
        call.scheduled_for = (nth % 4 == 1).then(|| Utc::now() + TimeDelta::hours(1));
        let Admission::Queued(queued) = scene.admit(call).await else {
            panic!("a limit of 0 lets nothing start");
        };
        waiting.push(queued.item_id);
    }
    let withdrawn = scene.store.cancel_item(user, waiting[6]).await.unwrap();
    withdrawn.unwrap();
    scene.give_back(returned).await;
    // From before there were numbers, and with a priority of its own.
    scene.sql("UPDATE call_queue SET priority = 3 WHERE position % 7 = 0");
    let places = |connection: &mut PgConnection| {
        let query = "SELECT call_type || ' ' || id || ' ' || get_call_queue_position(id) FROM call_queue ORDER BY 1";
        texts(connection, query)
    };
    let mut connection = scene.connection();
    let derived = places(&mut connection);
    assert_eq!(derived.len(), 37);

    scene.sql(STOPPED);
    down_to(url, PLACES);
    assert_eq!(places(&mut connection), derived);
    migrations::up(url).unwrap();

    assert_eq!(places(&mut connection), derived);
    assert_eq!(differences(&mut connection), Vec::<String>::new());
    let numbered = "SELECT count(*) FROM call_queue WHERE ordinal IS NOT NULL";
    assert!(count(&mut connection, numbered) > 25);
    scene.give_back(also_up).await;
    scene.give_back(up).await;
    let derived = places(&mut connection);
    assert_eq!(differences(&mut connection), Vec::<String>::new());
    down_to(url, PLACES);
    assert_eq!(places(&mut connection), derived);
}

fn differences(connection: &mut PgConnection) -> Vec<String> {
    texts(
        connection,
        "SELECT concat_ws(' ', counter, subject, kept, counted) FROM audit_counters()",
    )
}

#[tokio::test]
async fn direct_calls_are_set_aside_by_down_and_put_back_by_up() {
    let scene = Scene::new().await;
    let url = scene.database.url();
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.campaign(user, 2).await;
    scene.limit(user, 0).await;
    for nth in 0..6 {
        let mut call = direct_call(user, agent, Target::Number(parsed("+14155552671")));
        call.contact_name = Some(format!("Bob {nth}"));
        call.caller_id = Some("cid".into());
        call.user_data =
            Some(serde_json::value::RawValue::from_string(r#"{"n": 1}"#.into()).unwrap());
        call.scheduled_for = (nth % 2 == 0).then(|| Utc::now() + TimeDelta::hours(1));
        call.expires_in = (nth % 3 == 0).then(|| std::time::Duration::from_secs(7_200));
        let Admission::Queued(queued) = scene.admit(call).await else {
            panic!("a limit of 0 lets nothing start");
        };
        if nth == 5 {
            scene
                .store
                .cancel_item(user, queued.item_id)
                .await
                .unwrap()
                .unwrap();
        }
    }
    let direct = |connection: &mut PgConnection| {
        let query = "SELECT concat_ws(' ', id, user_id, agent_id, call_type, priority, position, status, reason, \
            phone_number, contact_name, user_data, caller_id, scheduled_for, wakes_at, due_at, expires_at, queued_at, \
            finished_at) FROM queue_items WHERE call_type = 'direct' ORDER BY 1";
        texts(connection, query)
    };
    let mut connection = scene.connection();
    let before = direct(&mut connection);
    assert_eq!(before.len(), 6);

    scene.sql(STOPPED);
    down_to(url, DIRECT);
    assert_eq!(count(&mut connection, "SELECT count(*) FROM call_queue"), 2);
    assert_eq!(
        count(
            &mut connection,
            "SELECT count(*) FROM call_queue_direct_kept"
        ),
        6
    );
    migrations::up(url).unwrap();

    assert_eq!(direct(&mut connection), before);
    assert_eq!(differences(&mut connection), Vec::<String>::new());
    let kept = "SELECT count(*) FROM pg_class WHERE relname = 'call_queue_direct_kept'";
    assert_eq!(count(&mut connection, kept), 0);
}

#[tokio::test]
async fn direct_calls_set_aside_do_not_outlive_their_users() {
    let scene = Scene::new().await;
    let url = scene.database.url();
    let user = scene.user().await;
    scene.limit(user, 0).await;
    scene.waiting_call(user, scene.agent(user).await).await;

    scene.sql(STOPPED);
    down_to(url, FIRST);

    assert_eq!(
        migrations::up(url).map(|applied| applied.len()),
        Ok(ALL.len())
    );
}

#[tokio::test]
async fn down_refuses_to_lose_calls() {
    let scene = Scene::new().await;
    let url = scene.database.url();
    let user = scene.user().await;
    let call = scene.started_call(user, scene.agent(user).await).await;

    // Those that only added may go while servers live.
    down_to(url, ADDITIVE);
    let refused = migrations::down(url).unwrap_err().to_string();
    assert!(refused.contains("a server is running"), "{refused}");
    scene.sql(STOPPED);
    down_to(url, WHOLE);
    let refused = migrations::down(url).unwrap_err().to_string();
    assert!(refused.contains("calls hold slots"), "{refused}");

    migrations::up(url).unwrap();
    scene
        .end(call.request.attempt.call_id, Outcome::Completed)
        .await;
    down_to(url, WHOLE);
    let refused = migrations::down(url).unwrap_err().to_string();
    assert!(refused.contains("discard call records"), "{refused}");

    let told = format!("{url}&options=-c%20callq.discard_call_records%3Don");
    assert_eq!(migrations::down(&told), Ok(ENGINE.into()));
}

#[test]
fn a_migration_that_fails_leaves_the_schema_as_it_was() {
    let database = TestDatabase::empty();
    let url = database.url();
    let mut connection = connect(url).unwrap();
    // In the way of the last migration only.
    connection
        .batch_execute("CREATE TABLE idempotency_keys ()")
        .unwrap();

    let failed = migrations::up(url).unwrap_err();

    assert!(matches!(failed, MigrationError::Failed(_)), "{failed}");
    assert_eq!(names(migrations::status(url).unwrap()), all(0));
    connection
        .batch_execute("DROP TABLE idempotency_keys")
        .unwrap();
    assert_eq!(
        migrations::up(url).map(|applied| applied.len()),
        Ok(ALL.len())
    );
}

#[test]
fn a_migration_that_landed_after_later_ones_is_applied_behind_them() {
    let database = TestDatabase::empty();
    migrations::up(database.url()).unwrap();
    let mut connection = connect(database.url()).unwrap();
    let functions = "SELECT pg_get_functiondef(oid) FROM pg_proc \
        WHERE pronamespace = current_schema()::regnamespace AND prokind = 'f' ORDER BY 1";
    let before = texts(&mut connection, functions);
    // A database that got the later ones first.
    let down = include_str!("../../../../migrations/2026-11-26-000002_change_campaigns/down.sql");
    connection.batch_execute(down).unwrap();
    connection
        .batch_execute("DELETE FROM __diesel_schema_migrations WHERE version = '20261126000002'")
        .unwrap();

    let applied = migrations::up(database.url()).unwrap();

    assert_eq!(applied, [CHANGE]);
    assert_eq!(texts(&mut connection, functions), before);
    assert_eq!(migrations::check_current(database.url()), Ok(()));
    down_to(database.url(), LISTS);
    let taken_back = ALL.iter().skip_while(|name| **name != LISTS).count();
    assert_eq!(migrations::up(database.url()).unwrap().len(), taken_back);
}

#[test]
fn servers_that_start_together_migrate_once() {
    let database = old_deployment();
    let url = database.url();
    let together = Barrier::new(4);

    let applied: Vec<usize> = std::thread::scope(|scope| {
        let servers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    migrations::up(url).unwrap().len()
                })
            })
            .collect();
        let servers = servers.into_iter();
        servers.map(|server| server.join().unwrap()).collect()
    });

    assert_eq!(applied.iter().sum::<usize>(), ALL.len() - 1, "{applied:?}");
    assert_eq!(migrations::check_current(url), Ok(()));
}

#[tokio::test]
async fn the_schema_refuses_a_call_whose_type_and_campaign_disagree() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let campaign = scene.draft(user, 1).await;
    let insert = |call_type: &str, campaign: &str, number: &str| {
        scene.connection().batch_execute(&format!(
            "INSERT INTO call_queue (user_id, agent_id, campaign_id, call_type, phone_number, due_at, due_since) \
             VALUES ('{user}', '{agent}', {campaign}, '{call_type}', '{number}', now(), now())"
        ))
    };
    let quoted = format!("'{campaign}'");

    for (call_type, campaign, number, constraint) in [
        (
            "direct",
            quoted.as_str(),
            "+14155552671",
            "call_queue_campaign_matches_type",
        ),
        (
            "campaign",
            "NULL",
            "+14155552671",
            "call_queue_campaign_matches_type",
        ),
        (
            "direct",
            "NULL",
            "4155552671",
            "call_queue_phone_number_is_e164",
        ),
    ] {
        let Err(DieselError::DatabaseError(_, refusal)) = insert(call_type, campaign, number)
        else {
            panic!("{constraint} let it pass");
        };
        assert_eq!(refusal.constraint_name(), Some(constraint));
    }

    scene.sql("DELETE FROM call_queue");
    insert("direct", "NULL", "+14155552671").unwrap();
    insert("campaign", &quoted, "+14155552671").unwrap();
    let priorities = "SELECT call_type || ' ' || priority FROM call_queue ORDER BY call_type";
    assert_eq!(
        texts(&mut scene.connection(), priorities),
        ["direct 100", "campaign 0"]
    );
}

#[tokio::test]
async fn a_priority_that_is_named_is_kept() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;

    scene.sql(&format!(
        "INSERT INTO call_queue (user_id, agent_id, call_type, priority, phone_number, due_at, due_since) \
         VALUES ('{user}', '{agent}', 'direct', 7, '+14155552671', now(), now())"
    ));

    assert_eq!(scene.count("SELECT priority FROM call_queue"), 7);
}

#[tokio::test]
async fn history_that_came_before_its_partition_is_moved_into_it() {
    let scene = Scene::new().await;
    let partitions =
        "SELECT relname FROM pg_class WHERE relname ~ '^call_queue_history_2[0-9_]{6}$' ORDER BY 1";
    let mut connection = scene.connection();
    let before = texts(&mut connection, partitions);
    assert_eq!(before.len(), 3);
    let last = &before[2];
    scene.sql(&format!(
        "DROP TABLE {last}; INSERT INTO call_queue_history (finished_at, id, user_id, agent_id, \
             call_type, priority, position, status, phone_number, due_at, due_since, queued_at, attempts, was_call) \
         SELECT date_trunc('month', now()) + interval '2 months 3 days', uuid_v7(), uuid_v7(), uuid_v7(), \
             'direct', 100, n, 'cancelled', '+14155552671', now(), now(), now(), 0, false \
         FROM generate_series(1, 5) n"
    ));
    assert_eq!(
        count(
            &mut connection,
            "SELECT count(*) FROM call_queue_history_default"
        ),
        5
    );

    scene.store.maintain().await.unwrap();

    assert_eq!(texts(&mut connection, partitions), before);
    assert_eq!(
        count(
            &mut connection,
            "SELECT count(*) FROM call_queue_history_default"
        ),
        0
    );
    assert_eq!(
        count(&mut connection, &format!("SELECT count(*) FROM {last}")),
        5
    );
}
