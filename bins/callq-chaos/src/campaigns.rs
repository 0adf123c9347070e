//! Users who run campaigns, one after the other, and now and then pause or cancel one.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use rand::Rng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client};

/// Between two looks at a campaign.
const LOOK: Duration = Duration::from_secs(1);

/// Runs campaigns over `contacts` contacts until the storm is over, then cancels what is left.
pub(crate) async fn run(mut client: Client, contacts: usize) {
    let Some(list) = make_contacts(&mut client, contacts).await else {
        return;
    };
    while !client.world.is_over() {
        if run_one(&mut client, &list).await.is_none() {
            return;
        }
    }
}

async fn make_contacts(client: &mut Client, count: usize) -> Option<Vec<Value>> {
    let mut ids = Vec::new();
    for n in 0..count {
        let contact =
            json!({"phone_number": format!("+1415556{n:04}"), "name": format!("Contact {n}")});
        let made = post(client, "/api/contacts", &contact).await?;
        ids.push(made.body["id"].clone());
    }
    Some(ids)
}

async fn run_one(client: &mut Client, contacts: &[Value]) -> Option<()> {
    let campaign = wish(client, contacts);
    // Made twice if the first answer was lost: the first stays a draft until the end.
    let made = post(client, "/api/campaigns", &campaign).await?;
    let Some(id) = made.body["id"].as_str().map(str::to_owned) else {
        // A contact whose answer was lost, for example.
        client.world.notes.count("campaigns refused");
        tokio::time::sleep(LOOK).await;
        return Some(());
    };
    client.world.notes.count("campaigns");
    act(client, &id, "start").await?;
    loop {
        tokio::time::sleep(LOOK).await;
        let shown = client
            .send(Method::GET, &format!("/api/campaigns/{id}"), None, None)
            .await?;
        if shown.body["status"] == "completed" {
            if client.world.is_over() || client.dice.random_bool(0.7) {
                return Some(());
            }
            // Those who were not reached once more, if its hours allow it.
            let again = post(
                client,
                &format!("/api/campaigns/{id}/contacts/requeue"),
                &json!({"all": true}),
            )
            .await?;
            if again.body["requeued"]
                .as_u64()
                .is_none_or(|calls| calls == 0)
            {
                return Some(());
            }
            client.world.notes.count("campaigns repeated");
        }
        if client.world.is_over() || client.dice.random_bool(0.01) {
            act(client, &id, "cancel").await?;
            return Some(());
        }
        if client.dice.random_bool(0.05) {
            act(client, &id, "pause").await?;
            client.pause(LOOK).await;
            act(client, &id, "resume").await?;
        }
    }
}

/// A campaign of one kind or another.
fn wish(client: &mut Client, contacts: &[Value]) -> Value {
    let mut campaign = json!({
        "name": "Chaos", "agent_id": client.user.agent_id, "next_action": "call",
        "contact_ids": contacts, "first_call_time": "00:00", "last_call_time": "00:00",
        "start_date": "2026-01-01",
    });
    let more = match client.dice.random_range(0..4) {
        0 => json!({
            "max_retries": 2,
            "retries": {"busy": {"times": 2, "after_minutes": [1]}, "failed": {"times": 0}},
            "retry_interval_minutes": 1,
        }),
        1 => {
            let seconds = client.dice.random_range(10..90);
            closing_in(TimeDelta::seconds(seconds)).unwrap_or_default()
        }
        2 => json!({"max_concurrent_calls": 1, "calls_per_second": 2.0}),
        _ => json!({}),
    };
    for (field, value) in more.as_object().into_iter().flatten() {
        campaign[field] = value.clone();
    }
    campaign
}

/// The hours of a campaign that may call until then, today: what is left then expires. None shortly
/// before midnight.
fn closing_in(time: TimeDelta) -> Option<Value> {
    let (now, until) = (Utc::now(), Utc::now() + time);
    (now.date_naive() == until.date_naive()).then(|| {
        json!({
            "first_call_time": "00:00", "last_call_time": until.format("%H:%M:%S").to_string(),
            "start_date": now.date_naive(), "end_date": now.date_naive(),
        })
    })
}

/// Cancels every campaign of this user that is not over, drafts included.
pub(crate) async fn cancel_all(mut client: Client) {
    let mut cursor = String::new();
    loop {
        let path = format!("/api/campaigns?limit=200{cursor}");
        let Some(page) = client.send(Method::GET, &path, None, None).await else {
            return;
        };
        let campaigns = page.body["items"].as_array().cloned().unwrap_or_default();
        for campaign in campaigns {
            let open = !matches!(campaign["status"].as_str(), Some("completed" | "cancelled"));
            if let (true, Some(id)) = (open, campaign["id"].as_str()) {
                let _ = act(&mut client, id, "cancel").await;
            }
        }
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return,
        }
    }
}

async fn act(client: &mut Client, id: &str, what: &str) -> Option<Answer> {
    post(client, &format!("/api/campaigns/{id}/{what}"), &json!({})).await
}

async fn post(client: &mut Client, path: &str, body: &Value) -> Option<Answer> {
    client.send(Method::POST, path, None, Some(body)).await
}
