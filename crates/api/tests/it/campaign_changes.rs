//! What is done with a campaign after it was made: replaced, deleted, and its contacts one by one.

use callq_domain::{
    CampaignCalls, CampaignContact, CampaignId, CampaignStatus, ContactId, ContactStatus, Outcome,
    QueueItemId,
};
use serde_json::{Value, json};

use crate::world::{World, number};

struct Made {
    world: World,
    id: String,
    body: Value,
}

impl Made {
    /// A draft of Ada's, and what was said of it.
    async fn draft() -> Self {
        let world = World::new();
        let agent = world.post("/api/agents", json!({"name": "a"})).await;
        let contact = json!({"phone_number": "+14155552671"});
        let contact = world.post("/api/contacts", contact).await;
        let mut body = json!({"name": "Spring", "agent_id": agent.json()["id"],
            "next_action": "call", "contact_ids": [contact.json()["id"]],
            "first_call_time": "09:00", "last_call_time": "18:30", "start_date": "2030-05-01",
            "end_date": "2030-06-01"});
        let made = world.post("/api/campaigns", body.clone()).await.json();
        body.as_object_mut()
            .expect("an object")
            .remove("contact_ids");
        let id = made["id"].as_str().expect("an id").to_owned();
        Self { world, id, body }
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/campaigns/{}{rest}", self.id)
    }

    fn stands(&self, status: CampaignStatus) {
        self.world.fake.state().campaigns[0].status = status;
    }

    async fn put(&self, body: Value) -> crate::world::Answered {
        let (token, path) = (&self.world.ada.1, self.path(""));
        self.world.ask(token, "PUT", &path, Some(body)).await
    }

    /// Gives it a contact in each of these states.
    fn contacts(&self, stand: &[ContactStatus]) -> Vec<ContactId> {
        let contacts = stand.iter().map(|status| CampaignContact {
            contact_id: ContactId::new(),
            item_id: QueueItemId::new(),
            phone_number: number(),
            name: Some("Grace".into()),
            status: *status,
            attempts: 2,
            outcome: (*status == ContactStatus::Failed).then_some(Outcome::NoAnswer),
            reason: None,
            call_id: None,
            next_attempt_at: None,
            started_at: None,
            finished_at: None,
        });
        let contacts: Vec<CampaignContact> = contacts.collect();
        let ids = contacts.iter().map(|contact| contact.contact_id).collect();
        self.world.fake.state().campaign_contacts = contacts;
        ids
    }
}

#[actix_web::test]
async fn a_campaign_is_replaced_as_a_whole_and_keeps_its_contacts() {
    let made = Made::draft().await;
    let mut body = made.body.clone();
    body["name"] = json!("Autumn");
    body.as_object_mut().expect("an object").remove("end_date");

    let replaced = made.put(body.clone()).await;

    assert_eq!(replaced.status, 200, "{}", replaced.text);
    let replaced = replaced.json();
    assert_eq!(
        (&replaced["name"], &replaced["end_date"]),
        (&json!("Autumn"), &Value::Null)
    );
    assert_eq!(replaced["progress"]["total"], 1);
    assert_eq!(made.world.get(&made.path("")).await.json(), replaced);
    assert_eq!(made.world.fake.state().wakes, 1);

    body["contact_ids"] = json!([]);
    let refused = made.put(body.clone()).await.problem(400);
    assert_eq!(refused["field"], "contact_ids");
    body.as_object_mut()
        .expect("an object")
        .remove("contact_ids");
    body["start_date"] = json!("soon");
    assert_eq!(made.put(body).await.problem(400)["field"], "start_date");
}

#[actix_web::test]
async fn who_talks_is_changed_only_in_a_draft_and_nothing_once_it_is_over() {
    let made = Made::draft().await;
    let other = made
        .world
        .post("/api/agents", json!({"name": "b"}))
        .await
        .json();
    let mut body = made.body.clone();
    body["agent_id"] = json!(ContactId::new().as_uuid());
    assert_eq!(
        made.put(body.clone()).await.problem(404)["field"],
        "agent_id"
    );
    body["agent_id"] = other["id"].clone();
    made.stands(CampaignStatus::Paused);
    let refused = made.put(body.clone()).await.problem(409);
    assert_eq!(
        (&refused["field"], &refused["current_status"]),
        (&json!("agent_id"), &json!("paused"))
    );
    made.stands(CampaignStatus::Draft);
    assert_eq!(made.put(body.clone()).await.json()["agent_id"], other["id"]);
    made.stands(CampaignStatus::Completed);
    assert_eq!(
        made.put(body).await.problem(409)["current_status"],
        "completed"
    );
}

#[actix_web::test]
async fn a_campaign_that_may_still_call_must_be_cancelled_before_it_is_deleted() {
    let made = Made::draft().await;
    let delete = || {
        let (world, path) = (&made.world, made.path(""));
        async move { world.ask(&world.ada.1, "DELETE", &path, None).await }
    };
    for status in [CampaignStatus::Active, CampaignStatus::Paused] {
        made.stands(status);
        let refused = delete().await.problem(409);
        assert_eq!(refused["current_status"], status.as_str());
        assert!(
            refused["message"]
                .as_str()
                .is_some_and(|text| text.contains("cancel it first"))
        );
    }
    made.stands(CampaignStatus::Completed);

    assert_eq!(delete().await.status, 204);

    made.world.get(&made.path("")).await.problem(404);
    made.world.get(&made.path("/contacts")).await.problem(404);
    assert_eq!(
        made.world.get("/api/campaigns").await.json()["items"],
        json!([])
    );
    delete().await.problem(404);
    let statistics = made.world.get(&made.path("/statistics")).await.json();
    assert_eq!(statistics["total"], 1);
    assert!(statistics["deleted_at"].is_string());
    let summary = made.world.get("/api/campaigns/summary").await.json();
    assert_eq!(
        (&summary["total"], &summary["deleted"]["total"]),
        (&json!(0), &json!(1))
    );
}

#[actix_web::test]
async fn the_summary_names_every_status() {
    let made = Made::draft().await;
    let summary = made.world.get("/api/campaigns/summary").await.json();
    assert_eq!(summary["total"], 1);
    assert_eq!(summary["by_status"]["draft"], 1);
    assert_eq!(summary["by_status"]["cancelled"], 0);
    assert_eq!(summary["progress"]["pending"], 1);
}

#[actix_web::test]
async fn statistics_tell_how_calls_went_unless_there_are_too_many() {
    let made = Made::draft().await;
    let statistics = made.world.get(&made.path("/statistics")).await.json();
    assert_eq!(statistics["calls"], Value::Null);
    made.world.fake.state().campaign_calls = Some(CampaignCalls {
        ended: 9,
        by_outcome: [4, 3, 2, 0, 0],
        attempts: 11,
        talk_seconds: 600,
    });
    let statistics = made.world.get(&made.path("/statistics")).await.json();
    let calls = &statistics["calls"];
    assert_eq!(
        (
            &calls["by_outcome"]["no-answer"],
            &calls["by_outcome"]["failed"]
        ),
        (&json!(2), &json!(0))
    );
    assert_eq!(
        (&calls["attempts"], &calls["talk_seconds"]),
        (&json!(11), &json!(600))
    );
}

#[actix_web::test]
async fn contacts_are_listed_page_by_page_and_by_status() {
    let made = Made::draft().await;
    let ids = made.contacts(&[
        ContactStatus::Completed,
        ContactStatus::Failed,
        ContactStatus::Failed,
    ]);
    let path = made.path("/contacts?limit=2");
    let page = made.world.get(&path).await.json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(2));
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    let rest = made
        .world
        .get(&format!("{path}&cursor={cursor}"))
        .await
        .json();
    assert_eq!(rest["items"][0]["contact_id"], ids[2].to_string());
    assert_eq!(rest["next_cursor"], Value::Null);
    let failed = made
        .world
        .get(&made.path("/contacts?status=failed"))
        .await
        .json();
    let failed = failed["items"].as_array().expect("a list");
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0]["last_outcome"], "no-answer");
    assert_eq!(
        (&failed[0]["attempts"], &failed[0]["name"]),
        (&json!(2), &json!("Grace"))
    );

    let refused = made.world.get(&made.path("/contacts?status=done")).await;
    assert_eq!(refused.problem(400)["field"], "status");
    let path = made.path("/contacts");
    made.world
        .ask(&made.world.bob.1, "GET", &path, None)
        .await
        .problem(404);
}

#[actix_web::test]
async fn contacts_are_added_and_those_in_it_already_are_told() {
    let made = Made::draft().await;
    let listed = made.contacts(&[ContactStatus::Pending]);
    made.world.fake.state().contacts[0].id = listed[0];
    let more = json!({"phone_number": "+14155552672"});
    let more = made.world.post("/api/contacts", more).await.json();
    let path = made.path("/contacts");
    let body = json!({"contact_ids": [listed[0].to_string(), more["id"]]});

    let added = made.world.post(&path, body.clone()).await.json();

    assert_eq!((&added["added"], &added["skipped"]), (&json!(1), &json!(1)));
    assert_eq!(added["skipped_contact_ids"], json!([listed[0].to_string()]));
    let unknown = json!({"contact_ids": [ContactId::new().to_string()]});
    let refused = made.world.post(&path, unknown).await;
    assert_eq!(refused.problem(404)["field"], "contact_ids");
    let twice = json!({"contact_ids": [more["id"], more["id"]]});
    let refused = made.world.post(&path, twice).await;
    assert_eq!(refused.problem(400)["field"], "contact_ids[1]");
    made.stands(CampaignStatus::Completed);
    let refused = made.world.post(&path, body.clone()).await;
    assert_eq!(refused.problem(409)["current_status"], "completed");
    made.world
        .ask(&made.world.bob.1, "POST", &path, Some(body))
        .await
        .problem(404);
}

#[actix_web::test]
async fn a_filter_means_those_it_names_and_one_that_names_nothing_is_refused() {
    use ContactStatus::{Cancelled, Failed, Queued};
    let made = Made::draft().await;
    let ids = made.contacts(&[Queued, Queued, Failed, Cancelled]);
    let (one, unknown) = (ids[0].to_string(), ContactId::new().to_string());
    for (action, body, answer, done) in [
        (
            "cancel",
            json!({"contact_ids": [one, unknown]}),
            "cancelled",
            1,
        ),
        ("cancel", json!({"all": true}), "cancelled", 2),
        ("cancel", json!({"status": "queued"}), "cancelled", 2),
        ("requeue", json!({"all": true}), "requeued", 2),
        ("requeue", json!({"statuses": ["failed"]}), "requeued", 1),
        ("requeue", json!({"contact_ids": [one]}), "requeued", 0),
    ] {
        let path = made.path(&format!("/contacts/{action}"));
        let answered = made.world.post(&path, body.clone()).await;
        assert_eq!(answered.json()[answer], done, "{body}: {}", answered.text);
    }
    for (action, body, named) in [
        ("cancel", json!({}), "contact_ids"),
        ("cancel", json!({"all": false}), "contact_ids"),
        ("cancel", json!({"contact_ids": []}), "contact_ids"),
        ("cancel", json!({"all": true, "contact_ids": [one]}), "all"),
        ("cancel", json!({"status": "processing"}), "status"),
        ("cancel", json!({"all": true, "name": "Grace"}), "name"),
        ("requeue", json!({}), "contact_ids"),
        ("requeue", json!({"statuses": []}), "statuses"),
        (
            "requeue",
            json!({"statuses": ["failed", "completed"]}),
            "statuses[1]",
        ),
    ] {
        let path = made.path(&format!("/contacts/{action}"));
        let refused = made.world.post(&path, body.clone()).await.problem(400);
        assert_eq!(refused["field"], named, "{body}: {refused}");
    }
}

#[actix_web::test]
async fn what_is_over_is_not_changed_and_only_a_cancelled_one_is_never_repeated() {
    let made = Made::draft().await;
    let id: CampaignId = made.id.parse().expect("an id");
    assert_eq!(made.world.fake.state().campaigns[0].id, id);
    let all = json!({"all": true});
    let (cancel, requeue) = (
        made.path("/contacts/cancel"),
        made.path("/contacts/requeue"),
    );
    made.stands(CampaignStatus::Completed);
    let refused = made.world.post(&cancel, all.clone()).await.problem(409);
    assert_eq!(refused["current_status"], "completed");
    assert_eq!(made.world.post(&requeue, all.clone()).await.status, 200);
    made.stands(CampaignStatus::Cancelled);
    let refused = made.world.post(&requeue, all.clone()).await.problem(409);
    assert_eq!(refused["current_status"], "cancelled");
    for path in [cancel, requeue] {
        let bob = &made.world.bob.1;
        made.world
            .ask(bob, "POST", &path, Some(all.clone()))
            .await
            .problem(404);
    }
}

#[actix_web::test]
async fn hours_that_leave_no_time_are_refused_by_the_field() {
    let made = Made::draft().await;
    made.stands(CampaignStatus::Scheduled);
    let mut body = made.body.clone();
    body["start_date"] = json!("2020-05-01");
    body["end_date"] = json!("2020-06-01");

    let refused = made.put(body).await.problem(409);

    assert_eq!(
        (&refused["field"], &refused["current_status"]),
        (&json!("end_date"), &json!("scheduled"))
    );
    assert_eq!(refused["detail"], "Campaign has no hours left.");
}

#[actix_web::test]
async fn by_whose_clock_a_campaign_goes_is_changed_in_a_draft_only() {
    let made = Made::draft().await;
    let mut body = made.body.clone();
    body["use_contact_timezone"] = json!(true);
    let changed = made.put(body.clone()).await;
    assert_eq!(changed.json()["use_contact_timezone"], true);

    made.stands(CampaignStatus::Active);
    // Left out is as if never said.
    let refused = made.put(made.body.clone()).await.problem(409);

    assert_eq!(
        (&refused["field"], &refused["current_status"]),
        (&json!("use_contact_timezone"), &json!("active"))
    );
    let sentence = "`use_contact_timezone` can be changed only while the campaign is a draft.";
    assert_eq!(refused["detail"], sentence);
    assert_eq!(made.put(body).await.status, 200);
}
