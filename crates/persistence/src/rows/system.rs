//! Rows about the whole system: its one row, and the limits a user's calls are held to.

use callq_domain::{AuditDifference, Concurrency, SlotUse, SystemState};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Integer, Text};

use super::small_count;
use crate::Failure;

/// The limits, the use and the switch of `system_state`.
#[derive(QueryableByName)]
pub(crate) struct SystemRow {
    #[diesel(sql_type = Integer)]
    concurrent_calls_limit: i32,
    #[diesel(sql_type = Integer)]
    active: i32,
    #[diesel(sql_type = Bool)]
    dispatch_paused: bool,
}

impl SystemRow {
    /// The columns this row is made of.
    pub(crate) const COLUMNS: &'static str = "concurrent_calls_limit, active, dispatch_paused";

    pub(crate) fn into_state(self) -> Result<SystemState, Failure> {
        Ok(SystemState {
            slots: slot_use(self.concurrent_calls_limit, self.active)?,
            dispatch_paused: self.dispatch_paused,
        })
    }
}

/// A limit beside its use.
pub(crate) fn slot_use(limit: i32, active: i32) -> Result<SlotUse, Failure> {
    Ok(SlotUse {
        limit: small_count("concurrent_calls_limit", limit)?,
        active: small_count("active", active)?,
    })
}

/// A user's limit and the system's, with their use.
#[derive(QueryableByName)]
pub(crate) struct ConcurrencyRow {
    #[diesel(sql_type = Integer)]
    user_limit: i32,
    #[diesel(sql_type = Integer)]
    user_active: i32,
    #[diesel(sql_type = Integer)]
    direct_reserved_slots: i32,
    #[diesel(sql_type = Integer)]
    system_limit: i32,
    #[diesel(sql_type = Integer)]
    system_active: i32,
}

impl ConcurrencyRow {
    pub(crate) fn into_concurrency(self) -> Result<Concurrency, Failure> {
        Ok(Concurrency {
            user: slot_use(self.user_limit, self.user_active)?,
            system: slot_use(self.system_limit, self.system_active)?,
            direct_reserved_slots: small_count(
                "users.direct_reserved_slots",
                self.direct_reserved_slots,
            )?,
        })
    }
}

/// A difference that `audit_counters` found.
#[derive(QueryableByName)]
pub(crate) struct AuditRow {
    #[diesel(sql_type = Text)]
    counter: String,
    #[diesel(sql_type = Text)]
    subject: String,
    #[diesel(sql_type = BigInt)]
    kept: i64,
    #[diesel(sql_type = BigInt)]
    counted: i64,
}

impl From<AuditRow> for AuditDifference {
    fn from(row: AuditRow) -> Self {
        Self {
            counter: row.counter,
            subject: row.subject,
            kept: row.kept,
            counted: row.counted,
        }
    }
}
