//! Lists over HTTP: the form, the file, and what is said of both.

use actix_web::test::TestRequest;
use callq_domain::{CampaignStatus, ImportTarget, StoreError};
use serde_json::{Value, json};

use crate::fake_campaigns::full;
use crate::world::{Answered, World, request};

const PATH: &str = "/api/campaigns/upload-csv";
const LIST: &str = "phone,name,order\n+14155552671,Ada,17\n+14155552672,Bob,18\n";

/// The name of a part of a form, and what it holds.
type Part<'a> = (&'a str, &'a [u8]);

/// A form of these parts; `file` is sent as a file.
fn form(token: &str, parts: &[Part<'_>]) -> TestRequest {
    let mut body = Vec::new();
    for (name, content) in parts {
        let file = if *name == "file" {
            "; filename=\"list.csv\""
        } else {
            ""
        };
        let head =
            format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--limit--\r\n");
    request(token)
        .uri(PATH)
        .method("POST".parse().expect("a method"))
        .insert_header(("content-type", "multipart/form-data; boundary=limit"))
        .set_payload(body)
}

async fn upload(world: &World, parts: &[Part<'_>]) -> Answered {
    world.send(form(&world.ada.1, parts)).await
}

/// What is said of a campaign that a list is to fill.
async fn campaign(world: &World) -> Value {
    let agent = json!({"name": "a"});
    let agent = world.post("/api/agents", agent).await.json();
    json!({"name": "Spring", "agent_id": agent["id"], "next_action": "call",
           "first_call_time": "09:00", "last_call_time": "18:30", "start_date": "2030-05-01"})
}

/// The id of a draft of Ada's.
async fn draft(world: &World) -> String {
    let body = campaign(world).await.to_string();
    let made = upload(
        world,
        &[("campaign", body.as_bytes()), ("file", LIST.as_bytes())],
    )
    .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["campaign_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    // The fake keeps campaigns that were made by themselves.
    let mut state = world.fake.state();
    let (import, _) = state.imports.pop().expect("an import");
    let ImportTarget::New(new) = import.target else {
        panic!("no campaign was made");
    };
    state.campaigns.push(callq_domain::Campaign {
        id: new.id,
        user_id: new.user_id,
        fields: new.fields,
        zone: chrono_tz::UTC,
        status: CampaignStatus::Draft,
        window: None,
        is_open: false,
        progress: Default::default(),
        created_at: chrono::Utc::now(),
        started_at: None,
        finished_at: None,
    });
    state.wakes = 0;
    id
}

#[actix_web::test]
async fn a_list_makes_a_campaign_or_fills_one_and_wakes_the_engine() {
    let world = World::new();
    let mut body = campaign(&world).await;
    body["country"] = json!("de");
    let body = body.to_string();
    // The file may come first.
    let list = "phone,name\n030 23125000,Ada\n".as_bytes();
    let made = upload(&world, &[("file", list), ("campaign", body.as_bytes())]).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let report = made.json();
    assert_eq!(
        (&report["total_rows"], &report["imported"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        (&report["skipped"], &report["failed"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(
        (&report["errors"], &report["error_file"]),
        (&json!([]), &Value::Null)
    );
    let id = report["campaign_id"].as_str().expect("an id");
    assert_eq!(
        made.header("location"),
        Some(&*format!("/api/campaigns/{id}"))
    );
    {
        let mut state = world.fake.state();
        let (import, rows) = state.imports.pop().expect("an import");
        assert_eq!(rows[0].phone_number.as_str(), "+493023125000");
        let ImportTarget::New(new) = import.target else {
            panic!("no campaign was made");
        };
        assert_eq!(
            new.fields.country.map(|it| it.to_string()),
            Some("DE".into())
        );
        assert_eq!(state.wakes, 1);
    }

    let id = draft(&world).await;
    let parts = [
        ("campaign_id", id.as_bytes()),
        ("file", LIST.as_bytes()),
        ("country", b"GB"),
    ];
    let filled = upload(&world, &parts).await;
    assert_eq!(filled.status, 200, "{}", filled.text);
    assert_eq!(filled.json()["campaign_id"], json!(id));
    let state = world.fake.state();
    let (import, rows) = state.imports.last().expect("an import");
    assert_eq!(import.country.map(|it| it.to_string()), Some("GB".into()));
    assert_eq!(
        rows[1].user_data.as_ref().map(|data| data.get()),
        Some(r#"{"order":"18"}"#)
    );
}

#[actix_web::test]
async fn rows_that_fail_are_422_with_the_report_unless_partial_and_their_file_is_the_users_own() {
    let world = World::new();
    let id = draft(&world).await;
    let list = format!("{LIST}12,Eve,19\n");
    let base = [("campaign_id", id.as_bytes()), ("file", list.as_bytes())];
    let refused = upload(&world, &base).await;
    let report = refused.problem(422);
    assert_eq!(
        (&report["total_rows"], &report["imported"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(report["failed"], 1);
    assert_eq!(report["errors"][0]["row"], 4);
    assert_eq!(report["errors"][0]["field"], "phone");
    assert_eq!(world.fake.state().wakes, 0);

    let file = report["error_file"].as_str().expect("a path").to_owned();
    let errors = world.get(&file).await;
    assert_eq!((errors.status, errors.text.as_str()), (200, "4,phone"));
    assert_eq!(
        errors.header("content-type"),
        Some("text/csv; charset=utf-8")
    );
    world
        .ask(&world.bob.1, "GET", &file, None)
        .await
        .problem(404);

    let partial = upload(&world, &[base[0], base[1], ("partial", b"true")]).await;
    assert_eq!(
        (partial.status, &partial.json()["imported"]),
        (200, &json!(2))
    );
    let dry = [base[0], ("file", LIST.as_bytes()), ("dry_run", b"true")];
    let wakes = world.fake.state().wakes;
    let dry = upload(&world, &dry).await;
    assert_eq!((dry.status, &dry.json()["dry_run"]), (200, &json!(true)));
    assert_eq!(world.fake.state().wakes, wakes);
}

#[actix_web::test]
async fn a_file_that_is_no_list_is_told_by_row_and_column() {
    let world = World::new();
    let id = draft(&world).await;
    for (file, row, column) in [
        (&b""[..], Value::Null, Value::Null),
        (b"name,email\nAda,a@b\n", json!(1), Value::Null),
        (b"phone,Mobile\n+14155552671,\n", json!(1), json!(2)),
        (b"phone,name\n+14155552671,\"Ada\n", json!(2), json!(2)),
        (b"phone,name\n+14155552671,Zo\xEB\n", json!(2), json!(2)),
        (b"phone,name\n\0\0\n", json!(2), json!(1)),
    ] {
        let parts = [("campaign_id", id.as_bytes()), ("file", file)];
        let problem = upload(&world, &parts).await.problem(400);
        assert_eq!(problem["field"], "file", "{problem}");
        assert_eq!(
            (&problem["row"], &problem["column"]),
            (&row, &column),
            "{problem}"
        );
    }
    let parts = [("campaign_id", id.as_bytes()), ("file", &b"PK\x03\x04"[..])];
    let problem = upload(&world, &parts).await.problem(415);
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|it| it.contains("XLSX") && it.contains("CSV"))
    );
    assert!(world.fake.state().imports.is_empty());
}

#[actix_web::test]
async fn a_form_that_is_not_as_it_must_be_names_its_part() {
    let world = World::new();
    let id = draft(&world).await;
    let good = campaign(&world).await;
    let mut named = good.clone();
    named["contact_ids"] = json!(["019ab0de-7c3f-7d21-9c53-52f1c2b06a4e"]);
    let mut late = good.clone();
    late["first_call_time"] = json!("9 am");
    let (good, named, late) = (good.to_string(), named.to_string(), late.to_string());
    let file = ("file", LIST.as_bytes());
    let target = ("campaign_id", id.as_bytes());
    let cases: [(&[Part<'_>], &str); 11] = [
        (&[target], "file"),
        (&[file], "campaign_id"),
        (
            &[file, target, ("campaign", good.as_bytes())],
            "campaign_id",
        ),
        (&[file, ("campaign_id", b"x")], "campaign_id"),
        (&[file, ("campaign", named.as_bytes())], "contact_ids"),
        (&[file, ("campaign", late.as_bytes())], "first_call_time"),
        (&[file, ("campaign", b"{}")], "name"),
        (&[file, target, ("country", b"Germany")], "country"),
        (&[file, target, ("partial", b"maybe")], "partial"),
        (&[file, target, ("dryrun", b"true")], "dryrun"),
        (&[file, target, file], "file"),
    ];
    for (parts, field) in cases {
        let problem = upload(&world, parts).await.problem(400);
        assert_eq!(problem["field"], field, "{problem}");
    }
    let json = world.post(PATH, json!({})).await;
    json.problem(415);
    let cut = request(&world.ada.1)
        .uri(PATH)
        .method("POST".parse().expect("a method"))
        .insert_header(("content-type", "multipart/form-data; boundary=limit"))
        .set_payload("--limit\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nphone\n");
    world.send(cut).await.problem(400);
    assert!(world.fake.state().imports.is_empty());
}

#[actix_web::test]
async fn a_campaign_that_is_anothers_or_over_takes_no_list() {
    let world = World::new();
    let id = draft(&world).await;
    let parts = [("campaign_id", id.as_bytes()), ("file", LIST.as_bytes())];
    let theirs = world.send(form(&world.bob.1, &parts)).await;
    assert_eq!(theirs.problem(404)["field"], "campaign_id");
    let body = campaign(&world).await.to_string();
    world.fake.state().import_fault = Some(StoreError::NotFound);
    let new = [("campaign", body.as_bytes()), ("file", LIST.as_bytes())];
    let agentless = upload(&world, &new).await;
    assert_eq!(agentless.problem(404)["field"], "agent_id");
    let busy = "another list is being imported into this campaign";
    world.fake.state().import_fault = Some(StoreError::Conflict(busy.into()));
    let busy = upload(&world, &parts).await.problem(409);
    assert!(
        busy["detail"]
            .as_str()
            .is_some_and(|it| it.starts_with("Another list"))
    );
    world.fake.state().campaigns[0].status = CampaignStatus::Completed;
    let over = upload(&world, &parts).await.problem(409);
    assert_eq!(over["current_status"], "completed");
}

#[actix_web::test]
async fn a_list_that_there_is_no_room_for_is_503_and_counted() {
    let world = World::new();
    let id = draft(&world).await;
    let parts = [("campaign_id", id.as_bytes()), ("file", LIST.as_bytes())];
    world.fake.state().import_fault = Some(full(1));

    let problem = upload(&world, &parts).await.problem(503);

    assert_eq!(problem["type"], "/problems/queue-full");
    let metrics = world.get("/metrics").await.text;
    assert!(metrics.contains("callq_campaigns_queue_full_total 1"));
    assert_eq!(world.fake.state().wakes, 0);
}

#[actix_web::test]
async fn a_gigabyte_is_413_before_any_of_it_is_read() {
    let world = World::new();
    let large = form(&world.ada.1, &[]).insert_header(("content-length", "1073741824"));
    let problem = world.send(large).await.problem(413);
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|it| it.contains("256 MiB"))
    );
}

#[actix_web::test]
async fn a_file_that_turns_out_too_large_is_413_and_nothing_is_read_of_it() {
    let world = World::with(|api| api.with_list_limit(1024 * 1024));
    let id = draft(&world).await;
    let large = LIST.repeat(30_000);
    let parts = [("campaign_id", id.as_bytes()), ("file", large.as_bytes())];
    let problem = upload(&world, &parts).await.problem(413);
    assert_eq!(problem["field"], "file");
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|it| it.contains("at most 1 MiB"))
    );
    assert!(world.fake.state().imports.is_empty());
}

#[actix_web::test]
async fn the_sample_is_a_file_and_can_be_sent_back() {
    let world = World::new();
    let sample = world.get("/api/campaigns/template").await;
    assert_eq!(
        sample.header("content-type"),
        Some("text/csv; charset=utf-8")
    );
    assert!(
        sample
            .header("content-disposition")
            .is_some_and(|it| it.starts_with("attachment"))
    );
    let id = draft(&world).await;
    let parts = [
        ("campaign_id", id.as_bytes()),
        ("file", sample.text.as_bytes()),
    ];
    assert_eq!(upload(&world, &parts).await.json()["imported"], 2);
}
