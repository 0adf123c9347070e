//! Agents and contacts: made, read, replaced and deleted by their owner alone.

use serde_json::{Value, json};

use crate::world::{World, waiting};

fn agent() -> Value {
    json!({"name": "Front desk", "provider": "fake", "caller_id": "main",
           "settings": {"talk_ms": 200}})
}

fn contact() -> Value {
    json!({"phone_number": "+1 (415) 555-2671", "name": "Grace", "time_zone": "Europe/Berlin",
           "user_data": {"b": 1, "a": 2}})
}

#[actix_web::test]
async fn an_object_lives_from_201_to_204_and_is_404_after() {
    let world = World::new();
    for (kind, body) in [("agents", agent()), ("contacts", contact())] {
        let made = world.post(&format!("/api/{kind}"), body.clone()).await;
        assert_eq!(made.status, 201);
        let object = made.json();
        let path = format!("/api/{kind}/{}", object["id"].as_str().expect("an id"));
        assert_eq!(made.header("location"), Some(path.as_str()));
        assert_eq!(world.get(&path).await.json(), object);

        let mut changed = body;
        changed["name"] = json!("Night shift");
        let replaced = world.ask(&world.ada.1, "PUT", &path, Some(changed)).await;
        assert_eq!(
            (replaced.status, &replaced.json()["name"]),
            (200, &json!("Night shift"))
        );
        let listed = world.get(&format!("/api/{kind}")).await.json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(listed["next_cursor"], Value::Null);

        let deleted = world.ask(&world.ada.1, "DELETE", &path, None).await;
        assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
        world.get(&path).await.problem(404);
        world
            .ask(&world.ada.1, "DELETE", &path, None)
            .await
            .problem(404);
    }
}

#[actix_web::test]
async fn another_users_object_is_404_by_every_method() {
    let world = World::new();
    for (kind, body) in [("agents", agent()), ("contacts", contact())] {
        let made = world
            .post(&format!("/api/{kind}"), body.clone())
            .await
            .json();
        let path = format!("/api/{kind}/{}", made["id"].as_str().expect("an id"));
        let bob = &world.bob.1;
        world.ask(bob, "GET", &path, None).await.problem(404);
        world.ask(bob, "PUT", &path, Some(body)).await.problem(404);
        world.ask(bob, "DELETE", &path, None).await.problem(404);
        let listed = world.ask(bob, "GET", &format!("/api/{kind}"), None).await;
        assert_eq!(listed.json()["items"], json!([]));
        assert_eq!(world.get(&path).await.json(), made);
    }
}

#[actix_web::test]
async fn a_number_is_stored_in_its_canonical_form() {
    let made = World::new().post("/api/contacts", contact()).await.json();
    assert_eq!(made["phone_number"], "+14155552671");
    assert_eq!(made["user_data"], json!({"b": 1, "a": 2}));
}

#[actix_web::test]
async fn a_bad_field_is_named_with_what_would_do() {
    let world = World::new();
    for (kind, good, field, value) in [
        ("agents", agent(), "name", json!("")),
        ("agents", agent(), "name", json!("x".repeat(201))),
        ("agents", agent(), "provider", json!("nobody")),
        ("agents", agent(), "settings", json!([])),
        ("contacts", contact(), "phone_number", json!("911")),
        ("contacts", contact(), "time_zone", json!("Mars/Olympus")),
        ("contacts", contact(), "user_data", json!(7)),
    ] {
        let mut body = good;
        body[field] = value;
        let answered = world.post(&format!("/api/{kind}"), body).await;
        assert_eq!(answered.problem(400)["field"], field);
    }
    let mut body = agent();
    body["provider"] = json!("nobody");
    let told = world.post("/api/agents", body).await.problem(400);
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|it| it.ends_with("providers: fake."))
    );
}

#[actix_web::test]
async fn an_agent_whose_calls_are_not_over_is_409() {
    let world = World::new();
    let made = world.post("/api/agents", agent()).await.json();
    let id = made["id"].as_str().expect("an id");
    let mut item = waiting(world.ada.0);
    item.item.agent_id = id.parse().expect("an id");
    world.fake.state().items.push(item);
    let deleted = world
        .ask(&world.ada.1, "DELETE", &format!("/api/agents/{id}"), None)
        .await;
    assert_eq!(deleted.problem(409)["message"], "The agent has calls.");
}
