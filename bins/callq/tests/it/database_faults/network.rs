//! A slow way to the database, one on which nothing comes back, and one that is cut.

use std::time::{Duration, Instant};

use callq_testing::{Deed, Link, OwnCluster};

use super::storm::{BOUND, Storm, TALK};
use crate::harness::{PATIENCE, User, World};

const LIMIT: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_way_to_the_database_makes_everything_slow_and_nothing_wrong() {
    let cluster = OwnCluster::start(&[]);
    let link = Link::to(cluster.url());
    let mut world = World::on(cluster.url(), 10);
    world.settings.insert("DATABASE_URL", link.url().to_owned());
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;

    // 400 ms for each exchange with the database.
    link.delay(Duration::from_millis(200));
    let mut took = Vec::new();
    for (n, status) in [(1, 200), (2, 202), (3, 202)] {
        let asked = Instant::now();
        assert_eq!(ada.call(n).await.status, status);
        took.push(asked.elapsed());
    }
    let ready = server.open_page("/readyz").await;
    let ended = Instant::now();
    let first = world.dialer.dials()[0].call_id;
    assert_eq!(world.dialer.end(first).expect("delivered"), 200);
    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    println!(
        "calls answered after {took:?}, ready: {ready}, the next dialled {:?} after the end before it",
        dials[1].at.saturating_duration_since(ended)
    );
    assert!(took.iter().all(|took| *took < BOUND), "{took:?}");
    assert_eq!(ready, 200);

    link.delay(Duration::ZERO);
    for n in 1..3 {
        let dials = world.dialer.wait_for_dials(n + 1, PATIENCE);
        world.dialer.end(dials[n].call_id).expect("delivered");
    }
    world
        .until_count(
            "SELECT count(*) FROM call_records WHERE status = 'completed'",
            3,
        )
        .await;
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 3);
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_says_nothing_is_given_up_in_time_and_nothing_is_dialled_meanwhile() {
    let cluster = OwnCluster::start(&[]);
    let link = Link::to(cluster.url());
    // A lease of eleven seconds, so that it runs out while nothing is heard.
    let mut world = World::on(cluster.url(), 10).with("PROVIDER_TIMEOUT_MS", "1000");
    world.settings.insert("DATABASE_URL", link.url().to_owned());
    world.dialer.auto_end_after(TALK);
    let server = world.serve();
    let (ada, eve) = (
        world.user(&server, "ada", 6).await,
        world.user(&server, "eve", 6).await,
    );
    let storm = Storm::of(&[&ada, &eve]);
    storm.until_accepted(20).await;

    link.hold();
    let held = Instant::now();
    let refused = storm.until_refused(6).await;
    let unready = server.until_ready(false).await;
    let page = tokio::spawn({
        let ada = ada.clone();
        async move {
            let asked = Instant::now();
            let page = ada.get("/metrics").await;
            assert!(asked.elapsed() < BOUND, "{:?}", asked.elapsed());
            page.body.as_str().expect("a text").to_owned()
        }
    });
    // What was reserved when the silence began is being dialled; nothing is from then on.
    let dials = world.dialer.ledger().count(Deed::Dial);
    while !server.log().contains("alive=false") {
        assert!(held.elapsed() < PATIENCE, "the lease never ran out");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let over = held.elapsed();
    assert_eq!(server.open_page("/healthz").await, 200);
    let page = page.await.expect("no panic");
    for line in [
        "callq_up 0",
        "callq_engine_ready 0",
        "callq_lease_seconds_left ",
    ] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    storm.until_refused(6).await;
    assert_eq!(world.dialer.ledger().count(Deed::Dial), dials);
    link.release();
    let back = Instant::now();
    storm.until_accepted(1).await;
    println!(
        "silent: six refused after {refused:?}, not ready {unready:?} later, suspended after {over:?}, well again {:?} after the silence",
        back.elapsed()
    );
    server.until_ready(true).await;
    storm.until_accepted(20).await;

    for _ in 0..5 {
        link.cut();
        storm.until_accepted(5).await;
    }
    storm.end(&world, &server, LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_freeze_for_ever_are_left_alone_and_others_made() {
    let cluster = OwnCluster::start(&[]);
    let link = Link::to(cluster.url());
    let mut world = World::on(cluster.url(), 10);
    world.settings.insert("DATABASE_URL", link.url().to_owned());
    world.dialer.auto_end_after(TALK);
    let server = world.serve();
    let ada = world.user(&server, "ada", 6).await;
    let storm = Storm::of(&[&ada]);
    storm.until_accepted(10).await;
    let begun = Instant::now();
    while engine_connections(&ada).await < 3 {
        assert!(begun.elapsed() < PATIENCE, "the engine has three");
    }

    link.freeze_present();
    let frozen = Instant::now();
    storm.until_refused(1).await;
    storm.until_accepted(1).await;
    println!(
        "well again {:?} after every connection froze",
        frozen.elapsed()
    );
    server.until_ready(true).await;
    storm.until_accepted(10).await;

    storm.end(&world, &server, LIMIT).await;
}

/// How many connections the engine has, as its metrics say.
async fn engine_connections(user: &User) -> u32 {
    let page = user.get("/metrics").await;
    let page = page.body.as_str().expect("a text");
    page.lines()
        .filter_map(|line| line.strip_prefix("callq_database_connections{pool=\"engine\""))
        .filter_map(|line| line.split(' ').next_back()?.parse::<u32>().ok())
        .sum()
}
