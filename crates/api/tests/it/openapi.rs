//! The description tells the truth: it lists what is served, and what is served answers as listed.

use std::collections::BTreeSet;

use actix_web::test::TestRequest;
use callq_concurrency::Initiated;
use callq_domain::{CallStatus, QueueItemId};
use serde_json::{Value, json};

use crate::world::{World, call, queued, story, user_limit, waiting};

const UNKNOWN: &str = "019ab0de-7c3f-7d21-9c53-52f1c2b06a4e";

/// The contract's routes, with `DELETE` and the rest where an object has them.
const ROUTES: &[&str] = &[
    "DELETE /api/admin/do-not-call/{phone_number}",
    "DELETE /api/agents/{id}",
    "DELETE /api/campaigns/{id}",
    "DELETE /api/contacts/{id}",
    "DELETE /api/do-not-call/{phone_number}",
    "DELETE /api/queue/{id}",
    "GET /api/admin/calls",
    "GET /api/admin/calls/active",
    "GET /api/admin/calls/{id}",
    "GET /api/admin/do-not-call",
    "GET /api/admin/do-not-call/{phone_number}",
    "GET /api/admin/providers",
    "GET /api/admin/queue",
    "GET /api/admin/system",
    "GET /api/admin/users",
    "GET /api/admin/users/{id}",
    "GET /api/agents",
    "GET /api/agents/{id}",
    "GET /api/calls",
    "GET /api/calls/queue/status",
    "GET /api/calls/{id}",
    "GET /api/campaigns",
    "GET /api/campaigns/summary",
    "GET /api/campaigns/imports/{id}/errors",
    "GET /api/campaigns/template",
    "GET /api/campaigns/{id}",
    "GET /api/campaigns/{id}/contacts",
    "GET /api/campaigns/{id}/statistics",
    "GET /api/contacts",
    "GET /api/contacts/{id}",
    "GET /api/do-not-call",
    "GET /api/do-not-call/{phone_number}",
    "GET /api/queue",
    "GET /api/queue/statistics",
    "GET /api/queue/{id}",
    "GET /api/settings/concurrency",
    "GET /healthz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "PATCH /api/admin/system",
    "PATCH /api/admin/users/{id}",
    "POST /api/admin/calls/{id}/settle",
    "POST /api/admin/dispatch/pause",
    "POST /api/admin/dispatch/resume",
    "POST /api/admin/do-not-call",
    "POST /api/admin/do-not-call/upload-csv",
    "POST /api/agents",
    "POST /api/calls/initiate",
    "POST /api/calls/{id}/hangup",
    "POST /api/campaigns",
    "POST /api/campaigns/upload-csv",
    "POST /api/campaigns/{id}/cancel",
    "POST /api/campaigns/{id}/contacts",
    "POST /api/campaigns/{id}/contacts/cancel",
    "POST /api/campaigns/{id}/contacts/requeue",
    "POST /api/campaigns/{id}/pause",
    "POST /api/campaigns/{id}/resume",
    "POST /api/campaigns/{id}/start",
    "POST /api/contacts",
    "POST /api/do-not-call",
    "POST /api/do-not-call/upload-csv",
    "POST /api/webhooks/{provider}",
    "PUT /api/admin/providers/{provider}",
    "PUT /api/admin/system",
    "PUT /api/agents/{id}",
    "PUT /api/campaigns/{id}",
    "PUT /api/contacts/{id}",
];

async fn document(world: &World) -> Value {
    world.get("/openapi.json").await.json()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let item = item.as_object().expect("an item").clone();
        let path = path.clone();
        item.into_iter()
            .map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

#[actix_web::test]
async fn the_contracts_routes_are_described_and_no_others() {
    let document = document(&World::new()).await;
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<_> = operations(&document)
        .into_iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let expected: BTreeSet<_> = ROUTES.iter().map(|route| (*route).to_owned()).collect();
    assert_eq!(described, expected);
}

#[actix_web::test]
async fn every_described_route_is_served_and_asks_for_a_token_where_it_says_so() {
    let world = World::new();
    for (method, path, operation) in operations(&document(&world).await) {
        let real = path
            .replace("{id}", UNKNOWN)
            .replace("{phone_number}", "%2B14155552671")
            .replace("{provider}", "nobody");
        let bare = TestRequest::with_uri(&real).method(method.parse().expect("a method"));
        let status = world.send(bare).await.status;
        let secured = operation["security"].is_array();
        assert_eq!(status == 401, secured, "{method} {path} answered {status}");
        assert_ne!(status, 405, "{method} {path}");
        let listed = &operation["responses"][status.to_string()];
        assert!(
            listed.is_object(),
            "{method} {path} answered {status}, which is not listed"
        );
    }
}

#[actix_web::test]
async fn operation_ids_are_unique_and_every_reference_leads_somewhere() {
    let document = document(&World::new()).await;
    let operations = operations(&document);
    let ids: BTreeSet<_> = operations
        .iter()
        .map(|(_, _, operation)| operation["operationId"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), operations.len());
    for (method, path, operation) in &operations {
        assert!(operation["summary"].is_string(), "{method} {path}");
        assert!(operation["tags"].is_array(), "{method} {path}");
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                found.push(reference.to_owned());
            }
            members
                .values()
                .for_each(|it| collect_references(it, found));
        }
        Value::Array(values) => values.iter().for_each(|it| collect_references(it, found)),
        _ => {}
    }
}

/// The properties a schema names, those of its references and alternatives included.
fn properties(document: &Value, schema: &Value, found: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        return properties(document, target.expect("a schema"), found);
    }
    for group in ["allOf", "oneOf", "anyOf"] {
        for part in schema[group].as_array().into_iter().flatten() {
            properties(document, part, found);
        }
    }
    if let Some(members) = schema["properties"].as_object() {
        found.extend(members.keys().cloned());
    }
}

#[actix_web::test]
async fn answers_hold_what_their_schema_names_and_nothing_else() {
    let world = World::new();
    let (item, call) = (
        waiting(world.ada.0),
        call(world.ada.0, CallStatus::InProgress),
    );
    let (item_id, call_id) = (item.item.id, call.id);
    let story = story(world.ada.0);
    let told = format!("/api/admin/calls/{}", story.item.id);
    world.fake.state().stories = vec![story];
    world.fake.state().items = vec![item];
    world.fake.state().calls = vec![call];
    let contact = json!({"phone_number": "+14155552671"});
    let queued = Initiated::Queued(queued(user_limit()));
    world.fake.state().outcomes.push_back(Ok(queued));
    let agent = json!({"agentId": QueueItemId::new().as_uuid(), "phoneNumber": "+14155552671"});
    let document = document(&world).await;
    for (method, template, path, body) in [
        (
            "get",
            "/api/calls/queue/status",
            "/api/calls/queue/status".to_owned(),
            None,
        ),
        (
            "get",
            "/api/queue/{id}",
            format!("/api/queue/{item_id}"),
            None,
        ),
        ("get", "/api/queue", "/api/queue".to_owned(), None),
        (
            "get",
            "/api/queue/statistics",
            "/api/queue/statistics".to_owned(),
            None,
        ),
        (
            "get",
            "/api/calls/{id}",
            format!("/api/calls/{call_id}"),
            None,
        ),
        (
            "get",
            "/api/settings/concurrency",
            "/api/settings/concurrency".to_owned(),
            None,
        ),
        (
            "get",
            "/api/agents/{id}",
            format!("/api/agents/{UNKNOWN}"),
            None,
        ),
        (
            "post",
            "/api/contacts",
            "/api/contacts".to_owned(),
            Some(contact),
        ),
        (
            "post",
            "/api/calls/initiate",
            "/api/calls/initiate".to_owned(),
            Some(agent),
        ),
        (
            "post",
            "/api/calls/{id}/hangup",
            format!("/api/calls/{call_id}/hangup"),
            None,
        ),
        (
            "get",
            "/api/admin/calls",
            "/api/admin/calls".to_owned(),
            None,
        ),
        (
            "get",
            "/api/do-not-call/{phone_number}",
            "/api/do-not-call/%2B14155552671".to_owned(),
            None,
        ),
        (
            "post",
            "/api/admin/do-not-call",
            "/api/admin/do-not-call".to_owned(),
            Some(json!({"phone_numbers": ["+14155552671"]})),
        ),
        ("get", "/api/admin/calls/{id}", told, None),
    ] {
        let is_admins = template.starts_with("/api/admin/");
        let (_, token) = if is_admins { &world.admin } else { &world.ada };
        let answered = world.ask(token, &method.to_uppercase(), &path, body).await;
        let response =
            &document["paths"][template][method]["responses"][answered.status.to_string()];
        let content = response["content"].as_object().expect(template);
        let schema = &content.values().next().expect("a type")["schema"];
        let mut named = BTreeSet::new();
        properties(&document, schema, &mut named);
        let body = answered.json();
        for name in body.as_object().expect("an object").keys() {
            assert!(
                named.contains(name),
                "{method} {template}: {name} is not in its schema"
            );
        }
    }
}
