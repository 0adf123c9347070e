//! What every request meets before its controller: tokens, rates, bodies, unknown paths, health.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::test::TestRequest;
use actix_web::{App, HttpServer};
use callq_api::{configure, hash_token};
use callq_concurrency::EngineError;
use chrono::{TimeDelta, Utc};
use serde_json::json;

use crate::world::{World, is_success, request};

#[actix_web::test]
async fn without_a_good_token_everything_but_health_is_401() {
    let world = World::new();
    for path in [
        "/api/queue",
        "/api/calls/queue/status",
        "/metrics",
        "/openapi.json",
    ] {
        let bare = world.send(TestRequest::get().uri(path)).await;
        bare.problem(401);
        assert!(
            bare.header("www-authenticate")
                .is_some_and(|it| it.starts_with("Bearer"))
        );
        world
            .ask("callq_wrong", "GET", path, None)
            .await
            .problem(401);
        let basic = TestRequest::get().uri(path);
        let basic = basic.insert_header((header::AUTHORIZATION, "Basic YTpi"));
        world.send(basic).await.problem(401);
        assert!(is_success(&world.get(path).await), "{path}");
    }
    assert_eq!(
        world.send(TestRequest::get().uri("/healthz")).await.status,
        200
    );
    assert_eq!(
        world.send(TestRequest::get().uri("/readyz")).await.status,
        200
    );
}

#[actix_web::test]
async fn a_revoked_token_stops_at_once_though_it_was_just_found() {
    let world = World::new();
    assert_eq!(world.get("/api/queue").await.status, 200);
    world.fake.state().tokens.remove(&hash_token(&world.ada.1));
    world.get("/api/queue").await.problem(401);
}

#[actix_web::test]
async fn a_token_that_is_over_stops_at_once_though_it_was_just_found() {
    let now = Arc::new(Mutex::new(Utc::now()));
    let clock = now.clone();
    let world =
        World::with(|api| api.with_clock(Arc::new(move || *clock.lock().expect("the time"))));
    let end = Utc::now() + TimeDelta::seconds(1);
    let hash = hash_token(&world.ada.1);
    world
        .fake
        .state()
        .tokens
        .get_mut(&hash)
        .expect("known")
        .token_expires_at = Some(end);
    assert_eq!(world.get("/api/queue").await.status, 200);
    *now.lock().expect("the time") = end;
    world.get("/api/queue").await.problem(401);
}

#[actix_web::test]
async fn a_body_that_is_not_json_is_415_and_one_that_is_broken_400() {
    let world = World::new();
    let post = || {
        request(&world.ada.1)
            .method(Method::POST)
            .uri("/api/contacts")
    };
    let body = r#"{"phone_number": "+14155552671"}"#;
    world.send(post().set_payload(body)).await.problem(415);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "json"] {
        let typed = post().insert_header((header::CONTENT_TYPE, kind));
        world.send(typed.set_payload(body)).await.problem(415);
    }
    let json = || post().insert_header((header::CONTENT_TYPE, "application/json; charset=utf-8"));
    assert_eq!(world.send(json().set_payload(body)).await.status, 201);
    for broken in ["", "{", "{\"phone_number\": +1}", "[1, 2]", "null"] {
        world.send(json().set_payload(broken)).await.problem(400);
    }
    let broken = world
        .send(json().set_payload("{\n  \"phone_number\": oops\n}"))
        .await;
    assert_eq!(broken.problem(400)["line"], 2);
    assert_eq!(world.fake.state().contacts.len(), 1);
}

#[actix_web::test]
async fn a_body_of_64_kib_passes_and_one_byte_more_is_413() {
    let world = World::new();
    let of_length = |length: usize| {
        let body = r#"{"phone_number": "+14155552671"}"#;
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    let post = || {
        let post = request(&world.ada.1)
            .method(Method::POST)
            .uri("/api/contacts");
        post.insert_header((header::CONTENT_TYPE, "application/json"))
    };
    let limit = 64 * 1024;
    assert_eq!(
        world
            .send(post().set_payload(of_length(limit)))
            .await
            .status,
        201
    );
    world
        .send(post().set_payload(of_length(limit + 1)))
        .await
        .problem(413);
    assert_eq!(world.fake.state().contacts.len(), 1);
}

#[actix_web::test]
async fn over_a_real_connection_four_megabytes_are_answered_413_and_not_reset() {
    let world = World::new();
    let api = world.api.clone();
    let server = HttpServer::new(move || App::new().configure(configure(api.clone())))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .expect("a port");
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    let head = format!(
        "POST /api/calls/initiate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 4194304\r\nConnection: close\r\n\r\n",
        world.ada.1
    );
    let answer = actix_web::rt::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(&vec![b' '; 4_194_304])?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    })
    .await
    .expect("no panic")
    .expect("an answer rather than a reset");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("application/problem+json"));
    handle.stop(false).await;
}

#[actix_web::test]
async fn unknown_paths_are_404_and_known_ones_by_another_method_405() {
    let world = World::new();
    for path in ["/", "/api", "/api/nothing", "/api/queue/a/b"] {
        world.get(path).await.problem(404);
    }
    let wrong = world
        .ask(&world.ada.1, "DELETE", "/api/calls/initiate", None)
        .await;
    wrong.problem(405);
    let allowed = world.ask(&world.ada.1, "PATCH", "/api/agents", None).await;
    allowed.problem(405);
    assert_eq!(allowed.header("allow"), Some("GET, POST"));
}

#[actix_web::test]
async fn an_id_that_is_no_uuid_is_404_like_one_that_is_unknown() {
    let world = World::new();
    for path in ["queue", "calls", "agents", "contacts", "campaigns"] {
        world
            .get(&format!("/api/{path}/nonsense"))
            .await
            .problem(404);
        let unknown = "019ab0de-7c3f-7d21-9c53-52f1c2b06a4e";
        world
            .get(&format!("/api/{path}/{unknown}"))
            .await
            .problem(404);
    }
}

#[actix_web::test]
async fn a_sane_request_id_comes_back_and_any_other_is_replaced() {
    let world = World::new();
    let get = |id: &str| {
        let get = request(&world.ada.1).uri("/api/queue");
        get.insert_header(("X-Request-Id", id))
    };
    let mine = world.send(get("my-request.7")).await;
    assert_eq!(mine.header("x-request-id"), Some("my-request.7"));
    for bad in ["a b", "<script>", &"x".repeat(65)] {
        let answered = world.send(get(bad)).await;
        let id = answered.header("x-request-id").expect("an id");
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    }
}

#[actix_web::test]
async fn a_database_that_is_away_is_503_everywhere_and_gives_no_cause_away() {
    let world = World::new();
    assert_eq!(world.get("/api/queue").await.status, 200);
    world.fake.state().is_down = true;
    for path in [
        "/api/queue",
        "/api/calls",
        "/api/agents",
        "/api/settings/concurrency",
        "/readyz",
    ] {
        let answered = world.get(path).await;
        answered.problem(503);
        assert!(answered.header("retry-after").is_some());
        assert!(!answered.text.contains("db-7"), "{}", answered.text);
    }
    // A token that nobody asked about lately cannot be checked: that is no 401.
    world
        .ask(&world.bob.1, "GET", "/api/queue", None)
        .await
        .problem(503);
    assert_eq!(
        world.send(TestRequest::get().uri("/healthz")).await.status,
        200
    );
}

#[actix_web::test]
async fn a_rate_limit_holds_for_each_user_alone_and_says_when_to_come_back() {
    let world = World::with(|api| api.with_rate_limit(NonZeroU32::new(1)));
    assert_eq!(world.get("/api/queue").await.status, 200);
    // On a machine slow enough to answer one a second the bucket refills between two requests.
    let mut limited = world.get("/api/queue").await;
    for _ in 0..100 {
        if limited.status == 429 {
            break;
        }
        limited = world.get("/api/queue").await;
    }
    limited.problem(429);
    assert_eq!(limited.header("retry-after"), Some("1"));
    let bob = world.ask(&world.bob.1, "GET", "/api/queue", None).await;
    assert_eq!(bob.status, 200);
}

#[actix_web::test]
async fn metrics_show_counts_by_template_and_survive_the_database() {
    let world = World::new();
    world
        .get("/api/queue/019ab0de-7c3f-7d21-9c53-52f1c2b06a4e")
        .await;
    world.post("/api/calls/initiate", json!({})).await;
    let text = world.get("/metrics").await.text;
    assert!(text.contains("callq_audit_differences 0"), "{text}");
    for line in [
        r#"callq_http_requests_total{route="/api/queue/{id}",method="GET",status="4xx"} 1"#,
        "callq_up 1",
        "callq_slots_limit 10",
        "callq_oldest_snapshot_seconds 1.5",
        r#"callq_calls_queued{call_type="direct"} 3"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    world.fake.state().is_down = true;
    let text = world.get("/metrics").await.text;
    assert!(text.contains("callq_up 0") && text.contains("callq_http_requests_total"));
    assert!(!text.contains("callq_slots_limit "));
    assert!(text.trim_end().ends_with("# EOF"));
}

#[actix_web::test]
async fn readiness_is_503_while_the_engine_can_admit_nothing_and_liveness_stays() {
    let world = World::new();
    let ready = || TestRequest::get().uri("/readyz");
    assert_eq!(world.send(ready()).await.status, 200);
    for fault in [
        EngineError::Unavailable("this server's lease is over".into()),
        EngineError::Internal("a loop of the engine ended".into()),
        EngineError::ShuttingDown,
    ] {
        world.fake.state().engine_fault = Some(fault);
        let answered = world.send(ready()).await;
        answered.problem(503);
        assert!(answered.header("retry-after").is_some());
        assert!(!answered.text.contains("lease"), "{}", answered.text);
        let alive = world.send(TestRequest::get().uri("/healthz")).await;
        assert_eq!(alive.status, 200);
    }
    world.fake.state().engine_fault = None;
    assert_eq!(world.send(ready()).await.status, 200);
}
