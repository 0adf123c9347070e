//! Single calls for operators: listed, told and settled, and refused where the state does not allow it.

use callq_domain::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Answered, World, call, story};

async fn get(world: &World, path: &str) -> Answered {
    world.ask(&world.admin.1, "GET", path, None).await
}

async fn settle(world: &World, id: Uuid, body: Value) -> Answered {
    let path = format!("/api/admin/calls/{id}/settle");
    world.ask(&world.admin.1, "POST", &path, Some(body)).await
}

/// A world with the story of a call in doubt, and its id.
fn told() -> (World, Uuid) {
    let world = World::new();
    let story = story(world.ada.0);
    let id = story.item.id.as_uuid();
    world.fake.state().stories = vec![story];
    (world, id)
}

#[actix_web::test]
async fn calls_that_hold_a_slot_are_listed_by_status_with_their_doubt_and_their_server() {
    let world = World::new();
    world.fake.state().calls = vec![
        call(world.ada.0, CallStatus::InProgress),
        call(world.bob.0, CallStatus::Unknown),
        call(world.bob.0, CallStatus::Unknown),
        call(world.bob.0, CallStatus::Ended(Outcome::Busy)),
    ];

    let all = get(&world, "/api/admin/calls").await.json();
    let parked = get(&world, "/api/admin/calls?status=unknown&limit=1").await;
    let parked = parked.json();

    assert_eq!(all["total"], 3);
    assert_eq!(
        (&parked["total"], parked["items"].as_array().map(Vec::len)),
        (&json!(2), Some(1))
    );
    let one = &parked["items"][0];
    assert_eq!(one["user_email"], "ada@example.com");
    assert!(one["unknown_since"].is_string(), "{one}");
    assert_eq!(one["owner"]["alive"], true);
    assert!(all["items"][0]["unknown_since"].is_null());
    for (query, field) in [
        ("status=completed", "status"),
        ("status=reserved", "status"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
    ] {
        let answered = get(&world, &format!("/api/admin/calls?{query}")).await;
        assert_eq!(answered.problem(400)["field"], field, "{query}");
    }
}

#[actix_web::test]
async fn the_story_of_any_users_call_is_told_step_by_step() {
    let (world, id) = told();

    let told = get(&world, &format!("/api/admin/calls/{id}")).await.json();

    assert_eq!(
        (&told["id"], &told["queue_id"], &told["user_id"]),
        (&json!(id), &json!(id), &json!(world.ada.0.as_uuid()))
    );
    assert_eq!(
        (&told["status"], &told["item_status"], &told["holds_slot"]),
        (&json!("unknown"), &json!("processing"), &json!(true))
    );
    assert_eq!(told["phone_number"], "+14155552671");
    let history = told["history"].as_array().expect("a history");
    assert_eq!(history.len(), 4);
    assert_eq!(history[1]["reason"], "Provider is busy (429)");
    assert!(history.iter().all(|change| change["server_id"].is_string()));
    for unknown in [Uuid::nil().to_string(), "no-uuid".into()] {
        let path = format!("/api/admin/calls/{unknown}");
        get(&world, &path).await.problem(404);
    }
}

#[actix_web::test]
async fn a_call_is_settled_and_the_engine_woken() {
    let (world, id) = told();
    world.fake.state().hand_effects = [HandEffect::Ended, HandEffect::Returned].into();

    let over = json!({"outcome": "busy", "reason": "the carrier says so", "force": true});
    let ended = settle(&world, id, over).await;
    let back = settle(&world, id, json!({"not_placed": true, "attempt": 2})).await;

    assert_eq!((ended.status, back.status), (200, 200));
    assert_eq!(ended.json()["id"], json!(id));
    let state = world.fake.state();
    assert_eq!(state.wakes, 2);
    let reason: OperatorReason = "the carrier says so".parse().expect("a reason");
    let word = OperatorWord::Ended {
        outcome: Outcome::Busy,
        force: true,
    };
    assert_eq!(
        state.settled,
        [
            (
                id,
                HandSettlement {
                    word,
                    reason: Some(reason),
                    attempt: None
                }
            ),
            (
                id,
                HandSettlement {
                    word: OperatorWord::NotPlaced,
                    reason: None,
                    attempt: Some(2)
                }
            ),
        ]
    );
}

#[actix_web::test]
async fn what_a_call_does_not_allow_is_409_with_its_status_and_wakes_nobody() {
    let (world, id) = told();
    let refusals = [
        (
            HandRefusal::Over {
                status: "busy".into(),
            },
            "busy",
        ),
        (
            HandRefusal::Waits {
                status: "queued".into(),
            },
            "queued",
        ),
        (
            HandRefusal::NotUnknown {
                status: CallStatus::Ringing,
            },
            "ringing",
        ),
        (
            HandRefusal::NeedsForce {
                status: CallStatus::InProgress,
            },
            "in-progress",
        ),
        (
            HandRefusal::OtherAttempt {
                status: CallStatus::Unknown,
                attempt: 3,
            },
            "unknown",
        ),
    ];
    for (refusal, status) in refusals {
        let effect = HandEffect::Refused(refusal.clone());
        world.fake.state().hand_effects = [effect].into();

        let problem = settle(&world, id, json!({"outcome": "failed"})).await;
        let problem = problem.problem(409);

        assert_eq!(problem["current_status"], status);
        let detail = problem["detail"].as_str().expect("a sentence");
        assert!(detail.ends_with('.') && detail[1..].starts_with(&refusal.to_string()[1..]));
    }
    settle(&world, id, json!({"outcome": "failed"}))
        .await
        .problem(404);
    assert_eq!(world.fake.state().wakes, 0);
}

#[actix_web::test]
async fn a_word_that_cannot_be_read_is_400_and_settles_nothing() {
    let (world, id) = told();
    for (body, field) in [
        (json!({}), "outcome"),
        (json!({"not_placed": false}), "outcome"),
        (json!({"outcome": "busy", "not_placed": true}), "outcome"),
        (json!({"outcome": "ringing"}), "outcome"),
        (json!({"outcome": 1}), "outcome"),
        (json!({"not_placed": "yes"}), "not_placed"),
        (json!({"outcome": "busy", "force": 1}), "force"),
        (json!({"outcome": "busy", "reason": ""}), "reason"),
        (json!({"outcome": "busy", "reason": "two\nlines"}), "reason"),
        (
            json!({"outcome": "busy", "reason": "x".repeat(201)}),
            "reason",
        ),
        (json!({"outcome": "busy", "attempt": 0}), "attempt"),
    ] {
        let problem = settle(&world, id, body.clone()).await.problem(400);
        assert_eq!(problem["field"], field, "{body}");
    }
    assert!(world.fake.state().settled.is_empty());
    assert_eq!(world.fake.state().wakes, 0);
}

#[actix_web::test]
async fn a_settlement_whose_record_cannot_be_read_is_said_to_have_been_made() {
    let world = World::new();
    world.fake.state().hand_effects = [HandEffect::Ended].into();

    let problem = settle(&world, Uuid::nil(), json!({"outcome": "failed"})).await;

    let detail = problem.problem(503)["detail"].clone();
    assert!(
        detail
            .as_str()
            .is_some_and(|words| words.contains("is settled"))
    );
    assert_eq!(world.fake.state().wakes, 1);
}
