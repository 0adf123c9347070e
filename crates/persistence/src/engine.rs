//! The engine's store: a batch becomes one call of one SQL function.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use callq_domain::{
    Attempt, EndingEffect, EngineStore, Fence, Origin, Pace, PhoneNumber, PlacementRequest,
    ProgressBatch, ProgressOutcome, ProviderName, ReservedCall, ServerId, SlotBatch, SlotOutcome,
    StoreError,
};
use chrono::Utc;
use diesel::sql_types::{Array, SmallInt, Text, Uuid as SqlUuid};
use diesel::{PgConnection, RunQueryDsl, sql_query};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::door::{admission_columns, admissions, returned};
use crate::functions::{
    self, EndingColumns, EventColumns, PlacedColumns, ProgressRow, ReservedCallRow, ReturnColumns,
    Run, SettledRow, Settlement, UnknownColumns,
};
use crate::{Failure, PostgresStore};

#[async_trait]
impl EngineStore for PostgresStore {
    async fn settle(&self, server: ServerId, batch: &SlotBatch) -> Result<SlotOutcome, StoreError> {
        let batch = batch.clone();
        let provider = self.default_provider.clone();
        // Drawn before anything can delay it: one that is sent again has a later number.
        let number = next_number();
        let pooled = Arc::clone(&self.pooled);
        self.engine
            .run_statement(move |conn| {
                let run = match pooled.load(Ordering::Relaxed) {
                    false => Run::Backend,
                    true => Run::Node,
                };
                let row = functions::settle(
                    conn,
                    settlement(server.as_uuid(), number, provider.as_str(), &batch),
                    run,
                )?;
                if !row.durable && !functions::flush(conn, run, row.run.as_deref())? {
                    // From now on backends may differ; this once there is no telling.
                    pooled.store(true, Ordering::Relaxed);
                    return Err(StoreError::Unavailable(
                        "a settlement may have been lost before it was flushed".into(),
                    )
                    .into());
                }
                outcome(number, &batch, row)
            })
            .await
    }

    async fn record_progress(
        &self,
        server: ServerId,
        batch: &ProgressBatch,
    ) -> Result<ProgressOutcome, StoreError> {
        let (batch, server) = (batch.clone(), server.as_uuid());
        if batch.answers.is_empty() {
            return self
                .engine
                .run_statement(move |conn| record_progress_on_conn(conn, server, &batch))
                .await;
        }
        self.engine
            .run(move |conn| {
                keep_answers(conn, &batch)?;
                record_progress_on_conn(conn, server, &batch)
            })
            .await
    }
}

/// The next number for a settlement: greater than any before, of this process or, as far as the
/// clock can be trusted, of one before it under the same server id.
pub(crate) fn next_number() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = Utc::now().timestamp_micros();
    let before = LAST
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            Some(now.max(last + 1))
        })
        .unwrap_or(now);
    now.max(before + 1)
}

fn settlement<'a>(
    server: Uuid,
    number: i64,
    provider: &'a str,
    batch: &SlotBatch,
) -> Settlement<'a> {
    Settlement {
        server,
        number,
        answered: batch
            .answered
            .map(|number| i64::try_from(number).unwrap_or(i64::MAX)),
        provider,
        limit: i32::try_from(batch.reserve).unwrap_or(i32::MAX),
        disowned: batch.disowned.iter().map(|item| item.as_uuid()).collect(),
        endings: ending_columns(batch),
        returns: return_columns(batch),
        admissions: admission_columns(&batch.admissions),
    }
}

fn outcome(number: i64, batch: &SlotBatch, row: SettledRow) -> Result<SlotOutcome, Failure> {
    // What was added to the endings asked for comes after them.
    let effects = row.effects.unwrap_or_default();
    Ok(SlotOutcome {
        number: u64::try_from(number).unwrap_or(0),
        endings: effects
            .iter()
            .take(batch.endings.len())
            .map(|effect| ending_effect(effect))
            .collect::<Result<_, _>>()?,
        returns: returned(&batch.returns, row.returned.unwrap_or_default())?,
        admissions: admissions(
            &batch.admissions,
            row.verdicts.unwrap_or_default(),
            row.door.unwrap_or_default(),
        )?,
        reserved: row
            .reserved
            .unwrap_or_default()
            .into_iter()
            .map(reserved_call)
            .collect::<Result<_, _>>()?,
        more: row.more,
        next_timer: row
            .next_timer_ms
            .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
    })
}

fn return_columns(batch: &SlotBatch) -> ReturnColumns {
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
    columns
}

fn record_progress_on_conn(
    conn: &mut PgConnection,
    server: Uuid,
    batch: &ProgressBatch,
) -> Result<ProgressOutcome, Failure> {
    let (calls, attempts) = attempt_columns(batch.placed.iter().map(|(attempt, _)| attempt));
    let placed = PlacedColumns {
        calls,
        attempts,
        executions: batch.placed.iter().map(|(_, id)| id.to_string()).collect(),
    };
    let (calls, attempts) = attempt_columns(batch.unknown.iter().map(|(attempt, _)| attempt));
    let unknown = UnknownColumns {
        calls,
        attempts,
        reasons: batch.unknown.iter().map(|(_, why)| why.clone()).collect(),
    };
    let mut events = EventColumns::default();
    for event in &batch.events {
        events.calls.push(event.call_id.as_uuid());
        events.statuses.push(event.status.as_call_status().as_str());
        events
            .executions
            .push(event.execution_id.as_ref().map(ToString::to_string));
        events.reasons.push(event.reason.clone());
    }
    let row: ProgressRow = functions::record_progress(conn, server, placed, events, unknown)?;
    Ok(ProgressOutcome {
        placed: news(batch.placed.len(), row.placed),
        unknown: news(batch.unknown.len(), row.lost),
        events: row
            .effects
            .unwrap_or_default()
            .iter()
            .map(|effect| ending_effect(effect))
            .collect::<Result<_, _>>()?,
    })
}

/// Whether each of so many requests is among those, numbered from 1, that were news.
fn news(requests: usize, numbers: Option<Vec<i64>>) -> Vec<bool> {
    let mut news = vec![false; requests];
    for number in numbers.unwrap_or_default() {
        let index = usize::try_from(number - 1).ok();
        if let Some(one) = index.and_then(|index| news.get_mut(index)) {
            *one = true;
        }
    }
    news
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
    let (
        item,
        call,
        attempt,
        user,
        agent,
        campaign,
        provider,
        to,
        from,
        told_as,
        settings,
        name,
        data,
    ) = row;
    let provider = ProviderName::new(&provider)
        .ok_or_else(|| impossible(&format!("the provider name {provider:?}")))?;
    Ok(ReservedCall {
        item_id: item.into(),
        provider,
        request: PlacementRequest {
            attempt: Attempt {
                call_id: call.into(),
                number: u32::try_from(attempt).map_err(|_| impossible("a negative attempt"))?,
            },
            to: PhoneNumber::from_trusted(to),
            from,
            origin: campaign.map_or(Origin::Direct, |id| Origin::Campaign(id.into())),
            user_id: user.into(),
            agent_id: agent.into(),
            provider_agent_id: told_as,
            settings: settings.map(raw_json).transpose()?,
            contact_name: name,
            user_data: data.map(raw_json).transpose()?,
            fence: Fence::default(),
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
