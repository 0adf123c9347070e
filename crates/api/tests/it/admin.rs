//! What operators see and change, and that nobody else does.

use callq_domain::*;
use serde_json::{Value, json};

use crate::world::{World, call};

#[actix_web::test]
async fn every_admin_route_is_403_for_a_user_and_changes_nothing() {
    let world = World::new();
    let user = format!("/api/admin/users/{}", world.bob.0);
    let call = format!("/api/admin/calls/{}", CallId::new());
    let settle = format!("{call}/settle");
    let limit = json!({"concurrent_calls_limit": 99});
    for (method, path, body) in [
        ("GET", "/api/admin/system", None),
        ("PUT", "/api/admin/system", Some(limit.clone())),
        ("PATCH", "/api/admin/system", Some(limit.clone())),
        ("GET", "/api/admin/providers", None),
        (
            "PUT",
            "/api/admin/providers/http",
            Some(json!({"calls_per_second": 1})),
        ),
        ("POST", "/api/admin/dispatch/pause", None),
        ("POST", "/api/admin/dispatch/resume", None),
        ("GET", "/api/admin/users", None),
        ("GET", user.as_str(), None),
        ("PATCH", user.as_str(), Some(limit)),
        ("GET", "/api/admin/calls/active", None),
        ("GET", "/api/admin/calls", None),
        ("GET", call.as_str(), None),
        ("POST", settle.as_str(), Some(json!({"outcome": "failed"}))),
        ("GET", "/api/admin/queue", None),
        ("GET", "/api/admin/do-not-call", None),
        ("GET", "/api/admin/do-not-call/%2B14155552671", None),
        ("DELETE", "/api/admin/do-not-call/%2B14155552671", None),
        ("POST", "/api/admin/do-not-call/upload-csv", None),
        (
            "POST",
            "/api/admin/do-not-call",
            Some(json!({"phone_numbers": ["+14155552671"]})),
        ),
    ] {
        world
            .ask(&world.ada.1, method, path, body)
            .await
            .problem(403);
    }
    let state = world.fake.state();
    assert_eq!(
        (state.system_limit, state.paused, state.wakes),
        (10, false, 0)
    );
    assert!(state.settled.is_empty() && state.do_not_call.is_empty());
}

#[actix_web::test]
async fn the_systems_limit_is_changed_by_put_and_patch_and_wakes_the_engine() {
    let world = World::new();
    let path = "/api/admin/system";
    for (method, limit) in [("PUT", 20), ("PATCH", 3)] {
        let body = json!({"concurrent_calls_limit": limit});
        let changed = world
            .ask(&world.admin.1, method, path, Some(body))
            .await
            .json();
        assert_eq!(changed["concurrent_calls_limit"], limit);
    }
    let now = world.ask(&world.admin.1, "GET", path, None).await.json();
    assert_eq!(
        now,
        json!({"concurrent_calls_limit": 3, "active": 4, "available": 0, "dispatch_paused": false})
    );
    assert_eq!(world.fake.state().wakes, 2);
    for bad in [json!(-1), json!(1_000_001), json!("ten"), Value::Null] {
        let body = json!({"concurrent_calls_limit": bad});
        let answered = world.ask(&world.admin.1, "PUT", path, Some(body)).await;
        assert_eq!(answered.problem(400)["field"], "concurrent_calls_limit");
    }
}

#[actix_web::test]
async fn a_providers_pace_is_set_shown_and_ended_and_wakes_the_engine() {
    let world = World::new();
    let path = "/api/admin/providers/twilio";
    let put = |pace: Value| {
        let body = json!({"calls_per_second": pace});
        world.ask(&world.admin.1, "PUT", path, Some(body))
    };
    let kept = json!({"provider": "twilio", "calls_per_second": 1.5});

    assert_eq!(put(json!(1.5)).await.json(), kept);

    let list = || world.ask(&world.admin.1, "GET", "/api/admin/providers", None);
    assert_eq!(list().await.json(), json!({"items": [kept]}));
    assert_eq!(
        put(Value::Null).await.json()["calls_per_second"],
        Value::Null
    );
    assert_eq!(list().await.json(), json!({"items": []}));
    assert_eq!(world.fake.state().wakes, 2);
    for bad in [json!(0), json!(1_001), json!("fast")] {
        assert_eq!(put(bad).await.problem(400)["field"], "calls_per_second");
    }
    let nothing = world
        .ask(&world.admin.1, "PUT", path, Some(json!({})))
        .await;
    assert_eq!(nothing.problem(400)["field"], "calls_per_second");
    let misnamed = "/api/admin/providers/No%20Name";
    let body = Some(json!({"calls_per_second": 1}));
    let misnamed = world.ask(&world.admin.1, "PUT", misnamed, body).await;
    assert_eq!(misnamed.problem(400)["field"], "provider");
    assert_eq!(world.fake.state().wakes, 2);
}

#[actix_web::test]
async fn the_pace_of_a_users_campaigns_is_set_and_ended() {
    let world = World::new();
    let path = format!("/api/admin/users/{}", world.ada.0.as_uuid());
    for (pace, shown) in [(json!(2.5), json!(2.5)), (Value::Null, Value::Null)] {
        let body = json!({"campaign_calls_per_second": pace});
        let changed = world.ask(&world.admin.1, "PATCH", &path, Some(body)).await;
        assert_eq!(changed.json()["campaign_calls_per_second"], shown);
    }
    let body = json!({"campaign_calls_per_second": -1});
    let refused = world.ask(&world.admin.1, "PATCH", &path, Some(body)).await;
    assert_eq!(refused.problem(400)["field"], "campaign_calls_per_second");
}

#[actix_web::test]
async fn dispatch_is_paused_and_resumed() {
    let world = World::new();
    for (action, paused) in [("pause", true), ("resume", false)] {
        let path = format!("/api/admin/dispatch/{action}");
        let answered = world.ask(&world.admin.1, "POST", &path, None).await;
        assert_eq!(answered.json()["dispatch_paused"], paused);
    }
    assert_eq!(world.fake.state().wakes, 2);
}

#[actix_web::test]
async fn a_user_is_changed_field_by_field() {
    let world = World::new();
    let path = format!("/api/admin/users/{}", world.ada.0);
    let patch = |body: Value| {
        let (world, path) = (&world, path.clone());
        async move { world.ask(&world.admin.1, "PATCH", &path, Some(body)).await }
    };
    let all = json!({"concurrent_calls_limit": 7, "direct_reserved_slots": 2, "weight": 3,
                     "credits": 5, "max_queued_direct_calls": 0,
                     "max_queued_campaign_calls": 100_000_000,
                     "max_calls_per_number_per_day": 3});
    let changed = patch(all.clone()).await.json();
    for (name, value) in all.as_object().expect("an object") {
        assert_eq!(&changed[name], value);
    }
    let same = patch(json!({})).await.json();
    assert_eq!(same, changed);
    let unmetered = patch(json!({"credits": null})).await.json();
    assert_eq!(
        (&unmetered["credits"], &unmetered["weight"]),
        (&Value::Null, &json!(3))
    );
    let capped = &unmetered["max_queued_campaign_calls"];
    assert_eq!(capped, &json!(100_000_000), "left out is left as it is");
    let none = json!({"max_queued_campaign_calls": null, "max_calls_per_number_per_day": null});
    let uncapped = patch(none).await.json();
    assert_eq!(uncapped["max_calls_per_number_per_day"], Value::Null);
    assert_eq!(uncapped["max_queued_campaign_calls"], Value::Null);
    assert_eq!(uncapped["max_queued_direct_calls"], 0);
    for (field, bad) in [
        ("concurrent_calls_limit", -1),
        ("max_queued_direct_calls", -1),
        ("max_queued_campaign_calls", 100_000_001),
        ("max_calls_per_number_per_day", 0),
        ("max_calls_per_number_per_day", 1_001),
        ("direct_reserved_slots", -1),
        ("weight", 0),
        ("weight", 1_001),
        ("credits", -1),
    ] {
        assert_eq!(
            patch(json!({field: bad})).await.problem(400)["field"],
            field
        );
    }
    assert_eq!(world.fake.state().wakes, 4);
    let shown = world.ask(&world.admin.1, "GET", &path, None).await.json();
    assert_eq!(shown["concurrent_calls_limit"], 7);
    assert_eq!(
        shown["direct_calls"],
        json!({"queued": 1, "processing": 2, "total": 3})
    );
}

#[actix_web::test]
async fn unknown_users_are_404() {
    let world = World::new();
    let path = format!("/api/admin/users/{}", UserId::new());
    world
        .ask(&world.admin.1, "GET", &path, None)
        .await
        .problem(404);
    world
        .ask(&world.admin.1, "PATCH", &path, Some(json!({})))
        .await
        .problem(404);
}

#[actix_web::test]
async fn users_queues_and_active_calls_of_everyone_are_listed() {
    let world = World::new();
    world.fake.state().calls = vec![
        call(world.ada.0, CallStatus::InProgress),
        call(world.bob.0, CallStatus::Unknown),
        call(world.bob.0, CallStatus::Ended(Outcome::Busy)),
    ];
    let admin = &world.admin.1;
    let active = world
        .ask(admin, "GET", "/api/admin/calls/active", None)
        .await
        .json();
    assert_eq!(active["total"], 2);
    let users = world
        .ask(admin, "GET", "/api/admin/users?limit=2", None)
        .await
        .json();
    assert_eq!(users["items"].as_array().map(Vec::len), Some(2));
    assert!(users["next_cursor"].is_string());
    let queue = world
        .ask(admin, "GET", "/api/admin/queue", None)
        .await
        .json();
    assert_eq!(queue["items"][0]["user_id"], json!(world.ada.0.as_uuid()));
    assert_eq!(queue["items"][0]["active"], 2);
}
