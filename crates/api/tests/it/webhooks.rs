//! Provider events: signed rather than authorised, and acknowledged only once durable.

use actix_web::test::TestRequest;
use callq_domain::{CallId, EventEffect, EventError};
use serde_json::json;

use crate::fake::CAUSE;
use crate::world::{Answered, World};

async fn event(world: &World, provider: &str, signature: &str, body: String) -> Answered {
    let request = TestRequest::post().uri(&format!("/api/webhooks/{provider}"));
    let request = request.insert_header(("signature", signature));
    world.send(request.set_payload(body)).await
}

#[actix_web::test]
async fn a_signed_event_is_200_once_accepted_and_again_when_repeated() {
    let (world, id) = (World::new(), CallId::new());
    world.fake.state().events = [Ok(EventEffect::Applied), Ok(EventEffect::Ignored)].into();
    for _ in 0..2 {
        let answered = event(&world, "fake", "good", id.to_string()).await;
        assert_eq!(
            (answered.status, answered.json()),
            (200, json!({"received": true}))
        );
    }
    assert_eq!(world.fake.state().accepted[0].call_id, id);
}

#[actix_web::test]
async fn a_bad_signature_is_401_before_the_body_is_believed() {
    let world = World::new();
    event(&world, "fake", "bad", CallId::new().to_string())
        .await
        .problem(401);
    event(&world, "fake", "bad", "garbage".into())
        .await
        .problem(401);
    assert!(world.fake.state().accepted.is_empty());
}

#[actix_web::test]
async fn what_cannot_be_read_or_placed_is_told_apart() {
    let (world, id) = (World::new(), CallId::new());
    event(&world, "fake", "good", "garbage".into())
        .await
        .problem(400);
    event(&world, "nobody", "good", id.to_string())
        .await
        .problem(404);
    event(&world, "NOT%20A%20NAME", "good", id.to_string())
        .await
        .problem(404);
    event(&world, "fake", "good", "x".repeat(64 * 1024 + 1))
        .await
        .problem(413);
    assert!(world.fake.state().accepted.is_empty());
    world.fake.state().events = [Err(EventError::UnknownCall(id))].into();
    event(&world, "fake", "good", id.to_string())
        .await
        .problem(404);
}

#[actix_web::test]
async fn an_event_that_is_not_durable_is_503_so_that_it_comes_again() {
    let (world, id) = (World::new(), CallId::new());
    world.fake.state().events = [Err(EventError::Unavailable(CAUSE.into()))].into();
    let answered = event(&world, "fake", "good", id.to_string()).await;
    answered.problem(503);
    assert!(answered.header("retry-after").is_some());
    assert!(!answered.text.contains("db-7"));
}
