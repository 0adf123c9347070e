//! The door's columns in, the domain's answers out.

use callq_domain::{
    Admission, IdempotencyKey, NewDirectCall, QueuePlace, QueueReason, Queued, Refusal, Repeat,
    SavedAnswer, SlotBatch, SlotUse, StoreError, Target,
};
use chrono::Utc;
use diesel::sql_types::{Array, Uuid as SqlUuid};
use diesel::{PgConnection, RunQueryDsl, sql_query};
use uuid::Uuid;

use crate::Failure;
use crate::engine::{expiry_of, impossible, pace, reserved_call};
use crate::functions::{AdmissionColumns, AdmissionRow, IdRow, ReservedCallRow};
use crate::queue::place_of;

pub(crate) fn admission_columns(calls: &[&NewDirectCall]) -> AdmissionColumns {
    let mut columns = AdmissionColumns::default();
    for call in calls {
        let (contact, number) = match &call.target {
            Target::Contact(id) => (Some(id.as_uuid()), None),
            Target::Number(number) => (None, Some(number.to_string())),
        };
        let (key, hash) = match &call.idempotency {
            Some(IdempotencyKey { key, request_hash }) => {
                (Some(key.clone()), Some(request_hash.to_vec()))
            }
            None => (None, None),
        };
        columns.items.push(call.item_id.as_uuid());
        columns.users.push(call.user_id.as_uuid());
        columns.agents.push(call.agent_id.as_uuid());
        columns.contacts.push(contact);
        columns.numbers.push(number);
        columns.names.push(call.contact_name.clone());
        columns
            .user_data
            .push(call.user_data.as_ref().map(|data| data.get().to_owned()));
        columns.caller_ids.push(call.caller_id.clone());
        columns.scheduled.push(call.scheduled_for);
        columns.expires_ms.push(
            call.expires_in
                .map(|after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
        );
        columns.keys.push(key);
        columns.hashes.push(hash);
    }
    columns
}

/// Admissions of a batch sent again whose items have ended since it was first sent.
pub(crate) fn over_already(
    conn: &mut PgConnection,
    batch: &SlotBatch,
) -> Result<Vec<Uuid>, Failure> {
    if !batch.resent || batch.admissions.is_empty() {
        return Ok(Vec::new());
    }
    let items: Vec<Uuid> = batch
        .admissions
        .iter()
        .map(|call| call.item_id.as_uuid())
        .collect();
    let rows: Vec<IdRow> = sql_query("SELECT id FROM call_queue_history WHERE id = ANY ($1)")
        .bind::<Array<SqlUuid>, _>(items)
        .load(conn)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Turns a verdict into the domain's answer, taking its call out of `calls` if it started.
pub(crate) fn admission(
    conn: &mut PgConnection,
    call: &NewDirectCall,
    row: AdmissionRow,
    calls: &mut Vec<ReservedCallRow>,
) -> Result<Admission, Failure> {
    let mut take = |item: Uuid| {
        let index = calls.iter().position(|reserved| reserved.item_id == item)?;
        Some(calls.remove(index))
    };
    let numbers = || -> Result<SlotUse, Failure> {
        Ok(SlotUse {
            limit: counted(row.limit)?,
            active: counted(row.number)?,
        })
    };
    let reason = match row.verdict.as_str() {
        "started" => {
            let reserved =
                take(row.item_id).ok_or_else(|| impossible("a started call has no slot"))?;
            return Ok(Admission::Started(Box::new(reserved_call(reserved)?)));
        }
        // The same admission once more, after a lost answer: it stands as it was decided.
        "again" => match take(row.item_id) {
            Some(reserved) => return Ok(Admission::Started(Box::new(reserved_call(reserved)?))),
            None => return Ok(Admission::Queued(queued_before(conn, call, row.item_id)?)),
        },
        "unknown_user" => return Ok(Admission::Refused(Refusal::UnknownUser)),
        "unknown_agent" => return Ok(Admission::Refused(Refusal::UnknownAgent)),
        "unknown_contact" => return Ok(Admission::Refused(Refusal::UnknownContact)),
        "no_credits" => {
            let credits = row.number.unwrap_or(0);
            return Ok(Admission::Refused(Refusal::NoCredits { credits }));
        }
        "mismatch" => return Ok(Admission::Repeated(Repeat::Mismatch)),
        "in_progress" => return Ok(Admission::Repeated(Repeat::InProgress)),
        "unanswered" => return Ok(Admission::Repeated(Repeat::Unanswered(row.item_id.into()))),
        "answered" => {
            let body = row
                .saved_body
                .ok_or_else(|| impossible("an answered key has no answer"))?;
            let status = row
                .number
                .and_then(|status| u16::try_from(status).ok())
                .unwrap_or(200);
            return Ok(Admission::Repeated(Repeat::Answered(SavedAnswer {
                status,
                body,
            })));
        }
        "user_limit" => QueueReason::UserLimit(numbers()?),
        "system_limit" => QueueReason::SystemLimit(numbers()?),
        "earlier_calls" => QueueReason::EarlierDirectCalls {
            ahead: u64::from(counted(row.ahead)?),
        },
        "scheduled" => QueueReason::Scheduled(
            row.wakes_at
                .ok_or_else(|| impossible("a scheduled call has no time"))?,
        ),
        "paused" => QueueReason::DispatchPaused,
        other => return Err(impossible(&format!("the verdict {other:?}"))),
    };
    // What sleeps stands behind what is due, by the time it wakes: that takes a look.
    let place = match reason {
        QueueReason::Scheduled(_) => place_of(conn, row.item_id)?
            .ok_or_else(|| impossible("a scheduled call does not wait"))?,
        _ => QueuePlace {
            position: u64::from(counted(row.ahead)?) + 1,
            total_in_queue: u64::from(counted(row.total)?),
            pace: pace(row.slots, row.samples, row.mean_hold_ms),
        },
    };
    Ok(Admission::Queued(Queued {
        item_id: row.item_id.into(),
        reason,
        place,
        expires_at: row.expires_at,
    }))
}

fn queued_before(
    conn: &mut PgConnection,
    call: &NewDirectCall,
    item: Uuid,
) -> Result<Queued, Failure> {
    let place = place_of(conn, item)?.ok_or_else(|| {
        Failure::from(StoreError::Conflict("the call has already started".into()))
    })?;
    let reason = match call.scheduled_for {
        Some(at) if at > Utc::now() => QueueReason::Scheduled(at),
        _ => QueueReason::EarlierDirectCalls {
            ahead: place.position.saturating_sub(1),
        },
    };
    Ok(Queued {
        item_id: item.into(),
        reason,
        place,
        expires_at: expiry_of(conn, item)?,
    })
}

/// A count from SQL, where it is never negative and fits.
fn counted(value: Option<i64>) -> Result<u32, Failure> {
    value
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| impossible("a count is missing or negative"))
}
