//! PostgreSQL gone and back: crashed, restarted, its backends killed under the engine.

use std::time::{Duration, Instant};

use callq_testing::OwnCluster;
use diesel::connection::SimpleConnection;
use serde_json::json;

use super::storm::{Storm, TALK};
use crate::harness::{PATIENCE, World, number};

const LIMIT: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_or_is_restarted_costs_503s_and_nothing_else() {
    let cluster = OwnCluster::start(&[]);
    let world = World::on(cluster.url(), 10);
    world.dialer.auto_end_after(TALK);
    let server = world.serve();
    let (ada, eve) = (
        world.user(&server, "ada", 6).await,
        world.user(&server, "eve", 6).await,
    );
    ada.campaign(20).await;
    let storm = Storm::of(&[&ada, &eve]);
    storm.until_accepted(20).await;

    type Way = fn(&OwnCluster);
    let ways: [(&str, Way); 2] = [
        ("crashed", OwnCluster::crash),
        ("stopped", OwnCluster::stop),
    ];
    for (how, stop) in ways {
        stop(&cluster);
        let refused = storm.until_refused(4).await;
        let unready = server.until_ready(false).await;
        assert_eq!(server.open_page("/healthz").await, 200);

        cluster.start_again();
        let back = Instant::now();
        storm.until_accepted(1).await;
        let well = back.elapsed();
        server.until_ready(true).await;
        println!(
            "{how}: four refused after {refused:?}, not ready {unready:?} later, well again {well:?} after the database"
        );
        storm.until_accepted(20).await;
    }

    storm.end(&world, &server, LIMIT).await;
    assert_eq!(
        world.count("SELECT count(*) FROM call_records WHERE campaign_id IS NOT NULL AND status = 'completed'"),
        20
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_asked_to_stop_while_the_database_is_away_stops_in_time_and_loses_nothing() {
    let cluster = OwnCluster::start(&[]);
    let world = World::on(cluster.url(), 10).with("SHUTDOWN_GRACE_SECONDS", "2");
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    assert_eq!(ada.call(1).await.status, 200);
    assert_eq!(ada.call(2).await.status, 202);

    cluster.crash();
    let asked = Instant::now();
    let stopped = tokio::task::spawn_blocking(move || server.terminate());
    let (status, log) = stopped.await.expect("no panic");
    println!("stopped after {:?}", asked.elapsed());
    assert!(status.success(), "{status}: {log}");
    assert!(asked.elapsed() < Duration::from_secs(20), "{log}");
    cluster.start_again();
    let server = world.serve();

    let first = world.dialer.dials()[0].clone();
    let event = json!({"event_id": "e", "call_id": first.call_id, "execution_id": first.execution_id,
        "status": "completed", "occurred_at": chrono::Utc::now().to_rfc3339()});
    assert_eq!(world.signed_event(&server, event).await, 200);
    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    assert_eq!(dials[1].to, number(2));
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_killed_again_and_again_in_the_middle_of_settlements_lose_and_double_nothing() {
    let cluster = OwnCluster::start(&[]);
    let world = World::on(cluster.url(), 10);
    world.dialer.auto_end_after(TALK);
    let server = world.serve();
    let (ada, eve) = (
        world.user(&server, "ada", 6).await,
        world.user(&server, "eve", 6).await,
    );
    let storm = Storm::of(&[&ada, &eve]);
    storm.until_accepted(10).await;
    let mut conn = cluster.connect();

    let rounds = if std::env::var_os("CALLQ_LONG_TESTS").is_some() {
        300
    } else {
        30
    };
    for _ in 0..rounds {
        conn.batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .expect("killed");
        storm.until_accepted(2).await;
    }

    storm.end(&world, &server, LIMIT).await;
}
