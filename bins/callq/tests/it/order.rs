//! Whose turn it is: direct before campaign, turns between users, limits changed on the way.

use callq_testing::Deed;
use serde_json::json;

use crate::harness::{PATIENCE, World, number};

#[tokio::test(flavor = "multi_thread")]
async fn direct_calls_go_before_campaign_calls_that_came_first() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    assert_eq!(ada.call(1).await.status, 200);
    ada.campaign(5).await;
    for n in [2, 3] {
        let answer = ada.call(n).await;
        assert_eq!(
            (answer.status, &answer.body["queue"]["position"]),
            (202, &json!(n - 1))
        );
    }
    let status = ada.get("/api/calls/queue/status").await;
    assert_eq!(
        status.body["campaign_calls"],
        json!({"queued": 5, "processing": 0, "total": 5})
    );

    for done in 0..8 {
        let dials = world.dialer.wait_for_dials(done + 1, PATIENCE);
        world.dialer.end(dials[done].call_id).expect("delivered");
    }

    let kinds: Vec<_> = world
        .dialer
        .dials()
        .iter()
        .map(|dial| dial.call_type.clone())
        .collect();
    assert_eq!(kinds[..3], ["direct", "direct", "direct"]);
    assert_eq!(kinds[3..], ["campaign"; 5]);
    assert_eq!(world.dialer.ledger().max_overlap(), 1);
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_slot_a_direct_call_passes_anothers_campaign_and_turns_alternate() {
    let world = World::new(1);
    let server = world.serve();
    let ada = world.user(&server, "ada", 5).await;
    let eve = world.user(&server, "eve", 5).await;
    assert_eq!(ada.call(1).await.status, 200);
    ada.campaign(3).await;
    for n in 0..3 {
        assert_eq!(ada.call(10 + n).await.status, 202);
        assert_eq!(eve.call(20 + n).await.status, 202);
    }

    for done in 0..10 {
        let dials = world.dialer.wait_for_dials(done + 1, PATIENCE);
        world.dialer.end(dials[done].call_id).expect("delivered");
    }

    let order: Vec<_> = world
        .dialer
        .dials()
        .iter()
        .map(|dial| dial.to.clone())
        .collect();
    let expected: Vec<_> = [1, 20, 10, 21, 11, 22, 12, 5_000, 5_001, 5_002]
        .map(number)
        .to_vec();
    assert_eq!(order, expected);
    assert_eq!(world.dialer.ledger().max_overlap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_limit_starts_waiting_calls_at_once_and_a_lowered_one_ends_none() {
    let world = World::new(1);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let admin = world.admin(&ada);
    for n in 1..=4 {
        ada.call(n).await;
    }
    let patch = reqwest::Method::PATCH;
    let limit = |n: u32| Some(json!({"concurrent_calls_limit": n}).to_string());
    let user_path = format!("/api/admin/users/{}", ada.id);

    assert_eq!(
        ada.send(patch.clone(), &user_path, limit(3), &[])
            .await
            .status,
        403
    );
    assert_eq!(
        admin
            .send(patch.clone(), &user_path, limit(3), &[])
            .await
            .status,
        200
    );
    assert_eq!(
        world.dialer.ledger().count(Deed::Dial),
        1,
        "the system has one slot"
    );
    let raised = admin
        .send(patch.clone(), "/api/admin/system", limit(10), &[])
        .await;
    assert_eq!(raised.status, 200, "{raised:?}");
    let dials = world.dialer.wait_for_dials(3, PATIENCE);
    assert_eq!(
        admin.send(patch, &user_path, limit(1), &[]).await.status,
        200
    );

    assert_eq!(world.count("SELECT active FROM system_state"), 3);
    for dial in &dials[..2] {
        world.dialer.end(dial.call_id).expect("delivered");
    }
    assert_eq!(
        world.dialer.ledger().count(Deed::Dial),
        3,
        "still at the lowered limit"
    );
    world.dialer.end(dials[2].call_id).expect("delivered");
    let _ = world.dialer.wait_for_dials(4, PATIENCE);
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_campaign_and_a_paused_system_start_nothing_until_resumed() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let admin = world.admin(&ada);
    let campaign = ada.campaign(3).await;
    let dials = world.dialer.wait_for_dials(1, PATIENCE);

    let path = |what: &str| format!("/api/campaigns/{campaign}/{what}");
    assert_eq!(ada.post(&path("pause"), json!({})).await.status, 200);
    world.dialer.end(dials[0].call_id).expect("delivered");
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 1);
    assert_eq!(
        admin
            .post("/api/admin/dispatch/pause", json!({}))
            .await
            .status,
        200
    );
    assert_eq!(ada.post(&path("resume"), json!({})).await.status, 200);
    let held = ada.call(1).await;
    assert_eq!(
        (held.status, &held.body["reason"]),
        (202, &json!("Dispatch is paused by an operator"))
    );
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 1);
    assert_eq!(
        admin
            .post("/api/admin/dispatch/resume", json!({}))
            .await
            .status,
        200
    );

    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    assert_eq!(dials[1].call_type, "direct");
    for done in 1..4 {
        let dials = world.dialer.wait_for_dials(done + 1, PATIENCE);
        world.dialer.end(dials[done].call_id).expect("delivered");
    }
    let statistics = ada.get(&path("statistics")).await;
    assert_eq!(statistics.body["completed"], json!(3), "{statistics:?}");
    let campaign = ada.get(&format!("/api/campaigns/{campaign}")).await;
    assert_eq!(campaign.body["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_call_starts_at_its_time_and_an_expired_one_never() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let soon = chrono::Utc::now() + chrono::Duration::seconds(1);
    let scheduled = ada
        .call_with(1, json!({"scheduled_for": soon.to_rfc3339()}))
        .await;
    assert_eq!(scheduled.status, 202, "{scheduled:?}");

    let dials = world.dialer.wait_for_dials(1, PATIENCE);
    assert!(
        chrono::DateTime::<chrono::Utc>::from(dials[0].wall)
            >= soon - chrono::Duration::milliseconds(50)
    );
    let expiring = ada.call_with(2, json!({"expires_in": 1})).await;
    assert_eq!(expiring.status, 202, "{expiring:?}");
    assert!(expiring.body["queue"]["expires_at"].is_string());
    world
        .until_count(
            "SELECT count(*) FROM call_queue_history WHERE status = 'expired'",
            1,
        )
        .await;

    world.dialer.end(dials[0].call_id).expect("delivered");
    assert_eq!(ada.call(3).await.status, 200);
    assert!(world.dialer.dials().iter().all(|dial| dial.to != number(2)));
    let path = expiring.body["queue"]["status_url"]
        .as_str()
        .expect("a path")
        .to_owned();
    assert_eq!(ada.get(&path).await.body["status"], "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_opens_and_closes_by_itself() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let in_seconds = |seconds: i64| chrono::Utc::now() + chrono::Duration::seconds(seconds);
    let (opens, closes) = (in_seconds(3), in_seconds(6));
    let time = |at: chrono::DateTime<chrono::Utc>| at.format("%H:%M:%S").to_string();
    let id = ada.campaign_from(3, &time(opens), &time(closes)).await;
    let path = format!("/api/campaigns/{id}");
    assert_eq!(ada.get(&path).await.body["status"], "scheduled");

    let dials = world.dialer.wait_for_dials(1, PATIENCE);
    let opened = chrono::DateTime::<chrono::Utc>::from(dials[0].wall);
    assert!(
        opened.timestamp() >= opens.timestamp(),
        "{opened} is before {opens}"
    );
    assert_eq!(ada.get(&path).await.body["status"], "active");

    world
        .until_count("SELECT count(*) FROM campaign_slots WHERE open", 0)
        .await;
    assert!(chrono::Utc::now().timestamp() >= closes.timestamp());
    world.dialer.end(dials[0].call_id).expect("delivered");
    let campaign = ada.get(&path).await.body;
    assert_eq!(campaign["hours"]["open"], false);
    assert_eq!(campaign["progress"]["queued"], 2);
    // A direct call goes, at once, and no campaign call before it.
    assert_eq!(ada.call(1).await.status, 200);
    assert_eq!(world.dialer.dials().len(), 2);
}
