//! The door's columns in, the domain's answers out.

use std::collections::HashMap;

use callq_domain::{
    Admission, CallType, IdempotencyKey, ListedOn, NewDirectCall, Pace, PacedBy, QueueFull,
    QueuePlace, QueueReason, Queued, Refusal, Repeat, Return, SavedAnswer, SlotUse, Target,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::Failure;
use crate::engine::{impossible, pace, reserved_call};
use crate::functions::{AdmissionColumns, ReservedCallRow, VerdictRow};

pub(crate) fn admission_columns(calls: &[NewDirectCall]) -> AdmissionColumns {
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

/// The domain's answers to admissions, each started call taken from those of the door.
pub(crate) fn admissions(
    calls: &[NewDirectCall],
    verdicts: Vec<VerdictRow>,
    door: Vec<ReservedCallRow>,
) -> Result<Vec<Admission>, Failure> {
    if verdicts.len() != calls.len() {
        return Err(impossible("as many verdicts as it had no admissions for"));
    }
    let mut started: HashMap<Uuid, ReservedCallRow> =
        door.into_iter().map(|row| (row.0, row)).collect();
    let verdicts = verdicts.into_iter();
    verdicts
        .map(|row| admission(Verdict::read(row)?, &mut started))
        .collect()
}

/// The domain's answers to returns.
pub(crate) fn returned(
    returns: &[Return],
    rows: Vec<VerdictRow>,
) -> Result<Vec<Option<Queued>>, Failure> {
    let rows = returns.iter().zip(rows);
    rows.map(|(back, row)| {
        let row = Verdict::read(row)?;
        row.item
            .map(|_| row.queued(QueueReason::Provider(back.reason.clone())))
            .transpose()
    })
    .collect()
}

/// A [`VerdictRow`] with names.
struct Verdict {
    verdict: String,
    item: Option<Uuid>,
    number: Option<i64>,
    limit: Option<i64>,
    ahead: Option<i64>,
    total: Option<i64>,
    pace: Pace,
    wakes_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    saved_body: Option<String>,
}

impl Verdict {
    fn read(row: VerdictRow) -> Result<Self, Failure> {
        let (
            _,
            verdict,
            item,
            number,
            limit,
            ahead,
            total,
            slots,
            samples,
            mean,
            wakes,
            expires,
            body,
        ) = row;
        Ok(Self {
            verdict: verdict.unwrap_or_default(),
            item,
            number,
            limit,
            ahead,
            total,
            pace: pace(slots, samples, mean),
            wakes_at: wakes,
            expires_at: expires,
            saved_body: body,
        })
    }

    fn item(&self) -> Result<Uuid, Failure> {
        self.item.ok_or_else(|| impossible("a verdict on no item"))
    }

    fn slot_use(&self) -> Result<SlotUse, Failure> {
        Ok(SlotUse {
            limit: counted(self.limit)?,
            active: counted(self.number)?,
        })
    }

    fn queue_full(&self) -> Result<QueueFull, Failure> {
        Ok(QueueFull {
            call_type: CallType::Direct,
            limit: counted(self.limit)?,
            waiting: u64::from(counted(self.number)?),
            asked: 1,
            pace: self.pace,
        })
    }

    fn ahead(&self) -> Result<u64, Failure> {
        counted(self.ahead).map(u64::from)
    }

    fn queued(&self, reason: QueueReason) -> Result<Queued, Failure> {
        Ok(Queued {
            item_id: self.item()?.into(),
            reason,
            place: QueuePlace {
                position: self.ahead()? + 1,
                total_in_queue: u64::from(counted(self.total)?),
                pace: self.pace,
            },
            expires_at: self.expires_at,
        })
    }
}

/// Turns a verdict into the domain's answer, taking its call out of `started` if it has one.
fn admission(
    row: Verdict,
    started: &mut HashMap<Uuid, ReservedCallRow>,
) -> Result<Admission, Failure> {
    let reason = match row.verdict.as_str() {
        // The latter is the same admission once more, after a lost answer: it stands.
        "started" | "started_before" => {
            let reserved = started
                .remove(&row.item()?)
                .ok_or_else(|| impossible("a started call has no slot"))?;
            return Ok(Admission::Started(Box::new(reserved_call(reserved)?)));
        }
        "unknown_user" => return Ok(Admission::Refused(Refusal::UnknownUser)),
        "unknown_agent" => return Ok(Admission::Refused(Refusal::UnknownAgent)),
        "unknown_contact" => return Ok(Admission::Refused(Refusal::UnknownContact)),
        "do_not_call_own" => return Ok(Admission::Refused(Refusal::DoNotCall(ListedOn::Own))),
        "do_not_call_global" => {
            return Ok(Admission::Refused(Refusal::DoNotCall(ListedOn::Global)));
        }
        "no_credits" => {
            let credits = row.number.unwrap_or(0);
            return Ok(Admission::Refused(Refusal::NoCredits { credits }));
        }
        "queue_full" => return Ok(Admission::Refused(Refusal::QueueFull(row.queue_full()?))),
        "mismatch" => return Ok(Admission::Repeated(Repeat::Mismatch)),
        "in_progress" => return Ok(Admission::Repeated(Repeat::InProgress)),
        "unanswered" => return Ok(Admission::Repeated(Repeat::Unanswered(row.item()?.into()))),
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
        "user_limit" => QueueReason::UserLimit(row.slot_use()?),
        "system_limit" => QueueReason::SystemLimit(row.slot_use()?),
        "earlier_calls" => QueueReason::EarlierDirectCalls {
            ahead: row.ahead()?,
        },
        "scheduled" => QueueReason::Scheduled(
            row.wakes_at
                .ok_or_else(|| impossible("a scheduled call has no time"))?,
        ),
        "paused" => QueueReason::DispatchPaused,
        "provider_pace" => QueueReason::Paced(PacedBy::Provider),
        // The same admission once more, waiting as it was decided.
        "again" => match row.wakes_at {
            Some(at) => QueueReason::Scheduled(at),
            None => QueueReason::EarlierDirectCalls {
                ahead: row.ahead()?,
            },
        },
        other => return Err(impossible(&format!("the verdict {other:?}"))),
    };
    Ok(Admission::Queued(row.queued(reason)?))
}

/// A count from SQL, where it is never negative and fits.
fn counted(value: Option<i64>) -> Result<u32, Failure> {
    value
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| impossible("a count is missing or negative"))
}
