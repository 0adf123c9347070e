//! The engine's store: a batch becomes one transaction of SQL functions, each called only if the
//! batch has work for it.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use callq_domain::{
    Admission, Attempt, EndingEffect, EngineStore, NewDirectCall, Origin, Pace, PhoneNumber,
    PlacementRequest, ProgressBatch, ProgressOutcome, ProviderName, QueueReason, Queued, Repeat,
    ReservedCall, ServerId, SlotBatch, SlotOutcome, StoreError,
};
use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, SmallInt, Text, Uuid as SqlUuid};
use diesel::{PgConnection, RunQueryDsl, sql_query};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::door::{admission, admission_columns, over_already};
use crate::functions::{self, EndingColumns, ReservedCallRow, ReturnColumns};
use crate::queue::place_of;
use crate::{Failure, PostgresStore};

#[async_trait]
impl EngineStore for PostgresStore {
    async fn settle(&self, server: ServerId, batch: &SlotBatch) -> Result<SlotOutcome, StoreError> {
        let batch = batch.clone();
        let provider = self.default_provider.clone();
        self.engine
            .run(move |conn| settle_on_conn(conn, server.as_uuid(), provider.as_str(), batch))
            .await
    }

    async fn record_progress(
        &self,
        server: ServerId,
        batch: &ProgressBatch,
    ) -> Result<ProgressOutcome, StoreError> {
        let batch = batch.clone();
        self.engine
            .run(move |conn| record_progress_on_conn(conn, server.as_uuid(), batch))
            .await
    }
}

fn settle_on_conn(
    conn: &mut PgConnection,
    server: Uuid,
    provider: &str,
    batch: SlotBatch,
) -> Result<SlotOutcome, Failure> {
    let budget = i32::try_from(batch.reserve).unwrap_or(i32::MAX);
    let now = functions::lock_engine(conn)?;
    let mut outcome = SlotOutcome::default();

    if !batch.disowned.is_empty() {
        let items = batch.disowned.iter().map(|item| item.as_uuid()).collect();
        functions::disown_items(conn, server, items, now)?;
    }
    if !batch.endings.is_empty() && !batch.returns.is_empty() {
        let ended = batch.endings.iter().map(|ending| ending.call_id.as_uuid());
        let back = batch
            .returns
            .iter()
            .map(|back| back.attempt.call_id.as_uuid());
        functions::lock_calls(conn, &ended.chain(back).collect::<Vec<_>>())?;
    }
    if !batch.endings.is_empty() {
        outcome.endings = functions::end_calls(conn, server, ending_columns(&batch), now)?
            .iter()
            .map(|effect| ending_effect(effect))
            .collect::<Result<_, _>>()?;
    }
    // Told before anything starts: what came back may go again in this very batch.
    outcome.returns = return_calls(conn, server, &batch, now)?;
    // Nothing that should have expired may start: while some is left, only that is worked off.
    let all_expired = functions::wake_and_expire(conn, server, now)?;
    let budget = if all_expired { budget } else { 0 };

    let mut started = functions::reserve_direct_calls(conn, server, provider, budget, now)?;
    let over = over_already(conn, &batch)?;
    let asking: Vec<&NewDirectCall> = batch
        .admissions
        .iter()
        .filter(|call| !over.contains(&call.item_id.as_uuid()))
        .collect();
    let verdicts = if asking.is_empty() {
        Vec::new()
    } else {
        functions::admit_direct_calls(conn, server, provider, admission_columns(&asking), now)?
    };
    let left = budget.saturating_sub(i32::try_from(started.len()).unwrap_or(i32::MAX));
    started.extend(functions::reserve_campaign_calls(
        conn, server, provider, left, now,
    )?);

    let at_the_door = verdicts
        .iter()
        .filter(|row| matches!(row.verdict.as_str(), "started" | "again"))
        .map(|row| row.item_id)
        // A batch that is sent again may find its own call waiting, and reserve it.
        .filter(|item| !started.contains(item));
    let described: Vec<Uuid> = started.iter().copied().chain(at_the_door).collect();
    let mut calls = if described.is_empty() {
        Vec::new()
    } else {
        functions::reserved_calls(conn, &described)?
    };

    let mut verdicts = verdicts.into_iter();
    for call in &batch.admissions {
        outcome
            .admissions
            .push(if over.contains(&call.item_id.as_uuid()) {
                Admission::Repeated(Repeat::Unanswered(call.item_id))
            } else {
                let verdict = verdicts
                    .next()
                    .ok_or_else(|| impossible("fewer verdicts than admissions"))?;
                admission(conn, call, verdict, &mut calls)?
            });
    }
    for row in calls {
        outcome.reserved.push(reserved_call(row)?);
    }

    let outlook = functions::engine_outlook(conn, now)?;
    outcome.more = outlook.more;
    outcome.next_timer = outlook
        .next_timer_ms
        .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    Ok(outcome)
}

fn return_calls(
    conn: &mut PgConnection,
    server: Uuid,
    batch: &SlotBatch,
    now: DateTime<Utc>,
) -> Result<Vec<Option<Queued>>, Failure> {
    if batch.returns.is_empty() {
        return Ok(Vec::new());
    }
    let (calls, attempts) = attempt_columns(batch.returns.iter().map(|back| &back.attempt));
    let mut columns = ReturnColumns {
        calls,
        attempts,
        ..ReturnColumns::default()
    };
    for back in &batch.returns {
        let delay = i64::try_from(back.delay.as_millis()).unwrap_or(i64::MAX);
        columns.delays_ms.push(delay);
        columns.reasons.push(back.reason.clone());
        columns.if_unknown.push(back.if_unknown);
    }
    let items = functions::return_calls(conn, server, columns, now)?;
    let returned = batch.returns.iter().zip(items);
    returned
        .map(|(back, item)| {
            item.map(|id| returned_to_queue(conn, id, &back.reason))
                .transpose()
        })
        .collect()
}

fn returned_to_queue(conn: &mut PgConnection, item: Uuid, reason: &str) -> Result<Queued, Failure> {
    let place = place_of(conn, item)?.ok_or_else(|| impossible("a returned item does not wait"))?;
    Ok(Queued {
        item_id: item.into(),
        reason: QueueReason::Provider(reason.to_owned()),
        place,
        expires_at: expiry_of(conn, item)?,
    })
}

pub(crate) fn expiry_of(
    conn: &mut PgConnection,
    item: Uuid,
) -> Result<Option<DateTime<Utc>>, Failure> {
    use diesel::prelude::*;
    use diesel::sql_types::{Nullable, Timestamptz};
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Nullable<Timestamptz>)]
        expires_at: Option<DateTime<Utc>>,
    }
    let row: Option<Row> = sql_query("SELECT expires_at FROM call_queue WHERE id = $1")
        .bind::<SqlUuid, _>(item)
        .get_result(conn)
        .optional()?;
    Ok(row.and_then(|row| row.expires_at))
}

fn record_progress_on_conn(
    conn: &mut PgConnection,
    server: Uuid,
    batch: ProgressBatch,
) -> Result<ProgressOutcome, Failure> {
    let mut outcome = ProgressOutcome::default();
    // Several functions will lock some of these, each in order: only one lock of all keeps it.
    let placed = batch.placed.iter().map(|(attempt, _)| attempt.call_id);
    let lost = batch.unknown.iter().map(|(attempt, _)| attempt.call_id);
    let told = batch.events.iter().map(|event| event.call_id);
    let marked = batch.dialing.iter().map(|attempt| attempt.call_id);
    let all = placed.chain(lost).chain(told).chain(marked);
    functions::lock_calls(conn, &all.map(|id| id.as_uuid()).collect::<Vec<_>>())?;

    if !batch.placed.is_empty() {
        let (calls, attempts) = attempt_columns(batch.placed.iter().map(|(attempt, _)| attempt));
        let executions = batch.placed.iter().map(|(_, id)| id.to_string()).collect();
        let news = functions::record_placed(conn, server, calls, attempts, executions)?;
        outcome.placed = marks(batch.placed.iter().map(|(attempt, _)| attempt), &news);
    }
    if !batch.events.is_empty() {
        outcome.events = functions::record_events(
            conn,
            server,
            batch
                .events
                .iter()
                .map(|event| event.call_id.as_uuid())
                .collect(),
            batch
                .events
                .iter()
                .map(|event| event.status.as_call_status().as_str())
                .collect(),
            batch
                .events
                .iter()
                .map(|event| event.execution_id.as_ref().map(ToString::to_string))
                .collect(),
            batch
                .events
                .iter()
                .map(|event| event.reason.clone())
                .collect(),
        )?
        .iter()
        .map(|effect| ending_effect(effect))
        .collect::<Result<_, _>>()?;
    }
    if !batch.unknown.is_empty() {
        let (calls, attempts) = attempt_columns(batch.unknown.iter().map(|(attempt, _)| attempt));
        let reasons = batch
            .unknown
            .iter()
            .map(|(_, reason)| reason.clone())
            .collect();
        let news = functions::record_unknown(conn, server, calls, attempts, reasons)?;
        outcome.unknown = marks(batch.unknown.iter().map(|(attempt, _)| attempt), &news);
    }
    if !batch.answers.is_empty() {
        keep_answers(conn, &batch)?;
    }
    if !batch.dialing.is_empty() {
        let (calls, attempts) = attempt_columns(batch.dialing.iter());
        let may_go = functions::mark_dialing(conn, server, calls, attempts)?;
        outcome.dialing = marks(batch.dialing.iter(), &may_go);
    }
    Ok(outcome)
}

fn keep_answers(conn: &mut PgConnection, batch: &ProgressBatch) -> Result<(), Failure> {
    sql_query(
        "UPDATE idempotency_keys k SET status = i.status, body = i.body \
         FROM unnest($1, $2, $3, $4) i (user_id, key, status, body) \
         WHERE k.user_id = i.user_id AND k.key = i.key",
    )
    .bind::<Array<SqlUuid>, _>(
        batch
            .answers
            .iter()
            .map(|a| a.user_id.as_uuid())
            .collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(
        batch
            .answers
            .iter()
            .map(|a| a.key.as_str())
            .collect::<Vec<_>>(),
    )
    .bind::<Array<SmallInt>, _>(
        batch
            .answers
            .iter()
            .map(|a| i16::try_from(a.answer.status).unwrap_or(i16::MAX))
            .collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(
        batch
            .answers
            .iter()
            .map(|a| a.answer.body.as_str())
            .collect::<Vec<_>>(),
    )
    .execute(conn)?;
    Ok(())
}

fn attempt_columns<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> (Vec<Uuid>, Vec<i32>) {
    attempts
        .map(|attempt| (attempt.call_id.as_uuid(), stored(attempt.number)))
        .unzip()
}

/// Which of the attempts are among the marked. Each mark is given away once, so that of two
/// requests for one attempt one is told no.
fn marks<'a>(attempts: impl Iterator<Item = &'a Attempt>, marked: &[Attempt]) -> Vec<bool> {
    let mut left: HashSet<&Attempt> = marked.iter().collect();
    attempts.map(|attempt| left.remove(attempt)).collect()
}

fn ending_columns(batch: &SlotBatch) -> EndingColumns {
    let mut columns = EndingColumns::default();
    for ending in &batch.endings {
        columns.calls.push(ending.call_id.as_uuid());
        columns.attempts.push(ending.attempt.map(stored));
        columns.outcomes.push(ending.outcome.as_str());
        columns
            .executions
            .push(ending.execution_id.as_ref().map(ToString::to_string));
        columns.reasons.push(ending.reason.clone());
        columns.durations.push(ending.duration_seconds.map(stored));
    }
    columns
}

/// What is known of a user's calls, from its counters' columns.
pub(crate) fn pace(slots: Option<i32>, samples: Option<i32>, mean_hold_ms: Option<f64>) -> Pace {
    let mean = Duration::try_from_secs_f64(mean_hold_ms.unwrap_or(0.0) / 1000.0);
    Pace {
        slots: slots.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        samples: samples.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        mean_hold: mean.unwrap_or_default(),
    }
}

pub(crate) fn reserved_call(row: ReservedCallRow) -> Result<ReservedCall, Failure> {
    let provider = ProviderName::new(&row.provider)
        .ok_or_else(|| impossible(&format!("the provider name {:?}", row.provider)))?;
    Ok(ReservedCall {
        item_id: row.item_id.into(),
        provider,
        request: PlacementRequest {
            attempt: Attempt {
                call_id: row.call_id.into(),
                number: u32::try_from(row.attempt).map_err(|_| impossible("a negative attempt"))?,
            },
            to: PhoneNumber::from_trusted(row.phone_number),
            from: row.caller_id,
            origin: row
                .campaign_id
                .map_or(Origin::Direct, |id| Origin::Campaign(id.into())),
            user_id: row.user_id.into(),
            agent_id: row.agent_id.into(),
            provider_agent_id: row.provider_agent_id,
            settings: row.settings.map(raw_json).transpose()?,
            contact_name: row.contact_name,
            user_data: row.user_data.map(raw_json).transpose()?,
        },
    })
}

/// A jsonb column read as text.
pub(crate) fn raw_json(text: String) -> Result<Box<RawValue>, Failure> {
    RawValue::from_string(text).map_err(|error| impossible(&format!("stored JSON: {error}")))
}

fn ending_effect(effect: &str) -> Result<EndingEffect, Failure> {
    match effect {
        "ended" => Ok(EndingEffect::Ended),
        "ignored" => Ok(EndingEffect::Ignored),
        "unknown" => Ok(EndingEffect::UnknownCall),
        other => Err(impossible(&format!("the effect {other:?}"))),
    }
}

/// A small number as an SQL integer; nothing callq counts comes near the bound.
pub(crate) fn stored(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The store answered something it never should.
pub(crate) fn impossible(what: &str) -> Failure {
    StoreError::Internal(format!("the database answered {what}")).into()
}
