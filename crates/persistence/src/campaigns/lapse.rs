//! When campaign calls give up by themselves: a default of the whole system, judged once, as they are
//! laid out. So starting a campaign stays one row's change, whatever its size.

use callq_domain::{CampaignFields, StoreError};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::Failure;
use crate::rows::unreadable;

#[derive(QueryableByName)]
struct LifeRow {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Integer>)]
    seconds: Option<i32>,
    #[diesel(sql_type = Text)]
    time_zone: String,
}

/// When calls of a campaign that are laid out now expire, if they do. Their time counts from now, or
/// from the campaign's next hours if these come later: nobody is to expire before it could be called.
pub(super) fn lapses_at(
    conn: &mut PgConnection,
    user: Uuid,
    fields: &CampaignFields,
) -> Result<Option<DateTime<Utc>>, Failure> {
    let life: LifeRow = sql_query(
        "SELECT engine_now() AS now, y.campaign_call_ttl_seconds AS seconds, u.time_zone \
         FROM users u CROSS JOIN system_state y WHERE u.id = $1",
    )
    .bind::<SqlUuid, _>(user)
    .get_result(conn)?;
    let Some(seconds) = life.seconds else {
        return Ok(None);
    };
    let zone = fields
        .zone(&life.time_zone)
        .ok_or_else(|| unreadable("users.time_zone", &life.time_zone))?;
    let hours = fields
        .hours()
        .map_err(|error| StoreError::Internal(format!("a campaign's hours: {error}")))?;
    let from = hours
        .next_window(zone, life.now)
        .map_or(life.now, |window| window.opens_at.max(life.now));
    Ok(Some(from + TimeDelta::seconds(i64::from(seconds))))
}
