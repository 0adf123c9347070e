//! With a synchronous standby: nothing is answered before it has it. There is none here: one that is
//! named and never comes is the longest wait there is.

use std::time::{Duration, Instant};

use callq_domain::{
    AccountStore, Admission, AgentId, DirectoryStore, EngineStore, OwnershipStore, ProviderName,
    ServerId, SlotBatch, Target,
};
use callq_embedded_postgres::{EmbeddedPostgres, Options};
use callq_persistence::{Database, PostgresStore, connect, migrations};
use diesel::PgConnection;
use diesel::connection::SimpleConnection;

use crate::scene::{agent_fields, count, direct_call, new_token, new_user, phone_number};

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until so many commits wait for a standby.
fn until_waiting(conn: &mut PgConnection, commits: i64) {
    let deadline = Instant::now() + PATIENCE;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while count(conn, waiting) < commits {
        assert!(Instant::now() < deadline, "nothing waits for the standby");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_is_answered_once_the_synchronous_standby_has_it_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = EmbeddedPostgres::start(Options {
        durable: false,
        settings: vec![
            ("synchronous_commit".into(), "on".into()),
            ("wal_level".into(), "replica".into()),
            ("max_wal_senders".into(), "2".into()),
        ],
        ..Options::new(folder.path())
    })
    .unwrap();
    let url = cluster.url().to_owned();
    migrations::up(&url).unwrap();
    let provider = ProviderName::new("simulator").unwrap();
    let store = PostgresStore::new(Database::new(&url, 4).unwrap(), provider);
    let (one, other) = (ServerId::new(), ServerId::new());
    for server in [one, other] {
        let lease = store.renew_lease(server, Duration::from_secs(600));
        lease.await.unwrap();
    }
    let user = new_user("ada@example.com");
    let token = new_token(user.id);
    let user = store.create_user(user, token).await.unwrap().id;
    let agent = AgentId::new();
    store
        .create_agent(agent, user, agent_fields("Ada"))
        .await
        .unwrap();
    let mut watcher = connect(&url).unwrap();
    watcher
        .batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        .unwrap();
    watcher.batch_execute("SELECT pg_reload_conf()").unwrap();
    let mut stranger = connect(&url).unwrap();
    let stranger = std::thread::spawn(move || {
        // The setting takes effect a moment later: until then these are done at once.
        for _ in 0..100_000 {
            stranger.batch_execute("SELECT pg_logical_emit_message(true, 'test', '')")?;
        }
        diesel::QueryResult::Ok(())
    });
    until_waiting(&mut watcher, 1);

    let number = phone_number(1).parse().unwrap();
    let batch = SlotBatch {
        admissions: vec![direct_call(user, agent, Target::Number(number))],
        ..SlotBatch::default()
    };
    let settling = {
        let store = store.clone();
        tokio::spawn(async move { store.settle(one, &batch).await })
    };
    until_waiting(&mut watcher, 2);

    // The other server sees it and may go on from it, and would wait as well.
    assert_eq!(count(&mut watcher, "SELECT count(*) FROM active_calls"), 1);
    assert!(!settling.is_finished());

    watcher
        .batch_execute("ALTER SYSTEM RESET synchronous_standby_names")
        .unwrap();
    watcher.batch_execute("SELECT pg_reload_conf()").unwrap();
    let settled = settling.await.unwrap().unwrap();
    assert!(matches!(settled.admissions[..], [Admission::Started(_)]));
    drop(cluster);
    // It was at it still, or done.
    let _ = stranger.join().unwrap();
}
