//! Compares the dialer's ledger, the database and what clients were promised.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use callq_testing::{Deed, Ledger};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::cli::Plan;
use crate::client::GIVEN_UP;
use crate::notes::{Accepted, Notes, Promise};
use crate::round::{CONTACTS, MAX_CALL_SECONDS};
use crate::sql;

/// Between a client's answer and what the dialer sees of it may lie a reservation that was made
/// before the call was asked for, by a server that then slept.
const SIGHT: TimeDelta = TimeDelta::seconds(5);

/// The database and the dialer read the same clock, at moments of their own.
const CLOCK: TimeDelta = TimeDelta::milliseconds(5);

const MAX_CALL: TimeDelta = TimeDelta::seconds(MAX_CALL_SECONDS);

/// What became of an item, as the database has it.
#[derive(QueryableByName)]
struct Record {
    #[diesel(sql_type = SqlUuid)]
    item: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    call: Option<Uuid>,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    outcome: Option<String>,
    #[diesel(sql_type = Bool)]
    timed_out: bool,
    #[diesel(sql_type = Timestamptz)]
    reserved_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    finished_at: DateTime<Utc>,
}

const RECORDS: &str = "SELECT id AS item, call_id AS call, status::text AS status, \
    outcome::text AS outcome, reason IS NOT DISTINCT FROM 'timed_out' AS timed_out, \
    coalesce(reserved_at, finished_at) AS reserved_at, finished_at FROM call_queue_history";

/// Campaign calls that were reserved while a direct call of their user waited, due and never tried
/// before. A call that was tried and came back may wait for its provider.
const INVERSIONS: &str = "\
    WITH waits AS (
        SELECT d.user_id, d.id, d.queued_at, coalesce(d.reserved_at, d.finished_at) AS until
        FROM call_queue_history d
        WHERE d.call_type = 'direct' AND d.attempts = d.was_call::integer AND d.scheduled_for IS NULL
            AND d.queued_at < coalesce(d.reserved_at, d.finished_at)
    ), starts AS (
        SELECT e.user_id, e.item_id, e.at
        FROM call_events e JOIN call_queue_history h ON h.id = e.item_id
        WHERE e.status = 'reserved' AND h.call_type = 'campaign'
    )
    SELECT format('campaign item %s was reserved at %s while direct item %s waited since %s',
        s.item_id, s.at, w.id, w.queued_at) AS line
    FROM starts s JOIN waits w ON w.user_id = s.user_id AND s.at > w.queued_at AND s.at < w.until
    LIMIT 20";

/// Contacts of campaigns whose last item is not over, or over more than once. A call that was made
/// again is over; its item goes on.
const CONTACTS_NOT_OVER: &str = "\
    SELECT format('campaign %s: contact %s is over %s times', k.campaign_id, k.contact_id, n.ends) AS line \
    FROM campaign_contacts k CROSS JOIN LATERAL ( \
        SELECT count(*) AS ends FROM call_queue_history h WHERE h.id = k.item_id AND NOT h.retried) n \
    WHERE n.ends <> 1 LIMIT 20";

/// Campaign calls that were given a slot once their campaign's hours were over.
const OUTSIDE_HOURS: &str = "\
    SELECT format('campaign %s closed at %s, and item %s was reserved at %s', c.id, c.closes_at, e.item_id, e.at) AS line \
    FROM (SELECT id, (start_date + last_call_time) AT TIME ZONE 'UTC' AS closes_at FROM campaigns \
        WHERE first_call_time <> last_call_time) c \
    JOIN call_queue_history h ON h.campaign_id = c.id \
    JOIN call_events e ON e.item_id = h.id \
    WHERE e.status = 'reserved' AND e.at >= c.closes_at LIMIT 20";

/// Moments at which a campaign had more calls up than it may, by the records.
const OVER_THE_CAMPAIGNS_LIMIT: &str = "\
    WITH up AS MATERIALIZED (
        SELECT h.campaign_id, h.call_id, h.reserved_at, h.finished_at, c.max_concurrent_calls AS most
        FROM campaigns c JOIN call_queue_history h ON h.campaign_id = c.id
        WHERE c.max_concurrent_calls IS NOT NULL AND h.was_call
    )
    SELECT format('campaign %s had %s calls up at %s', a.campaign_id, n.calls, a.reserved_at) AS line
    FROM up a CROSS JOIN LATERAL (
        SELECT count(*) AS calls FROM up b WHERE b.campaign_id = a.campaign_id
            AND b.reserved_at <= a.reserved_at AND b.finished_at > a.reserved_at) n
    WHERE n.calls > a.most LIMIT 20";

/// Seconds in which a campaign started more calls than its pace, a tenth and one allow.
const FASTER_THAN_THE_PACE: &str = "\
    WITH went AS MATERIALIZED (
        SELECT DISTINCT c.id AS campaign_id, e.item_id, e.at, c.calls_per_second * 1.1 + 1 AS most
        FROM campaigns c
        JOIN call_queue_history h ON h.campaign_id = c.id
        JOIN call_events e ON e.item_id = h.id
        WHERE c.calls_per_second IS NOT NULL AND e.status = 'reserved'
    )
    SELECT format('campaign %s started %s calls in the second from %s', a.campaign_id, n.calls, a.at) AS line
    FROM went a CROSS JOIN LATERAL (
        SELECT count(*) AS calls FROM went b WHERE b.campaign_id = a.campaign_id
            AND b.at >= a.at AND b.at < a.at + interval '1 second') n
    WHERE n.calls > a.most LIMIT 20";

/// What is left when all should be over.
const LEFT: &str = "(SELECT count(*) FROM active_calls) + (SELECT active FROM system_state) \
    + (SELECT count(*) FROM call_queue) + (SELECT sum(active_direct + active_campaign) FROM user_slots)";

/// Judges a round that has come to rest.
pub(crate) fn judge(
    plan: &Plan,
    url: &str,
    ledger: &Ledger,
    logs: &[&Path],
    notes: &Notes,
) -> anyhow::Result<()> {
    judge_dials(plan, ledger, notes);
    let mut conn = sql::connect(url)?;
    let records: Vec<Record> = sql::rows(&mut conn, RECORDS)?;
    let accepted = notes.all_accepted();
    judge_acceptance(&records, &accepted, ledger, notes);
    judge_records(&records, ledger, notes);
    let miscounted = format!(
        "SELECT format('campaign %s counts %s of {CONTACTS} contacts', n.campaign_id, n.counted) AS line \
         FROM (SELECT campaign_id, \
             due + later + completed + failed + cancelled + expired AS counted FROM campaign_counts) n \
         WHERE n.counted <> {CONTACTS} LIMIT 20"
    );
    for query in [CONTACTS_NOT_OVER, &miscounted] {
        for line in sql::lines(&mut conn, query)? {
            notes.broken(Promise::NothingLost, line);
        }
    }
    for query in [
        OUTSIDE_HOURS,
        OVER_THE_CAMPAIGNS_LIMIT,
        FASTER_THAN_THE_PACE,
    ] {
        for line in sql::lines(&mut conn, query)? {
            notes.broken(Promise::CampaignRules, line);
        }
    }
    for line in sql::lines(&mut conn, INVERSIONS)? {
        notes.broken(Promise::DirectFirst, line);
    }
    let again = sql::number(
        &mut conn,
        "SELECT count(*) FROM call_queue_history WHERE retried",
    )?;
    notes.add("calls made again", again.unsigned_abs());
    judge_order_by_sight(&records, &accepted, ledger, notes);
    for counter in sql::lines(
        &mut conn,
        "SELECT format('%s %s: kept %s, counted %s', counter, subject, kept, counted) AS line \
         FROM audit_counters()",
    )? {
        notes.broken(Promise::CountersEqualRows, counter);
    }
    let left = sql::number(&mut conn, LEFT)?;
    if left != 0 {
        let how = format!("{left} rows and counts are left of calls that should be over");
        notes.broken(Promise::CountersEqualRows, how);
    }
    for log in logs {
        let text = std::fs::read_to_string(log)?;
        if let Some(line) = text.lines().find(|line| line.contains("panicked at")) {
            let how = format!("{}: {line}", log.display());
            notes.broken(Promise::ServersLive, how);
        }
    }
    for slow in notes.unexcused() {
        let how = format!(
            "{} answered at {} what was asked at {}",
            slow.server, slow.to, slow.from
        );
        notes.broken(Promise::HonestAnswers, how);
    }
    Ok(())
}

fn judge_dials(plan: &Plan, ledger: &Ledger, notes: &Notes) {
    for ((call, attempt), dials) in ledger.dials_per_attempt() {
        if dials > 1 {
            let how = format!("attempt {attempt} of call {call} was dialled {dials} times");
            notes.broken(Promise::OneDialPerAttempt, how);
        }
    }
    for (call, starts) in ledger.starts_per_call() {
        if starts > 1 {
            let how = format!("call {call} was put up {starts} times");
            notes.broken(Promise::OneStartPerCall, how);
        }
    }
    for (user, most) in ledger.max_overlap_per_user() {
        if most > plan.user_limit as usize {
            let how = format!("user {user} had {most} calls up of {}", plan.user_limit);
            notes.broken(Promise::UserLimit, how);
        }
    }
    let most = ledger.max_overlap();
    if most > plan.system_limit as usize {
        let how = format!("{most} calls were up of {}", plan.system_limit);
        notes.broken(Promise::SystemLimit, how);
    }
    for entry in ledger.entries() {
        if matches!(entry.deed, Deed::Unauthentic | Deed::Malformed) {
            notes.broken(Promise::DialerContract, format!("{entry:?}"));
        }
    }
}

/// What was accepted is there and over; what was withdrawn was not dialled.
fn judge_acceptance(records: &[Record], accepted: &[Accepted], ledger: &Ledger, notes: &Notes) {
    let by_item: HashMap<Uuid, &Record> = records.iter().map(|it| (it.item, it)).collect();
    let by_call: HashMap<Uuid, &Record> = records
        .iter()
        .filter_map(|it| Some((it.call?, it)))
        .collect();
    let started = ledger.starts_per_call();
    let dialled: HashSet<Uuid> = ledger.of(Deed::Dial).filter_map(|it| it.call_id).collect();
    let mut told: HashSet<Uuid> = HashSet::new();
    for one in accepted {
        let record = one
            .item
            .and_then(|item| by_item.get(&item).or_else(|| by_call.get(&item)))
            .or_else(|| one.call.and_then(|call| by_call.get(&call)));
        let Some(record) = record else {
            notes.broken(
                Promise::NothingLost,
                format!("{one:?} is not over, or gone"),
            );
            continue;
        };
        told.extend(record.call);
        let dialled = record.call.is_some_and(|call| dialled.contains(&call));
        let why = match record.status.as_str() {
            "cancelled" if !one.cancelling && record.outcome.is_none() => "nobody cancelled it",
            "expired" if !one.expires => "it was not to expire",
            "failed" if !dialled => "it was never dialled",
            _ => "",
        };
        if !why.is_empty() {
            let how = format!("{one:?} is {}, but {why}", record.status);
            notes.broken(Promise::NothingLost, how);
        }
        if one.cancelled && record.status != "cancelled" {
            let how = format!("{one:?} was cancelled and is {}", record.status);
            notes.broken(Promise::WithdrawnStaysWithdrawn, how);
        }
    }
    // A client that gave up may have been accepted all the same.
    let strangers: Vec<Uuid> = ledger
        .of(Deed::Start)
        .filter(|start| start.call_type.as_deref() == Some("direct"))
        .filter_map(|start| start.call_id)
        .filter(|call| !told.contains(call))
        .collect();
    if strangers.len() as u64 > notes.count_of(GIVEN_UP) {
        let how = format!("put up without anybody having been told: {strangers:?}");
        notes.broken(Promise::OneCallPerRequest, how);
    }
    for record in records {
        let withdrawn = record.outcome.is_none();
        if withdrawn && record.call.is_some_and(|call| started.contains_key(&call)) {
            let how = format!("item {} is {} and was dialled", record.item, record.status);
            notes.broken(Promise::WithdrawnStaysWithdrawn, how);
        }
    }
}

/// What the dialer put up, callq knows, and knows its end.
fn judge_records(records: &[Record], ledger: &Ledger, notes: &Notes) {
    let by_call: HashMap<Uuid, &Record> = records
        .iter()
        .filter_map(|it| Some((it.call?, it)))
        .collect();
    for call in ledger.starts_per_call().into_keys() {
        if by_call.get(&call).is_none_or(|it| it.outcome.is_none()) {
            let how = format!("call {call} was put up, and has no record");
            notes.broken(Promise::RecordsAreTrue, how);
        }
    }
    let ends: HashMap<Uuid, DateTime<Utc>> = ledger
        .of(Deed::End)
        .filter_map(|end| Some((end.call_id?, end.at)))
        .collect();
    for call in ledger.starts_per_call().into_keys() {
        let Some(record) = by_call.get(&call).filter(|it| it.outcome.is_some()) else {
            continue;
        };
        if ends
            .get(&call)
            .is_none_or(|end| record.finished_at + CLOCK < *end)
        {
            let how = format!(
                "call {call} ended at {:?} and was taken for over at {}",
                ends.get(&call),
                record.finished_at
            );
            notes.broken(Promise::SlotUntilTheEnd, how);
        }
    }
    for end in ledger.of(Deed::End) {
        let record = end.call_id.and_then(|call| by_call.get(&call));
        if let Some(record) = record
            && record.timed_out
            && record.finished_at - record.reserved_at < MAX_CALL
        {
            let how = format!("call {:?} was given up early", end.call_id);
            notes.broken(Promise::RecordsAreTrue, how);
        }
        if let Some(record) = record
            && !record.timed_out
            && record.outcome.as_deref() != Some(end.detail.as_str())
        {
            let how = format!(
                "call {:?} ended as {} and is recorded as {:?}",
                end.call_id, end.detail, record.outcome
            );
            notes.broken(Promise::RecordsAreTrue, how);
        }
    }
    let started: HashSet<Uuid> = ledger.starts_per_call().into_keys().collect();
    for record in records {
        if record.outcome.as_deref() == Some("completed")
            && !record.call.is_some_and(|call| started.contains(&call))
        {
            let how = format!("item {} is completed and was never up", record.item);
            notes.broken(Promise::RecordsAreTrue, how);
        }
    }
}

/// Rule 2 as it can be seen from outside: no campaign call is dialled while a direct call of the
/// same user, accepted well before, waits for its first dial.
fn judge_order_by_sight(records: &[Record], accepted: &[Accepted], ledger: &Ledger, notes: &Notes) {
    let call_of: HashMap<Uuid, Uuid> = records
        .iter()
        .filter_map(|it| Some((it.item, it.call?)))
        .collect();
    let mut first_dial: HashMap<Uuid, DateTime<Utc>> = HashMap::new();
    let mut campaign_dials: HashMap<Uuid, Vec<DateTime<Utc>>> = HashMap::new();
    for dial in ledger.of(Deed::Dial) {
        if let (Some(call), Some(user)) = (dial.call_id, dial.user_id) {
            first_dial.entry(call).or_insert(dial.at);
            if dial.call_type.as_deref() == Some("campaign") {
                campaign_dials.entry(user).or_default().push(dial.at);
            }
        }
    }
    for one in accepted.iter().filter(|one| one.plain && !one.cancelled) {
        let call = one.call.or_else(|| call_of.get(&one.item?).copied());
        let Some(until) = call.and_then(|call| first_dial.get(&call)) else {
            continue;
        };
        for at in campaign_dials.get(&one.user).into_iter().flatten() {
            if *at > one.at + SIGHT && at < until {
                let how = format!(
                    "{one:?} waited until {until}, and a campaign call was dialled at {at}"
                );
                notes.broken(Promise::DirectFirst, how);
            }
        }
    }
}

/// What is not over yet: calls that hold a slot, and items that wait.
pub(crate) fn unfinished(conn: &mut PgConnection) -> anyhow::Result<i64> {
    sql::number(conn, LEFT)
}

/// The longest time from PostgreSQL's return to the next call that the dialer put up.
pub(crate) fn slowest_recovery(ledger: &Ledger, back: &[DateTime<Utc>]) -> Option<TimeDelta> {
    back.iter()
        .filter_map(|at| {
            let next = ledger.of(Deed::Start).find(|start| start.at >= *at)?;
            Some(next.at - *at)
        })
        .max()
}
