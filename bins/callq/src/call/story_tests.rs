//! What an operator reads.

use callq_domain::{
    AgentId, Call, CallId, CallOwner, CallStatus, CallStory, CallTransition, ExecutionId,
    ItemStatus, Origin, Outcome, Pace, Priority, ProviderName, QueueItem, QueueItemId, QueuePlace,
    QueueReason, ServerId, SlotUse, UserId,
};
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

use super::story::lines;

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
}

/// A change noted by a server.
fn change(ms: i64, status: &str, attempt: Option<u32>, reason: Option<&str>) -> CallTransition {
    CallTransition {
        status: status.into(),
        at: at(ms),
        reason: reason.map(str::to_owned),
        attempt,
        server: Some(ServerId::new()),
    }
}

/// A direct call that waits, place 2 of 5.
fn waiting() -> CallStory {
    CallStory {
        item: QueueItem {
            id: QueueItemId::new(),
            user_id: UserId::new(),
            agent_id: AgentId::new(),
            contact_id: None,
            origin: Origin::Direct,
            priority: Priority::DIRECT,
            position: 17,
            status: ItemStatus::Queued,
            phone_number: "+14155552671".parse().expect("a number"),
            contact_name: Some("Grace".into()),
            scheduled_for: None,
            wakes_at: None,
            expires_at: None,
            attempts: 0,
            call_id: None,
            reason: None,
            queued_at: at(0),
            started_at: None,
            finished_at: None,
        },
        call: None,
        user_email: Some("ada@example.com".into()),
        agent_name: Some("Front desk".into()),
        campaign_name: None,
        placed_at: None,
        unknown_since: None,
        owner: None,
        place: Some(QueuePlace {
            position: 2,
            total_in_queue: 5,
            pace: Pace {
                slots: 1,
                samples: 0,
                mean_hold: Duration::ZERO,
            },
        }),
        waiting_reason: Some(QueueReason::UserLimit(SlotUse {
            limit: 2,
            active: 2,
        })),
        history: vec![change(0, "queued", None, None)],
    }
}

/// The same call with a slot, at this attempt.
fn held(status: CallStatus, attempts: u32, history: Vec<CallTransition>) -> CallStory {
    let mut story = waiting();
    let id = CallId::from(story.item.id.as_uuid());
    story.item.status = ItemStatus::Processing;
    story.item.attempts = attempts;
    story.item.call_id = Some(id);
    story.call = Some(Call {
        id,
        item_id: story.item.id,
        user_id: story.item.user_id,
        agent_id: story.item.agent_id,
        contact_id: None,
        origin: Origin::Direct,
        phone_number: story.item.phone_number.clone(),
        contact_name: None,
        provider: ProviderName::new("http").expect("a name"),
        execution_id: ExecutionId::new("x-1"),
        status,
        reason: None,
        attempts,
        reserved_at: at(0),
        answered_at: None,
        ended_at: None,
        duration_seconds: None,
    });
    story.owner = Some(CallOwner {
        server: ServerId::new(),
        lease_until: Some(at(60_000)),
        is_alive: true,
    });
    (story.place, story.waiting_reason) = (None, None);
    story.history = history;
    story
}

fn told(story: &CallStory, now_ms: i64) -> String {
    lines(story, at(now_ms)).join("\n")
}

#[test]
fn why_a_call_waits_is_told_with_its_place_and_the_number_masked() {
    let told = told(&waiting(), 12_300);

    for words in [
        "number    +14…71 Grace",
        "status    queued; holds no slot",
        "1970-01-01 00:00:00.000",
        "accepted; it waits for a slot",
        "It has waited 12.3 s so far: 2 of 5 direct calls of its user that wait.",
        "Why it waits: User has reached concurrency limit (2/2 active calls).",
        "No provider was asked to dial it.",
    ] {
        assert!(told.contains(words), "no {words:?} in\n{told}");
    }
    assert!(!told.contains("5552671"), "{told}");
}

#[test]
fn why_a_call_was_sent_twice_is_told_attempt_by_attempt() {
    let story = held(
        CallStatus::Ringing,
        2,
        vec![
            change(0, "queued", None, None),
            change(3_600, "reserved", Some(1), None),
            change(3_600, "dialing", Some(1), None),
            change(3_650, "queued", Some(1), Some("Provider is busy (429)")),
            change(13_650, "reserved", Some(2), None),
            change(13_650, "dialing", Some(2), None),
            change(13_700, "placed", Some(2), None),
            change(13_900, "ringing", Some(2), None),
        ],
    );

    let told = told(&story, 20_000);

    for words in [
        "+3.6 s",
        "+50 ms",
        "got a slot, for attempt 1",
        "attempt 1 may be sent to the provider, once",
        "attempt 1 reached nobody, back in its place: Provider is busy (429)",
        "got a slot again, for attempt 2",
        "the provider took attempt 2",
        "it rings",
        "It waited 3.6 s for the slot of attempt 1.",
        "It waited 10.0 s for the slot of attempt 2.",
        "Attempt 1 reached nobody (Provider is busy (429)), which is why there was another.",
    ] {
        assert!(told.contains(words), "no {words:?} in\n{told}");
    }
    assert_eq!(told.matches("It did not wait").count(), 0);
}

#[test]
fn a_parked_call_is_told_with_its_doubt_and_how_to_settle_it() {
    let mut story = held(
        CallStatus::Unknown,
        1,
        vec![
            change(0, "reserved", Some(1), None),
            change(0, "dialing", Some(1), None),
            change(5_000, "unknown", Some(1), Some("no answer in time")),
            change(
                9_000,
                "unknown",
                Some(1),
                Some("taken over from a server that is gone"),
            ),
        ],
    );
    story.unknown_since = Some(at(5_000));

    let told = told(&story, 65_000);

    let settle = format!("callq call settle {} --attempt 1", story.item.id);
    for words in [
        "status    unknown since 1970-01-01 00:00:05.000 UTC, 1 min 0 s; holds a slot",
        "in doubt: no answer in time; the provider is asked, nothing is dialled again",
        "taken over from a server that is gone and may have dialled it",
        "alive, its lease holds until 1970-01-01 00:01:00.000",
        "It did not wait: a slot was free when it came.",
        "times     accepted 1970-01-01 00:00:00.000, reserved 1970-01-01 00:00:00.000",
        "its provider was asked to dial it once at most",
        settle.as_str(),
    ] {
        assert!(told.contains(words), "no {words:?} in\n{told}");
    }
}

#[test]
fn what_an_operator_did_is_told_as_done_by_no_server() {
    let mut settled = change(
        9_000,
        "busy",
        Some(1),
        Some("settled by an operator: they say so"),
    );
    settled.server = None;
    let mut story = held(
        CallStatus::Ended(Outcome::Busy),
        1,
        vec![change(0, "reserved", Some(1), None), settled],
    );
    story.owner = None;

    let told = told(&story, 20_000);

    let line = told.lines().find(|line| line.contains("settled by"));
    let line = line.expect("a line for it");
    assert!(
        line.ends_with("over, busy: settled by an operator: they say so"),
        "{line}"
    );
    assert!(line.contains("+9.0 s  -  "), "{line}");
    assert!(told.contains("status    busy; holds no slot"), "{told}");
}

#[test]
fn what_became_of_an_item_that_never_started_is_told() {
    let mut story = waiting();
    story.item.status = ItemStatus::Expired;
    (story.place, story.waiting_reason) = (None, None);
    let why = Some("did not start before its expiry");
    story.history.push(change(60_000, "expired", None, why));

    let told = told(&story, 99_000);

    for words in [
        "expired while it waited: did not start before its expiry",
        "It waited 1 min 0 s and never started.",
        "No provider was asked to dial it.",
    ] {
        assert!(told.contains(words), "no {words:?} in\n{told}");
    }
}
