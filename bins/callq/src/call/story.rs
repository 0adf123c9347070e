//! The story of a call in plain words: what it is, what became of it step by step, and in short why
//! it waited and why it was sent more than once.

use callq_domain::{CallStatus, CallStory, CallTransition};
use chrono::{DateTime, Utc};

use super::words::{moment, short, span};

/// What a take-over says for itself in a history.
const TAKEN_OVER: &str = "taken over from a server that is gone";

/// The whole story, line by line.
pub(super) fn lines(story: &CallStory, now: DateTime<Utc>) -> Vec<String> {
    let mut lines = head(story, now);
    lines.push(String::new());
    lines.push(columns("time, UTC", "after", "server", "what happened"));
    let mut before: Option<&CallTransition> = None;
    for change in &story.history {
        lines.push(step(story, change, before));
        before = Some(change);
    }
    lines.push(String::new());
    lines.extend(in_short(story, now));
    lines
}

fn head(story: &CallStory, now: DateTime<Utc>) -> Vec<String> {
    let (item, call) = (&story.item, story.call.as_ref());
    let mut lines = Vec::new();
    let mut say = |name: &str, words: String| lines.push(format!("{name:<10}{words}"));
    let named = |name: &Option<String>, id: String| match name {
        Some(name) => format!("{name} ({id})"),
        None => format!("{id}, deleted since"),
    };
    match item.call_id {
        Some(call_id) if call_id.as_uuid() != item.id.as_uuid() => {
            say("call", call_id.to_string());
            say("item", item.id.to_string());
        }
        Some(call_id) => say("call", call_id.to_string()),
        None => say("item", format!("{}, which has had no call yet", item.id)),
    }
    say("status", status(story, now));
    if let Some(reason) = call.map_or(&item.reason, |call| &call.reason) {
        say("reason", reason.clone());
    }
    say("user", named(&story.user_email, item.user_id.to_string()));
    say("agent", named(&story.agent_name, item.agent_id.to_string()));
    match item.origin.campaign_id() {
        Some(id) => say("campaign", named(&story.campaign_name, id.to_string())),
        None => say("type", "direct".into()),
    }
    let name = item.contact_name.as_deref().unwrap_or_default();
    say(
        "number",
        format!("{} {name}", item.phone_number.masked())
            .trim_end()
            .into(),
    );
    if let Some(call) = call {
        let execution = call.execution_id.as_ref();
        let known_as = execution.map_or("which has given it no name".into(), |id| {
            format!("which calls it {id}")
        });
        say("provider", format!("{}, {known_as}", call.provider));
    }
    if let Some(owner) = &story.owner {
        let lives = match (owner.is_alive, owner.lease_until) {
            (true, Some(until)) => format!("alive, its lease holds until {}", moment(until)),
            _ => "gone: another server takes the call over once one runs".to_owned(),
        };
        say("server", format!("{}, {lives}", owner.server));
    }
    say("attempts", item.attempts.to_string());
    let steps = [
        ("accepted", Some(item.queued_at)),
        ("reserved", call.map(|call| call.reserved_at)),
        ("placed", story.placed_at),
        ("answered", call.and_then(|call| call.answered_at)),
        ("ended", item.finished_at),
    ];
    let steps = steps.map(|(step, at)| at.map(|at| format!("{step} {}", moment(at))));
    let steps: Vec<String> = steps.into_iter().flatten().collect();
    say("times", steps.join(", "));
    if let Some(at) = item.scheduled_for {
        say("scheduled", moment(at));
    }
    if let Some(at) = item.expires_at {
        say("expires", format!("{}, unless it starts", moment(at)));
    }
    if let Some(seconds) = call.and_then(|call| call.duration_seconds) {
        say("talked", format!("{seconds} s"));
    }
    lines
}

/// Where it stands, and whether it holds a slot.
fn status(story: &CallStory, now: DateTime<Utc>) -> String {
    let status = story.status();
    if let Some(since) = story.unknown_since {
        let (at, length) = (moment(since), span(now - since));
        return format!("{status} since {at} UTC, {length}; holds a slot");
    }
    if story.holds_slot() {
        return format!("{status}; holds a slot");
    }
    if story.place.is_some() && story.call.is_some() {
        return format!("{status}: back in the queue; holds no slot");
    }
    format!("{status}; holds no slot")
}

/// One change: when, how long after the one before, noted by which server, and what it means.
fn step(story: &CallStory, change: &CallTransition, before: Option<&CallTransition>) -> String {
    let since = before.map_or(String::new(), |before| {
        format!("+{}", span(change.at - before.at))
    });
    let server = change.server.map_or_else(|| "-".to_owned(), short);
    let words = sentence(story, change, before);
    columns(&moment(change.at), &since, &server, &words)
}

fn columns(at: &str, since: &str, server: &str, words: &str) -> String {
    format!("{at:<23}  {since:>12}  {server:<9}  {words}")
}

fn sentence(story: &CallStory, change: &CallTransition, before: Option<&CallTransition>) -> String {
    let attempt = change.attempt.unwrap_or(0);
    let reason = change.reason.as_deref();
    let because = reason.map_or(String::new(), |reason| format!(": {reason}"));
    match (change.status.as_str(), reason) {
        ("unknown", Some(TAKEN_OVER)) => {
            format!("{TAKEN_OVER} and may have dialled it: the provider is asked")
        }
        (status, Some(TAKEN_OVER)) => format!("{TAKEN_OVER}; it is {status}"),
        ("queued", _) if attempt == 0 => match story.item.scheduled_for {
            Some(at) => format!("accepted, to start at {}", moment(at)),
            None => "accepted; it waits for a slot".into(),
        },
        ("queued", _) => format!("attempt {attempt} reached nobody, back in its place{because}"),
        ("reserved", _) if attempt > 1 => format!("got a slot again, for attempt {attempt}"),
        ("reserved", _) => format!("got a slot, for attempt {attempt}"),
        ("dialing", None) if before.is_some_and(|before| before.status == "reserved") => {
            format!("attempt {attempt} may be sent to the provider, once")
        }
        ("dialing", _) => format!("the provider has it after all{because}"),
        ("placed", _) => format!("the provider took attempt {attempt}"),
        ("ringing", _) => format!("it rings{because}"),
        ("in-progress", _) => format!("it was answered{because}"),
        ("unknown", _) => {
            format!("in doubt{because}; the provider is asked, nothing is dialled again")
        }
        ("expired", _) => format!("expired while it waited{because}"),
        (outcome, _) if attempt == 0 => format!("{outcome} while it waited{because}"),
        (outcome, _) => format!("over, {outcome}{because}"),
    }
}

/// Why it waited, and why there was more than one attempt.
fn in_short(story: &CallStory, now: DateTime<Utc>) -> Vec<String> {
    let mut lines = waits(story, now);
    let mut returns = story
        .history
        .iter()
        .filter(|change| change.status == "queued" && change.attempt.is_some())
        .peekable();
    if story.item.attempts == 0 {
        lines.push("No provider was asked to dial it.".into());
    } else if returns.peek().is_none() {
        lines.push("There was one attempt: its provider was asked to dial it once at most.".into());
    }
    for back in returns {
        let (attempt, reason) = (back.attempt.unwrap_or(0), back.reason.as_deref());
        let next = if attempt < story.item.attempts {
            "which is why there was another"
        } else {
            "so another may follow"
        };
        let reason = reason.unwrap_or("no reason noted");
        lines.push(format!(
            "Attempt {attempt} reached nobody ({reason}), {next}."
        ));
    }
    if story.call.as_ref().map(|call| call.status) == Some(CallStatus::Unknown) {
        let (id, attempt) = (story.item.call_id, story.item.attempts);
        let id = id.map_or_else(|| story.item.id.to_string(), |id| id.to_string());
        lines.push(
            "It is parked until its provider says what became of it. If it never will:".into(),
        );
        lines.push(format!(
            "  callq call settle {id} --attempt {attempt} --outcome … | --not-placed"
        ));
    }
    lines
}

/// How long it waited, each time, and why it does now.
fn waits(story: &CallStory, now: DateTime<Utc>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut since: Option<DateTime<Utc>> = None;
    let mut waited = false;
    for change in &story.history {
        match (change.status.as_str(), since) {
            ("queued", _) => since = Some(change.at),
            ("reserved", Some(from)) => {
                let (length, attempt) = (span(change.at - from), change.attempt.unwrap_or(0));
                lines.push(format!(
                    "It waited {length} for the slot of attempt {attempt}."
                ));
                (since, waited) = (None, true);
            }
            _ => {}
        }
    }
    match (since, &story.place) {
        (Some(from), Some(place)) => {
            let length = span(now - from);
            let (position, total) = (place.position, place.total_in_queue);
            let kind = story.item.origin.call_type();
            lines.push(format!(
                "It has waited {length} so far: {position} of {total} {kind} calls of its user that wait."
            ));
            let reason = story.waiting_reason.as_ref().map(ToString::to_string);
            let reason =
                reason.unwrap_or("Its turn has not come, or its campaign is not under way".into());
            lines.push(format!("Why it waits: {reason}."));
            if let Some(at) = story.item.wakes_at {
                lines.push(format!("It is not tried before {}.", moment(at)));
            }
        }
        (Some(from), None) => {
            if let Some(last) = story.history.last() {
                lines.push(format!(
                    "It waited {} and never started.",
                    span(last.at - from)
                ));
            }
        }
        (None, _) if !waited => lines.push("It did not wait: a slot was free when it came.".into()),
        (None, _) => {}
    }
    lines
}
