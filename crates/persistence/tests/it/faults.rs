//! The door to PostgreSQL when there is no connection to be had, when a caller gives up, and when the
//! database takes no changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use callq_domain::{OperatorStore, StoreError};
use callq_persistence::{Database, connect};
use callq_testing::TestDatabase;
use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use tokio::sync::oneshot;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_connection_is_told_in_time_and_its_work_never_begins() {
    let database = TestDatabase::new();
    let pool = Database::new(database.url(), 2).unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let (free, until_free) = oneshot::channel::<()>();
        let (began, begun) = oneshot::channel();
        let pool = pool.clone();
        let task = tokio::spawn(async move {
            // A transaction that may be idle for longer than most.
            pool.run_long_read(move |_| {
                let _ = began.send(());
                let _ = until_free.blocking_recv();
                Ok(())
            })
            .await
        });
        begun.await.unwrap();
        held.push((free, task));
    }
    let worked = Arc::new(AtomicU32::new(0));
    let asked = Instant::now();
    let waiting: Vec<_> = (0..300)
        .map(|_| {
            let (pool, worked) = (pool.clone(), worked.clone());
            tokio::spawn(async move {
                let work = move |_: &mut _| {
                    worked.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                };
                pool.run(work).await
            })
        })
        .collect();

    for one in waiting {
        let answer = one.await.unwrap();
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{answer:?}"
        );
    }

    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(pool.failures(), 300);
    for (free, task) in held {
        free.send(()).unwrap();
        task.await.unwrap().unwrap();
    }
    pool.run(|_| Ok(())).await.unwrap();
    assert_eq!(worked.load(Ordering::Relaxed), 0);
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_caller_has_given_up_on_is_not_committed() {
    let database = TestDatabase::new();
    let pool = Database::new(database.url(), 1).unwrap();
    let (began, begun) = oneshot::channel();
    let (free, until_free) = oneshot::channel::<()>();
    let writing = pool.run(move |conn| {
        conn.batch_execute("INSERT INTO users (email) VALUES ('late@example.com')")?;
        let _ = began.send(());
        let _ = until_free.blocking_recv();
        Ok(())
    });
    tokio::select! {
        done = writing => panic!("it waits: {done:?}"),
        begun = begun => begun.unwrap(),
    }

    // Its caller is gone; now it comes to its end.
    free.send(()).unwrap();
    pool.run(|_| Ok(())).await.unwrap();

    let mut conn = connect(database.url()).unwrap();
    let count: Count = sql_query("SELECT count(*) AS n FROM users")
        .get_result(&mut conn)
        .unwrap();
    assert_eq!(count.n, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_changes_is_not_ready() {
    let scene = Scene::new().await;
    scene.store.ready().await.unwrap();
    let name = scene.database.url().split(['/', '?']).nth(3).unwrap();
    let mut conn = connect(scene.database.url()).unwrap();
    conn.batch_execute(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on"
    ))
    .unwrap();

    // A setting of the database counts for connections made after it.
    let pool = Database::new(scene.database.url(), 1).unwrap();
    let provider = callq_domain::ProviderName::new("simulator").unwrap();
    let store = callq_persistence::PostgresStore::new(pool, provider);
    let ready = store.ready().await;

    assert!(
        matches!(ready, Err(StoreError::Unavailable(_))),
        "{ready:?}"
    );
}
