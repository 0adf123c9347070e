//! Kill -9 and come back, stop in good order, and share the work between servers.

use callq_testing::{Behaviour, Deed};
use serde_json::json;

use crate::harness::{PATIENCE, World, number};

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_everything_accepted_is_still_there_and_goes_on() {
    let world = World::new(10).with("PROVIDER_TIMEOUT_MS", "1000");
    let server = world.serve();
    let ada = world.user(&server, "ada", 2).await;
    for n in 1..=5 {
        ada.call(n).await;
    }
    world.dialer.next(Behaviour::AcceptThenMute);
    let eve = world.user(&server, "eve", 1).await;
    let lost = tokio::spawn({
        let eve = eve.clone();
        // The server dies while this call is being placed.
        async move { eve.call(9).await.status }
    });
    let _ = world.dialer.wait_for_dials(3, PATIENCE);

    server.kill();
    lost.abort();
    let server = world.serve();
    let ada = ada.at(&server);

    let status = ada.get("/api/calls/queue/status").await;
    assert_eq!(status.body["direct_calls"]["queued"], json!(3));
    assert_eq!(status.body["limits"]["user"]["active"], json!(2));
    // The callback addresses of calls placed before are the old server's; a PUBLIC_URL stays.
    for call in world.dialer.dials().iter().take(2) {
        let event = json!({"event_id": call.call_id, "call_id": call.call_id, "execution_id": call.execution_id,
            "status": "completed", "occurred_at": chrono::Utc::now().to_rfc3339()});
        assert_eq!(world.signed_event(&server, event).await, 200);
    }
    let dials = world.dialer.wait_for_dials(5, PATIENCE);
    assert_eq!([&dials[3].to, &dials[4].to], [&number(3), &number(4)]);
    // The one in doubt was looked up and adopted, not dialled again.
    world
        .until_count(
            "SELECT count(*) FROM active_calls WHERE execution_id IS NULL",
            0,
        )
        .await;
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 5);
    assert!(
        world
            .dialer
            .ledger()
            .dials_per_attempt()
            .values()
            .all(|dials| *dials == 1)
    );
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_placement_in_flight_finish_and_exits_0() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 2).await;
    world
        .dialer
        .next(Behaviour::SlowAccept(std::time::Duration::from_millis(800)));
    let in_flight = tokio::spawn({
        let ada = ada.clone();
        async move { ada.call(1).await }
    });
    let _ = world.dialer.wait_for_dials(1, PATIENCE);

    let (status, log) = tokio::task::spawn_blocking(move || server.terminate())
        .await
        .expect("no panic");
    let answer = in_flight.await.expect("no panic");

    assert!(status.success(), "{status}: {log}");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        world.count("SELECT active FROM system_state"),
        1,
        "calls in progress are left alone"
    );
    assert_eq!(
        world.count("SELECT count(*) FROM servers WHERE lease_until > clock_timestamp()"),
        0,
        "its lease is over"
    );
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_the_limits_and_hand_each_other_the_next_call() {
    let world = World::new(3);
    let (one, two) = (world.serve(), world.serve());
    let ada = world.user(&one, "ada", 2).await;

    let asked: Vec<_> = (0..40)
        .map(|n| {
            let ada = ada.at(if n % 2 == 0 { &one } else { &two });
            tokio::spawn(async move { ada.call(n).await.status })
        })
        .collect();
    let mut started = 0;
    for status in asked {
        started += usize::from(status.await.expect("no panic") == 200);
    }
    assert_eq!(started, 2);
    for done in 0..40 {
        let dials = world.dialer.wait_for_dials(done + 1, PATIENCE);
        assert_eq!(
            world.dialer.end(dials[done].call_id).expect("delivered"),
            200
        );
    }

    let ledger = world.dialer.ledger();
    assert_eq!((ledger.count(Deed::Dial), ledger.max_overlap()), (40, 2));
    assert!(ledger.dials_per_attempt().values().all(|dials| *dials == 1));
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sleeps_through_its_lease_dials_nothing_more_and_serves_again() {
    let world = World::new(3).with("PROVIDER_TIMEOUT_MS", "1000");
    let (one, two) = (world.serve(), world.serve());
    let ada = world.user(&one, "ada", 1).await;
    assert_eq!(ada.call(1).await.status, 200);
    assert_eq!(ada.call(2).await.status, 202);
    let event = |nth: usize| {
        let call = &world.dialer.dials()[nth];
        json!({"event_id": call.call_id, "call_id": call.call_id, "execution_id": call.execution_id,
            "status": "completed", "occurred_at": chrono::Utc::now().to_rfc3339()})
    };

    one.signal("STOP");
    assert_eq!(world.signed_event(&two, event(0)).await, 200);
    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    // The other server took over what was left of it.
    world.until_count("SELECT count(*) FROM servers", 1).await;
    one.signal("CONT");

    assert!(dials[1].status_callback.starts_with(&two.address));
    // It proves its life anew, admits, and is the one that hands on and dials.
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut waits = ada.call(3).await;
    while waits.status == 503 && std::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        waits = ada.call(3).await;
    }
    assert_eq!(waits.status, 202, "{waits:?}");
    assert_eq!(world.signed_event(&one, event(1)).await, 200);
    let dials = world.dialer.wait_for_dials(3, PATIENCE);
    assert!(dials[2].status_callback.starts_with(&one.address));
    let ledger = world.dialer.ledger();
    assert_eq!(ledger.count(Deed::Dial), 3);
    assert_eq!(world.audit(), "every counter equals its rows");
}
