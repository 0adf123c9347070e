//! The door: slots, places in the queue, hand-off, races, and what bad requests get.

use std::collections::BTreeSet;
use std::time::Instant;

use callq_testing::Deed;
use serde_json::json;

use crate::harness::{Answer, PATIENCE, User, World, number};

fn position(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.body["queue"]["position"]
        .as_i64()
        .expect("a position")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_start_three_wait_and_the_first_in_line_follows_at_once() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 2).await;

    for n in 1..=2 {
        let answer = ada.call(n).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["success"], json!(true));
        assert_eq!(answer.body["message"], "Call initiated successfully");
        assert!(answer.body["executionId"].is_string() && answer.body["callId"].is_string());
    }
    for (n, place) in [(3, 1), (4, 2), (5, 3)] {
        let answer = ada.call(n).await;
        assert_eq!(position(&answer), place);
        assert_eq!(answer.body["message"], "Call queued successfully");
        assert_eq!(
            answer.body["reason"],
            "User has reached concurrency limit (2/2 active calls)"
        );
        assert_eq!(answer.body["queue"]["total_in_queue"], json!(place));
        assert!(
            answer.body["queue"]["estimated_wait"]
                .as_u64()
                .expect("minutes")
                >= 1
        );
        assert_eq!(
            answer.headers["location"],
            answer.body["queue"]["status_url"].as_str().expect("a path")
        );
        assert!(answer.headers.contains_key("retry-after"));
    }

    let first = world.dialer.dials()[0].call_id;
    let ended = Instant::now();
    assert_eq!(world.dialer.end(first).expect("delivered"), 200);
    // The sweep is an hour away: only the hand-off can have dialled.
    let dials = world.dialer.wait_for_dials(3, PATIENCE);
    println!(
        "hand-off took {:?}",
        dials[2].at.saturating_duration_since(ended)
    );
    assert_eq!(dials[2].to, number(3));
    let status = ada.get("/api/calls/queue/status").await;
    assert_eq!(status.body["direct_calls"]["queued"], json!(2));
    assert_eq!(
        status.body["direct_calls"]["next_call"]["phone_number"],
        number(4)
    );
    assert_eq!(
        status.body["limits"]["user"],
        json!({"limit": 2, "active": 2, "available": 0})
    );
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_by_the_settings_answers_503_until_there_is_room() {
    let world = World::new(10)
        .with("DEFAULT_MAX_QUEUED_DIRECT_CALLS", "1")
        .with("DIRECT_CALL_TTL_SECONDS", "600");
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    assert_eq!(ada.call(1).await.status, 200);
    let waits = ada.call(2).await;
    assert_eq!(position(&waits), 1);
    assert!(waits.body["queue"]["expires_at"].is_string());

    let full = ada.call(3).await;

    assert_eq!(full.status, 503, "{full:?}");
    assert_eq!(full.body["type"], "/problems/queue-full");
    assert_eq!(full.body["limit"], json!(1));
    assert_eq!(full.body["waiting"], json!(1));
    assert!(full.headers.contains_key("retry-after"));
    let first = world.dialer.dials()[0].call_id;
    assert_eq!(world.dialer.end(first).expect("delivered"), 200);
    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    assert_eq!(dials[1].to, number(2));
    assert_eq!(position(&ada.call(3).await), 1);
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_simultaneous_calls_of_one_user_two_start_and_the_rest_stand_in_line() {
    let world = World::new(500);
    let server = world.serve();
    let ada = world.user(&server, "ada", 2).await;

    let calls: Vec<_> = (0..200)
        .map(|n| {
            let ada = ada.clone();
            tokio::spawn(async move { ada.call(n).await })
        })
        .collect();
    let mut started = 0;
    let mut places = BTreeSet::new();
    for call in calls {
        let answer = call.await.expect("no panic");
        if answer.status == 200 {
            started += 1;
        } else {
            assert!(
                places.insert(position(&answer)),
                "two calls were told the same place"
            );
        }
    }

    assert_eq!(started, 2);
    assert_eq!(places, (1..=198).collect());
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 2);
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_users_at_once_exactly_ten_get_the_systems_ten_slots() {
    let world = World::new(10);
    let server = world.serve();
    let first = world.user(&server, "ada", 2).await;
    let mut users = vec![first];
    for n in 1..200 {
        // Making a process a user is slow; the others come straight from the database.
        users.push(user_from_sql(&world, &users[0], n));
    }

    let calls: Vec<_> = users
        .into_iter()
        .map(|user| tokio::spawn(async move { user.call(1).await }))
        .collect();
    let mut started = 0;
    for call in calls {
        let answer = call.await.expect("no panic");
        match answer.status {
            200 => started += 1,
            _ => {
                assert_eq!(position(&answer), 1);
                assert_eq!(
                    answer.body["reason"],
                    "System has reached concurrency limit (10/10 active calls)"
                );
            }
        }
    }

    assert_eq!(started, 10);
    let ledger = world.dialer.ledger();
    assert_eq!((ledger.count(Deed::Dial), ledger.max_overlap()), (10, 10));
    assert_eq!(world.audit(), "every counter equals its rows");
}

/// A user and agent made by SQL, with a token derived from `like`'s: for crowds.
fn user_from_sql(world: &World, like: &User, n: u32) -> User {
    use diesel::prelude::*;
    use sha2::Digest;
    let token = format!("{}-{n}", like.token);
    let hash = sha2::Sha256::digest(token.as_bytes()).to_vec();
    let mut conn = PgConnection::establish(&world.database_url).expect("the database is up");
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        user_id: String,
        #[diesel(sql_type = diesel::sql_types::Text)]
        agent_id: String,
    }
    let row: Row = diesel::sql_query(
        "WITH u AS (INSERT INTO users (email) VALUES ($1) RETURNING id), \
         t AS (INSERT INTO api_tokens (id, user_id, token_hash) SELECT gen_random_uuid(), id, $2 FROM u), \
         a AS (INSERT INTO agents (user_id, name) SELECT id, 'Agent' FROM u RETURNING id) \
         SELECT u.id::text AS user_id, a.id::text AS agent_id FROM u, a",
    )
    .bind::<diesel::sql_types::Text, _>(format!("user{n}@example.com"))
    .bind::<diesel::sql_types::Binary, _>(hash)
    .get_result(&mut conn)
    .expect("a user");
    like.with_ids(&row.user_id, &row.agent_id)
        .with_token(&token)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_right_gets_the_contracts_answer_and_writes_no_row() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 2).await;
    let eve = world.user(&server, "eve", 2).await;
    let contact = eve
        .post("/api/contacts", json!({"phone_number": number(1)}))
        .await;
    let eves_contact = contact.body["id"].clone();
    let poor = world.create_user("poor", 2, &["--credits", "0"]);
    let poor = ada.with_token(poor["token"].as_str().expect("a token"));
    let poor_agent = poor
        .post("/api/agents", json!({"name": "Agent"}))
        .await
        .body["id"]
        .clone();
    let rows = || {
        world.count(
            "SELECT (SELECT count(*) FROM call_queue) + (SELECT count(*) FROM call_queue_history) \
             + (SELECT count(*) FROM active_calls) \
             + (SELECT count(*) FROM call_events) + (SELECT count(*) FROM idempotency_keys)",
        )
    };

    let agent = json!(ada.agent_id);
    for (body, status, field) in [
        (
            json!({"agentId": "01890000-0000-7000-8000-000000000000", "phoneNumber": number(1)}),
            404,
            "",
        ),
        (
            json!({"agentId": eve.agent_id, "phoneNumber": number(1)}),
            404,
            "",
        ),
        (
            json!({"agentId": agent, "contactId": eves_contact}),
            404,
            "",
        ),
        (
            json!({"agentId": "", "phoneNumber": number(1)}),
            400,
            "agentId",
        ),
        (
            json!({"agentId": agent, "phoneNumber": ""}),
            400,
            "phoneNumber",
        ),
        (
            json!({"agentId": agent, "phoneNumber": "12345678901"}),
            400,
            "phoneNumber",
        ),
        (
            json!({"agentId": agent, "phoneNumber": "+11234567890"}),
            400,
            "phoneNumber",
        ),
        (json!({"agentId": agent, "contactId": ""}), 400, "contactId"),
        (json!({"agentId": agent}), 400, ""),
        (json!({"phoneNumber": number(1)}), 400, "agentId"),
        (
            json!({"agentId": agent, "phoneNumber": number(1), "contact_name": "a\u{0}b"}),
            400,
            "contact_name",
        ),
        (
            json!({"agentId": agent, "phoneNumber": number(1), "user_data": {"a": "\u{0}"}}),
            400,
            "user_data",
        ),
        (
            json!({"agentId": agent, "phoneNumber": number(1), "user_data": 5}),
            400,
            "user_data",
        ),
        (
            json!({"agentId": agent, "phoneNumber": number(1), "expires_in": -1}),
            400,
            "expires_in",
        ),
    ] {
        let answer = ada.post("/api/calls/initiate", body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{body}"
        );
        assert!(
            answer.body["error"].is_string() && answer.body["message"].is_string(),
            "{answer:?}"
        );
        assert!(
            answer.body.to_string().contains(field),
            "{body}: {answer:?}"
        );
    }
    let broke = poor
        .post(
            "/api/calls/initiate",
            json!({"agentId": poor_agent, "phoneNumber": number(1)}),
        )
        .await;
    assert_eq!((broke.status, &broke.body["credits"]), (402, &json!(0)));
    let post = reqwest::Method::POST;
    let malformed = ada
        .send(
            post.clone(),
            "/api/calls/initiate",
            Some("{\"agentId\": ".into()),
            &[],
        )
        .await;
    assert_eq!(malformed.status, 400, "{malformed:?}");
    let huge = format!(
        "{{\"agentId\": {agent}, \"phoneNumber\": \"{}\"}}",
        "5".repeat(1 << 20)
    );
    assert_eq!(
        ada.send(post, "/api/calls/initiate", Some(huge), &[])
            .await
            .status,
        413
    );
    let stranger = ada.with_token("callq_wrong");
    assert_eq!(stranger.call(1).await.status, 401);

    assert_eq!(rows(), 0);
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_idempotency_key_gets_the_same_answer_and_no_second_call() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let ask = |n: u32, key: &'static str| {
        let body = json!({"agentId": ada.agent_id, "phoneNumber": number(n)}).to_string();
        let ada = ada.clone();
        async move {
            let headers = [("idempotency-key", key)];
            ada.send(
                reqwest::Method::POST,
                "/api/calls/initiate",
                Some(body),
                &headers,
            )
            .await
        }
    };

    let first = ask(1, "one").await;
    let again = ask(1, "one").await;
    let other = ask(2, "one").await;
    let queued = ask(3, "two").await;
    let queued_again = ask(3, "two").await;

    assert_eq!((first.status, again.status, other.status), (200, 200, 422));
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!((queued.status, &queued.body), (202, &queued_again.body));
    assert_eq!(world.dialer.ledger().count(Deed::Dial), 1);
    assert_eq!(world.count("SELECT count(*) FROM queue_items"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_100_simultaneous_requests_with_one_key_one_call_is_made() {
    let world = World::new(200);
    let server = world.serve();
    let ada = world.user(&server, "ada", 100).await;
    let body = json!({"agentId": ada.agent_id, "phoneNumber": number(1)}).to_string();

    let asked: Vec<_> = (0..100)
        .map(|_| {
            let (ada, body) = (ada.clone(), body.clone());
            tokio::spawn(async move {
                let headers = [("idempotency-key", "the-same")];
                ada.send(
                    reqwest::Method::POST,
                    "/api/calls/initiate",
                    Some(body),
                    &headers,
                )
                .await
            })
        })
        .collect();
    for answer in asked {
        let answer = answer.await.expect("no panic");
        assert!([200, 409].contains(&answer.status), "{answer:?}");
    }

    assert_eq!(world.dialer.ledger().count(Deed::Dial), 1);
    assert_eq!(world.count("SELECT count(*) FROM queue_items"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_call_can_be_seen_and_withdrawn_and_its_successors_move_up() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let eve = world.user(&server, "eve", 1).await;
    ada.call(1).await;
    let second = ada.call(2).await.body["queue"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let third = ada.call(3).await.body["queue"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();

    let path = format!("/api/queue/{third}");
    assert_eq!(ada.get(&path).await.body["position"], json!(2));
    assert_eq!(eve.get(&path).await.status, 404);
    assert_eq!(eve.delete(&path).await.status, 404);
    assert_eq!(
        ada.delete(&format!("/api/queue/{second}")).await.status,
        200
    );
    let again = ada.delete(&format!("/api/queue/{second}")).await;
    let moved = ada.get(&path).await;

    assert_eq!(
        (again.status, &again.body["status"]),
        (409, &json!(409)),
        "{again:?}"
    );
    assert!(again.body.to_string().contains("cancelled"), "{again:?}");
    assert_eq!(moved.body["position"], json!(1));
    assert_eq!(moved.body["status"], "queued");
    let item = ada.get(&format!("/api/queue/{second}")).await;
    assert_eq!(item.body["status"], "cancelled");
    world
        .dialer
        .end(world.dialer.dials()[0].call_id)
        .expect("delivered");
    assert_eq!(world.dialer.wait_for_dials(2, PATIENCE)[1].to, number(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ended_by_its_event_is_recorded_with_every_change() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let call_id = ada.call(1).await.body["callId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let uuid = world.dialer.dials()[0].call_id;

    for status in [
        "ringing",
        "in-progress",
        "ringing",
        "completed",
        "completed",
        "busy",
    ] {
        assert_eq!(
            world.dialer.send_event(uuid, status).expect("delivered"),
            200,
            "{status}"
        );
    }

    let call = ada.get(&format!("/api/calls/{call_id}")).await;
    assert_eq!(call.body["status"], "completed");
    let history: Vec<&str> = call.body["history"]
        .as_array()
        .expect("a history")
        .iter()
        .filter_map(|entry| entry["status"].as_str())
        .collect();
    assert_eq!(
        history,
        [
            "reserved",
            "dialing",
            "placed",
            "ringing",
            "in-progress",
            "completed"
        ]
    );
    let stranger = json!({"event_id": "e", "call_id": uuid::Uuid::now_v7(), "execution_id": "x",
        "status": "completed", "occurred_at": "2026-11-22T00:00:00Z"});
    assert_eq!(world.signed_event(&server, stranger).await, 404);
    assert_eq!(world.count("SELECT active FROM system_state"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_carry_ids_and_neither_tokens_nor_whole_numbers() {
    let world = World::new(10).with("RUST_LOG", "trace,h2=info,hyper=info,mio=info");
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let call_id = ada.call(1).await.body["callId"]
        .as_str()
        .expect("an id")
        .to_owned();
    ada.call(2).await;
    ada.call_with(3, json!({"phoneNumber": "+1415"})).await;
    world
        .dialer
        .end(world.dialer.dials()[0].call_id)
        .expect("delivered");
    let _ = world.dialer.wait_for_dials(2, PATIENCE);

    let (_, log) = server.terminate();

    assert!(log.contains(&call_id), "{log}");
    let secrets: [&str; 4] = [&ada.token, &number(1), &number(2), world.dialer.secret()];
    for secret in secrets {
        assert!(!log.contains(secret), "the log holds {secret}:\n{log}");
    }
}
