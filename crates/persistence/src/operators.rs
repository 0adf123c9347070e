//! What operators see and change: limits, the pause switch, users with their load, single calls,
//! the audit.

use std::time::Duration;

use async_trait::async_trait;
use callq_domain::{
    AuditDifference, CallRate, CallStatus, CallStory, ConcurrencyLimit, HandEffect, HandSettlement,
    HeldCalls, OperatorStore, Page, PageRequest, ProviderName, ProviderPace, QueueDefaults,
    StoreError, SystemGauges, SystemState, User, UserChange, UserId, UserLoad,
};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{
    BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::cursor::{IdPage, List};
use crate::failure::is_understood;
use crate::operator_calls::{call_story_on_conn, held_calls_on_conn, settle_by_hand_on_conn};
use crate::queue::LOAD_COLUMNS;
use crate::rows::system::{AuditRow, SystemRow};

use crate::rows::user::{LoadRow, UserLoadRow, UserRow, cap_column, limit_column};
use crate::rows::{call_rate, count, provider, unreadable};
use crate::{Failure, PostgresStore, functions, migrations};

impl PostgresStore {
    /// The language of the database's messages, if faults cannot be told from defects in it: see
    /// `failure.rs`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn foreign_messages(&self) -> Result<Option<String>, StoreError> {
        self.database
            .run(|conn| {
                let row: LanguageRow =
                    sql_query("SELECT current_setting('lc_messages') AS language")
                        .get_result(conn)?;
                Ok(Some(row.language).filter(|language| !is_understood(language)))
            })
            .await
    }

    /// Sets the system's limit at a first start; once it was set, by this or by an operator, it stays.
    /// Notes which provider carries the calls of agents that name none, for its pace.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn initialize_system_limit(
        &self,
        limit: ConcurrencyLimit,
    ) -> Result<SystemState, StoreError> {
        let provider = self.default_provider.clone();
        self.database
            .run(move |conn| {
                functions::lock_engine(conn)?;
                sql_query(
                    "UPDATE system_state SET concurrent_calls_limit = $1, limit_was_set = true \
                     WHERE NOT limit_was_set",
                )
                .bind::<Integer, _>(limit_column(limit))
                .execute(conn)?;
                sql_query(
                    "UPDATE system_state SET default_provider = $1 WHERE default_provider <> $1",
                )
                .bind::<Text, _>(provider.as_str())
                .execute(conn)?;
                system_state_on_conn(conn)
            })
            .await
    }

    /// Sets what holds for waiting calls of which nothing else is said, at each start: that of the
    /// server which started last holds for all.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn adopt_queue_defaults(&self, defaults: QueueDefaults) -> Result<(), StoreError> {
        let seconds = |ttl: Duration| i32::try_from(ttl.as_secs()).unwrap_or(i32::MAX);
        self.database
            .run(move |conn| {
                functions::lock_engine(conn)?;
                sql_query(
                    "UPDATE system_state SET max_queued_direct_calls = $1, \
                     max_queued_campaign_calls = $2, direct_call_ttl_seconds = $3, \
                     campaign_call_ttl_seconds = $4",
                )
                .bind::<Nullable<Integer>, _>(defaults.max_queued_direct_calls.map(cap_column))
                .bind::<Nullable<Integer>, _>(defaults.max_queued_campaign_calls.map(cap_column))
                .bind::<Nullable<Integer>, _>(defaults.direct_call_ttl.map(seconds))
                .bind::<Nullable<Integer>, _>(defaults.campaign_call_ttl.map(seconds))
                .execute(conn)?;
                Ok(())
            })
            .await
    }
}

#[async_trait]
impl OperatorStore for PostgresStore {
    async fn system_state(&self) -> Result<SystemState, StoreError> {
        self.database.run(system_state_on_conn).await
    }

    async fn set_system_limit(&self, limit: ConcurrencyLimit) -> Result<SystemState, StoreError> {
        self.database
            .run(move |conn| {
                functions::lock_engine(conn)?;
                sql_query(
                    "UPDATE system_state SET concurrent_calls_limit = $1, limit_was_set = true",
                )
                .bind::<Integer, _>(limit_column(limit))
                .execute(conn)?;
                system_state_on_conn(conn)
            })
            .await
    }

    async fn set_dispatch_paused(&self, paused: bool) -> Result<SystemState, StoreError> {
        self.database
            .run(move |conn| {
                functions::lock_engine(conn)?;
                sql_query("UPDATE system_state SET dispatch_paused = $1")
                    .bind::<Bool, _>(paused)
                    .execute(conn)?;
                system_state_on_conn(conn)
            })
            .await
    }

    async fn user_loads(&self, page: PageRequest) -> Result<Page<UserLoad>, StoreError> {
        let page = IdPage::new(List::Users, &page)?;
        self.database
            .run(move |conn| {
                let rows: Vec<UserLoadRow> = sql_query(format!(
                    "SELECT u.*, {LOAD_COLUMNS} FROM users u JOIN user_slots s ON s.user_id = u.id \
                     WHERE u.id < $1 ORDER BY u.id DESC LIMIT $2"
                ))
                .bind::<SqlUuid, _>(page.before)
                .bind::<BigInt, _>(page.fetch())
                .load(conn)?;
                page.of(rows, |row| row.user.id, UserLoadRow::into_load)
            })
            .await
    }

    async fn user_load(&self, id: UserId) -> Result<Option<UserLoad>, StoreError> {
        self.database
            .run(move |conn| {
                let row: Option<UserLoadRow> = sql_query(format!(
                    "SELECT u.*, {LOAD_COLUMNS} FROM users u JOIN user_slots s ON s.user_id = u.id \
                     WHERE u.id = $1"
                ))
                .bind::<SqlUuid, _>(id.as_uuid())
                .get_result(conn)
                .optional()?;
                row.map(UserLoadRow::into_load).transpose()
            })
            .await
    }

    async fn update_user(&self, id: UserId, change: UserChange) -> Result<User, StoreError> {
        self.database
            .run(move |conn| update_user_on_conn(conn, id.as_uuid(), &change))
            .await
    }

    async fn provider_paces(&self) -> Result<Vec<ProviderPace>, StoreError> {
        self.database
            .run(|conn| {
                let rows: Vec<ProviderPaceRow> = sql_query(
                    "SELECT provider, calls_per_second FROM provider_paces ORDER BY provider",
                )
                .load(conn)?;
                rows.into_iter().map(ProviderPaceRow::into_pace).collect()
            })
            .await
    }

    async fn set_provider_pace(
        &self,
        provider: ProviderName,
        calls_per_second: Option<CallRate>,
    ) -> Result<(), StoreError> {
        self.database
            .run(move |conn| {
                sql_query("SELECT set_provider_pace($1, $2)")
                    .bind::<Text, _>(provider.as_str())
                    .bind::<Nullable<Double>, _>(calls_per_second.map(CallRate::get))
                    .execute(conn)?;
                Ok(())
            })
            .await
    }

    async fn held_calls(
        &self,
        status: Option<CallStatus>,
        limit: Option<u32>,
    ) -> Result<HeldCalls, StoreError> {
        self.database
            .run(move |conn| held_calls_on_conn(conn, status, limit))
            .await
    }

    async fn call_story(&self, id: Uuid) -> Result<Option<CallStory>, StoreError> {
        let provider = self.default_provider.clone();
        self.database
            .run_long_read(move |conn| call_story_on_conn(conn, id, provider.as_str()))
            .await
    }

    async fn settle_by_hand(
        &self,
        id: Uuid,
        settlement: HandSettlement,
    ) -> Result<HandEffect, StoreError> {
        self.database
            .run(move |conn| settle_by_hand_on_conn(conn, id, &settlement))
            .await
    }

    async fn audit(&self) -> Result<Vec<AuditDifference>, StoreError> {
        self.database
            .run_long_read(|conn| {
                let rows: Vec<AuditRow> =
                    sql_query("SELECT counter, subject, kept, counted FROM audit_counters()")
                        .load(conn)?;
                Ok(rows.into_iter().map(AuditDifference::from).collect())
            })
            .await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.database
            .run_soon(|conn| {
                migrations::check_current_on_conn(conn)
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?;
                let writes: WritesRow =
                    sql_query("SELECT current_setting('transaction_read_only') = 'off' AS it_does")
                        .get_result(conn)?;
                if writes.it_does {
                    Ok(())
                } else {
                    Err(StoreError::Unavailable("the database is read-only".into()).into())
                }
            })
            .await
    }

    async fn gauges(&self) -> Result<SystemGauges, StoreError> {
        self.database.run_long_read(gauges_on_conn).await
    }
}

/// The language of messages.
#[derive(QueryableByName)]
struct LanguageRow {
    #[diesel(sql_type = Text)]
    language: String,
}

#[derive(QueryableByName)]
struct ProviderPaceRow {
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = Double)]
    calls_per_second: f64,
}

impl ProviderPaceRow {
    fn into_pace(self) -> Result<ProviderPace, Failure> {
        Ok(ProviderPace {
            provider: provider("provider_paces.provider", &self.provider)?,
            calls_per_second: call_rate("provider_paces.calls_per_second", self.calls_per_second)?,
        })
    }
}

/// Whether the database takes changes.
#[derive(QueryableByName)]
struct WritesRow {
    #[diesel(sql_type = Bool)]
    it_does: bool,
}

fn system_state_on_conn(conn: &mut PgConnection) -> Result<SystemState, Failure> {
    sql_query(format!("SELECT {} FROM system_state", SystemRow::COLUMNS))
        .get_result::<SystemRow>(conn)?
        .into_state()
}

fn update_user_on_conn(
    conn: &mut PgConnection,
    id: Uuid,
    change: &UserChange,
) -> Result<User, Failure> {
    functions::lock_engine(conn)?;
    let reserved = change
        .direct_reserved_slots
        .map(|slots| i32::try_from(slots).unwrap_or(i32::MAX));
    let row: UserRow = sql_query(
        "UPDATE users SET concurrent_calls_limit = coalesce($2, concurrent_calls_limit), \
         direct_reserved_slots = coalesce($3, direct_reserved_slots), \
         weight = coalesce($4, weight), \
         credits = CASE WHEN $5 THEN $6 ELSE credits END, \
         campaign_calls_per_second = CASE WHEN $13 THEN $14 ELSE campaign_calls_per_second END, \
         max_queued_direct_calls = CASE WHEN $7 THEN $8 ELSE max_queued_direct_calls END, \
         max_queued_campaign_calls = CASE WHEN $9 THEN $10 ELSE max_queued_campaign_calls END, \
         max_calls_per_number_per_day = \
             CASE WHEN $11 THEN $12 ELSE max_calls_per_number_per_day END, updated_at = now() \
         WHERE id = $1 RETURNING *",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Nullable<Integer>, _>(change.concurrent_calls_limit.map(limit_column))
    .bind::<Nullable<Integer>, _>(reserved)
    .bind::<Nullable<Integer>, _>(change.weight.map(|weight| i32::from(weight.get())))
    .bind::<Bool, _>(change.credits.is_some())
    .bind::<Nullable<BigInt>, _>(change.credits.flatten())
    .bind::<Bool, _>(change.max_queued_direct_calls.is_some())
    .bind::<Nullable<Integer>, _>(change.max_queued_direct_calls.flatten().map(cap_column))
    .bind::<Bool, _>(change.max_queued_campaign_calls.is_some())
    .bind::<Nullable<Integer>, _>(change.max_queued_campaign_calls.flatten().map(cap_column))
    .bind::<Bool, _>(change.max_calls_per_number_per_day.is_some())
    .bind::<Nullable<Integer>, _>(
        (change.max_calls_per_number_per_day.flatten()).map(|limit| i32::from(limit.get())),
    )
    .bind::<Bool, _>(change.campaign_calls_per_second.is_some())
    .bind::<Nullable<Double>, _>(
        change
            .campaign_calls_per_second
            .flatten()
            .map(CallRate::get),
    )
    .get_result(conn)?;
    row.into_user()
}

#[derive(QueryableByName)]
struct GaugesRow {
    #[diesel(embed)]
    load: LoadRow,
    #[diesel(sql_type = BigInt)]
    unknown: i64,
    #[diesel(sql_type = BigInt)]
    violations: i64,
    #[diesel(sql_type = Double)]
    oldest_snapshot_seconds: f64,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
}

fn gauges_on_conn(conn: &mut PgConnection) -> Result<SystemGauges, Failure> {
    let system = system_state_on_conn(conn)?;
    let row: GaugesRow = sql_query(
        "SELECT coalesce(sum(s.due_direct::bigint + s.later_direct), 0)::bigint AS direct_queued, \
             coalesce(sum(s.active_direct), 0)::bigint AS direct_processing, \
             (SELECT coalesce(sum(l.due::bigint + l.later), 0)::bigint \
                 FROM campaign_counts l JOIN campaigns c ON c.id = l.campaign_id \
                 WHERE l.due + l.later > 0 AND c.status <> 'draft') AS campaign_queued, \
             coalesce(sum(s.active_campaign), 0)::bigint AS campaign_processing, \
             (SELECT count(*) FROM active_calls WHERE unknown_since IS NOT NULL) AS unknown, \
             (SELECT count(*) FROM priority_violations) AS violations, \
             (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) \
                 FROM pg_stat_activity WHERE backend_xmin IS NOT NULL \
                     AND datname = current_database() AND pid <> pg_backend_pid() \
             )::double precision AS oldest_snapshot_seconds, \
             now() AS at \
         FROM user_slots s",
    )
    .get_result(conn)?;
    let seconds = row.oldest_snapshot_seconds;
    Ok(SystemGauges {
        slots: system.slots,
        direct: row.load.direct()?,
        campaign: row.load.campaign()?,
        unknown: count("active_calls", row.unknown)?,
        priority_violations: count("priority_violations", row.violations)?,
        oldest_snapshot: Duration::try_from_secs_f64(seconds.max(0.0))
            .map_err(|_| unreadable("pg_stat_activity.xact_start", seconds))?,
        at: row.at,
    })
}
