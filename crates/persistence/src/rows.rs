//! Rows as PostgreSQL hands them over, kept apart from domain types, and the conversions between
//! them. A row that no domain type can hold is a defect: it answers `StoreError::Internal` and
//! names its column, never its neighbours.

pub(crate) mod call;
pub(crate) mod campaign;
pub(crate) mod campaign_contact;
pub(crate) mod directory;
pub(crate) mod item;
pub(crate) mod json;
pub(crate) mod system;
pub(crate) mod user;

use std::fmt::Display;

use callq_domain::{CallRate, CampaignId, Origin, ProviderName, StoreError};
use uuid::Uuid;

use crate::Failure;

/// What is answered for a value that no domain type can hold.
pub(crate) fn unreadable(column: &str, value: impl Display) -> Failure {
    StoreError::Internal(format!(
        "{column} holds {value}, which this build cannot read"
    ))
    .into()
}

/// A count, which is never negative.
pub(crate) fn count(column: &str, value: i64) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_| unreadable(column, value))
}

/// A count of at most 2³¹, which is never negative.
pub(crate) fn small_count(column: &str, value: i32) -> Result<u32, Failure> {
    u32::try_from(value).map_err(|_| unreadable(column, value))
}

/// Calls a second.
pub(crate) fn call_rate(column: &str, value: f64) -> Result<CallRate, Failure> {
    CallRate::per_second(value).ok_or_else(|| unreadable(column, value))
}

/// A provider's name.
pub(crate) fn provider(column: &str, text: &str) -> Result<ProviderName, Failure> {
    ProviderName::new(text).ok_or_else(|| unreadable(column, text))
}

/// What asked for a call: the pair that a CHECK keeps matched.
pub(crate) fn origin(
    column: &str,
    call_type: &str,
    campaign_id: Option<Uuid>,
) -> Result<Origin, Failure> {
    match (call_type, campaign_id) {
        ("direct", None) => Ok(Origin::Direct),
        ("campaign", Some(id)) => Ok(Origin::Campaign(CampaignId::from(id))),
        (other, _) => Err(unreadable(column, other)),
    }
}
