//! What the log may hold: ids, and never a token or a whole telephone number.

use std::fmt::Write as _;
use std::sync::{Mutex, Once, PoisonError};

use actix_web::http::Method;
use callq_concurrency::Initiated;
use callq_domain::AgentId;
use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use serde_json::json;

use crate::world::{World, is_success, queued, request, user_limit};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Captured;

struct Line(String);

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        write!(self.0, " {key}={value}").map_err(|_| Error::msg("cannot write"))
    }
}

impl Log for Captured {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let mut line = Line(format!("{} {}", record.target(), record.args()));
        record
            .key_values()
            .visit(&mut line)
            .expect("readable values");
        LINES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.0);
    }
    fn flush(&self) {}
}

fn capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Captured).expect("the only logger");
        log::set_max_level(LevelFilter::Trace);
    });
}

fn lines_with(text: &str) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines
        .iter()
        .filter(|line| line.contains(text))
        .cloned()
        .collect()
}

#[actix_web::test]
async fn log_lines_carry_the_request_id_and_neither_tokens_nor_whole_numbers() {
    capture();
    let world = World::new();
    let outcome = Ok(Initiated::Queued(queued(user_limit())));
    world.fake.state().outcomes.push_back(outcome);
    let number = "+442079460958";
    let send = |body: serde_json::Value| {
        let post = request(&world.ada.1).method(Method::POST);
        let post = post.uri("/api/calls/initiate?token=in-the-query");
        world.send(
            post.insert_header(("X-Request-Id", "log-test-1"))
                .set_json(body),
        )
    };
    let agent = AgentId::new().as_uuid();
    assert_eq!(
        send(json!({"agentId": agent, "phoneNumber": number}))
            .await
            .status,
        202
    );
    send(json!({"agentId": number, "phoneNumber": number}))
        .await
        .problem(400);
    send(json!({"agentId": agent, "phoneNumber": number}))
        .await
        .problem(503);
    let digits: i64 = number[1..].parse().expect("digits");
    send(json!({"agentId": agent, "phoneNumber": digits}))
        .await
        .problem(400);
    let on_lists = json!({"phone_numbers": [number]});
    let path = format!("/api/admin/do-not-call/{number}");
    for (method, path, body) in [
        ("POST", "/api/admin/do-not-call", Some(on_lists)),
        ("GET", path.as_str(), None),
        ("DELETE", path.as_str(), None),
    ] {
        let answered = world.ask(&world.admin.1, method, path, body).await;
        assert!(is_success(&answered), "{}", answered.text);
    }
    assert_eq!(lines_with("+44…58 taken off").len(), 1);

    let mine = lines_with("log-test-1");
    assert!(mine.len() >= 4, "{mine:?}");
    assert!(
        mine.iter()
            .any(|line| line.contains(&world.ada.0.to_string()))
    );
    assert!(
        mine.iter().any(|line| line.contains("shutting down")),
        "{mine:?}"
    );
    let secret = world.ada.1.as_str();
    for text in [
        secret,
        &secret["callq_".len()..],
        number,
        &number[1..],
        "in-the-query",
    ] {
        assert_eq!(lines_with(text), Vec::<String>::new());
    }
}
