//! Plain campaigns, from draft to done.

use callq_domain::{CampaignId, ContactId};
use serde_json::{Value, json};

use crate::world::World;

/// A body that names an agent and a contact of `token`'s user.
async fn body(world: &World, token: &str) -> Value {
    let agent = world
        .ask(token, "POST", "/api/agents", Some(json!({"name": "a"})))
        .await;
    let number = json!({"phone_number": "+14155552671"});
    let contact = world
        .ask(token, "POST", "/api/contacts", Some(number))
        .await;
    json!({"name": "Spring", "agent_id": agent.json()["id"], "next_action": "call",
           "contact_ids": [contact.json()["id"]], "first_call_time": "09:00",
           "last_call_time": "18:30:15", "start_date": "2030-05-01"})
}

async fn draft(world: &World) -> Value {
    let body = body(world, &world.ada.1).await;
    let made = world.post("/api/campaigns", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()
}

#[actix_web::test]
async fn a_campaign_is_made_as_a_draft_with_its_defaults() {
    let world = World::new();
    let campaign = draft(&world).await;
    assert_eq!(campaign["status"], "draft");
    assert_eq!(campaign["progress"]["pending"], 1);
    assert_eq!(campaign["first_call_time"], "09:00:00");
    assert_eq!(campaign["last_call_time"], "18:30:15");
    assert_eq!(campaign["use_custom_timezone"], false);
    assert_eq!(campaign["use_contact_timezone"], false);
    assert_eq!(
        (&campaign["max_retries"], &campaign["end_date"]),
        (&json!(0), &Value::Null)
    );
    let id = campaign["id"].as_str().expect("an id");
    assert_eq!(
        world.get(&format!("/api/campaigns/{id}")).await.json(),
        campaign
    );
    let listed = world.get("/api/campaigns").await.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
}

#[actix_web::test]
async fn hours_are_shown_as_they_hold() {
    let world = World::new();
    let mut body = body(&world, &world.ada.1).await;
    body["weekdays"] = json!(["fri", "mon", "fri"]);
    body["holidays"] = json!(["2030-12-26", "2030-12-25"]);
    body["legal_hours"] = json!("ofcom");
    body["use_contact_timezone"] = json!(true);

    let made = world.post("/api/campaigns", body).await.json();

    assert_eq!(made["weekdays"], json!(["mon", "fri"]));
    assert_eq!(made["holidays"], json!(["2030-12-25", "2030-12-26"]));
    assert_eq!(made["legal_hours"], "ofcom");
    assert_eq!(made["use_contact_timezone"], true);
    assert_eq!(
        (&made["time_zone"], &made["hours"]),
        (&json!("UTC"), &Value::Null)
    );
}

#[actix_web::test]
async fn rules_for_retries_are_shown_as_they_hold() {
    let world = World::new();
    let mut body = body(&world, &world.ada.1).await;
    body["retry_interval_minutes"] = json!(30);
    body["retries"] =
        json!({"busy": {"times": 3, "after_minutes": [5, 15]}, "machine": {"times": 1}});

    let made = world.post("/api/campaigns", body.clone()).await.json();

    assert_eq!(made["max_retries"], 4);
    let shown = json!({
        "busy": {"times": 3, "after_minutes": [5, 15]},
        "machine": {"times": 1, "after_minutes": [30]},
    });
    assert_eq!(made["retries"], shown);
    body["max_retries"] = json!(2);
    let made = world.post("/api/campaigns", body).await.json();
    assert_eq!(made["max_retries"], 2);
}

#[actix_web::test]
async fn a_pace_is_shown_as_it_holds() {
    let world = World::new();
    let mut body = body(&world, &world.ada.1).await;

    let made = world.post("/api/campaigns", body.clone()).await.json();

    let free = (Value::Null, Value::Null, json!(1));
    let shown = |of: &Value| {
        let field = |name: &str| of[name].clone();
        (
            field("max_concurrent_calls"),
            field("calls_per_second"),
            field("weight"),
        )
    };
    assert_eq!(shown(&made), free);
    body["max_concurrent_calls"] = json!(3);
    body["calls_per_second"] = json!(0.25);
    body["weight"] = json!(5);
    let made = world.post("/api/campaigns", body).await.json();
    assert_eq!(shown(&made), (json!(3), json!(0.25), json!(5)));
}

#[actix_web::test]
async fn its_status_moves_only_as_it_may_and_each_move_wakes_the_engine() {
    let world = World::new();
    let campaign = draft(&world).await;
    let id = campaign["id"].as_str().expect("an id");
    let act = |action: &str| {
        let (world, path) = (&world, format!("/api/campaigns/{id}/{action}"));
        async move { world.ask(&world.ada.1, "POST", &path, None).await }
    };
    for (action, refused_with) in [("pause", "draft"), ("resume", "draft")] {
        assert_eq!(
            act(action).await.problem(409)["current_status"],
            refused_with
        );
    }
    for (action, status) in [
        ("start", "active"),
        ("pause", "paused"),
        ("resume", "active"),
        ("cancel", "cancelled"),
    ] {
        let answered = act(action).await;
        assert_eq!(
            (answered.status, &answered.json()["status"]),
            (200, &json!(status))
        );
        assert_eq!(act("start").await.problem(409)["current_status"], status);
    }
    assert_eq!(
        act("cancel").await.problem(409)["current_status"],
        "cancelled"
    );
    assert_eq!(world.fake.state().wakes, 4);
}

#[actix_web::test]
async fn another_users_campaign_agent_or_contact_is_404() {
    let world = World::new();
    let campaign = draft(&world).await;
    let path = format!("/api/campaigns/{}", campaign["id"].as_str().expect("an id"));
    world
        .ask(&world.bob.1, "GET", &path, None)
        .await
        .problem(404);
    for action in ["start", "pause", "resume", "cancel"] {
        let path = format!("{path}/{action}");
        world
            .ask(&world.bob.1, "POST", &path, None)
            .await
            .problem(404);
    }
    let (mine, theirs) = (
        body(&world, &world.ada.1).await,
        body(&world, &world.bob.1).await,
    );
    for field in ["agent_id", "contact_ids"] {
        let mut body = mine.clone();
        body[field] = theirs[field].clone();
        let answered = world.post("/api/campaigns", body).await;
        assert_eq!(answered.problem(404)["field"], field);
    }
}

#[actix_web::test]
async fn a_bad_field_is_named() {
    let world = World::new();
    let good = body(&world, &world.ada.1).await;
    let twice = json!([good["contact_ids"][0], good["contact_ids"][0]]);
    for (field, value, named) in [
        ("name", json!(""), "name"),
        ("agent_id", json!(""), "agent_id"),
        ("contact_ids", json!([]), "contact_ids"),
        ("contact_ids", json!(["x"]), "contact_ids[0]"),
        ("contact_ids", twice, "contact_ids[1]"),
        ("first_call_time", json!("9 am"), "first_call_time"),
        ("start_date", json!("01.05.2030"), "start_date"),
        ("end_date", json!("2030-04-30"), "end_date"),
        ("campaign_timezone", json!("Nowhere"), "campaign_timezone"),
        ("use_custom_timezone", json!(true), "campaign_timezone"),
        ("use_contact_timezone", json!("yes"), "use_contact_timezone"),
        ("max_retries", json!(-1), "max_retries"),
        ("retry_interval_minutes", json!(0), "retry_interval_minutes"),
        ("weekdays", json!(["mon", "monday"]), "weekdays"),
        ("weekdays", json!([]), "weekdays"),
        ("holidays", json!(["2030-12-25", "Easter"]), "holidays[1]"),
        ("legal_hours", json!("eu"), "legal_hours"),
        ("max_concurrent_calls", json!(0), "max_concurrent_calls"),
        ("calls_per_second", json!(0), "calls_per_second"),
        ("calls_per_second", json!(1e9), "calls_per_second"),
        ("weight", json!(1_001), "weight"),
        ("retries", json!({"late": {"times": 1}}), "retries.late"),
        (
            "retries",
            json!({"busy": {"times": 101}}),
            "retries.busy.times",
        ),
        (
            "retries",
            json!({"busy": {"times": 1, "after_minutes": [5, 0]}}),
            "retries.busy.after_minutes",
        ),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let answered = world.post("/api/campaigns", body).await;
        assert_eq!(answered.problem(400)["field"], named);
    }
    assert!(world.fake.state().campaigns.is_empty());
}

#[actix_web::test]
async fn a_hundred_thousand_contacts_fit_and_one_more_does_not() {
    let world = World::new();
    let mut body = body(&world, &world.ada.1).await;
    let ids: Vec<_> = (0..=100_000).map(|_| ContactId::new().as_uuid()).collect();
    body["contact_ids"] = json!(ids[1..]);
    // They are not hers, which is found only after the body was read and understood.
    world
        .post("/api/campaigns", body.clone())
        .await
        .problem(404);
    body["contact_ids"] = json!(ids);
    let answered = world.post("/api/campaigns", body).await;
    assert_eq!(answered.problem(400)["field"], "contact_ids");
}

#[actix_web::test]
async fn statistics_tell_how_far_it_is() {
    let world = World::new();
    let campaign = draft(&world).await;
    let id: CampaignId = campaign["id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("an id");
    {
        let mut state = world.fake.state();
        let progress = &mut state.campaigns[0].progress;
        (progress.total, progress.pending) = (10, 5);
        (progress.completed, progress.failed, progress.cancelled) = (3, 1, 1);
    }
    let path = format!("/api/campaigns/{id}/statistics");
    let statistics = world.get(&path).await.json();
    assert_eq!(
        (&statistics["total"], &statistics["completed"]),
        (&json!(10), &json!(3))
    );
    assert_eq!(statistics["done_share"], 0.5);
    assert_eq!(statistics["completed_share"], 0.75);
    world
        .ask(&world.bob.1, "GET", &path, None)
        .await
        .problem(404);
}

#[actix_web::test]
async fn a_campaign_that_the_queue_has_no_room_for_is_503_and_counted() {
    let world = World::new();
    let campaign = draft(&world).await;
    let path = format!(
        "/api/campaigns/{}/start",
        campaign["id"].as_str().expect("an id")
    );
    let start = |contacts: u64| {
        world.fake.state().campaigns[0].progress.total = contacts;
        world.ask(&world.ada.1, "POST", &path, None)
    };

    let answered = start(100).await;
    assert_eq!(answered.header("retry-after"), Some("120"));
    let problem = answered.problem(503);
    assert_eq!(problem["type"], "/problems/queue-full");
    assert_eq!(
        (&problem["limit"], &problem["waiting"]),
        (&json!(100), &json!(1))
    );
    // More than ever may wait: there is no use in coming again.
    let answered = start(101).await;
    assert_eq!(answered.header("retry-after"), None);
    answered.problem(503);

    assert_eq!(world.fake.state().wakes, 0);
    let metrics = world.get("/metrics").await.text;
    assert!(
        metrics.contains("callq_campaigns_queue_full_total 2"),
        "{metrics}"
    );
}

#[actix_web::test]
async fn how_often_it_may_call_a_number_is_shown_as_it_was_said() {
    let world = World::new();
    let mut body = body(&world, &world.ada.1).await;
    for (said, shown) in [(json!(2), json!(2)), (Value::Null, Value::Null)] {
        body["max_calls_per_number_per_day"] = said;
        let made = world.post("/api/campaigns", body.clone()).await.json();
        assert_eq!(made["max_calls_per_number_per_day"], shown);
    }
    for bad in [0, 1_001, -1] {
        body["max_calls_per_number_per_day"] = json!(bad);
        let answered = world.post("/api/campaigns", body.clone()).await;
        assert_eq!(
            answered.problem(400)["field"],
            "max_calls_per_number_per_day"
        );
    }
}
