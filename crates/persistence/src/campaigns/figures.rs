//! Campaigns in figures: from counters where there are any, from the calls themselves where these
//! are few enough to be looked at.

use callq_domain::{CampaignCalls, CampaignStatistics, CampaignStatus, CampaignSummary, Outcome};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::Failure;
use crate::rows::campaign::{CampaignRow, ProgressRow};
use crate::rows::{count, unreadable};

/// How many ended calls of a campaign are looked at one by one. With more, how they went in detail
/// is not told: it would take as long as there are calls.
const MOST_CALLS: i64 = 100_000;

#[derive(QueryableByName)]
struct DeletedRow {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    deleted_at: Option<DateTime<Utc>>,
}

pub(super) fn campaign_statistics_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
) -> Result<Option<CampaignStatistics>, Failure> {
    let row: Option<CampaignRow> = sql_query(format!(
        "{} WHERE c.id = $1 AND c.user_id = $2",
        CampaignRow::SELECT
    ))
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(user)
    .get_result(conn)
    .optional()?;
    let Some(row) = row else {
        return Ok(None);
    };
    let deleted: DeletedRow = sql_query("SELECT deleted_at FROM campaigns WHERE id = $1")
        .bind::<SqlUuid, _>(id)
        .get_result(conn)?;
    Ok(Some(CampaignStatistics {
        campaign: row.into_campaign()?,
        deleted_at: deleted.deleted_at,
        calls: calls_of(conn, id)?,
    }))
}

#[derive(QueryableByName)]
struct CallsRow {
    #[diesel(sql_type = BigInt)]
    items: i64,
    #[diesel(sql_type = BigInt)]
    ended: i64,
    #[diesel(sql_type = Array<BigInt>)]
    by_outcome: Vec<i64>,
    #[diesel(sql_type = BigInt)]
    attempts: i64,
    #[diesel(sql_type = BigInt)]
    talk_seconds: i64,
}

/// How the calls of a campaign went, each that was made again too: from its part of an index, all of
/// it or nothing. The last call of an item tells the attempts of all.
fn calls_of(conn: &mut PgConnection, campaign: Uuid) -> Result<Option<CampaignCalls>, Failure> {
    let by_outcome: Vec<String> = Outcome::ALL
        .iter()
        .map(|outcome| format!("count(*) FILTER (WHERE outcome = '{}')", outcome.as_str()))
        .collect();
    let row: CallsRow = sql_query(format!(
        "SELECT count(*) AS items, count(outcome) AS ended, ARRAY[{}] AS by_outcome, \
             coalesce(sum(attempts - attempts_before) FILTER (WHERE outcome IS NOT NULL), 0)::bigint \
                 AS attempts, \
             coalesce(sum(duration_seconds), 0)::bigint AS talk_seconds \
         FROM (SELECT outcome, attempts, duration_seconds, \
                 lag(attempts, 1, 0) OVER (PARTITION BY id ORDER BY finished_at) AS attempts_before \
             FROM (SELECT h.id, h.finished_at, h.outcome, h.attempts::integer AS attempts, \
                     h.duration_seconds \
                 FROM call_queue_history h WHERE h.campaign_id = $1 LIMIT $2) h) h",
        by_outcome.join(", ")
    ))
    .bind::<SqlUuid, _>(campaign)
    .bind::<BigInt, _>(MOST_CALLS + 1)
    .get_result(conn)?;
    if row.items > MOST_CALLS {
        return Ok(None);
    }
    let mut calls = CampaignCalls {
        ended: count("call_queue_history", row.ended)?,
        attempts: count("call_queue_history.attempts", row.attempts)?,
        talk_seconds: count("call_queue_history.duration_seconds", row.talk_seconds)?,
        ..CampaignCalls::default()
    };
    for (counted, found) in calls.by_outcome.iter_mut().zip(row.by_outcome) {
        *counted = count("call_queue_history.outcome", found)?;
    }
    Ok(Some(calls))
}

/// A user's campaigns of one status, those deleted apart.
#[derive(QueryableByName)]
struct StatusRow {
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Bool)]
    deleted: bool,
    #[diesel(sql_type = BigInt)]
    campaigns: i64,
    #[diesel(embed)]
    progress: ProgressRow,
}

pub(super) fn campaign_summary_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
) -> Result<CampaignSummary, Failure> {
    let rows: Vec<StatusRow> = sql_query(
        "SELECT CASE WHEN c.status = 'active' AND k.keeps_hours AND k.opened_at IS NULL \
                 THEN 'scheduled' ELSE c.status END AS status, \
             c.deleted_at IS NOT NULL AS deleted, count(*) AS campaigns, \
             sum(s.due::bigint + s.later)::bigint AS waiting, \
             coalesce(sum(a.calls), 0)::bigint AS active, sum(s.completed)::bigint AS completed, \
             sum(s.failed)::bigint AS failed, sum(s.cancelled)::bigint AS cancelled, \
             sum(s.expired)::bigint AS expired \
         FROM campaigns c JOIN campaign_counts s ON s.campaign_id = c.id \
         JOIN campaign_slots k ON k.campaign_id = c.id \
         LEFT JOIN (SELECT campaign_id, count(*) AS calls FROM active_calls \
             WHERE user_id = $1 AND campaign_id IS NOT NULL GROUP BY campaign_id) a \
             ON a.campaign_id = c.id \
         WHERE c.user_id = $1 GROUP BY 1, 2 ORDER BY 1, 2",
    )
    .bind::<SqlUuid, _>(user)
    .load(conn)?;
    let mut summary = CampaignSummary::default();
    for row in rows {
        let status = CampaignStatus::from_name(&row.status)
            .ok_or_else(|| unreadable("campaigns.status", &row.status))?;
        let campaigns = count("campaigns", row.campaigns)?;
        let progress = row.progress.into_progress(status)?;
        if row.deleted {
            summary.deleted += campaigns;
            summary.deleted_progress = summary.deleted_progress.plus(progress);
        } else {
            summary.by_status.push((status, campaigns));
            summary.progress = summary.progress.plus(progress);
        }
    }
    Ok(summary)
}
