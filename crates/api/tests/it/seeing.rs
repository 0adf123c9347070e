//! Queue, calls and hanging up, as their owner and nobody else sees them.

use callq_domain::*;
use serde_json::{Value, json};

use crate::world::{World, call, waiting};

#[actix_web::test]
async fn the_queue_status_reads_as_the_contract_says() {
    let world = World::new();
    let item = waiting(world.ada.0);
    world.fake.state().items = vec![item.clone(), waiting(world.bob.0)];
    let status = world.get("/api/calls/queue/status").await.json();
    assert_eq!(
        status["direct_calls"],
        json!({"queued": 3, "processing": 2, "total": 5,
               "next_call": {"id": item.item.id.as_uuid(), "phone_number": "+14155552671",
                             "contact_name": "Grace", "position": 1,
                             "queued_at": item.item.queued_at}})
    );
    assert_eq!(
        status["campaign_calls"],
        json!({"queued": 5, "processing": 0, "total": 5})
    );
    assert_eq!(
        status["limits"]["user"],
        json!({"limit": 2, "active": 2, "available": 0})
    );
    assert_eq!(
        status["limits"]["system"],
        json!({"limit": 10, "active": 4, "available": 6})
    );
    let concurrency = world.get("/api/settings/concurrency").await.json();
    assert_eq!(concurrency["user"], status["limits"]["user"]);
}

#[actix_web::test]
async fn nothing_waiting_means_no_next_call() {
    let status = World::new().get("/api/calls/queue/status").await.json();
    assert_eq!(status["direct_calls"]["next_call"], Value::Null);
}

#[actix_web::test]
async fn one_item_shows_its_place_and_another_users_is_404() {
    let world = World::new();
    let item = waiting(world.ada.0);
    world.fake.state().items = vec![item.clone()];
    let path = format!("/api/queue/{}", item.item.id);
    let shown = world.get(&path).await.json();
    assert_eq!(shown["status"], "queued");
    assert_eq!(shown["position"], 1);
    assert_eq!(shown["estimated_wait"], 1);
    assert_eq!(
        shown["waiting_reason"],
        "User has reached concurrency limit (2/2 active calls)"
    );
    assert_eq!(
        (&shown["attempts"], &shown["call_id"]),
        (&json!(0), &Value::Null)
    );
    for method in ["GET", "DELETE"] {
        world
            .ask(&world.bob.1, method, &path, None)
            .await
            .problem(404);
    }
    assert_eq!(world.get(&path).await.json()["status"], "queued");
}

#[actix_web::test]
async fn a_waiting_item_is_cancelled_once_and_a_started_one_is_409_with_its_status() {
    let world = World::new();
    let (item, mut started) = (waiting(world.ada.0), waiting(world.ada.0));
    started.item.status = ItemStatus::Processing;
    world.fake.state().items = vec![item.clone(), started.clone()];
    let delete = |id: QueueItemId| {
        let (world, path) = (&world, format!("/api/queue/{id}"));
        async move { world.ask(&world.ada.1, "DELETE", &path, None).await }
    };
    let cancelled = delete(item.item.id).await;
    assert_eq!(
        (cancelled.status, &cancelled.json()["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(world.fake.state().wakes, 1);
    let again = delete(item.item.id).await;
    assert_eq!(again.problem(409)["current_status"], "cancelled");
    let late = delete(started.item.id).await;
    assert_eq!(late.problem(409)["current_status"], "processing");
}

#[actix_web::test]
async fn pages_follow_their_cursor_to_the_end() {
    let world = World::new();
    world.fake.state().items = (0..5).map(|_| waiting(world.ada.0)).collect();
    let (mut path, mut seen) = ("/api/queue?limit=2".to_owned(), 0);
    loop {
        let page = world.get(&path).await.json();
        seen += page["items"].as_array().expect("items").len();
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/queue?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, 5);
}

#[actix_web::test]
async fn a_bad_page_or_filter_is_400_and_named() {
    let world = World::new();
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("cursor=forged", "cursor"),
        ("status=lost", "status"),
        ("call_type=other", "call_type"),
        ("campaign_id=7", "campaign_id"),
    ] {
        let answered = world.get(&format!("/api/queue?{query}")).await;
        assert_eq!(answered.problem(400)["field"], field);
    }
}

#[actix_web::test]
async fn filters_reach_the_store() {
    let world = World::new();
    let mut done = waiting(world.ada.0);
    done.item.status = ItemStatus::Completed;
    world.fake.state().items = vec![waiting(world.ada.0), done, waiting(world.bob.0)];
    let count = |path: &str| {
        let (world, path) = (&world, path.to_owned());
        async move {
            world.get(&path).await.json()["items"]
                .as_array()
                .map(Vec::len)
        }
    };
    assert_eq!(count("/api/queue").await, Some(2));
    assert_eq!(count("/api/queue?status=completed").await, Some(1));
    assert_eq!(count("/api/queue?call_type=campaign").await, Some(0));
}

#[actix_web::test]
async fn statistics_give_counts_waits_and_rates() {
    let statistics = World::new().get("/api/queue/statistics").await.json();
    assert_eq!(
        statistics,
        json!({"counts": [{"call_type": "direct", "status": "completed", "count": 7}],
               "wait_seconds": {"p50": 1.0, "p90": 2.0, "p99": 3.0},
               "started_per_minute": 0.5, "finished_per_minute": 0.25})
    );
}

#[actix_web::test]
async fn a_call_shows_every_status_change_to_its_owner_alone() {
    let world = World::new();
    let call = call(world.ada.0, CallStatus::InProgress);
    world.fake.state().calls = vec![call.clone()];
    let path = format!("/api/calls/{}", call.id);
    let shown = world.get(&path).await.json();
    assert_eq!(shown["status"], "in-progress");
    assert_eq!(shown["execution_id"], "x-1");
    assert_eq!(shown["history"][0]["status"], "reserved");
    assert!(shown["history"][0]["at"].is_string());
    let listed = world.get("/api/calls").await.json();
    assert_eq!(listed["items"][0]["id"], json!(call.id.as_uuid()));
    world
        .ask(&world.bob.1, "GET", &path, None)
        .await
        .problem(404);
    let bobs = world
        .ask(&world.bob.1, "GET", "/api/calls", None)
        .await
        .json();
    assert_eq!(bobs["items"], json!([]));
}

#[actix_web::test]
async fn hanging_up_asks_the_provider_and_frees_nothing_itself() {
    let world = World::new();
    let call = call(world.ada.0, CallStatus::InProgress);
    world.fake.state().calls = vec![call.clone()];
    let path = format!("/api/calls/{}/hangup", call.id);
    let answered = world.ask(&world.ada.1, "POST", &path, None).await;
    assert_eq!(answered.status, 202);
    assert_eq!(answered.json()["status"], "in-progress");
    assert_eq!(world.fake.state().hung_up[0].as_str(), "x-1");
    world
        .ask(&world.bob.1, "POST", &path, None)
        .await
        .problem(404);
    assert_eq!(world.fake.state().hung_up.len(), 1);
}

#[actix_web::test]
async fn a_call_that_is_not_up_cannot_be_hung_up() {
    let world = World::new();
    for status in [
        CallStatus::Reserved,
        CallStatus::Unknown,
        CallStatus::Ended(Outcome::Completed),
    ] {
        let call = call(world.ada.0, status);
        world.fake.state().calls = vec![call.clone()];
        let path = format!("/api/calls/{}/hangup", call.id);
        let answered = world.ask(&world.ada.1, "POST", &path, None).await;
        assert_eq!(answered.problem(409)["current_status"], status.as_str());
    }
    assert!(world.fake.state().hung_up.is_empty());
}

#[actix_web::test]
async fn a_provider_that_does_not_agree_is_told_apart() {
    let world = World::new();
    let call = call(world.ada.0, CallStatus::InProgress);
    world.fake.state().calls = vec![call.clone()];
    let path = format!("/api/calls/{}/hangup", call.id);
    world.fake.state().hang_up = Some(HangUpError::NotFound);
    world
        .ask(&world.ada.1, "POST", &path, None)
        .await
        .problem(409);
    world.fake.state().hang_up = Some(HangUpError::Failed("dialer-3 is ill".into()));
    let failed = world.ask(&world.ada.1, "POST", &path, None).await;
    assert_eq!(failed.problem(502)["callId"], json!(call.id.as_uuid()));
    assert!(!failed.text.contains("dialer-3"));
}
