//! PostgreSQL there, and not doing what it is asked: no connection to spare, read-only, locked.

use std::time::Instant;

use callq_testing::OwnCluster;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};

use super::storm::{Storm, TALK};
use crate::harness::{PATIENCE, Server, User, World};

const LIMIT: usize = 10;

async fn two_users(world: &World, server: &Server) -> (User, User) {
    (
        world.user(server, "ada", 6).await,
        world.user(server, "eve", 6).await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_connections_others_hold_is_waited_for() {
    let cluster = OwnCluster::start(&[("max_connections", "12")]);
    let world = World::on(cluster.url(), 10).with("DATABASE_POOL_SIZE", "6");
    world.dialer.auto_end_after(TALK);
    let server = world.serve();
    let (ada, eve) = two_users(&world, &server).await;
    let storm = Storm::of(&[&ada, &eve]);
    storm.until_accepted(10).await;

    let hogs = take_every_connection(&cluster);
    let refused = storm.until_refused(4).await;
    let unready = server.until_ready(false).await;
    drop(hogs);
    let free = Instant::now();
    storm.until_accepted(1).await;
    println!(
        "four refused after {refused:?}, not ready {unready:?} later, well again {:?} after connections were free",
        free.elapsed()
    );
    server.until_ready(true).await;
    storm.until_accepted(20).await;

    storm.end(&world, &server, LIMIT).await;
}

/// Every connection there is, callq's own among them.
fn take_every_connection(cluster: &OwnCluster) -> Vec<PgConnection> {
    let mut hogs = vec![cluster.connect()];
    let deadline = Instant::now() + PATIENCE;
    loop {
        // What callq's pools still hold is ended, and taken before they can have it back.
        hogs[0]
            .batch_execute(
                "SET application_name = 'hog'; \
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND application_name <> 'hog'",
            )
            .expect("ended");
        while let Ok(mut hog) = PgConnection::establish(cluster.url()) {
            if hog.batch_execute("SET application_name = 'hog'").is_ok() {
                hogs.push(hog);
            }
        }
        if hogs.len() == 12 {
            return hogs;
        }
        assert!(Instant::now() < deadline, "only {} are ours", hogs.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_accepts_nothing_and_is_read_all_the_same() {
    let cluster = OwnCluster::start(&[]);
    let world = World::on(cluster.url(), 10);
    world.dialer.auto_end_after(TALK);
    let server = world.serve();
    let (ada, eve) = two_users(&world, &server).await;
    let storm = Storm::of(&[&ada, &eve]);
    storm.until_accepted(10).await;

    let mut operator = cluster.connect();
    operator
        .batch_execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .and_then(|()| operator.batch_execute("SELECT pg_reload_conf()"))
        .expect("read-only");
    let refused = storm.until_refused(4).await;
    let unready = server.until_ready(false).await;
    assert_eq!(ada.get("/api/calls").await.status, 200, "reading goes on");
    operator
        .batch_execute("SET default_transaction_read_only = off")
        .and_then(|()| operator.batch_execute("ALTER SYSTEM RESET default_transaction_read_only"))
        .and_then(|()| operator.batch_execute("SELECT pg_reload_conf()"))
        .expect("writable");
    let writable = Instant::now();
    storm.until_accepted(1).await;
    println!(
        "four refused after {refused:?}, not ready {unready:?} later, well again {:?} after it was writable",
        writable.elapsed()
    );
    server.until_ready(true).await;
    storm.until_accepted(20).await;

    storm.end(&world, &server, LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_an_operator_forgets_on_the_engine_bounds_every_wait() {
    let cluster = OwnCluster::start(&[]);
    let world = World::on(cluster.url(), 10);
    world.dialer.auto_end_after(TALK);
    let server = world.serve();
    let (ada, eve) = two_users(&world, &server).await;
    let storm = Storm::of(&[&ada, &eve]);
    storm.until_accepted(10).await;

    let mut operator = cluster.connect();
    operator
        .batch_execute("BEGIN; SELECT * FROM system_state FOR UPDATE")
        .expect("locked");
    let refused = storm.until_refused(6).await;
    let unready = server.until_ready(false).await;
    assert_eq!(server.open_page("/healthz").await, 200);
    operator.batch_execute("ROLLBACK").expect("free again");
    let free = Instant::now();
    storm.until_accepted(1).await;
    println!(
        "six refused after {refused:?}, not ready {unready:?} later, well again {:?} after the lock",
        free.elapsed()
    );
    server.until_ready(true).await;
    storm.until_accepted(20).await;

    storm.end(&world, &server, LIMIT).await;
}
