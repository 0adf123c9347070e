//! `POST /api/calls/initiate`: every row of the contract's table.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use callq_concurrency::{EngineError, Initiated};
use callq_domain::*;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::fake::{CAUSE, State};
use crate::world::{Answered, World, call, place, queued, request, user_limit, waiting};

const PATH: &str = "/api/calls/initiate";

fn body() -> Value {
    json!({"agentId": AgentId::new().as_uuid(), "phoneNumber": "+1 415 555 2671"})
}

fn with(field: &str, value: Value) -> Value {
    let mut body = body();
    body[field] = value;
    body
}

fn execution() -> ExecutionId {
    ExecutionId::new("x-1").expect("an id")
}

/// Sends a good request that the engine meets with `outcome`.
async fn met_with(world: &World, outcome: Result<Initiated, EngineError>) -> Answered {
    world.fake.state().outcomes.push_back(outcome);
    world.post(PATH, body()).await
}

async fn with_key(world: &World, key: &str, outcome: Initiated) -> Answered {
    world.fake.state().outcomes.push_back(Ok(outcome));
    let request = request(&world.ada.1).method(Method::POST).uri(PATH);
    let request = request.insert_header(("Idempotency-Key", key));
    world.send(request.set_json(body())).await
}

#[actix_web::test]
async fn a_call_that_the_provider_took_answers_200_with_both_ids() {
    let (world, call_id) = (World::new(), CallId::new());
    let placed = PlacementReport::Placed {
        call_id,
        execution_id: execution(),
    };
    let answered = met_with(&world, Ok(Initiated::Started(placed))).await;
    assert_eq!(answered.status, 200);
    assert_eq!(
        answered.json(),
        json!({"success": true, "callId": call_id.as_uuid(), "executionId": "x-1",
               "message": "Call initiated successfully"})
    );
}

#[actix_web::test]
async fn a_call_that_must_wait_answers_202_with_its_ticket() {
    let world = World::new();
    let queued = queued(user_limit());
    let path = format!("/api/queue/{}", queued.item_id);
    let answered = met_with(&world, Ok(Initiated::Queued(queued.clone()))).await;
    assert_eq!(answered.status, 202);
    assert_eq!(
        answered.json(),
        json!({"message": "Call queued successfully",
               "reason": "User has reached concurrency limit (2/2 active calls)",
               "queue": {"id": queued.item_id.as_uuid(), "position": 1, "total_in_queue": 1,
                         "estimated_wait": 1, "estimated_wait_seconds": {"p50": 60, "p90": 137},
                         "expires_at": null, "status_url": path}})
    );
    assert_eq!(answered.header("location"), Some(path.as_str()));
    assert_eq!(answered.header("retry-after"), Some("60"));
}

#[actix_web::test]
async fn a_busy_provider_puts_the_call_back_and_the_reason_names_it() {
    let world = World::new();
    let reason = QueueReason::Provider("Provider fake is busy".into());
    let returned = PlacementReport::Returned(queued(reason));
    let answered = met_with(&world, Ok(Initiated::Started(returned))).await;
    assert_eq!(answered.status, 202);
    assert_eq!(answered.json()["reason"], "Provider fake is busy");
    assert!(answered.header("retry-after").is_some());
}

#[actix_web::test]
async fn a_lost_answer_is_202_unknown_with_the_call_to_ask_about() {
    let (world, call_id) = (World::new(), CallId::new());
    let unknown = PlacementReport::Unknown {
        call_id,
        item_id: QueueItemId::new(),
    };
    let answered = met_with(&world, Ok(Initiated::Started(unknown))).await;
    assert_eq!(answered.status, 202);
    let body = answered.json();
    assert_eq!(body["callId"], json!(call_id.as_uuid()));
    assert_eq!(body["status"], "unknown");
    assert_eq!(body["status_url"], format!("/api/calls/{call_id}"));
    assert!(body["message"].is_string());
}

#[actix_web::test]
async fn a_provider_that_refuses_for_good_is_502_with_the_call() {
    let (world, call_id) = (World::new(), CallId::new());
    let refused = PlacementReport::Refused {
        call_id,
        reason: "number blocked".into(),
    };
    let answered = met_with(&world, Ok(Initiated::Started(refused))).await;
    let problem = answered.problem(502);
    assert_eq!(problem["callId"], json!(call_id.as_uuid()));
    assert!(
        problem["message"]
            .as_str()
            .is_some_and(|it| it.contains("number blocked"))
    );
}

#[actix_web::test]
async fn refusals_answer_404_and_402_with_what_is_missing() {
    let world = World::new();
    let refused = |refusal| Ok(Initiated::Refused(refusal));
    let agent = met_with(&world, refused(Refusal::UnknownAgent)).await;
    assert_eq!(agent.problem(404)["field"], "agentId");
    let contact = met_with(&world, refused(Refusal::UnknownContact)).await;
    assert_eq!(contact.problem(404)["field"], "contactId");
    let credits = met_with(&world, refused(Refusal::NoCredits { credits: 0 })).await;
    assert_eq!(credits.problem(402)["credits"], 0);
}

#[actix_web::test]
async fn a_number_that_must_not_be_called_is_403_and_says_by_which_list() {
    let world = World::new();
    for (list, name, words) in [
        (ListedOn::Global, "global", "the global do-not-call list"),
        (ListedOn::Own, "own", "your do-not-call list"),
    ] {
        let refusal = Refusal::DoNotCall(list);
        let answered = met_with(&world, Ok(Initiated::Refused(refusal))).await;
        let problem = answered.problem(403);
        assert_eq!(problem["type"], "/problems/do-not-call");
        assert_eq!(problem["error"], "Do not call");
        assert_eq!(problem["list"], name);
        let message = problem["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{message}");
    }
    let metrics = world.get("/metrics").await.text;
    let counted = r#"callq_admissions_total{answer="do_not_call"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[actix_web::test]
async fn a_full_queue_is_503_and_says_how_many_wait_of_how_many_and_when_to_come_again() {
    let world = World::new();
    let refused = |samples| {
        let full = QueueFull {
            call_type: CallType::Direct,
            limit: 10,
            waiting: 12,
            asked: 1,
            pace: Pace {
                slots: 2,
                samples,
                mean_hold: Duration::from_secs(30),
            },
        };
        Ok(Initiated::Refused(Refusal::QueueFull(full)))
    };
    let answered = met_with(&world, refused(9)).await;
    // Three have to leave; with two slots and half a minute a call that takes 45 s.
    assert_eq!(answered.header("retry-after"), Some("45"));
    let problem = answered.problem(503);
    assert_eq!(problem["type"], "/problems/queue-full");
    assert_eq!(problem["error"], "Queue full");
    assert_eq!(
        (&problem["limit"], &problem["waiting"]),
        (&json!(10), &json!(12))
    );
    assert_eq!(
        problem["message"],
        "Your queue is full: 12 direct calls wait, and at most 10 may. Nothing was queued."
    );
    // Before anything is known a call is taken for two minutes.
    let answered = met_with(&world, refused(0)).await;
    assert_eq!(answered.header("retry-after"), Some("180"));
    let metrics = world.get("/metrics").await.text;
    let counted = r#"callq_admissions_total{answer="queue_full"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[actix_web::test]
async fn an_engine_that_cannot_accept_is_503_and_gives_no_cause_away() {
    let world = World::new();
    for error in [
        EngineError::Unavailable(CAUSE.into()),
        EngineError::Overloaded,
        EngineError::ShuttingDown,
    ] {
        let answered = met_with(&world, Err(error)).await;
        answered.problem(503);
        assert!(answered.header("retry-after").is_some());
        assert!(!answered.text.contains("db-7"), "{}", answered.text);
    }
}

#[actix_web::test]
async fn what_is_asked_reaches_the_engine_parsed() {
    let world = World::new();
    let start = Utc::now() + TimeDelta::hours(1);
    let contact = ContactId::new();
    let outcome = Ok(Initiated::Queued(queued(QueueReason::Scheduled(start))));
    world.fake.state().outcomes.push_back(outcome);
    let answered = world
        .post(
            PATH,
            json!({"agentId": AgentId::new().as_uuid(), "contactId": contact.as_uuid(),
                   "contact_name": " Grace ", "user_data": {"a": [1]}, "expires_in": 90,
                   "callerPhoneNumberId": "main", "scheduled_for": start.to_rfc3339(),
                   "not_known_yet": 1}),
        )
        .await;
    assert_eq!(answered.status, 202);
    assert_eq!(answered.json()["queue"]["estimated_wait"], 60);
    let state = world.fake.state();
    let asked = &state.asked[0];
    assert_eq!(asked.user_id, world.ada.0);
    assert_eq!(asked.target, Target::Contact(contact));
    assert_eq!(asked.contact_name.as_deref(), Some("Grace"));
    assert_eq!(asked.caller_id.as_deref(), Some("main"));
    assert_eq!(
        asked.user_data.as_ref().map(|it| it.get()),
        Some(r#"{"a":[1]}"#)
    );
    assert_eq!(asked.expires_in.map(|it| it.as_secs()), Some(90));
    assert_eq!(asked.scheduled_for, Some(start));
    assert_eq!(asked.idempotency, None);
}

#[actix_web::test]
async fn a_start_in_the_past_means_now() {
    let world = World::new();
    let past = (Utc::now() - TimeDelta::days(3)).to_rfc3339();
    world.post(PATH, with("scheduled_for", json!(past))).await;
    assert_eq!(world.fake.state().asked[0].scheduled_for, None);
}

#[actix_web::test]
async fn a_bad_field_is_400_names_the_field_and_asks_the_engine_nothing() {
    let world = World::new();
    let beyond = (Utc::now() + TimeDelta::days(366)).to_rfc3339();
    let large = "x".repeat(16 * 1024);
    for (field, value) in [
        ("agentId", json!("")),
        ("agentId", json!("nonsense")),
        ("agentId", json!(null)),
        ("contactId", json!("")),
        ("phoneNumber", json!("")),
        ("phoneNumber", json!("12345678901")),
        ("phoneNumber", json!("+10000000000")),
        ("phoneNumber", json!(14155552671_i64)),
        ("phoneNumber", json!(null)),
        ("contact_name", json!("x".repeat(201))),
        ("contact_name", json!("a\nb")),
        ("user_data", json!([1])),
        ("user_data", json!("text")),
        ("user_data", json!({"a": large})),
        ("scheduled_for", json!("tomorrow")),
        ("scheduled_for", json!(beyond)),
        ("expires_in", json!(0)),
        ("expires_in", json!(1.5)),
        ("expires_in", json!("60")),
        ("expires_in", json!(31_536_001)),
    ] {
        let answered = world.post(PATH, with(field, value.clone())).await;
        assert_eq!(answered.problem(400)["field"], field, "{value:.60}");
    }
    assert!(world.fake.state().asked.is_empty());
}

#[actix_web::test]
async fn exactly_one_of_contact_and_number_says_whom_to_call() {
    let world = World::new();
    let both = with("contactId", json!(ContactId::new().as_uuid()));
    assert_eq!(
        world.post(PATH, both).await.problem(400)["field"],
        "phoneNumber"
    );
    let none = json!({"agentId": AgentId::new().as_uuid()});
    assert_eq!(
        world.post(PATH, none).await.problem(400)["field"],
        "phoneNumber"
    );
    let no_agent = json!({"phoneNumber": "+14155552671"});
    let problem = world.post(PATH, no_agent).await.problem(400);
    assert_eq!(problem["field"], "agentId");
    assert_eq!(problem["line"], 1);
}

#[actix_web::test]
async fn the_token_is_checked_before_the_shape() {
    let world = World::new();
    let request = request("wrong").method(Method::POST).uri(PATH);
    world.send(request.set_payload("{")).await.problem(401);
}

#[actix_web::test]
async fn an_answer_is_kept_under_its_key_before_it_is_sent() {
    let world = World::new();
    let queued = queued(user_limit());
    let answered = with_key(&world, "k-1", Initiated::Queued(queued)).await;
    assert_eq!(answered.header("idempotent-replayed"), None);
    let state = world.fake.state();
    assert_eq!(state.kept.len(), 1);
    assert_eq!(
        (state.kept[0].user_id, state.kept[0].key.as_str()),
        (world.ada.0, "k-1")
    );
    assert_eq!(state.kept[0].answer.status, 202);
    assert_eq!(state.kept[0].answer.body, answered.text);
    let hash = state.asked[0]
        .idempotency
        .as_ref()
        .map(|it| it.request_hash);
    assert!(hash.is_some_and(|hash| hash != [0; 32]));
}

#[actix_web::test]
async fn a_provider_refusal_is_kept_and_a_refused_request_is_not() {
    let world = World::new();
    let refused = PlacementReport::Refused {
        call_id: CallId::new(),
        reason: "blocked".into(),
    };
    with_key(&world, "k-1", Initiated::Started(refused))
        .await
        .problem(502);
    with_key(&world, "k-2", Initiated::Refused(Refusal::UnknownAgent))
        .await
        .problem(404);
    let state = world.fake.state();
    let kept: Vec<_> = state
        .kept
        .iter()
        .map(|it| (it.key.as_str(), it.answer.status))
        .collect();
    assert_eq!(kept, [("k-1", 502)]);
}

#[actix_web::test]
async fn an_answer_that_cannot_be_kept_is_sent_all_the_same() {
    let world = World::new();
    world.fake.state().keeping_fails = true;
    let answered = with_key(&world, "k", Initiated::Queued(queued(user_limit()))).await;
    assert_eq!(answered.status, 202);
}

#[actix_web::test]
async fn a_repeat_gets_the_saved_answer_and_says_so() {
    let world = World::new();
    let body = json!({"queue": {"status_url": "/api/queue/7"}}).to_string();
    let saved = SavedAnswer {
        status: 202,
        body: body.clone(),
    };
    let repeated = Initiated::Repeated(Repeat::Answered(saved));
    let answered = with_key(&world, "k", repeated).await;
    assert_eq!((answered.status, &answered.text), (202, &body));
    assert_eq!(answered.header("idempotent-replayed"), Some("true"));
    assert_eq!(answered.header("location"), Some("/api/queue/7"));
    assert!(world.fake.state().kept.is_empty());
}

#[actix_web::test]
async fn a_key_that_is_running_is_409_and_one_reused_is_422() {
    let world = World::new();
    let running = with_key(&world, "k", Initiated::Repeated(Repeat::InProgress)).await;
    running.problem(409);
    assert_eq!(running.header("retry-after"), Some("1"));
    let reused = with_key(&world, "k", Initiated::Repeated(Repeat::Mismatch)).await;
    assert_eq!(reused.problem(422)["field"], "Idempotency-Key");
}

#[actix_web::test]
async fn a_key_of_256_characters_or_none_is_400() {
    let world = World::new();
    for key in ["x".repeat(256), String::new()] {
        let refused = Initiated::Refused(Refusal::UnknownAgent);
        let answered = with_key(&world, &key, refused).await;
        assert_eq!(answered.problem(400)["field"], "Idempotency-Key");
    }
    assert!(world.fake.state().asked.is_empty());
}

#[actix_web::test]
async fn a_repeat_whose_answer_was_lost_is_told_the_present_state() {
    let world = World::new();
    let unanswered = |item: &PlacedItem| Initiated::Repeated(Repeat::Unanswered(item.item.id));
    let mut item = waiting(world.ada.0);

    world.fake.state().items = vec![item.clone()];
    let answered = with_key(&world, "k", unanswered(&item)).await;
    assert_eq!(answered.status, 202);
    assert_eq!(answered.json()["queue"]["position"], 1);
    assert_eq!(answered.header("idempotent-replayed"), Some("true"));
    assert_eq!(world.fake.state().kept.len(), 1);

    item.item.status = ItemStatus::Processing;
    item.place = None;
    for (status, expected) in [
        (CallStatus::Ringing, 200),
        (CallStatus::Ended(Outcome::Completed), 200),
        (CallStatus::Unknown, 202),
        (CallStatus::Reserved, 202),
    ] {
        let call = call(world.ada.0, status);
        item.item.call_id = Some(call.id);
        world.fake.state().items = vec![item.clone()];
        world.fake.state().calls = vec![call.clone()];
        let answered = with_key(&world, "k", unanswered(&item)).await;
        assert_eq!(answered.status, expected, "{status}");
        assert_eq!(answered.json()["callId"], json!(call.id.as_uuid()));
    }

    let mut refused = call(world.ada.0, CallStatus::Ended(Outcome::Failed));
    refused.execution_id = None;
    item.item.call_id = Some(refused.id);
    world.fake.state().items = vec![item.clone()];
    world.fake.state().calls = vec![refused];
    with_key(&world, "k", unanswered(&item)).await.problem(502);

    item.item.call_id = None;
    item.item.status = ItemStatus::Expired;
    world.fake.state().items = vec![item.clone()];
    let over = with_key(&world, "k", unanswered(&item)).await;
    assert_eq!(
        (over.status, over.json()["status"].as_str()),
        (202, Some("expired"))
    );
}

#[actix_web::test]
async fn little_knowledge_gives_minutes_and_a_null_for_seconds() {
    let world = World::new();
    let mut queued = queued(user_limit());
    queued.place = place(3);
    queued.place.pace.samples = 0;
    let answered = met_with(&world, Ok(Initiated::Queued(queued))).await;
    let queue = &answered.json()["queue"];
    assert!(
        queue["estimated_wait"]
            .as_u64()
            .is_some_and(|minutes| minutes >= 1)
    );
    assert_eq!(queue["estimated_wait_seconds"], Value::Null);
}

#[actix_web::test]
async fn a_client_that_hangs_up_neither_stops_its_call_nor_loses_its_answer() {
    let (world, gate) = (World::new(), Arc::new(Notify::new()));
    world.fake.state().gate = Some(gate.clone());
    let until = |done: fn(&State) -> bool| {
        let fake = world.fake.clone();
        async move {
            let reached = async {
                while !done(&fake.state()) {
                    tokio::task::yield_now().await;
                }
            };
            let bound = Duration::from_secs(10);
            tokio::time::timeout(bound, reached).await.expect("in time");
        }
    };
    tokio::select! {
        _ = with_key(&world, "k", Initiated::Queued(queued(user_limit()))) => {
            panic!("answered although the engine has not")
        }
        () = until(|state| state.asked.len() == 1) => {}
    }
    gate.notify_one();
    until(|state| state.kept.len() == 1).await;
}
